//! A master in memory: static pods that follow their manifests as a kubelet has them, etcd and API servers that answer.

use std::cell::{Cell, RefCell};
use std::fs;

use serde_json::{Value, json};
use shiplock_agent::cri::{Container, ContainerDetails};
use shiplock_agent::endpoint::{Answer, Question};
use shiplock_core::facts::ControlPlaneComponent;

use crate::fake::{FakeNode, digest};

const OWN: &str = "10.0.0.1";
/// What stands before the version in ConfigMap `kubeadm-config`.
const CONFIGURED: &str = "apiVersion: v\nkubernetesVersion: ";
const OTHER: &str = "10.0.0.2";

/// What runs besides kubelet and containerd. Manifests are files of the node.
#[derive(Debug)]
pub(crate) struct FakeMaster {
    pods: RefCell<Vec<FakePod>>,
    made: Cell<u32>,
    /// Looks at containers until a kubelet that was started has made them.
    late: Cell<u32>,
    /// The kubelet that the pods were made by.
    made_by: RefCell<String>,
    pub(crate) masters: Cell<u64>,
    pub(crate) leader: Cell<u64>,
    pub(crate) other_ready: Cell<bool>,
    pub(crate) other_etcd_healthy: Cell<bool>,
    pub(crate) alarm: Cell<bool>,
    /// Our etcd does not answer at its new version.
    pub(crate) new_etcd_silent: Cell<bool>,
    /// The version in ConfigMap `kubeadm-config`.
    pub(crate) uploaded: RefCell<String>,
    /// The tags of kube-proxy and CoreDNS.
    pub(crate) addons: RefCell<(String, String)>,
    /// A webhook fails for pods.
    pub(crate) webhook: Cell<bool>,
    /// The runtime runs another image than its name says.
    pub(crate) false_image: Cell<bool>,
    /// The last that a kubelet does before it ends is to make a container of this component anew.
    pub(crate) made_last: Cell<Option<ControlPlaneComponent>>,
    /// What still ran when a kubelet was started: it would collide with what that makes.
    pub(crate) ran_at_start: RefCell<Vec<ControlPlaneComponent>>,
}

#[derive(Clone, Debug)]
struct FakePod {
    component: ControlPlaneComponent,
    manifest: String,
    id: String,
    running: bool,
    attempt: u32,
    created_at: i64,
}

impl Default for FakeMaster {
    fn default() -> Self {
        Self {
            pods: RefCell::default(),
            made: Cell::new(0),
            late: Cell::new(0),
            made_by: RefCell::default(),
            masters: Cell::new(3),
            leader: Cell::new(2),
            other_ready: Cell::new(true),
            other_etcd_healthy: Cell::new(true),
            alarm: Cell::new(false),
            new_etcd_silent: Cell::new(false),
            uploaded: RefCell::new("v1.35.4".to_owned()),
            addons: RefCell::new(("v1.35.4".to_owned(), "v1.13.1".to_owned())),
            webhook: Cell::new(false),
            false_image: Cell::new(false),
            made_last: Cell::new(None),
            ran_at_start: RefCell::default(),
        }
    }
}

fn etcd_tag(version: &str) -> &'static str {
    match version {
        "v1.35.4" => "3.6.6-0",
        "v1.36.3" => "3.6.8-0",
        _ => "3.7.0-0",
    }
}

fn coredns_tag(version: &str) -> &'static str {
    if version == "v1.35.4" { "v1.13.1" } else { "v1.14.2" }
}

pub(crate) fn reference(component: ControlPlaneComponent, version: &str) -> String {
    let tag = if component == ControlPlaneComponent::Etcd { etcd_tag(version) } else { version };
    format!("registry.k8s.io/{}:{tag}", component.name())
}

/// The digest of an image's configuration.
pub(crate) fn image_id(reference: &str) -> String {
    format!("sha256:{}", digest(reference))
}

/// What a kubeadm such as `kubeadm v1.36.3` renders; one with `broken-NAME` in it gives that component a flag which it
/// does not survive.
fn render(kubeadm: &str, component: ControlPlaneComponent, emulates: bool) -> String {
    let version = kubeadm.split(' ').nth(1).unwrap_or_default();
    let mut flags: Vec<String> = match component {
        ControlPlaneComponent::Etcd => {
            vec![
                "listen-client-urls=https://127.0.0.1:2379".to_owned(),
                "listen-metrics-urls=http://127.0.0.1:2381".to_owned(),
            ]
        }
        ControlPlaneComponent::KubeApiserver => vec![
            format!("advertise-address={OWN}"),
            "etcd-servers=https://127.0.0.1:2379".to_owned(),
            "etcd-cafile=/etc/kubernetes/pki/ca.crt".to_owned(),
            "etcd-certfile=/etc/kubernetes/pki/ca.crt".to_owned(),
            "etcd-keyfile=/etc/kubernetes/pki/ca.key".to_owned(),
        ],
        _ => vec!["bind-address=127.0.0.1".to_owned()],
    };
    if version != "v1.35.4" {
        flags.push("new-default=1".to_owned());
    }
    if kubeadm.contains(&format!("broken-{}", component.name())) {
        flags.push("not-known".to_owned());
    }
    if emulates && component != ControlPlaneComponent::Etcd {
        flags.push("emulated-version=1.35".to_owned());
    }
    let flags: String = flags.iter().map(|flag| format!("    - --{flag}\n")).collect();
    let name = component.name();
    let image = reference(component, version);
    format!("spec:\n  containers:\n  - name: {name}\n    image: {image}\n    command:\n    - {name}\n{flags}")
}

