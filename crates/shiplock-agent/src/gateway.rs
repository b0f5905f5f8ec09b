//! The way to the server: JSON over HTTPS, always opened by the agent, with a certificate on both sides.
//!
//! The server is known by its installation's certificate authority and nothing else: that authority signs server
//! certificates for gateways only, so any of them is right, under whatever name or address it is reached. The system's
//! trust store is never asked, and no proxy is used.

use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use shiplock_api::agent::{
    BACKUP_HEADER, BACKUP_PATH, BackupAnswer, BackupOffer, BackupQuestion, ENROL_PATH, EXAMINATION_PATH, EnrolRequest,
    EnrolResponse, ExaminationReport, KeptBackup, PERMIT_PATH, POLL_PATH, PermitRequest, PermitResponse, PollRequest,
    PollResponse, RENEW_PATH, REPORT_PATH, RenewRequest, RenewResponse, Report, ReportResponse,
};
use shiplock_api::rest::ProblemBody;
use shiplock_core::problem::{Code, Problem};

use crate::files::{self, hexadecimal};
use crate::identity::Identity;
use crate::upload::{self, UploadError};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The server holds a poll for 10 s and an answer of its driver for 20 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayError {
    /// The server cannot be reached, or is in trouble: it is asked again soon.
    Unreachable(String),
    /// The server refuses, for a reason that does not pass by itself.
    Refused(Box<Problem>),
}

/// What the agent asks of its server.
pub trait Gateway {
    /// Asks for work.
    async fn poll(&self, request: &PollRequest) -> Result<PollResponse, GatewayError>;
    /// Asks for a permit.
    async fn permit(&self, request: &PermitRequest) -> Result<PermitResponse, GatewayError>;
    /// Reports.
    async fn report(&self, report: &Report) -> Result<ReportResponse, GatewayError>;
    /// Tells what was found on the node.
    async fn examined(&self, report: &ExaminationReport) -> Result<ReportResponse, GatewayError>;
    /// Asks about the backup of an attempt.
    async fn find_backup(&self, question: &BackupQuestion) -> Result<BackupAnswer, GatewayError>;
    /// Hands a backup over: the file at the path.
    async fn send_backup(&self, offer: &BackupOffer, path: &Path) -> Result<KeptBackup, GatewayError>;
}

/// The server over HTTPS.
#[derive(Debug)]
pub struct HttpsGateway {
    /// The connections under the certificate in use.
    link: RefCell<Link>,
    server: String,
    /// That the pinned authority was not presented, and what was.
    not_pinned: Arc<OnceLock<Problem>>,
}

#[derive(Clone, Debug)]
struct Link {
    client: reqwest::Client,
    /// Counts the certificates that were used before.
    number: u64,
}

/// Whom to trust.
#[derive(Debug)]
pub enum Trust {
    /// Exactly this certificate authority.
    Authority(CertificateDer<'static>),
    /// The certificate authority among those presented whose public key (SubjectPublicKeyInfo, DER) has this SHA-256.
    Pin([u8; 32]),
}

/// A certificate chain and its key.
type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn unusable(what: &str, error: impl std::fmt::Display) -> Problem {
    Problem::new(Code::BadOption).with("option", what).with("value", "…").with("why", error)
}

impl HttpsGateway {
    /// The gateway of an enrolled agent.
    pub fn enrolled(identity: &Identity) -> Result<Self, Problem> {
        let (trust, pair) = Self::credentials(identity)?;
        Self::open(&identity.server, trust, Some(pair))
    }

    /// Goes on under another certificate of the same server. Requests under way end as they began.
    pub fn use_identity(&self, identity: &Identity) -> Result<(), Problem> {
        let renewed = Self::enrolled(identity)?;
        let mut link = self.link.borrow_mut();
        *link = Link { client: renewed.link.into_inner().client, number: link.number + 1 };
        Ok(())
    }

