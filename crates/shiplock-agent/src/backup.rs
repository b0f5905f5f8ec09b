//! What a step replaces, kept until the next step of its kind, so that it can be put back.
//!
//! A backup is taken once for an attempt: a step that is resumed finds it and never keeps the new in place of the old.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
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

impl Backup {
    /// Keeps the files in a folder, or finds what was kept there before. Other backups beside it are removed.
    pub fn take(folder: &Path, targets: &[PathBuf]) -> io::Result<Self> {
        if let Some(backup) = Self::find(folder) {
            return Ok(backup);
        }
        if let Some(parent) = folder.parent() {
            for other in fs::read_dir(parent).into_iter().flatten().flatten() {
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
        let mut kept_files = Vec::new();
        for target in targets {
            let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let kept = target.is_file().then_some(name);
            if let Some(name) = &kept {
                let kept = folder.join(name);
                files::remove(&kept)?;
                // A second name is enough for an executable, which is replaced by a rename and never written to while it
                // may run; a configuration may be written to.
                let is_executable = fs::metadata(target)?.permissions().mode() & 0o111 != 0;
                if !is_executable || fs::hard_link(target, &kept).is_err() {
                    files::rename(&files::place_beside(target, &kept)?, &kept)?;
                }
            }
            kept_files.push(KeptFile { target: target.clone(), kept });
        }
        let backup = Self { folder: folder.to_owned(), files: kept_files };
        // The list is written last: a backup that a crash cut has none and is taken again.
        files::replace(&folder.join(LIST), &serde_json::to_string(&backup)?, 0o600)?;
        Ok(backup)
    }

    /// What was kept before.
    pub fn find(folder: &Path) -> Option<Self> {
        fs::read_to_string(folder.join(LIST)).ok().and_then(|text| serde_json::from_str(&text).ok())
    }

    /// The files that were there: where each was, and where it is kept.
    pub fn kept(&self) -> impl Iterator<Item = (&PathBuf, PathBuf)> {
        self.files.iter().filter_map(|file| Some((&file.target, self.folder.join(file.kept.as_ref()?))))
    }

    /// Puts everything back. May be repeated.
    pub fn restore(&self) -> io::Result<()> {
        for file in &self.files {
            match &file.kept {
                Some(name) => {
                    let place = files::place_beside(&self.folder.join(name), &file.target)?;
                    files::rename(&place, &file.target)?;
                }
                None => files::remove(&file.target)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn an_executable_is_kept_under_a_second_name_and_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let (program, configuration) = (folder.path().join("kubelet"), folder.path().join("config.yaml"));
        for (path, mode) in [(&program, 0o750), (&configuration, 0o644)] {
            fs::write(path, "old").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let backup =
            Backup::take(&folder.path().join("previous/u1"), &[program.clone(), configuration.clone()]).unwrap();
        let kept: Vec<PathBuf> = backup.kept().map(|(_, kept)| kept).collect();
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&kept[0]), inode(&program), "nothing is copied");
        assert_eq!(fs::metadata(&program).unwrap().mode() & 0o7777, 0o750);
        assert_ne!(inode(&kept[1]), inode(&configuration), "kubeadm writes to it in place");
        // Replaced as steps do it, and put back.
        let staged = folder.path().join("staged");
        fs::write(&staged, "new").unwrap();
        files::rename(&files::link_beside(&staged, &program).unwrap(), &program).unwrap();
        fs::write(&configuration, "new").unwrap();
        assert_eq!(fs::read_to_string(&kept[0]).unwrap(), "old");
        backup.restore().unwrap();
        assert_eq!([&program, &configuration].map(|path| fs::read_to_string(path).unwrap()), ["old", "old"]);
        assert_eq!(fs::metadata(&program).unwrap().mode() & 0o7777, 0o750);
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