pub(crate) fn manifest_path(component: ControlPlaneComponent) -> String {
    format!("/etc/kubernetes/manifests/{}.yaml", component.name())
}

impl FakeNode {
    /// Makes a master of the node, as kubeadm 1.35 would.
    pub(crate) fn become_master(&self) {
        for component in ControlPlaneComponent::ALL {
            self.write(&manifest_path(component), &render("kubeadm v1.35.4", component, false));
        }
        let kubeconfig = format!(
            "clusters: [{{cluster: {{server: 'https://{OWN}:6443', certificate-authority-data: YQ==}}}}]\n\
             users: [{{user: {{client-certificate-data: YQ==, client-key-data: YQ==}}}}]\n"
        );
        for path in ["/etc/kubernetes/kubelet.conf", "/etc/kubernetes/admin.conf"] {
            self.write(path, &kubeconfig);
        }
        for path in ["/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/ca.key"] {
            self.write(path, "pem");
        }
        for version in ["v1.35.4", "v1.36.3", "v1.37.2"] {
            for component in ControlPlaneComponent::ALL {
                let reference = reference(component, version);
                self.add_image(&reference, &format!("sha256:{}", digest(&format!("manifest of {reference}"))));
            }
        }
        *self.master.made_by.borrow_mut() = self.running("kubelet");
        self.sync_pods();
    }

    /// What a kubelet does with the manifests: a changed one, and under another kubelet each one, gets a new container.
    pub(crate) fn sync_pods(&self) {
        let kubelet = self.running("kubelet");
        let other_kubelet = *self.master.made_by.borrow() != kubelet;
        *self.master.made_by.borrow_mut() = kubelet;
        let mut pods = self.master.pods.borrow_mut();
        for component in ControlPlaneComponent::ALL {
            let manifest = self.read(&manifest_path(component));
            let keep =
                |pod: &FakePod| pod.component == component && pod.running && pod.manifest == manifest && !other_kubelet;
            if manifest.is_empty() || pods.iter().any(keep) {
                continue;
            }
            for pod in pods.iter_mut().filter(|pod| pod.component == component) {
                pod.running = false;
            }
            let made = self.master.made.get() + 1;
            self.master.made.set(made);
            let running = !manifest.contains("--not-known");
            let id = format!("container-{made}");
            pods.push(FakePod { component, manifest, id, running, attempt: 0, created_at: made.into() });
        }
    }

    /// The kubelet is started: it says that it is well at once, and makes containers later.
    pub(crate) fn kubelet_started(&self) {
        self.master.late.set(3);
        let pods = self.master.pods.borrow();
        let running = pods.iter().filter(|pod| pod.running).map(|pod| pod.component);
        self.master.ran_at_start.borrow_mut().extend(running);
    }

    /// The kubelet is told to stop, and is not yet gone.
    pub(crate) fn kubelet_stops(&self) {
        let Some(component) = self.master.made_last.take() else { return };
        for pod in self.master.pods.borrow_mut().iter_mut().filter(|pod| pod.component == component) {
            pod.running = false;
        }
        self.sync_pods();
    }

    /// Everything ends, as in a power cut.
    pub(crate) fn end_pods(&self) {
        self.master.pods.borrow_mut().iter_mut().for_each(|pod| pod.running = false);
    }

    pub(crate) fn image_of(&self, component: ControlPlaneComponent) -> String {
        image(&self.manifest_of(component))
    }

    /// The manifest that what runs was made from.
    pub(crate) fn manifest_of(&self, component: ControlPlaneComponent) -> String {
        let pods = self.master.pods.borrow();
        let running = pods.iter().find(|pod| pod.component == component && pod.running);
        running.map(|pod| pod.manifest.clone()).unwrap_or_default()
    }

    /// How many containers were made for a component.
    pub(crate) fn made(&self, component: ControlPlaneComponent) -> usize {
        self.master.pods.borrow().iter().filter(|pod| pod.component == component).count()
    }

