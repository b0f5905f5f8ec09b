//! Which manifests this agent put in force as kubeadm had rendered them, by digest.
//!
//! Where the components go back and etcd stays, no kubeadm renders all of what is in force, and yet nobody edited it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::files;

/// In the agent's folder.
const FILE: &str = "manifests-written.json";
/// Of some upgrades.
const KEPT_MAX: usize = 64;

fn digest(text: &str) -> String {
    files::hexadecimal(&Sha256::digest(text))
}

fn list(data_folder: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(data_folder.join(FILE)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Whether a text was put in force by this agent.
pub fn is_ours(data_folder: &Path, text: &str) -> bool {
    list(data_folder).contains(&digest(text))
}

/// Remembers texts. Of too many, the others are forgotten: then they are compared with kubeadm's word again.
pub fn remember<'a>(data_folder: &Path, texts: impl Iterator<Item = &'a String>) -> io::Result<()> {
    let mut list = list(data_folder);
    if list.len() > KEPT_MAX {
        list.clear();
    }
    list.extend(texts.map(|text| digest(text)));
    files::replace(&data_folder.join(FILE), &serde_json::to_string(&list)?, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_known_again_until_it_is_edited() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        remember(folder, [&"a".to_owned(), &"b".to_owned()].into_iter()).unwrap();
        remember(folder, std::iter::once(&"c".to_owned())).unwrap();
        assert!(["a", "b", "c"].iter().all(|text| is_ours(folder, text)));
        assert!(!is_ours(folder, "a "));
    }
}
