//! A TLS handshake that verifies nothing and keeps what the other side showed: what is wrong with a certificate is judged
//! elsewhere, all at once, by whoever knows under which authority it should be.
//!
//! It is used over a port-forward through an API server and from the agent of a node. It must never send anything but the
//! handshake, and nothing may be trusted for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use shiplock_core::facts::examination::TlsOutcome;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_rustls::TlsConnector;

/// How long a handshake may take. An API server waits for a webhook no longer than 30 s, by default 10 s.
const LIMIT: Duration = Duration::from_secs(8);
/// How long a server that asked for a certificate may take to refuse whoever has none.
const REFUSAL_LIMIT: Duration = Duration::from_millis(500);

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
        // Those that Go's TLS has too: nothing is verified here.
        schemes.extend([
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
        ]);
        schemes
    }
}

/// Has no certificate for a server that asks for one, and notes that it was asked.
#[derive(Debug, Default)]
struct Nobody {
    was_asked: AtomicBool,
}

impl ResolvesClientCert for Nobody {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// Shakes hands over a stream, under a name.
pub async fn handshake(stream: impl AsyncRead + AsyncWrite + Unpin, server_name: &str) -> TlsOutcome {
    let failed = |why: String| TlsOutcome::Failed { why };
    let Ok(name) = ServerName::try_from(server_name.to_owned()) else {
        return failed(format!("`{server_name}` is no name of a server"));
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let nobody = Arc::new(Nobody::default());
    let config = match ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions() {
        Ok(builder) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any))
            .with_client_cert_resolver(Arc::<Nobody>::clone(&nobody)),
        Err(error) => return TlsOutcome::NotSeen { why: error.to_string() },
    };
    let connector = TlsConnector::from(Arc::new(config));
    match tokio::time::timeout(LIMIT, connector.connect(name, stream)).await {
        Err(_) => failed(format!("no TLS handshake within {} s", LIMIT.as_secs())),
        Ok(Err(error)) if may_be_ours(&error) => lacking(&error),
        Ok(Err(error)) => failed(format!("no TLS handshake: {error}")),
        Ok(Ok(mut connected)) => {
            // In TLS 1.3 a server says after the handshake that it takes nobody without a certificate.
            if nobody.was_asked.load(Ordering::Relaxed) {
                let answer = tokio::time::timeout(REFUSAL_LIMIT, connected.read_u8()).await;
                if let Ok(Err(error)) = answer
                    && may_be_ours(&error)
                {
                    return lacking(&error);
                }
            }
            let chain = connected.get_ref().1.peer_certificates().unwrap_or_default();
            TlsOutcome::Presented { chain: chain.iter().map(|der| STANDARD.encode(der)).collect() }
        }
    }
}

fn lacking(error: &std::io::Error) -> TlsOutcome {
    TlsOutcome::NotSeen { why: format!("what dialled it may lack what an API server has: {error}") }
}

/// Whether a handshake may have failed for want of a client's certificate, or of ciphers that Go's TLS has and this one
/// has not: that says nothing of how an API server fares.
fn may_be_ours(error: &std::io::Error) -> bool {
    use rustls::AlertDescription::{AccessDenied, BadCertificate, CertificateRequired, HandshakeFailure};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(
        inner,
        Some(rustls::Error::AlertReceived(HandshakeFailure | CertificateRequired | BadCertificate | AccessDenied))
    )
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
    async fn a_server_that_takes_nobody_without_a_certificate_is_unknown_and_one_that_only_asks_is_seen() {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let roots = Arc::new(roots);
        for (version, must) in [
            (&rustls::version::TLS13, true),
            (&rustls::version::TLS12, true),
            (&rustls::version::TLS13, false),
            (&rustls::version::TLS12, false),
        ] {
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider());
            let verifier = if must { verifier } else { verifier.allow_unauthenticated() }.build().unwrap();
            let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            let config = rustls::ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_client_cert_verifier(verifier)
                .with_single_cert(vec![made.cert.der().clone()], key.into())
                .unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let outcome = dialled(|stream| async move {
                let _kept = acceptor.accept(stream).await;
                std::future::pending::<()>().await;
            })
            .await;
            assert_eq!(matches!(outcome, TlsOutcome::NotSeen { .. }), must, "{version:?} {must}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_speaks_what_only_an_api_server_speaks_is_unknown_and_no_failure() {
        // The alert of a server that finds no cipher in common, or that wants a certificate.
        for alert in [40_u8, 116] {
            let outcome = dialled(|mut stream| async move {
                stream.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
                std::future::pending::<()>().await;
            })
            .await;
            assert!(matches!(outcome, TlsOutcome::NotSeen { .. }), "{alert}: {outcome:?}");
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
