//! What went wrong, for the person who must act: a stable code, typed parameters, a sentence and a fix in
//! each language.
//!
//! The sentences live here and nowhere else, so that CLI, console, events and notifications say the same.
//! A page `docs/errors/CODE.md` tells more about each code; a test holds the two together.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::language::Language;

/// What is known of a code without an occurrence of it.
#[derive(Clone, Copy, Debug)]
pub struct CodeText {
    /// The HTTP status that the API answers with.
    pub http_status: u16,
    /// The sentence, with `{parameters}`: English, Chinese.
    pub sentence: [&'static str; 2],
    /// What to do next, with `{parameters}`: English, Chinese.
    pub fix: [&'static str; 2],
}

macro_rules! codes {
    ($($code:ident $name:ident $status:literal { $en:literal $zh:literal fix $fix_en:literal $fix_zh:literal })*) => {
        /// A stable code of a problem. A code is never given another meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {$(
            #[doc = $en]
            $name,
        )*}
        impl Code {
            /// Every code, in order.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];
            /// The text that people and programs see, such as `UPG0102`.
            pub fn id(self) -> &'static str { match self {$(Code::$name => stringify!($code),)*} }
            /// The code with this id, upper or lower case.
            pub fn from_id(id: &str) -> Option<Code> {
                Self::ALL.iter().copied().find(|code| code.id().eq_ignore_ascii_case(id))
            }
            /// The sentence, fix and status of this code.
            pub fn text(self) -> CodeText { match self {$(
                Code::$name => CodeText { http_status: $status, sentence: [$en, $zh], fix: [$fix_en, $fix_zh] },
            )*} }
        }
    };
}

