//! Network and storage.

use super::{Check, Scope, Sentence, Severity, not_built, says};

const SINGLE: [&str; 2] = ["there is one pod of it", "只有一个 pod"];
const ONE_NODE: [&str; 2] = ["all of its pods are on one node", "所有 pod 都在同一节点"];
/// Of pods without an owner.
const BARE: Option<[&str; 2]> = Some([
    "run it by a Deployment with two replicas or more, on different nodes: nothing adds to a pod without an owner, or makes it anew elsewhere",
    "请改用具有两个以上副本、分布在不同节点的 Deployment 运行：没有所有者的 pod 不会被增加，也不会在别处重建",
]);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "NET-001",
        name: "lb-etp-local",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "Services, EndpointSlices, nodes; pods and webhook configurations that name a load balancer's address",
            "Service、EndpointSlice、节点；引用负载均衡地址的 pod 与 webhook 配置",
        ],
        title: ["Traffic that stays on its node", "仅限本节点的流量"],
        why: [
            "With externalTrafficPolicy Local a node without a ready pod drops the traffic that it is given.",
            "externalTrafficPolicy 为 Local 时，没有就绪 pod 的节点会丢弃流量。",
        ],
        fix: [
            "run its pods on two nodes or more in different batches, or use policy Cluster",
            "请让其 pod 分布在不同批次的两个以上节点，或改用 Cluster",
        ],
        sentences: &[
            Sentence {
                name: "none",
                text: [
                    "externalTrafficPolicy is Local and no node has a ready pod",
                    "externalTrafficPolicy 为 Local，且没有节点有就绪 pod",
                ],
                fix: Some([
                    "bring its pods back, or delete the Service where nothing uses it",
                    "请恢复其 pod；若无人使用请删除该 Service",
                ]),
            },
            says(
                "one-node",
                "externalTrafficPolicy is Local and all ready pods are on {node}",
                "externalTrafficPolicy 为 Local，且所有就绪 pod 都在 {node}",
            ),
            says(
                "one-batch",
                "externalTrafficPolicy is Local and all ready pods are on {nodes}, which may be upgraded in one batch",
                "externalTrafficPolicy 为 Local，且所有就绪 pod 都在 {nodes}，它们可能在同一批次升级",
            ),
            Sentence {
                name: "by-address",
                text: [
                    "externalTrafficPolicy is Local and {user} calls it from within the cluster by {address}, its load balancer: from a node without a ready pod that may go nowhere",
                    "externalTrafficPolicy 为 Local，而 {user} 在集群内通过其负载均衡 {address} 访问：没有就绪 pod 的节点上可能不通",
                ],
                fix: Some([
                    "let {user} call the Service by its name, or use policy Cluster",
                    "请让 {user} 通过 Service 名称访问，或改用 Cluster",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/reference/networking/virtual-ips/#external-traffic-policy",
        not_built: None,
    },
    Check {
        id: "NET-003",
        name: "dns-health",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "pods of the name server, and its Deployment where it has none",
            "域名服务的 pod；没有 pod 时读取其 Deployment",
        ],
        title: ["Name server", "域名服务"],
        why: ["Without it nothing finds anything.", "没有它，服务之间无法互相发现。"],
        fix: [
            "see why they are not ready, and mend that: kubectl -n {namespace} describe pods -l k8s-app=kube-dns",
            "请查看其未就绪的原因并修复：kubectl -n {namespace} describe pods -l k8s-app=kube-dns",
        ],
        sentences: &[
            says("none", "no pod of it is ready", "没有就绪的 pod"),
            Sentence {
                name: "no-pod",
                text: ["there is no pod of it", "没有任何 pod"],
                fix: Some([
                    "see to it that it has two pods or more, on different nodes: {command}",
                    "请确保在不同节点上运行两个以上 pod：{command}",
                ]),
            },
            says(
                "few-ready",
                "its ready pods are on one node, and {others:other is|others are} not ready",
                "其就绪 pod 都在同一节点，另有 {others} 个未就绪",
            ),
            Sentence { name: "single-bare", text: SINGLE, fix: BARE },
            Sentence { name: "one-node-bare", text: ONE_NODE, fix: BARE },
            Sentence {
                name: "single",
                text: SINGLE,
                fix: Some([
                    "run two pods of it or more, on different nodes: {command}",
                    "请在不同节点上运行两个以上 pod：{command}",
                ]),
            },
            Sentence {
                name: "one-node",
                text: ONE_NODE,
                fix: Some([
                    "spread them over the nodes that take pods, two or more: {command}",
                    "请将其分散到可调度的两个以上节点：{command}",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/dns-debugging-resolution/",
        not_built: None,
    },
    Check {
        id: "NET-007",
        name: "ingress-controller",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["images of pods", "pod 的镜像"],
        title: ["ingress-nginx", "ingress-nginx 状态"],
        why: [
            "Its makers have ended it in March 2026; holes are not mended any more.",
            "其维护者已于 2026 年 3 月停止维护，漏洞不再修复。",
        ],
        fix: ["plan a move to another controller or to Gateway API", "请计划迁移到其他控制器或 Gateway API"],
        sentences: &[says(
            "ended",
            "it is ingress-nginx, which is not maintained any more",
            "它是已停止维护的 ingress-nginx",
        )],
        source: "https://kubernetes.io/blog/2025/11/11/ingress-nginx-retirement/",
        not_built: None,
    },
    Check {
        id: "STO-001",
        name: "flexvolume",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["PersistentVolumes, pods", "PersistentVolume、pod"],
        title: ["FlexVolume", "FlexVolume 卷"],
        why: [
            "FlexVolume is deprecated since 1.23. Mounts of an old OSS driver (up to v1.11.2.5) break when the kubelet is upgraded.",
            "FlexVolume 自 1.23 起弃用。旧版 OSS 驱动（v1.11.2.5 及以下）的挂载在 kubelet 升级时会中断。",
        ],
        fix: [
            "move to the CSI driver; until then make pods that use OSS anew after the upgrade",
            "请迁移到 CSI 驱动；在此之前，升级后请重建使用 OSS 的 pod",
        ],
        sentences: &[says("flex", "it uses FlexVolume, driver {driver}", "使用 FlexVolume，驱动 {driver}")],
        source: "https://kubernetes.io/docs/concepts/storage/volumes/#flexvolume",
        not_built: None,
    },
    Check {
        id: "STO-002",
        name: "in-tree-removed",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["PersistentVolumes, StorageClasses, pods", "PersistentVolume、StorageClass、pod"],
        title: ["Volumes that were taken out", "已移除的卷类型"],
        why: ["The kubelet of the target cannot mount them.", "目标版本的 kubelet 无法挂载。"],
        fix: ["move the data to a CSI driver before the upgrade", "请在升级前将数据迁移到 CSI 驱动"],
        sentences: &[says("removed", "{volume} is not there from {since} on", "{volume} 自 {since} 起移除")],
        source: "https://kubernetes.io/docs/concepts/storage/volumes/",
        not_built: None,
    },
    Check {
        id: "STO-003",
        name: "csi-migration-driver",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "PersistentVolumes, StorageClasses, pods, CSIDrivers",
            "PersistentVolume、StorageClass、pod、CSIDriver",
        ],
        title: ["Volumes that a CSI driver must serve", "需 CSI 驱动支持的卷"],
        why: [
            "From that release on the volume is handed to a CSI driver, which must be installed.",
            "从该版本起此类卷交由 CSI 驱动处理，必须已安装。",
        ],
        fix: ["install the CSI driver {driver} before the upgrade", "请在升级前安装 CSI 驱动 {driver}"],
        sentences: &[says(
            "no-driver",
            "{volume} is handed to {driver} from {since} on, and that is not installed",
            "{volume} 自 {since} 起交由 {driver} 处理，但未安装",
        )],
        source: "https://kubernetes.io/docs/concepts/storage/volumes/#csi-migration",
        not_built: None,
    },
    Check {
        id: "STO-005",
        name: "volumeattachment-stuck",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["VolumeAttachments", "所有 VolumeAttachment"],
        title: ["Volumes that cannot be attached or detached", "无法挂接或卸载的卷"],
        why: ["A pod that is drained waits for its volume on the new node.", "被排空的 pod 会在新节点上等待其卷。"],
        fix: ["see its message, and detach it by hand if its node is gone", "请查看消息；若节点已消失请手动卸载"],
        sentences: &[says("stuck", "{message}", "卡住：{message}")],
        source: "https://kubernetes.io/docs/concepts/storage/persistent-volumes/",
        not_built: None,
    },
    Check {
        id: "STO-006",
        name: "pvc-lost",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["PersistentVolumeClaims", "所有 PersistentVolumeClaim"],
        title: ["Claims without a volume", "没有卷的 PVC"],
        why: [
            "A pod that is drained does not come up again without its volume.",
            "没有卷时，被排空的 pod 无法再启动。",
        ],
        fix: ["restore the volume, or delete the claim", "请恢复卷，或删除该 PVC"],
        sentences: &[
            says("lost", "its volume is gone", "其卷已丢失"),
            Sentence {
                name: "pending",
                text: ["it has no volume yet", "尚未获得卷"],
                fix: Some([
                    "see why it gets none, or delete it where nothing uses it: kubectl describe pvc",
                    "请查看原因；若无人使用请删除：kubectl describe pvc",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/concepts/storage/persistent-volumes/",
        not_built: None,
    },
    Check {
        id: "STO-007",
        name: "local-pv",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["PersistentVolumes", "所有 PersistentVolume"],
        title: ["Volumes that are bound to a node", "绑定到节点的卷"],
        why: [
            "A pod with one cannot move: it waits until its node is back.",
            "使用此类卷的 pod 无法迁移，只能等待节点恢复。",
        ],
        fix: ["plan its downtime", "请安排停机"],
        sentences: &[says("local", "it is bound to its node", "绑定到所在节点")],
        source: "https://kubernetes.io/docs/concepts/storage/volumes/#local",
        not_built: None,
    },
    not_built(
        "NET-002",
        "lb-health",
        Severity::Blocking,
        Scope::Cluster,
        ["Load balancer of the API server", "API server 负载均衡"],
        ["it is in the cloud's own API; CP-001 asks each API server", "在云厂商 API 中；CP-001 会逐个检查 API server"],
    ),
];
