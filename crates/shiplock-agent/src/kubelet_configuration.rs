//! Whether the kubelet's configuration on this node was edited by hand: an upgrade writes it anew from the cluster's
//! ConfigMap `kubelet-config`, and what only this node has is lost.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use shiplock_core::facts::HandEdit;
use shiplock_core::problem::{Code, Problem};

use crate::control_plane::{difference, kubeconfig};
use crate::endpoint::Question;
use crate::facts::FileKey;
use crate::host::Host;

/// Where kubeadm puts it.
pub const PATH: &str = "/var/lib/kubelet/config.yaml";
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/kubelet-config";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Every node asks, so that it is not asked often.
const ASK_EVERY: Duration = Duration::from_secs(600);
/// What kubeadm itself writes per node: `instance-config.yaml`, and the resolver where systemd-resolved runs. See
/// `Mutate` in <https://github.com/kubernetes/kubernetes/blob/v1.36.3/cmd/kubeadm/app/componentconfigs/kubelet.go>.
const OF_THE_NODE: &[&str] = &["containerRuntimeEndpoint", "resolvConf"];

/// Compares, and remembers while nothing has changed here.
#[derive(Debug, Default)]
pub struct KubeletConfigurationReader {
    known: Option<(FileKey, Instant, Vec<HandEdit>)>,
}

impl KubeletConfigurationReader {
    /// What this node has besides the cluster's configuration; nothing where no such file is.
    pub async fn edits<H: Host>(&mut self, host: &H) -> Result<Vec<HandEdit>, Problem> {
        let path = host.at(PATH);
        let Ok(metadata) = fs::metadata(&path) else { return Ok(Vec::new()) };
        let key = FileKey::of(&metadata);
        if let Some((known, at, edits)) = &self.known
            && *known == key
            && at.elapsed() < ASK_EVERY
        {
            return Ok(edits.clone());
        }
        let unusable = |why: String| {
            let problem = Problem::new(Code::FileUnusable).with("path", PATH).with("subject", "this node");
            problem.with("operation", "compared").cause(why)
        };
        let own = fs::read_to_string(&path).map_err(|error| unusable(error.to_string()))?;
        let own: Map<String, Value> =
            serde_saphyr::from_str(&own).map_err(|_| unusable("it is not YAML".to_owned()))?;
        let edits: Vec<HandEdit> = compare(&of_the_cluster(host).await?, &own).into_iter().collect();
        self.known = Some((key, Instant::now(), edits.clone()));
        Ok(edits)
    }
}

async fn of_the_cluster<H: Host>(host: &H) -> Result<Map<String, Value>, Problem> {
    let identity = kubeconfig::read(host, kubeconfig::KUBELET)?;
    let unreachable = |why: String| Problem::new(Code::ClusterUnreachable).with("server", &identity.server).cause(why);
    let url = format!("{}{CONFIG_MAP}", identity.server);
    let question = Question { url: &url, trust: &identity.trust, body: None, limit: ANSWER_LIMIT };
    let answer = host.ask(&question).await.map_err(unreachable)?;
    if answer.status != 200 {
        return Err(unreachable(format!("ConfigMap kubelet-config: it answers {}", answer.status)));
    }
    let object: Value = serde_json::from_str(&answer.body).map_err(|error| unreachable(error.to_string()))?;
    let text = object.pointer("/data/kubelet").and_then(Value::as_str).unwrap_or_default();
    serde_saphyr::from_str(text).map_err(|_| unreachable("ConfigMap kubelet-config is not YAML".to_owned()))
}

/// The fields of this node that differ, as a difference from the cluster's. What only the cluster has is no edit here:
/// an upgrade of the control plane brings new defaults there first.
fn compare(cluster: &Map<String, Value>, own: &Map<String, Value>) -> Option<HandEdit> {
    let differs = |(name, value): &(&String, &Value)| {
        let in_cluster = cluster.get(*name);
        let both_unset = is_unset(value) && in_cluster.is_none_or(is_unset);
        in_cluster != Some(value) && !both_unset && !OF_THE_NODE.contains(&name.as_str())
    };
    let names: Vec<&String> = own.iter().filter(differs).map(|(name, _)| name).collect();
    let text = |side: &Map<String, Value>| -> String {
        let line = |name: &&String| Some(format!("{name}: {}\n", side.get(*name)?));
        names.iter().filter_map(line).collect()
    };
    let sides = (text(cluster), text(own));
    let difference = difference::unified(PATH, ("the cluster's", &sides.0), ("this node's", &sides.1))?;
    Some(HandEdit { path: PATH.to_owned(), difference })
}

/// What the kubelet takes for a field that is not there.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty() || value == "0s",
        Value::Array(values) => values.iter().all(is_unset),
        Value::Object(values) => values.values().all(is_unset),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_this_node_has_is_an_edit_and_what_kubeadm_writes_per_node_is_none() {
        let map = |value: Value| value.as_object().cloned().unwrap();
        let cluster = map(json!({ "cgroupDriver": "systemd", "evictionHard": { "nodefs.available": "10%" } }));
        let mut own = cluster.clone();
        own.insert("containerRuntimeEndpoint".to_owned(), json!("unix:///x"));
        own.insert("shutdownGracePeriod".to_owned(), json!("0s"));
        own.insert("logging".to_owned(), json!({ "options": { "json": { "infoBufferSize": "0" } }, "verbosity": 0 }));
        own.remove("cgroupDriver");
        let edit = compare(&cluster, &own).unwrap();
        assert!(!edit.difference.contains("cgroupDriver") && !edit.difference.contains("shutdown"), "{edit:?}");
        own.remove("logging");
        assert_eq!(compare(&cluster, &own), None);
        own.insert("maxPods".to_owned(), json!(250));
        own.insert("evictionHard".to_owned(), json!({ "nodefs.available": "5%" }));
        let edit = compare(&cluster, &own).unwrap();
        assert_eq!(edit.path, PATH);
        for line in [
            "+maxPods: 250",
            "-evictionHard: {\"nodefs.available\":\"10%\"}",
            "+evictionHard: {\"nodefs.available\":\"5%\"}",
        ] {
            assert!(edit.difference.contains(line), "{line}: {}", edit.difference);
        }
    }
}