codes! {
    UPG0101 NotAVersion 400 {
        "`{text}` is not a Kubernetes version" "`{text}` 不是 Kubernetes 版本号"
        fix "give a minor such as 1.36 or a full version such as v1.36.3" "请给出次版本（如 1.36）或完整版本（如 v1.36.3）" }
    UPG0102 VersionNotInCatalogue 422 {
        "version {version} is not in the catalogue; it holds {known}" "版本目录中没有 {version}；现有 {known}"
        fix "choose one of those, or give a newer catalogue to the server with --catalogue FILE" "请选择其中之一，或用 --catalogue FILE 给服务端提供更新的版本目录" }
    UPG0103 Downgrade 422 {
        "{subject} runs {from}; going back to {to} is not an upgrade" "{subject} 当前为 {from}；退回 {to} 不是升级"
        fix "choose a version that is newer than what runs" "请选择比当前更新的版本" }
    UPG0104 NoEdge 422 {
        "the upgrade graph has no edge from {from} to {to}; the way is {path}" "升级图中没有从 {from} 到 {to} 的边；路径为 {path}"
        fix "upgrade one hop after the other: shiplock plan CLUSTER --to {next}" "请逐级升级：shiplock plan CLUSTER --to {next}" }
    UPG0105 KubeletNewerThanApiServer 422 {
        "kubelet {kubelet} on {nodes} would be newer than API server {api_server}" "节点 {nodes} 的 kubelet {kubelet} 会比 API server {api_server} 更新"
        fix "upgrade the control plane first; a kubelet is never newer than any API server that it talks to" "请先升级控制面；kubelet 不得比它所连接的任何 API server 更新" }
    UPG0106 SkewTooWide 422 {
        "kubelet {kubelet} on {nodes} of pool {pool} would be more than {allowed} minors older than API server {api_server}" "节点池 {pool} 中节点 {nodes} 的 kubelet {kubelet} 将比 API server {api_server} 旧超过 {allowed} 个次版本"
        fix "upgrade that pool first" "请先升级该节点池" }
    UPG0107 NothingToDo 422 {
        "nothing to do: {subject} already runs {version}" "无需升级：{subject} 已是 {version}"
        fix "choose a newer version, or other pools" "请选择更新的版本或其他节点池" }
    UPG0108 PoolUnknown 422 {
        "cluster {cluster} has no node pool {pool}; it has {known}" "集群 {cluster} 没有节点池 {pool}；现有 {known}"
        fix "name one of those with --pool, or see `shiplock cluster show {cluster}`" "请用 --pool 指定其中之一，或查看 `shiplock cluster show {cluster}`" }
    UPG0109 NodeUnknown 422 {
        "cluster {cluster} has no worker node {node}" "集群 {cluster} 没有工作节点 {node}"
        fix "see the nodes with `kubectl get nodes`" "请用 `kubectl get nodes` 查看节点" }
    UPG0110 ControlPlaneNotSupported 422 {
        "only node pools are to be upgraded, but the control plane runs {from} and {to} was asked" "仅选择了升级节点池，但控制面为 {from}，目标为 {to}"
        fix "plan without --node-pools-only: the control plane goes first" "请不加 --node-pools-only 重新规划：控制面须先升级" }
    UPG0111 BelowSupportedRange 422 {
        "cluster version {version} is below the supported range, which begins at {oldest}" "集群版本 {version} 低于支持范围（自 {oldest} 起）"
        fix "bring the cluster to {oldest} with the tools that made it, then come back" "请先用原有工具将集群升级到 {oldest}" }
    UPG0112 NoWorkers 422 {
        "the choice selects no worker node" "所选范围内没有工作节点"
        fix "choose a pool that has nodes" "请选择有节点的节点池" }
    UPG0113 InstallNotSupported 422 {
        "{component} on node {node} is installed as {method}, which this build cannot replace" "节点 {node} 上的 {component} 以 {method} 方式安装，本版本无法替换"
        fix "upgrade {component} on {node} with its package manager, or leave the node out with --exclude-node {node}" "请用包管理器升级 {node} 上的 {component}，或用 --exclude-node {node} 排除该节点" }
    UPG0114 BadOption 400 {
        "option {option} cannot be `{value}`: {why}" "选项 {option} 不能为 `{value}`：{why}"
        fix "see the allowed values with --help" "请用 --help 查看允许的取值" }
    UPG0115 ControlPlaneRefused 422 {
        "the control plane of cluster {cluster} cannot be upgraded in place: {why}" "无法就地升级集群 {cluster} 的控制面：{why}"
        fix "mend what is named, or upgrade the control plane with the tools that made it and then the pools with --node-pools-only" "请排除所述原因，或用原有工具升级控制面，再用 --node-pools-only 升级节点池" }
    UPG0116 SingleMaster 409 {
        "the cluster has one master, {node}: its API will not answer for about {seconds} s while that master is upgraded" "集群只有一个控制面节点 {node}：升级该节点期间 API 约有 {seconds} 秒无响应"
        fix "workloads go on running; accept it with --accept CP-003" "工作负载会继续运行；用 --accept CP-003 接受" }
    UPG0117 HandEdited 409 {
        "{path} on node {node} was edited by hand, and the upgrade would lose the edits" "节点 {node} 上的 {path} 被手工修改过，升级会丢失这些修改"
        fix "give the edits as kubeadm patches (--kubeadm-patches FOLDER) or put them into ConfigMap kubeadm-config (kubelet-config for the kubelet's configuration), or let them go with --accept CP-008 (--accept NODE-007 for the kubelet's)" "请以 kubeadm patches（--kubeadm-patches FOLDER）提供这些修改，或写入 ConfigMap kubeadm-config（kubelet 配置写入 kubelet-config），或用 --accept CP-008 放弃（kubelet 配置用 --accept NODE-007）" }
    UPG0118 RollbackTooLate 409 {
        "upgrade {upgrade} cannot be taken back any more: its stage {stage} has begun" "升级 {upgrade} 已不能回退：其阶段 {stage} 已经开始"
        fix "go forward: mend what is wrong and continue, or upgrade to a newer patch; nothing was changed" "请继续向前：修复问题后继续，或升级到更新的补丁版本；未做任何更改" }
    UPG0119 RollbackRefused 409 {
        "upgrade {upgrade} cannot be taken back: {why}" "升级 {upgrade} 不能回退：{why}"
        fix "mend what is named, then run `shiplock rollback {upgrade}` again; nothing was changed" "请排除所述原因，再运行 `shiplock rollback {upgrade}`；未做任何更改" }
    UPG0120 RollbackNotNewest 409 {
        "upgrade {upgrade} is not the newest of its cluster: {newest} came after it" "升级 {upgrade} 不是该集群最新的升级：其后还有 {newest}"
        fix "only the newest upgrade can be taken back; whether it still can: shiplock rollback {newest} --dry-run" "只能回退最新的升级；查看其是否仍可回退：shiplock rollback {newest} --dry-run" }
    UPG0121 ObjectsOfNewApis 409 {
        "objects of {api}, which only the newer version serves ({count}): {names}" "有 {count} 个 {api} 对象，仅新版本提供该 API：{names}"
        fix "the older version shows none of them and nothing acts on them; delete them first, or accept it with --accept CP-015" "旧版本不显示这些对象，也不会处理它们；请先删除，或用 --accept CP-015 接受" }
    UPG0122 NewApisUnknown 409 {
        "whether there are objects that only the newer version serves could not be read from cluster {cluster}" "无法从集群 {cluster} 读取是否存在仅新版本提供的对象"
        fix "mend the cause and run the command again, or accept that they may be hidden with --accept CP-015" "请排除原因后重新运行，或用 --accept CP-015 接受它们可能不可见" }
    UPG0123 RollbackNeedsCluster 503 {
        "upgrade {upgrade} cannot be taken back from here: the API of cluster {cluster} does not answer, and {node} is its only master" "无法从此处回退升级 {upgrade}：集群 {cluster} 的 API 无响应，而 {node} 是其唯一的控制面节点"
        fix "mend the API and run the command again, or put the master back by hand, as root on {node}: systemctl stop shiplock-agent; shiplock-agent restore-control-plane --upgrade {upgrade}" "请先恢复 API 再运行该命令；或以 root 在 {node} 上手工恢复：systemctl stop shiplock-agent; shiplock-agent restore-control-plane --upgrade {upgrade}" }
    UPG0124 EditsUnknown 409 {
        "whether {path} on node {node} was edited by hand could not be seen" "无法确定节点 {node} 上的 {path} 是否被手工修改过"
        fix "mend the cause, then check again; until then it counts as edited" "请排除原因后重新检查；在此之前视为已修改" }
    UPG0125 RollbackLeft 409 {
        "nothing of upgrade {upgrade} was taken back: the command was left before the upgrade had come to rest" "升级 {upgrade} 未回退任何内容：命令在升级停下之前被中断"
        fix "take it back when it is paused: shiplock rollback {upgrade}; or go on: shiplock continue {upgrade}" "待其暂停后回退：shiplock rollback {upgrade}；或继续升级：shiplock continue {upgrade}" }
    UPG0126 RollbackBlocked 409 {
        "a way back from upgrade {upgrade} would be blocked, so the upgrade was not cancelled" "升级 {upgrade} 的回退会被检查拦下，因此未取消该升级"
        fix "handle what is named, or let it pass with --accept and its name, and run the command again; or go on: shiplock continue {upgrade}" "请处理所列问题，或用 --accept 加其名称放行，然后重新运行；或继续升级：shiplock continue {upgrade}" }
    UPG0127 NothingToTakeBack 422 {
        "nothing of upgrade {upgrade} is to be taken back: every master of cluster {cluster} runs {version} already" "升级 {upgrade} 没有可回退的内容：集群 {cluster} 的所有控制面节点已是 {version}"
        fix "nothing to do; a rollback takes back masters alone, node pools stay as they are" "无需处理；回退仅针对控制面节点，节点池保持不变" }
    UPG0140 AddonEdited 409 {
        "{object} was changed by {by}, and the upgrade of add-ons would lose that: {fields}" "{object} 被 {by} 修改过，升级插件会丢失这些修改：{fields}"
        fix "keep a copy of what you need to put back afterwards, and let it go with --accept ADD-008" "请备份升级后需要恢复的内容，并用 --accept ADD-008 放弃" }
    UPG0150 CheckFinding 409 {
        "{text}" "{text}"
        fix "{fix}" "{fix}" }
    UPG0151 ReportUnknown 404 {
        "there is no report {report}" "没有报告 {report}"
        fix "see those that are kept: shiplock reports list CLUSTER" "请查看保留的报告：shiplock reports list CLUSTER" }
    UPG0152 AcceptanceUnknown 404 {
        "cluster {cluster} has no acceptance {acceptance}" "集群 {cluster} 没有接受项 {acceptance}"
        fix "see those that are there: shiplock acceptances list {cluster}" "请查看现有接受项：shiplock acceptances list {cluster}" }
    UPG0201 KubeconfigUnreadable 400 {
        "kubeconfig {path} cannot be used" "无法使用 kubeconfig {path}"
        fix "check it with `kubectl --kubeconfig {path} version`" "请用 `kubectl --kubeconfig {path} version` 检查" }
    UPG0202 KubeconfigUnsafe 400 {
        "user or cluster `{entry}` of the kubeconfig uses `{feature}`, which is refused" "kubeconfig 中的 `{entry}` 使用了被拒绝的 `{feature}`"
        fix "use a client certificate or a ServiceAccount token, or allow it by name with --allow {feature}" "请使用客户端证书或 ServiceAccount 令牌，或用 --allow {feature} 明确允许" }
    UPG0203 ClusterUnreachable 502 {
        "the API server {server} cannot be reached" "无法连接 API server {server}"
        fix "check address, network and certificate; nothing was changed" "请检查地址、网络和证书；未做任何更改" }
    UPG0204 ClusterForbidden 403 {
        "the cluster refuses to {verb} {resource}" "集群拒绝对 {resource} 执行 {verb}"
        fix "grant the permission (see `shiplock cluster role`), then try again" "请授予权限（见 `shiplock cluster role`）后重试" }
    UPG0205 ClusterAnswer 502 {
        "the API server answered {verb} {resource} with an error" "API server 对 {verb} {resource} 返回错误"
        fix "read the cause below; the request is repeated where that is safe" "请阅读下面的原因；安全时会自动重试" }
    UPG0206 ClusterChanged 409 {
        "{cluster} is another cluster now: its identity was {expected} and is {found}" "{cluster} 已是另一个集群：标识原为 {expected}，现为 {found}"
        fix "check that the kubeconfig is the one of {cluster}; only where the cluster itself was built anew: shiplock cluster remove {cluster}, which forgets its agents, then shiplock cluster add" "请确认 kubeconfig 属于 {cluster}；仅当集群本身已重建时：shiplock cluster remove {cluster}（会遗忘其 agent），再 shiplock cluster add" }
    UPG0207 ClusterUnauthorized 401 {
        "the API server {server} does not accept the credentials" "API server {server} 不接受该凭据"
        fix "give a kubeconfig whose certificate or token is valid" "请提供证书或令牌有效的 kubeconfig" }
    UPG0208 ClusterNotRead 503 {
        "cluster {cluster} has not been read since {since}" "自 {since} 起尚未读取集群 {cluster}"
        fix "it is read as soon as it answers; if this lasts, see `shiplock cluster show {cluster}`" "集群一有应答就会读取；若持续如此，请查看 `shiplock cluster show {cluster}`" }
    UPG0301 ClusterUnknown 404 {
        "no cluster {cluster} is registered" "没有注册名为 {cluster} 的集群"
        fix "see `shiplock cluster list`, or register it with `shiplock cluster add {cluster}`" "请查看 `shiplock cluster list`，或用 `shiplock cluster add {cluster}` 注册" }
    UPG0302 ClusterNameTaken 409 {
        "a cluster {cluster} is registered already" "已有名为 {cluster} 的集群"
        fix "choose another name" "请换一个名称" }
    UPG0303 ClusterRegisteredTwice 409 {
        "this is the cluster that is registered as {other}" "该集群已注册为 {other}"
        fix "use the name {other}" "请使用名称 {other}" }
    UPG0304 UpgradeActive 409 {
        "upgrade {upgrade} of this cluster is {state}; a cluster has at most one active upgrade" "该集群的升级 {upgrade} 处于 {state}；一个集群同时只能有一个升级"
        fix "see how it stands: shiplock upgrades show {upgrade}; wait for it, or end it: shiplock cancel {upgrade} (one that is at work: shiplock pause {upgrade} first)" "查看其状态：shiplock upgrades show {upgrade}；请等待其结束，或结束它：shiplock cancel {upgrade}（正在进行的先 shiplock pause {upgrade}）" }
    UPG0305 ControlNotAllowed 409 {
        "an upgrade in state {state} cannot be {control}" "状态为“{state}”的升级不能{control}"
        fix "{next}" "{next}" }
    UPG0306 Conflict 412 {
        "upgrade {upgrade} has moved on: event {expected} was expected, {found} is the newest" "升级 {upgrade} 已有变化：期望事件 {expected}，最新为 {found}"
        fix "look at it again, then repeat the request if it still fits" "请重新查看后再决定是否重试" }
    UPG0307 PlanStale 409 {
        "plan {plan} no longer fits the cluster: {what}" "计划 {plan} 已不符合集群现状：{what}"
        fix "make a new plan" "请重新制定计划" }
    UPG0308 UpgradeUnknown 404 {
        "there is no upgrade {upgrade}" "没有升级 {upgrade}"
        fix "see `shiplock upgrades list`" "请查看 `shiplock upgrades list`" }
    UPG0309 PlanUnknown 404 {
        "there is no plan {plan}" "没有计划 {plan}"
        fix "make one with `shiplock plan`" "请用 `shiplock plan` 制定" }
    UPG0310 ClusterInUse 409 {
        "cluster {cluster} has the active upgrade {upgrade}" "集群 {cluster} 有进行中的升级 {upgrade}"
        fix "end the upgrade first" "请先结束该升级" }
    UPG0311 OtherInstallation 409 {
        "another Shiplock installation ({holder}) holds the Lease of this cluster for its upgrade {upgrade} since {since}" "另一个 Shiplock 安装（{holder}）自 {since} 起为其升级 {upgrade} 持有该集群的 Lease"
        fix "let it end: this upgrade goes on by itself then; to end this one instead: shiplock cancel {waiting}; only if the other is gone for good: `kubectl -n kube-upgrade delete lease shiplock`" "请等待其结束，之后本升级会自动继续；若要改为结束本升级：shiplock cancel {waiting}；仅当另一安装已不复存在时：`kubectl -n kube-upgrade delete lease shiplock`" }
    UPG0312 StoreOlderThanCluster 409 {
        "the cluster has seen another event {cluster_event} of upgrade {upgrade} than this store, which ends at {store_event}: the store was restored from an older copy" "集群已记录的升级 {upgrade} 事件 {cluster_event} 与本存储（止于 {store_event}）不符：存储由较旧的副本恢复"
        fix "restore the newest store; only if it is lost and no other server runs on it: `kubectl -n kube-upgrade delete lease shiplock`, then what has begun is finished from what this store knows, each node is examined before it is touched, and it waits for `shiplock continue {upgrade}`" "请恢复最新的存储；仅当其已丢失且没有其他服务端在使用它时：执行 `kubectl -n kube-upgrade delete lease shiplock`，已开始的操作将从本存储所知处完成，每个节点都会先检查再处理，随后等待 `shiplock continue {upgrade}`" }
    UPG0313 LeaseLost 409 {
        "another server drives upgrade {upgrade} now (epoch {epoch})" "升级 {upgrade} 现由另一服务端驱动（epoch {epoch}）"
        fix "nothing to do: this server stopped acting" "无需处理：本服务端已停止操作" }
    UPG0314 LogUnreadable 409 {
        "event {number} of upgrade {upgrade} cannot be read by this version: {why}" "本版本无法读取升级 {upgrade} 的事件 {number}：{why}"
        fix "run the newest server; the upgrade stays as it is until then" "请使用最新的服务端；在此之前升级保持原状" }
    UPG0315 BadRequest 400 {
        "the request cannot be read: {what}" "无法读取请求：{what}"
        fix "correct it; `shiplock --help` and openapi/v1.json show the form" "请更正；格式见 `shiplock --help` 与 openapi/v1.json" }
    UPG0316 NotAbandonable 409 {
        "node {node} is not waited for, so it cannot be abandoned" "当前并未等待节点 {node}，不能放弃它"
        fix "see which nodes are waited for: shiplock upgrades show {upgrade}" "请查看等待中的节点：shiplock upgrades show {upgrade}" }
    UPG0317 LeaseEnding 409 {
        "the lease of upgrade {upgrade} (epoch {epoch}) may end before an act is done, so nothing more was sent" "升级 {upgrade} 的租约（epoch {epoch}）可能在操作完成前到期，因此未再发送任何请求"
        fix "nothing to do: whoever holds the lease goes on" "无需处理：持有租约的服务端会继续" }
    UPG0318 StoreSettled 409 {
        "the cluster forgot what a newer store had done: this store, restored from an older copy, goes on from its event {store_event} of upgrade {upgrade}" "集群已忘记较新存储所做的操作：由较旧副本恢复的本存储从升级 {upgrade} 的事件 {store_event} 继续"
        fix "look for nodes that are cordoned and marked and that this store counts as waiting (`shiplock explain UPG0318` shows how), then: shiplock continue {upgrade}" "请查找已被设为不可调度、带有标记而本存储计为等待的节点（方法见 `shiplock explain UPG0318`），然后：shiplock continue {upgrade}" }
    UPG0401 TokenRefused 401 {
        "the join token is unknown, used or expired" "加入令牌不存在、已使用或已过期"
        fix "make a new one: shiplock agent join-command CLUSTER" "请生成新的：shiplock agent join-command CLUSTER" }
    UPG0402 WrongCertificate 403 {
        "the certificate belongs to node {certificate}, the request speaks for node {claimed}" "证书属于节点 {certificate}，请求却代表节点 {claimed}"
        fix "enrol the agent on {claimed} with its own token" "请用独立的令牌在 {claimed} 上注册 agent" }
    UPG0403 StaleGeneration 409 {
        "generation {found} is older than {newest}" "代次 {found} 早于 {newest}"
        fix "nothing to do: a newer server drives this node" "无需处理：已有更新的服务端驱动该节点" }
    UPG0404 WrongMachine 409 {
        "node {node} is another machine than planned: {what} was {expected} and is {found}" "节点 {node} 已不是计划中的机器：{what} 原为 {expected}，现为 {found}"
        fix "make a new plan, which holds what is there now; where an upgrade is paused for the node, end that one first: shiplock cancel" "请重新制定计划，新计划会记录现在的状况；若有升级因该节点暂停，请先结束它：shiplock cancel" }
    UPG0405 AgentMissing 409 {
        "no agent is enrolled on node {node}" "节点 {node} 上没有注册 agent"
        fix "run on {node}: the command that `shiplock agent join-command {cluster}` prints" "请在 {node} 上运行 `shiplock agent join-command {cluster}` 输出的命令" }
    UPG0406 StepKindMissing 409 {
        "the agent on node {node} ({version}) cannot do step {kind}" "节点 {node} 的 agent（{version}）不支持步骤 {kind}"
        fix "replace the agent on {node} by this server's version, by the command that `shiplock agent join-command {cluster}` prints" "请在 {node} 上运行 `shiplock agent join-command {cluster}` 输出的命令以更新 agent" }
    UPG0407 ContactLost 503 {
        "the agent on node {node} has not been heard from since {since}" "自 {since} 起未收到节点 {node} 的 agent 的消息"
        fix "on {node}: systemctl restart shiplock-agent; then shiplock continue {upgrade}. If the machine is gone: shiplock cancel {upgrade} --abandon {node}" "在 {node} 上执行 systemctl restart shiplock-agent，然后 shiplock continue {upgrade}；若机器已不存在：shiplock cancel {upgrade} --abandon {node}" }
    UPG0408 ProtocolUnsupported 400 {
        "the agent speaks protocol {agent}, this server speaks {server}" "agent 使用协议 {agent}，服务端使用 {server}"
        fix "replace the agent by this server's version" "请将 agent 更新为服务端的版本" }
    UPG0409 PermitRefused 409 {
        "no permit: {why}" "未获许可：{why}"
        fix "nothing to do: the step is not begun" "无需处理：步骤未开始" }
    UPG0410 CertificateUnknown 401 {
        "the agent's certificate is not enrolled here" "该 agent 的证书未在此注册"
        fix "enrol the agent again with a new token" "请用新令牌重新注册 agent" }
    UPG0411 ReportNotRecorded 503 {
        "the report could not be recorded now" "暂时无法记录该报告"
        fix "nothing to do: the agent repeats it until it is taken" "无需处理：agent 会重复上报直到被接收" }
    UPG0412 MachineDiffers 403 {
        "this is not the machine of node {node}: its machine id is {claimed}, the one that is known is {known}" "这不是节点 {node} 的机器：其 machine id 为 {claimed}，已知的为 {known}"
        fix "run the join command on node {node} itself, or name the right node with --node; each machine needs a token of its own" "请在节点 {node} 上运行 join 命令，或用 --node 指定正确的节点；每台机器使用各自的令牌" }
    UPG0413 GatewayUnreachable 503 {
        "no Shiplock server answers this node at {server}" "本节点在 {server} 处得不到 Shiplock 服务端应答"
        fix "see that `shiplock serve` runs there and that this node reaches the address (firewall, routing, --agent-url of `shiplock serve`); then do the same again" "请确认 `shiplock serve` 正在运行，且本节点可以访问该地址（防火墙、路由、`shiplock serve` 的 --agent-url），然后重试" }
    UPG0414 ServerNotPinned 403 {
        "the server at {server} is not the one that the join command names: it presents {found}, not {pin}" "{server} 处的服务端不是 join 命令所指的服务端：它出示的是 {found}，而非 {pin}"
        fix "nothing was sent to it; make a new command on the right server: shiplock agent join-command CLUSTER" "未向其发送任何内容；请在正确的服务端上生成新命令：shiplock agent join-command CLUSTER" }
    UPG0415 AgentUnknown 404 {
        "cluster {cluster} has no agent on node {node} that could be removed" "集群 {cluster} 的节点 {node} 上没有可移除的 agent"
        fix "see the agents that are enrolled: shiplock agent list {cluster}" "请查看已注册的 agent：shiplock agent list {cluster}" }
    UPG0416 NodeGone 409 {
        "node {node} is gone from the cluster: it was deleted after the plan was made" "节点 {node} 已不在集群中：制定计划后它被删除"
        fix "a node that an upgrade has not begun with is left out by itself; where one holds or is paused for the node, let it join again as it was, or end the upgrade: shiplock cancel, then make a new plan for the rest" "升级会自动略过尚未开始的节点；若升级因该节点等待或暂停，请让它原样重新加入，或结束该升级：shiplock cancel，然后为其余节点重新制定计划" }
    UPG0417 AgentOfAnotherInstallation 409 {
        "the agent on this machine belongs to another Shiplock installation: to the server at {server}, as node {node} of cluster {cluster}" "本机的 agent 属于另一个 Shiplock 安装：{server} 处的服务端，为集群 {cluster} 的节点 {node}"
        fix "nothing was changed; if that installation no longer upgrades this node, run the same command with --replace" "未更改任何内容；如果该安装不再升级此节点，请加 --replace 再次运行同一命令" }
    UPG0501 ArtefactIndexUnreadable 502 {
        "the artefact index {location} cannot be read" "无法读取制品索引 {location}"
        fix "check the mirror, whose index is a file artefacts.json at its root, or name another: `shiplock cluster update NAME --mirror URL`" "请检查镜像站（索引为其根目录下的 artefacts.json），或改用其他镜像站：`shiplock cluster update NAME --mirror URL`" }
    UPG0502 ArtefactMissing 422 {
        "the mirror has no {role} for Kubernetes {version} on {architecture}" "镜像站缺少 Kubernetes {version}（{architecture}）的 {role}"
        fix "add it to the mirror and its artefacts.json" "请将其加入镜像站及 artefacts.json" }
    UPG0503 DigestMismatch 502 {
        "{path} has digest {found}, the plan has {expected}" "{path} 的摘要为 {found}，计划中为 {expected}"
        fix "find out who changed the file; put the right one back, then continue" "请查明文件被谁更改，恢复正确的文件后继续" }
    UPG0504 DiskFull 507 {
        "{path} on {subject} has {free} free, {needed} are needed" "{subject} 的 {path} 可用空间为 {free}，需要 {needed}"
        fix "free space there, then continue" "请释放空间后继续" }
    UPG0505 DownloadFailed 502 {
        "{location} cannot be downloaded to {subject}" "无法将 {location} 下载到 {subject}"
        fix "check that {subject} reaches the mirror and that the mirror has it, then continue" "请检查 {subject} 能否访问镜像站、镜像站是否有该文件，然后继续" }
    UPG0506 ProgramFailed 500 {
        "`{program}` on node {node} ended with {result}" "节点 {node} 上的 `{program}` 以 {result} 结束"
        fix "read its last lines below, mend the cause on {node}, then continue" "请阅读下面的输出，在 {node} 上排除原因后继续" }
    UPG0507 StepTimedOut 504 {
        "step {step} on {subject} was not done after {limit}" "{subject} 的步骤 {step} 在 {limit} 内未完成"
        fix "look at what it waits for, mend it, then continue" "请查看它在等待什么，排除后继续" }
    UPG0508 ReadBackMismatch 500 {
        "{component} on {subject} reports {found}, {expected} was expected" "{subject} 的 {component} 报告 {found}，应为 {expected}"
        fix "look at {component} on {subject}; the step is not called done until the running process says {expected}" "请检查 {subject} 上的 {component}；在运行进程报告 {expected} 之前不会判定完成" }
    UPG0509 RuntimeConfigurationRefused 500 {
        "the containerd configuration of node {node} cannot be migrated: {why}" "无法迁移节点 {node} 的 containerd 配置：{why}"
        fix "mend what is named in /etc/containerd/config.toml on {node} (`containerd config dump` shows how the old version reads it), then continue; the old configuration is in place" "请在 {node} 上修正 /etc/containerd/config.toml 中所述之处（`containerd config dump` 显示旧版本的读取结果），然后继续；旧配置仍在使用" }
    UPG0510 DrainTimedOut 504 {
        "node {node} was not empty after {limit}: {blockers}" "节点 {node} 在 {limit} 内未能清空：{blockers}"
        fix "remove what blocks, then continue; or plan again with another --on-drain-timeout" "请排除阻塞后继续；或以另一 --on-drain-timeout 重新规划" }
    UPG0511 ServiceNotUp 500 {
        "{service} on node {node} did not come up: {state}" "节点 {node} 上的 {service} 未能启动：{state}"
        fix "read `journalctl -u {service}` on {node}, mend the cause, then continue" "请在 {node} 上查看 `journalctl -u {service}`，排除原因后继续" }
    UPG0512 NodeNotReady 500 {
        "node {node} is not Ready: {why}" "节点 {node} 未就绪：{why}"
        fix "mend the node: kubectl describe node {node} says what its kubelet reports" "请修复节点：kubectl describe node {node} 显示其 kubelet 的状态" }
    UPG0513 Interference 409 {
        "{object} was changed by someone else: {what}" "{object} 被他人更改：{what}"
        fix "find out who changed it and why, then continue" "请查明是谁以及为何更改，然后继续" }
    UPG0514 InvariantBroken 500 {
        "a rule that must always hold does not: {what}" "必须始终成立的规则被破坏：{what}"
        fix "do not continue before you know why; report it with `shiplock upgrades show {upgrade} -o json`" "查明原因前请勿继续；请附上 `shiplock upgrades show {upgrade} -o json` 报告" }
    UPG0515 FileUnusable 500 {
        "{path} on {subject} cannot be {operation}" "无法对 {subject} 的 {path} 执行 {operation}"
        fix "see that {path} is the right path and mend what the cause names, then do the same again; an upgrade that paused: shiplock continue" "请确认路径 {path} 无误，并排除下述原因后重试；若升级已暂停：shiplock continue" }
    UPG0516 PodsUnreachable 409 {
        "the pods of node {node} have nowhere else to go" "节点 {node} 上的 Pod 无处可去"
        fix "add a node, or plan with --drain never" "请增加节点，或以 --drain never 规划" }
    UPG0517 EtcdNotWell 409 {
        "etcd on master {node} may not be touched: {why}" "不能改动控制面节点 {node} 上的 etcd：{why}"
        fix "mend what is named: put a manifest that is not there back into /etc/kubernetes/manifests; else see `etcdctl endpoint health --cluster` and `etcdctl alarm list`" "请修复所述问题：若缺少清单，请将其放回 /etc/kubernetes/manifests；否则见 `etcdctl endpoint health --cluster` 与 `etcdctl alarm list`" }
    UPG0518 ControlPlaneNotUp 500 {
        "{component} on master {node} did not come up at {version}: {state}" "控制面节点 {node} 上的 {component} 未能以 {version} 启动：{state}"
        fix "read the causes; mend what they name (a flag or a file that the new version does not know), then continue" "请阅读下面的原因并修复（新版本不认识的参数或文件），然后继续" }
    UPG0519 BackupFailed 500 {
        "etcd could not be saved from master {node}: {why}" "无法从控制面节点 {node} 备份 etcd：{why}"
        fix "mend what is named, then continue; no master is touched without a backup" "请排除所述原因后继续；没有备份不会改动任何控制面节点" }
    UPG0520 NoOtherApiServer 409 {
        "no API server but the one on master {node} is ready" "除控制面节点 {node} 外没有就绪的 API server"
        fix "mend the other masters, until one of them is ready" "请修复其他控制面节点，直到其中一个就绪" }
    UPG0521 BackupUnknown 404 {
        "there is no backup {backup}" "没有备份 {backup}"
        fix "see `shiplock backup list`; three are kept for each cluster" "请查看 `shiplock backup list`；每个集群保留三份" }
    UPG0522 BackupDamaged 500 {
        "backup {backup} cannot be read back: {why}" "备份 {backup} 无法读回：{why}"
        fix "use another one (`shiplock backup list`); look after the disk of the server, and whether its seal.key was replaced" "请使用另一份备份（`shiplock backup list`）；检查服务端的磁盘，以及 seal.key 是否被更换" }
    UPG0523 OldImageGone 409 {
        "master {node} does not have the old image {image} any more, and the mirror does not hold it" "控制面节点 {node} 上已没有旧镜像 {image}，镜像站也没有"
        fix "add the old version to the mirror, or import the image on {node} with `ctr -n k8s.io images import`, then continue; nothing was touched there" "请将旧版本加入镜像站，或在 {node} 上用 `ctr -n k8s.io images import` 导入该镜像，然后继续；该节点尚未改动" }
    UPG0524 RestoreRefused 409 {
        "the control plane of {node} is not put back by hand: {why}" "未手工恢复 {node} 的控制面：{why}"
        fix "do what is named, then run `shiplock-agent restore-control-plane` on {node} again; nothing was changed" "请按所述处理后，在 {node} 上重新运行 `shiplock-agent restore-control-plane`；未做任何更改" }
    UPG0525 Uncordoned 409 {
        "somebody else uncordoned node {node} while it was in work: new pods may land on it" "节点 {node} 在升级途中被他人恢复调度：可能有新 Pod 调度上来"
        fix "find out who uncordons nodes (an operator, an autoscaler, GitOps; the audit log names them), stop that while the upgrade is on, then continue: the node is cordoned and emptied again" "请查明是谁恢复了调度（操作者、自动伸缩或 GitOps；审计日志中有记录），并在升级期间停止该行为，然后继续：该节点会重新设为不可调度并再次排空" }
    UPG0526 CordonForgotten 409 {
        "node {node} carries a cordon of upgrade {upgrade} that this store does not know of, and pods are missing since" "节点 {node} 带有升级 {upgrade} 设置的不可调度标记，而本存储对此没有记录，且有 Pod 因此未就绪"
        fix "give the node back: kubectl uncordon {node}; it is upgraded in its turn" "请恢复该节点的调度：kubectl uncordon {node}；轮到它时会照常升级" }
    UPG0527 EvictionBrokenOff 409 {
        "an eviction of pod {pod} was admitted at {at} and broke off before the pod was told to end; PodDisruptionBudget {budgets} counts it as gone until {until}" "对 Pod {pod} 的一次驱逐在 {at} 获准，但在要求 Pod 结束之前中断；PodDisruptionBudget {budgets} 在 {until} 之前视其为已中断"
        fix "nothing: Kubernetes forgets it then, and the drain goes on by itself" "无需处理：届时 Kubernetes 会清除该记录，排空会自动继续" }
    UPG0528 FewerReadyPods 409 {
        "{workload} pods are ready in cluster {cluster}, fewer than before the upgrade{pressure}" "集群 {cluster} 的 {workload} 个 Pod 就绪，少于升级前{pressure}"
        fix "see why its pods are not ready (kubectl describe), and get them ready" "请查看其 Pod 未就绪的原因（kubectl describe），并使其就绪" }
    UPG0529 ImageGone 409 {
        "image {image} is not on node {node}: it was there, or was prefetched, and somebody removed it" "节点 {node} 上没有镜像 {image}：它原本存在或已预取，但被删除了"
        fix "import it on {node} with `ctr -n k8s.io images import` from the mirror, then continue; where a disk is more than 85 % full, the kubelet removes images that no container uses: make room first" "请在 {node} 上用 `ctr -n k8s.io images import` 从镜像站导入，然后继续；磁盘使用率超过 85 % 时 kubelet 会删除未使用的镜像：请先释放空间" }
    UPG0530 WebhookRefuses 409 {
        "webhook {webhook} does not let the static pods of master {node} into the API: {why}" "webhook {webhook} 不允许控制面节点 {node} 的静态 Pod 进入 API：{why}"
        fix "mend the webhook (its Service must answer, its certificate needs a subject alternative name), or take namespace kube-system out of its namespaceSelector" "请修复该 webhook（其 Service 须可用，证书须有 SAN），或在其 namespaceSelector 中排除命名空间 kube-system" }
    UPG0531 PlegNotHealthy 500 {
        "PLEG of node {node} is not healthy: {why}" "节点 {node} 的 PLEG 不健康：{why}"
        fix "restart the runtime (systemctl restart containerd) or reboot {node}" "请在 {node} 上重启运行时（systemctl restart containerd）或重启节点" }
    UPG0601 StoreInUse 500 {
        "{path} is open in another process" "{path} 已被另一进程打开"
        fix "stop the other server; one process at a time may use the file" "请停止另一服务端；同一时间只允许一个进程使用该文件" }
    UPG0602 StoreFailed 500 {
        "the store cannot {operation}" "存储无法执行 {operation}"
        fix "check disk space and permissions of the data directory; where the cause says that the file is malformed or no database, it is damaged: restore a copy; nothing acts until the store answers" "请检查数据目录的空间和权限；若原因显示文件损坏（malformed 或不是数据库），请恢复副本；存储恢复前不会有任何操作" }
    UPG0603 StoreNewer 500 {
        "the store was written by a newer version (schema {found}, this version knows {known})" "存储由更新的版本写入（schema {found}，本版本支持 {known}）"
        fix "run the newer version" "请使用更新的版本" }
    UPG0701 Unauthorized 401 {
        "the token is missing or not valid" "令牌缺失或无效"
        fix "set SHIPLOCK_TOKEN, or use the server's local socket" "请设置 SHIPLOCK_TOKEN，或使用服务端的本地套接字" }
    UPG0702 NotFound 404 {
        "there is nothing at {path}" "{path} 不存在"
        fix "see openapi/v1.json for what there is" "可用路径见 openapi/v1.json" }
    UPG0703 ServerUnreachable 503 {
        "no Shiplock server answers at {server}" "{server} 处没有 Shiplock 服务端应答"
        fix "start one with `shiplock serve`, or name another with --server; where its certificate is of an authority of your own, name that with SHIPLOCK_CA_FILE" "请用 `shiplock serve` 启动，或用 --server 指定；其证书由自有机构签发时，请用 SHIPLOCK_CA_FILE 指定该机构的证书" }
    UPG0704 TooLarge 413 {
        "the request is larger than {limit}" "请求超过 {limit}"
        fix "send less" "请缩小请求" }
    UPG0705 Internal 500 {
        "something went wrong inside Shiplock: {what}" "Shiplock 内部错误：{what}"
        fix "this is our bug: report it with the request id" "这是我们的缺陷：请附请求编号报告" }
    UPG0706 AnswerUnreadable 502 {
        "the server {server} answered {request} with something that this version of shiplock cannot read" "服务端 {server} 对 {request} 的应答无法被本版本的 shiplock 读取"
        fix "use a shiplock of the server's version; `shiplock version` shows both" "请使用与服务端版本一致的 shiplock；`shiplock version` 显示两者的版本" }
    UPG0707 CannotListen 500 {
        "nothing can listen on {address} ({option}): {why}" "无法在 {address} 上监听（{option}）：{why}"
        fix "end what holds it (`ss -ltnp` names it), or choose another address with {option}" "请结束占用该地址的程序（用 `ss -ltnp` 查看），或用 {option} 选择其他地址" }
    UPG0801 NoActiveUpgrade 404 {
        "no upgrade is active" "没有进行中的升级"
        fix "name one: shiplock upgrades list shows all" "请指明一个：shiplock upgrades list 列出全部" }
    UPG0802 SeveralActiveUpgrades 409 {
        "{count} upgrades are active: {upgrades}" "有 {count} 个进行中的升级：{upgrades}"
        fix "name the one that you mean" "请指明其中一个" }
    UPG0803 ConfirmationNeeded 400 {
        "{action} needs a confirmation, and there is no terminal to ask on" "{action} 需要确认，而当前没有可供询问的终端"
        fix "read what it will do, then add --yes" "请先确认其影响，然后加上 --yes" }
    UPG0804 ConfirmationDiffers 400 {
        "`{typed}` was typed, `{expected}` was asked for; nothing was changed" "输入的是 `{typed}`，应为 `{expected}`；未做任何更改"
        fix "run the command again and type {expected}" "请重新运行命令并输入 {expected}" }
    UPG0805 ConfigurationUnreadable 400 {
        "the configuration file {path} cannot be read" "无法读取配置文件 {path}"
        fix "mend what the cause names; the file holds one line: server = \"https://HOST:PORT\"" "请按原因修正；文件只需一行：server = \"https://HOST:PORT\"" }
    UPG0806 BadCommandLine 400 {
        "the command line cannot be understood: {what}" "无法理解命令行：{what}"
        fix "see `{command} --help`" "请查看 `{command} --help`" }
    UPG0807 NoLogs 404 {
        "upgrade {upgrade} has not collected the logs of this node; nodes with logs: {nodes}" "升级 {upgrade} 没有收集该节点的日志；有日志的节点：{nodes}"
        fix "name one of these nodes; logs are collected when a step on a node fails for good" "请指明其中一个节点；仅当节点上的步骤最终失败时才收集日志" }
    UPG0808 TooFewFiles 500 {
        "this process may open {limit} files, and {needed} are needed" "本进程最多可打开 {limit} 个文件，需要 {needed} 个"
        fix "raise the limit, then do the same again: ulimit -n {needed}" "请提高限制后重试：ulimit -n {needed}" }
    UPG0841 SnapshotUnreadable 400 {
        "the snapshot {path} cannot be read: {why}" "无法读取快照 {path}：{why}"
        fix "take it anew: shiplock snapshot -o FILE" "请重新生成：shiplock snapshot -o FILE" }
    UPG0842 SnapshotFormat 400 {
        "the snapshot {path} has format {found}, this shiplock reads {known}" "快照 {path} 的格式为 {found}，本版本读取 {known}"
        fix "take it anew with this version: shiplock snapshot -o FILE" "请用本版本重新生成：shiplock snapshot -o FILE" }
    UPG0843 SnapshotRefused 400 {
        "the snapshot describes no cluster: {what}: {why}" "快照描述的不是一个集群：{what}：{why}"
        fix "take it anew; a snapshot is not made to be edited" "请重新生成；快照不应手工编辑" }
    UPG0844 SnapshotWithoutCopy 400 {
        "the snapshot holds no copy of nodes and pods to rehearse on" "快照中没有可供演练的节点和 Pod 副本"
        fix "take it with `shiplock snapshot`, with an account that may list nodes, pods, workloads, budgets and volumes" "请用 `shiplock snapshot` 生成，账号须能列出节点、Pod、工作负载、PDB 和卷" }
    UPG0845 SnapshotVersionUnknown 422 {
        "cluster version {version} is outside the catalogue, so the upgrade itself cannot be rehearsed" "集群版本 {version} 不在版本目录内，无法演练升级本身"
        fix "what is answered: which drains block, which workloads are hurt, which pods find no place; for the rest use a shiplock whose catalogue holds the version" "仍可回答：哪些排空会阻塞、哪些工作负载受影响、哪些 Pod 无处可去；其余请使用版本目录包含该版本的 shiplock" }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.id())
    }
}

