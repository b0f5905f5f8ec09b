//! Add-ons, drivers and network settings against the target.

use super::{Check, Scope, Sentence, Severity, says};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ADD-001",
        name: "addon-compat",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["images of pods", "pod 的镜像"],
        title: ["Versions of add-ons", "组件版本"],
        why: [
            "A cloud controller manager must not be newer than an API server, and at most one minor older. Of other add-ons the makers publish which releases of Kubernetes they tested.",
            "cloud controller manager 不得比 API server 更新，且最多旧一个次版本。其他组件的维护者会公布测试过的 Kubernetes 版本。",
        ],
        fix: [
            "bring {name} to a release that was tested with {target}: {page}",
            "请将 {name} 升级到已针对 {target} 测试的版本：{page}",
        ],
        sentences: &[
            says(
                "untested",
                "{name} {version} was tested by its makers up to Kubernetes {newest}",
                "{name} {version} 由其维护者测试至 Kubernetes {newest}",
            ),
            Sentence {
                name: "cloud-newer",
                text: [
                    "the cloud controller manager {version} is newer than the API server, {current}",
                    "cloud controller manager {version} 比 API server {current} 更新",
                ],
                fix: Some(["bring it to {current} first", "请先将其调整为 {current}"]),
            },
            Sentence {
                name: "cloud-too-old",
                text: [
                    "the cloud controller manager {version} would be more than one minor older than {target}",
                    "cloud controller manager {version} 将比 {target} 旧超过一个次版本",
                ],
                fix: Some([
                    "bring it to {current} before the control plane goes to {target}",
                    "请在控制面升级到 {target} 之前将其升级到 {current}",
                ]),
            },
        ],
        source: "https://kubernetes.io/releases/version-skew-policy/#kube-controller-manager-kube-scheduler-and-cloud-controller-manager",
        not_built: None,
    },
    Check {
        id: "ADD-002",
        name: "addon-eol",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["images of pods", "pod 的镜像"],
        title: ["Add-ons at their end", "停止维护的组件"],
        why: [
            "What is not mended any more breaks with some release, and nobody repairs it.",
            "不再维护的组件会在某个版本失效，且无人修复。",
        ],
        fix: ["move to {instead}", "请迁移到 {instead}"],
        sentences: &[says("ended", "{name} has been ended by its makers in {since}", "{name} 已于 {since} 停止维护")],
        source: "https://kubernetes.io/blog/2023/03/10/image-registry-redirect/ and the makers’ own pages",
        not_built: None,
    },
    Check {
        id: "ADD-007",
        name: "operator-gate",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "OperatorConditions, ClusterOperators, where they are served",
            "OperatorCondition、ClusterOperator（如提供）",
        ],
        title: ["Operators that say no", "拒绝升级的 operator"],
        why: [
            "An operator that says that it must not be upgraded now knows why.",
            "operator 声明当前不可升级必有其原因。",
        ],
        fix: ["do what it says, then check again", "请按其说明处理后重新检查"],
        sentences: &[says("no", "it says that it must not be upgraded now: {message}", "声明当前不可升级：{message}")],
        source: "https://olm.operatorframework.io/docs/advanced-tasks/communicating-operator-conditions-to-olm/",
        not_built: None,
    },
    Check {
        id: "NET-004",
        name: "coredns-migration",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["ConfigMap kube-system/coredns", "kube-system 中的 ConfigMap coredns"],
        title: ["Plugins of CoreDNS", "CoreDNS 插件"],
        why: [
            "CoreDNS does not start with a plugin that it does not have any more.",
            "CoreDNS 遇到已不存在的插件将无法启动。",
        ],
        fix: [
            "take {plugin} out of the Corefile: kubectl -n kube-system edit configmap coredns",
            "请从 Corefile 中移除 {plugin}：kubectl -n kube-system edit configmap coredns",
        ],
        sentences: &[says(
            "gone",
            "the Corefile uses the plugin {plugin}, which left with CoreDNS {since}",
            "Corefile 使用了随 CoreDNS {since} 移除的插件 {plugin}",
        )],
        source: "https://github.com/coredns/corefile-migration",
        not_built: None,
    },
    Check {
        id: "NET-005",
        name: "cni-version",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["images of pods", "pod 的镜像"],
        title: ["Network plugin", "网络插件"],
        why: [
            "Makers of network plugins publish which releases of Kubernetes they tested. Of plugins that publish none nothing is said.",
            "网络插件的维护者会公布测试过的 Kubernetes 版本；未公布者不作判断。",
        ],
        fix: [
            "bring {name} to a release that was tested with {target}: {page}",
            "请将 {name} 升级到已针对 {target} 测试的版本：{page}",
        ],
        sentences: &[says(
            "untested",
            "{name} {version} was tested by its makers up to Kubernetes {newest}",
            "{name} {version} 由其维护者测试至 Kubernetes {newest}",
        )],
        source: "https://docs.tigera.io/calico/latest/getting-started/kubernetes/requirements https://docs.cilium.io/en/stable/network/kubernetes/compatibility/",
        not_built: None,
    },
    Check {
        id: "NET-006",
        name: "kube-proxy-ipvs",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["ConfigMap kube-system/kube-proxy", "kube-system 中的 ConfigMap kube-proxy"],
        title: ["kube-proxy in mode ipvs", "ipvs 模式的 kube-proxy"],
        why: ["The mode is deprecated from 1.35 on and will be taken out.", "该模式自 1.35 起弃用，之后将移除。"],
        fix: ["plan a move to nftables or iptables", "请计划迁移到 nftables 或 iptables"],
        sentences: &[says("ipvs", "kube-proxy runs in mode ipvs", "kube-proxy 以 ipvs 模式运行")],
        source: "https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-ipvs",
        not_built: None,
    },
    Check {
        id: "NET-008",
        name: "networkpolicy-agent",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["NetworkPolicies, webhook configurations, Services, pods", "NetworkPolicy、webhook 配置、Service、pod"],
        title: ["Webhooks behind network policies", "网络策略后的 webhook"],
        why: [
            "API servers call webhooks from addresses of nodes. Where a policy lets only pods in, whether the call arrives depends on the network plugin, and on which node the pod is after a drain.",
            "API server 从节点地址调用 webhook。若策略只允许 pod 访问，调用能否到达取决于网络插件以及排空后 pod 所在的节点。",
        ],
        fix: [
            "let the addresses of the API servers in: an ingress rule with ipBlock, or without from",
            "请放行 API server 的地址：带 ipBlock 或不带 from 的 ingress 规则",
        ],
        sentences: &[says(
            "closed",
            "NetworkPolicy {policy} lets no node call webhook {webhook}",
            "NetworkPolicy {policy} 不允许任何节点调用 webhook {webhook}",
        )],
        source: "https://kubernetes.io/docs/concepts/services-networking/network-policies/",
        not_built: None,
    },
    Check {
        id: "NET-009",
        name: "service-cidr-free",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: [
            "ServiceCIDRs, ConfigMap kube-system/kubeadm-config, Services",
            "ServiceCIDR、ConfigMap kube-system/kubeadm-config、Service",
        ],
        title: ["Addresses of Services", "Service 地址"],
        why: [
            "Without a free address no Service can be made, also none that an add-on brings.",
            "没有空闲地址时无法创建 Service，包括组件所需的 Service。",
        ],
        fix: ["add a ServiceCIDR, or delete Services that nobody uses", "请增加 ServiceCIDR，或删除无人使用的 Service"],
        sentences: &[says("few", "{free:address is|addresses are} free in {range}", "{range} 仅剩 {free} 个地址")],
        source: "https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/",
        not_built: None,
    },
    Check {
        id: "STO-004",
        name: "csi-node-registered",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "CSINodes, pods, PersistentVolumeClaims, PersistentVolumes",
            "CSINode、pod、PersistentVolumeClaim、PersistentVolume",
        ],
        title: ["CSI drivers on nodes", "节点上的 CSI 驱动"],
        why: [
            "A driver that does not run on a node cannot mount or unmount there: a drain waits for ever.",
            "驱动未在节点上运行时无法挂载或卸载，排空会一直等待。",
        ],
        fix: ["restart the node plugin of {driver} there", "请在该节点重启 {driver} 的节点插件"],
        sentences: &[says(
            "missing",
            "{driver} is not registered on it, and pod {pod} uses it there",
            "{driver} 未在其上注册，而 pod {pod} 正在使用",
        )],
        source: "https://kubernetes-csi.github.io/docs/csi-node-object.html",
        not_built: None,
    },
];
