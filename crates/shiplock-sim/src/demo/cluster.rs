//! The three clusters: what they are made of, and how clients reach them.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use shiplock_core::facts::{HandEdit, MachineFacts, Observed, POOL_LABEL};
use shiplock_core::id::{ClusterName, NodeName};
use shiplock_core::problem::{Code, Problem};
use tokio::task::JoinSet;

use super::clock::Clock;
use crate::facade::{DeprecatedRequests, Facade, Settings, Shared, listener};
use crate::machine::machine_facts;
use crate::release::{FROM, RUNTIME_FROM, RUNTIME_TO, TO, add_addons, image_of};
use crate::world::{
    Behaviour, JsonObject, Keep, Labels, NodeSpec, Pace, PodTemplate, Selector, Share, WorkloadKind, WorkloadSpec,
    World, labels,
};

/// Changes that are kept for watches of each kind of object.
const CHANGES_KEPT_MAX: usize = 20_000;
/// How old the clusters are when the demo begins: enough to be at rest.
const AGE: SignedDuration = SignedDuration::from_mins(10);

/// How a cluster stands when the demo begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing stands against its upgrade.
    Ready,
    /// Its masters and some of its nodes have the new version; the others are upgraded now.
    Underway,
    /// The pre-check stops its upgrade, and a budget would hold its drains.
    Blocked,
}

/// A simulated cluster.
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// How it stands.
    pub standing: Standing,
    /// Masters, workers.
    pub size: (usize, usize),
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cluster({})", self.name)
    }
}

/// What runs on a cluster: name, replicas, what its budget keeps.
type App = (&'static str, u32, Option<Keep>);

const ONE_AWAY: Option<Keep> = Some(Keep::MaxUnavailable(Share::Count(1)));
const NONE_AWAY: Option<Keep> = Some(Keep::MaxUnavailable(Share::Count(0)));

impl Cluster {
    /// All three, small to large. Everything in them is `speed` times as fast as in a real one.
    pub fn all(seed: u64, speed: u32) -> Vec<Self> {
        let ready: &[App] = &[("web", 4, ONE_AWAY), ("cart", 3, ONE_AWAY), ("mailer", 1, None)];
        let underway: &[App] = &[("search", 6, ONE_AWAY), ("index", 4, ONE_AWAY), ("crawler", 3, None)];
        let blocked: &[App] = &[("ledger", 2, NONE_AWAY), ("reports", 2, None)];
        vec![
            Self::new("museum", Standing::Blocked, (1, 3), blocked, seed, speed),
            Self::new("bakery", Standing::Ready, (3, 6), ready, seed.wrapping_add(1), speed),
            Self::new("harbour", Standing::Underway, (3, 16), underway, seed.wrapping_add(2), speed),
        ]
    }

    fn new(name: &str, standing: Standing, size: (usize, usize), apps: &[App], seed: u64, speed: u32) -> Self {
        let now = Timestamp::now();
        let mut world = World::new(seed, (now - AGE).into(), Pace { speed, ..Pace::default() }, CHANGES_KEPT_MAX);
        let (masters, workers) = size;
        let upgraded = if standing == Standing::Underway { workers / 4 } else { 0 };
        let master_version = if standing == Standing::Underway { TO } else { FROM };
        for index in 1..=masters {
            let images =
                shiplock_core::facts::ControlPlaneComponent::ALL.map(|one| (one, image_of(one, master_version)));
            let images: Vec<_> = images.iter().map(|(component, image)| (*component, image.as_str())).collect();
            let runtime = if standing == Standing::Underway { RUNTIME_TO } else { RUNTIME_FROM };
            world.add_node(&NodeSpec::master(&format!("{name}-m{index}"), master_version, runtime, &images));
        }
        for index in 1..=workers {
            let (kubelet, runtime) = if index <= upgraded { (TO, RUNTIME_TO) } else { (FROM, RUNTIME_FROM) };
            let mut spec = NodeSpec::worker(&format!("{name}-w{index:02}"), kubelet, runtime);
            spec.labels.insert(POOL_LABEL.to_owned(), "workers".to_owned());
            let zone = ["a", "b", "c"][index % 3];
            spec.labels.insert("topology.kubernetes.io/zone".to_owned(), zone.to_owned());
            world.add_node(&spec);
        }
        add_addons(&mut world, master_version);
        for (app, replicas, keep) in apps {
            let mut spec = WorkloadSpec::new(WorkloadKind::Deployment, "shop", app, *replicas);
            spec.template = PodTemplate {
                labels: labels([("app", *app)]),
                containers: vec![("main".into(), format!("registry.example/{app}:1.4").as_str().into())],
                behaviour: Behaviour { stop: Duration::from_secs(5), ..Behaviour::default() },
                ..PodTemplate::default()
            };
            world.add_workload(&spec);
            world.add_service("shop", app, Some(labels([("app", *app)])), &[80]);
            if let Some(keep) = keep {
                world.add_budget("shop", app, Some(Selector::of([("app", *app)])), *keep);
            }
        }
        let mut settings = Settings::default();
        if standing == Standing::Blocked {
            add_findings(&mut world, &mut settings);
        }
        world.advance(now.into());
        let clock = Clock::start(&world, speed);
        Self { name: name.into(), standing, size, shared: Arc::new(Shared::new(world, settings)), clock }
    }

    /// The nodes, by id.
    pub(super) fn nodes(&self) -> Vec<(u32, NodeName)> {
        self.shared
            .look(|world| world.nodes().iter().map(|(id, node)| (id, NodeName::new(node.meta.name.clone()))).collect())
    }

    fn is_master(&self, node: &NodeName) -> bool {
        self.shared.look(|world| {
            let machine = world.nodes().id("", node.as_str()).and_then(|id| world.machine(id));
            machine.is_some_and(|machine| !machine.static_pods.is_empty())
        })
    }

    /// What the agent on a node tells of it.
    pub(super) fn machine_facts(&self, id: u32) -> Option<MachineFacts> {
        let mut facts = self.shared.look(|world| machine_facts(world, id))?;
        if self.standing == Standing::Blocked
            && let Some(control_plane) = &mut facts.control_plane
        {
            let edit = HandEdit {
                path: "/etc/kubernetes/manifests/kube-apiserver.yaml".to_owned(),
                difference: HAND_EDIT.to_owned(),
            };
            control_plane.hand_edits = Observed::Known(vec![edit]);
        }
        Some(facts)
    }

    /// Opens its API endpoints on ports that nobody has: one for each master, and one that any of them answers. Time
    /// begins to go. Answers the kubeconfig; `tasks` serve until they are aborted.
    pub async fn open(&self, tasks: &mut JoinSet<()>) -> Result<String, Problem> {
        let no_port = |error: std::io::Error| {
            Problem::new(Code::Internal).with("what", "a port for a simulated cluster").because(&error)
        };
        let token = self.shared.look(|world| format!("{:032x}", world.cluster_uid()));
        let credentials = Arc::new(listener::Credentials::new(token)?);
        let masters: Vec<NodeName> =
            self.nodes().into_iter().map(|(_, name)| name).filter(|name| self.is_master(name)).collect();
        for master in &masters {
            let open = listener::listen().await.map_err(no_port)?;
            let port = open.local_addr().map_err(no_port)?.port();
            self.shared.with(|world| publish(world, master, port));
            let facade = Facade::new(self.shared.clone(), Some(master.as_str()));
            tasks.spawn(listener::serve(open, facade, credentials.clone()));
        }
        let open = listener::listen().await.map_err(no_port)?;
        let address = open.local_addr().map_err(no_port)?;
        let kubeconfig = credentials.kubeconfig(self.name.as_str(), address);
        tasks.spawn(listener::serve(open, Facade::new(self.shared.clone(), None), credentials));
        tasks.spawn(self.clock.run(self.shared.clone()));
        Ok(kubeconfig)
    }
}

/// Puts the address of a master's API server where API servers publish theirs.
fn publish(world: &mut World, master: &NodeName, port: u16) {
    let name = format!("kubernetes-{master}");
    let labels = labels([("kubernetes.io/service-name", "kubernetes")]);
    let meta = world.new_meta("default", &name, &labels);
    let value = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    });
    world.create_other("endpointslices.discovery.k8s.io", JsonObject { meta, value: Arc::new(value) });
}

