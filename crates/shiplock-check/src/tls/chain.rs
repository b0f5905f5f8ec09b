//! A chain of certificates, judged as Go's `crypto/x509` judges it for an API server.
//!
//! Sources: `Certificate.Verify` and `VerifyHostname` in <https://go.dev/src/crypto/x509/verify.go>; SHA-1 is refused
//! since Go 1.18 (Kubernetes 1.24), the common name is not looked at since Go 1.17 (Kubernetes 1.23).

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

/// No chain is longer.
const LENGTH_MAX: usize = 8;
/// No backend shows more certificates that are looked at, and no bundle holds more.
const CERTIFICATES_MAX: usize = 64;
/// Whoever shows a chain decides how many ways through it there are: so many signatures are verified, as in Go.
const SIGNATURES_MAX: u32 = 100;
/// `sha1WithRSAEncryption` and `ecdsa-with-SHA1`.
const SHA1: [&str; 2] = ["1.2.840.113549.1.1.5", "1.2.840.10045.4.1"];

/// Whether a chain leads to a trusted authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It does.
    Good,
    /// It does not.
    Untrusted(String),
    /// It could not be told.
    NotJudged(String),
}

/// What a chain is.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    /// The subject alternative names that a server can have.
    pub(super) names: Vec<String>,
    /// Whether one of them is the name that is asked for.
    pub(super) name_fits: bool,
    /// Seconds since 1970.
    pub(super) not_before: i64,
    /// Seconds since 1970.
    pub(super) not_after: i64,
    /// Whether it leads to `caBundle`.
    pub(super) trust: Trust,
    /// Whether a certificate that is verified is signed with SHA-1.
    pub(super) is_sha1: bool,
}

/// Judges a chain: DER in base64, its own certificate first. `authority` is `caBundle`: PEM in base64.
pub(super) fn judge_chain(
    chain: &[String],
    authority: &str,
    server_name: &str,
    now: Timestamp,
) -> Result<Judged, String> {
    let shown: Result<Vec<Vec<u8>>, _> =
        chain.iter().take(CERTIFICATES_MAX).map(|text| STANDARD.decode(text)).collect();
    let shown = shown.map_err(|_| "what it showed is no certificate".to_owned())?;
    let parsed: Result<Vec<X509Certificate<'_>>, _> =
        shown.iter().map(|der| X509Certificate::from_der(der).map(|(_, certificate)| certificate)).collect();
    let parsed = parsed.map_err(|_| "what it showed is no certificate".to_owned())?;
    let (Some(leaf), Some(leaf_der)) = (parsed.first(), shown.first()) else {
        return Err("it showed no certificate".to_owned());
    };
    let bundle = STANDARD.decode(authority.trim()).unwrap_or_default();
    let pems: Vec<Pem> = Pem::iter_from_buffer(&bundle).flatten().take(CERTIFICATES_MAX).collect();
    let roots: Vec<(&[u8], X509Certificate<'_>)> =
        pems.iter().filter_map(|pem| Some((&*pem.contents, pem.parse_x509().ok()?))).collect();
    let names = names_of(leaf);
    // A certificate that is in the bundle itself needs no signature: Go takes it as it is.
    let is_root = roots.iter().any(|(der, _)| *der == leaf_der.as_slice());
    let trust = if authority.is_empty() {
        let own = "caBundle is empty, so that the authorities on the API server's own machine count, which are not known here";
        Trust::NotJudged(own.to_owned())
    } else if let Some(why) = unheard_extension(leaf).or_else(|| not_for_servers(leaf)) {
        Trust::Untrusted(why)
    } else if is_root {
        Trust::Good
    } else {
        let roots: Vec<&X509Certificate<'_>> = roots.iter().map(|(_, root)| root).collect();
        let others: Vec<&X509Certificate<'_>> = parsed.iter().skip(1).collect();
        Way { others: &others, roots: &roots, now, signatures_left: SIGNATURES_MAX }.climb(&mut vec![leaf])
    };
    Ok(Judged {
        name_fits: fits(leaf, server_name),
        names,
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
        trust,
        is_sha1: !is_root && is_sha1(leaf),
    })
}

/// The way up from a certificate to a root, by names and signatures.
struct Way<'a, 'b> {
    others: &'a [&'a X509Certificate<'b>],
    roots: &'a [&'a X509Certificate<'b>],
    now: Timestamp,
    signatures_left: u32,
}

impl<'a, 'b> Way<'a, 'b> {
    /// Goes up from the last of these certificates, of which each is signed by the next.
    fn climb(&mut self, below: &mut Vec<&'a X509Certificate<'b>>) -> Trust {
        let Some(from) = below.last().copied().filter(|_| below.len() <= LENGTH_MAX) else {
            return Trust::Untrusted("the chain is too long".to_owned());
        };
        let mut best = Trust::Untrusted(format!("no authority `{}` is in caBundle", from.issuer()));
        let (roots, others) = (self.roots, self.others);
        let issuers = roots.iter().map(|root| (*root, true)).chain(others.iter().map(|other| (*other, false)));
        for (issuer, is_root) in issuers.filter(|(issuer, _)| issuer.subject().as_raw() == from.issuer().as_raw()) {
            if std::ptr::eq::<X509Certificate<'_>>(issuer, from) {
                continue;
            }
            let Some(left) = self.signatures_left.checked_sub(1) else {
                return Trust::NotJudged(format!("it shows a chain with more than {SIGNATURES_MAX} signatures"));
            };
            self.signatures_left = left;
            match from.verify_signature(Some(issuer.public_key())) {
                Ok(()) => {}
                Err(X509Error::SignatureUnsupportedAlgorithm) => {
                    best = Trust::NotJudged("its signature is of a kind that cannot be verified here".to_owned());
                    continue;
                }
                // The library that verifies takes no RSA keys under 2048 bits, which an API server does.
                Err(_) if is_small_rsa(issuer) => {
                    best = Trust::NotJudged("its authority has a key too small to be verified here".to_owned());
                    continue;
                }
                Err(_) => {
                    if !matches!(best, Trust::NotJudged(_)) {
                        let why = format!("it is not signed by the `{}` in caBundle", issuer.subject());
                        best = Trust::Untrusted(why);
                    }
                    continue;
                }
            }
            if below.len() > 1 && is_sha1(from) {
                best = Trust::Untrusted(format!("`{}` is signed with SHA-1", from.subject()));
            } else if let Some(why) = refused_issuer(issuer, below, self.now) {
                best = Trust::Untrusted(why);
            } else if is_root {
                return Trust::Good;
            } else {
                below.push(issuer);
                let above = self.climb(below);
                below.pop();
                match above {
                    Trust::Good => return Trust::Good,
                    other => best = other,
                }
            }
        }
        best
    }
}

