//! The agents' way in: TLS with our certificate, and the agent's where it has one already.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use shiplock_core::problem::{Code, Problem};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::{AgentIdentity, Authority};
use crate::http::connection::{Admitted, Entrance};

/// Without a certificate there is only enrolment, which is done within this time.
const STRANGER_LIFETIME: Duration = Duration::from_secs(60);

/// What the connection tells of an agent.
#[derive(Clone, Debug)]
pub(crate) struct AgentPeer {
    /// Who its certificate is for; none where it showed none.
    pub(crate) identity: Option<Arc<AgentIdentity>>,
}

/// The listener.
pub(crate) struct AgentEntrance {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl AgentEntrance {
    /// Serves a listener under these names.
    pub(crate) fn new(
        listener: TcpListener,
        authority: &Authority,
        names: &[String],
        now: Timestamp,
    ) -> Result<Self, Problem> {
        let (chain, key) = authority.gateway_certificate(names, now)?;
        let configure = || -> Result<ServerConfig, Box<dyn std::error::Error>> {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate().clone())?;
            let provider = super::tls_provider();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            let verifier = verifier.allow_unauthenticated().build()?;
            let mut configuration = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_client_cert_verifier(verifier)
                .with_single_cert(chain, key)?;
            configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Ok(configuration)
        };
        let configuration = configure().map_err(|error| {
            Problem::new(Code::Internal).with("what", "TLS for agents cannot be set up").because(&*error)
        })?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(configuration)) })
    }
}

impl Entrance for AgentEntrance {
    type Raw = TcpStream;
    type Stream = TlsStream<TcpStream>;
    type Peer = AgentPeer;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    async fn admit(&self, stream: TcpStream) -> Option<Admitted<TlsStream<TcpStream>, AgentPeer>> {
        let _ = stream.set_nodelay(true);
        let stream = match self.acceptor.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "an agent's TLS handshake failed");
                return None;
            }
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let identity = certificate.and_then(AgentIdentity::of).map(Arc::new);
        let lifetime = identity.is_none().then_some(STRANGER_LIFETIME);
        Some(Admitted { stream, peer: AgentPeer { identity }, lifetime })
    }
}
