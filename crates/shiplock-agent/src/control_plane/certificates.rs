//! Which certificate of a master ends first. Only ends are read; nothing is verified or changed.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use shiplock_core::facts::CertificateFacts;

use super::kubeconfig;
use crate::host::Host;

/// Where kubeadm keeps certificates.
pub const FOLDER: &str = "/etc/kubernetes/pki";
const KUBECONFIG_FOLDER: &str = "/etc/kubernetes";
const CA_KEY: &str = "/etc/kubernetes/pki/ca.key";

/// Every file with certificates: `*.crt` of kubeadm, and kubeconfigs.
pub fn files<H: Host>(host: &H) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [(FOLDER, "crt"), ("/etc/kubernetes/pki/etcd", "crt"), (KUBECONFIG_FOLDER, "conf")]
        .into_iter()
        .flat_map(|(folder, ending)| {
            let entries = fs::read_dir(host.at(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
            entries.filter(move |path| path.extension().is_some_and(|found| found == ending)).collect::<Vec<_>>()
        })
        .collect();
    found.sort();
    found
}

/// What a renewal writes anew: certificates with their keys, and kubeconfigs.
pub fn renewed_files<H: Host>(host: &H) -> Vec<PathBuf> {
    let with_key = |path: PathBuf| {
        let key = path.with_extension("key");
        [Some(path), Some(key).filter(|key| key.exists())].into_iter().flatten()
    };
    let ours = |path: &PathBuf| path.file_name().is_none_or(|name| name != "kubelet.conf" && name != "ca.crt");
    files(host).into_iter().filter(ours).flat_map(with_key).collect()
}

/// The facts. What cannot be read as a certificate is passed over.
pub fn facts<H: Host>(host: &H, files: &[PathBuf]) -> CertificateFacts {
    let first = files.iter().filter_map(|path| Some((end_of(host, path)?, path))).min_by_key(|(end, _)| *end);
    let (ends_at, first_to_end) = match first {
        Some((end, path)) => (end, host.node_path(path)),
        None => (Timestamp::UNIX_EPOCH, FOLDER.to_owned()),
    };
    CertificateFacts { first_to_end, ends_at, external_ca: !host.at(CA_KEY).exists() }
}

/// When the first certificate of a file ends; none where the file holds none.
pub fn end_of<H: Host>(host: &H, path: &Path) -> Option<Timestamp> {
    let pem = if path.extension().is_some_and(|ending| ending == "conf") {
        kubeconfig::certificate_pem(host, &fs::read_to_string(path).ok()?)?
    } else {
        fs::read(path).ok()?
    };
    // The first of a chain is the file's own.
    let der = CertificateDer::from_pem_slice(&pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The name of the node that a kubelet's client certificate is for: the common name is `system:node:NAME`.
pub fn node_name(pem: &[u8]) -> Option<String> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    name.strip_prefix("system:node:").map(str::to_owned)
}
