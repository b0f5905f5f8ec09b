//! The names of files in a baseline: one for each file, however it was given and wherever the command is run.
//!
//! Under the baseline's own folder they are relative to that, so that both can be moved and read from anywhere; elsewhere
//! under the working folder relative to this, with `./` before, so that CI systems can keep the baseline apart; else they
//! are absolute.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shiplock_check::report::Finding;

/// The name of each file that findings are about, by how it was given.
pub(super) fn names(findings: &[Finding], baseline: &Path) -> BTreeMap<String, String> {
    let of_subject = |finding: &'_ Finding| (finding.subject.kind == "File").then(|| finding.subject.name.clone());
    let of_place = |finding: &'_ Finding| finding.place.as_ref().map(|place| place.file.clone());
    let given = findings.iter().flat_map(|finding| [of_subject(finding), of_place(finding)]).flatten();
    let roots = [("", folder(baseline)), ("./", Path::new(".").canonicalize().ok())];
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for given in given {
        if !names.contains_key(&given)
            && let Some(name) = name(Path::new(&given), &roots)
        {
            names.insert(given, name);
        }
    }
    names
}

/// Links to folders are followed; a link to a file is a file of its own. What is no file has no name but its own.
fn name(given: &Path, roots: &[(&str, Option<PathBuf>)]) -> Option<String> {
    std::fs::symlink_metadata(given).ok()?;
    let whole = match given.file_name() {
        Some(name) => folder(given)?.join(name),
        None => given.canonicalize().ok()?,
    };
    let within = roots.iter().find_map(|(mark, root)| Some((*mark, whole.strip_prefix(root.as_ref()?).ok()?)));
    let (mark, path) = within.unwrap_or(("", &whole));
    Some(format!("{mark}{}", path.display()))
}

fn folder(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.canonicalize().ok()
}