    fn credentials(identity: &Identity) -> Result<(Trust, Credentials), Problem> {
        let authority =
            CertificateDer::from_pem_slice(identity.ca_pem.as_bytes()).map_err(|error| unusable("ca", error))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes()).collect();
        let chain = chain.map_err(|error| unusable("certificate", error))?;
        let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|error| unusable("key", error))?;
        Ok((Trust::Authority(authority), (chain, key)))
    }

    /// The gateway of an agent that is about to enrol.
    pub fn to_enrol(server: &str, pin: [u8; 32]) -> Result<Self, Problem> {
        Self::open(server, Trust::Pin(pin), None)
    }

    fn open(server: &str, trust: Trust, identity: Option<Credentials>) -> Result<Self, Problem> {
        if !server.starts_with("https://") {
            return Err(Problem::new(Code::BadOption)
                .with("option", "--server")
                .with("value", server)
                .with("why", "it must begin with https://"));
        }
        let not_pinned = Arc::new(OnceLock::new());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(GatewayVerifier {
            server: server.to_owned(),
            trust,
            provider: provider.clone(),
            not_pinned: not_pinned.clone(),
        });
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable("tls", error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match identity {
            Some((chain, key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|error| unusable("certificate", error))?
            }
            None => builder.with_no_client_auth(),
        };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .timeout(ANSWER_LIMIT)
            .pool_max_idle_per_host(2)
            .build()
            .map_err(|error| Problem::new(Code::Internal).with("what", "the HTTPS client").because(&error))?;
        let link = RefCell::new(Link { client, number: 0 });
        Ok(Self { link, server: server.trim_end_matches('/').to_owned(), not_pinned })
    }

    /// Enrols.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolResponse, GatewayError> {
        let answer = self.post(ENROL_PATH, request).await;
        match self.not_pinned.get() {
            Some(problem) => Err(GatewayError::Refused(Box::new(problem.clone()))),
            None => answer,
        }
    }

    /// Asks for a new certificate for the node of the one in use.
    pub async fn renew(&self, request: &RenewRequest) -> Result<RenewResponse, GatewayError> {
        self.post(RENEW_PATH, request).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, GatewayError> {
        loop {
            let link = self.link.borrow().clone();
            let answer = self.post_over(&link.client, path, body).await;
            let retired =
                matches!(&answer, Err(GatewayError::Refused(problem)) if problem.code == Code::CertificateUnknown);
            // Sent under the certificate that was replaced meanwhile: nothing was done, so it is asked anew.
            if !(retired && self.link.borrow().number != link.number) {
                return answer;
            }
        }
    }

    async fn post_over<T: DeserializeOwned>(
        &self,
        client: &reqwest::Client,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, GatewayError> {
        let request = client.post(format!("{}{path}", self.server)).json(body);
        read_answer(request.send().await.map_err(lost)?).await
    }
}

fn lost(error: reqwest::Error) -> GatewayError {
    GatewayError::Unreachable(in_full(&error.without_url()))
}

async fn read_answer<T: DeserializeOwned>(mut response: reqwest::Response) -> Result<T, GatewayError> {
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(lost)? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(GatewayError::Unreachable("the answer is too long".to_owned()));
        }
    }
    if status.is_success() {
        return serde_json::from_slice(&bytes)
            .map_err(|error| GatewayError::Unreachable(format!("the answer cannot be read: {error}")));
    }
    let body: Option<ProblemBody> = serde_json::from_slice(&bytes).ok();
    match body {
        // A full disk and content that is not what was announced do not pass by asking again.
        Some(body) if status.is_client_error() || matches!(body.code, Code::DiskFull | Code::DigestMismatch) => {
            Err(GatewayError::Refused(Box::new(body.problem)))
        }
        Some(body) => Err(GatewayError::Unreachable(body.problem.to_string())),
        None => Err(GatewayError::Unreachable(format!("the server answers {status}"))),
    }
}

impl Gateway for HttpsGateway {
    async fn poll(&self, request: &PollRequest) -> Result<PollResponse, GatewayError> {
        self.post(POLL_PATH, request).await
    }

    async fn permit(&self, request: &PermitRequest) -> Result<PermitResponse, GatewayError> {
        self.post(PERMIT_PATH, request).await
    }

    async fn report(&self, report: &Report) -> Result<ReportResponse, GatewayError> {
        self.post(REPORT_PATH, report).await
    }

    async fn examined(&self, report: &ExaminationReport) -> Result<ReportResponse, GatewayError> {
        self.post(EXAMINATION_PATH, report).await
    }

    async fn find_backup(&self, question: &BackupQuestion) -> Result<BackupAnswer, GatewayError> {
        self.post(BACKUP_PATH, question).await
    }

