//! Add-ons, custom resources, and the run itself.

use super::{Check, Scope, Severity, not_built, says};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ADD-003",
        name: "crd-stored-versions",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["CustomResourceDefinitions", "所有 CustomResourceDefinition"],
        title: ["Versions that objects are stored in", "对象的存储版本"],
        why: [
            "Objects of a version that the definition has no more cannot be read.",
            "定义中不存在的版本所存储的对象无法读取。",
        ],
        fix: [
            "put the version back, migrate the objects, then trim status.storedVersions",
            "请恢复该版本，迁移对象后再清理 status.storedVersions",
        ],
        sentences: &[says(
            "gone",
            "objects may be stored in {versions}, which the definition does not have",
            "对象可能以 {versions} 存储，而定义中没有该版本",
        )],
        source: "https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#upgrade-existing-objects-to-a-new-stored-version",
        not_built: None,
    },
    Check {
        id: "ADD-004",
        name: "crd-deprecated-version",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["CustomResourceDefinitions", "所有 CustomResourceDefinition"],
        title: ["Deprecated versions of custom resources", "自定义资源的弃用版本"],
        why: ["Their makers will take them away with one of the next releases.", "其维护者会在后续版本中移除。"],
        fix: ["move the writers of {kind} to another version", "请将 {kind} 的写入方迁移到其他版本"],
        sentences: &[says(
            "deprecated",
            "version {versions} of {kind} is served and called deprecated",
            "{kind} 的版本 {versions} 仍提供但已弃用",
        )],
        source: "https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#version-deprecation",
        not_built: None,
    },
    Check {
        id: "ADD-005",
        name: "crd-nonstructural",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["CustomResourceDefinitions", "所有 CustomResourceDefinition"],
        title: ["Definitions without a structural schema", "没有结构化 schema 的定义"],
        why: ["Without it the newer versions of definitions refuse changes.", "缺少它时，新版定义会拒绝修改。"],
        fix: ["give it a structural schema", "请提供结构化 schema"],
        sentences: &[says("schema", "{message}", "schema 问题：{message}")],
        source: "https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema",
        not_built: None,
    },
    Check {
        id: "ADD-006",
        name: "crd-established",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["CustomResourceDefinitions", "所有 CustomResourceDefinition"],
        title: ["Definitions that are not served", "未生效的定义"],
        why: ["Nobody can read or write objects of it.", "无法读写该类型的对象。"],
        fix: ["see its conditions: kubectl describe crd", "请查看其状态：kubectl describe crd"],
        sentences: &[says("not-served", "it is not served: {message}", "未生效：{message}")],
        source: "https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/",
        not_built: None,
    },
    not_built(
        "RUN-002",
        "upgrade-namespace-untouched",
        Severity::Blocking,
        Scope::Plan,
        ["Namespace kube-upgrade", "命名空间 kube-upgrade"],
        [
            "the driver holds the Lease in it, fenced, and says at once who else does; nothing else is kept there",
            "驱动持有其中的 Lease 并有隔离保护，若被他人持有会立即说明；没有其他内容",
        ],
    ),
    Check {
        id: "RUN-003",
        name: "permissions",
        severity: Severity::Blocking,
        scope: Scope::Plan,
        reads: [
            "selfsubjectaccessreviews: what the server's account may do",
            "selfsubjectaccessreviews：服务端账号拥有的权限",
        ],
        title: ["Permissions", "权限"],
        why: [
            "An upgrade cordons nodes, evicts pods and keeps a Lease. An account that may not do one of these holds the upgrade in the middle. Asked only where an upgrade is about to start, of the account that the cluster was registered with.",
            "升级会隔离节点、驱逐 pod 并持有 Lease。若账号缺少其中任一权限，升级会在中途停住。仅在升级即将开始时，针对注册集群所用的账号检查。",
        ],
        fix: [
            "give the account the roles that `shiplock cluster role` prints: shiplock cluster role | kubectl apply -f -",
            "请为该账号授予 `shiplock cluster role` 输出的角色：shiplock cluster role | kubectl apply -f -",
        ],
        sentences: &[
            says("missing", "the server's account may not {act}", "服务端账号没有权限：{act}"),
            says(
                "spared",
                "the server's account may not {act}, which only drains with --on-drain-timeout force need",
                "服务端账号没有权限：{act}（仅 --on-drain-timeout force 的排空需要）",
            ),
        ],
        source: "https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access",
        not_built: None,
    },
    not_built(
        "RUN-004",
        "preflight-fresh",
        Severity::Blocking,
        Scope::Plan,
        ["Age of the check", "检查结果时效"],
        [
            "an upgrade checks again by itself when its check is older than 60 minutes",
            "检查超过 60 分钟时升级会自动重新检查",
        ],
    ),
    not_built(
        "RUN-005",
        "post-baseline",
        Severity::Advice,
        Scope::Plan,
        ["State before", "升级前状态"],
        [
            "an upgrade keeps it itself: workloads before its start are compared with those at its end, and its log holds the versions",
            "升级自身会保存：结束时将工作负载与开始前比较，日志中保存版本",
        ],
    ),
];
