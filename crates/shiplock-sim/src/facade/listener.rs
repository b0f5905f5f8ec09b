//! The façade over HTTPS on loopback, for clients in other processes: kubectl, and the production client by a kubeconfig.
//!
//! Each has a certificate authority of its own that lives as long as the process, and a token; whoever does not bring it
//! is refused as by a real API server.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use shiplock_core::problem::{Code, Problem};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::{BoxError, Service as _};

use super::service::{Facade, ResponseBody, refusal};
use super::status::Refusal;

/// The way into one simulated cluster: who it trusts and whom its clients trust.
pub struct Credentials {
    ca_pem: String,
    token: String,
    config: Arc<ServerConfig>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// Makes an authority, a server certificate for loopback, and takes the token that clients must bring.
    pub fn new(token: String) -> Result<Self, Problem> {
        let internal = |error: rcgen::Error| {
            Problem::new(Code::Internal).with("what", "certificates of a simulated cluster").because(&error)
        };
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        ca.distinguished_name.push(DnType::CommonName, "simulated cluster");
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().map_err(internal)?).map_err(internal)?;
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let mut server = CertificateParams::new(names).map_err(internal)?;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(internal)?;
        let certificate = server.signed_by(&key, &ca).map_err(internal)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let unusable = |error: rustls::Error| {
            Problem::new(Code::Internal).with("what", "TLS of a simulated cluster").because(&error)
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone(), ca.der().clone()], key)
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { ca_pem: ca.pem(), token, config: Arc::new(config) })
    }

    /// A kubeconfig that stands alone, JSON.
    pub fn kubeconfig(&self, name: &str, server: SocketAddr) -> String {
        let authority = STANDARD.encode(&self.ca_pem);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": format!("https://{server}"), "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        })
        .to_string()
    }
}

/// Listens on loopback, on a port that nobody has.
pub async fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// Serves for as long as it is polled; connections end with it.
pub async fn serve(listener: TcpListener, facade: Facade, credentials: Arc<Credentials>) {
    let acceptor = TlsAcceptor::from(credentials.config.clone());
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // Too many files are open: some will be closed.
                Err(_) => {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let (acceptor, facade, credentials) = (acceptor.clone(), facade.clone(), credentials.clone());
        connections.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let service =
                hyper::service::service_fn(move |request| answer(facade.clone(), credentials.clone(), request));
            // How a connection ends is its client's business.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(
    mut facade: Facade,
    credentials: Arc<Credentials>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, BoxError> {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given.and_then(|value| value.strip_prefix("Bearer ")) != Some(&credentials.token) {
        let mut response = refusal(&Refusal::new(401, "Unauthorized", "Unauthorized"));
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return Ok(response);
    }
    facade.call(request).await
}
