//! etcd and the inside of the control plane, as far as the API shows them.

use super::{Check, Scope, Sentence, Severity, says};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "VER-008",
        name: "target-supported",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["the version catalogue that is compiled in", "内置的版本目录"],
        title: ["Support of the target", "目标版本的支持状态"],
        why: [
            "A release that is not mended any more gets no fix for what is found in it.",
            "不再维护的版本不会再得到修复。",
        ],
        fix: ["choose a newer target", "请选择更新的目标版本"],
        sentences: &[
            says("ended-on", "the support of {target} ended on {end}", "{target} 的支持已于 {end} 结束"),
            says(
                "ended",
                "{target} is older than {oldest}, the oldest release that is still known; its support has ended",
                "{target} 比仍在目录中的最旧版本 {oldest} 更旧，支持已结束",
            ),
        ],
        source: "https://kubernetes.io/releases/patch-releases/",
        not_built: None,
    },
    Check {
        id: "VER-009",
        name: "etcd-version",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["images of static pods in kube-system", "kube-system 中静态 pod 的镜像"],
        title: ["Version of etcd", "etcd 版本"],
        why: [
            "etcd goes up one minor after the other. Members of 3.5 before 3.5.26 may leave the cluster in a state that 3.6 refuses.",
            "etcd 逐个次版本升级。3.5.26 之前的 3.5 成员可能留下 3.6 拒绝的状态。",
        ],
        fix: ["bring every member to the newest patch of its minor first", "请先将所有成员升级到其次版本的最新补丁"],
        sentences: &[
            says(
                "patch",
                "etcd {version} must be {least} or newer before it goes to {wanted}",
                "etcd {version} 在升级到 {wanted} 之前须不低于 {least}",
            ),
            Sentence {
                name: "several",
                text: [
                    "etcd {version} is more than one minor away from {wanted}, which the target brings",
                    "etcd {version} 与目标版本所带的 {wanted} 相差超过一个次版本",
                ],
                fix: Some(["upgrade etcd one minor after the other first", "请先逐个次版本升级 etcd"]),
            },
        ],
        source: "https://etcd.io/docs/v3.6/upgrades/upgrade_3_6/",
        not_built: None,
    },
    Check {
        id: "CP-004",
        name: "etcd-health-quorum",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "static pods of etcd in kube-system; members, alarms and health, asked by the agents of masters",
            "kube-system 中 etcd 的静态 pod；由控制面节点的 agent 询问的成员、告警与健康状况",
        ],
        title: ["Health of etcd", "etcd 健康状况"],
        why: [
            "A member that is not ready takes one of the votes that the upgrade needs. Quorum itself, learners and alarms are read at each member before it is touched.",
            "未就绪的成员会减少升级所需的票数。法定人数、learner 与告警在触碰每个成员前读取。",
        ],
        fix: [
            "repair the member first: kubectl -n kube-system describe pod",
            "请先修复该成员：kubectl -n kube-system describe pod",
        ],
        sentences: &[
            says("not-ready", "this member of etcd is not ready", "该 etcd 成员未就绪"),
            says("ill", "its etcd may not be touched: {why}", "不可触碰其 etcd：{why}"),
        ],
        source: "https://etcd.io/docs/v3.6/faq/",
        not_built: None,
    },
    Check {
        id: "CP-005",
        name: "etcd-db-size",
        severity: Severity::Blocking,
        scope: Scope::ControlPlane,
        reads: [
            "apiserver_storage_size_bytes, --quota-backend-bytes of etcd",
            "apiserver_storage_size_bytes、etcd 的 --quota-backend-bytes",
        ],
        title: ["Size of the etcd database", "etcd 数据库大小"],
        why: [
            "At its quota etcd takes no more writes; an upgrade writes much.",
            "达到配额后 etcd 不再接受写入，而升级会产生大量写入。",
        ],
        fix: [
            "compact and defragment it, or raise --quota-backend-bytes",
            "请压缩并整理碎片，或提高 --quota-backend-bytes",
        ],
        sentences: &[says("large", "the database has {size} of {quota}", "数据库已用 {size}，配额 {quota}")],
        source: "https://etcd.io/docs/v3.6/op-guide/maintenance/#space-quota",
        not_built: None,
    },
    Check {
        id: "CP-006",
        name: "etcd-latency",
        severity: Severity::Advice,
        scope: Scope::ControlPlane,
        reads: [
            "etcd_request_duration_seconds of every API server",
            "每个 API server 的 etcd_request_duration_seconds",
        ],
        title: ["Latency of etcd", "etcd 延迟"],
        why: [
            "Slow writes let leases lapse: controllers and members change their leaders in the middle of an upgrade.",
            "写入过慢会使租约失效：控制器与成员会在升级途中更换主节点。",
        ],
        fix: ["give etcd a faster disk, or less to do", "请为 etcd 提供更快的磁盘，或减轻负载"],
        sentences: &[says(
            "slow",
            "one in a hundred writes of this API server takes {milliseconds} ms or more",
            "该 API server 每百次写入中有一次达到 {milliseconds} 毫秒以上",
        )],
        source: "https://etcd.io/docs/v3.6/tuning/",
        not_built: None,
    },
    Check {
        id: "CP-012",
        name: "encryption-config",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["flags of static API servers in kube-system", "kube-system 中静态 API server 的启动参数"],
        title: ["Encryption at rest", "静态加密"],
        why: [
            "KMS version 1 is off from 1.29 on: without the gate KMSv1 an API server that uses it does not start.",
            "KMS v1 自 1.29 起默认关闭：使用它的 API server 若无 KMSv1 特性门控将无法启动。",
        ],
        fix: [
            "move the provider to KMS version 2, and write all Secrets anew",
            "请迁移到 KMS v2，并重新写入所有 Secret",
        ],
        sentences: &[
            says("kms-1", "it is allowed to use KMS version 1, which goes away", "允许使用即将移除的 KMS v1"),
            says(
                "kms-1-off",
                "it encrypts at rest; if that is KMS version 1 it does not start from 1.29 on",
                "已启用静态加密；若为 KMS v1，自 1.29 起将无法启动",
            ),
        ],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/",
        not_built: None,
    },
    Check {
        id: "CP-013",
        name: "storage-version-old",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["CustomResourceDefinitions", "所有 CustomResourceDefinition"],
        title: ["Objects that may be stored in old versions", "可能以旧版本存储的对象"],
        why: [
            "A version that objects may still be stored in cannot be taken away by the next release of its maker.",
            "对象可能仍以其存储的版本，其维护者无法在下一版本移除。",
        ],
        fix: [
            "write all objects anew, then trim status.storedVersions to {storage}",
            "请重新写入所有对象，然后将 status.storedVersions 精简为 {storage}",
        ],
        sentences: &[says(
            "old",
            "objects may still be stored in {versions}; the storage version is {storage}",
            "对象可能仍以 {versions} 存储；存储版本为 {storage}",
        )],
        source: "https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#upgrade-existing-objects-to-a-new-stored-version",
        not_built: None,
    },
    Check {
        id: "CP-014",
        name: "events-error-burst",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["Events of type Warning in kube-system", "kube-system 中类型为 Warning 的 Event"],
        title: ["Warnings in kube-system", "kube-system 中的告警事件"],
        why: [
            "What keeps failing before an upgrade is taken for its fault afterwards.",
            "升级前反复失败的内容，事后会被误认为升级所致。",
        ],
        fix: [
            "look into it first: kubectl -n kube-system get events --field-selector type=Warning",
            "请先排查：kubectl -n kube-system get events --field-selector type=Warning",
        ],
        sentences: &[says(
            "many",
            "{reason} came {count:time|times}, the last time within the hour before",
            "{reason} 出现 {count} 次，最近一次在前一小时内",
        )],
        source: "https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/",
        not_built: None,
    },
];
