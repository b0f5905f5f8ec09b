//! What upgrades of this master replaced and kept, so that it can be put back later.
//!
//! Each attempt has a folder of its own. Who plans a way back chooses among them by what is told here.

use std::fs;
use std::path::{Path, PathBuf};

use shiplock_core::facts::{ControlPlaneComponent, KeptControlPlane, KeptImage};
use shiplock_core::id::{StepNumber, UpgradeId};

use super::manifest::{self, Manifest};
use crate::backup::Backup;
use crate::host::Host;

const FOLDER: &str = "control-plane";
/// The name of the copies in an attempt's folder.
pub const OLD: &str = "old";
/// Attempts that are told of; a master has as many only where something was tried again and again.
const ATTEMPTS_MAX: usize = 32;

/// The folder of an attempt.
pub fn folder(data_folder: &Path, upgrade: &UpgradeId, step: StepNumber, intent: u64) -> PathBuf {
    data_folder.join(FOLDER).join(upgrade.as_str()).join(format!("{step}-{intent}"))
}

/// All copies that are whole, oldest attempt of an upgrade first.
pub fn read<H: Host>(host: &H, data_folder: &Path) -> Vec<KeptControlPlane> {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).take(ATTEMPTS_MAX).collect::<Vec<_>>()
    };
    let root = data_folder.join(FOLDER);
    let mut found = Vec::new();
    for upgrade in names(&root) {
        for attempt in names(&root.join(&upgrade)) {
            let numbers =
                attempt.split_once('-').and_then(|(step, intent)| Some((step.parse().ok()?, intent.parse().ok()?)));
            let Some((step, intent)) = numbers else { continue };
            let Some(backup) = Backup::find(&root.join(&upgrade).join(&attempt).join(OLD)) else { continue };
            let images = images(host, &backup);
            found.push(KeptControlPlane { upgrade: upgrade.as_str().into(), step: StepNumber(step), intent, images });
        }
    }
    found.sort_by(|one, other| (&one.upgrade, one.intent).cmp(&(&other.upgrade, other.intent)));
    found.truncate(ATTEMPTS_MAX);
    found
}

fn images<H: Host>(host: &H, backup: &Backup) -> Vec<KeptImage> {
    let image = |component: ControlPlaneComponent| {
        let path = host.at(&manifest::path(component));
        let (_, kept) = backup.kept().find(|(target, _)| **target == path)?;
        let manifest = Manifest::parse(component, &fs::read_to_string(kept).ok()?).ok()?;
        Some(KeptImage { component, reference: manifest.image })
    };
    ControlPlaneComponent::ALL.into_iter().filter_map(image).collect()
}
