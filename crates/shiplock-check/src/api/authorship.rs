//! Who writes an object, and through which version: judged by managedFields, and by annotations where there are none.
//!
//! The rules: an Apply entry stands for what its manager applies today. An Update entry counts only while it is newer
//! than every entry of the same manager at another version. Entries of `status` and of Kubernetes' own components do
//! not count. An annotation counts only where there are no managedFields at all.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Kubernetes' own components: they follow the version of the cluster by themselves.
const OWN_MANAGERS: &[&str] = &[
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "api-priority-and-fairness-config-producer-v1",
    "api-priority-and-fairness-config-consumer-v1",
    "service-cidr-controller",
    "ipallocator",
];

/// What an API server calls whoever wrote an object before it kept record: nobody writes so today.
const BEFORE_RECORDS: &str = "before-first-apply";

/// What is known of who wrote an object. It holds no content of the object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The namespace; empty where there is none.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// `metadata.managedFields`, without the fields.
    pub entries: Vec<FieldEntry>,
    /// The `apiVersion` within kubectl's and kapp's annotations.
    pub annotations: Vec<String>,
}

/// An entry of `managedFields`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FieldEntry {
    /// Who.
    pub manager: String,
    /// `Apply` or `Update`.
    pub operation: String,
    /// Through which version.
    pub api_version: String,
    /// When.
    pub time: Option<Timestamp>,
    /// `status` or `scale`; empty for the object itself.
    pub subresource: String,
}

/// What is known of the writing of an object through one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorship {
    /// This manager writes through it.
    Writes {
        /// Who.
        manager: String,
        /// `Apply` or `Update`.
        operation: String,
        /// When it last did.
        time: Option<Timestamp>,
    },
    /// Only an annotation says that somebody applied it so.
    OnlyAnnotation,
    /// Somebody writes it, through other versions.
    Other,
    /// Nothing says who wrote it.
    Unknown,
}

/// Whether a manager is a command of kubectl by which a person wrote once: it does not write again by itself, so that its
/// entry stays. Source: the field managers of kubectl's commands; `kubectl apply` alone goes on from what it wrote.
pub(super) fn is_by_hand(manager: &str, operation: &str) -> bool {
    operation == "Update" && manager.strip_prefix("kubectl-").is_some_and(|command| command != "client-side-apply")
}

/// Says who writes an object through a version.
pub fn authorship(object: &Written, api_version: &str) -> Authorship {
    let tells = |entry: &&FieldEntry| entry.subresource.is_empty() && entry.manager != BEFORE_RECORDS;
    let own = |entry: &&FieldEntry| tells(entry) && !OWN_MANAGERS.contains(&entry.manager.as_str());
    let writes = |entry: &&FieldEntry| {
        let others = object.entries.iter().filter(|other| {
            other.manager == entry.manager && other.subresource.is_empty() && other.api_version != entry.api_version
        });
        entry.api_version == api_version
            && (entry.operation == "Apply" || others.into_iter().all(|other| other.time < entry.time))
    };
    if let Some(entry) = object.entries.iter().filter(own).filter(writes).max_by_key(|entry| entry.time) {
        return Authorship::Writes {
            manager: entry.manager.clone(),
            operation: entry.operation.clone(),
            time: entry.time,
        };
    }
    // Who writes the status alone says nothing of who wrote the object.
    let is_untold = !object.entries.iter().any(|entry| tells(&entry));
    match (is_untold, object.annotations.is_empty()) {
        (false, _) => Authorship::Other,
        (true, false) if object.annotations.iter().any(|annotation| annotation == api_version) => {
            Authorship::OnlyAnnotation
        }
        (true, false) => Authorship::Other,
        (true, true) => Authorship::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "g/v1beta1";
    const NEW: &str = "g/v1";

    fn entry(manager: &str, operation: &str, api_version: &str, minute: i64) -> FieldEntry {
        FieldEntry {
            manager: manager.into(),
            operation: operation.into(),
            api_version: api_version.into(),
            time: Timestamp::from_second(minute * 60).ok(),
            subresource: String::new(),
        }
    }

    #[test]
    fn only_a_manager_that_writes_through_the_version_today_counts() {
        let kubectl = "kubectl-client-side-apply";
        let status = FieldEntry { subresource: "status".into(), ..entry("x", "Update", OLD, 9) };
        for (name, entries, annotations, writer) in [
            ("client-side apply", vec![entry(kubectl, "Update", OLD, 1)], vec![OLD], Some(kubectl)),
            ("server-side apply", vec![entry("argocd", "Apply", OLD, 1)], vec![], Some("argocd")),
            ("migrated, stale annotation", vec![entry(kubectl, "Update", NEW, 2)], vec![OLD], None),
            (
                "same manager, later through the new one",
                vec![entry("x", "Update", OLD, 1), entry("x", "Update", NEW, 2)],
                vec![],
                None,
            ),
            ("same second", vec![entry("x", "Update", OLD, 1), entry("x", "Update", NEW, 1)], vec![], None),
            (
                "another manager through the new one",
                vec![entry("x", "Update", OLD, 1), entry("y", "Update", NEW, 2)],
                vec![],
                Some("x"),
            ),
            (
                "back to the old one",
                vec![entry("x", "Update", NEW, 1), entry("x", "Update", OLD, 2)],
                vec![],
                Some("x"),
            ),
            ("status only", vec![status, entry("x", "Update", NEW, 1)], vec![], None),
            ("the API server itself", vec![entry("kube-apiserver", "Update", OLD, 1)], vec![], None),
            (
                "what was there before the first apply",
                vec![entry("before-first-apply", "Update", OLD, 1), entry("argocd", "Apply", NEW, 2)],
                vec![],
                None,
            ),
        ] {
            let annotations = annotations.into_iter().map(str::to_owned).collect();
            let object = Written { entries, annotations, ..Written::default() };
            let found = match authorship(&object, OLD) {
                Authorship::Writes { manager, .. } => Some(manager),
                _ => None,
            };
            assert_eq!(found.as_deref(), writer, "{name}");
        }
    }

    #[test]
    fn without_managed_fields_an_annotation_is_the_only_trace_and_nothing_is_unknown() {
        let with = |annotations: &[&str]| Written {
            annotations: annotations.iter().map(|&text| text.to_owned()).collect(),
            ..Written::default()
        };
        assert_eq!(authorship(&with(&[OLD]), OLD), Authorship::OnlyAnnotation);
        assert_eq!(authorship(&with(&[NEW]), OLD), Authorship::Other);
        assert_eq!(authorship(&with(&[]), OLD), Authorship::Unknown);
        // Entries of the status alone, and of the time before there were any, do not tell who wrote the object.
        let status = FieldEntry { subresource: "status".into(), ..entry("x", "Update", NEW, 9) };
        for silent in [status, entry("before-first-apply", "Update", OLD, 9)] {
            for (annotations, expected) in [(&[OLD][..], Authorship::OnlyAnnotation), (&[], Authorship::Unknown)] {
                let object = Written { entries: vec![silent.clone()], ..with(annotations) };
                assert_eq!(authorship(&object, OLD), expected, "{}", silent.manager);
            }
        }
    }
}
