//! The lists that the other checks read: each resource once, and only where a check wants it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shiplock_check::cluster::{INGRESSES, OF_APIS, READS, UPGRADE_LEASE, is_of_apis};
use shiplock_check::copy::{ClusterCopy, item};
use shiplock_check::object::{CONFIGURATIONS, Configuration, Objects, Operator, Pod, UpgradeLease};
use shiplock_check::run::Selection;
use shiplock_check::snapshot::{Read, ServedResource};

use super::Progress;
use super::api::Shared;
use super::copy::{Both, Copied};
use super::kept::{Caches, KnownLists, path_of};
use super::request::{List, PAGE, Requests};

/// Where the ConfigMaps of kubeadm are.
const CONFIGURATION: &str = "/api/v1/namespaces/kube-system/configmaps";
const PODS: &str = "/api/v1/pods";
/// Of them those that checks of APIs look at.
const PODS_OF_APIS: &str = "/api/v1/pods?of=apis";
/// So many objects of a kept list are read from there at once, beside the next.
const OBJECTS_OF_A_PART: usize = 2_000;
/// Events that are warnings.
const WARNINGS: &str = "fieldSelector=type%3DWarning";

/// The lists that checks read, each with its path; after the semicolon those that a copy for rehearsal is made of too. Pods
/// are not among them.
macro_rules! lists {
    ($with:ident) => {
        $with! {
            services "/api/v1/services"
            slices "/apis/discovery.k8s.io/v1/endpointslices"
            validating "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
            mutating "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
            api_services "/apis/apiregistration.k8s.io/v1/apiservices"
            definitions "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
            storage_classes "/apis/storage.k8s.io/v1/storageclasses"
            csi_drivers "/apis/storage.k8s.io/v1/csidrivers"
            attachments "/apis/storage.k8s.io/v1/volumeattachments"
            signing_requests "/apis/certificates.k8s.io/v1/certificatesigningrequests"
            jobs "/apis/batch/v1/jobs"
            quotas "/api/v1/resourcequotas"
            network_policies "/apis/networking.k8s.io/v1/networkpolicies"
            csi_nodes "/apis/storage.k8s.io/v1/csinodes"
            ingresses "/apis/networking.k8s.io/v1/ingresses"
            service_ranges "/apis/networking.k8s.io/v1/servicecidrs"
            warnings "/api/v1/namespaces/kube-system/events"
            node_usage "/apis/metrics.k8s.io/v1beta1/nodes"
            ;
            nodes "/api/v1/nodes"
            deployments "/apis/apps/v1/deployments"
            stateful_sets "/apis/apps/v1/statefulsets"
            daemon_sets "/apis/apps/v1/daemonsets"
            budgets "/apis/policy/v1/poddisruptionbudgets"
            namespaces "/api/v1/namespaces"
            volumes "/api/v1/persistentvolumes"
            claims "/api/v1/persistentvolumeclaims"
        }
    };
}

/// Lists everything that the wanted checks read, and a copy for rehearsal of the same lists. So many lists at once are too
/// large for a stack.
pub(super) async fn all(lists: &Lists<'_>) -> (Objects, Read<ClusterCopy>) {
    let (mut objects, mut copied) = (Objects::default(), Copied::default());
    macro_rules! read {
        ($($field:ident $path:literal)*; $($both:ident $path_of_both:literal)*) => {
            (
                (objects.pods, copied.pods),
                copied.replica_sets,
                objects.operators,
                objects.configuration,
                objects.upgrade_lease,
                $(objects.$field,)*
                $((objects.$both, copied.$both)),*
            ) = futures::join!(
                Box::pin(lists.pods()),
                Box::pin(lists.replica_sets()),
                Box::pin(lists.operators()),
                Box::pin(lists.configuration()),
                Box::pin(lists.upgrade_lease()),
                $(Box::pin(lists.read($path, |kept| &mut kept.$field)),)*
                $(Box::pin(lists.both($path_of_both, |kept| &mut kept.$both))),*
            );
        };
    }
    lists!(read);
    let copy = if lists.with_copy { copied.cluster_copy() } else { Read::NotAsked };
    (objects.without_commands(), copy)
}

/// Hands on what is held of a list by its name among marks, for [`KnownLists::add`](super::KnownLists::add): in parts, each
/// the JSON of [`Objects`] with that list alone. Nothing is handed on of a list that was not seen.
pub fn parts(list: &str, objects: &Objects, take: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    fn each<'a, T: Serialize + 'a>(
        field: &str,
        objects: impl Iterator<Item = &'a T>,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let objects: Vec<&T> = objects.collect();
        // Of an empty list there is one part: that it is empty was seen.
        let (first, rest) = objects.split_at(objects.len().min(OBJECTS_OF_A_PART));
        for part in [first].into_iter().chain(rest.chunks(OBJECTS_OF_A_PART)) {
            take(&serde_json::to_vec(&BTreeMap::from([(field, Read::Seen(part))]))?)?;
        }
        Ok(())
    }
    macro_rules! hand_on {
        ($($field:ident $path:literal)*; $($both:ident $path_of_both:literal)*) => {
            match (list, &objects.pods) {
                (PODS, Read::Seen(pods)) => each("pods", pods.iter(), take),
                (PODS_OF_APIS, Read::Seen(pods)) => each("pods", pods.iter().filter(|pod| is_of_apis(pod)), take),
                $(($path, _) if let Read::Seen(seen) = &objects.$field => each(stringify!($field), seen.iter(), take),)*
                $(($path_of_both, _) if let Read::Seen(seen) = &objects.$both => {
                    each(stringify!($both), seen.iter(), take)
                })*
                _ => Ok(()),
            }
        };
    }
    lists!(hand_on)
}

