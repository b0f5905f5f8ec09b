//! The certificate authority of the installation: agents trust it alone, and it alone says who an agent is.
//!
//! It is made once and kept in the store with its key sealed. Of a signing request it takes the public key and
//! nothing else: who the certificate is for comes from the join token, never from the request.

use std::fmt;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use shiplock_core::id::{ClusterName, NodeName};
use shiplock_core::plan::hexadecimal;
use shiplock_core::problem::{Code, Problem};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::seal::Seal;
use crate::store::{Store, StoreError};

/// The store's setting that holds the authority, and the purpose for which it is sealed.
const SETTING: &str = "certificate-authority";
/// A certificate is valid from this long ago, for clocks that run late.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);
/// How long an agent's certificate is valid. The agent renews it at two thirds of that.
const AGENT_LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How long the gateway's own certificate is valid. It is made anew at each start and its key is never stored.
const GATEWAY_LIFE: SignedDuration = SignedDuration::from_hours(2 * 365 * 24);
/// How long the authority is valid.
const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(20 * 365 * 24);
/// The bound that X.509 sets on a common name; the full name is in the subject alternative name.
const COMMON_NAME_MAX: usize = 64;
/// The beginning of the name that an agent's certificate carries.
const URI_PREFIX: &str = "shiplock://cluster/";
/// The beginning of the second name of a renewed certificate: the serial number of the one that it takes over from.
const SUCCEEDS_PREFIX: &str = "shiplock://succeeds/";

/// The authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    pin: String,
    agent_life: SignedDuration,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("pin", &self.pin).finish_non_exhaustive()
    }
}

/// What the store keeps, sealed.
#[derive(Serialize, Deserialize)]
struct Stored {
    certificate_pem: String,
    key_pem: String,
}

/// An agent's certificate, as handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentCertificate {
    /// The certificate, PEM.
    pub pem: String,
    /// Its serial number in lower-case hexadecimal digits.
    pub serial: String,
}

/// Who a certificate speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// The serial number in lower-case hexadecimal digits.
    pub serial: String,
    /// When the certificate ends. A connection may outlive it.
    pub ends_at: Timestamp,
    /// The serial number of the certificate that this one takes over from when it is first used; none at enrolment.
    pub succeeds: Option<String>,
}

impl Authority {
    /// The authority of the store; made when it has none.
    pub async fn open(store: &dyn Store, seal: &Seal, now: Timestamp) -> Result<Self, Problem> {
        let fresh = seal.seal(SETTING, &Self::make(now).map_err(|error| failed(&error))?)?;
        let sealed = store.setting(SETTING, fresh).await.map_err(StoreError::into_problem)?;
        Self::read(&seal.open_sealed(SETTING, &sealed)?).map_err(|error| failed(&*error))
    }

