//! Who this agent is: what enrolment left in the data folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use shiplock_core::id::{ClusterName, NodeName};
use shiplock_core::problem::Problem;

use crate::files;
use crate::gateway::pin_of;

/// Where the agent keeps its things unless told otherwise.
pub const DEFAULT_DATA_FOLDER: &str = "/var/lib/shiplock-agent";
const IDENTITY: &str = "identity.json";
const JOURNAL: &str = "journal";

/// Everything that `run` needs. One file, so that a change is whole or none.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The server's gateway, `https://…`.
    pub server: String,
    /// The cluster that the token was for.
    pub cluster: ClusterName,
    /// The node that this agent speaks for.
    pub node: NodeName,
    /// The private key, PEM.
    pub key_pem: String,
    /// The certificate, PEM.
    pub certificate_pem: String,
    /// The certificate authority of the installation, PEM.
    pub ca_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} of {} at {})", self.node, self.cluster, self.server)
    }
}

impl Identity {
    /// Reads it.
    pub fn load(data_folder: &Path) -> Result<Self, Problem> {
        let path = data_folder.join(IDENTITY);
        let text = fs::read_to_string(&path).map_err(|error| {
            files::unusable(&path, "this node", "read", &error).cause("run `shiplock-agent join` first")
        })?;
        serde_json::from_str(&text).map_err(|error| files::unusable(&path, "this node", "read", &error.into()))
    }

    /// The pin of the certificate authority of the installation; none where its certificate cannot be read.
    pub fn authority_pin(&self) -> Option<[u8; 32]> {
        pin_of(&CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).ok()?)
    }

    /// Writes it, readable for the owner only. The fence of another installation does not hold for this one: its
    /// journal is put aside.
    pub fn store(&self, data_folder: &Path) -> Result<(), Problem> {
        let path = data_folder.join(IDENTITY);
        let unwritable = |error: io::Error| files::unusable(&path, "this node", "written", &error);
        fs::create_dir_all(data_folder).map_err(unwritable)?;
        fs::set_permissions(data_folder, std::os::unix::fs::PermissionsExt::from_mode(0o700)).map_err(unwritable)?;
        let same = Self::load(data_folder)
            .is_ok_and(|old| old.ca_pem == self.ca_pem && old.cluster == self.cluster && old.node == self.node);
        if !same && journal_path(data_folder).exists() {
            files::rename(&journal_path(data_folder), &data_folder.join("journal.previous")).map_err(unwritable)?;
        }
        let text = serde_json::to_string_pretty(self).map_err(|error| unwritable(error.into()))?;
        // An older file's mode is not kept here: nobody else may ever read the key.
        files::remove(&files::beside(&path)).map_err(unwritable)?;
        let place = files::write_beside(&text, &path, 0o600).map_err(unwritable)?;
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(unwritable)?;
        files::rename(&place, &path).map_err(unwritable)
    }
}

/// The journal's place.
pub fn journal_path(data_folder: &Path) -> PathBuf {
    data_folder.join(JOURNAL)
}