/// Why a certificate is no authority over those below it, whose signature it has made.
fn refused_issuer(issuer: &X509Certificate<'_>, below: &[&X509Certificate<'_>], now: Timestamp) -> Option<String> {
    let (is_authority, length_max) = match issuer.basic_constraints() {
        Ok(Some(constraints)) => (constraints.value.ca, constraints.value.path_len_constraint),
        // The first forms of certificates had no such thing.
        _ => (issuer.version().0 < 2, None),
    };
    // No usage at all is any usage.
    let usage = issuer.key_usage().ok().flatten().map(|usage| usage.value);
    let may_sign = usage.is_none_or(|usage| usage.flags == 0 || usage.key_cert_sign());
    let subject = issuer.subject();
    let (begin, end) = (issuer.validity().not_before.timestamp(), issuer.validity().not_after.timestamp());
    if !is_authority {
        Some(format!("`{subject}` is no authority"))
    } else if !may_sign {
        Some(format!("the key usage of `{subject}` is not that of an authority"))
    } else if !(begin..=end).contains(&now.as_second()) {
        Some(format!("authority `{subject}` has expired or does not hold yet"))
    } else if length_max.is_some_and(|most| below.len() > most as usize + 1) {
        Some(format!("authority `{subject}` allows no such long chain"))
    } else if let Some(why) = unheard_extension(issuer).or_else(|| not_for_servers(issuer)) {
        Some(format!("authority `{subject}`: {why}"))
    } else {
        let outside = below.iter().find_map(|certificate| outside_constraints(issuer, certificate))?;
        Some(format!("authority `{subject}` may not sign for {outside}"))
    }
}

/// Extensions that Go handles; a certificate with another one that is critical is refused.
const EXTENSIONS: [&str; 13] = [
    "2.5.29.14",
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.32",
    "2.5.29.33",
    "2.5.29.35",
    "2.5.29.36",
    "2.5.29.37",
    "2.5.29.54",
    "1.3.6.1.5.5.7.1.1",
];