/// Whether checks read a list that is asked for at most once, through this path.
pub(super) fn is_read(path: &str, selection: &Selection) -> bool {
    readers(path).iter().any(|check| selection.wants_id(check))
}

/// Whether a list by its name among marks is what checks read.
pub(super) fn is_followed(name: &str, selection: &Selection) -> bool {
    let path = path_of(name);
    is_read(path, selection) && (path != PODS || name == pods_for(selection))
}

/// Which pods checks read.
fn pods_for(selection: &Selection) -> &'static str {
    let is_for_apis = readers(PODS).iter().all(|check| OF_APIS.contains(check) || !selection.wants_id(check));
    if is_for_apis { PODS_OF_APIS } else { PODS }
}

/// The checks that read a list.
fn readers(path: &str) -> &'static [&'static str] {
    READS.iter().find(|(known, _)| *known == path).map_or(&[][..], |(_, checks)| checks)
}

/// The two sides of a list that was read for both.
fn apart<T, U>(read: Read<Vec<Both<T, U>>>) -> (Read<Vec<T>>, Read<Vec<U>>) {
    match read {
        Read::Seen(objects) => {
            let (one, other) = objects.into_iter().map(|Both(one, other)| (one, other)).unzip();
            (Read::Seen(one), Read::Seen(other))
        }
        Read::NotSeen(why) => (Read::NotSeen(why.clone()), Read::NotSeen(why)),
        Read::NotAsked => (Read::NotAsked, Read::NotAsked),
    }
}

/// How lists are read.
pub(super) struct Lists<'a> {
    pub(super) requests: &'a Requests<'a>,
    pub(super) served: Option<&'a [ServedResource]>,
    pub(super) selection: &'a Selection,
    pub(super) with_copy: bool,
    pub(super) shared: &'a Shared,
    /// Which lists did not change; none where all are read.
    pub(super) caches: Option<&'a Caches>,
    /// What an earlier run read, of which those lists are taken that did not change.
    pub(super) kept: &'a KnownLists,
    pub(super) progress: Progress<'a>,
}

/// A list among all objects.
type Of<T> = fn(&mut Objects) -> &mut Read<Vec<T>>;

