//! The catalogue: every check that there is, with all that people read of it. The one source of `docs/checks`.
//!
//! A check that is not built says so and why, and is never answered.

mod addon;
mod api;
mod capacity;
mod compatibility;
mod etcd;
mod machine;
mod network;
mod node;
mod run;
mod version;
mod webhook;
mod workload;

use std::collections::HashMap;
use std::sync::LazyLock;

/// Which part of a cluster a check looks at; findings are grouped so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Category {
    /// Deprecated and removed APIs.
    Api,
    /// Webhooks, aggregated APIs, certificates.
    Webhook,
    /// Versions and skew.
    Version,
    /// Control plane and etcd.
    ControlPlane,
    /// Nodes.
    Node,
    /// Capacity and autoscaling.
    Capacity,
    /// Workloads.
    Workload,
    /// Network.
    Network,
    /// Storage.
    Storage,
    /// Add-ons and custom resources.
    AddOn,
    /// The run itself.
    Run,
}

impl Category {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 11] = [
        Self::Api,
        Self::Webhook,
        Self::Version,
        Self::ControlPlane,
        Self::Node,
        Self::Capacity,
        Self::Workload,
        Self::Network,
        Self::Storage,
        Self::AddOn,
        Self::Run,
    ];

    /// The first part of the ids.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Api => "API",
            Self::Webhook => "WHK",
            Self::Version => "VER",
            Self::ControlPlane => "CP",
            Self::Node => "NODE",
            Self::Capacity => "CAP",
            Self::Workload => "WL",
            Self::Network => "NET",
            Self::Storage => "STO",
            Self::AddOn => "ADD",
            Self::Run => "RUN",
        }
    }

    /// The category of an id; checks of plans have prefixes besides.
    pub fn of(id: &str) -> Self {
        match id.split('-').next().unwrap_or_default() {
            "AGT" | "NOD" => Self::Node,
            prefix => Self::ALL.into_iter().find(|category| category.prefix() == prefix).unwrap_or(Self::Run),
        }
    }

    /// The title: English, Chinese.
    pub fn title(self) -> [&'static str; 2] {
        match self {
            Self::Api => ["API lifecycle", "API 生命周期"],
            Self::Webhook => ["Webhooks and certificates", "Webhook 与证书"],
            Self::Version => ["Versions and skew", "版本与偏差"],
            Self::ControlPlane => ["Control plane", "控制面"],
            Self::Node => ["Nodes", "节点"],
            Self::Capacity => ["Capacity", "容量"],
            Self::Workload => ["Workloads", "工作负载"],
            Self::Network => ["Network", "网络"],
            Self::Storage => ["Storage", "存储"],
            Self::AddOn => ["Add-ons and custom resources", "组件与自定义资源"],
            Self::Run => ["The run itself", "升级本身"],
        }
    }
}

/// What a check can do to a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It warns and never stops a start.
    Advice,
    /// It warns; under the profile `strict` it stops a start.
    AdviceUnlessStrict,
    /// It can stop a start.
    Blocking,
}

/// What must be reachable to ask a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Files or the cluster's API, whichever is given.
    Any,
    /// Files.
    File,
    /// An audit log.
    AuditLog,
    /// The cluster's API.
    Cluster,
    /// Each instance of the API server, or etcd.
    ControlPlane,
    /// The agent on each node.
    Node,
    /// The plan of an upgrade.
    Plan,
    /// The machine that the command runs on.
    Client,
}

impl Scope {
    /// As people name it with `--require`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::File => "file",
            Self::AuditLog => "audit-log",
            Self::Cluster => "cluster",
            Self::ControlPlane => "control-plane",
            Self::Node => "node",
            Self::Plan => "plan",
            Self::Client => "client",
        }
    }
}

