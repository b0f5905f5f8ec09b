//! Capacity: room for what an upgrade moves.

use super::{Check, Scope, Sentence, Severity, says};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "CAP-001",
        name: "node-level-50-70",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["nodes, pods, metrics.k8s.io where it is served", "节点、pod，以及提供时的 metrics.k8s.io"],
        title: ["Use of nodes that reserve nothing", "未预留资源的节点的利用率"],
        why: [
            "Where nothing is kept back for the system, a busy node lets the kubelet and the runtime starve while an upgrade restarts them.",
            "未为系统预留资源时，繁忙的节点会使 kubelet 和运行时在升级重启时得不到资源。",
        ],
        fix: [
            "keep CPU at 50 % and memory at 70 % or less, or set kubeReserved and systemReserved for the pool",
            "请将 CPU 控制在 50%、内存控制在 70% 以内，或为节点池设置 kubeReserved 和 systemReserved",
        ],
        sentences: &[
            says(
                "used",
                "it uses {cpu} % of its CPU and {memory} % of its memory, and reserves nothing",
                "CPU 使用 {cpu}%，内存使用 {memory}%，且未预留资源",
            ),
            says(
                "requested",
                "its pods ask for {cpu} % of its CPU and {memory} % of its memory, and it reserves nothing",
                "其 pod 请求了 {cpu}% 的 CPU 和 {memory}% 的内存，且未预留资源",
            ),
        ],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/",
        not_built: None,
    },
    Check {
        id: "CAP-002",
        name: "reservation-missing",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["nodes", "所有节点"],
        title: ["Reserved resources", "资源预留"],
        why: [
            "What pods may use is all that the node has; nothing is left for the system while many pods start at once.",
            "节点的全部资源都可被 pod 使用；大量 pod 同时启动时系统没有余量。",
        ],
        fix: [
            "set kubeReserved and systemReserved in the kubelet configuration of the pool",
            "请在节点池的 kubelet 配置中设置 kubeReserved 和 systemReserved",
        ],
        sentences: &[says(
            "none",
            "on {count} of {all:node|nodes} nothing is reserved for the system",
            "{all} 个节点中有 {count} 个未为系统预留资源",
        )],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/reserve-compute-resources/",
        not_built: None,
    },
    Check {
        id: "CAP-003",
        name: "drain-simulation",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "nodes, pods, PodDisruptionBudgets, PersistentVolumes, PersistentVolumeClaims",
            "节点、pod、PodDisruptionBudget、PersistentVolume、PersistentVolumeClaim",
        ],
        title: ["Room for each batch", "各批次的容量"],
        why: [
            "The pods of a batch must find a place on the nodes that stay: by requests, slots, taints, selectors, affinity and volumes. Batches are 1, 2, 4 … up to the bound, pool by pool. It only warns where these pods are under a budget: nodes come back in place, and the drain waits for that.",
            "一个批次的 pod 必须能在其余节点上找到位置：按请求量、名额、污点、选择器、亲和性与卷计算。批次为 1、2、4……直到上限，逐个节点池进行。若这些 pod 受 PDB 约束，则仅告警：节点原地升级后会恢复，排空会等待。",
        ],
        fix: [
            "plan with --max-parallel {fits}, or add a node to the pool",
            "请以 --max-parallel {fits} 规划，或为节点池增加节点",
        ],
        sentences: &[
            says(
                "no-room",
                "in batch {batch} ({nodes:node|nodes} at once) {pods:pod finds|pods find} no place on the other nodes, such as {example}",
                "第 {batch} 批（同时 {nodes} 个节点）中有 {pods} 个 pod 在其他节点上找不到位置，例如 {example}",
            ),
            Sentence {
                name: "no-room-at-all",
                text: [
                    "in batch {batch} ({nodes:node|nodes} at once) {pods:pod finds|pods find} no place on the other nodes, such as {example}; one node at a time is too many too",
                    "第 {batch} 批（同时 {nodes} 个节点）中有 {pods} 个 pod 在其他节点上找不到位置，例如 {example}；每次一个节点也不够",
                ],
                fix: Some([
                    "add a node to the pool, or free room on the others",
                    "请为节点池增加节点，或在其他节点上腾出空间",
                ]),
            },
            Sentence {
                name: "only-node",
                text: [
                    "without it {pods:pod has|pods have} no node, such as {example}, until it is back",
                    "它是 {pods} 个 pod 的唯一节点，例如 {example}：升级期间这些 pod 不可用",
                ],
                fix: Some(["add a second node, or plan the downtime", "请增加第二个节点，或安排停机"]),
            },
        ],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/",
        not_built: None,
    },
    Check {
        id: "CAP-005",
        name: "autoscaler-swift-mode",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["taints of nodes", "节点的污点"],
        title: ["Nodes that a cloud has stopped", "被云上弹性停机的节点"],
        why: [
            "A stopped instance cannot be upgraded; when it is started again it comes back with the old version.",
            "已停机的实例无法升级；再次启动时仍是旧版本。",
        ],
        fix: ["remove the node or start its instance before the upgrade", "请在升级前移除该节点或启动其实例"],
        sentences: &[says("stopped", "its instance is stopped", "其实例已停机")],
        source: "https://kubernetes.io/docs/reference/labels-annotations-taints/#node-cloudprovider-kubernetes-io-shutdown",
        not_built: None,
    },
];
