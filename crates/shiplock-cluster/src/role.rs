//! The permissions that Shiplock needs in a cluster, and no others, for `shiplock cluster role`.

/// A manifest with a ServiceAccount and the least roles that every command of Shiplock needs.
///
/// `delete` on pods is used only where the operator chose `force` for drains that take too long.
pub const ROLE_MANIFEST: &str = r#"apiVersion: v1
kind: Namespace
metadata:
  name: kube-upgrade
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: shiplock
  namespace: kube-upgrade
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: shiplock
rules:
  # To see nodes, and to cordon them as ours.
  - apiGroups: [""]
    resources: [nodes]
    verbs: [get, list, watch, patch]
  # To see pods, and to tell them to go. "delete" serves only drains with --on-drain-timeout force.
  - apiGroups: [""]
    resources: [pods]
    verbs: [get, list, watch, delete]
  - apiGroups: [""]
    resources: [pods/eviction]
    verbs: [create]
  # The cluster's identity is the UID of the namespace kube-system.
  - apiGroups: [""]
    resources: [namespaces]
    resourceNames: [kube-system]
    verbs: [get]
  # To name what blocks a drain, and to compare workloads with how they were before.
  - apiGroups: [policy]
    resources: [poddisruptionbudgets]
    verbs: [list, watch]
  - apiGroups: [apps]
    resources: [deployments, statefulsets, daemonsets]
    verbs: [list, watch]
  # What the checks before each start read besides. Secrets are not among it, so that Helm releases are told as not seen
  # (API-005, which stops no start): to have them checked, let "list" and "get" on secrets and configmaps join here.
  - apiGroups: [""]
    resources: [namespaces, persistentvolumes, persistentvolumeclaims, resourcequotas]
    verbs: [list]
  - apiGroups: [""]
    resources: [services]
    verbs: [get, list]
  - apiGroups: [discovery.k8s.io]
    resources: [endpointslices]
    verbs: [list]
  - apiGroups: [admissionregistration.k8s.io]
    resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
    verbs: [list]
  - apiGroups: [apiregistration.k8s.io]
    resources: [apiservices]
    verbs: [list]
  - apiGroups: [apiextensions.k8s.io]
    resources: [customresourcedefinitions]
    verbs: [list]
  - apiGroups: [storage.k8s.io]
    resources: [storageclasses, csidrivers, csinodes, volumeattachments]
    verbs: [list]
  - apiGroups: [certificates.k8s.io]
    resources: [certificatesigningrequests]
    verbs: [list]
  - apiGroups: [batch]
    resources: [jobs]
    verbs: [list]
  - apiGroups: [networking.k8s.io]
    resources: [networkpolicies, servicecidrs, ingresses]
    verbs: [list]
  - apiGroups: [metrics.k8s.io]
    resources: [nodes]
    verbs: [list]
  - apiGroups: [operators.coreos.com]
    resources: [operatorconditions]
    verbs: [list]
  - apiGroups: [config.openshift.io]
    resources: [clusteroperators]
    verbs: [list]
  - nonResourceURLs: [/version, /readyz, /metrics]
    verbs: [get]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: shiplock
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: shiplock
subjects:
  - kind: ServiceAccount
    name: shiplock
    namespace: kube-upgrade
---
# The Lease that keeps a second installation away.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: shiplock
  namespace: kube-upgrade
rules:
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: [shiplock]
    verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: shiplock
  namespace: kube-upgrade
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: shiplock
subjects:
  - kind: ServiceAccount
    name: shiplock
    namespace: kube-upgrade
---
# What the checks read in kube-system: kubeadm's configuration, and warnings.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: shiplock
  namespace: kube-system
rules:
  - apiGroups: [""]
    resources: [configmaps]
    resourceNames: [coredns, kube-proxy, kubeadm-config, kubelet-config]
    verbs: [get]
  - apiGroups: [""]
    resources: [events]
    verbs: [list]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: shiplock
  namespace: kube-system
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: shiplock
subjects:
  - kind: ServiceAccount
    name: shiplock
    namespace: kube-upgrade
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_is_yaml_of_known_kinds_and_gives_no_wildcards() {
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(ROLE_MANIFEST).unwrap();
        let kinds: Vec<_> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
        let expected = [
            "Namespace",
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "Role",
            "RoleBinding",
        ];
        assert_eq!(kinds, expected);
        assert!(!ROLE_MANIFEST.contains('*'));
        let gives_secrets = |line: &str| line.contains("resources:") && line.contains("secrets");
        assert!(!ROLE_MANIFEST.lines().any(gives_secrets));
    }

    /// What may be listed in all namespaces or in one, and what may be got by name, as paths.
    fn readable() -> Vec<String> {
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(ROLE_MANIFEST).unwrap();
        let words = |value: &serde_json::Value| -> Vec<String> {
            value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let mut readable = Vec::new();
        for role in documents.iter().filter(|document| !document["rules"].is_null()) {
            let namespace = role["metadata"]["namespace"].as_str();
            for rule in role["rules"].as_array().unwrap() {
                let verbs = words(&rule["verbs"]);
                for (group, resource) in words(&rule["apiGroups"]).iter().flat_map(|group| {
                    words(&rule["resources"]).into_iter().map(move |resource| (group.clone(), resource))
                }) {
                    let place = namespace.map_or(String::new(), |name| format!("/namespaces/{name}"));
                    if verbs.iter().any(|verb| verb == "list") {
                        readable.push(format!("{group}{place}/{resource}"));
                    }
                    for name in words(&rule["resourceNames"]).iter().filter(|_| verbs.contains(&"get".to_owned())) {
                        readable.push(format!("{group}{place}/{resource}/{name}"));
                    }
                }
            }
        }
        readable
    }

    #[test]
    fn every_list_of_the_checks_may_be_read_and_the_configuration_by_name() {
        let readable = readable();
        for (path, _) in shiplock_check::cluster::READS {
            // `/api/v1/pods` and `/apis/apps/v1/deployments`, without the version.
            let mut parts = path.split('/').skip(1);
            let group = if parts.next() == Some("api") { "" } else { parts.next().unwrap() };
            let rest: Vec<&str> = parts.skip(1).collect();
            let wanted = format!("{group}/{}", rest.join("/"));
            if rest.last() == Some(&"configmaps") {
                continue;
            }
            assert!(readable.contains(&wanted), "{wanted}");
        }
        for name in shiplock_check::object::CONFIGURATIONS {
            assert!(ROLE_MANIFEST.contains(name), "{name}");
        }
    }
}
