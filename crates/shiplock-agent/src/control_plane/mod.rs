//! The control plane on this master: what there is to know of it.
//!
//! Reading changes nothing and is cheap: what costs much (kubeadm's rendering, certificates, details of containers) is
//! remembered until what it was made from changes.

pub mod admission;
pub mod certificates;
pub mod difference;
pub mod etcd;
pub mod kept;
pub mod kubeadm;
pub mod kubeconfig;
pub mod manifest;
pub mod written;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::Value;
use shiplock_core::facts::{
    CertificateFacts, ControlPlaneComponent, ControlPlaneFacts, EtcdFacts, HandEdit, Observed, RunningContainerFacts,
    StaticPodFacts,
};
use shiplock_core::problem::{Code, Problem};

use self::etcd::Etcd;
use self::kubeadm::Rendering;
use self::manifest::Manifest;
use crate::cri::Container;
use crate::endpoint::{Question, Trust};
use crate::facts::{FileKey, Since};
use crate::host::Host;

const HEALTH_LIMIT: Duration = Duration::from_millis(1500);
/// ConfigMap `kubeadm-config` is asked for after so long, where nothing on the node has changed.
const CONFIGURATION_EVERY: Duration = Duration::from_secs(60);
/// And after so long where it could not be read, as while an API server is being replaced.
const CONFIGURATION_AGAIN: Duration = Duration::from_secs(5);
/// In memory: what is rendered to be compared is not kept.
const RENDERED: &str = "/run/shiplock/rendered";
/// Static pods of one master, also those that have been replaced.
const CONTAINERS_MAX: usize = 32;

/// Every manifest that is there, by component, as text.
pub fn manifests<H: Host>(host: &H) -> BTreeMap<ControlPlaneComponent, String> {
    let read = |component| Some((component, fs::read_to_string(host.at(&manifest::path(component))).ok()?));
    ControlPlaneComponent::ALL.into_iter().filter_map(read).collect()
}

/// The container of a component that was made last.
pub fn newest(containers: &[Container], component: ControlPlaneComponent) -> Option<&Container> {
    let of_component = containers.iter().filter(|container| container.name == component.name());
    of_component.max_by_key(|container| container.created_at)
}

/// Whether a component's own health endpoint answers that it is well.
pub async fn is_healthy<H: Host>(host: &H, manifest: &Manifest) -> bool {
    let question = Question { url: &manifest.health_url, trust: &Trust::Anybody, body: None, limit: HEALTH_LIMIT };
    match host.ask(&question).await {
        Ok(answer) if matches!(answer.status, 401 | 403) => {
            // Anonymous questions are switched off: then the node asks under its own name.
            let Ok(own) = kubeconfig::read(host, kubeconfig::KUBELET) else { return false };
            let question = Question { trust: &own.trust, ..question };
            host.ask(&question).await.is_ok_and(|answer| answer.status == 200)
        }
        // etcd's own word may be in the body.
        Ok(answer) => answer.status == 200 && !answer.body.contains("\"health\":\"false\""),
        Err(_) => false,
    }
}

/// Reads the control plane's facts, and remembers what costs much.
#[derive(Debug, Default)]
pub struct ControlPlaneReader {
    containers: HashMap<String, (String, Timestamp)>,
    certificates: Option<(Vec<(PathBuf, FileKey)>, CertificateFacts)>,
    hand_edits: Option<KnownEdits>,
    refusing_webhook: Option<Problem>,
}

#[derive(Clone, Debug)]
struct KnownEdits {
    keys: Vec<(PathBuf, FileKey)>,
    resource_version: String,
    asked_at: Instant,
    is_current: bool,
    /// The version that the configuration names.
    version: Result<String, Problem>,
    edits: Result<Vec<HandEdit>, Problem>,
}

