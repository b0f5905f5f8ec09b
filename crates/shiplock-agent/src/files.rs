//! Files are replaced, never overwritten: written beside, synced, renamed. A running program's file cannot be
//! written to, and a crash must leave the old or the new, never half of one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use sha2::{Digest as _, Sha256};
use shiplock_core::problem::{Code, Problem};

const COPY_BYTES: usize = 64 << 10;
const SECURITY_CONTEXT: &str = "security.selinux";

/// A file that cannot be used, with the system's reason.
pub fn unusable(path: &Path, subject: &str, operation: &str, error: &io::Error) -> Problem {
    Problem::new(Code::FileUnusable)
        .with("path", path.display())
        .with("subject", subject)
        .with("operation", operation)
        .because(error)
}

/// Whether a file system has no room left.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
        text
    })
}

/// The SHA-256 of a file, read piece by piece.
pub fn sha256(file: File) -> io::Result<String> {
    let mut digest = Sha256::new();
    copy(file, |piece| {
        digest.update(piece);
        Ok(())
    })?;
    Ok(hexadecimal(&digest.finalize()))
}

/// Reads to the end, piece by piece.
pub(crate) fn copy(mut from: impl io::Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The name beside a target under which its next content waits.
pub fn beside(target: &Path) -> PathBuf {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!(".{name}.shiplock-new"))
}

/// Copies a file to the place beside its target, with the target's owner, mode and file context, and syncs it.
/// A target that does not exist yet gets mode 0755 and the context of its folder.
pub fn place_beside(source: &Path, target: &Path) -> io::Result<PathBuf> {
    let place = beside(target);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let from = File::open(source)?;
    let mut to = create_anew(&place)?;
    let placed = copy(from, |piece| to.write_all(piece)).and_then(|()| {
        dress(&to, target, 0o755)?;
        to.sync_all()
    });
    if let Err(error) = placed {
        // Half of it would only take what is left to others.
        let _ = remove(&place);
        return Err(error);
    }
    Ok(place)
}

/// The same for a target that is of no use any more: where the file system is full it makes room, and is away until the place
/// is renamed.
pub fn place_instead(source: &Path, target: &Path) -> io::Result<PathBuf> {
    let error = match place_beside(source, target) {
        Err(error) if is_full(&error) => error,
        placed => return placed,
    };
    let Ok(metadata) = fs::metadata(target) else { return Err(error) };
    remove(target)?;
    let place = place_beside(source, target)?;
    std::os::unix::fs::chown(&place, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(&place, metadata.permissions())?;
    Ok(place)
}

/// Writes text to the place beside its target, dressed like the target.
pub fn write_beside(text: &str, target: &Path, mode: u32) -> io::Result<PathBuf> {
    let place = beside(target);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut to = create_anew(&place)?;
    to.write_all(text.as_bytes())?;
    dress(&to, target, mode)?;
    to.sync_all()?;
    Ok(place)
}

/// A new file in place of what a crash may have left under the name. It is never written into: it might have other names.
fn create_anew(path: &Path) -> io::Result<File> {
    remove(path)?;
    File::create_new(path)
}

fn dress(file: &File, like: &Path, mode: u32) -> io::Result<()> {
    let Ok(metadata) = fs::metadata(like) else {
        return file.set_permissions(fs::Permissions::from_mode(mode));
    };
    std::os::unix::fs::fchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
    file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    // Without SELinux there is no such attribute, and nothing to keep.
    let mut context = [0; 256];
    if let Ok(length) = rustix::fs::getxattr(like, SECURITY_CONTEXT, &mut context[..]) {
        let _ = rustix::fs::fsetxattr(file, SECURITY_CONTEXT, &context[..length], XattrFlags::empty());
    }
    Ok(())
}

/// Renames and syncs the folder.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Replaces a small file: beside, sync, rename.
pub fn replace(target: &Path, text: &str, mode: u32) -> io::Result<()> {
    let place = write_beside(text, target, mode)?;
    rename(&place, target)
}

/// Makes `link` point to a file, in one act also where it points elsewhere so far.
pub fn link(file: &Path, link: &Path) -> io::Result<()> {
    let place = beside(link);
    link.parent().map_or(Ok(()), fs::create_dir_all)?;
    remove(&place)?;
    std::os::unix::fs::symlink(file, &place)?;
    rename(&place, link)
}

/// Removes a file; one that is not there is removed already.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_mode_and_owner_and_a_new_one_gets_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("source"), folder.path().join("bin/kubelet"));
        fs::write(&source, "new").unwrap();
        rename(&place_beside(&source, &target).unwrap(), &target).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o755);
        fs::set_permissions(&target, fs::Permissions::from_mode(0o750)).unwrap();
        rename(&place_beside(&source, &target).unwrap(), &target).unwrap();
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o7777, 0o750);
        assert!(!beside(&target).exists());
    }

    #[test]
    fn what_a_crash_left_beside_a_target_is_not_written_into() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("source"), folder.path().join("kubelet"));
        fs::write(&source, "new").unwrap();
        fs::write(&target, "old").unwrap();
        fs::hard_link(&target, beside(&target)).unwrap();
        let place = place_beside(&source, &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
        rename(&place, &target).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
    }

    #[test]
    fn digests_are_read_piece_by_piece_and_written_in_lower_case() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(File::open(&path).unwrap()).unwrap(), expected);
        assert_eq!(hexadecimal(&[0, 0x0f, 0xa5]), "000fa5");
    }
}
