//! Deprecated and removed APIs.

use super::{Check, Scope, Sentence, Severity, says};

const MOVE: [&str; 2] = [
    "have it written as {successor}; the evidence names the file, release or manager to change",
    "请改为以 {successor} 写入；证据中列出了需修改的文件、release 或写入者",
];

/// What a command of kubectl wrote leaves a record that a later writing by another manager does not take away. Source:
/// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#clearing-managedfields>
const BY_HAND: Option<[&str; 2]> = Some([
    "write its manifest as {successor}, then clear the record of the writing by hand, which stays otherwise, and apply it anew (others that apply it own their fields again with their next apply): kubectl patch {resource} {object} --type=json -p '[{\"op\":\"replace\",\"path\":\"/metadata/managedFields\",\"value\":[{}]}]' && kubectl get {resource} {object} -o yaml > FILE && kubectl apply --server-side --field-manager=kubectl -f FILE",
    "请将其清单改写为 {successor}，再清除手工写入的记录（否则会一直保留）并重新应用（其他应用者会在下次应用时重新拥有其字段）：kubectl patch {resource} {object} --type=json -p '[{\"op\":\"replace\",\"path\":\"/metadata/managedFields\",\"value\":[{}]}]' && kubectl get {resource} {object} -o yaml > FILE && kubectl apply --server-side --field-manager=kubectl -f FILE",
]);
/// What a release holds.
const IN_RELEASE: Option<[&str; 2]> = Some([
    "have it written as {successor}: upgrade the chart to one that does, or run `helm mapkubeapis {release} --namespace {namespace}` before the upgrade; the evidence names who else writes it",
    "请改为以 {successor} 写入：将 chart 升级到使用它的版本，或在升级前执行 `helm mapkubeapis {release} --namespace {namespace}`；证据中列出了其他写入者",
]);
/// What a release holds and nothing takes the place of. `helm mapkubeapis` takes such objects out of a release.
const IN_RELEASE_NO_MOVE: Option<[&str; 2]> = Some([
    "nothing takes its place: before the upgrade, upgrade the chart to one that does without it, or take it out of the release with `helm mapkubeapis {release} --namespace {namespace}`",
    "没有替代：请在升级前将 chart 升级到不使用它的版本，或用 `helm mapkubeapis {release} --namespace {namespace}` 将其从 release 中去除",
]);
/// Where the target serves no version that takes the place of one that goes.
const NO_MOVE: Option<[&str; 2]> = Some([
    "nothing that the target serves takes its place: find out who needs it, and do without it before it goes, unless a release up to then brings what takes its place",
    "目标版本中没有替代：请确认谁需要它，并在其移除之前去除对它的依赖，除非在此之前的版本带来替代",
]);
const DO_WITHOUT: Option<[&str; 2]> = Some([
    "nothing takes its place: let whatever uses the account {user} (user agent: {agent}) do without it",
    "没有替代：请让使用账号 {user} 的程序（user agent：{agent}）不再依赖它",
]);
const DEPRECATED: [&str; 2] = [
    "{api} is deprecated since {since}; its removal is declared for {removed}",
    "{api} 自 {since} 起弃用；声明将于 {removed} 移除",
];
const REMOVED: [&str; 2] = ["{api} is not served from {since} on", "{api} 自 {since} 起不再提供"];
const REMOVED_FOR_GOOD: [&str; 2] =
    ["{api} is not served from {since} on, and nothing takes its place", "{api} 自 {since} 起不再提供，且没有替代"];
const DEPRECATED_FOR_GOOD: [&str; 2] = [
    "{api} is deprecated since {since}; no release is named that removes it",
    "{api} 自 {since} 起弃用；尚未声明移除版本",
];
const ONLY_TRACE: [&str; 2] =
    ["the only trace of who wrote this is an annotation with {api}", "唯一的写入记录是带有 {api} 的注解"];