impl Lists<'_> {
    async fn read<T: DeserializeOwned>(&self, path: &str, of: Of<T>) -> Read<Vec<T>> {
        self.read_where(path, Some(of), None).await
    }

    /// Pods: there are more of them than of all else, and the checks of APIs look at few.
    async fn pods(&self) -> (Read<Vec<Pod>>, Read<Vec<item::Pod>>) {
        let of: Of<Pod> = |kept| &mut kept.pods;
        if self.with_copy {
            return self.both(PODS, of).await;
        }
        let name = pods_for(self.selection);
        let only = (name == PODS_OF_APIS).then_some(is_of_apis as fn(&Pod) -> bool);
        (self.read_where(name, Some(of), only).await, Read::NotAsked)
    }

    /// ReplicaSets, which no check reads.
    async fn replica_sets(&self) -> Read<Vec<item::Workload>> {
        if !self.with_copy {
            return Read::NotAsked;
        }
        (self.progress)("replicasets");
        self.list(List::of("/apis/apps/v1/replicasets"), &|_| true).await
    }

    /// What operators of the Operator Lifecycle Manager and of OpenShift say; half of them are no whole.
    async fn operators(&self) -> Read<Vec<Operator>> {
        let of_manager = self.read_where("/apis/operators.coreos.com/v2/operatorconditions", None, None);
        let of_openshift = self.read_where("/apis/config.openshift.io/v1/clusteroperators", None, None);
        match futures::join!(of_manager, of_openshift) {
            (Read::Seen(mut operators), Read::Seen(more)) => {
                operators.extend(more);
                Read::Seen(operators)
            }
            (Read::Seen(_), unseen @ Read::NotSeen(_)) => unseen,
            (operators, _) => operators,
        }
    }

    /// A list for the checks, and for a copy where there shall be one.
    async fn both<T: DeserializeOwned, U: DeserializeOwned>(
        &self,
        path: &str,
        of: Of<T>,
    ) -> (Read<Vec<T>>, Read<Vec<U>>) {
        if !self.with_copy {
            return (self.read(path, of).await, Read::NotAsked);
        }
        (self.progress)(path.rsplit('/').next().unwrap_or(path));
        let (of_checks, of_copy) = apart(self.list(List::of(path), &|_| true).await);
        (if self.is_wanted(path) { of_checks } else { Read::NotAsked }, of_copy)
    }

    /// A list by its name, or what is kept of it, which `of` tells, where it did not change; `only` says which objects are
    /// held, all where it is none.
    async fn read_where<T: DeserializeOwned>(
        &self,
        name: &str,
        of: Option<Of<T>>,
        only: Option<fn(&T) -> bool>,
    ) -> Read<Vec<T>> {
        let path = path_of(name);
        if !self.is_wanted(path) {
            return Read::NotAsked;
        }
        if !self.is_served(path) {
            return Read::Seen(Vec::new());
        }
        // Where a list also says who wrote the objects, only its answer does.
        let caches = self.caches.filter(|_| !self.shared.awaits(path));
        let (marks, is_as_it_was) = match caches {
            Some(caches) => caches.of(name).await,
            None => (BTreeMap::new(), false),
        };
        let kept = match of {
            Some(of) if is_as_it_was => self.kept.take(name, of).await,
            _ => None,
        };
        let (objects, is_large) = match kept {
            Some(objects) => (Read::Seen(objects), true),
            None => {
                (self.progress)(path.rsplit('/').next().unwrap_or(path));
                let query = if path.ends_with("/events") { WARNINGS } else { "" };
                let list = List { query, metadata_only: path == INGRESSES, ..List::of(path) };
                let count = AtomicUsize::new(0);
                let keep = |object: &T| {
                    count.fetch_add(1, Ordering::Relaxed);
                    only.is_none_or(|only| only(object))
                };
                let objects = Box::pin(self.list(list, &keep)).await;
                (objects, count.into_inner() > PAGE as usize)
            }
        };
        if let (Some(caches), Read::Seen(_)) = (caches, &objects) {
            if name == PODS {
                caches.keep(PODS_OF_APIS, marks.clone(), is_large);
            }
            // One page is asked for as soon as it is asked whether it changed.
            caches.keep(name, marks, is_large);
        }
        objects
    }

    /// A list. Where it is also asked who writes its objects, the same answer says it.
    async fn list<T: DeserializeOwned>(&self, list: List<'_>, keep: &(impl Fn(&T) -> bool + Sync)) -> Read<Vec<T>> {
        if !self.shared.awaits(list.path) {
            return self.requests.list_where(list, keep).await;
        }
        let (mut objects, partial) = apart(self.requests.list(list).await);
        self.shared.put(list.path, partial);
        if let Read::Seen(objects) = &mut objects {
            objects.retain(keep);
        }
        objects
    }

    fn is_wanted(&self, path: &str) -> bool {
        is_read(path, self.selection)
    }

    /// Whether the API server says that it serves a path; where it does not tell what it serves it is asked.
    fn is_served(&self, path: &str) -> bool {
        let Some(served) = self.served else { return true };
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let (group, version) = match parts.as_slice() {
            ["api", version, ..] => ("", *version),
            ["apis", group, version, ..] => (*group, *version),
            _ => return true,
        };
        let resource = path.rsplit('/').next().unwrap_or_default();
        served.iter().any(|one| one.group == group && one.version == version && one.resource == resource)
    }

    /// The Lease of an installation of Shiplock, if there is one.
    async fn upgrade_lease(&self) -> Read<Option<UpgradeLease>> {
        if !self.is_wanted(UPGRADE_LEASE) {
            return Read::NotAsked;
        }
        match self.requests.get(UPGRADE_LEASE, "application/json").await {
            Ok(body) => match serde_json::from_slice(&body) {
                Ok(lease) => Read::Seen(Some(lease)),
                Err(error) => Read::NotSeen(format!("the answer is no Lease: line {}", error.line())),
            },
            Err(failure) if failure.status == 404 => Read::Seen(None),
            Err(failure) => Read::NotSeen(failure.why),
        }
    }

    /// What kubeadm keeps in ConfigMaps, one by one; a cluster that another tool made has none of them.
    async fn configuration(&self) -> Read<Configuration> {
        #[derive(Deserialize)]
        struct ConfigMap {
            #[serde(default)]
            data: BTreeMap<String, String>,
        }
        if !self.is_wanted(CONFIGURATION) {
            return Read::NotAsked;
        }
        let mut configuration = Configuration::default();
        for name in CONFIGURATIONS {
            match self.requests.get(&format!("{CONFIGURATION}/{name}"), "application/json").await {
                Ok(body) => match serde_json::from_slice::<ConfigMap>(&body) {
                    Ok(map) => configuration.take(name, &map.data),
                    Err(error) => {
                        let why = format!("the answer is no ConfigMap: line {}", error.line());
                        configuration.unreadable.insert(name.to_owned(), why);
                    }
                },
                Err(failure) if failure.status == 404 => {}
                Err(failure) => return Read::NotSeen(failure.why),
            }
        }
        Read::Seen(configuration)
    }
}
