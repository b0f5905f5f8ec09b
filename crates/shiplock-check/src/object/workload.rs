//! Workloads, budgets, quotas.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Field, Labels, Metadata, PodSpec, Selector, is_default, null_is_default};

objects! {
    /// A Deployment, StatefulSet or DaemonSet.
    Workload {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: WorkloadSpec,
        /// Its status.
        status: WorkloadStatus,
    }
    /// The specification of a workload.
    WorkloadSpec {
        /// How many; 1 where it does not say.
        replicas: Option<i64>,
        /// Which pods are its own.
        selector: Selector,
        /// What its pods are made of.
        template: Template,
        /// How a DaemonSet or StatefulSet is renewed.
        update_strategy: Strategy,
    }
    /// How a workload is renewed.
    Strategy {
        /// `RollingUpdate` or `OnDelete`.
        r#type: String,
    }
    /// What pods are made of.
    Template {
        /// Their labels.
        metadata: Metadata,
        /// Their specification.
        spec: PodSpec,
    }
    /// The status of a workload.
    WorkloadStatus {
        /// How many are ready.
        ready_replicas: i64,
    }
    /// A PodDisruptionBudget.
    Budget {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: BudgetSpec,
        /// Its status.
        status: BudgetStatus,
    }
    /// The specification of a budget.
    BudgetSpec {
        /// How many must stay: a number or a share.
        min_available: Option<Value>,
        /// How many may be away: a number or a share.
        max_unavailable: Option<Value>,
        /// Which pods; none selects nothing.
        selector: Option<Selector>,
        /// `IfHealthyBudget` or `AlwaysAllow`.
        unhealthy_pod_eviction_policy: String,
    }
    /// The status of a budget.
    BudgetStatus {
        /// How many may go now.
        disruptions_allowed: i64,
        /// How many are healthy.
        current_healthy: i64,
        /// How many must be.
        desired_healthy: i64,
        /// How many there should be.
        expected_pods: i64,
        /// Which generation the controller has seen; 0 where it has seen none.
        observed_generation: i64,
    }
    /// A Job.
    Job {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: JobStatus,
    }
    /// The status of a Job.
    JobStatus {
        /// How many pods run.
        active: i64,
    }
    /// A ResourceQuota.
    Quota {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: QuotaStatus,
    }
    /// The status of a quota.
    QuotaStatus {
        /// What may be used.
        hard: Labels,
        /// What is used.
        used: Labels,
    }
}
