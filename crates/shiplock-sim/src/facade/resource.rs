//! The resources that the façade serves: one table, from which paths, discovery and tables of printers follow.

/// A resource of the API, as discovery tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) singular: &'static str,
    pub(super) kind: &'static str,
    pub(super) namespaced: bool,
    pub(super) short_names: &'static [&'static str],
    /// Whether `kubectl get all` shows it.
    pub(super) in_all: bool,
    /// Those that hold an object of the same kind, such as `status`, and `pods/eviction`.
    pub(super) subresources: &'static [&'static str],
    /// Asked only, never kept: `create` is its one verb.
    pub(super) is_review: bool,
}

impl Resource {
    /// `v1` or `apps/v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `deployments.apps`, as messages name it.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// What may be done to it.
    pub(super) fn verbs(&self) -> &'static [&'static str] {
        if self.is_review { &["create"] } else { &["create", "delete", "get", "list", "patch", "update", "watch"] }
    }

    /// The resource behind a path.
    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|one| one.group == group && one.version == version && one.plural == plural)
    }

    /// Every group with its versions, in the order of the table; the core group is the empty one.
    pub(super) fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
        let mut groups: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for one in RESOURCES {
            match groups.iter_mut().find(|(group, _)| *group == one.group) {
                Some((_, versions)) if versions.contains(&one.version) => {}
                Some((_, versions)) => versions.push(one.version),
                None => groups.push((one.group, vec![one.version])),
            }
        }
        groups
    }

    /// The resources of a group's version.
    pub(super) fn of(group: &str, version: &str) -> impl Iterator<Item = &'static Self> {
        RESOURCES.iter().filter(move |one| one.group == group && one.version == version)
    }
}

const fn namespaced(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
) -> Resource {
    Resource {
        group,
        version,
        plural,
        singular,
        kind,
        namespaced: true,
        short_names: &[],
        in_all: false,
        subresources: &[],
        is_review: false,
    }
}

const fn cluster_wide(
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    singular: &'static str,
    kind: &'static str,
) -> Resource {
    Resource { namespaced: false, ..namespaced(group, version, plural, singular, kind) }
}

const STATUS: &[&str] = &["status"];