impl ControlPlaneReader {
    /// The facts now; none where there is no static pod of a control plane.
    pub async fn read<H: Host>(
        &mut self,
        host: &H,
        data_folder: &Path,
        since: &mut Since,
    ) -> Option<ControlPlaneFacts> {
        let texts = manifests(host);
        if texts.is_empty() {
            return None;
        }
        let parsed: BTreeMap<ControlPlaneComponent, Manifest> = texts
            .iter()
            .filter_map(|(component, text)| Some((*component, Manifest::parse(*component, text).ok()?)))
            .collect();
        let kubelet_server = kubeconfig::server(host, kubeconfig::KUBELET).unwrap_or_default();
        let advertised = parsed.get(&ControlPlaneComponent::KubeApiserver).and_then(Manifest::advertised);
        let cluster = self.etcd(host, &parsed).await;
        Some(ControlPlaneFacts {
            components: self.components(host, &texts, &parsed).await,
            etcd: match cluster {
                EtcdReading::External(endpoints) => EtcdFacts::External { endpoints },
                EtcdReading::Stacked(read) => EtcdFacts::Stacked { cluster: since.observed("etcd", read) },
            },
            hand_edits: self.hand_edits(host, data_folder, &texts, &parsed, since).await,
            configured_version: self
                .hand_edits
                .as_ref()
                .map(|known| since.observed("kubeadm-config", known.version.clone())),
            certificates: self.certificates(host),
            kubelet_server_is_local: is_local(&kubelet_server, advertised.as_ref()),
            kept: kept::read(host, data_folder),
            kubelet_server,
            refusing_webhook: self.refusing_webhook.clone(),
        })
    }

    /// Has ConfigMap `kubeadm-config` asked for again at the next read, whatever its age: a step may have written it.
    pub fn ask_configuration_again(&mut self) {
        if let Some(known) = &mut self.hand_edits {
            known.is_current = false;
        }
    }

    /// Asks anew whether a webhook keeps static pods out of the API. It may take its time, so that it is not part of
    /// every look.
    pub async fn ask_webhooks<H: Host>(&mut self, host: &H) {
        self.refusing_webhook = admission::refusing_webhook_here(host).await;
    }

    async fn components<H: Host>(
        &mut self,
        host: &H,
        texts: &BTreeMap<ControlPlaneComponent, String>,
        parsed: &BTreeMap<ControlPlaneComponent, Manifest>,
    ) -> Vec<StaticPodFacts> {
        let health = join_all(texts.keys().map(|component| async {
            match parsed.get(component) {
                Some(manifest) => is_healthy(host, manifest).await,
                None => false,
            }
        }));
        let (containers, health) = futures::join!(host.containers(), health);
        let containers = containers.unwrap_or_default();
        let mut components = Vec::new();
        for (&component, healthy) in texts.keys().zip(health) {
            let running = match newest(&containers, component).filter(|container| container.running) {
                Some(container) => self.running(host, container).await,
                None => None,
            };
            let image = parsed.get(&component).map(|manifest| manifest.image.clone()).unwrap_or_default();
            components.push(StaticPodFacts { component, image, running, healthy });
        }
        components
    }

    async fn running<H: Host>(&mut self, host: &H, container: &Container) -> Option<RunningContainerFacts> {
        if !self.containers.contains_key(&container.id) {
            let details = host.container_details(&container.id).await.ok()?;
            let started = Timestamp::from_nanosecond(details.started_at.into()).ok()?;
            if self.containers.len() >= CONTAINERS_MAX {
                self.containers.clear();
            }
            self.containers.insert(container.id.clone(), (details.image, started));
        }
        let (image, started_at) = self.containers.get(&container.id)?.clone();
        Some(RunningContainerFacts { image, image_id: container.image_id.clone(), started_at })
    }

    async fn etcd<H: Host>(&self, host: &H, parsed: &BTreeMap<ControlPlaneComponent, Manifest>) -> EtcdReading {
        let Some(api_server) = parsed.get(&ControlPlaneComponent::KubeApiserver) else {
            let why = "the manifest of the API server, which tells of it, is not there";
            return EtcdReading::Stacked(Err(Problem::new(Code::EtcdNotWell)
                .with("node", "this node")
                .with("why", why)));
        };
        match own_member(host, api_server, parsed.get(&ControlPlaneComponent::Etcd)) {
            None => EtcdReading::External(api_server.list("etcd-servers").into_iter().map(str::to_owned).collect()),
            Some(Err(problem)) => EtcdReading::Stacked(Err(problem)),
            Some(Ok(etcd)) => EtcdReading::Stacked(etcd.cluster(host).await),
        }
    }