fn unheard_extension(certificate: &X509Certificate<'_>) -> Option<String> {
    let unheard = |id: &String| !EXTENSIONS.contains(&id.as_str());
    let mut critical = certificate.extensions().iter().filter(|extension| extension.critical);
    let id = critical.find_map(|extension| Some(extension.oid.to_id_string()).filter(unheard))?;
    Some(format!("it has the critical extension {id}, which no API server knows"))
}

/// A name of a certificate that an authority's name constraints leave out.
fn outside_constraints(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> Option<String> {
    let constraints = issuer.name_constraints().ok().flatten()?.value;
    let names = &certificate.subject_alternative_name().ok().flatten()?.value.general_names;
    let permitted = constraints.permitted_subtrees.as_deref().unwrap_or_default();
    let excluded = constraints.excluded_subtrees.as_deref().unwrap_or_default();
    let outside = |name: &&GeneralName<'_>| {
        let mut of_its_kind = permitted.iter().filter_map(|tree| is_within(name, &tree.base)).peekable();
        let is_left_out = of_its_kind.peek().is_some() && !of_its_kind.any(|is_within| is_within);
        is_left_out || excluded.iter().any(|tree| is_within(name, &tree.base) == Some(true))
    };
    names.iter().find(outside).map(|name| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => address(bytes).map_or_else(|| "an address".to_owned(), |own| own.to_string()),
        other => other.to_string(),
    })
}

/// Whether a name is within a constraint; nothing where that is of another kind of names.
fn is_within(name: &GeneralName<'_>, constraint: &GeneralName<'_>) -> Option<bool> {
    match (name, constraint) {
        (GeneralName::DNSName(name), GeneralName::DNSName(constraint)) => {
            let (name, constraint) = (name.to_lowercase(), constraint.to_lowercase());
            let parent = constraint.trim_start_matches('.');
            let is_child = name.strip_suffix(parent).is_some_and(|first| first.is_empty() || first.ends_with('.'));
            Some(constraint.is_empty() || (is_child && !(constraint.starts_with('.') && name == parent)))
        }
        (GeneralName::IPAddress(own), GeneralName::IPAddress(range)) => {
            let (base, mask) = range.split_at_checked(own.len())?;
            let bits = own.iter().zip(base).zip(mask);
            Some(mask.len() == own.len() && bits.into_iter().all(|((own, base), mask)| own & mask == base & mask))
        }
        _ => None,
    }
}

fn is_sha1(certificate: &X509Certificate<'_>) -> bool {
    SHA1.contains(&certificate.signature_algorithm.algorithm.to_id_string().as_str())
}

fn is_small_rsa(issuer: &X509Certificate<'_>) -> bool {
    use x509_parser::public_key::PublicKey;
    matches!(issuer.public_key().parsed(), Ok(PublicKey::RSA(key)) if key.key_size() < 2048)
}

/// Why a certificate cannot be a server's, by its extended key usage.
fn not_for_servers(leaf: &X509Certificate<'_>) -> Option<String> {
    let usage = leaf.extended_key_usage().ok().flatten()?.value;
    (!usage.any && !usage.server_auth).then(|| "its extended key usage is not that of a server".to_owned())
}

fn names_of(leaf: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
            _ => None,
        })
        .collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

fn fits(leaf: &X509Certificate<'_>, server_name: &str) -> bool {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return false };
    let own: Option<IpAddr> = server_name.parse().ok();
    extension.value.general_names.iter().any(|name| match (name, own) {
        (GeneralName::IPAddress(bytes), Some(own)) => address(bytes) == Some(own),
        (GeneralName::DNSName(pattern), None) => name_fits(pattern, server_name),
        _ => false,
    })
}

/// A wildcard stands for the whole first label and nothing else. A name in a certificate has no dot at its end.
fn name_fits(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_lowercase(), name.trim_end_matches('.').to_lowercase());
    match pattern.strip_prefix("*.") {
        Some(rest) => name.split_once('.').is_some_and(|(first, others)| !first.is_empty() && others == rest),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::name_fits;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        for (pattern, name, expected) in [
            ("hook.shop.svc", "hook.shop.svc", true),
            ("HOOK.shop.svc", "hook.shop.svc.", true),
            ("hook.shop.svc.", "hook.shop.svc", false),
            ("hook", "hook.shop.svc", false),
            ("hook.shop", "hook.shop.svc", false),
            ("*.shop.svc", "hook.shop.svc", true),
            ("*.svc", "hook.shop.svc", false),
            ("h*.shop.svc", "hook.shop.svc", false),
            ("*", "hook", false),
        ] {
            assert_eq!(name_fits(pattern, name), expected, "{pattern} {name}");
        }
    }
}
