//! The manifest of a static pod: its image, its flags, and where it tells its health.
//!
//! Nothing is assumed of ports and addresses: they are read from probes and flags, in that order.

use serde::Deserialize;
use serde_json::Value;
use shiplock_core::facts::ControlPlaneComponent;

/// Where static pods of a kubeadm control plane are.
pub const FOLDER: &str = "/etc/kubernetes/manifests";
/// Where kubeadm writes down the address that an API server tells others.
const ADVERTISED: &str = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint";
const DEFAULT_API_PORT: &str = "6443";

/// The path of a component's manifest on the node.
pub fn path(component: ControlPlaneComponent) -> String {
    format!("{FOLDER}/{}.yaml", component.name())
}

/// What is used of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The component.
    pub component: ControlPlaneComponent,
    /// The reference of the image.
    pub image: String,
    /// Where health is told.
    pub health_url: String,
    command: Vec<String>,
    advertised: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    metadata: Metadata,
    spec: Spec,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Spec {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    name: String,
    image: String,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    ports: Vec<Port>,
    readiness_probe: Option<Probe>,
    startup_probe: Option<Probe>,
    liveness_probe: Option<Probe>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    container_port: u16,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: Option<HttpGet>,
}

#[derive(Deserialize)]
struct HttpGet {
    host: Option<String>,
    path: Option<String>,
    port: Value,
    scheme: Option<String>,
}

impl Manifest {
    /// Reads a manifest. The error is in words and quotes nothing of the text.
    pub fn parse(component: ControlPlaneComponent, text: &str) -> Result<Self, String> {
        let pod: Pod = serde_saphyr::from_str(text).map_err(|_| "it is not the YAML of a pod".to_owned())?;
        let mut containers = pod.spec.containers;
        let at = containers.iter().position(|container| container.name == component.name()).unwrap_or(0);
        if containers.is_empty() {
            return Err("it has no container".to_owned());
        }
        let container = containers.swap_remove(at);
        let probes = [&container.readiness_probe, &container.startup_probe, &container.liveness_probe];
        let probed = probes
            .into_iter()
            .flatten()
            .filter_map(|probe| probe.http_get.as_ref())
            .find_map(|get| url(get, &container.ports));
        let mut manifest = Self {
            component,
            health_url: probed.unwrap_or_default(),
            image: container.image,
            command: container.command.into_iter().chain(container.args).collect(),
            advertised: pod.metadata.annotations.get(ADVERTISED).cloned(),
        };
        if manifest.health_url.is_empty() {
            manifest.health_url = manifest.default_health_url();
        }
        Ok(manifest)
    }

    /// The value of a flag: `--name=value`, or `--name value`.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let mut words = self.command.iter();
        while let Some(word) = words.next() {
            let Some(rest) = word.strip_prefix("--").and_then(|word| word.strip_prefix(name)) else { continue };
            if rest.is_empty() {
                return words.next().map(String::as_str);
            }
            if let Some(value) = rest.strip_prefix('=') {
                return Some(value);
            }
        }
        None
    }

    /// The values of a flag that takes a list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.flag(name).unwrap_or_default().split(',').filter(|value| !value.is_empty()).collect()
    }

    /// The address and port under which this API server is known to others.
    pub fn advertised(&self) -> Option<(String, u16)> {
        let port = self.flag("secure-port").unwrap_or(DEFAULT_API_PORT);
        let from_flags = || Some(bracketed(self.flag("advertise-address")?) + ":" + port);
        let endpoint = self.advertised.clone().or_else(from_flags)?;
        let (host, port) = endpoint.rsplit_once(':')?;
        Some((host.trim_matches(['[', ']']).to_owned(), port.parse().ok()?))
    }

    fn default_health_url(&self) -> String {
        let host = |flag: &str| bracketed(self.flag(flag).filter(|host| *host != "0.0.0.0").unwrap_or("127.0.0.1"));
        match self.component {
            ControlPlaneComponent::Etcd => match self.list("listen-metrics-urls").first() {
                Some(url) => format!("{}/health", url.trim_end_matches('/')),
                None => "http://127.0.0.1:2381/health".to_owned(),
            },
            ControlPlaneComponent::KubeApiserver => {
                let (host, port) = self.advertised().unwrap_or_else(|| ("127.0.0.1".to_owned(), 6443));
                format!("https://{}:{port}/readyz", bracketed(&host))
            }
            ControlPlaneComponent::KubeControllerManager => {
                format!("https://{}:{}/healthz", host("bind-address"), self.flag("secure-port").unwrap_or("10257"))
            }
            ControlPlaneComponent::KubeScheduler => {
                format!("https://{}:{}/healthz", host("bind-address"), self.flag("secure-port").unwrap_or("10259"))
            }
        }
    }
}

