//! The options of a plan, shared by `plan` and `upgrade`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgGroup, Args};
use serde::de::DeserializeOwned;
use shiplock_core::catalogue::VersionRequest;
use shiplock_core::language::Language;
use shiplock_core::plan::{ContainerRuntimePolicy, DrainPolicy, Mode, PausePolicy, PlanOptions, PlanRequest};
use shiplock_core::step::{ControlPlaneMethod, OnDrainTimeout};

use super::WrongValue;
use crate::duration::parse_seconds;

/// The options that a plan that was made already cannot take any more.
const PLAN_OPTIONS: [&str; 21] = [
    "control_plane_only",
    "node_pools_only",
    "control_plane_method",
    "keep_certificates",
    "kubeadm_patches",
    "soak",
    "ignore_preflight_errors",
    "accept",
    "pool",
    "node",
    "exclude_node",
    "max_parallel",
    "drain",
    "drain_timeout",
    "on_drain_timeout",
    "pause_policy",
    "batch_interval",
    "container_runtime",
    "contact_timeout",
    "node_ready_timeout",
    "gate_timeout",
];

/// How a plan is made.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock plan prod --to 1.36                             # the control plane, then all pools
  shiplock plan prod --to 1.36 --control-plane-only        # the pools another day
  shiplock plan prod --to 1.36 --soak 24h                  # a day in which going back loses nothing
  shiplock plan prod --to v1.36.3 --pool web --node w-1    # a canary
  shiplock plan prod --to 1.36 --pause-policy after-first-batch
  shiplock upgrade --plan PLAN                             # takes the plan")]
pub struct PlanArguments {
    /// The cluster.
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// The target: a minor such as 1.36 (its newest patch) or a version such as v1.36.3.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub to: VersionRequest,
    /// The rest.
    #[command(flatten)]
    pub options: PlanOptionArguments,
    /// Make the plan and forget it; nothing is kept, so it cannot be taken.
    #[arg(long)]
    pub dry_run: bool,
}

/// How an upgrade is started.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["to", "plan"]))]
#[command(after_help = "\
Examples:
  shiplock upgrade prod --to 1.36                  # shows the plan, asks, stays attached
  shiplock upgrade --plan p7k2m                    # takes a plan that was looked at before
  shiplock upgrade prod --to 1.36 --yes            # in a pipeline: the exit code tells the end
  shiplock upgrade prod --to 1.36 --yes --detach   # returns once it is started

Ctrl-C detaches; the upgrade goes on. Attached it ends with 0 done, 3 blocked, 4 undecided,
5 paused, 6 cancelled; detached with 0 started, 3 blocked, 4 undecided.")]
pub struct UpgradeArguments {
    /// The cluster, with --to.
    #[arg(value_name = "CLUSTER", requires = "to", conflicts_with = "plan")]
    pub cluster: Option<String>,
    /// The target: a minor such as 1.36 (its newest patch) or a version such as v1.36.3.
    #[arg(long, value_name = "VERSION", value_parser = parse_version, requires = "cluster")]
    pub to: Option<VersionRequest>,
    /// Take this plan instead of making one.
    #[arg(long, value_name = "PLAN", conflicts_with_all = PLAN_OPTIONS)]
    pub plan: Option<String>,
    /// The rest.
    #[command(flatten)]
    pub options: PlanOptionArguments,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Return once it is started, or blocked by the checks before the start.
    #[arg(long)]
    pub detach: bool,
}

/// The options of a plan.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Plan")]
pub struct PlanOptionArguments {
    /// The control plane alone; node pools follow another day, within the version skew that Kubernetes allows.
    #[arg(long, conflicts_with_all = ["node_pools_only", "pool", "node", "exclude_node"])]
    pub control_plane_only: bool,
    /// Node pools alone, to the version that the control plane has already.
    #[arg(long)]
    pub node_pools_only: bool,
    /// Only this node pool; may be given more than once.
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,
    /// Only this node; may be given more than once.
    #[arg(long, value_name = "NODE")]
    pub node: Vec<String>,
    /// Leave this node out; may be given more than once.
    #[arg(long, value_name = "NODE")]
    pub exclude_node: Vec<String>,
    /// The most nodes in one batch; batches are 1, 2, 4, 8 … up to it [default: 10].
    #[arg(long, value_name = "N")]
    pub max_parallel: Option<u32>,
    /// When nodes are drained; auto: for a new minor, not for a patch [default: auto].
    #[arg(long, value_name = "WHEN", value_parser = words::<DrainPolicy>(&["auto", "always", "never"]))]
    pub drain: Option<DrainPolicy>,
    /// How long a drain may take [default: 30m].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub drain_timeout: Option<u32>,
    /// What happens then: pause; skip the node and give it back; force, budgets notwithstanding [default: pause].
    #[arg(long, value_name = "WHAT", value_parser = words::<OnDrainTimeout>(&["pause", "skip", "force"]))]
    pub on_drain_timeout: Option<OnDrainTimeout>,
    /// When the upgrade pauses by itself [default: never].
    #[arg(long, value_name = "WHEN", value_parser = words::<PausePolicy>(&["never", "after-first-batch", "after-every-batch"]))]
    pub pause_policy: Option<PausePolicy>,
    /// The least time between batches [default: 0].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub batch_interval: Option<u32>,
    /// Whether the container runtime is upgraded too [default: upgrade].
    #[arg(long, value_name = "WHAT", value_parser = words::<ContainerRuntimePolicy>(&["upgrade", "keep"]))]
    pub container_runtime: Option<ContainerRuntimePolicy>,
    /// After how much silence of a needed agent the upgrade pauses [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub contact_timeout: Option<u32>,
    /// How long a node may take to be Ready again [default: 10m].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub node_ready_timeout: Option<u32>,
    /// How long a gate between batches may hold [default: 15m].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds)]
    pub gate_timeout: Option<u32>,
    /// How a master is changed: staged-swap (kubeadm renders, one restart) or kubeadm (its own commands, minutes)
    /// [default: staged-swap].
    #[arg(long, value_name = "METHOD", value_parser = words::<ControlPlaneMethod>(&["staged-swap", "kubeadm"]))]
    pub control_plane_method: Option<ControlPlaneMethod>,
    /// Do not have kubeadm renew the certificates of the masters.
    #[arg(long)]
    pub keep_certificates: bool,
    /// A folder with kubeadm patches, the same on each master.
    #[arg(long, value_name = "FOLDER")]
    pub kubeadm_patches: Option<String>,
    /// Upgrade the masters so that going back loses nothing: they run the new version and behave like the old one for
    /// this time, such as 30m or 24h, while everything is watched; then they step up. Until then shiplock rollback
    /// takes all of it back [default: no soak].
    #[arg(long, value_name = "TIME", value_parser = parse_seconds, conflicts_with = "node_pools_only")]
    pub soak: Option<u32>,
    /// A preflight error that kubeadm is told to ignore, such as SystemVerification; may be given more than once.
    #[arg(long, value_name = "NAME")]
    pub ignore_preflight_errors: Vec<String>,
    /// Let the findings of this check pass, such as CP-003 (one master: its API is away for some seconds); may be
    /// given more than once.
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub accept: Vec<String>,
}

