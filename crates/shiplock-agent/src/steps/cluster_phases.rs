//! Steps `upload_configuration` and `upgrade_addons`: what belongs to the cluster and not to a master, done once, by
//! single phases of the target's `kubeadm upgrade apply`; and `restore_configuration`, which takes the first back.
//!
//! The phases may be repeated. kubeadm passes over add-ons *with success* while it sees an API server of another
//! version, so that success is never taken for the goal here.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};
use shiplock_core::artefact::ArtefactFile;
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::id::{StepNumber, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::StepOutcome;

use super::{Failure, READ_LIMIT, Step};
use crate::control_plane::kubeadm::cluster_configuration;
use crate::control_plane::kubeconfig::{self, Kubeconfig};
use crate::control_plane::manifest::Manifest;
use crate::control_plane::manifests;
use crate::endpoint::Question;
use crate::files;
use crate::host::Host;

const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A kubelet tells the API server late of static pods that were replaced: 34 s were measured.
const MIRROR_PODS_LOOKS: u32 = 180;
const API_SERVER_PODS: &str = "/api/v1/namespaces/kube-system/pods?labelSelector=component%3Dkube-apiserver";
pub(crate) const KUBE_PROXY: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";
/// The phase, and the object that it upgrades.
const ADDONS: [(&str, &str); 2] =
    [("kube-proxy", KUBE_PROXY), ("coredns", "/apis/apps/v1/namespaces/kube-system/deployments/coredns")];

/// The ConfigMaps that `upload_configuration` replaces. Its other phases only grant what older versions need too.
const CONFIGURATIONS: [(&str, &str); 2] = [
    ("kubelet-config", "/api/v1/namespaces/kube-system/configmaps/kubelet-config"),
    // Last: its version is what says that all of it is done.
    ("kubeadm-config", "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"),
];

/// Does step `upload_configuration`.
pub async fn upload_configuration<H: Host>(
    step: &Step<H>,
    version: &str,
    kubeadm: &ArtefactFile,
) -> Result<StepOutcome, Failure> {
    if uploaded(step).await? == version {
        return Ok(StepOutcome::AlreadyDone);
    }
    let phases = Phases::prepare(step, version, kubeadm).await?;
    keep_configuration(step).await?;
    check_own_api_server(step, version)?;
    step.permit("upload").await;
    step.progress("uploading");
    phases.run("bootstrap-token", &["bootstrap-token"]).await?;
    phases.run("post-upgrade", &["post-upgrade"]).await?;
    phases.run("upload-kubelet", &["upload-config", "kubelet"]).await?;
    // Last: its version is what says that all of it is done.
    phases.run("upload-kubeadm", &["upload-config", "kubeadm"]).await?;
    let found = uploaded(step).await?;
    if found == version {
        Ok(StepOutcome::Done)
    } else {
        Err(mismatch(step, "ConfigMap kubeadm-config", &found, version).into())
    }
}

/// Where a step keeps the ConfigMaps that it replaces.
fn kept_configuration<H: Host>(step: &Step<H>, upgrade: &UpgradeId, number: StepNumber) -> PathBuf {
    step.data_folder.join("configuration").join(format!("{upgrade}-{number}.json"))
}

/// Keeps the ConfigMaps as they are before the first attempt. Those of earlier upgrades are forgotten: only the newest
/// one can be taken back.
async fn keep_configuration<H: Host>(step: &Step<H>) -> Result<(), Failure> {
    let id = &step.assignment.id;
    let path = kept_configuration(step, &id.upgrade, id.step);
    if path.exists() {
        return Ok(());
    }
    let administrator = kubeconfig::read(&*step.host, kubeconfig::ADMINISTRATOR)?;
    let mut kept = Map::new();
    for (name, url) in CONFIGURATIONS {
        if let Some(found) = object(step, &administrator, url).await? {
            kept.insert(name.to_owned(), found.get("data").cloned().unwrap_or_default());
        }
    }
    let unwritable = |error: std::io::Error| step.unusable(&path, "written", &error);
    let folder = path.parent().unwrap_or(&path);
    fs::remove_dir_all(folder).or_else(absent_is_fine).map_err(unwritable)?;
    fs::create_dir_all(folder).map_err(unwritable)?;
    files::replace(&path, &Value::Object(kept).to_string(), 0o600).map_err(unwritable)?;
    Ok(())
}

/// Whoever has put this master back by hand does not want the newer configuration.
fn check_own_api_server<H: Host>(step: &Step<H>, version: &str) -> Result<(), Failure> {
    let component = ControlPlaneComponent::KubeApiserver;
    let manifests = manifests(&*step.host);
    let image = manifests.get(&component).and_then(|text| Manifest::parse(component, text).ok()).map(|own| own.image);
    let found = image.as_deref().and_then(|image| image.rsplit_once(':')).map_or("nothing", |(_, tag)| tag);
    if found == version { Ok(()) } else { Err(mismatch(step, component.name(), found, version).into()) }
}

fn absent_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Does step `restore_configuration`.
pub async fn restore_configuration<H: Host>(
    step: &Step<H>,
    upgrade: &UpgradeId,
    number: StepNumber,
) -> Result<StepOutcome, Failure> {
    let path = kept_configuration(step, upgrade, number);
    let unreadable = |error: std::io::Error| step.unusable(&path, "read", &error);
    let text = fs::read_to_string(&path).map_err(unreadable)?;
    let kept: Map<String, Value> = serde_json::from_str(&text).map_err(|error| unreadable(error.into()))?;
    let administrator = kubeconfig::read(&*step.host, kubeconfig::ADMINISTRATOR)?;
    let kubectl = step.host.find_program("kubectl").ok_or_else(|| {
        Problem::new(Code::ProgramFailed)
            .with("program", "kubectl")
            .with("node", &step.assignment.node)
            .with("result", "there is no such program")
    })?;
    let mut differing = Vec::new();
    for (name, url) in CONFIGURATIONS {
        let Some(data) = kept.get(name) else { continue };
        let now = object(step, &administrator, url).await?;
        if now.as_ref().and_then(|now| now.get("data")) != Some(data) {
            differing.push((name, url, data));
        }
    }
    if differing.is_empty() {
        return Ok(StepOutcome::AlreadyDone);
    }
    step.permit("upload").await;
    step.progress("uploading");
    for (name, url, data) in differing {
        let patch = step.data_folder.join("configuration").join(format!("{name}.patch.json"));
        // The whole of what it holds: keys that the newer version brought go.
        let document = json!([{ "op": "replace", "path": "/data", "value": data }]);
        files::replace(&patch, &document.to_string(), 0o600)
            .map_err(|error| step.unusable(&patch, "written", &error))?;
        let file = step.host.node_path(&patch);
        let target = ["--namespace", "kube-system", "patch", "configmap", name];
        let how = ["--type", "json", "--patch-file", &file];
        let words = [&[&*kubectl, "--kubeconfig", kubeconfig::ADMINISTRATOR][..], &target, &how].concat();
        step.program(&format!("restore-{name}"), &words).await.map_err(Failure::retryable)?;
        let now = object(step, &administrator, url).await?;
        if now.as_ref().and_then(|now| now.get("data")) != Some(data) {
            return Err(Failure::retryable(mismatch(
                step,
                &format!("ConfigMap {name}"),
                "other data",
                "what was kept",
            )));
        }
    }
    Ok(StepOutcome::Done)
}

async fn uploaded<H: Host>(step: &Step<H>) -> Result<String, Failure> {
    let configuration = cluster_configuration(&*step.host).await.map_err(Failure::retryable)?;
    let version = configuration.document.get("kubernetesVersion").and_then(Value::as_str);
    Ok(version.unwrap_or_default().to_owned())
}

/// Does step `upgrade_addons`. Add-ons that the cluster does not have are not brought.
pub async fn upgrade_addons<H: Host>(
    step: &Step<H>,
    version: &str,
    kubeadm: &ArtefactFile,
) -> Result<StepOutcome, Failure> {
    let administrator = kubeconfig::read(&*step.host, kubeconfig::ADMINISTRATOR)?;
    let phases = Phases::prepare(step, version, kubeadm).await?;
    let coredns = phases.image_tag("coredns").await?;
    let target = |name: &str| if name == "coredns" { coredns.clone() } else { version.to_owned() };
    let mut behind = Vec::new();
    for (name, path) in ADDONS {
        if let Some(found) = tag_of_object(step, &administrator, path).await?
            && found != target(name)
        {
            behind.push((name, path));
        }
    }
    if behind.is_empty() {
        return Ok(StepOutcome::AlreadyDone);
    }
    step.progress("waiting_for_api_servers");
    wait_for_api_servers(step, &administrator, version).await?;
    step.permit("addons").await;
    step.progress("upgrading_addons");
    for (name, path) in behind {
        phases.run(&format!("addon-{name}"), &["addon", name]).await?;
        let found = tag_of_object(step, &administrator, path).await?.unwrap_or_default();
        if found != target(name) {
            return Err(Failure::retryable(mismatch(step, name, &found, &target(name))));
        }
    }
    Ok(StepOutcome::Done)
}

fn mismatch<H: Host>(step: &Step<H>, component: &str, found: &str, expected: &str) -> Problem {
    Problem::new(Code::ReadBackMismatch)
        .with("component", component)
        .with("subject", &step.assignment.node)
        .with("found", found)
        .with("expected", expected)
}

/// Asks for an object; none where there is no such object.
async fn object<H: Host>(step: &Step<H>, who: &Kubeconfig, path: &str) -> Result<Option<Value>, Failure> {
    let unreachable =
        |why: String| Failure::retryable(Problem::new(Code::ClusterUnreachable).with("server", &who.server).cause(why));
    let url = format!("{}{path}", who.server);
    let question = Question { url: &url, trust: &who.trust, body: None, limit: ANSWER_LIMIT };
    let answer = step.host.ask(&question).await.map_err(unreachable)?;
    match answer.status {
        200 => serde_json::from_str(&answer.body).map(Some).map_err(|error| unreachable(error.to_string())),
        404 => Ok(None),
        status => Err(unreachable(format!("{path}: it answers {status}"))),
    }
}

/// The tag of the image that an add-on runs; none where the cluster does not have it.
async fn tag_of_object<H: Host>(step: &Step<H>, who: &Kubeconfig, path: &str) -> Result<Option<String>, Failure> {
    let found = object(step, who, path).await?;
    Ok(found.map(|found| tag_of_value(found.pointer("/spec/template/spec/containers/0/image")).to_owned()))
}

fn tag_of_value(image: Option<&Value>) -> &str {
    tag(image.and_then(Value::as_str).unwrap_or_default())
}

/// The tag of an image; empty where it has none.
pub(crate) fn tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or_default();
    image.rsplit_once(':').map_or("", |(_, tag)| tag)
}