    fn certificates<H: Host>(&mut self, host: &H) -> CertificateFacts {
        let files = certificates::files(host);
        let keys = keys(&files);
        match &self.certificates {
            Some((known, facts)) if *known == keys => facts.clone(),
            _ => {
                let facts = certificates::facts(host, &files);
                self.certificates = Some((keys, facts.clone()));
                facts
            }
        }
    }

    async fn hand_edits<H: Host>(
        &mut self,
        host: &H,
        data_folder: &Path,
        texts: &BTreeMap<ControlPlaneComponent, String>,
        parsed: &BTreeMap<ControlPlaneComponent, Manifest>,
        since: &mut Since,
    ) -> Observed<Vec<HandEdit>> {
        let program = host.find_program("kubeadm");
        let mut files: Vec<PathBuf> = texts.keys().map(|component| host.at(&manifest::path(*component))).collect();
        files.extend(program.iter().map(|path| host.at(path)));
        let keys = keys(&files);
        let known = self.hand_edits.take().filter(|known| known.keys == keys);
        let is_fresh = |known: &&KnownEdits| {
            known.is_current
                && known.asked_at.elapsed()
                    < if known.version.is_ok() { CONFIGURATION_EVERY } else { CONFIGURATION_AGAIN }
        };
        if let Some(known) = known.as_ref().filter(is_fresh) {
            self.hand_edits = Some(known.clone());
            return since.observed("hand edits", known.edits.clone());
        }
        let (resource_version, version, edits) = match kubeadm::cluster_configuration(host).await {
            Err(problem) => (String::new(), Err(problem.clone()), Err(problem)),
            Ok(configuration) => {
                let same = known.filter(|known| known.resource_version == configuration.resource_version);
                let edits = match same {
                    Some(known) => known.edits,
                    None => find_edits(host, program.as_deref(), data_folder, &configuration, texts, parsed).await,
                };
                let version = configuration.document.get("kubernetesVersion").and_then(Value::as_str);
                let version = version.unwrap_or_default().to_owned();
                (configuration.resource_version, Ok(version), edits)
            }
        };
        let asked_at = Instant::now();
        let is_current = true;
        self.hand_edits =
            Some(KnownEdits { keys, resource_version, asked_at, is_current, version, edits: edits.clone() });
        since.observed("hand edits", edits)
    }
}

enum EtcdReading {
    External(Vec<String>),
    Stacked(Result<shiplock_core::facts::EtcdClusterFacts, Problem>),
}

/// The way to the etcd member that an API server uses on its own node; none where it uses one elsewhere. A member whose
/// manifest is away is not well, and never taken for one that is elsewhere.
pub fn own_member<H: Host>(host: &H, api_server: &Manifest, etcd: Option<&Manifest>) -> Option<Result<Etcd, Problem>> {
    let servers = api_server.list("etcd-servers");
    let Some(etcd) = etcd else {
        let advertised = api_server.advertised();
        let here = servers.iter().any(|server| is_of_this_node(server, advertised.as_ref().map(|own| own.0.as_str())));
        let why = format!("its manifest {} is not there", manifest::path(ControlPlaneComponent::Etcd));
        return here.then(|| Err(Problem::new(Code::EtcdNotWell).with("node", "this node").with("why", why)));
    };
    let listens = etcd.list("listen-client-urls");
    let own = servers.iter().any(|server| {
        let server = server.trim_end_matches('/');
        listens.iter().any(|url| url.trim_end_matches('/') == server) || server.contains("//localhost:")
    });
    own.then(|| Etcd::beside(host, api_server, etcd))
}