/// What kubeadm would not render, as an agent shows it.
const HAND_EDIT: &str = "\
--- what kubeadm v1.35.4 would render
+++ /etc/kubernetes/manifests/kube-apiserver.yaml
@@
     - --authorization-mode=Node,RBAC
+    - --max-requests-inflight=1200
     - --client-ca-file=/etc/kubernetes/pki/ca.crt
";

/// What a pre-check finds in the cluster that is blocked.
fn add_findings(world: &mut World, settings: &mut Settings) {
    settings.deprecated.push(DeprecatedRequests {
        group: "flowcontrol.apiserver.k8s.io".to_owned(),
        version: "v1beta3".to_owned(),
        resource: "flowschemas".to_owned(),
        removed_release: "1.32".to_owned(),
    });
    let meta = world.new_meta("", "guard", &Labels::default());
    let value = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "guard"},
        "webhooks": [{
            "name": "pods.guard.example",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "timeoutSeconds": 10,
            "clientConfig": {"service": {"namespace": "shop", "name": "guard", "port": 443, "path": "/"}, "caBundle": ""},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "*"}],
            "namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
            ]},
        }],
    });
    let object = JsonObject { meta, value: Arc::new(value) };
    world.create_other("validatingwebhookconfigurations.admissionregistration.k8s.io", object);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Moment;

    #[tokio::test(start_paused = true)]
    async fn the_clock_of_a_cluster_is_that_of_its_clients_however_fast_it_is() {
        let begun = Moment::from(Timestamp::now());
        let clusters = Cluster::all(u64::MAX, 10);
        let made = Moment::from(Timestamp::now());
        for cluster in &clusters {
            let now = cluster.shared.look(World::now);
            assert!((begun..=made).contains(&now), "{cluster:?}");
            let created = cluster.shared.look(|world| world.pods().iter().map(|(_, pod)| pod.meta.created_at).max());
            assert!(created < Some(begun), "{cluster:?} is at rest");
        }
        let cluster = &clusters[0];
        let (from, minute) = (cluster.shared.look(World::now), Duration::from_secs(60));
        let clock = tokio::spawn(cluster.clock.run(cluster.shared.clone()));
        tokio::time::sleep(minute + Duration::from_millis(10)).await;
        let passed = cluster.shared.look(World::now).since(from);
        assert!(
            passed <= minute + Duration::from_millis(10) && passed > minute - Duration::from_millis(50),
            "{passed:?}"
        );
        clock.abort();
    }
}
