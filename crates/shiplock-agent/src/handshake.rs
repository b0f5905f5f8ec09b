//! A TLS handshake that verifies nothing and tells what the other side showed. Whether that is well is judged by whoever
//! asked, who knows under which authority it should be.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use shiplock_core::facts::examination::{TlsOutcome, TlsTarget};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
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
        let provider = rustls::crypto::ring::default_provider();
        let mut schemes = provider.signature_verification_algorithms.supported_schemes();
        // Those that Go's TLS has too: nothing is verified here.
        schemes.extend([
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
        ]);
        schemes
    }
}

/// Shakes hands. Blocks for some seconds at most.
pub fn dial(target: &TlsTarget) -> TlsOutcome {
    match shake(target) {
        Ok(chain) => TlsOutcome::Presented { chain },
        Err(outcome) => outcome,
    }
}

fn shake(target: &TlsTarget) -> Result<Vec<String>, TlsOutcome> {
    let failed = |why: String| TlsOutcome::Failed { why };
    let name = ServerName::try_from(target.server_name.clone())
        .map_err(|_| failed(format!("`{}` is no name of a server", target.server_name)))?;
    let bounded = |error: std::io::Error| failed(error.to_string());
    let mut addresses = (target.host.as_str(), target.port).to_socket_addrs().map_err(bounded)?;
    let address = addresses.next().ok_or_else(|| failed("its name has no address".to_owned()))?;
    let mut socket = TcpStream::connect_timeout(&address, CONNECT_LIMIT).map_err(bounded)?;
    socket.set_read_timeout(Some(LIMIT)).map_err(bounded)?;
    socket.set_write_timeout(Some(LIMIT)).map_err(bounded)?;
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| failed(error.to_string()))?;
    let too_slow = || failed(format!("no TLS handshake within {} s", LIMIT.as_secs()));
    let begun = Instant::now();
    while connection.is_handshaking() {
        if begun.elapsed() > LIMIT {
            return Err(too_slow());
        }
        connection.complete_io(&mut socket).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => too_slow(),
            _ if may_be_ours(&error) => {
                TlsOutcome::NotSeen { why: format!("what dialled it may lack what an API server has: {error}") }
            }
            _ => failed(format!("no TLS handshake: {error}")),
        })?;
    }
    let chain = connection.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|der| STANDARD.encode(der)).collect())
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
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    fn target(port: u16) -> TlsTarget {
        TlsTarget { host: "127.0.0.1".to_owned(), port, server_name: "hook.shop.svc".to_owned() }
    }

    #[test]
    fn a_server_that_speaks_no_tls_or_is_not_there_fails_with_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let TlsOutcome::Failed { why } = dial(&target(port)) else { panic!("plain text is no handshake") };
        assert!(why.starts_with("no TLS handshake"), "{why}");
        server.join().unwrap();
        // The listener is gone with its thread.
        let TlsOutcome::Failed { why } = dial(&target(port)) else { panic!("nobody listens") };
        assert!(why.contains("refused"), "{why}");
    }

    #[test]
    fn what_a_server_shows_is_told_without_a_word_on_it() {
        let names = vec!["other.name".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let der = made.cert.der().clone();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der.clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            // Whoever dials hangs up when it has seen enough.
            while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
        });
        assert_eq!(dial(&target(port)), TlsOutcome::Presented { chain: vec![STANDARD.encode(&der)] });
        server.join().unwrap();
    }
}