    fn is_up(&self, component: ControlPlaneComponent) -> bool {
        let pods = self.master.pods.borrow();
        let up = |wanted| pods.iter().any(|pod| pod.component == wanted && pod.running);
        up(component) && up(ControlPlaneComponent::Etcd)
    }

    pub(crate) fn fake_containers(&self) -> Vec<Container> {
        match self.master.late.get() {
            0 => {}
            1 => {
                self.master.late.set(0);
                self.sync_pods();
            }
            left => self.master.late.set(left - 1),
        }
        let mut pods = self.master.pods.borrow_mut();
        for pod in pods.iter_mut().filter(|pod| !pod.running && pod.manifest.contains("--not-known")) {
            pod.attempt += 1;
        }
        let container = |pod: &FakePod| Container {
            id: pod.id.clone(),
            name: pod.component.name().to_owned(),
            running: pod.running,
            attempt: pod.attempt,
            image_id: image_id(&image(&pod.manifest)) + if self.master.false_image.get() { "0" } else { "" },
            created_at: pod.created_at,
        };
        pods.iter().map(container).collect()
    }

    pub(crate) fn fake_details(&self, id: &str) -> ContainerDetails {
        let log_path = format!("/var/log/pods/{id}.log");
        self.write(&log_path, "2026-01-01T00:00:00Z stderr F unknown flag: --not-known\n");
        ContainerDetails { log_path, ..ContainerDetails::default() }
    }

    pub(crate) fn fake_stop(&self, id: &str) {
        self.master.pods.borrow_mut().iter_mut().filter(|pod| pod.id == id).for_each(|pod| pod.running = false);
    }

    /// kubeadm renders into a folder.
    pub(crate) fn fake_render(&self, folder: &str, kubeadm: &str, phase: &str) {
        let kubeadm = self.read(kubeadm);
        let emulates = self.read(&format!("{folder}/kubeadm.yaml")).contains("emulated-version");
        for component in ControlPlaneComponent::ALL {
            if (component == ControlPlaneComponent::Etcd) == (phase == "etcd") {
                self.write(&format!("{folder}/{}.yaml", component.name()), &render(&kubeadm, component, emulates));
            }
        }
    }

    /// `kubectl patch configmap`.
    pub(crate) fn fake_patch(&self, words: &[&str]) {
        let [.., "configmap", name, "--type", "json", "--patch-file", file] = words else { panic!("{words:?}") };
        assert_eq!(*name, "kubeadm-config", "what is as it was is left alone");
        let patch: Value = serde_json::from_str(&self.read(file)).unwrap();
        let text = patch[0]["value"]["ClusterConfiguration"].as_str().unwrap();
        *self.master.uploaded.borrow_mut() = text.strip_prefix(CONFIGURED).unwrap().trim().to_owned();
    }

    /// A phase of `kubeadm upgrade apply`, or the whole of kubeadm's own upgrade of a master.
    pub(crate) fn fake_upgrade(&self, kubeadm: &str, words: &[&str]) {
        // By the name that it runs under kubeadm writes down which fields are its own.
        assert!(kubeadm.ends_with("/kubeadm"), "{kubeadm}");
        let content = self.read(kubeadm);
        let version = content.split(' ').nth(1).unwrap_or_default().to_owned();
        match words {
            ["phase", "upload-config", "kubeadm", ..] => *self.master.uploaded.borrow_mut() = version,
            ["phase", "addon", name, ..] => {
                let mut addons = self.master.addons.borrow_mut();
                if *name == "coredns" {
                    addons.1 = coredns_tag(&version).to_owned();
                } else {
                    addons.0 = version;
                }
            }
            ["phase", ..] => {}
            _ => {
                for component in ControlPlaneComponent::ALL {
                    self.write(&manifest_path(component), &render(&content, component, false));
                }
                self.sync_pods();
            }
        }
    }