    fn make(now: Timestamp) -> Result<Vec<u8>, rcgen::Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut parameters = parameters(now, AUTHORITY_LIFE);
        parameters.distinguished_name = name("Shiplock agent authority", None);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key)?;
        let stored = Stored { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
        Ok(serde_json::to_vec(&stored).expect("two texts serialise"))
    }

    fn read(stored: &[u8]) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let Stored { certificate_pem, key_pem } = serde_json::from_slice(stored)?;
        let key = KeyPair::from_pem(&key_pem)?;
        let pin = format!("sha256:{}", hexadecimal(&Sha256::digest(key.subject_public_key_info())));
        let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())?;
        let certificate = CertificateDer::from(pem.contents);
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self { issuer, certificate, certificate_pem, pin, agent_life: AGENT_LIFE })
    }

    /// Signs agents' certificates for another time.
    #[cfg(test)]
    pub(crate) fn with_agent_life(self, agent_life: SignedDuration) -> Self {
        Self { agent_life, ..self }
    }

    /// `sha256:` and the digest of the authority's SubjectPublicKeyInfo, by which a new agent knows it.
    pub fn ca_pin(&self) -> &str {
        &self.pin
    }

    /// The authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// A new certificate for the gateway under these host names and addresses, and its key.
    pub fn gateway_certificate(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Problem> {
        let make = || {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
            let mut parameters = parameters(now, GATEWAY_LIFE);
            parameters.distinguished_name = name("shiplock", None);
            parameters.subject_alt_names = names
                .iter()
                .map(|name| match name.parse::<IpAddr>() {
                    Ok(address) => Ok(SanType::IpAddress(address)),
                    Err(_) => name.as_str().try_into().map(SanType::DnsName),
                })
                .collect::<Result<_, rcgen::Error>>()?;
            parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            let certificate = parameters.signed_by(&key, &self.issuer)?;
            Ok((vec![certificate.der().clone(), self.certificate.clone()], key))
        };
        let (chain, key) = make().map_err(|error: rcgen::Error| failed(&error))?;
        Ok((chain, PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))))
    }

    /// Signs an agent's certificate for a node of a cluster with the key of a signing request.
    pub fn sign_agent(
        &self,
        request: &AgentSigningRequest,
        cluster: &ClusterName,
        node: &NodeName,
        now: Timestamp,
    ) -> Result<AgentCertificate, Problem> {
        self.sign(request, cluster, node, None, now)
    }

    /// Signs a certificate that takes over from the one in force, for the same node of the same cluster.
    ///
    /// The certificate says itself which one it succeeds, so that nothing has to be kept until it is used: the agent
    /// may lose the answer, ask again, or crash before it has stored it, and the old one is good meanwhile.
    pub fn renew_agent(
        &self,
        request: &AgentSigningRequest,
        before: &AgentIdentity,
        now: Timestamp,
    ) -> Result<AgentCertificate, Problem> {
        self.sign(request, &before.cluster, &before.node, Some(&before.serial), now)
    }

    fn sign(
        &self,
        request: &AgentSigningRequest,
        cluster: &ClusterName,
        node: &NodeName,
        succeeds: Option<&str>,
        now: Timestamp,
    ) -> Result<AgentCertificate, Problem> {
        let mut parameters = parameters(now, self.agent_life);
        let serial = parameters.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        parameters.distinguished_name = name(node.as_str(), Some(cluster.as_str()));
        let own = format!("{URI_PREFIX}{cluster}/node/{node}");
        let names = std::iter::once(own).chain(succeeds.map(|serial| format!("{SUCCEEDS_PREFIX}{serial}")));
        let names = names.map(|name| name.as_str().try_into().map(SanType::URI));
        parameters.subject_alt_names = names.collect::<Result<_, rcgen::Error>>().map_err(|error| failed(&error))?;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&request.key, &self.issuer).map_err(|error| failed(&error))?;
        Ok(AgentCertificate { pem: certificate.pem(), serial: hexadecimal(&serial) })
    }
}

/// The public key of a signing request, whose holder proved to have the private one.
#[derive(Debug)]
pub struct AgentSigningRequest {
    key: rcgen::PublicKey,
}

/// The most characters of a signing request.
const REQUEST_CHARACTERS_MAX: usize = 16 * 1024;

impl AgentSigningRequest {
    /// Reads a request in PEM and checks its signature. Only elliptic curves are taken.
    pub fn parse(pem: &str) -> Result<Self, Problem> {
        let refused = |why: &dyn fmt::Display| Problem::new(Code::BadRequest).with("what", format!("csr_pem: {why}"));
        if pem.len() > REQUEST_CHARACTERS_MAX {
            return Err(refused(&"it is too long"));
        }
        let request = CertificateSigningRequestParams::from_pem(pem).map_err(|error| refused(&error))?;
        let algorithms = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
        if !algorithms.contains(&request.public_key.algorithm()) {
            return Err(refused(&"the key is neither ECDSA P-256, ECDSA P-384 nor Ed25519"));
        }
        Ok(Self { key: request.public_key })
    }
}

impl AgentIdentity {
    /// Reads a certificate that TLS has verified against the authority; none when it is not an agent's.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = &certificate.subject_alternative_name().ok()??.value.general_names;
        let (uri, succeeds) = match names.as_slice() {
            [GeneralName::URI(uri)] => (uri, None),
            [GeneralName::URI(uri), GeneralName::URI(succeeds)] => {
                (uri, Some(succeeds.strip_prefix(SUCCEEDS_PREFIX)?.to_owned()))
            }
            _ => return None,
        };
        let (cluster, node) = uri.strip_prefix(URI_PREFIX)?.split_once("/node/")?;
        if cluster.is_empty() || cluster.contains('/') || node.is_empty() || node.contains('/') {
            return None;
        }
        Some(Self {
            cluster: ClusterName::from(cluster),
            node: NodeName::from(node),
            serial: hexadecimal(certificate.raw_serial()),
            ends_at: Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?,
            succeeds,
        })
    }
}

fn parameters(now: Timestamp, life: SignedDuration) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |second: i64| epoch + std::time::Duration::from_secs(u64::try_from(second).unwrap_or_default());
    parameters.not_before = at(now.as_second() - BACKDATED.min(life).as_secs());
    parameters.not_after = at(now.as_second() + life.as_secs());
    // Random, positive and without leading zeros, so that every reader shows the same digits.
    let mut serial: [u8; 16] = rand::random();
    serial[0] = 0x40 | (serial[0] & 0x3f);
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.use_authority_key_identifier_extension = true;
    parameters
}

