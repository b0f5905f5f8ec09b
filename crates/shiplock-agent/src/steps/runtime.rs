//! Step `upgrade_container_runtime`: puts containerd's executables in place, migrates its configuration and restarts
//! it once. Running containers go on.
//!
//! Executables that belong to a package are left alone: the new ones go under `/usr/local/bin` and a drop-in has the
//! service run them. What does not come up is put back, with the old configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shiplock_core::artefact::ArtefactFile;
use shiplock_core::facts::InstallMethod;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::StepOutcome;

use super::{Failure, READ_LIMIT, Step, same_version, with_role};
use crate::backup::Backup;
use crate::containerd_config;
use crate::facts::install_method;
use crate::files;
use crate::host::{Host, Service};

const SERVICE: &str = "containerd";
const DEFAULT_CONFIGURATION: &str = "/etc/containerd/config.toml";
const DROP_IN: &str = "/etc/systemd/system/containerd.service.d/50-shiplock.conf";
const OWN_FOLDER: &str = "/usr/local/bin";
const UP_WITHIN: Duration = Duration::from_secs(60);

/// Does the step.
pub async fn run<H: Host>(
    step: &Step<H>,
    version: &str,
    artefacts: &[ArtefactFile],
    sandbox_image: Option<&str>,
) -> Result<StepOutcome, Failure> {
    let containerd = with_role(artefacts, SERVICE)?;
    if let Some(problem) = step.rolling_back.clone() {
        return Err(roll_back(step, problem).await);
    }
    if is_up(step, &containerd.sha256, Some(version)).await.is_ok() {
        step.clean_staging(artefacts);
        return Ok(StepOutcome::AlreadyDone);
    }

    step.progress("preparing");
    // A way back that was cut off may have left another unit than the service manager knows.
    step.host.reload_units().await?;
    let service = step.host.service(SERVICE).await?;
    let placement = Placement::of(step, &service).await?;
    let mut placed = files::Placed::default();
    for artefact in artefacts {
        let staged = step.staged(artefact).await?;
        let target = step.host.at(&format!("{}/{}", placement.folder, artefact.role));
        let target = fs::canonicalize(&target).unwrap_or(target);
        let place = files::place_beside(&staged, &target).map_err(|error| step.unusable(&target, "placed", &error))?;
        placed.push(place, target);
    }
    let staged = step.host.node_path(&step.staged(containerd).await?);
    let configuration = step.host.at(&configuration_path(&service.command));
    if let Some(place) = prepare_configuration(step, &staged, &configuration, sandbox_image).await? {
        keep_old_configuration(step, &service, &configuration).await?;
        placed.push(place, configuration.clone());
    }
    if let Some(text) = &placement.drop_in {
        let target = step.host.at(DROP_IN);
        let place =
            files::write_beside(text, &target, 0o644).map_err(|error| step.unusable(&target, "placed", &error))?;
        placed.push(place, target);
    }
    let kept: Vec<PathBuf> = placed.targets().cloned().collect();
    let folder = step.backup_folder();
    Backup::take(&folder, &kept).map_err(|error| step.unusable(&folder, "written", &error))?;

    step.permit("swap").await;
    step.progress("restarting");
    placed.put_in_place().map_err(|(target, error)| step.unusable(target, "replaced", &error))?;
    // Where SELinux has rules for a path, a new file gets its context by them.
    if step.host.find_program("restorecon").is_some() {
        for target in placed.targets() {
            let _ = step.host.output("restorecon", &[&step.host.node_path(target)], READ_LIMIT).await;
        }
    }
    step.host.reload_units().await?;
    let restarted = step.restart("restart", SERVICE).await;

    step.progress("verifying");
    if let Err(why) = step.wait_until(SERVICE, UP_WITHIN, || is_up(step, &containerd.sha256, Some(version))).await {
        let mut problem = step.not_up(SERVICE, &why).await;
        if let Err(error) = restarted {
            problem = problem.because(&error);
        }
        return Err(roll_back(step, problem).await);
    }
    step.clean_staging(artefacts);
    Ok(StepOutcome::Done)
}

/// Where the executables go.
struct Placement {
    folder: String,
    /// The drop-in that has the service run them, where it would not by itself.
    drop_in: Option<String>,
}