/// A text, and not the list of today's codes: a reader must bear one that it does not know.
#[cfg(feature = "schema")]
impl schemars::JsonSchema for Code {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Code".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^UPG[0-9]{4}$" })
    }
}
impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}
impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?;
        Self::from_id(&id).ok_or_else(|| de::Error::custom(format!("unknown code `{id}`")))
    }
}

/// One occurrence of a [`Code`], with its parameters and what caused it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// What kind of problem it is.
    pub code: Code,
    /// The values for the `{parameters}` of the code's sentence and fix.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// What lies beneath, outermost first: texts of other programs, never parsed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

/// The most characters of one cause that are kept; the end of a program's output tells most.
const CAUSE_CHARACTERS_MAX: usize = 2_000;
/// The most causes that are kept.
const CAUSES_MAX: usize = 16;

impl Problem {
    /// A problem without parameters yet.
    pub fn new(code: Code) -> Self {
        Self { code, parameters: BTreeMap::new(), causes: Vec::new() }
    }

    /// Adds one parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.parameters.insert(name.to_owned(), value.to_string());
        self
    }

    /// Adds one cause. Long causes keep their end, since that is where programs say what went wrong.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        if self.causes.len() < CAUSES_MAX {
            let text = cause.to_string();
            let skip = text.chars().count().saturating_sub(CAUSE_CHARACTERS_MAX);
            self.causes.push(if skip == 0 {
                text
            } else {
                format!("…{}", text.chars().skip(skip).collect::<String>())
            });
        }
        self
    }

    /// Adds an error and everything beneath it as causes.
    #[must_use]
    pub fn because(mut self, error: &dyn std::error::Error) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self = self.cause(error);
            next = error.source();
        }
        self
    }

    /// The sentence in a language.
    pub fn sentence(&self, language: Language) -> String {
        let [english, chinese] = self.code.text().sentence;
        fill(language, language.pick(english, chinese), &self.parameters)
    }

    /// What to do next, in a language.
    pub fn fix(&self, language: Language) -> String {
        let [english, chinese] = self.code.text().fix;
        fill(language, language.pick(english, chinese), &self.parameters)
    }
}

