//! A TLS handshake that verifies nothing and keeps what the other side showed: what is wrong with a certificate is judged
//! elsewhere, all at once.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use shiplock_core::facts::examination::TlsOutcome;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// How long a handshake may take. An API server waits for a webhook no longer than 30 s, by default 10 s.
const LIMIT: Duration = Duration::from_secs(8);

/// Takes every certificate.
#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let mut schemes =
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes();
        schemes.extend([SignatureScheme::RSA_PKCS1_SHA1, SignatureScheme::ECDSA_SHA1_Legacy]);
        schemes
    }
}

/// Shakes hands over a stream, under a name.
pub async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin, server_name: &str) -> TlsOutcome {
    let failed = |why: String| TlsOutcome::Failed { why };
    let Ok(name) = ServerName::try_from(server_name.to_owned()) else {
        return failed(format!("`{server_name}` is no name of a server"));
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Any)).with_no_client_auth(),
        Err(error) => return TlsOutcome::NotSeen { why: error.to_string() },
    };
    let connector = TlsConnector::from(Arc::new(config));
    match tokio::time::timeout(LIMIT, connector.connect(name, stream)).await {
        Err(_) => failed(format!("no TLS handshake within {} s", LIMIT.as_secs())),
        Ok(Err(error)) => failed(format!("no TLS handshake: {error}")),
        Ok(Ok(connected)) => {
            let chain = connected.get_ref().1.peer_certificates().unwrap_or_default();
            TlsOutcome::Presented { chain: chain.iter().map(|der| STANDARD.encode(der)).collect() }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const NAME: &str = "hook.shop.svc";

    /// What one server gives to one that dials it.
    async fn dialled<F: Future<Output = ()>>(serve: impl FnOnce(TcpStream) -> F) -> TlsOutcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async { serve(listener.accept().await.unwrap().0).await };
        let client = async { handshake(TcpStream::connect(address).await.unwrap(), NAME).await };
        tokio::select! {
            outcome = client => outcome,
            (_, outcome) = async { tokio::join!(server, std::future::pending::<TlsOutcome>()) } => outcome,
        }
    }

    fn server(names: &[&str]) -> (CertificateDer<'static>, tokio_rustls::TlsAcceptor) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let der = made.cert.der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key.into())
            .unwrap();
        (der, tokio_rustls::TlsAcceptor::from(Arc::new(config)))
    }

    #[tokio::test]
    async fn whatever_a_listener_shows_is_kept_and_nothing_is_verified() {
        for names in [&[NAME][..], &["other"], &[]] {
            let (der, acceptor) = server(names);
            let outcome = dialled(|stream| async move {
                let _kept = acceptor.accept(stream).await;
                std::future::pending::<()>().await;
            })
            .await;
            assert_eq!(outcome, TlsOutcome::Presented { chain: vec![STANDARD.encode(&der)] }, "{names:?}");
        }
    }

    #[tokio::test]
    async fn plain_text_a_closed_connection_and_one_that_hangs_are_failures_with_their_reason() {
        let failure = |outcome| match outcome {
            TlsOutcome::Failed { why } => why,
            other => panic!("{other:?}"),
        };
        let plain = dialled(|mut stream| async move {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            std::future::pending::<()>().await;
        });
        assert!(failure(plain.await).starts_with("no TLS handshake: "));
        let closed = dialled(|stream| async move {
            drop(stream);
            std::future::pending::<()>().await;
        });
        assert!(failure(closed.await).starts_with("no TLS handshake: "));
        // Time stands still but for what is waited for.
        tokio::time::pause();
        let (silent, _held) = tokio::io::duplex(1 << 16);
        assert_eq!(failure(handshake(silent, NAME).await), "no TLS handshake within 8 s");
        let (stream, _held) = tokio::io::duplex(1 << 16);
        assert_eq!(failure(handshake(stream, "not a name").await), "`not a name` is no name of a server");
    }
}