    pub(crate) fn fake_answer(&self, question: &Question<'_>) -> Result<Answer, String> {
        let master = &self.master;
        let refused = || Err("connection refused".to_owned());
        let said = |body: serde_json::Value| Ok(Answer { status: 200, body: body.to_string() });
        let ok = |up: bool| if up { said(json!("ok")) } else { Err("connection refused".to_owned()) };
        let url = question.url;
        let api_server = self.is_up(ControlPlaneComponent::KubeApiserver);
        if url == format!("https://{OTHER}:6443/readyz") {
            return ok(master.other_ready.get());
        }
        if let Some(path) = url.strip_prefix(&format!("https://{OWN}:6443")) {
            if !api_server {
                return refused();
            }
            let (proxy, dns) = master.addons.borrow().clone();
            let workload = |name: &str, tag: &str| json!({ "spec": { "template": { "spec": { "containers": [{ "image": format!("{name}:{tag}") }] } } } });
            return match path {
                "/readyz" => ok(true),
                "/version" => {
                    let image = self.image_of(ControlPlaneComponent::KubeApiserver);
                    let version = image.rsplit_once(':').unwrap().1;
                    let emulates = self.manifest_of(ControlPlaneComponent::KubeApiserver).contains("emulated-version");
                    let minor = if emulates { "35" } else { version.split('.').nth(1).unwrap() };
                    said(json!({ "gitVersion": version, "emulationMajor": "1", "emulationMinor": minor }))
                }
                "/api/v1/namespaces/kube-system/configmaps/kubeadm-config" => said(json!({
                    "metadata": { "resourceVersion": "1" },
                    "data": { "ClusterConfiguration": format!("{CONFIGURED}{}\n", master.uploaded.borrow()) },
                })),
                "/api/v1/namespaces/kube-system/configmaps/kubelet-config" => {
                    said(json!({ "metadata": {}, "data": { "kubelet": "the same" } }))
                }
                "/api/v1/namespaces/default/endpoints/kubernetes" => {
                    let all = [json!({ "ip": OWN }), json!({ "ip": OTHER })];
                    let count = usize::try_from(master.masters.get().min(2)).unwrap();
                    said(json!({ "subsets": [{ "addresses": all[..count], "ports": [{ "port": 6443 }] }] }))
                }
                "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy" => said(workload("kube-proxy", &proxy)),
                "/apis/apps/v1/namespaces/kube-system/deployments/coredns" => said(workload("coredns", &dns)),
                "/api/v1/nodes/w1" => said(json!({ "metadata": { "uid": "u1" } })),
                "/api/v1/namespaces/kube-system/pods?dryRun=All" => {
                    let body = question.body.unwrap();
                    assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], "u1");
                    let message = match master.webhook.get() {
                        true => "failed calling webhook \"hook.example.com\": use SANs instead",
                        false => "pods \"kube-scheduler-w1\" already exists",
                    };
                    Ok(Answer { status: 409, body: json!({ "message": message }).to_string() })
                }
                path if path.starts_with("/api/v1/namespaces/kube-system/pods") => {
                    let image = self.image_of(ControlPlaneComponent::KubeApiserver);
                    said(json!({ "items": [{ "spec": { "containers": [{ "image": image }] } }] }))
                }
                other => panic!("the API server does not know {other}"),
            };
        }
        if url.contains(":2379") {
            let own = url.contains("127.0.0.1");
            let etcd = ControlPlaneComponent::Etcd;
            let silent = master.new_etcd_silent.get() && self.image_of(etcd) == reference(etcd, "v1.36.3");
            let healthy = if own { self.is_up(etcd) && !silent } else { master.other_etcd_healthy.get() };
            if !healthy {
                return refused();
            }
            return match url.split_once(":2379").unwrap().1 {
                "/health" => said(json!({ "health": "true" })),
                "/v3/maintenance/status" => said(json!({
                    "header": { "member_id": if own { "1" } else { "2" } },
                    "version": "3.6.6",
                    "leader": master.leader.get().to_string(),
                })),
                "/v3/cluster/member/list" => {
                    let member = |id: u64| {
                        let url = format!("https://10.0.0.{id}:2379");
                        json!({ "ID": id.to_string(), "name": format!("m{id}"), "clientURLs": [url] })
                    };
                    said(json!({ "members": (1..=master.masters.get()).map(member).collect::<Vec<_>>() }))
                }
                "/v3/maintenance/alarm" if master.alarm.get() => said(json!({ "alarms": [{ "alarm": "NOSPACE" }] })),
                "/v3/maintenance/alarm" => said(json!({})),
                "/v3/maintenance/transfer-leadership" => {
                    self.acts.borrow_mut().push("move leader".to_owned());
                    master.leader.set(2);
                    said(json!({}))
                }
                other => panic!("etcd does not know {other}"),
            };
        }
        let component = match url {
            "http://127.0.0.1:2381/health" => ControlPlaneComponent::Etcd,
            "https://127.0.0.1:10257/healthz" => ControlPlaneComponent::KubeControllerManager,
            "https://127.0.0.1:10259/healthz" => ControlPlaneComponent::KubeScheduler,
            other => panic!("nobody listens at {other}"),
        };
        ok(self.is_up(component))
    }

    /// The texts of all manifests, in order.
    pub(crate) fn manifests(&self) -> Vec<String> {
        ControlPlaneComponent::ALL.into_iter().map(|component| self.read(&manifest_path(component))).collect()
    }

    /// What is left in the folder of manifests besides them.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("/etc/kubernetes/manifests")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

fn image(manifest: &str) -> String {
    manifest.lines().find_map(|line| line.trim().strip_prefix("image: ")).unwrap_or_default().to_owned()
}
