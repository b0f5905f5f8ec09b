//! Versions, skew and the control plane.

use super::{Check, Scope, Sentence, Severity, not_built, says};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "VER-001",
        name: "upgrade-path",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["/version of the API server", "API server 的 /version"],
        title: ["The way to the target", "升级路径"],
        why: [
            "Kubernetes goes up one minor after the other; it does not go back.",
            "Kubernetes 逐个次版本升级，不可降级。",
        ],
        fix: [
            "plan the hops one after the other: shiplock plan --to {next}",
            "请逐级规划升级：shiplock plan --to {next}",
        ],
        sentences: &[
            says(
                "several",
                "from {current} to {target} are {hops} hops; findings are those of the whole way",
                "从 {current} 到 {target} 需 {hops} 级；检查结果针对整个路径",
            ),
            Sentence {
                name: "backwards",
                text: [
                    "the cluster runs {current}, which is newer than {target}",
                    "集群运行 {current}，比 {target} 更新",
                ],
                fix: Some(["choose a target that is newer than {current}", "请选择比 {current} 更新的目标"]),
            },
        ],
        source: "https://kubernetes.io/releases/version-skew-policy/",
        not_built: None,
    },
    Check {
        id: "VER-002",
        name: "kubelet-skew-now",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["nodes", "所有节点"],
        title: ["Kubelets that are newer than the API server", "比 API server 更新的 kubelet"],
        why: [
            "A kubelet must never be newer than an API server that it talks to.",
            "kubelet 不得比它所连接的 API server 更新。",
        ],
        fix: ["upgrade the control plane first, or take the node out", "请先升级控制面，或移出该节点"],
        sentences: &[says(
            "newer",
            "kubelet {kubelet} is newer than the API server, {current}",
            "kubelet {kubelet} 比 API server {current} 更新",
        )],
        source: "https://kubernetes.io/releases/version-skew-policy/#kubelet",
        not_built: None,
    },
    Check {
        id: "VER-003",
        name: "kubelet-skew-after",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["nodes", "所有节点"],
        title: ["Kubelets that would be too old", "将过旧的 kubelet"],
        why: [
            "A kubelet may be three minors older than an API server (two before 1.25). An older one may fail in ways that nobody tests.",
            "kubelet 最多可比 API server 旧三个次版本（1.25 之前为两个）。",
        ],
        fix: ["upgrade the node pool first", "请先升级节点池"],
        sentences: &[
            says(
                "too-old",
                "kubelet {kubelet} would be more than {allowed} minors older than {target}",
                "kubelet {kubelet} 将比 {target} 旧超过 {allowed} 个次版本",
            ),
            Sentence {
                name: "between",
                text: [
                    "kubelet {kubelet} must be upgraded before the control plane goes to {at}, on the way to {target}",
                    "在前往 {target} 的途中，控制面升级到 {at} 之前须先升级 kubelet {kubelet}",
                ],
                fix: Some([
                    "upgrade the node pools with each hop: a plan of the whole cluster does",
                    "请在每一级都升级节点池：整个集群的计划会如此进行",
                ]),
            },
        ],
        source: "https://kubernetes.io/releases/version-skew-policy/#kubelet",
        not_built: None,
    },
    Check {
        id: "VER-004",
        name: "kube-proxy-skew",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["images of pods in kube-system", "kube-system 中 pod 的镜像"],
        title: ["kube-proxy", "kube-proxy 版本"],
        why: ["kube-proxy follows the same rule as the kubelet.", "kube-proxy 与 kubelet 遵循同样的规则。"],
        fix: ["bring {component} to {current}", "请将 {component} 升级到 {current}"],
        sentences: &[
            says(
                "newer",
                "{component} {version} is newer than the API server, {current}",
                "{component} {version} 比 API server {current} 更新",
            ),
            says(
                "too-old",
                "{component} {version} would be too old for {target}",
                "{component} {version} 对 {target} 过旧",
            ),
        ],
        source: "https://kubernetes.io/releases/version-skew-policy/#kube-proxy",
        not_built: None,
    },
    Check {
        id: "VER-005",
        name: "cm-scheduler-skew",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["images of pods in kube-system", "kube-system 中 pod 的镜像"],
        title: ["Controller manager and scheduler", "controller manager 与 scheduler"],
        why: [
            "They must not be newer than the API server and at most one minor older.",
            "它们不得比 API server 更新，且最多旧一个次版本。",
        ],
        fix: ["bring {component} to {current}", "请将 {component} 升级到 {current}"],
        sentences: &[
            says(
                "newer",
                "{component} {version} is newer than the API server, {current}",
                "{component} {version} 比 API server {current} 更新",
            ),
            says(
                "too-old",
                "{component} {version} is more than one minor older than {current}; the target is {target}",
                "{component} {version} 比 {current} 旧超过一个次版本；目标为 {target}",
            ),
        ],
        source: "https://kubernetes.io/releases/version-skew-policy/#kube-controller-manager-kube-scheduler-and-cloud-controller-manager",
        not_built: None,
    },
    Check {
        id: "VER-006",
        name: "ha-apiserver-spread",
        severity: Severity::Blocking,
        scope: Scope::ControlPlane,
        reads: ["/version of every API server", "每个 API server 的 /version"],
        title: ["API servers of several versions", "多个版本的 API server"],
        why: [
            "API servers may be one minor apart, and only while an upgrade is on its way.",
            "API server 之间最多相差一个次版本，且仅限升级过程中。",
        ],
        fix: ["finish the upgrade before", "请先完成之前的升级"],
        sentences: &[says("apart", "the API servers run {minors}", "API server 运行 {minors}")],
        source: "https://kubernetes.io/releases/version-skew-policy/#kube-apiserver",
        not_built: None,
    },
    Check {
        id: "VER-010",
        name: "runtime-version",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["nodes", "所有节点"],
        title: ["Container runtimes", "容器运行时"],
        why: [
            "dockershim left with 1.24. Kubernetes is released for containerd 2 from 1.36 on; with containerd 1 kubelets fall back to their own setting of the cgroup driver, as measured with 1.35 and 1.36, and a later release takes that away. Only the runtime itself tells whether it answers RuntimeConfig: the agent on a node asks it.",
            "dockershim 随 1.24 移除。自 1.36 起 Kubernetes 面向 containerd 2 发布；在 containerd 1 上 kubelet 会回退到自身的 cgroup 驱动设置（已在 1.35 与 1.36 上实测），之后的版本将移除该回退。运行时是否支持 RuntimeConfig 只有其自身知道：由节点上的 agent 询问。",
        ],
        fix: [
            "move the nodes to containerd 2; the plan of Shiplock does that with the node pool",
            "请将节点迁移到 containerd 2；Shiplock 的计划会随节点池一并完成",
        ],
        sentences: &[
            says("docker", "{runtime}: the kubelet has no way to it any more", "{runtime}：kubelet 不再支持"),
            says(
                "containerd-1",
                "{runtime}: it works by a fallback of the kubelet that a later release takes away",
                "{runtime}：依赖 kubelet 的回退机制，之后的版本将移除",
            ),
        ],
        source: "https://kubernetes.io/docs/setup/production-environment/container-runtimes/",
        not_built: None,
    },
    Check {
        id: "VER-012",
        name: "mixed-previous-upgrade",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "nodes, the Lease of Shiplock in namespace kube-upgrade",
            "节点、命名空间 kube-upgrade 中 Shiplock 的 Lease",
        ],
        title: ["An upgrade before that was not finished", "尚未完成的先前升级"],
        why: [
            "A cluster has one upgrade at a time, paused ones among them. More than two minors at once mean that one was not finished.",
            "一个集群同一时间只能有一次升级，暂停的也算。同时存在两个以上次版本说明之前的升级没有完成。",
        ],
        fix: [
            "finish or cancel the upgrade before: shiplock upgrades list",
            "请完成或取消之前的升级：shiplock upgrades list",
        ],
        sentences: &[
            says("mixed", "the nodes run {minors}", "节点运行 {minors}"),
            Sentence {
                name: "under-way",
                text: [
                    "upgrade {upgrade} of this cluster runs or is paused",
                    "此集群的升级 {upgrade} 正在进行或已暂停",
                ],
                fix: Some([
                    "continue or cancel it where it was started: shiplock upgrades show {upgrade}",
                    "请在启动它的服务端继续或取消：shiplock upgrades show {upgrade}",
                ]),
            },
            Sentence {
                name: "left",
                text: [
                    "upgrade {upgrade} of this cluster did not end, and its server was last heard of at {since}",
                    "此集群的升级 {upgrade} 没有结束，其服务端最后一次联系的时间为 {since}",
                ],
                fix: Some([
                    "start its server again, then continue or cancel {upgrade}; if that server is gone for good, look for nodes that it left cordoned: kubectl get nodes",
                    "请重新启动其服务端，然后继续或取消 {upgrade}；若该服务端已不复存在，请查看其遗留的封锁节点：kubectl get nodes",
                ]),
            },
        ],
        source: "https://kubernetes.io/releases/version-skew-policy/",
        not_built: None,
    },
    Check {
        id: "CP-001",
        name: "apiserver-ready",
        severity: Severity::Blocking,
        scope: Scope::ControlPlane,
        reads: ["/readyz of every API server", "每个 API server 的 /readyz"],
        title: ["Health of API servers", "API server 健康状况"],
        why: ["An upgrade begins from a control plane that is well.", "升级应从健康的控制面开始。"],
        fix: [
            "repair what it names: kubectl get --raw /readyz?verbose",
            "请修复其指出的问题：kubectl get --raw /readyz?verbose",
        ],
        sentences: &[says("not-ready", "it is not ready: {what}", "未就绪：{what}")],
        source: "https://kubernetes.io/docs/reference/using-api/health-checks/",
        not_built: None,
    },
    Check {
        id: "CP-002",
        name: "control-plane-nodes-ready",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["nodes", "所有节点"],
        title: ["Masters", "控制面节点"],
        why: [
            "A master that is not ready takes one of the votes that the upgrade needs.",
            "未就绪的控制面节点会减少升级所需的票数。",
        ],
        fix: ["recover the node first", "请先恢复该节点"],
        sentences: &[says("not-ready", "the master is not ready", "控制面节点未就绪")],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/",
        not_built: None,
    },
    Check {
        id: "CP-003",
        name: "master-count-odd",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["nodes", "所有节点"],
        title: ["Number of masters", "控制面节点数量"],
        why: [
            "With one master the API is away while it is upgraded. An even number bears no more losses than one less.",
            "只有一个控制面节点时，升级期间 API 不可用。偶数个并不比少一个更可靠。",
        ],
        fix: [
            "run three or five masters, or accept that the API is away for some minutes",
            "请使用三个或五个控制面节点，或接受 API 短暂不可用",
        ],
        sentences: &[
            says(
                "one",
                "there is one master: the API is away while it is upgraded",
                "只有一个控制面节点：升级期间 API 不可用",
            ),
            says("even", "there are {count} masters", "有 {count} 个控制面节点"),
        ],
        source: "https://etcd.io/docs/v3.6/faq/#why-an-odd-number-of-cluster-members",
        not_built: None,
    },
    Check {
        id: "CP-011",
        name: "apf-pressure",
        severity: Severity::Advice,
        scope: Scope::ControlPlane,
        reads: ["apiserver_flowcontrol_rejected_requests_total", "指标 apiserver_flowcontrol_rejected_requests_total"],
        title: ["Requests that API servers refused", "API server 拒绝的请求"],
        why: [
            "An API server that turns requests away has no room for an upgrade.",
            "拒绝请求的 API server 没有余力承受升级。",
        ],
        fix: [
            "find who presses it before you upgrade: kubectl get --raw /debug/api_priority_and_fairness/dump_priority_levels",
            "请在升级前找出压力来源：kubectl get --raw /debug/api_priority_and_fairness/dump_priority_levels",
        ],
        sentences: &[says(
            "rejected",
            "it has turned {count:request|requests} away since its start",
            "自启动以来拒绝了 {count} 个请求",
        )],
        source: "https://kubernetes.io/docs/concepts/cluster-administration/flow-control/",
        not_built: None,
    },
    not_built(
        "CP-007",
        "backup-fresh",
        Severity::Blocking,
        Scope::Plan,
        ["Backup", "备份"],
        [
            "the plan takes a backup in its first stage, so this is repaired by the plan itself",
            "计划的第一阶段会做备份，因此由计划自身修复",
        ],
    ),
    Check {
        id: "CP-009",
        name: "create-probe-workload",
        severity: Severity::Blocking,
        scope: Scope::Node,
        reads: ["a short-lived pod on each node, with --probe", "每个节点上的短期 pod（需 --probe）"],
        title: ["A trial workload", "试运行工作负载"],
        why: [
            "Whatever an upgrade drains must start elsewhere. A node on which the scheduler, admission, the network plugin or the runtime lets no new pod start takes none of it, though it says Ready. Asked only with --probe, since it creates something.",
            "升级排空的工作负载必须能在其他节点启动。若调度、准入、网络插件或运行时使某节点无法启动新 pod，即使其状态为 Ready，也接收不了任何 pod。因为会创建对象，仅在 --probe 时检查。",
        ],
        fix: [
            "see why pods do not start there: kubectl describe pods --all-namespaces --field-selector spec.nodeName={node}; then check again with --probe",
            "请查明该节点无法启动 pod 的原因：kubectl describe pods --all-namespaces --field-selector spec.nodeName={node}；然后用 --probe 重新检查",
        ],
        sentences: &[says("not-run", "a pod does not run on {node}: {why}", "pod 无法在 {node} 上运行：{why}")],
        source: "https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-upgrade/#how-it-works",
        not_built: None,
    },
];