impl Placement {
    async fn of<H: Host>(step: &Step<H>, service: &Service) -> Result<Self, Problem> {
        let Some(path) = service.command.first() else {
            return Err(step.not_up(SERVICE, "the node has no service containerd").await);
        };
        let real = fs::canonicalize(step.host.at(path)).unwrap_or_else(|_| step.host.at(path));
        let method = install_method(&*step.host, &real).await;
        if method == InstallMethod::Binary {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
            return Ok(Self { folder, drop_in: None });
        }
        let own = step.host.at(OWN_FOLDER);
        let ours = [&own, &step.host.at(DROP_IN)].into_iter().all(|path| !step.host.is_read_only(existing(path)));
        if !ours {
            return Err(Problem::new(Code::InstallNotSupported)
                .with("component", SERVICE)
                .with("node", &step.assignment.node)
                .with("method", method.label()));
        }
        Ok(Self { folder: OWN_FOLDER.to_owned(), drop_in: Some(drop_in(&service.command)) })
    }
}

/// The nearest folder of a path that exists.
fn existing(path: &Path) -> &Path {
    path.ancestors().find(|folder| folder.exists()).unwrap_or(path)
}

fn drop_in(command: &[String]) -> String {
    let mut words = vec![format!("{OWN_FOLDER}/{SERVICE}")];
    words.extend(command.iter().skip(1).cloned());
    // PATH: the shim is looked for by name, and must be the new containerd's.
    format!(
        "# Written by Shiplock: the packaged containerd stays in place and is not run. Remove this file to go back.\n\
         [Service]\nEnvironment=PATH={}\nExecStart=\nExecStart={}\n",
        crate::host::PROGRAM_FOLDERS.join(":").replacen(
            "/usr/local/sbin:/usr/local/bin",
            "/usr/local/bin:/usr/local/sbin",
            1
        ),
        words.join(" "),
    )
}

fn configuration_path(command: &[String]) -> String {
    let mut words = command.iter();
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some(("--config" | "-c", path)) => return path.to_owned(),
            None if word == "--config" || word == "-c" => {
                return words.next().cloned().unwrap_or_else(|| DEFAULT_CONFIGURATION.to_owned());
            }
            _ => {}
        }
    }
    DEFAULT_CONFIGURATION.to_owned()
}

/// Writes the new configuration beside the old one and has the new containerd check it. None: there is no file, or
/// nothing to change in it.
async fn prepare_configuration<H: Host>(
    step: &Step<H>,
    staged: &str,
    configuration: &Path,
    sandbox_image: Option<&str>,
) -> Result<Option<PathBuf>, Problem> {
    let refused = |why: &str, why_zh: &str| {
        let problem = Problem::new(Code::RuntimeConfigurationRefused).with("node", &step.assignment.node);
        problem.with("why", why).with("why_zh", why_zh)
    };
    if !configuration.exists() {
        let output = step.host.output(staged, &["--version"], READ_LIMIT).await?;
        return if output.success {
            Ok(None)
        } else {
            Err(refused("the new containerd does not run", "新的 containerd 无法运行").cause(output.error))
        };
    }
    let old = fs::read_to_string(configuration).map_err(|error| step.unusable(configuration, "read", &error))?;
    let path = step.host.node_path(configuration);
    let new = if containerd_config::is_current(&old) {
        old.clone()
    } else {
        let output = step.host.output(staged, &["--config", &path, "config", "migrate"], READ_LIMIT).await?;
        if !output.success {
            return Err(refused("the new containerd refuses it", "新的 containerd 不接受它").cause(output.error));
        }
        output.text
    };
    let new = match sandbox_image {
        Some(image) => containerd_config::pin_sandbox(&new, image)
            .map_err(|error| refused("it is not TOML", "它不是有效的 TOML").because(&error))?,
        None => new,
    };
    if new == old {
        return Ok(None);
    }
    let place = files::write_beside(&new, configuration, 0o644)
        .map_err(|error| step.unusable(configuration, "placed", &error))?;
    let check =
        step.host.output(staged, &["--config", &step.host.node_path(&place), "config", "dump"], READ_LIMIT).await;
    if !check.as_ref().is_ok_and(|check| check.success) {
        // It waits for nothing any more.
        let _ = files::remove(&place);
    }
    let check = check?;
    if !check.success {
        return Err(refused("the new containerd refuses what it migrated", "新的 containerd 不接受它自己迁移的结果")
            .cause(check.error));
    }
    Ok(Some(place))
}

