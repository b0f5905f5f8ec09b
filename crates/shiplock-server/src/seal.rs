//! Sealing of secrets at rest: kubeconfigs and the key of the certificate authority are stored only in this form.
//!
//! The key lies in a file of its own, so that a copy of the store alone opens nothing. It must never be logged,
//! sent or stored beside what it seals, and a key file that others can read is refused.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Prk};
use ring::rand::{SecureRandom, SystemRandom};
use shiplock_core::problem::{Code, Problem};

/// The length of the key in bytes.
const KEY_LENGTH: usize = 32;
/// The first byte of everything sealed: names the form, so that another cipher can follow.
const FORM: u8 = 1;

/// Seals and opens. What is sealed for one purpose does not open for another.
pub struct Seal {
    key: LessSafeKey,
    /// The same key, from which others are derived.
    root: Prk,
    random: SystemRandom,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// Reads the key file; makes it when there is none.
    pub fn open_or_create(path: &Path) -> Result<Self, Problem> {
        match Self::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(|error| unusable(path, "written").because(&error))?;
                Self::open(path)
            }
            other => other,
        }
        .map_err(|error| unusable(path, "used").because(&error))
    }

    /// A seal whose key is gone with the process, for a store in memory.
    pub fn ephemeral() -> Self {
        Self::with_key(&rand::random())
    }

    fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).custom_flags(no_follow()).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.mode() & 0o077 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(io::Error::other(format!("its mode is {mode:04o}; only its owner may read it: chmod 600")));
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other(format!("it belongs to user {}", metadata.uid())));
        }
        let mut key = [0; KEY_LENGTH];
        if metadata.len() != KEY_LENGTH as u64 {
            return Err(io::Error::other(format!("it has {} bytes, a key has {KEY_LENGTH}", metadata.len())));
        }
        file.read_exact(&mut key)?;
        Ok(Self::with_key(&key))
    }

    fn with_key(key: &[u8; KEY_LENGTH]) -> Self {
        // The key is uniformly random, so it needs no extraction (RFC 5869, section 3.3).
        let root = Prk::new_less_safe(HKDF_SHA256, key);
        let key = UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length");
        Self { key: LessSafeKey::new(key), root, random: SystemRandom::new() }
    }

    /// A key for a purpose and a salt, by HKDF-SHA-256; it tells nothing of this one.
    pub(crate) fn derive_key(&self, purpose: &str, salt: &[u8]) -> [u8; KEY_LENGTH] {
        let mut key = [0; KEY_LENGTH];
        let information = [b"shiplock ", purpose.as_bytes(), b"\0", salt];
        let derived = self.root.expand(&information, HKDF_SHA256).and_then(|derived| derived.fill(&mut key));
        derived.expect("HKDF gives a key of its hash's length");
        key
    }

    /// Seals a secret for a purpose.
    pub fn seal(&self, purpose: &str, secret: &[u8]) -> Result<Vec<u8>, Problem> {
        let failed =
            || Problem::new(Code::Internal).with("what", "the system gives no random numbers or the cipher failed");
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(|_| failed())?;
        let mut content = secret.to_vec();
        self.key
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose.as_bytes()), &mut content)
            .map_err(|_| failed())?;
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + content.len());
        sealed.push(FORM);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&content);
        Ok(sealed)
    }

    /// Opens what was sealed for the same purpose.
    pub fn open_sealed(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, Problem> {
        let refused = || {
            Problem::new(Code::FileUnusable)
                .with("path", "seal.key")
                .with("subject", "this server")
                .with("operation", "used")
                .cause(format!("{purpose} does not open with it: it was sealed with another key, or was changed"))
        };
        let Some((&FORM, rest)) = sealed.split_first() else { return Err(refused()) };
        let (nonce, content) = rest.split_at_checked(NONCE_LEN).ok_or_else(refused)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| refused())?;
        let mut content = content.to_vec();
        let secret =
            self.key.open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut content).map_err(|_| refused())?;
        Ok(secret.to_vec())
    }
}

fn no_follow() -> i32 {
    i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default()
}

/// Makes the key file whole or not at all: written aside, synced, then linked, which fails where there is one.
fn create(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let aside = directory.join(format!(".seal.key.{}", std::process::id()));
    // A rest of a process that was killed here, with the same id.
    let _ = fs::remove_file(&aside);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(&rand::random::<[u8; KEY_LENGTH]>())?;
        file.sync_all()?;
        match fs::hard_link(&aside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    })();
    let _ = fs::remove_file(&aside);
    written?;
    File::open(directory)?.sync_all()
}

fn unusable(path: &Path, operation: &str) -> Problem {
    Problem::new(Code::FileUnusable)
        .with("path", path.display())
        .with("subject", "this server")
        .with("operation", operation)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_opens_only_with_its_key_for_its_purpose_and_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        let seal = Seal::open_or_create(&path).unwrap();
        let sealed = seal.seal("kubeconfig of lab", b"secret").unwrap();
        assert_ne!(sealed, seal.seal("kubeconfig of lab", b"secret").unwrap(), "each sealing has its own nonce");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(Seal::open_or_create(&path).unwrap().open_sealed("kubeconfig of lab", &sealed).unwrap(), b"secret");
        assert!(seal.open_sealed("kubeconfig of other", &sealed).is_err());
        assert!(Seal::ephemeral().open_sealed("kubeconfig of lab", &sealed).is_err());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(seal.open_sealed("kubeconfig of lab", &changed).is_err(), "byte {index}");
            assert!(seal.open_sealed("kubeconfig of lab", &sealed[..index]).is_err(), "cut at {index}");
        }
    }

    #[test]
    fn a_derived_key_belongs_to_its_key_file_its_purpose_and_its_salt() {
        let seal = Seal::with_key(&[7; KEY_LENGTH]);
        let key = seal.derive_key("backup", b"salt");
        assert_eq!(Seal::with_key(&[7; KEY_LENGTH]).derive_key("backup", b"salt"), key);
        assert_ne!(key, [7; KEY_LENGTH]);
        for other in [
            seal.derive_key("backup", b"other"),
            seal.derive_key("other", b"salt"),
            Seal::ephemeral().derive_key("backup", b"salt"),
        ] {
            assert_ne!(other, key);
        }
    }

    #[test]
    fn a_new_key_file_is_the_owners_alone_and_one_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        Seal::open_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left aside");
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(Seal::open_or_create(&path).unwrap_err().code, Code::FileUnusable, "{mode:o}");
        }
    }

    #[test]
    fn a_key_file_of_another_length_or_kind_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        for content in [&b""[..], b"short", &[0; 33]] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(Seal::open_or_create(&path).is_err());
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(Seal::open_or_create(&path).is_err());
    }
}
