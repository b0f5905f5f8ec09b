//! The lists that the other checks read: each resource once, and only where a check wants it.

use serde::de::DeserializeOwned;
use shiplock_check::cluster::READS;
use shiplock_check::object::Objects;
use shiplock_check::run::Selection;
use shiplock_check::snapshot::Read;

use super::Progress;
use super::request::{List, Requests};

/// Lists everything that the wanted checks read.
pub(super) async fn all(requests: &Requests<'_>, selection: &Selection, progress: Progress<'_>) -> Objects {
    let lists = Lists { requests, selection, progress };
    let mut objects = Objects::default();
    macro_rules! read {
        ($($field:ident $path:literal)*) => {
            ($(objects.$field),*) = futures::join!($(lists.read($path)),*);
        };
    }
    read! {
        nodes "/api/v1/nodes"
        pods "/api/v1/pods"
        deployments "/apis/apps/v1/deployments"
        stateful_sets "/apis/apps/v1/statefulsets"
        daemon_sets "/apis/apps/v1/daemonsets"
        budgets "/apis/policy/v1/poddisruptionbudgets"
        services "/api/v1/services"
        slices "/apis/discovery.k8s.io/v1/endpointslices"
        namespaces "/api/v1/namespaces"
        validating "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
        mutating "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
        api_services "/apis/apiregistration.k8s.io/v1/apiservices"
        definitions "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        volumes "/api/v1/persistentvolumes"
        claims "/api/v1/persistentvolumeclaims"
        storage_classes "/apis/storage.k8s.io/v1/storageclasses"
        csi_drivers "/apis/storage.k8s.io/v1/csidrivers"
        attachments "/apis/storage.k8s.io/v1/volumeattachments"
        signing_requests "/apis/certificates.k8s.io/v1/certificatesigningrequests"
        jobs "/apis/batch/v1/jobs"
        quotas "/api/v1/resourcequotas"
    }
    objects
}

struct Lists<'a> {
    requests: &'a Requests<'a>,
    selection: &'a Selection,
    progress: Progress<'a>,
}

impl Lists<'_> {
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Read<Vec<T>> {
        let readers = READS.iter().find(|(known, _)| *known == path).map_or(&[][..], |(_, checks)| checks);
        if !readers.iter().any(|check| self.selection.wants_id(check)) {
            return Read::NotAsked;
        }
        (self.progress)(path.rsplit('/').next().unwrap_or(path));
        self.requests.list(List::of(path)).await
    }
}
