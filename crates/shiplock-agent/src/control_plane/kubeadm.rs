//! What kubeadm would write: manifests rendered into a folder of ours, and what the ones in force have besides.
//!
//! `kubeadm init phase … --dry-run` writes nothing but to that folder and asks nobody.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use shiplock_core::facts::{ControlPlaneComponent, HandEdit};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::version::MinorVersion;

use super::manifest::{self, Manifest};
use super::{difference, kubeconfig};
use crate::endpoint::Question;
use crate::files;
use crate::host::Host;
use crate::steps::READ_LIMIT;

const CONFIGURATION: &str = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// What kubeadm wants to see of the container runtime; it is not asked.
const CRI_SOCKET: &str = "unix:///run/containerd/containerd.sock";
/// Names the folder of a dry run, see `EnvVarInitDryRunDir` in kubeadm's constants.
const FOLDER_VARIABLE: &str = "KUBEADM_INIT_DRYRUN_DIR";

/// What the cluster keeps in ConfigMap `kubeadm-config`.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfiguration {
    /// Another one after each change.
    pub resource_version: String,
    /// The document.
    pub document: Value,
}

/// How to render.
#[derive(Clone, Copy, Debug)]
pub struct Rendering<'a> {
    /// kubeadm, as a path of the node.
    pub kubeadm: &'a str,
    /// The version of the control plane, `v1.36.3`.
    pub version: &'a str,
    /// The name of this master's node.
    pub node: &'a str,
    /// A folder with kubeadm patches on the node.
    pub patches: Option<&'a str>,
    /// The minor version that API server, controller manager and scheduler emulate, where they do.
    pub emulates: Option<MinorVersion>,
}

/// The flag by which a component emulates an older minor version.
pub const EMULATED_VERSION: &str = "emulated-version";
/// The components that can, by their names in a ClusterConfiguration.
const EMULATING: [&str; 3] = ["apiServer", "controllerManager", "scheduler"];

/// Reads ConfigMap `kubeadm-config` as the node itself.
pub async fn cluster_configuration<H: Host>(host: &H) -> Result<ClusterConfiguration, Problem> {
    let identity = kubeconfig::read(host, kubeconfig::KUBELET)?;
    let unreachable = || Problem::new(Code::ClusterUnreachable).with("server", &identity.server);
    let url = format!("{}{CONFIGURATION}", identity.server);
    let question = Question { url: &url, trust: &identity.trust, body: None, limit: ANSWER_LIMIT };
    let answer = host.ask(&question).await.map_err(|why| unreachable().cause(why))?;
    if answer.status != 200 {
        return Err(unreachable().cause(format!("ConfigMap kubeadm-config: it answers {}", answer.status)));
    }
    parse(&answer.body).map_err(|why| unreachable().cause(format!("ConfigMap kubeadm-config: {why}")))
}

fn parse(body: &str) -> Result<ClusterConfiguration, String> {
    let object: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let text = object.pointer("/data/ClusterConfiguration").and_then(Value::as_str);
    let text = text.ok_or("it has no ClusterConfiguration")?;
    let document: Value = serde_saphyr::from_str(text).map_err(|_| "it is not YAML".to_owned())?;
    if !document.is_object() {
        return Err("it is no ClusterConfiguration".to_owned());
    }
    let resource_version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    Ok(ClusterConfiguration { resource_version: resource_version.to_owned(), document })
}

/// The documents for `kubeadm --config`: this master's own part, and the cluster's at a version. JSON is YAML.
pub fn documents(configuration: &Value, rendering: Rendering<'_>, api_server: &Manifest) -> Result<String, String> {
    let (address, port) = api_server.advertised().ok_or("the API server's manifest does not tell its address")?;
    let mut own = json!({
        "apiVersion": configuration.get("apiVersion"),
        "kind": "InitConfiguration",
        "localAPIEndpoint": { "advertiseAddress": address, "bindPort": port },
        "nodeRegistration": { "name": rendering.node, "criSocket": CRI_SOCKET },
    });
    // As a flag kubeadm does not take it beside a file.
    if let Some(folder) = rendering.patches {
        own["patches"] = json!({ "directory": folder });
    }
    let mut cluster = configuration.clone();
    if let Some(fields) = cluster.as_object_mut() {
        fields.insert("kubernetesVersion".to_owned(), rendering.version.into());
    }
    Ok(format!("{own}\n---\n{cluster}\n"))
}

/// The configuration with the flag for those components that can emulate. It is only rendered from and never uploaded,
/// so that the flag is gone with the next rendering. The error is in words.
fn emulating(configuration: &Value, emulates: MinorVersion) -> Result<Value, String> {
    let mut configuration = configuration.clone();
    for component in EMULATING {
        let section = configuration
            .as_object_mut()
            .map(|fields| fields.entry(component).or_insert_with(|| json!({})))
            .filter(|section| section.is_object() || section.is_null())
            .ok_or_else(|| format!("{component} is no object"))?;
        if section.is_null() {
            *section = json!({});
        }
        // Of v1beta4; kubeadm brings the ConfigMap to it with each upgrade.
        let arguments = section
            .as_object_mut()
            .map(|fields| fields.entry("extraArgs").or_insert_with(|| json!([])))
            .and_then(Value::as_array_mut)
            .ok_or_else(|| format!("{component}.extraArgs is no list"))?;
        if arguments.iter().any(|argument| argument.get("name") == Some(&EMULATED_VERSION.into())) {
            return Err(format!("{component}.extraArgs of ConfigMap kubeadm-config sets {EMULATED_VERSION} already"));
        }
        arguments.push(json!({ "name": EMULATED_VERSION, "value": emulates.to_string() }));
    }
    Ok(configuration)
}