const DEPLOYED: [&str; 2] = [
    "the deployed release {namespace}/{release} holds {api}, which {target} deprecates or does not serve",
    "已部署的 release {namespace}/{release} 含有 {api}，{target} 已弃用或不再提供该版本",
];
const NOT_DEPLOYED: [&str; 2] = [
    "the newest revision {revision} is {status} and holds {api}, which {target} deprecates or does not serve",
    "最新修订 {revision} 状态为 {status}，含有 {api}，{target} 已弃用或不再提供该版本",
];
const REQUESTED: [&str; 2] = [
    "somebody has asked for {api} since {since}; it is not served from {removed} on",
    "自 {since} 以来有人请求过 {api}；该版本自 {removed} 起不再提供",
];
const REQUESTED_SINCE_START: [&str; 2] = [
    "somebody has asked for {api} since this API server started; it is not served from {removed} on",
    "自该 API server 启动以来有人请求过 {api}；该版本自 {removed} 起不再提供",
];
const ASK_NO_MORE: Option<[&str; 2]> = Some([
    "nothing takes its place: find the caller in the audit log (annotation k8s.io/deprecated): shiplock check --audit-log FILE, and let it do without",
    "没有替代：请在审计日志中查找调用方（注解 k8s.io/deprecated）：shiplock check --audit-log FILE，并使其不再依赖该 API",
]);
const CALLED: [&str; 2] = [
    "{user} ({agent}) asked for {api} {count:time|times}, last at {last}, from {address}: {verbs}; it is not served from {removed} on",
    "{user}（{agent}）请求 {api} {count} 次，最后一次 {last}，来自 {address}：{verbs}；该版本自 {removed} 起不再提供",
];
const CALLED_DEPRECATED: [&str; 2] = [
    "{user} ({agent}) asked for {api} {count:time|times}, last at {last}, from {address}: {verbs}; it is deprecated, and its removal is declared for {removed}",
    "{user}（{agent}）请求 {api} {count} 次，最后一次 {last}，来自 {address}：{verbs}；该版本已弃用，声明将于 {removed} 移除",
];

const ALPHA_OBJECTS: [&str; 2] = [
    "the cluster holds {count:object|objects} of {api}, such as {names}; the version is not served from {since} on and no other version of the kind is served now",
    "集群中有 {count} 个 {api} 对象，例如 {names}；该版本自 {since} 起不再提供，且当前没有该类型的其他版本",
];
const ALPHA_COUNTED: [&str; 2] = [
    "API servers count {count:object|objects} of {api}, without their names; the version is not served from {since} on and no other version of the kind is served now",
    "API server 统计到 {count} 个 {api} 对象，名称未知；该版本自 {since} 起不再提供，且当前没有该类型的其他版本",
];
const ALPHA_GONE: Option<[&str; 2]> = Some([
    "save and delete them: kubectl get {resource} -A -o yaml > FILE && kubectl delete -f FILE; nothing takes their place at the target",
    "请保存并删除：kubectl get {resource} -A -o yaml > FILE && kubectl delete -f FILE；目标版本中没有替代",
]);

