//! The run itself, and what the components of the target refuse to start with.

use super::{Check, Scope, Sentence, Severity, says};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "API-013",
        name: "removed-feature-gates-flags",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "flags of components in kube-system, ConfigMaps kubelet-config and kube-proxy",
            "kube-system 中组件的启动参数、ConfigMap kubelet-config 与 kube-proxy",
        ],
        title: ["Flags and feature gates that are gone", "已移除的参数与特性门控"],
        why: [
            "A component that is given a flag, feature gate, admission plugin or API version that it does not know ends at once, and so does one whose gate can only have the other value.",
            "组件遇到未知的参数、特性门控、准入插件或 API 版本会立即退出；门控被锁定为另一值时也是如此。",
        ],
        fix: [
            "take {name} out of the configuration of {component} before the upgrade: for kubeadm in the ConfigMaps kubeadm-config and kubelet-config, and in the manifests",
            "请在升级前从 {component} 的配置中移除 {name}：kubeadm 集群在 ConfigMap kubeadm-config、kubelet-config 与清单中",
        ],
        sentences: &[
            says(
                "flag-gone",
                "{component} is given --{name}, which {since} does not know",
                "{component} 使用了 --{name}，而 {since} 已不认识",
            ),
            says(
                "gate-gone",
                "{component} is given the feature gate {name}, which {since} does not know",
                "{component} 设置了特性门控 {name}，而 {since} 已不认识",
            ),
            says(
                "gate-locked",
                "{component} is given {name}={value}; from {since} on it can only be {other}",
                "{component} 设置了 {name}={value}；自 {since} 起只能为 {other}",
            ),
            says(
                "plugin-gone",
                "{component} is given the admission plugin {name}, which {since} does not have",
                "{component} 使用了准入插件 {name}，而 {since} 已没有",
            ),
            says(
                "version-gone",
                "{component} is told to serve {name}, which {since} does not have",
                "{component} 被要求提供 {name}，而 {since} 已没有",
            ),
            Sentence {
                name: "gate-unheard",
                text: [
                    "{component} is given the feature gate {name}, which no release from {oldest} to {newest} has",
                    "{component} 设置了特性门控 {name}，而 {oldest} 至 {newest} 均没有",
                ],
                fix: Some([
                    "see whose gate {name} is, and take it out of the configuration of {component} if nobody needs it",
                    "请确认特性门控 {name} 的来源；若无人需要，请从 {component} 的配置中移除",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/reference/command-line-tools-reference/feature-gates-removed/",
        not_built: None,
    },
    Check {
        id: "RUN-001",
        name: "window-change-freeze",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["nodes", "所有节点"],
        title: ["Nodes that come and go", "正在增减的节点"],
        why: [
            "A plan names nodes. One that comes after it is not upgraded; one that goes stops its batch. Windows are held by the gates of an upgrade.",
            "计划会列出节点：之后加入的不会被升级，离开的会中断其批次。维护窗口由升级的门禁保证。",
        ],
        fix: [
            "wait until the pool is at rest, and pause what adds and removes nodes",
            "请等待节点池稳定，并暂停增减节点的操作",
        ],
        sentences: &[
            says("came", "it joined within the last 10 minutes", "在过去 10 分钟内加入"),
            says("leaves", "it is being removed", "正在被移除"),
        ],
        source: "https://kubernetes.io/docs/concepts/architecture/nodes/",
        not_built: None,
    },
    Check {
        id: "WL-015",
        name: "image-not-repullable",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["pods", "所有 pod"],
        title: ["Images that are never pulled", "从不拉取的镜像"],
        why: [
            "With imagePullPolicy Never a pod runs only where somebody has put its image; on another node it does not start. Whether registries answer is seen by the nodes.",
            "imagePullPolicy 为 Never 的 pod 只能在已有镜像的节点上运行，换节点后无法启动。镜像仓库是否可用由节点判断。",
        ],
        fix: [
            "push {image} to a registry and let it be pulled, or put it on every node",
            "请将 {image} 推送到镜像仓库并允许拉取，或放到每个节点上",
        ],
        sentences: &[says("never", "{image} is never pulled", "{image} 从不拉取")],
        source: "https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy",
        not_built: None,
    },
    Check {
        id: "VER-007",
        name: "kubectl-version",
        severity: Severity::Advice,
        scope: Scope::Client,
        reads: ["kubectl version --client", "kubectl version --client 的结果"],
        title: ["kubectl of this machine", "本机 kubectl"],
        why: [
            "kubectl goes with API servers of its own minor and of the ones beside it. An older one refuses or loses fields that it does not know.",
            "kubectl 支持与其次版本相同或相邻的 API server。过旧的 kubectl 会拒绝或丢失其不认识的字段。",
        ],
        fix: ["install kubectl {target}", "请安装 kubectl {target}"],
        sentences: &[says(
            "far",
            "kubectl {version} is more than one minor away from {target}",
            "kubectl {version} 与 {target} 相差超过一个次版本",
        )],
        source: "https://kubernetes.io/releases/version-skew-policy/#kubectl",
        not_built: None,
    },
    Check {
        id: "VER-011",
        name: "controller-client-skew",
        severity: Severity::Advice,
        scope: Scope::AuditLog,
        reads: ["user agents in the audit log", "审计日志中的 user agent"],
        title: ["Old clients, from the audit log", "审计日志中的旧客户端"],
        why: [
            "Other machines and pipelines have a kubectl of their own, which goes with API servers of its own minor and of the ones beside it. Callers of versions that go away are named by API-009.",
            "其他机器和流水线使用各自的 kubectl，只支持与其次版本相同或相邻的 API server。即将移除版本的调用方见 API-009。",
        ],
        fix: ["give {user} kubectl {target}", "请为 {user} 提供 kubectl {target}"],
        sentences: &[says(
            "kubectl",
            "{user} uses kubectl {version}: {count:request|requests}",
            "{user} 使用 kubectl {version}：{count} 个请求",
        )],
        source: "https://kubernetes.io/releases/version-skew-policy/#kubectl",
        not_built: None,
    },
    Check {
        id: "CP-010",
        name: "watch-client-resilience",
        severity: Severity::Advice,
        scope: Scope::AuditLog,
        reads: ["watches in the audit log", "审计日志中的 watch"],
        title: ["Clients that watch, from the audit log", "审计日志中的监听型客户端"],
        why: [
            "Every watch ends when its API server is upgraded. A program that does not list again and retry with growing pauses stands still, or presses the new API server.",
            "API server 升级时所有 watch 都会中断。若程序不重新 list 并以递增间隔重试，就会停滞或冲击新的 API server。",
        ],
        fix: [
            "see that they list again after an error or 410 Gone and wait between tries; programs built on informers of client-go do",
            "请确认它们在出错或 410 Gone 后重新 list 并间隔重试；基于 client-go informer 的程序即如此",
        ],
        sentences: &[says(
            "watch",
            "{count:program of your own watches|programs of your own watch}, such as {names}",
            "有 {count} 个自有程序在 watch，例如 {names}",
        )],
        source: "https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes",
        not_built: None,
    },
];
