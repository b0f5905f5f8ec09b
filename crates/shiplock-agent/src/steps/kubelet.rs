//! Step `upgrade_kubelet`: writes the target's kubelet configuration, puts kubelet, kubeadm and kubectl in place
//! and restarts the kubelet once.
//!
//! The files are renamed over the running ones and then the service is restarted by the service manager alone, so
//! that a crash of this agent never leaves the kubelet stopped. What does not come up is put back.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use shiplock_core::artefact::ArtefactFile;
use shiplock_core::facts::InstallMethod;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::StepOutcome;
use shiplock_core::version::{KubernetesVersion, MinorVersion};

use super::{Failure, READ_LIMIT, Step, same_version, with_role};
use crate::backup::Backup;
use crate::facts::install_method;
use crate::files;
use crate::host::Host;

const SERVICE: &str = "kubelet";
/// The kubelet's configuration on the node.
pub(super) const CONFIGURATION: &str = "/var/lib/kubelet/config.yaml";
/// The flags that kubeadm gave the kubelet when the node joined.
pub(super) const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Flags that kubeadm once wrote there and that kubelets from this minor on refuse to start with.
/// Source: kubernetes#133779; kubeadm's own upgrade takes it out too (kubernetes#133778).
const REFUSED_FLAGS: [(&str, MinorVersion); 1] =
    [("--pod-infra-container-image", MinorVersion { major: 1, minor: 35 })];
const UP_WITHIN: Duration = Duration::from_secs(120);
const OLD_UP_WITHIN: Duration = Duration::from_secs(60);
const HEALTH_PORT: u16 = 10248;

/// Does the step.
pub async fn run<H: Host>(step: &Step<H>, version: &str, artefacts: &[ArtefactFile]) -> Result<StepOutcome, Failure> {
    let kubelet = with_role(artefacts, "kubelet")?;
    if let Some(problem) = step.rolling_back.clone() {
        return Err(roll_back(step, problem).await);
    }
    let runs_new =
        is_up(step, &kubelet.sha256).await.is_ok() && reported_version(step).await.is_ok_and(|found| found == version);
    if runs_new && tools_are_new(step, artefacts).await? {
        step.clean_staging(artefacts);
        return Ok(StepOutcome::AlreadyDone);
    }

    let targets = targets(step, artefacts).await?;
    step.progress("preparing");
    let kubeadm = step.tool(with_role(artefacts, "kubeadm")?).await?;
    let mut placed = files::Placed::default();
    for (artefact, target) in &targets {
        let staged = step.staged(artefact).await?;
        let place = files::place_beside(&staged, target).map_err(|error| step.unusable(target, "placed", &error))?;
        placed.push(place, target.clone());
    }
    let mut kept: Vec<PathBuf> = targets.iter().map(|(_, target)| target.clone()).collect();
    kept.push(step.host.at(CONFIGURATION));
    let minor = version.parse::<KubernetesVersion>().map(|version| version.release);
    let flags = minor.ok().and_then(|minor| accepted_flags(step, minor));
    kept.extend(flags.iter().map(|_| step.host.at(FLAGS)));
    let folder = step.backup_folder();
    Backup::take(&folder, &kept).map_err(|error| step.unusable(&folder, "written", &error))?;

    step.permit("configure").await;
    step.progress("configuring");
    let kubeadm = step.host.node_path(&kubeadm);
    let configured = step.program("configure", &[&kubeadm, "upgrade", "node", "phase", "kubelet-config"]).await;
    if let Err(problem) = configured {
        // Nothing was swapped yet: what somebody mends from here on is theirs, and is kept by the next attempt.
        let restored = Backup::find(&folder).map_or(Ok(()), |backup| backup.restore());
        return Err(match restored {
            Ok(()) => problem,
            Err(error) => problem.cause(format!("its configuration cannot be put back: {error}")),
        }
        .into());
    }
    if let Some(flags) = &flags {
        write_flags(step, flags)?;
    }

    step.permit("swap").await;
    step.progress("restarting");
    placed.put_in_place().map_err(|(target, error)| step.unusable(target, "replaced", &error))?;
    let restarted = step.restart("restart", SERVICE).await;

    step.progress("verifying");
    let up = step.wait_until(SERVICE, UP_WITHIN, || is_up(step, &kubelet.sha256)).await;
    if let Err(why) = up {
        let mut problem = step.not_up(SERVICE, &why).await;
        if let Err(error) = restarted {
            problem = problem.because(&error);
        }
        return Err(roll_back(step, problem).await);
    }
    let found = reported_version(step).await?;
    if found != version {
        return Err(Problem::new(Code::ReadBackMismatch)
            .with("component", SERVICE)
            .with("subject", &step.assignment.node)
            .with("found", found)
            .with("expected", version)
            .into());
    }
    step.clean_staging(artefacts);
    Ok(StepOutcome::Done)
}