/// Waits until the cluster knows of every API server that it has the version.
async fn wait_for_api_servers<H: Host>(step: &Step<H>, who: &Kubeconfig, version: &str) -> Result<(), Failure> {
    let mut behind = String::new();
    for _ in 0..MIRROR_PODS_LOOKS {
        // The API may be away for a moment.
        if let Ok(pods) = object(step, who, API_SERVER_PODS).await {
            let pods = pods.unwrap_or_default();
            match api_server_behind(&pods, version) {
                Some(name) => behind = name,
                None => return Ok(()),
            }
        }
        step.host.wait(LOOK_EVERY).await;
    }
    Err(Failure::retryable(mismatch(step, &behind, "another version", version)))
}

/// A mirror pod of an API server that has another version; of no pod at all nothing is known.
fn api_server_behind(pods: &Value, version: &str) -> Option<String> {
    let pods = pods.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if pods.is_empty() {
        return Some("kube-apiserver".to_owned());
    }
    let behind = pods.iter().find(|pod| tag_of_value(pod.pointer("/spec/containers/0/image")) != version)?;
    let name = behind.pointer("/metadata/name").and_then(Value::as_str);
    Some(name.unwrap_or("kube-apiserver").to_owned())
}

/// Single phases of `kubeadm upgrade apply`; they take the version from a file alone.
struct Phases<'a, H> {
    step: &'a Step<H>,
    version: &'a str,
    kubeadm: String,
    file: PathBuf,
}

