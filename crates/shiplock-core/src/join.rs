//! How a new node joins a cluster: with the artefacts of the version that its control plane runs, whatever it was asked
//! or planned to become. So nodes that come after an upgrade of the control plane are born at the new version, and nodes
//! that come in the midst of one are never newer than any API server that they may meet.

use serde::{Deserialize, Serialize};

use crate::artefact::{ArtefactFile, ArtefactImage, ArtefactIndex};
use crate::facts::ClusterFacts;
use crate::id::ClusterName;
use crate::language::Language;
use crate::problem::Problem;
use crate::version::KubernetesVersion;

/// Executables that every new node gets.
const ROLES: &[&str] = &["kubeadm", "kubelet", "kubectl"];
/// Images that the pods of every node need, where the mirror holds them.
const IMAGE_ROLES: &[&str] = &["kube-proxy", "pause"];

/// What a new node needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinInstructions {
    /// The cluster.
    pub cluster: ClusterName,
    /// The version of its control plane: of the oldest API server, where they differ.
    pub version: KubernetesVersion,
    /// The architecture as Kubernetes names it.
    pub architecture: String,
    /// The mirror's root.
    pub mirror: String,
    /// The executables.
    pub files: Vec<ArtefactFile>,
    /// The images.
    pub images: Vec<ArtefactImage>,
}

impl JoinInstructions {
    /// Makes them from the cluster as it is. Refused where the mirror does not hold the version of the control plane.
    pub fn of(
        cluster: &ClusterName,
        facts: &ClusterFacts,
        mirror: &str,
        artefacts: &ArtefactIndex,
        architecture: &str,
    ) -> Result<Self, Problem> {
        let version = facts.control_plane_version()?;
        let files = ROLES.iter().map(|role| artefacts.file(version, role, architecture).cloned());
        let images = IMAGE_ROLES.iter().filter_map(|role| artefacts.image(version, role, architecture).ok().cloned());
        Ok(Self {
            cluster: cluster.clone(),
            version,
            architecture: architecture.to_owned(),
            mirror: mirror.trim_end_matches('/').to_owned(),
            files: files.collect::<Result<_, _>>()?,
            images: images.collect(),
        })
    }

    /// A shell script for the new machine: it fetches, compares digests, puts the files in place and joins. What comes
    /// from the mirror's index is quoted, so that it is never more than a word.
    pub fn script(&self, language: Language) -> String {
        let zh = language == Language::Zh;
        let (cluster, version, architecture) = (&self.cluster, self.version, &self.architecture);
        let head = if zh {
            format!(
                "# 将一台新机器以 {version}（{architecture}，即控制面的版本）加入集群 {cluster}。\n\
                 # 机器上须已有 containerd 与 kubelet 服务，与其他节点一致。以 root 运行：\n\
                 #   sh FILE \"JOIN\"     JOIN 为在控制面节点上执行 kubeadm token create --print-join-command 的输出\n\
                 # 加入之后，在该机器上运行此命令的输出：shiplock agent join-command {cluster}\n"
            )
        } else {
            format!(
                "# Joins a new machine to cluster {cluster} at {version} ({architecture}), the version of its control plane.\n\
                 # The machine has containerd and a service kubelet as the other nodes have them. Run it as root:\n\
                 #   sh FILE \"JOIN\"     JOIN: what `kubeadm token create --print-join-command` prints on a master\n\
                 # Then run on it what this prints: shiplock agent join-command {cluster}\n"
            )
        };
        let program = |file: &ArtefactFile| {
            format!("program {} {} {}\n", self.location(&file.path), quoted(&file.sha256), quoted(&file.role))
        };
        let image = |image: &ArtefactImage| format!("image {} {}\n", self.location(&image.path), quoted(&image.sha256));
        let mut parts = vec!["#!/bin/sh\n".to_owned(), head, FUNCTIONS.to_owned()];
        parts.extend(self.files.iter().map(program));
        parts.extend(self.images.iter().map(image));
        parts.push("systemctl daemon-reload\n$join\n".to_owned());
        parts.concat()
    }

    fn location(&self, path: &str) -> String {
        quoted(&format!("{}/{path}", self.mirror))
    }
}

/// Fetches into a folder of its own; nothing is put in place that has not the digest.
const FUNCTIONS: &str = r#"set -eu
join=${1:?the join command is missing, see above}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fetch() {
  case $1 in
    /*) cp "$1" "$folder/$3" ;;
    *) curl --fail --silent --show-error --output "$folder/$3" "$1" ;;
  esac
  echo "$2  $folder/$3" | sha256sum --check --quiet -
}
program() {
  fetch "$1" "$2" "$3"
  place=$(command -v "$3" || echo "/usr/bin/$3")
  install -m 755 "$folder/$3" "$place.new"
  mv "$place.new" "$place"
}
image() {
  fetch "$1" "$2" image.tar
  ctr --namespace k8s.io images import "$folder/image.tar"
}
"#;

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Code;
    use crate::sample::{artefacts, cluster_with_masters};

    fn index() -> ArtefactIndex {
        let mut index = artefacts();
        let mut older = index.releases[0].clone();
        older.kubernetes = "v1.35.4".parse().unwrap();
        for file in &mut older.files {
            file.version = file.version.replace("v1.36.3", "v1.35.4");
        }
        index.releases.insert(0, older);
        index
    }

    fn instructions(facts: &ClusterFacts) -> Result<JoinInstructions, Problem> {
        JoinInstructions::of(&"prod".into(), facts, "https://mirror.example/", &index(), "amd64")
    }

    #[test]
    fn new_nodes_follow_the_control_plane_and_never_run_ahead_of_it() {
        let mut facts = cluster_with_masters(3, 1);
        let version = |facts: &ClusterFacts| instructions(facts).unwrap().version.to_string();
        assert_eq!(version(&facts), "v1.35.4");
        // In the midst of an upgrade a new kubelet may still meet the oldest API server.
        for master in 0..3 {
            assert_eq!(version(&facts), "v1.35.4");
            facts.api_servers[master].version = "v1.36.3".parse().unwrap();
        }
        let found = instructions(&facts).unwrap();
        assert_eq!(found.version.to_string(), "v1.36.3");
        assert!(found.files.iter().all(|file| file.version == "v1.36.3"), "{:?}", found.files);
        let roles: Vec<&str> = found.files.iter().map(|file| file.role.as_str()).collect();
        assert_eq!(roles, ROLES);
    }

    #[test]
    fn what_the_mirror_does_not_hold_is_named() {
        let mut facts = cluster_with_masters(1, 1);
        facts.api_servers[0].version = "v1.36.0".parse().unwrap();
        assert_eq!(instructions(&facts).unwrap_err().code, Code::ArtefactMissing);
        facts.api_servers.clear();
        assert_eq!(instructions(&facts).unwrap_err().code, Code::ClusterAnswer);
    }

    #[test]
    fn the_script_reads_well_in_both_languages() {
        let found = instructions(&cluster_with_masters(1, 1)).unwrap();
        insta::assert_snapshot!("script_en", found.script(Language::En));
        insta::assert_snapshot!("script_zh", found.script(Language::Zh));
    }

    #[test]
    fn a_word_of_the_index_is_never_more_than_a_word() {
        let mut found = instructions(&cluster_with_masters(1, 1)).unwrap();
        found.files[0].path = "a'; touch /tmp/evil; '".to_owned();
        let script = found.script(Language::En);
        assert!(script.contains(r"'https://mirror.example/a'\''; touch /tmp/evil; '\'''"), "{script}");
    }
}
