//! `shiplock-agent restore-control-plane`: the way back of one master by hand, for the day on which neither the cluster's
//! API nor perhaps the server can be asked.
//!
//! It does the very step that `shiplock rollback` does, from the same copies. It must never run beside the service or
//! beside a step that has begun: nobody grants permits here.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use shiplock_api::agent::{Assignment, AssignmentId};
use shiplock_core::facts::{ControlPlaneComponent, KeptControlPlane};
use shiplock_core::id::{Epoch, Generation, NodeName, StepNumber, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, ControlPlaneRestore};
use shiplock_core::version::KubernetesVersion;

use crate::control_plane::manifest::Manifest;
use crate::control_plane::{kept, kubeconfig, manifests, own_member};
use crate::endpoint::Question;
use crate::host::{Host, UnitState};
use crate::journal::{Record, read_records};
use crate::machine::Machine;
use crate::steps::cluster_phases::{KUBE_PROXY, tag};
use crate::steps::unit_prefix;

const SERVICE: &str = "shiplock-agent";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const TIMEOUT_SECONDS: u32 = 10 * 60;
/// The step of a way back by hand. No plan has it, so that its folders and units are its own.
const STEP: StepNumber = StepNumber(0);

/// What is asked.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// This node.
    pub node: NodeName,
    /// The upgrade whose copies go back; needed only where several have kept some.
    pub upgrade: Option<UpgradeId>,
    /// The operator says that the cluster has no other master.
    pub only_master: bool,
}

/// A way back that can begin.
#[derive(Clone, Debug)]
pub struct PutBack {
    /// The step.
    pub assignment: Assignment,
    /// Each component: what it is now, and what it will be.
    pub changes: Vec<(ControlPlaneComponent, String, String)>,
}

impl PutBack {
    /// Forgets that it was done: done again, it is begun anew.
    pub fn forget(&self, data_folder: &Path) {
        let AssignmentId { upgrade, step, generation } = &self.assignment.id;
        // A folder that stays has a further run look at what is there, and nothing else.
        let _ = std::fs::remove_dir_all(kept::folder(data_folder, upgrade, *step, generation.intent));
    }
}

/// Settles what goes back, or says why nothing does. Changes nothing.
pub async fn prepare<H: Host>(host: &H, data_folder: &Path, wanted: &Wanted) -> Result<PutBack, Problem> {
    let refused = |why: String| Problem::new(Code::RestoreRefused).with("node", &wanted.node).with("why", why);
    let service = host.service(SERVICE).await?;
    if !matches!(&*service.state, "inactive" | "failed") {
        return Err(refused(format!("its agent is {}: stop it first (systemctl stop {SERVICE})", service.state)));
    }
    if let Some(id) = in_work(data_folder, &wanted.node) {
        return Err(refused(format!(
            "step {} of upgrade {} has begun on it: start the agent and let the step end first",
            id.step, id.upgrade
        )));
    }
    let kept = choose(kept::read(host, data_folder), wanted.upgrade.as_ref()).map_err(refused)?;
    let id = AssignmentId {
        upgrade: kept.upgrade.clone(),
        step: STEP,
        generation: Generation { epoch: Epoch(0), intent: kept.intent },
    };
    let swap = format!("{}swap", unit_prefix(&id));
    if host.unit(&swap).await? == UnitState::Running {
        return Err(refused(format!(
            "it is being put back at this moment, by the unit {swap}: wait until that has ended"
        )));
    }
    let mut now = Vec::new();
    for (component, text) in manifests(host) {
        let parsed = Manifest::parse(component, &text);
        now.push((component, parsed.map_err(|why| refused(format!("the manifest of {}: {why}", component.name())))?));
    }
    let manifest = |wanted: ControlPlaneComponent| {
        now.iter().find(|(component, _)| *component == wanted).map(|(_, manifest)| manifest)
    };
    let api_server = manifest(ControlPlaneComponent::KubeApiserver)
        .ok_or_else(|| refused("it has no manifest of a kube-apiserver".to_owned()))?;
    let is_only = match own_member(host, api_server, manifest(ControlPlaneComponent::Etcd)) {
        Some(etcd) => match etcd.map_err(|problem| problem.with("node", &wanted.node))?.cluster(host).await {
            Ok(cluster) => cluster.members.len() == 1,
            Err(_) if wanted.only_master => true,
            Err(problem) => {
                let why = "whether there are other masters cannot be read, since etcd does not answer: if this is the only one, say so with --only-master";
                return Err(refused(why.to_owned()).because(&problem));
            }
        },
        None if wanted.only_master => true,
        None => {
            return Err(refused(
                "etcd does not run on it: if this is the only master, say so with --only-master".to_owned(),
            ));
        }
    };
    let kept_image = |wanted: ControlPlaneComponent| {
        kept.images.iter().find(|image| image.component == wanted).map(|image| image.reference.clone())
    };
    let before = kept_image(ControlPlaneComponent::KubeApiserver);
    // Where the API server is back already, add-ons of its version are the old ones.
    let is_back = before.as_deref().map(tag) == Some(tag(&api_server.image));
    if !is_back && let Some(tag) = addons_at(host, api_server).await {
        return Err(refused(format!(
            "kube-proxy runs {tag} already, so that add-ons were upgraded and nodes may be: the way is forward"
        )));
    }
    let etcd = (manifest(ControlPlaneComponent::Etcd), kept_image(ControlPlaneComponent::Etcd));
    // An older minor version of etcd refuses the data of a newer one.
    let etcd_stays = matches!(etcd, (Some(now), Some(before)) if minor(&now.image) != minor(&before));
    let change = |(component, manifest): &(ControlPlaneComponent, Manifest)| {
        let stays = etcd_stays && *component == ControlPlaneComponent::Etcd;
        let after = kept_image(*component).filter(|_| !stays).unwrap_or_else(|| manifest.image.clone());
        (*component, tag(&manifest.image).to_owned(), tag(&after).to_owned())
    };
    let changes = now.iter().map(change).collect();
    let version: Option<KubernetesVersion> = before.and_then(|reference| tag(&reference).parse().ok());
    let restore = ControlPlaneRestore {
        upgrade: kept.upgrade.clone(),
        step: kept.step,
        intent: kept.intent,
        version: version.ok_or_else(|| refused("its copies hold no kube-apiserver".to_owned()))?,
        is_only,
        etcd_stays,
        mirror: None,
        images: Vec::new(),
    };
    Ok(PutBack {
        assignment: Assignment {
            id,
            node: wanted.node.clone(),
            machine_id: String::new(),
            action: Action::RestoreControlPlane(Box::new(restore)),
            timeout_seconds: TIMEOUT_SECONDS,
        },
        changes,
    })
}

