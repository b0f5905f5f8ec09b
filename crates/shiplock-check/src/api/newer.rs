//! Which resources only a newer version serves: what an older one would not show.

use shiplock_core::version::MinorVersion;

use crate::lifecycle::Table;
use crate::snapshot::ServedResource;

/// The resources among those that are served whose every served version came after a minor; one version of each. What
/// is not Kubernetes' own (a custom resource, an aggregated API) does not depend on its version.
pub fn only_newer(served: &[ServedResource], old: MinorVersion) -> Vec<&ServedResource> {
    let is_newer = |one: &ServedResource| {
        let life = Table::shipped().find_resource(&one.group, &one.version, &one.resource);
        life.is_some_and(|life| life.introduced.is_some_and(|introduced| introduced > old))
    };
    let same =
        |one: &ServedResource, other: &ServedResource| one.group == other.group && one.resource == other.resource;
    let mut found: Vec<&ServedResource> = Vec::new();
    for one in served.iter().filter(|one| one.is_listable) {
        let all_newer = served.iter().filter(|other| same(one, other)).all(is_newer);
        if all_newer && !found.iter().any(|known| same(one, known)) {
            found.push(one);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_new_where_no_version_of_it_was_there_before() {
        let served = |group: &str, version: &str, kind: &str, resource: &str| ServedResource {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            resource: resource.to_owned(),
            is_listable: true,
        };
        let admission = "admissionregistration.k8s.io";
        let policy = |version| served(admission, version, "MutatingAdmissionPolicy", "mutatingadmissionpolicies");
        let workload = served("scheduling.k8s.io", "v1alpha2", "Workload", "workloads");
        let others = [
            served("", "v1", "Pod", "pods"),
            served("example.com", "v1", "Workload", "workloads"),
            ServedResource { is_listable: false, ..policy("v1") },
        ];
        let found = |served: &[ServedResource], minor: u32| {
            let found = only_newer(served, MinorVersion { major: 1, minor });
            found.into_iter().map(|one| one.resource.clone()).collect::<Vec<_>>()
        };
        let all = [&others[..2], &[policy("v1"), workload.clone()]].concat();
        assert_eq!(found(&all, 35), ["mutatingadmissionpolicies", "workloads"]);
        assert_eq!(found(&all, 36), [""; 0]);
        assert_eq!(found(&[policy("v1"), policy("v1beta1")], 35), [""; 0], "it was there as v1beta1");
        assert_eq!(found(&others, 35), [""; 0]);
    }
}