/// A copy for people, beside the file, named after the version that it was for. Never overwritten.
async fn keep_old_configuration<H: Host>(step: &Step<H>, service: &Service, path: &Path) -> Result<(), Problem> {
    let program = service.command.first().map_or(SERVICE, String::as_str);
    let output = step.host.output(program, &["--version"], READ_LIMIT).await?;
    let version = containerd_version(&output.text).unwrap_or_else(|| "old".to_owned());
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let kept = path.with_file_name(format!("{name}.shiplock-{version}"));
    if kept.exists() {
        return Ok(());
    }
    let copied = files::place_beside(path, &kept).and_then(|place| {
        fs::set_permissions(&place, fs::metadata(path)?.permissions())?;
        files::rename(&place, &kept)
    });
    copied.map_err(|error| step.unusable(&kept, "written", &error))
}

/// The version in `containerd github.com/containerd/containerd v2.2.9 …`.
pub fn containerd_version(text: &str) -> Option<String> {
    let word = text.split_whitespace().nth(2)?;
    word.bytes().any(|byte| byte.is_ascii_digit()).then(|| word.to_owned())
}

/// Nothing wrong: it is active, its process runs these bytes, and CRI answers with the version.
async fn is_up<H: Host>(step: &Step<H>, sha256: &str, version: Option<&str>) -> Result<(), String> {
    let service = step.host.service(SERVICE).await.map_err(|problem| problem.to_string())?;
    if service.state != "active" {
        return Err(service.state);
    }
    match step.host.running_digest(service.main_pid).await {
        Ok(Some(digest)) if digest == sha256 => {}
        Ok(_) => return Err("active, with another executable".to_owned()),
        Err(problem) => return Err(problem.to_string()),
    }
    match (step.host.runtime_version().await, version) {
        (Err(problem), _) => Err(format!("active, but CRI does not answer: {problem}")),
        (Ok(found), Some(version)) if !same_version(&found, version) => Err(format!("active, with version {found}")),
        _ => Ok(()),
    }
}

/// Puts executables, drop-in and configuration back as they were, and starts the old containerd.
async fn roll_back<H: Host>(step: &Step<H>, problem: Problem) -> Failure {
    step.roll_back("containerd", problem, restart_old(step)).await
}

async fn restart_old<H: Host>(step: &Step<H>) -> Result<(), String> {
    let in_words = |problem: Problem| problem.to_string();
    step.host.reload_units().await.map_err(in_words)?;
    step.restart("roll-back", SERVICE).await.map_err(in_words)?;
    let path = step.host.service(SERVICE).await.map_err(in_words)?.command.first().cloned().unwrap_or_default();
    let old = step.host.file_digest(&step.host.at(&path)).await.ok().flatten().unwrap_or_default();
    step.wait_until(SERVICE, UP_WITHIN, || is_up(step, &old, None)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drop_in_keeps_the_arguments_of_the_packaged_service_and_looks_for_the_shim_in_its_own_folder_first() {
        let command = ["/usr/bin/containerd", "--config", "/etc/x.toml"].map(str::to_owned);
        let text = drop_in(&command);
        assert!(text.contains("ExecStart=\nExecStart=/usr/local/bin/containerd --config /etc/x.toml\n"), "{text}");
        assert!(text.contains("Environment=PATH=/usr/local/bin:"), "{text}");
    }

    #[test]
    fn the_configuration_is_the_one_that_the_service_names() {
        for (command, expected) in [
            (vec!["/usr/bin/containerd"], DEFAULT_CONFIGURATION),
            (vec!["/usr/bin/containerd", "--config", "/a"], "/a"),
            (vec!["/usr/bin/containerd", "-c", "/b", "--log-level=debug"], "/b"),
            (vec!["/usr/bin/containerd", "--config=/c"], "/c"),
            (vec!["/usr/bin/containerd", "-c"], DEFAULT_CONFIGURATION),
        ] {
            let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
            assert_eq!(configuration_path(&command), expected);
        }
    }

    #[test]
    fn the_version_is_read_from_what_containerd_prints() {
        for (text, expected) in [
            ("containerd github.com/containerd/containerd/v2 v2.2.9 abc\n", Some("v2.2.9")),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1", Some("1.6.20~ds1")),
            ("containerd", None),
            ("", None),
        ] {
            assert_eq!(containerd_version(text).as_deref(), expected);
        }
    }
}
