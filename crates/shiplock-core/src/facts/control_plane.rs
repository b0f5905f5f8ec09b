//! What an agent tells of the master that it runs on: the static pods of a kubeadm control plane, and its etcd.
//!
//! Nothing here changes from second to second (no revision, no size in bytes), since facts travel when they change.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Observed;
use crate::id::{StepNumber, UpgradeId};
use crate::problem::Problem;

/// The components of a control plane that kubeadm runs as static pods,
/// see <https://kubernetes.io/docs/reference/setup-tools/kubeadm/implementation-details/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ControlPlaneComponent {
    /// The store. First, since the others need it.
    Etcd,
    /// `kube-apiserver`.
    KubeApiserver,
    /// `kube-controller-manager`.
    KubeControllerManager,
    /// `kube-scheduler`.
    KubeScheduler,
}

impl ControlPlaneComponent {
    /// Every component, in the order in which they depend on each other.
    pub const ALL: [Self; 4] = [Self::Etcd, Self::KubeApiserver, Self::KubeControllerManager, Self::KubeScheduler];

    /// The name of its static pod, its manifest, its image and its role in the artefact index.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::KubeScheduler => "kube-scheduler",
        }
    }

    /// The component with a name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|component| component.name() == name)
    }
}

/// The control plane on one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ControlPlaneFacts {
    /// The static pods, in the order of [`ControlPlaneComponent::ALL`]; one without a manifest is left out.
    pub components: Vec<StaticPodFacts>,
    /// Where the API servers keep their objects.
    pub etcd: EtcdFacts,
    /// What this master's files have that the installed kubeadm would not render: edits made by hand, which an
    /// upgrade would lose. Unknown where the installed kubeadm is not of the version that runs.
    pub hand_edits: Observed<Vec<HandEdit>>,
    /// The version that ConfigMap `kubeadm-config` names, from which kubeadm renders; none where the agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured_version: Option<Observed<String>>,
    /// The certificates under `/etc/kubernetes/pki` and in kubeconfig files.
    pub certificates: CertificateFacts,
    /// The address of the API server that this master's kubelet uses, as in `/etc/kubernetes/kubelet.conf`.
    pub kubelet_server: String,
    /// Whether that is the API server on this very master, and no balancer.
    pub kubelet_server_is_local: bool,
    /// The webhook that keeps the static pods of this master out of the API, by a dry run; none where none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusing_webhook: Option<Problem>,
    /// What upgrades replaced here and kept, oldest attempt first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<KeptControlPlane>,
}

/// The control plane of a master as it was before an attempt of an upgrade, in copies on the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeptControlPlane {
    /// The upgrade.
    pub upgrade: UpgradeId,
    /// Its step.
    pub step: StepNumber,
    /// The number of the event that began the attempt.
    pub intent: u64,
    /// The images that the manifests of the copies name; a component whose manifest was not replaced is left out.
    pub images: Vec<KeptImage>,
}

/// An image that a manifest of a copy names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeptImage {
    /// The component.
    pub component: ControlPlaneComponent,
    /// The reference.
    pub reference: String,
}

/// One static pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StaticPodFacts {
    /// The component.
    pub component: ControlPlaneComponent,
    /// The image that the manifest on disk names.
    pub image: String,
    /// The container that runs now; none when there is none.
    pub running: Option<RunningContainerFacts>,
    /// Whether the component's own health endpoint answers.
    pub healthy: bool,
}

/// A running container of a static pod, as the container runtime tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RunningContainerFacts {
    /// The reference of its image.
    pub image: String,
    /// The digest of the image's configuration, `sha256:…`: the id under which the runtime keeps the image.
    pub image_id: String,
    /// When it was started.
    pub started_at: Timestamp,
}

/// An edit made by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HandEdit {
    /// The file on the node.
    pub path: String,
    /// A unified difference from what kubeadm would write to what is there, without secrets.
    pub difference: String,
}

/// What keeps the objects of the API servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "topology", rename_all = "snake_case")]
pub enum EtcdFacts {
    /// A member on each master, run by kubeadm.
    Stacked {
        /// What this master's member tells of the whole; unknown where it does not answer.
        cluster: Observed<EtcdClusterFacts>,
    },
    /// Elsewhere, not in the care of this cluster.
    External {
        /// Where.
        endpoints: Vec<String>,
    },
}

/// An etcd cluster, as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EtcdClusterFacts {
    /// The member that was asked.
    pub own_id: u64,
    /// The member that leads; 0 where there is none.
    pub leader_id: u64,
    /// Every member, by id.
    pub members: Vec<EtcdMemberFacts>,
    /// Alarms that are raised, such as `NOSPACE`.
    pub alarms: Vec<String>,
}