fn is_of_this_node(server: &str, advertised: Option<&str>) -> bool {
    let authority = server.trim_start_matches("https://").trim_end_matches('/');
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);
    matches!(host, "127.0.0.1" | "::1" | "localhost") || Some(host) == advertised
}

fn is_local(server: &str, advertised: Option<&(String, u16)>) -> bool {
    let Some((host, port)) = server.trim_start_matches("https://").trim_end_matches('/').rsplit_once(':') else {
        return false;
    };
    let host = host.trim_matches(['[', ']']);
    let here = |(address, own): &(String, u16)| {
        port.parse() == Ok(*own) && (host == address || matches!(host, "127.0.0.1" | "::1" | "localhost"))
    };
    advertised.is_some_and(here)
}

fn keys(files: &[PathBuf]) -> Vec<(PathBuf, FileKey)> {
    let key = |path: &PathBuf| Some((path.clone(), FileKey::of(&fs::metadata(path).ok()?)));
    files.iter().filter_map(key).collect()
}

/// Compares what the installed kubeadm would render with what is in force.
async fn find_edits<H: Host>(
    host: &H,
    program: Option<&str>,
    data_folder: &Path,
    configuration: &kubeadm::ClusterConfiguration,
    texts: &BTreeMap<ControlPlaneComponent, String>,
    parsed: &BTreeMap<ControlPlaneComponent, Manifest>,
) -> Result<Vec<HandEdit>, Problem> {
    let missing = |what: &str| {
        Problem::new(Code::FileUnusable).with("path", what).with("subject", "this node").with("operation", "found")
    };
    let api_server = parsed.get(&ControlPlaneComponent::KubeApiserver);
    let api_server = api_server.ok_or_else(|| missing(&manifest::path(ControlPlaneComponent::KubeApiserver)))?;
    let program = program.ok_or_else(|| missing("kubeadm"))?;
    let running = api_server.image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let found = kubeadm::version(host, program).await?;
    // What was rendered by us and not touched since has no edits, whatever kubeadm is installed now.
    let texts: BTreeMap<_, _> = texts
        .iter()
        .filter(|(_, text)| !written::is_ours(data_folder, text))
        .map(|(key, text)| (*key, text.clone()))
        .collect();
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    if found != running {
        return Err(Problem::new(Code::ReadBackMismatch)
            .with("component", "kubeadm")
            .with("subject", "this node")
            .with("found", found)
            .with("expected", running));
    }
    let node = match kubeconfig::read(host, kubeconfig::KUBELET)?.trust {
        Trust::Authority { identity_pem, .. } => certificates::node_name(&identity_pem),
        Trust::Anybody => None,
    };
    let node = node.ok_or_else(|| missing("the node's name in the kubelet's certificate"))?;
    let rendering = Rendering { kubeadm: program, version: running, node: &node, patches: None, emulates: None };
    let rendered = kubeadm::render(host, &host.at(RENDERED), rendering, &configuration.document, api_server).await?;
    Ok(kubeadm::hand_edits(&rendered, &texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_whose_manifest_is_away_is_not_taken_for_one_elsewhere() {
        for (server, here) in [
            ("https://127.0.0.1:2379", true),
            ("https://[::1]:2379/", true),
            ("https://10.0.0.1:2379", true),
            ("https://10.0.0.9:2379", false),
            ("https://etcd.example.com:2379", false),
        ] {
            assert_eq!(is_of_this_node(server, Some("10.0.0.1")), here, "{server}");
        }
    }

    #[test]
    fn a_kubelet_that_talks_to_its_own_api_server_is_told_from_one_behind_a_balancer() {
        let own = ("10.0.0.1".to_owned(), 6443);
        for (server, expected) in [
            ("https://10.0.0.1:6443", true),
            ("https://10.0.0.1:6443/", true),
            ("https://127.0.0.1:6443", true),
            ("https://10.0.0.1:443", false),
            ("https://balancer:6443", false),
            ("", false),
        ] {
            assert_eq!(is_local(server, Some(&own)), expected, "{server}");
        }
        assert!(!is_local("https://10.0.0.1:6443", None));
    }
}