const NOT_READ: [&str; 2] = ["{api} is not read from {since} on", "{api} 自 {since} 起不再支持"];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "API-001",
        name: "deprecated-api",
        severity: Severity::Advice,
        scope: Scope::Any,
        reads: ["files, live objects, Helm releases", "文件、集群中的对象、Helm release"],
        title: ["APIs that the target calls deprecated", "目标版本中已弃用的 API"],
        why: [
            "A deprecated version still works at the target and goes away in a later release. It is advice and never stops an upgrade.",
            "已弃用的版本在目标版本中仍可使用，但会在之后的版本中移除。此项仅为建议，不会阻止升级。",
        ],
        fix: MOVE,
        sentences: &[
            Sentence { name: "deprecated", text: DEPRECATED, fix: None },
            Sentence { name: "deprecated-by-hand", text: DEPRECATED, fix: BY_HAND },
            Sentence { name: "deprecated-in-release", text: DEPRECATED, fix: IN_RELEASE },
            Sentence { name: "deprecated-no-successor", text: DEPRECATED, fix: NO_MOVE },
            Sentence {
                name: "deprecated-for-good",
                text: DEPRECATED_FOR_GOOD,
                fix: Some(["use {successor} when you change it next", "下次修改时请改用 {successor}"]),
            },
            Sentence {
                name: "deprecated-for-good-no-successor",
                text: DEPRECATED_FOR_GOOD,
                fix: Some([
                    "nothing takes its place: do without it when you change what uses it next",
                    "没有替代：下次修改使用它的程序时请去除对它的依赖",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/reference/using-api/deprecation-guide/",
        not_built: None,
    },
    Check {
        id: "API-002",
        name: "removed-at-target",
        severity: Severity::AdviceUnlessStrict,
        scope: Scope::Any,
        reads: ["files, live objects, Helm releases", "文件、集群中的对象、Helm release"],
        title: ["APIs that the target does not serve", "目标版本不再提供的 API"],
        why: [
            "Whoever writes through a version that the API server does not serve gets `no matches for kind`. Stored objects stay; their writers break. The profile `strict` stops the upgrade.",
            "通过 API server 不再提供的版本写入时会得到 `no matches for kind`。已存储的对象保留，但写入方会失败。strict 策略会阻止升级。",
        ],
        fix: MOVE,
        sentences: &[
            Sentence { name: "removed", text: REMOVED, fix: None },
            Sentence { name: "removed-by-hand", text: REMOVED, fix: BY_HAND },
            Sentence { name: "removed-in-release", text: REMOVED, fix: IN_RELEASE },
            Sentence {
                name: "removed-too-early",
                text: [
                    "{api} is not served from {since} on, and {successor} is served only from {served_from} on",
                    "{api} 自 {since} 起不再提供，而 {successor} 从 {served_from} 起才提供",
                ],
                fix: Some([
                    "upgrade to {served_from} first, write it as {successor} there, then go on",
                    "请先升级到 {served_from}，在该版本改写为 {successor}，再继续升级",
                ]),
            },
            Sentence {
                name: "removed-in-one-step",
                text: [
                    "{api} is not served from {since} on, {successor} is served only from {served_from} on, and no version serves both",
                    "{api} 自 {since} 起不再提供，而 {successor} 从 {served_from} 起才提供，没有同时提供两者的版本",
                ],
                fix: Some([
                    "save it, take it out of the file, release or manager that the evidence names and out of the cluster, upgrade, then write it anew as {successor}",
                    "请保存它，将其从证据所列的文件、release 或写入者以及集群中移除，升级后再以 {successor} 重新写入",
                ]),
            },
            Sentence {
                name: "removed-for-good",
                text: REMOVED_FOR_GOOD,
                fix: Some(["do without it before the upgrade: {guide}", "请在升级前去除对它的依赖：{guide}"]),
            },
            Sentence { name: "removed-for-good-in-release", text: REMOVED_FOR_GOOD, fix: IN_RELEASE_NO_MOVE },
        ],
        source: "https://kubernetes.io/docs/reference/using-api/deprecation-guide/",
        not_built: None,
    },
    Check {
        id: "API-003",
        name: "live-authorship",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: [
            "metadata of the objects of flagged kinds, through a version that stays",
            "被标记类型的对象的元数据，通过仍会保留的版本读取",
        ],
        title: ["Who writes live objects, and through which version", "谁在通过哪个版本写入现有对象"],
        why: [
            "Every version of an API shows every object, so the version in an answer says nothing. managedFields say who wrote last through which version; an old annotation alone does not.",
            "每个 API 版本都能读到所有对象，因此返回的版本没有意义。managedFields 记录了最后由谁通过哪个版本写入；仅有旧注解不能说明问题。",
        ],
        fix: [
            "write it anew, so that managedFields say who writes it: kubectl get {resource} {object} -o yaml > FILE && kubectl apply --server-side --field-manager=kubectl -f FILE",
            "请重新写入，使 managedFields 记录写入者：kubectl get {resource} {object} -o yaml > FILE && kubectl apply --server-side --field-manager=kubectl -f FILE",
        ],
        sentences: &[says(
            "nobody",
            "nothing says who wrote {subject}: neither managedFields nor an annotation",
            "{subject} 既无 managedFields 也无注解，无法得知写入者",
        )],
        source: "https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management",
        not_built: None,
    },
    Check {
        id: "API-004",
        name: "last-applied-stale",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["annotations of kubectl and kapp on the same objects", "同一批对象上 kubectl 与 kapp 的注解"],
        title: ["Annotations that remember an old version", "仍记录旧版本的注解"],
        why: [
            "kubectl keeps what it applied last. Where nothing else says who writes, that is the only trace; where managedFields are newer, it is stale and harmless.",
            "kubectl 会保留最后一次应用的内容。没有其他记录时它是唯一线索；若 managedFields 更新，则它已过时且无害。",
        ],
        fix: MOVE,
        sentences: &[
            Sentence { name: "only-trace", text: ONLY_TRACE, fix: None },
            Sentence { name: "only-trace-no-successor", text: ONLY_TRACE, fix: NO_MOVE },
        ],
        source: "https://kubernetes.io/docs/reference/kubectl/generated/kubectl_apply/",
        not_built: None,
    },
    Check {
        id: "API-005",
        name: "helm-release-manifest",
        severity: Severity::AdviceUnlessStrict,
        scope: Scope::Cluster,
        reads: [
            "Secrets and ConfigMaps of Helm: the newest revision of each release",
            "Helm 的 Secret 与 ConfigMap：每个 release 的最新修订",
        ],
        title: ["Helm releases", "Helm 发布（release）"],
        why: [
            "Helm compares the stored manifest with the cluster at its next upgrade, and fails with `no matches for kind` where the manifest names a version that is not served.",
            "Helm 在下次升级时会将存储的清单与集群比较；若清单中的版本不再提供，会以 `no matches for kind` 失败。",
        ],
        fix: [
            "upgrade the chart to one that writes {successor}, or run `helm mapkubeapis {release} --namespace {namespace}` before the upgrade",
            "请将 chart 升级到使用 {successor} 的版本，或在升级前执行 `helm mapkubeapis {release} --namespace {namespace}`",
        ],
        sentences: &[
            Sentence { name: "deployed", text: DEPLOYED, fix: None },
            Sentence { name: "deployed-no-successor", text: DEPLOYED, fix: IN_RELEASE_NO_MOVE },
            Sentence { name: "not-deployed", text: NOT_DEPLOYED, fix: None },
            Sentence {
                name: "not-deployed-no-successor",
                text: NOT_DEPLOYED,
                fix: Some([
                    "nothing takes its place: upgrade the chart to one that does without it, or uninstall it: helm uninstall {release} --namespace {namespace}",
                    "没有替代：请将 chart 升级到不使用它的版本，或卸载：helm uninstall {release} --namespace {namespace}",
                ]),
            },
            Sentence {
                name: "unreadable",
                text: [
                    "revision {revision} of the release cannot be read: {why}",
                    "无法读取该 release 的修订 {revision}：{why}",
                ],
                fix: Some([
                    "look at it with `helm get manifest {release} --namespace {namespace}`",
                    "请用 `helm get manifest {release} --namespace {namespace}` 查看",
                ]),
            },
        ],
        source: "https://helm.sh/docs/topics/kubernetes_apis/",
        not_built: None,
    },
    Check {
        id: "API-006",
        name: "helm-kubeversion",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["kubeVersion of the charts of Helm releases", "Helm release 的 chart 的 kubeVersion"],
        title: ["Charts that exclude the target version", "不支持目标版本的 chart"],
        why: [
            "Helm refuses to upgrade a release whose chart excludes the cluster's version.",
            "若 chart 排除了集群版本，Helm 会拒绝升级该 release。",
        ],
        fix: [
            "upgrade to a version of the chart whose kubeVersion admits {target}",
            "请升级到 kubeVersion 允许 {target} 的 chart 版本",
        ],
        sentences: &[
            says(
                "excluded",
                "chart {chart} asks for Kubernetes {constraint}, which excludes {target}",
                "chart {chart} 要求 Kubernetes {constraint}，不含 {target}",
            ),
            Sentence {
                name: "no-constraint",
                text: [
                    "chart {chart} asks for Kubernetes `{constraint}`, which is no range of versions that can be read",
                    "chart {chart} 要求 Kubernetes `{constraint}`，无法解析为版本范围",
                ],
                fix: Some([
                    "upgrade to a version of the chart with a kubeVersion that Helm reads, such as `>=1.30.0-0`: of any other it takes no release",
                    "请升级到 kubeVersion 可被 Helm 解析（例如 `>=1.30.0-0`）的 chart 版本：否则 Helm 会拒绝该 release",
                ]),
            },
        ],
        source: "https://helm.sh/docs/topics/charts/#the-kubeversion-field",
        not_built: None,
    },
    Check {
        id: "API-007",
        name: "manifest-files",
        severity: Severity::Advice,
        scope: Scope::File,
        reads: ["YAML and JSON files, folders, standard input", "YAML 与 JSON 文件、目录、标准输入"],
        title: ["Files that cannot be judged", "无法判断的文件"],
        why: [
            "What cannot be read cannot be judged. A checker that passes over it in silence says that all is well when it is not.",
            "无法读取的内容无法判断。默默跳过会造成一切正常的假象。",
        ],
        fix: ["correct the file at that line, or leave it out with --exclude", "请修正该行，或用 --exclude 排除该文件"],
        sentences: &[
            says("shape", "no API server takes it: {why}", "API server 不接受它：{why}"),
            says("syntax", "it is neither YAML nor JSON: {why}", "既不是 YAML 也不是 JSON：{why}"),
            Sentence {
                name: "template",
                text: ["it is a template that was not rendered", "这是未渲染的模板"],
                fix: Some([
                    "render it and check that: helm template CHART | shiplock check -f - --to {target}",
                    "请渲染后再检查：helm template CHART | shiplock check -f - --to {target}",
                ]),
            },
            says("encoding", "it is not text in UTF-8 or UTF-16", "不是 UTF-8 或 UTF-16 文本"),
            says("incomplete", "an object has no {key}", "对象缺少 {key}"),
            says(
                "bounds",
                "it is nested deeper, or refers to itself more often, than can be meant",
                "嵌套过深或自我引用过多",
            ),
            says("unreadable", "it cannot be read: {why}", "无法读取：{why}"),
            Sentence {
                name: "nothing",
                text: [
                    "there is no Kubernetes object in it, so that nothing was judged",
                    "其中没有 Kubernetes 对象，因此没有判断任何内容",
                ],
                fix: Some([
                    "see whether it is what you meant; of a pipe, whether its first command failed (set -o pipefail)",
                    "请确认所给的正是您要检查的内容；若来自管道，请确认其第一条命令没有失败（set -o pipefail）",
                ]),
            },
        ],
        source: "https://yaml.org/spec/1.2.2/",
        not_built: None,
    },
    Check {
        id: "API-008",
        name: "requested-deprecated-metric",
        severity: Severity::Advice,
        scope: Scope::ControlPlane,
        reads: [
            "apiserver_requested_deprecated_apis of every API server",
            "每个 API server 的 apiserver_requested_deprecated_apis",
        ],
        title: ["Requests to deprecated APIs that API servers counted", "API server 统计到的弃用 API 请求"],
        why: [
            "Clients that only read leave no trace in objects. Each API server remembers since its start which deprecated versions were asked for, but not by whom.",
            "只读客户端不会在对象上留下痕迹。每个 API server 会记住启动以来被请求过的弃用版本，但不记录请求者。",
        ],
        fix: [
            "find the caller in the audit log (annotation k8s.io/deprecated): shiplock check --audit-log FILE, then move it to {successor}",
            "请在审计日志中查找调用方（注解 k8s.io/deprecated）：shiplock check --audit-log FILE，并改用 {successor}",
        ],
        sentences: &[
            Sentence { name: "requested", text: REQUESTED, fix: None },
            Sentence { name: "requested-no-successor", text: REQUESTED, fix: ASK_NO_MORE },
            Sentence { name: "requested-since-start", text: REQUESTED_SINCE_START, fix: None },
            Sentence { name: "requested-since-start-no-successor", text: REQUESTED_SINCE_START, fix: ASK_NO_MORE },
        ],
        source: "https://kubernetes.io/docs/reference/instrumentation/metrics/ (apiserver_requested_deprecated_apis)",
        not_built: None,
    },
    Check {
        id: "API-009",
        name: "audit-log-callers",
        severity: Severity::AdviceUnlessStrict,
        scope: Scope::AuditLog,
        reads: ["lines of the audit log with k8s.io/deprecated", "审计日志中带有 k8s.io/deprecated 的行"],
        title: ["Who calls deprecated APIs, from the audit log", "审计日志中的弃用 API 调用方"],
        why: [
            "Only the audit log names the caller: user, user agent, verb, address and time.",
            "只有审计日志能指出调用方：用户、客户端、动作、地址和时间。",
        ],
        fix: [
            "upgrade whatever uses the account {user} (user agent: {agent}) to a version that uses {successor}",
            "请将使用账号 {user} 的程序（user agent：{agent}）升级到使用 {successor} 的版本",
        ],
        sentences: &[
            Sentence { name: "called", text: CALLED, fix: None },
            Sentence { name: "called-no-successor", text: CALLED, fix: DO_WITHOUT },
            Sentence { name: "called-deprecated", text: CALLED_DEPRECATED, fix: None },
            Sentence { name: "called-deprecated-no-successor", text: CALLED_DEPRECATED, fix: DO_WITHOUT },
            Sentence {
                name: "empty",
                text: ["the audit log holds no event", "审计日志中没有任何事件"],
                fix: Some([
                    "give the log of some days: --audit-log-path of the API servers names it",
                    "请提供数天的日志：API server 的 --audit-log-path 指明其位置",
                ]),
            },
            Sentence {
                name: "unreadable",
                text: ["line {line} of the audit log cannot be read: {why}", "无法读取审计日志第 {line} 行：{why}"],
                fix: Some([
                    "give a log of the JSON format (--audit-log-format=json), or what an audit webhook was sent, one event or list a line",
                    "请提供 JSON 格式的日志（--audit-log-format=json）或审计 webhook 收到的内容，每行一个事件或列表",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/reference/labels-annotations-taints/audit-annotations/#k8s-io-deprecated",
        not_built: None,
    },
    Check {
        id: "API-010",
        name: "removed-kind-no-successor",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["objects of kinds that the target drops without a successor", "目标版本移除且没有替代的类型的对象"],
        title: ["Kinds that go away without a successor", "被移除且没有替代的类型"],
        why: [
            "Such objects lose their effect with the upgrade, such as PodSecurityPolicies at 1.25: pods that they restricted are restricted no longer.",
            "此类对象在升级后失效，例如 1.25 中的 PodSecurityPolicy：原本受限的 pod 将不再受限。",
        ],
        fix: [
            "replace what they do, save and delete them, then upgrade: kubectl get {resource} -A -o yaml > FILE && kubectl delete -f FILE; {guide}",
            "请先用其他方式替代，保存并删除后再升级：kubectl get {resource} -A -o yaml > FILE && kubectl delete -f FILE；{guide}",
        ],
        sentences: &[
            says(
                "objects",
                "the cluster holds {count:object|objects} of {api}, such as {names}; the kind is not served from {since} on and nothing takes its place",
                "集群中有 {count} 个 {api} 对象，例如 {names}；该类型自 {since} 起不再提供且没有替代",
            ),
            says(
                "counted",
                "API servers count {count:object|objects} of {api}, without their names; the kind is not served from {since} on and nothing takes its place",
                "API server 统计到 {count} 个 {api} 对象，名称未知；该类型自 {since} 起不再提供且没有替代",
            ),
        ],
        source: "https://kubernetes.io/docs/reference/using-api/deprecation-guide/#psp-v125",
        not_built: None,
    },
    Check {
        id: "API-011",
        name: "alpha-api-objects",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["objects of alpha versions that the target does not serve", "目标版本不再提供的 alpha 版本的对象"],
        title: ["Objects of alpha versions that go away", "即将移除的 alpha 版本对象"],
        why: [
            "Alpha versions change without migration: objects that are stored in one that goes away can become unreadable.",
            "alpha 版本变更时不提供迁移：以其存储的对象可能无法再读取。",
        ],
        fix: [
            "save and delete them: kubectl get {resource} -A -o yaml > FILE && kubectl delete -f FILE; upgrade, then write the file as {successor} and create them anew",
            "请保存并删除：kubectl get {resource} -A -o yaml > FILE && kubectl delete -f FILE；升级后将该文件改写为 {successor} 并重新创建",
        ],
        sentences: &[
            Sentence { name: "objects", text: ALPHA_OBJECTS, fix: None },
            Sentence { name: "objects-no-successor", text: ALPHA_OBJECTS, fix: ALPHA_GONE },
            Sentence { name: "counted", text: ALPHA_COUNTED, fix: None },
            Sentence { name: "counted-no-successor", text: ALPHA_COUNTED, fix: ALPHA_GONE },
        ],
        source: "https://kubernetes.io/docs/reference/using-api/deprecation-policy/",
        not_built: None,
    },
    Check {
        id: "API-012",
        name: "component-config-api",
        severity: Severity::Blocking,
        scope: Scope::Any,
        reads: [
            "apiVersion of configuration files of kubeadm, scheduler and audit, of kubeadm's ConfigMap, and of plugins by which users of a kubeconfig log in",
            "kubeadm、scheduler、审计配置文件、kubeadm 的 ConfigMap，以及 kubeconfig 中用户登录插件的 apiVersion",
        ],
        title: ["Configuration files of components", "组件配置文件"],
        why: [
            "A component that is given a configuration of a version that it does not know does not start; kubeadm stops, and no client logs in by such a plugin.",
            "组件若得到其不认识的配置版本将无法启动；kubeadm 会中止，客户端也无法通过此类插件登录。",
        ],
        fix: ["write it as {successor} before the component is replaced", "请在替换组件前改写为 {successor}"],
        sentences: &[
            says("removed", NOT_READ[0], NOT_READ[1]),
            Sentence {
                name: "kubeadm-file",
                text: NOT_READ,
                fix: Some([
                    "write it as {successor}: kubeadm config migrate --old-config {file} --new-config FILE, by a kubeadm older than {since}; what that writes by newer ones again, until it is {successor}",
                    "请改写为 {successor}：用早于 {since} 的 kubeadm 执行 kubeadm config migrate --old-config {file} --new-config FILE；如结果还不是 {successor}，请用更新的 kubeadm 继续转换",
                ]),
            },
            Sentence {
                name: "kubeadm-uploaded",
                text: NOT_READ,
                fix: Some([
                    "upload it anew on a master, by the kubeadm that is there now and reads it: kubectl -n kube-system get configmap kubeadm-config -o jsonpath={.data.ClusterConfiguration} > FILE && kubeadm init phase upload-config kubeadm --config FILE",
                    "请在 master 上用现有的、能读取它的 kubeadm 重新上传：kubectl -n kube-system get configmap kubeadm-config -o jsonpath={.data.ClusterConfiguration} > FILE && kubeadm init phase upload-config kubeadm --config FILE",
                ]),
            },
            Sentence {
                name: "login",
                text: [
                    "a login by a plugin that speaks {api}, which no client takes from {since} on",
                    "通过使用 {api} 的插件登录，自 {since} 起客户端不再支持",
                ],
                fix: Some([
                    "take a release of the plugin that speaks {successor}, and write that as apiVersion of the user's exec, with interactiveMode: IfAvailable",
                    "请使用支持 {successor} 的插件版本，将其写为该用户 exec 的 apiVersion，并设置 interactiveMode: IfAvailable",
                ]),
            },
        ],
        source: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-scheduling/785-scheduler-component-config-api",
        not_built: None,
    },
    Check {
        id: "API-014",
        name: "knowledge-horizon",
        severity: Severity::Blocking,
        scope: Scope::Any,
        reads: ["the table of API lifecycles that is compiled in", "内置的 API 生命周期表"],
        title: ["Whether the target is known", "目标版本是否已知"],
        why: [
            "Of a release that came after this build nothing is known. Then nothing can be called ready, and nobody can accept it.",
            "对晚于本程序的版本一无所知，因此不能判定为就绪，也不能接受。",
        ],
        fix: ["use a newer build of shiplock", "请使用更新的 shiplock"],
        sentences: &[
            says(
                "beyond",
                "this build knows Kubernetes up to {newest}; {target} is beyond it",
                "本程序只了解到 Kubernetes {newest}；{target} 超出范围",
            ),
            Sentence {
                name: "before",
                text: [
                    "this build knows what Kubernetes serves from {oldest} on; {target} is before it",
                    "本程序只了解 Kubernetes {oldest} 及以后提供的 API；{target} 早于此",
                ],
                fix: Some(["ask about a version from {oldest} on", "请指定 {oldest} 或更新的版本"]),
            },
        ],
        source: "https://kubernetes.io/releases/",
        not_built: None,
    },
    Check {
        id: "API-015",
        name: "deprecated-fields",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["Services, pods, Ingresses", "Service、pod、Ingress"],
        title: ["Fields that are deprecated", "已弃用的字段"],
        why: [
            "What a release does not heed any more is passed over without a word: a profile is not applied, a pod finds no node.",
            "新版本不再识别的字段会被悄然忽略：安全配置不生效，pod 找不到节点。",
        ],
        fix: ["use a load balancer or Gateway API in their place", "请改用负载均衡或 Gateway API"],
        sentences: &[
            says(
                "external-ips",
                "it uses externalIPs, which are deprecated since 1.36: whoever may write Services can take over traffic with them",
                "使用了自 1.36 起弃用的 externalIPs：能写 Service 的人可借此劫持流量",
            ),
            Sentence {
                name: "topology-keys",
                text: [
                    "it has topologyKeys, which 1.22 took away: its traffic goes to the pods of all nodes",
                    "使用了 1.22 移除的 topologyKeys：其流量会发往所有节点的 pod",
                ],
                fix: Some([
                    "take topologyKeys out, and use spec.trafficDistribution where traffic should stay near",
                    "请移除 topologyKeys；如需就近转发请使用 spec.trafficDistribution",
                ]),
            },
            Sentence {
                name: "ingress-class",
                text: [
                    "it names its class in the annotation kubernetes.io/ingress.class, which is deprecated since 1.18",
                    "它用自 1.18 起弃用的注解 kubernetes.io/ingress.class 指定类别",
                ],
                fix: Some([
                    "make an IngressClass for its controller if there is none, name it in spec.ingressClassName, and take the annotation out",
                    "请为其控制器创建 IngressClass（若没有），在 spec.ingressClassName 中引用，并移除该注解",
                ]),
            },
            Sentence {
                name: "seccomp",
                text: [
                    "its pods have the annotation {name}, which 1.27 and newer do not heed",
                    "其 pod 带有注解 {name}，1.27 及以上版本不再识别",
                ],
                fix: Some(["set securityContext.seccompProfile", "请设置 securityContext.seccompProfile"]),
            },
            Sentence {
                name: "apparmor",
                text: [
                    "its pods have the annotation {name}, which is deprecated since 1.30",
                    "其 pod 带有自 1.30 起弃用的注解 {name}",
                ],
                fix: Some(["set securityContext.appArmorProfile", "请设置 securityContext.appArmorProfile"]),
            },
            Sentence {
                name: "master-label",
                text: [
                    "its pods ask for nodes with the label {name}, which kubeadm takes away from 1.24 on",
                    "其 pod 要求节点带有标签 {name}，kubeadm 自 1.24 起移除该标签",
                ],
                fix: Some([
                    "ask for node-role.kubernetes.io/control-plane",
                    "请改用 node-role.kubernetes.io/control-plane",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/concepts/services-networking/service/#external-ips",
        not_built: None,
    },
];