/// Renders the manifests of all components into a folder, which is made new, and gives their texts.
pub async fn render<H: Host>(
    host: &H,
    folder: &Path,
    rendering: Rendering<'_>,
    whole: &Value,
    api_server: &Manifest,
) -> Result<BTreeMap<ControlPlaneComponent, String>, Problem> {
    let failed = |why: &str| {
        Problem::new(Code::ProgramFailed)
            .with("program", "kubeadm init phase --dry-run")
            .with("node", rendering.node)
            .with("result", "an error")
            .cause(why)
    };
    let emulating = rendering.emulates.map(|emulates| emulating(whole, emulates)).transpose();
    let configuration = emulating.map_err(|why| failed(&why))?;
    let configuration = configuration.as_ref().unwrap_or(whole);
    let documents = documents(configuration, rendering, api_server).map_err(|why| failed(&why))?;
    let unusable = |error: std::io::Error| files::unusable(folder, rendering.node, "written", &error);
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(unusable)?;
    }
    fs::create_dir_all(folder).map_err(unusable)?;
    let file = folder.join("kubeadm.yaml");
    files::replace(&file, &documents, 0o600).map_err(unusable)?;
    let variable = format!("{FOLDER_VARIABLE}={}", host.node_path(folder));
    let file = host.node_path(&file);
    for phase in [["control-plane", "all"], ["etcd", "local"]] {
        let words =
            [&*variable, rendering.kubeadm, "init", "phase", phase[0], phase[1], "--dry-run", "--config", &file];
        let output = host.output("env", &words, READ_LIMIT).await?;
        if !output.success {
            return Err(failed(&output.error));
        }
    }
    let mut rendered = BTreeMap::new();
    for component in ControlPlaneComponent::ALL {
        // With etcd elsewhere none is rendered for it.
        if let Ok(text) = fs::read_to_string(folder.join(format!("{}.yaml", component.name()))) {
            rendered.insert(component, text);
        }
    }
    if !rendered.contains_key(&ControlPlaneComponent::KubeApiserver) {
        return Err(failed("it wrote no manifest"));
    }
    Ok(rendered)
}

/// What the manifests in force have that kubeadm would not render.
pub fn hand_edits(
    rendered: &BTreeMap<ControlPlaneComponent, String>,
    in_force: &BTreeMap<ControlPlaneComponent, String>,
) -> Vec<HandEdit> {
    let edit = |(component, text): (&ControlPlaneComponent, &String)| {
        let path = manifest::path(*component);
        let rendered = rendered.get(component)?;
        let difference = difference::unified(&path, ("by kubeadm", rendered), ("in force", text))?;
        Some(HandEdit { path, difference })
    };
    in_force.iter().filter_map(edit).collect()
}

/// The version of a kubeadm, `v1.36.3`.
pub async fn version<H: Host>(host: &H, kubeadm: &str) -> Result<String, Problem> {
    let output = host.output(kubeadm, &["version", "--output", "short"], READ_LIMIT).await?;
    if !output.success {
        return Err(Problem::new(Code::ProgramFailed)
            .with("program", "kubeadm version")
            .with("node", "this node")
            .with("result", "an error")
            .cause(output.error));
    }
    Ok(output.text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_the_clusters_at_the_target_with_this_masters_own_address() {
        let map = json!({
            "metadata": { "resourceVersion": "251" },
            "data": { "ClusterConfiguration": "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.35.4\netcd: {local: {dataDir: /d}}\n" },
        });
        let configuration = parse(&map.to_string()).unwrap();
        assert_eq!(configuration.resource_version, "251");
        let pod = "spec: {containers: [{name: a, image: i, command: [a, --advertise-address=10.0.0.7]}]}";
        let api_server = Manifest::parse(ControlPlaneComponent::KubeApiserver, pod).unwrap();
        let rendering = |patches| Rendering { kubeadm: "k", version: "v1.36.3", node: "m2", patches, emulates: None };
        let text = documents(&configuration.document, rendering(None), &api_server).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(documents[0]["localAPIEndpoint"], json!({ "advertiseAddress": "10.0.0.7", "bindPort": 6443 }));
        assert_eq!(documents[0]["apiVersion"], "kubeadm.k8s.io/v1beta4");
        assert_eq!(documents[0].get("patches"), None);
        let patched = super::documents(&configuration.document, rendering(Some("/p")), &api_server).unwrap();
        let patched: Vec<Value> = serde_saphyr::from_multiple(&patched).unwrap();
        assert_eq!(patched[0]["patches"], json!({ "directory": "/p" }));
        assert_eq!(documents[1]["kubernetesVersion"], "v1.36.3");
        assert_eq!(documents[1]["etcd"]["local"]["dataDir"], "/d");
        assert!(parse("{}").is_err() && parse("[").is_err());
    }

    #[test]
    fn what_emulates_is_told_so_beside_the_flags_that_it_has_and_never_twice() {
        let emulates = MinorVersion { major: 1, minor: 35 };
        let flag = json!({ "name": "emulated-version", "value": "1.35" });
        let configuration = json!({ "apiServer": { "extraArgs": [{ "name": "v", "value": "2" }] }, "scheduler": null });
        let found = emulating(&configuration, emulates).unwrap();
        assert_eq!(found["apiServer"]["extraArgs"], json!([{ "name": "v", "value": "2" }, flag]));
        assert_eq!(found["controllerManager"]["extraArgs"], json!([flag]));
        assert_eq!(found["scheduler"]["extraArgs"], json!([flag]));
        assert!(emulating(&found, emulates).unwrap_err().contains("sets emulated-version already"));
        assert!(emulating(&json!({ "apiServer": { "extraArgs": { "v": "2" } } }), emulates).is_err());
    }
}