    async fn send_backup(&self, offer: &BackupOffer, path: &Path) -> Result<KeptBackup, GatewayError> {
        let refused = |problem| GatewayError::Refused(Box::new(problem));
        let description = serde_json::to_string(offer).map_err(|error| refused(unusable("the snapshot", error)))?;
        let link = self.link.borrow().clone();
        let request = link.client.put(format!("{}{BACKUP_PATH}", self.server)).header(BACKUP_HEADER, description);
        match upload::send(request, path).await {
            Ok(response) => read_answer(response).await,
            Err(UploadError::Way(error)) => Err(lost(error)),
            Err(UploadError::File(error)) => Err(refused(files::unusable(path, "this node", "read", &error))),
            Err(UploadError::Silence(time)) => {
                Err(GatewayError::Unreachable(format!("the server took nothing for {} s", time.as_secs())))
            }
        }
    }
}

pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// The pin of a certificate: the SHA-256 of its SubjectPublicKeyInfo.
pub fn pin_of(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(Sha256::digest(parsed.public_key().raw).into())
}

/// Reads `sha256:HEX`.
pub fn parse_pin(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "a pin is sha256: and 64 hexadecimal digits".to_owned();
    let digits =
        text.strip_prefix("sha256:").filter(|digits| digits.len() == 64 && digits.is_ascii()).ok_or_else(wrong)?;
    let mut pin = [0; 32];
    for (byte, at) in pin.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?;
    }
    Ok(pin)
}

#[derive(Debug)]
struct GatewayVerifier {
    server: String,
    trust: Trust,
    provider: Arc<CryptoProvider>,
    not_pinned: Arc<OnceLock<Problem>>,
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = match &self.trust {
            Trust::Authority(authority) => authority.clone(),
            Trust::Pin(pin) => {
                let pinned = others.iter().find(|other| pin_of(other).as_ref() == Some(pin));
                pinned.map(|found| found.clone().into_owned()).ok_or_else(|| {
                    let seen: Vec<String> =
                        others.iter().filter_map(pin_of).map(|pin| format!("sha256:{}", hexadecimal(&pin))).collect();
                    let seen = if seen.is_empty() { "no authority".to_owned() } else { seen.join(", ") };
                    let problem = Problem::new(Code::ServerNotPinned)
                        .with("server", &self.server)
                        .with("found", seen)
                        .with("pin", format!("sha256:{}", hexadecimal(pin)));
                    // The first handshake says it; a second would say the same.
                    let _ = self.not_pinned.set(problem);
                    rustls::Error::from(CertificateError::UnknownIssuer)
                })?
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        // Also asks for the key usage of a server, so that another node's agent cannot pose as one.
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(leaf)?,
            &roots,
            others,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        certificate: CertificateDer<'static>,
    }

    fn authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn leaf(authority: &Authority, usage: ExtendedKeyUsagePurpose) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["elsewhere".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        params.signed_by(&KeyPair::generate().unwrap(), &authority.issuer).unwrap().der().clone()
    }

    #[test]
    fn only_a_server_certificate_of_the_pinned_authority_is_taken() {
        let (ours, other) = (authority(), authority());
        let server = |of: &Authority| leaf(of, ExtendedKeyUsagePurpose::ServerAuth);
        let cases = [
            ("ours", server(&ours), vec![ours.certificate.clone()], true),
            ("an agent's", leaf(&ours, ExtendedKeyUsagePurpose::ClientAuth), vec![ours.certificate.clone()], false),
            ("another authority's", server(&other), vec![other.certificate.clone()], false),
            (
                "another's beside the pinned one",
                server(&other),
                vec![other.certificate, ours.certificate.clone()],
                false,
            ),
            ("without its authority", server(&ours), vec![], false),
        ];
        for (what, leaf, others, taken) in cases {
            let trust = Trust::Pin(pin_of(&ours.certificate).unwrap());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let name = ServerName::try_from("anything").unwrap();
            let (server, not_pinned) = (String::new(), Arc::default());
            let found = GatewayVerifier { server, trust, provider, not_pinned }.verify_server_cert(
                &leaf,
                &others,
                &name,
                &[],
                UnixTime::now(),
            );
            assert_eq!(found.is_ok(), taken, "{what}: {found:?}");
        }
    }

    #[test]
    fn a_pin_is_read_and_everything_else_is_refused() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(parse_pin(&text), Ok([10; 32]));
        for wrong in ["", "sha256:", "0a", &text[1..], &format!("{text}0"), &format!("sha256:{}", "é".repeat(32))] {
            assert!(parse_pin(wrong).is_err(), "{wrong}");
        }
    }
}