fn name(common_name: &str, organisation: Option<&str>) -> DistinguishedName {
    let bounded = |text: &str| text.chars().take(COMMON_NAME_MAX).collect::<String>();
    let mut name = DistinguishedName::new();
    if let Some(organisation) = organisation {
        name.push(DnType::OrganizationName, bounded(organisation));
    }
    name.push(DnType::CommonName, bounded(common_name));
    name
}

fn failed(error: &dyn std::error::Error) -> Problem {
    Problem::new(Code::Internal).with("what", "a certificate cannot be made or read").because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T12:00:00Z".parse().unwrap()
    }

    pub(crate) fn authority() -> Authority {
        Authority::read(&Authority::make(now()).unwrap()).unwrap()
    }

    fn request(key: &KeyPair, names: &[&str]) -> String {
        let mut parameters =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, "somebody-else");
        parameters.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn only_the_key_of_a_request_gets_into_the_certificate() {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let request = AgentSigningRequest::parse(&request(&key, &["evil.example"])).unwrap();
        let (cluster, node) = (ClusterName::from("lab"), NodeName::from("w1"));
        let signed = authority.sign_agent(&request, &cluster, &node, now()).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.pem.as_bytes()).unwrap();
        let der = CertificateDer::from(pem.contents);
        let identity = AgentIdentity::of(&der).unwrap();
        assert_eq!((identity.cluster, identity.node, identity.serial), (cluster, node, signed.serial));
        assert_eq!(identity.ends_at.as_second(), now().as_second() + 90 * 86_400);

        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(certificate.subject().to_string(), "O=lab, CN=w1");
        assert_eq!(certificate.validity().not_before.timestamp(), now().as_second() - 3_600);
        assert_eq!(certificate.public_key().raw, key.subject_public_key_info());
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
    }

    #[test]
    fn a_renewed_certificate_is_for_the_same_node_and_names_the_one_that_it_succeeds() {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let request = AgentSigningRequest::parse(&request(&key, &[])).unwrap();
        let read = |signed: &AgentCertificate| {
            let (_, pem) = x509_parser::pem::parse_x509_pem(signed.pem.as_bytes()).unwrap();
            AgentIdentity::of(&CertificateDer::from(pem.contents)).unwrap()
        };
        let first = read(&authority.sign_agent(&request, &"lab".into(), &"w1".into(), now()).unwrap());
        assert_eq!(first.succeeds, None);
        let second = read(&authority.renew_agent(&request, &first, now()).unwrap());
        assert_eq!((&second.cluster, &second.node), (&first.cluster, &first.node));
        assert_eq!(second.succeeds, Some(first.serial.clone()));
        assert_ne!(second.serial, first.serial);
        // The chain is one link long: a third certificate succeeds the second and says nothing of the first.
        assert_eq!(read(&authority.renew_agent(&request, &second, now()).unwrap()).succeeds, Some(second.serial));
    }

    #[test]
    fn requests_that_are_garbage_are_refused_and_two_certificates_never_share_a_serial() {
        let key = KeyPair::generate().unwrap();
        let good = request(&key, &[]);
        let flipped = good.replacen('B', "C", 3);
        for bad in [
            "",
            "x",
            "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
            &flipped,
            &"x".repeat(99_999),
        ] {
            assert_eq!(AgentSigningRequest::parse(bad).unwrap_err().code, Code::BadRequest);
        }
        let request = AgentSigningRequest::parse(&good).unwrap();
        let authority = authority();
        let sign = || authority.sign_agent(&request, &"lab".into(), &"w1".into(), now()).unwrap().serial;
        let (one, other) = (sign(), sign());
        assert_ne!(one, other);
        assert_eq!((one.len(), other.len()), (32, 32));
    }

    #[test]
    fn the_pin_is_the_digest_of_the_public_key_and_a_gateway_certificate_names_its_hosts() {
        let authority = authority();
        let (_, certificate) = X509Certificate::from_der(authority.certificate()).unwrap();
        assert_eq!(
            authority.ca_pin(),
            format!("sha256:{}", hexadecimal(&Sha256::digest(certificate.public_key().raw)))
        );
        let names = ["localhost".to_owned(), "10.0.0.1".to_owned(), "::1".to_owned()];
        let (chain, _) = authority.gateway_certificate(&names, now()).unwrap();
        assert_eq!(chain.len(), 2);
        assert_eq!(chain[1], *authority.certificate());
        let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
        assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 3);
        assert!(leaf.verify_signature(Some(certificate.public_key())).is_ok());
        assert_eq!(AgentIdentity::of(&chain[0]), None);
        assert_eq!(AgentIdentity::of(authority.certificate()), None);
    }
}
