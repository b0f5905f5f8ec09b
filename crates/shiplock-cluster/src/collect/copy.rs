//! What a copy for rehearsal needs of the lists that are read.

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;
use shiplock_check::copy::ClusterCopy;
use shiplock_check::copy::item::{
    Budget, Claim, Items, Namespace, Node, PersistentVolume, Pod, Workload, cluster_copy,
};
use shiplock_check::snapshot::Read;

/// The lists of a copy, as they were read.
#[derive(Default)]
pub(super) struct Copied {
    pub(super) nodes: Read<Vec<Node>>,
    pub(super) pods: Read<Vec<Pod>>,
    pub(super) deployments: Read<Vec<Workload>>,
    pub(super) replica_sets: Read<Vec<Workload>>,
    pub(super) stateful_sets: Read<Vec<Workload>>,
    pub(super) daemon_sets: Read<Vec<Workload>>,
    pub(super) budgets: Read<Vec<Budget>>,
    pub(super) claims: Read<Vec<Claim>>,
    pub(super) volumes: Read<Vec<PersistentVolume>>,
    pub(super) namespaces: Read<Vec<Namespace>>,
}

impl Copied {
    /// The copy. Without one of its lists there is none: a rehearsal must not take what could not be seen for what is
    /// not there.
    pub(super) fn cluster_copy(self) -> Read<ClusterCopy> {
        match self.items() {
            Ok(items) => Read::Seen(cluster_copy(items)),
            Err(why) => Read::NotSeen(why),
        }
    }

    fn items(self) -> Result<Items, String> {
        fn whole<T>(name: &str, list: Read<Vec<T>>) -> Result<Vec<T>, String> {
            match list {
                Read::Seen(items) => Ok(items),
                Read::NotSeen(why) => Err(format!("{name}: {why}")),
                Read::NotAsked => Err(format!("{name}: not read")),
            }
        }
        let namespaces = whole("namespaces", self.namespaces)?;
        let system = namespaces.iter().find(|namespace| namespace.name() == "kube-system");
        Ok(Items {
            cluster_uid: system.map(|namespace| namespace.uid().to_owned()).unwrap_or_default(),
            nodes: whole("nodes", self.nodes)?,
            pods: whole("pods", self.pods)?,
            deployments: whole("deployments", self.deployments)?,
            replica_sets: whole("replicasets", self.replica_sets)?,
            stateful_sets: whole("statefulsets", self.stateful_sets)?,
            daemon_sets: whole("daemonsets", self.daemon_sets)?,
            budgets: whole("poddisruptionbudgets", self.budgets)?,
            claims: whole("persistentvolumeclaims", self.claims)?,
            volumes: whole("persistentvolumes", self.volumes)?,
        })
    }
}

/// An object as two readers want it, so that its list is asked for once.
pub(super) struct Both<T, U>(pub(super) T, pub(super) U);

impl<'de, T: de::DeserializeOwned, U: de::DeserializeOwned> Deserialize<'de> for Both<T, U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let one = serde_json::from_str(text.get()).map_err(de::Error::custom)?;
        Ok(Self(one, serde_json::from_str(text.get()).map_err(de::Error::custom)?))
    }
}