/// A member of etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EtcdMemberFacts {
    /// Its id.
    pub id: u64,
    /// Its name; kubeadm gives the node's.
    pub name: String,
    /// A learner has no vote.
    pub is_learner: bool,
    /// Its version such as `3.6.8`, where it answers and says that it is healthy.
    pub healthy_version: Option<String>,
}

impl EtcdMemberFacts {
    /// Its name; of one that has none yet, since it never started, the id as `etcdctl member list` writes it.
    pub fn described(&self) -> String {
        if self.name.is_empty() { format!("{:x} (without a name)", self.id) } else { self.name.clone() }
    }
}

impl EtcdClusterFacts {
    /// Why this member may not be touched now, if it may not: (healthy voters − 1) must reach the quorum, no learner
    /// may be under way, no alarm raised. A single member has no quorum to lose; that its API is away is accepted
    /// elsewhere. Source: <https://etcd.io/docs/v3.6/op-guide/runtime-configuration/>.
    pub fn why_untouchable(&self) -> Option<String> {
        if !self.alarms.is_empty() {
            return Some(format!("alarm {} is raised", self.alarms.join(", ")));
        }
        if let Some(learner) = self.members.iter().find(|member| member.is_learner) {
            return Some(format!("member {} is a learner that has not caught up", learner.described()));
        }
        if let Some(ill) =
            self.members.iter().find(|member| member.healthy_version.is_none() && member.id == self.own_id)
        {
            return Some(format!("member {} is not healthy", ill.described()));
        }
        let voters = self.members.len();
        let healthy = self.members.iter().filter(|member| member.healthy_version.is_some()).count();
        let quorum = voters / 2 + 1;
        if voters > 1 && healthy.saturating_sub(1) < quorum {
            let ill: Vec<String> = self
                .members
                .iter()
                .filter(|member| member.healthy_version.is_none())
                .map(EtcdMemberFacts::described)
                .collect();
            return Some(format!(
                "{healthy} of {voters} members are healthy ({} not); without this one fewer than the quorum of {quorum} would be left",
                if ill.is_empty() { "none".to_owned() } else { ill.join(", ") }
            ));
        }
        if self.leader_id == 0 {
            return Some("it has no leader".to_owned());
        }
        None
    }
}

/// The certificates of a master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CertificateFacts {
    /// The certificate that ends first, by its path.
    pub first_to_end: String,
    /// When it ends.
    pub ends_at: Timestamp,
    /// The key of the cluster's CA is not on this master, so kubeadm cannot renew anything.
    pub external_ca: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn etcd(members: &[(&str, bool, bool)], leader: u64, alarms: &[&str]) -> EtcdClusterFacts {
        let members = members.iter().zip(1..).map(|((name, healthy, is_learner), id)| EtcdMemberFacts {
            id,
            name: (*name).to_owned(),
            is_learner: *is_learner,
            healthy_version: healthy.then(|| "3.6.8".to_owned()),
        });
        EtcdClusterFacts {
            own_id: 1,
            leader_id: leader,
            members: members.collect(),
            alarms: alarms.iter().map(|&alarm| alarm.to_owned()).collect(),
        }
    }

    /// Members (name, healthy, learner), leader, alarms, and the words of the reason against it.
    type Case<'a> = (&'a [(&'a str, bool, bool)], u64, &'a [&'a str], Option<&'a str>);

    #[test]
    fn a_member_is_touched_only_where_the_others_keep_the_quorum() {
        let cases: &[Case] = &[
            (&[("m1", true, false)], 1, &[], None),
            (&[("m1", true, false), ("m2", true, false), ("m3", true, false)], 2, &[], None),
            (&[("m1", true, false), ("m2", false, false), ("m3", true, false)], 3, &[], Some("2 of 3 members")),
            (&[("m1", false, false), ("m2", true, false), ("m3", true, false)], 3, &[], Some("m1 is not healthy")),
            (&[("m1", true, false), ("m2", true, false)], 2, &[], Some("quorum of 2")),
            (&[("m1", true, false), ("m2", true, false), ("m3", true, true)], 1, &[], Some("learner")),
            (
                &[("m1", true, false), ("m2", true, false), ("", false, true)],
                1,
                &[],
                Some("member 3 (without a name) is a"),
            ),
            (&[("m1", true, false), ("m2", true, false), ("m3", true, false)], 0, &[], Some("no leader")),
            (&[("m1", true, false)], 1, &["NOSPACE"], Some("NOSPACE")),
            (
                &[("1", true, false), ("2", true, false), ("3", true, false), ("4", false, false), ("5", true, false)],
                1,
                &[],
                None,
            ),
        ];
        for (members, leader, alarms, expected) in cases {
            let found = etcd(members, *leader, alarms).why_untouchable();
            match expected {
                None => assert_eq!(found, None, "{members:?}"),
                Some(part) => assert!(found.as_ref().is_some_and(|why| why.contains(part)), "{members:?}: {found:?}"),
            }
        }
    }
}
