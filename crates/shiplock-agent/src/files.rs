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
    place_dressed(source, target, &Dress::of(target, 0o755))
}

/// The same for a target that is of no use any more: where the file system is full it makes room, and is away until the place
/// is renamed.
pub fn place_instead(source: &Path, target: &Path) -> io::Result<PathBuf> {
    let dress = Dress::of(target, 0o755);
    match place_dressed(source, target, &dress) {
        Err(error) if is_full(&error) && target.exists() => {
            remove(target)?;
            place_dressed(source, target, &dress)
        }
        placed => placed,
    }
}

fn place_dressed(source: &Path, target: &Path, dress: &Dress) -> io::Result<PathBuf> {
    let place = beside(target);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let from = File::open(source)?;
    let mut to = create_anew(&place)?;
    let placed = copy(from, |piece| to.write_all(piece)).and_then(|()| {
        dress.put_on(&to)?;
        to.sync_all()
    });
    if let Err(error) = placed {
        // Half of it would only take what is left to others.
        let _ = remove(&place);
        return Err(error);
    }
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
    Dress::of(target, mode).put_on(&to)?;
    to.sync_all()?;
    Ok(place)
}

/// A new file in place of what a crash may have left under the name. It is never written into: it might have other names.
fn create_anew(path: &Path) -> io::Result<File> {
    remove(path)?;
    File::create_new(path)
}

/// What a file has besides its content.
struct Dress {
    /// User and group.
    owner: Option<(u32, u32)>,
    mode: u32,
    /// Of SELinux; without that there is none, and nothing to keep.
    context: Vec<u8>,
}

impl Dress {
    /// That of a file; where there is none, the owner that writes, a mode, and the context of the folder.
    fn of(path: &Path, mode: u32) -> Self {
        let Ok(metadata) = fs::metadata(path) else { return Self { owner: None, mode, context: Vec::new() } };
        let mut context = [0; 256];
        let length = rustix::fs::getxattr(path, SECURITY_CONTEXT, &mut context[..]).unwrap_or(0);
        Self {
            owner: Some((metadata.uid(), metadata.gid())),
            mode: metadata.mode() & 0o7777,
            context: context[..length].to_vec(),
        }
    }

    fn put_on(&self, file: &File) -> io::Result<()> {
        if let Some((user, group)) = self.owner {
            std::os::unix::fs::fchown(file, Some(user), Some(group))?;
        }
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        if !self.context.is_empty() {
            let _ = rustix::fs::fsetxattr(file, SECURITY_CONTEXT, &self.context, XattrFlags::empty());
        }
        Ok(())
    }
}

/// Files that wait beside their targets. What of them is not in place when this ends goes: a step that failed before its swap
/// leaves nothing behind.
#[derive(Debug, Default)]
pub struct Placed(Vec<(PathBuf, PathBuf)>);

impl Placed {
    /// Adds one.
    pub fn push(&mut self, place: PathBuf, target: PathBuf) {
        self.0.push((place, target));
    }

    /// The targets.
    pub fn targets(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.iter().map(|(_, target)| target)
    }

    /// Renames each over its target, one after another. The error comes with the target.
    pub fn put_in_place(&self) -> Result<(), (&Path, io::Error)> {
        self.0.iter().try_for_each(|(place, target)| rename(place, target).map_err(|error| (target.as_path(), error)))
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for (place, _) in &self.0 {
            // A file that stays costs space and nothing else.
            let _ = remove(place);
        }
    }
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
    fn what_waits_beside_its_target_goes_when_it_is_not_put_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let [source, first, second] = ["source", "kubelet", "kubectl"].map(|name| folder.path().join(name));
        fs::write(&source, "new").unwrap();
        let place = |targets: &[&PathBuf]| {
            let mut placed = Placed::default();
            targets.iter().for_each(|target| placed.push(place_beside(&source, target).unwrap(), (*target).clone()));
            placed
        };
        drop(place(&[&first, &second]));
        assert!([&first, &second].iter().all(|target| !beside(target).exists() && !target.exists()));
        fs::create_dir(&second).unwrap();
        let placed = place(&[&first, &second]);
        assert_eq!(placed.put_in_place().unwrap_err().0, second);
        drop(placed);
        assert_eq!(fs::read_to_string(&first).unwrap(), "new");
        assert!(!beside(&second).exists());
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