impl PlanOptionArguments {
    /// What is asked of the server; what was not given has the product's defaults.
    pub fn request(&self, to: VersionRequest) -> PlanRequest {
        let defaults = PlanOptions::default();
        PlanRequest {
            to,
            mode: if self.control_plane_only {
                Mode::ControlPlane
            } else if self.node_pools_only {
                Mode::NodePools
            } else {
                Mode::Cluster
            },
            pools: self.pool.iter().map(|name| name.as_str().into()).collect(),
            nodes: self.node.iter().map(|name| name.as_str().into()).collect(),
            exclude_nodes: self.exclude_node.iter().map(|name| name.as_str().into()).collect(),
            options: PlanOptions {
                max_parallel: self.max_parallel.unwrap_or(defaults.max_parallel),
                drain: self.drain.unwrap_or(defaults.drain),
                drain_timeout_seconds: self.drain_timeout.unwrap_or(defaults.drain_timeout_seconds),
                on_drain_timeout: self.on_drain_timeout.unwrap_or(defaults.on_drain_timeout),
                pause_policy: self.pause_policy.unwrap_or(defaults.pause_policy),
                batch_interval_seconds: self.batch_interval.unwrap_or(defaults.batch_interval_seconds),
                container_runtime: self.container_runtime.unwrap_or(defaults.container_runtime),
                contact_timeout_seconds: self.contact_timeout.unwrap_or(defaults.contact_timeout_seconds),
                node_ready_timeout_seconds: self.node_ready_timeout.unwrap_or(defaults.node_ready_timeout_seconds),
                gate_timeout_seconds: self.gate_timeout.unwrap_or(defaults.gate_timeout_seconds),
                expiry_seconds: defaults.expiry_seconds,
                control_plane_method: self.control_plane_method.unwrap_or(defaults.control_plane_method),
                renew_certificates: !self.keep_certificates,
                kubeadm_patches: self.kubeadm_patches.clone(),
                ignore_preflight_errors: self.ignore_preflight_errors.clone(),
                accept: self.accept.clone(),
                soak_seconds: self.soak.unwrap_or(defaults.soak_seconds),
            },
        }
    }
}

pub(super) fn parse_version(text: &str) -> Result<VersionRequest, WrongValue> {
    VersionRequest::parse(text).map_err(|problem| WrongValue {
        english: format!("{}; {}", problem.sentence(Language::En), problem.fix(Language::En)),
        chinese: format!("{}；{}", problem.sentence(Language::Zh), problem.fix(Language::Zh)),
    })
}

/// Reads a choice by the word that its type has on the wire, with `-` in place of `_`.
fn words<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    words: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(words).try_map(|word| {
        let on_wire = serde_json::Value::String(word.replace('-', "_"));
        serde_json::from_value::<T>(on_wire)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Command, parse};

    #[test]
    fn the_options_of_the_command_line_become_the_request_and_the_rest_has_defaults() {
        let line = "shiplock plan prod --to 1.36 --pool web --exclude-node w-9 --max-parallel 3 --drain always \
            --drain-timeout 1h --on-drain-timeout skip --pause-policy after-first-batch --container-runtime keep";
        let given: Vec<_> = line.split_whitespace().map(std::ffi::OsString::from).collect();
        let Command::Plan(plan) = parse(&given).unwrap().command else { panic!("a plan was asked") };
        let request = plan.options.request(plan.to);
        let expected = PlanOptions {
            max_parallel: 3,
            drain: DrainPolicy::Always,
            drain_timeout_seconds: 3_600,
            on_drain_timeout: OnDrainTimeout::Skip,
            pause_policy: PausePolicy::AfterFirstBatch,
            container_runtime: ContainerRuntimePolicy::Keep,
            ..PlanOptions::default()
        };
        assert_eq!(request.options, expected);
        assert_eq!((request.pools, request.exclude_nodes), (vec!["web".into()], vec!["w-9".into()]));
    }
}
