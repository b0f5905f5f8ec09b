//! What a step replaces, kept until the next step of its kind, so that it can be put back.
//!
//! A backup is taken once, and anew only when it was put back: a step that is resumed or tried again finds it, and never
//! keeps the new in place of the old.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files;

/// The files as they were before a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    folder: PathBuf,
    files: Vec<KeptFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptFile {
    target: PathBuf,
    /// The name in the folder; none when there was no such file.
    kept: Option<String>,
}

const LIST: &str = "backup.json";
/// There once everything was put back.
const RESTORED: &str = "restored";

impl Backup {
    /// Keeps the files in a folder, or finds what was kept there before and was not put back: where that failed, what is in
    /// place may be the new. Other backups beside it are removed.
    pub fn take(folder: &Path, targets: &[PathBuf]) -> io::Result<Self> {
        if let Some(backup) = Self::find(folder)
            && !folder.join(RESTORED).exists()
        {
            // What an attempt before did not replace is as it was.
            return backup.with(targets);
        }
        if let Some(parent) = folder.parent() {
            for other in fs::read_dir(parent).into_iter().flatten().flatten() {
                // The list first: half a backup is none.
                files::remove(&other.path().join(LIST))?;
                fs::remove_dir_all(other.path())?;
            }
        }
        Self::take_beside(folder, targets)
    }

    /// Keeps the files in a folder, or finds what was kept there before, and leaves what is beside it alone.
    pub fn take_beside(folder: &Path, targets: &[PathBuf]) -> io::Result<Self> {
        if let Some(backup) = Self::find(folder) {
            return Ok(backup);
        }
        fs::create_dir_all(folder)?;
        Self { folder: folder.to_owned(), files: Vec::new() }.with(targets)
    }

    /// With these files kept too, as far as they are not.
    fn with(mut self, targets: &[PathBuf]) -> io::Result<Self> {
        let before = self.files.len();
        for target in targets {
            if self.files.iter().any(|file| file.target == *target) {
                continue;
            }
            let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let kept = target.is_file().then_some(name);
            if let Some(name) = &kept {
                let kept = self.folder.join(name);
                files::rename(&files::place_beside(target, &kept)?, &kept)?;
            }
            self.files.push(KeptFile { target: target.clone(), kept });
        }
        if before > 0 && self.files.len() == before {
            return Ok(self);
        }
        // The list is written last: a backup that a crash cut has none and is taken again.
        files::replace(&self.folder.join(LIST), &serde_json::to_string(&self)?, 0o600)?;
        Ok(self)
    }

    /// What was kept before.
    pub fn find(folder: &Path) -> Option<Self> {
        fs::read_to_string(folder.join(LIST)).ok().and_then(|text| serde_json::from_str(&text).ok())
    }

    /// The files that were there: where each was, and where it is kept.
    pub fn kept(&self) -> impl Iterator<Item = (&PathBuf, PathBuf)> {
        self.files.iter().filter_map(|file| Some((&file.target, self.folder.join(file.kept.as_ref()?))))
    }

    /// Puts everything back. May be repeated. The next [`Self::take`] keeps what is there then, which somebody may have
    /// mended. The error names the file.
    pub fn restore(&self) -> io::Result<()> {
        for file in &self.files {
            self.put_back(file)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.target.display())))?;
        }
        // The old is in place: that a full disk has no room for the mark must not keep it from being started. Without the
        // mark the next attempt goes on keeping this, and not what is mended until then.
        let _ = files::replace(&self.folder.join(RESTORED), "", 0o600);
        Ok(())
    }

    fn put_back(&self, file: &KeptFile) -> io::Result<()> {
        match &file.kept {
            Some(name) => {
                let place = files::place_instead(&self.folder.join(name), &file.target)?;
                files::rename(&place, &file.target)
            }
            None => files::remove(&file.target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_stays_kept_until_it_was_put_back_and_what_was_mended_since_is_kept_then() {
        let folder = tempfile::tempdir().unwrap();
        let (program, place) = (folder.path().join("kubelet"), folder.path().join("previous/u1-3"));
        let targets = [program.clone()];
        fs::write(&program, "old").unwrap();
        Backup::take(&place, &targets).unwrap();
        fs::write(&program, "new").unwrap();
        // Another attempt, while the new is still in place; it replaces more.
        let configuration = folder.path().join("config.toml");
        fs::write(&configuration, "old").unwrap();
        let backup = Backup::take(&place, &[program.clone(), configuration.clone()]).unwrap();
        fs::write(&configuration, "new").unwrap();
        backup.restore().unwrap();
        assert_eq!([&program, &configuration].map(|path| fs::read_to_string(path).unwrap()), ["old", "old"]);
        fs::write(&program, "mended").unwrap();
        let backup = Backup::take(&place, &targets).unwrap();
        fs::write(&program, "new").unwrap();
        backup.restore().unwrap();
        assert_eq!(fs::read_to_string(&program).unwrap(), "mended");
    }

    #[test]
    fn a_mark_that_cannot_be_written_stops_nothing_and_a_file_that_cannot_be_put_back_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (program, place) = (folder.path().join("bin/kubelet"), folder.path().join("previous/u1-3"));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "old").unwrap();
        let backup = Backup::take(&place, std::slice::from_ref(&program)).unwrap();
        fs::write(&program, "new").unwrap();
        fs::create_dir(place.join(RESTORED)).unwrap();
        backup.restore().unwrap();
        assert_eq!(fs::read_to_string(&program).unwrap(), "old");
        fs::remove_dir_all(program.parent().unwrap()).unwrap();
        fs::write(program.parent().unwrap(), "").unwrap();
        let error = backup.restore().unwrap_err().to_string();
        assert!(error.contains(&program.display().to_string()), "{error}");
    }

    #[test]
    fn a_backup_is_taken_once_and_puts_back_what_was_and_removes_what_was_not() {
        let folder = tempfile::tempdir().unwrap();
        let (old, fresh) = (folder.path().join("kubelet"), folder.path().join("drop-in"));
        let place = folder.path().join("previous/u1-3-7");
        fs::create_dir_all(folder.path().join("previous/older")).unwrap();
        fs::write(&old, "old").unwrap();
        let targets = [old.clone(), fresh.clone()];
        let backup = Backup::take(&place, &targets).unwrap();
        fs::write(&old, "new").unwrap();
        fs::write(&fresh, "new").unwrap();
        assert_eq!(Backup::take(&place, &targets).unwrap(), backup, "the new is not kept in place of the old");
        for _ in 0..2 {
            backup.restore().unwrap();
            assert_eq!(fs::read_to_string(&old).unwrap(), "old");
            assert!(!fresh.exists());
        }
        assert!(!folder.path().join("previous/older").exists(), "one backup is kept");
    }
}