/// Puts parameters into a template; one that was not given is shown as `?`. What was given for Chinese too, under its
/// name with `_zh`, is shown so there.
fn fill(language: Language, template: &str, parameters: &BTreeMap<String, String>) -> String {
    let mut text = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        text.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            text.push('{');
            rest = after;
            continue;
        };
        let own = (language == Language::Zh).then(|| parameters.get(&format!("{name}_zh"))).flatten();
        let value = own.or_else(|| parameters.get(name)).map_or("?", String::as_str);
        text.push_str(&if name == "subject" { language.subject(value) } else { value.into() });
        rest = behind;
    }
    text.push_str(rest);
    text
}

/// The names of the `{parameters}` of a template.
pub fn parameters_of(template: &str) -> Vec<&str> {
    template.split('{').skip(1).filter_map(|part| part.split_once('}').map(|(name, _)| name)).collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.sentence(Language::En))?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}
impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_of_a_code_speak_of_the_same_parameters() {
        for code in Code::ALL {
            let text = code.text();
            let names = |template| parameters_of(template).into_iter().collect::<std::collections::BTreeSet<_>>();
            assert_eq!(names(text.sentence[0]), names(text.sentence[1]), "{code} sentence");
            assert_eq!(names(text.fix[0]), names(text.fix[1]), "{code} fix");
        }
    }

    #[test]
    fn codes_are_unique_and_read_back() {
        let ids: std::collections::BTreeSet<_> = Code::ALL.iter().map(|code| code.id()).collect();
        assert_eq!(ids.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::from_id(&code.id().to_lowercase()), Some(*code));
            assert_eq!(serde_json::to_value(code).unwrap(), code.id());
        }
    }

    #[test]
    fn a_missing_parameter_shows_as_a_question_mark_and_never_panics() {
        let problem = Problem::new(Code::NoEdge).with("from", "v1.34.4").with("to", "v1.37.2");
        assert_eq!(
            problem.sentence(Language::En),
            "the upgrade graph has no edge from v1.34.4 to v1.37.2; the way is ?"
        );
        assert_eq!(fill(Language::En, "a { b", &BTreeMap::new()), "a { b");
    }

    #[test]
    fn a_subject_is_said_in_the_language_of_its_sentence() {
        let problem = Problem::new(Code::DiskFull).with("path", "/x").with("subject", "node w-2");
        assert!(problem.sentence(Language::En).contains("node w-2"), "{problem}");
        assert!(problem.sentence(Language::Zh).contains("节点 w-2"), "{}", problem.sentence(Language::Zh));
    }

    #[test]
    fn long_causes_keep_their_end() {
        let problem = Problem::new(Code::Internal).cause("x".repeat(10_000) + "the end");
        assert!(problem.causes[0].chars().count() <= CAUSE_CHARACTERS_MAX + 1);
        assert!(problem.causes[0].ends_with("the end"));
    }
}
