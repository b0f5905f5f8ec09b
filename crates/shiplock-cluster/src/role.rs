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
  # The cluster's identity is the UID of this namespace.
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
  - nonResourceURLs: [/version]
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
# The addresses of the API server's instances.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: shiplock
  namespace: default
rules:
  - apiGroups: [discovery.k8s.io]
    resources: [endpointslices]
    verbs: [list]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: shiplock
  namespace: default
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
        assert!(!ROLE_MANIFEST.contains("secrets"));
    }
}