impl<'a, H: Host> Phases<'a, H> {
    async fn prepare(step: &'a Step<H>, version: &'a str, kubeadm: &ArtefactFile) -> Result<Self, Failure> {
        let kubeadm = step.host.node_path(&step.tool(kubeadm).await?);
        let document = json!({
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "UpgradeConfiguration",
            // Forced: what kubeadm would ask a person was decided with the plan.
            "apply": { "kubernetesVersion": version, "forceUpgrade": true },
        });
        let file = step.data_folder.join("upgrade-configuration.json");
        files::replace(&file, &document.to_string(), 0o600).map_err(|error| step.unusable(&file, "written", &error))?;
        Ok(Self { step, version, kubeadm, file })
    }

    async fn run(&self, name: &str, phase: &[&str]) -> Result<(), Failure> {
        let file = self.step.host.node_path(&self.file);
        let mut words = vec![&*self.kubeadm, "upgrade", "apply", "phase"];
        words.extend(phase);
        words.extend(["--config", &file]);
        // The API may be away for a moment, and every phase may be repeated.
        self.step.program(name, &words).await.map_err(Failure::retryable)
    }

    /// The tag of the image that this kubeadm wants.
    async fn image_tag(&self, name: &str) -> Result<String, Problem> {
        let words = ["config", "images", "list", "--kubernetes-version", self.version];
        let output = self.step.host.output(&self.kubeadm, &words, READ_LIMIT).await?;
        let line = output.text.lines().find(|line| line.contains(name)).filter(|_| output.success);
        let tag = line.and_then(|line| Some(line.rsplit_once(':')?.1.trim().to_owned()));
        tag.ok_or_else(|| {
            Problem::new(Code::ProgramFailed)
                .with("program", "kubeadm config images list")
                .with("node", &self.step.assignment.node)
                .with("result", format!("no image of {name}"))
                .cause(output.error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn add_ons_wait_until_every_api_server_is_known_to_be_at_the_target() {
        let pod = |name: &str, tag: &str| json!({ "metadata": { "name": name }, "spec": { "containers": [{ "image": format!("r/kube-apiserver:{tag}") }] } });
        let pods = |pods: &[Value]| json!({ "items": pods });
        let (new, old) = (pod("a-m1", "v1.36.3"), pod("a-m2", "v1.35.4"));
        assert_eq!(api_server_behind(&pods(std::slice::from_ref(&new)), "v1.36.3"), None);
        assert_eq!(api_server_behind(&pods(&[new, old]), "v1.36.3").as_deref(), Some("a-m2"));
        assert!(api_server_behind(&pods(&[]), "v1.36.3").is_some() && api_server_behind(&json!({}), "v1").is_some());
        assert_eq!(tag_of_value(Some(&json!("mirror:5000/coredns:v1.14.2@sha256:00"))), "v1.14.2");
        assert_eq!(tag_of_value(Some(&json!("coredns"))), "");
    }
}