/// Whether the tools beside the kubelet are the target's too: a way back that was cut off may have reached them alone. What
/// cannot be replaced here is not asked for.
async fn tools_are_new<H: Host>(step: &Step<H>, artefacts: &[ArtefactFile]) -> Result<bool, Problem> {
    let Ok(targets) = targets(step, artefacts).await else { return Ok(true) };
    for (artefact, target) in targets {
        if step.host.file_digest(&target).await?.as_ref() != Some(&artefact.sha256) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which file goes where: the kubelet where its service runs it, the others only where the node has them already.
pub(super) async fn targets<'a, H: Host>(
    step: &Step<H>,
    artefacts: &'a [ArtefactFile],
) -> Result<Vec<(&'a ArtefactFile, PathBuf)>, Problem> {
    let service = step.host.service(SERVICE).await?;
    let mut targets = Vec::new();
    for artefact in artefacts {
        let path = match artefact.role.as_str() {
            SERVICE => service.command.first().cloned().or_else(|| step.host.find_program(SERVICE)),
            other => step.host.find_program(other),
        };
        let Some(path) = path else { continue };
        let target = fs::canonicalize(step.host.at(&path)).unwrap_or_else(|_| step.host.at(&path));
        let method = install_method(&*step.host, &target).await;
        if method == InstallMethod::Binary {
            targets.push((artefact, target));
        } else if artefact.role == SERVICE {
            return Err(Problem::new(Code::InstallNotSupported)
                .with("component", SERVICE)
                .with("node", &step.assignment.node)
                .with("method", method.label()));
        }
    }
    if !targets.iter().any(|(artefact, _)| artefact.role == SERVICE) {
        return Err(step.not_up(SERVICE, "the node has no kubelet").await);
    }
    Ok(targets)
}

/// The file of flags without those that a kubelet of this minor refuses; none where it has none of them. An older kubelet
/// heeds none of them either, so that the file may change before it does.
pub(super) fn accepted_flags<H: Host>(step: &Step<H>, minor: MinorVersion) -> Option<String> {
    let text = fs::read_to_string(step.host.at(FLAGS)).ok()?;
    let accepted = without_refused(&text, minor);
    (accepted != text).then_some(accepted)
}

/// Writes the file of flags.
pub(super) fn write_flags<H: Host>(step: &Step<H>, text: &str) -> Result<(), Problem> {
    let file = step.host.at(FLAGS);
    files::replace(&file, text, 0o644).map_err(|error| step.unusable(&file, "written", &error))
}

fn without_refused(text: &str, minor: MinorVersion) -> String {
    let mut text = text.to_owned();
    for (flag, _) in REFUSED_FLAGS.iter().filter(|(_, since)| minor >= *since) {
        while let Some(begin) = text.find(&format!("{flag}=")) {
            let rest = &text[begin..];
            let end = rest.find([' ', '"', '\n']).unwrap_or(rest.len());
            // With the one blank that parts it from the next or the one before.
            let (mut from, mut to) = (begin, begin + end);
            if text[to..].starts_with(' ') {
                to += 1;
            } else if text[..from].ends_with(' ') {
                from -= 1;
            }
            text.replace_range(from..to, "");
        }
    }
    text
}

/// Nothing wrong: it is active, its process runs these bytes, and it says that it is well.
pub(super) async fn is_up<H: Host>(step: &Step<H>, sha256: &str) -> Result<(), String> {
    let service = step.host.service(SERVICE).await.map_err(|problem| problem.to_string())?;
    if service.state != "active" {
        return Err(service.state);
    }
    match step.host.running_digest(service.main_pid).await {
        Ok(Some(digest)) if digest == sha256 => {}
        Ok(_) => return Err("active, with another executable".to_owned()),
        Err(problem) => return Err(problem.to_string()),
    }
    match health_port(step) {
        Some(port) if !step.host.is_healthy(port).await => {
            Err("active, but its health endpoint does not say ok".to_owned())
        }
        _ => Ok(()),
    }
}

/// Where the kubelet tells its health; none when that is switched off.
fn health_port<H: Host>(step: &Step<H>) -> Option<u16> {
    let text = fs::read_to_string(step.host.at(CONFIGURATION)).unwrap_or_default();
    let port =
        text.lines().find_map(|line| line.strip_prefix("healthzPort:")).and_then(|port| port.trim().parse().ok());
    Some(port.unwrap_or(HEALTH_PORT)).filter(|port| *port != 0)
}

pub(super) async fn reported_version<H: Host>(step: &Step<H>) -> Result<String, Problem> {
    let service = step.host.service(SERVICE).await?;
    let path = service.command.first().map_or(SERVICE, String::as_str);
    let output = step.host.output(path, &["--version"], READ_LIMIT).await?;
    let word = output.text.split_whitespace().last().unwrap_or_default();
    Ok(if same_version(word, "") { "nothing".to_owned() } else { word.to_owned() })
}

/// Puts the old kubelet and its configuration back, as far as they were replaced, and starts it.
async fn roll_back<H: Host>(step: &Step<H>, problem: Problem) -> Failure {
    step.roll_back("kubelet", problem, restart_old(step)).await
}

async fn restart_old<H: Host>(step: &Step<H>) -> Result<(), String> {
    step.restart("roll-back", SERVICE).await.map_err(|problem| problem.to_string())?;
    let path = step.host.service(SERVICE).await.map_err(|problem| problem.to_string())?.command.first().cloned();
    let path = step.host.at(&path.unwrap_or_default());
    let old = step.host.file_digest(&path).await.ok().flatten().unwrap_or_default();
    step.wait_until(SERVICE, OLD_UP_WITHIN, || is_up(step, &old)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_that_the_new_kubelet_refuses_are_taken_out_and_all_others_stay() {
        for (text, minor, expected) in [
            ("A=\"--pod-infra-container-image=p:3\"\n", 35, "A=\"\"\n"),
            ("A=\"--x=1 --pod-infra-container-image=p:3 --y=2\"\n", 36, "A=\"--x=1 --y=2\"\n"),
            ("A=\"--x=1 --pod-infra-container-image=p:3\"\n", 35, "A=\"--x=1\"\n"),
            ("A=--pod-infra-container-image=p:3", 35, "A="),
            ("A=\"--pod-infra-container-image=p:3\"\n", 34, "A=\"--pod-infra-container-image=p:3\"\n"),
            ("A=\"--node-ip=10.0.0.1\"\n", 37, "A=\"--node-ip=10.0.0.1\"\n"),
        ] {
            assert_eq!(without_refused(text, MinorVersion { major: 1, minor }), expected, "{text}");
        }
    }
}