/// A host as it stands in an address: IPv6 in brackets.
pub fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn url(get: &HttpGet, ports: &[Port]) -> Option<String> {
    let port = match &get.port {
        Value::Number(port) => u16::try_from(port.as_u64()?).ok()?,
        Value::String(name) => match name.parse() {
            Ok(port) => port,
            Err(_) => ports.iter().find(|port| port.name.as_ref() == Some(name))?.container_port,
        },
        _ => return None,
    };
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_lowercase();
    let host = bracketed(get.host.as_deref().unwrap_or("127.0.0.1"));
    Some(format!("{scheme}://{host}:{port}{}", get.path.as_deref().unwrap_or("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "
metadata: {annotations: {kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint: '10.0.0.1:7443'}}
spec:
  containers:
  - name: side
    image: side:1
  - name: kube-apiserver
    image: registry.k8s.io/kube-apiserver:v1.35.4
    command: [kube-apiserver, --advertise-address=10.0.0.1, --secure-port, '7443', '--etcd-servers=https://a:1,https://b:2']
    ports: [{containerPort: 7443, name: probe-port}]
    livenessProbe: {httpGet: {host: 10.0.0.1, path: /livez, port: 7443, scheme: HTTPS}}
    readinessProbe: {httpGet: {host: 10.0.0.1, path: /readyz, port: probe-port, scheme: HTTPS}}
";

    #[test]
    fn image_flags_and_health_are_read_from_the_manifest() {
        let manifest = Manifest::parse(ControlPlaneComponent::KubeApiserver, POD).unwrap();
        assert_eq!(manifest.image, "registry.k8s.io/kube-apiserver:v1.35.4");
        assert_eq!(manifest.health_url, "https://10.0.0.1:7443/readyz");
        assert_eq!(manifest.flag("secure-port"), Some("7443"));
        assert_eq!(manifest.list("etcd-servers"), ["https://a:1", "https://b:2"]);
        assert_eq!(manifest.flag("advertise"), None, "a flag's begin is not the flag");
        assert_eq!(manifest.advertised(), Some(("10.0.0.1".to_owned(), 7443)));
    }

    #[test]
    fn without_probes_the_flags_tell_where_health_is() {
        for (component, command, expected) in [
            (
                ControlPlaneComponent::Etcd,
                "--listen-metrics-urls=http://127.0.0.1:9381",
                "http://127.0.0.1:9381/health",
            ),
            (ControlPlaneComponent::KubeApiserver, "--advertise-address=fd00::1", "https://[fd00::1]:6443/readyz"),
            (ControlPlaneComponent::KubeControllerManager, "--secure-port=9257", "https://127.0.0.1:9257/healthz"),
            (ControlPlaneComponent::KubeScheduler, "--bind-address=0.0.0.0", "https://127.0.0.1:10259/healthz"),
        ] {
            let text = format!("spec: {{containers: [{{name: x, image: i, command: [c, '{command}']}}]}}");
            assert_eq!(Manifest::parse(component, &text).unwrap().health_url, expected);
        }
        for damaged in ["", "spec: {containers: []}", "spec: [", "a: b"] {
            assert!(Manifest::parse(ControlPlaneComponent::Etcd, damaged).is_err(), "{damaged}");
        }
    }
}