/// Everything that is served.
pub(super) static RESOURCES: &[Resource] = &[
    Resource { short_names: &["no"], subresources: STATUS, ..cluster_wide("", "v1", "nodes", "node", "Node") },
    Resource {
        short_names: &["po"],
        in_all: true,
        subresources: &["eviction", "status"],
        ..namespaced("", "v1", "pods", "pod", "Pod")
    },
    Resource {
        short_names: &["ns"],
        subresources: STATUS,
        ..cluster_wide("", "v1", "namespaces", "namespace", "Namespace")
    },
    Resource {
        short_names: &["svc"],
        in_all: true,
        subresources: STATUS,
        ..namespaced("", "v1", "services", "service", "Service")
    },
    Resource { short_names: &["ep"], ..namespaced("", "v1", "endpoints", "endpoints", "Endpoints") },
    Resource { short_names: &["cm"], ..namespaced("", "v1", "configmaps", "configmap", "ConfigMap") },
    namespaced("", "v1", "secrets", "secret", "Secret"),
    Resource { short_names: &["sa"], ..namespaced("", "v1", "serviceaccounts", "serviceaccount", "ServiceAccount") },
    Resource { short_names: &["ev"], ..namespaced("", "v1", "events", "event", "Event") },
    Resource {
        short_names: &["pv"],
        subresources: STATUS,
        ..cluster_wide("", "v1", "persistentvolumes", "persistentvolume", "PersistentVolume")
    },
    Resource {
        short_names: &["pvc"],
        subresources: STATUS,
        ..namespaced("", "v1", "persistentvolumeclaims", "persistentvolumeclaim", "PersistentVolumeClaim")
    },
    Resource {
        short_names: &["quota"],
        subresources: STATUS,
        ..namespaced("", "v1", "resourcequotas", "resourcequota", "ResourceQuota")
    },
    Resource { short_names: &["limits"], ..namespaced("", "v1", "limitranges", "limitrange", "LimitRange") },
    Resource {
        short_names: &["rc"],
        in_all: true,
        subresources: STATUS,
        ..namespaced("", "v1", "replicationcontrollers", "replicationcontroller", "ReplicationController")
    },
    Resource {
        short_names: &["deploy"],
        in_all: true,
        subresources: &["scale", "status"],
        ..namespaced("apps", "v1", "deployments", "deployment", "Deployment")
    },
    Resource {
        short_names: &["rs"],
        in_all: true,
        subresources: STATUS,
        ..namespaced("apps", "v1", "replicasets", "replicaset", "ReplicaSet")
    },
    Resource {
        short_names: &["sts"],
        in_all: true,
        subresources: &["scale", "status"],
        ..namespaced("apps", "v1", "statefulsets", "statefulset", "StatefulSet")
    },
    Resource {
        short_names: &["ds"],
        in_all: true,
        subresources: STATUS,
        ..namespaced("apps", "v1", "daemonsets", "daemonset", "DaemonSet")
    },
    namespaced("apps", "v1", "controllerrevisions", "controllerrevision", "ControllerRevision"),
    Resource { in_all: true, subresources: STATUS, ..namespaced("batch", "v1", "jobs", "job", "Job") },
    Resource {
        short_names: &["cj"],
        in_all: true,
        subresources: STATUS,
        ..namespaced("batch", "v1", "cronjobs", "cronjob", "CronJob")
    },
    Resource {
        short_names: &["hpa"],
        in_all: true,
        subresources: STATUS,
        ..namespaced(
            "autoscaling",
            "v2",
            "horizontalpodautoscalers",
            "horizontalpodautoscaler",
            "HorizontalPodAutoscaler",
        )
    },
    Resource {
        short_names: &["pdb"],
        subresources: STATUS,
        ..namespaced("policy", "v1", "poddisruptionbudgets", "poddisruptionbudget", "PodDisruptionBudget")
    },
    namespaced("coordination.k8s.io", "v1", "leases", "lease", "Lease"),
    namespaced("discovery.k8s.io", "v1", "endpointslices", "endpointslice", "EndpointSlice"),
    Resource {
        short_names: &["ing"],
        subresources: STATUS,
        ..namespaced("networking.k8s.io", "v1", "ingresses", "ingress", "Ingress")
    },
    cluster_wide("networking.k8s.io", "v1", "ingressclasses", "ingressclass", "IngressClass"),
    Resource {
        short_names: &["netpol"],
        ..namespaced("networking.k8s.io", "v1", "networkpolicies", "networkpolicy", "NetworkPolicy")
    },
    namespaced("rbac.authorization.k8s.io", "v1", "roles", "role", "Role"),
    namespaced("rbac.authorization.k8s.io", "v1", "rolebindings", "rolebinding", "RoleBinding"),
    cluster_wide("rbac.authorization.k8s.io", "v1", "clusterroles", "clusterrole", "ClusterRole"),
    cluster_wide("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding"),
    Resource {
        short_names: &["sc"],
        ..cluster_wide("storage.k8s.io", "v1", "storageclasses", "storageclass", "StorageClass")
    },
    cluster_wide("storage.k8s.io", "v1", "csidrivers", "csidriver", "CSIDriver"),
    cluster_wide("storage.k8s.io", "v1", "csinodes", "csinode", "CSINode"),
    Resource {
        subresources: STATUS,
        ..cluster_wide("storage.k8s.io", "v1", "volumeattachments", "volumeattachment", "VolumeAttachment")
    },
    Resource {
        short_names: &["pc"],
        ..cluster_wide("scheduling.k8s.io", "v1", "priorityclasses", "priorityclass", "PriorityClass")
    },
    cluster_wide("node.k8s.io", "v1", "runtimeclasses", "runtimeclass", "RuntimeClass"),
    cluster_wide(
        "admissionregistration.k8s.io",
        "v1",
        "validatingwebhookconfigurations",
        "validatingwebhookconfiguration",
        "ValidatingWebhookConfiguration",
    ),
    cluster_wide(
        "admissionregistration.k8s.io",
        "v1",
        "mutatingwebhookconfigurations",
        "mutatingwebhookconfiguration",
        "MutatingWebhookConfiguration",
    ),
    Resource {
        subresources: STATUS,
        ..cluster_wide("apiregistration.k8s.io", "v1", "apiservices", "apiservice", "APIService")
    },
    Resource {
        short_names: &["crd", "crds"],
        subresources: STATUS,
        ..cluster_wide(
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            "customresourcedefinition",
            "CustomResourceDefinition",
        )
    },
    Resource {
        short_names: &["csr"],
        subresources: STATUS,
        ..cluster_wide(
            "certificates.k8s.io",
            "v1",
            "certificatesigningrequests",
            "certificatesigningrequest",
            "CertificateSigningRequest",
        )
    },
    cluster_wide("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", "flowschema", "FlowSchema"),
    cluster_wide(
        "flowcontrol.apiserver.k8s.io",
        "v1",
        "prioritylevelconfigurations",
        "prioritylevelconfiguration",
        "PriorityLevelConfiguration",
    ),
    Resource {
        is_review: true,
        ..cluster_wide(
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            "selfsubjectaccessreview",
            "SelfSubjectAccessReview",
        )
    },
    Resource {
        is_review: true,
        ..cluster_wide(
            "authorization.k8s.io",
            "v1",
            "selfsubjectrulesreviews",
            "selfsubjectrulesreview",
            "SelfSubjectRulesReview",
        )
    },
    Resource {
        is_review: true,
        ..cluster_wide("authentication.k8s.io", "v1", "selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview")
    },
];