/// The version of kube-proxy, where that is what the API server has now: from there on there is no safe way back. Nothing
/// is known while the API does not answer.
async fn addons_at<H: Host>(host: &H, api_server: &Manifest) -> Option<String> {
    let administrator = kubeconfig::read(host, kubeconfig::ADMINISTRATOR).ok()?;
    let url = format!("{}{KUBE_PROXY}", administrator.server);
    let question = Question { url: &url, trust: &administrator.trust, body: None, limit: ANSWER_LIMIT };
    let answer = host.ask(&question).await.ok().filter(|answer| answer.status == 200)?;
    let found: Value = serde_json::from_str(&answer.body).ok()?;
    let image = found.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str)?;
    (tag(image) == tag(&api_server.image)).then(|| tag(image).to_owned())
}

/// The attempt that the journal tells of as not yet ended.
fn in_work(data_folder: &Path, node: &NodeName) -> Option<AssignmentId> {
    let bytes = std::fs::read(crate::identity::journal_path(data_folder)).ok()?;
    let (records, _): (Vec<Record>, _) = read_records(&bytes);
    // Neither machine nor boot matter for what is asked of it.
    Machine::recover(node.clone(), String::new(), String::new(), records).attempt().cloned()
}

/// The newest copies of the upgrade.
fn choose(kept: Vec<KeptControlPlane>, upgrade: Option<&UpgradeId>) -> Result<KeptControlPlane, String> {
    let mut upgrades: Vec<&str> = kept.iter().map(|kept| kept.upgrade.as_str()).collect();
    upgrades.dedup();
    let wanted = match (upgrade, upgrades.as_slice()) {
        (_, []) => return Err("it keeps no copies: no upgrade has swapped its control plane".to_owned()),
        (Some(upgrade), _) => upgrade.as_str(),
        (None, [only]) => only,
        (None, several) => {
            return Err(format!("it keeps copies of upgrades {}: name one with --upgrade", several.join(", ")));
        }
    };
    let newest = kept.iter().rfind(|kept| kept.upgrade.as_str() == wanted);
    newest.cloned().ok_or_else(|| format!("it keeps no copies of upgrade {wanted}, only of {}", upgrades.join(", ")))
}

/// `3.6` of `registry/etcd:3.6.6-0`.
fn minor(image: &str) -> Option<(String, String)> {
    let mut parts = tag(image).trim_start_matches('v').split('.');
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}