/// One check.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// The id, such as `API-001`; never given another meaning.
    pub id: &'static str,
    /// The name for searching, such as `removed-at-target`.
    pub name: &'static str,
    /// What it can do to a start.
    pub severity: Severity,
    /// What must be reachable.
    pub scope: Scope,
    /// What it reads: English, Chinese.
    pub reads: [&'static str; 2],
    /// What it is about: English, Chinese.
    pub title: [&'static str; 2],
    /// Why it matters: English, Chinese.
    pub why: [&'static str; 2],
    /// What to do, with `{parameters}`: English, Chinese.
    pub fix: [&'static str; 2],
    /// What it can say, with `{parameters}`.
    pub sentences: &'static [Sentence],
    /// Where the rule comes from.
    pub source: &'static str,
    /// Why it is not built; none where it is.
    pub not_built: Option<[&'static str; 2]>,
}

/// One thing that a check can say.
#[derive(Clone, Copy, Debug)]
pub struct Sentence {
    /// Its name within the check.
    pub name: &'static str,
    /// The text: English, Chinese.
    pub text: [&'static str; 2],
    /// What to do, where that differs from the check's own.
    pub fix: Option<[&'static str; 2]>,
}

/// A sentence with the fix of its check.
const fn says(name: &'static str, english: &'static str, chinese: &'static str) -> Sentence {
    Sentence { name, text: [english, chinese], fix: None }
}

/// A check that is not built, with the reason and what stands in.
const fn not_built(
    id: &'static str,
    name: &'static str,
    severity: Severity,
    scope: Scope,
    title: [&'static str; 2],
    reason: [&'static str; 2],
) -> Check {
    let source = "docs/checks/README.md";
    Check {
        id,
        name,
        severity,
        scope,
        reads: ["-", "-"],
        title,
        why: reason,
        fix: reason,
        sentences: &[],
        source,
        not_built: Some(reason),
    }
}

/// The sentence that every check has for what could not be seen.
pub const NOT_SEEN: &str = "not-seen";
const NOT_SEEN_TEXT: [&str; 2] = ["this could not be seen: {why}", "无法得知：{why}"];
const NOT_SEEN_FIX: [&str; 2] =
    ["make it readable as the cause says, then check again", "请按原因所述使其可读，然后重新检查"];

impl Check {
    /// The category, by the id.
    pub fn category(&self) -> Category {
        let prefix = self.id.split('-').next().unwrap_or_default();
        Category::ALL.into_iter().find(|category| category.prefix() == prefix).unwrap_or(Category::Run)
    }

    /// One of its sentences.
    pub fn sentence(&self, name: &str) -> Option<[&'static str; 2]> {
        if name == NOT_SEEN {
            return Some(NOT_SEEN_TEXT);
        }
        self.sentences.iter().find(|sentence| sentence.name == name).map(|sentence| sentence.text)
    }

    /// What to do about one of its sentences.
    pub fn fix_of(&self, name: &str) -> Option<[&'static str; 2]> {
        if name == NOT_SEEN {
            return Some(NOT_SEEN_FIX);
        }
        self.sentences.iter().find(|sentence| sentence.name == name).map(|sentence| sentence.fix.unwrap_or(self.fix))
    }
}

static ALL: LazyLock<Vec<&'static Check>> = LazyLock::new(|| {
    let parts = [
        api::CHECKS,
        webhook::CHECKS,
        version::CHECKS,
        etcd::CHECKS,
        node::CHECKS,
        machine::CHECKS,
        capacity::CHECKS,
        workload::CHECKS,
        network::CHECKS,
        addon::CHECKS,
        compatibility::CHECKS,
        run::CHECKS,
    ];
    let mut all: Vec<&'static Check> = parts.into_iter().flatten().collect();
    all.sort_by_key(|check| (check.category(), check.id));
    all
});

/// Every check, in the order in which they are shown.
pub fn all() -> &'static [&'static Check] {
    &ALL
}

/// The check with an id, upper or lower case.
pub fn find(id: &str) -> Option<&'static Check> {
    static BY_ID: LazyLock<HashMap<&str, &Check>> =
        LazyLock::new(|| all().iter().map(|check| (check.id, *check)).collect());
    // Thousands of findings ask by the id as it is; only people write it otherwise.
    BY_ID.get(id).copied().or_else(|| all().iter().copied().find(|check| check.id.eq_ignore_ascii_case(id)))
}

#[cfg(test)]
mod tests;
