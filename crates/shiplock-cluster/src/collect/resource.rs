//! The lists that the other checks read: each resource once, and only where a check wants it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use shiplock_check::cluster::READS;
use shiplock_check::object::{CONFIGURATIONS, Configuration, Objects};
use shiplock_check::run::Selection;
use shiplock_check::snapshot::{Read, ServedResource};

use super::Progress;
use super::request::{List, Requests};

/// Where the ConfigMaps of kubeadm are.
const CONFIGURATION: &str = "/api/v1/namespaces/kube-system/configmaps";
/// Events that are warnings.
const WARNINGS: &str = "fieldSelector=type%3DWarning";

/// Lists everything that the wanted checks read.
pub(super) async fn all(
    requests: &Requests<'_>,
    served: Option<&[ServedResource]>,
    selection: &Selection,
    progress: Progress<'_>,
) -> Objects {
    let lists = Lists { requests, served, selection, progress };
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
        network_policies "/apis/networking.k8s.io/v1/networkpolicies"
        csi_nodes "/apis/storage.k8s.io/v1/csinodes"
        service_ranges "/apis/networking.k8s.io/v1/servicecidrs"
        warnings "/api/v1/namespaces/kube-system/events"
        node_usage "/apis/metrics.k8s.io/v1beta1/nodes"
        operators "/apis/operators.coreos.com/v2/operatorconditions"
    }
    let of_openshift = lists.read("/apis/config.openshift.io/v1/clusteroperators").await;
    if let (Read::Seen(operators), Read::Seen(more)) = (&mut objects.operators, of_openshift) {
        operators.extend(more);
    }
    objects.configuration = lists.configuration().await;
    objects.without_commands()
}

struct Lists<'a> {
    requests: &'a Requests<'a>,
    served: Option<&'a [ServedResource]>,
    selection: &'a Selection,
    progress: Progress<'a>,
}

impl Lists<'_> {
    async fn read<T: DeserializeOwned>(&self, path: &str) -> Read<Vec<T>> {
        if !self.is_wanted(path) {
            return Read::NotAsked;
        }
        if !self.is_served(path) {
            return Read::Seen(Vec::new());
        }
        (self.progress)(path.rsplit('/').next().unwrap_or(path));
        let query = if path.ends_with("/events") { WARNINGS } else { "" };
        self.requests.list(List { query, ..List::of(path) }).await
    }

    fn is_wanted(&self, path: &str) -> bool {
        let readers = READS.iter().find(|(known, _)| *known == path).map_or(&[][..], |(_, checks)| checks);
        readers.iter().any(|check| self.selection.wants_id(check))
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
