//! What only the agent of a node can see: the machine, its services, and on masters manifests and certificates.

use super::{Check, Scope, Sentence, Severity, says};

/// A check of what an agent found.
struct Machine {
    id: &'static str,
    name: &'static str,
    severity: Severity,
    reads: [&'static str; 2],
    title: [&'static str; 2],
    why: [&'static str; 2],
    fix: [&'static str; 2],
    sentences: &'static [Sentence],
    source: &'static str,
}

impl Machine {
    const fn check(self) -> Check {
        let Self { id, name, severity, reads, title, why, fix, sentences, source } = self;
        Check { id, name, severity, scope: Scope::Node, reads, title, why, fix, sentences, source, not_built: None }
    }
}

pub(super) const CHECKS: &[Check] = &[
    Machine {
        id: "NODE-003",
        name: "agent-running",
        severity: Severity::Blocking,
        reads: ["when the agent of each node was heard of", "每个节点的 agent 最近一次联系的时间"],
        title: ["Agents", "agent 运行状态"],
        why: [
            "Without its agent a node can be neither looked at nor upgraded.",
            "没有 agent，就无法检查或升级该节点。",
        ],
        fix: [
            "on {node}: systemctl restart shiplock-agent; journalctl -u shiplock-agent tells why it stopped",
            "在 {node} 上执行 systemctl restart shiplock-agent；原因见 journalctl -u shiplock-agent",
        ],
        sentences: &[
            says(
                "silent",
                "its agent has not been heard of for {seconds} s; nothing on the node itself could be looked at",
                "已 {seconds} 秒未收到其 agent 的消息；无法检查节点本身",
            ),
            Sentence {
                name: "missing",
                text: [
                    "no agent is enrolled on it; nothing on the node itself could be looked at",
                    "未注册 agent；无法检查节点本身",
                ],
                fix: Some([
                    "run on {node}: the command that `shiplock agent join-command CLUSTER` prints",
                    "请在 {node} 上运行 `shiplock agent join-command CLUSTER` 输出的命令",
                ]),
            },
            Sentence {
                name: "no-answer",
                text: ["its agent does not tell how the node is: {why}", "其 agent 未报告节点状况：{why}"],
                fix: Some([
                    "see journalctl -u shiplock-agent on {node}, and whether the agent is of this version",
                    "请查看 {node} 上的 journalctl -u shiplock-agent，并确认 agent 为当前版本",
                ]),
            },
        ],
        source: "https://www.alibabacloud.com/help/en/document_detail/606069.html",
    }
    .check(),
    Machine {
        id: "NODE-004",
        name: "pkg-repo-reachable",
        severity: Severity::AdviceUnlessStrict,
        reads: ["the package manager's own refresh, into a folder of the agent", "包管理器自身的刷新，写入 agent 的目录"],
        title: ["Package sources", "软件源"],
        why: [
            "What an upgrade needs comes from the mirror with its digest. But a node whose package source is broken gets no other mend either.",
            "升级所需内容来自带摘要的镜像站；但软件源损坏的节点也无法获得其他修复。",
        ],
        fix: [
            "mend the source's address, DNS or route on {node}, then try: {command}",
            "请在 {node} 上修复软件源地址、DNS 或路由，然后执行：{command}",
        ],
        sentences: &[
            says("unusable", "{manager} cannot use its sources: {why}", "{manager} 无法使用软件源：{why}"),
            Sentence {
                name: "none",
                text: ["{manager} has no source configured", "{manager} 未配置软件源"],
                fix: Some([
                    "configure one, or accept this where nodes are never mended by packages",
                    "请配置软件源；若节点从不通过软件包修复，可接受此项",
                ]),
            },
        ],
        source: "https://wiki.debian.org/SourcesList",
    }
    .check(),
    Machine {
        id: "NODE-006",
        name: "swap-enabled",
        severity: Severity::Blocking,
        reads: ["/proc/swaps, the kubelet's configuration", "/proc/swaps、kubelet 的配置"],
        title: ["Swap", "交换分区"],
        why: [
            "A kubelet that is not told to bear swap does not start again once it is stopped.",
            "未配置容忍交换分区的 kubelet 停止后无法再启动。",
        ],
        fix: [
            "on {node}: swapoff -a, and take swap out of /etc/fstab; or configure failSwapOn: false with memorySwap on cgroup v2",
            "在 {node} 上执行 swapoff -a 并从 /etc/fstab 中移除；或在 cgroup v2 上配置 failSwapOn: false 与 memorySwap",
        ],
        sentences: &[
            says(
                "refused",
                "swap is on ({devices}), and its kubelet would not start with it",
                "交换分区已启用（{devices}），kubelet 将无法启动",
            ),
            says(
                "borne",
                "swap is on ({devices}); its kubelet bears it, and memory of pods may be swapped out",
                "交换分区已启用（{devices}）；kubelet 可容忍，但 pod 内存可能被换出",
            ),
        ],
        source: "https://kubernetes.io/docs/concepts/cluster-administration/swap-memory-management/",
    }
    .check(),
    Machine {
        id: "NODE-007",
        name: "custom-kubelet-config",
        severity: Severity::Blocking,
        reads: ["/var/lib/kubelet/config.yaml, ConfigMap kubelet-config", "/var/lib/kubelet/config.yaml、ConfigMap kubelet-config"],
        title: ["Kubelet configuration edited by hand", "手工修改的 kubelet 配置"],
        why: [
            "An upgrade writes the kubelet's configuration anew from the cluster's; what only this node has is lost.",
            "升级会按集群配置重写 kubelet 配置；仅此节点的修改会丢失。",
        ],
        fix: [
            "put it into the cluster's (kubectl -n kube-system edit configmap kubelet-config), keep it as a drop-in of the kubelet, or let it go: --accept NODE-007",
            "请写入集群配置（kubectl -n kube-system edit configmap kubelet-config），或以 kubelet drop-in 保留，或放弃：--accept NODE-007",
        ],
        sentences: &[says("edited", "{path} differs from the cluster's: {fields}", "{path} 与集群配置不同：{fields}")],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-reconfigure/",
    }
    .check(),
    Machine {
        id: "NODE-008",
        name: "disk-free",
        severity: Severity::Blocking,
        reads: ["statvfs of /, /var/lib/kubelet, /var/lib/containerd, /var/lib/etcd, the agent's folder", "/、/var/lib/kubelet、/var/lib/containerd、/var/lib/etcd 与 agent 目录的 statvfs"],
        title: ["Free disk", "磁盘余量"],
        why: [
            "Artefacts and images are laid down before the old ones go; a full disk also makes the kubelet evict pods.",
            "新制品与镜像会在旧版本移除前写入；磁盘满还会使 kubelet 驱逐 pod。",
        ],
        fix: [
            "free space on {node}, such as by crictl rmi --prune and journalctl --vacuum-size=500M, or grow the disk",
            "请在 {node} 上释放空间，如 crictl rmi --prune、journalctl --vacuum-size=500M，或扩容磁盘",
        ],
        sentences: &[
            says("full", "{path} has {free} free, {per_cent} %", "{path} 剩余 {free}，{per_cent} %"),
            says("low", "{path} has only {free} free, {per_cent} %", "{path} 仅剩 {free}，{per_cent} %"),
        ],
        source: "https://www.alibabacloud.com/help/en/document_detail/606069.html",
    }
    .check(),
    Machine {
        id: "NODE-009",
        name: "inode-free",
        severity: Severity::Blocking,
        reads: ["statvfs", "文件系统的 statvfs"],
        title: ["Free inodes", "inode 余量"],
        why: ["Without free inodes no file can be made, however much space there is.", "inode 用尽时，即使有空间也无法创建文件。"],
        fix: ["remove small files on {node}; find them with du --inodes -x {path}", "请删除 {node} 上的小文件；可用 du --inodes -x {path} 查找"],
        sentences: &[says("full", "{path} has {per_cent} % of its inodes free", "{path} 的 inode 仅剩 {per_cent} %")],
        source: "https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/",
    }
    .check(),
    Machine {
        id: "NODE-010",
        name: "fs-readonly-errors",
        severity: Severity::Blocking,
        reads: ["mount flags, the kernel's log of the last day", "挂载选项、最近一天的内核日志"],
        title: ["File systems that are ill", "异常的文件系统"],
        why: ["A file system that went read-only takes no upgrade, and one with errors may go so any moment.", "只读文件系统无法升级；有错误的文件系统随时可能变为只读。"],
        fix: ["repair it (fsck) or replace the disk of {node}", "请修复（fsck）或更换 {node} 的磁盘"],
        sentences: &[
            says("read-only", "{path} is mounted read-only", "{path} 以只读方式挂载"),
            says("errors", "the kernel reports: {line}", "内核报告：{line}"),
        ],
        source: "https://github.com/kubernetes/node-problem-detector",
    }
    .check(),
    Machine {
        id: "NODE-012",
        name: "cgroup-version",
        severity: Severity::Blocking,
        reads: ["/sys/fs/cgroup, failCgroupV1 of the kubelet", "/sys/fs/cgroup、kubelet 的 failCgroupV1"],
        title: ["Version of control groups", "cgroup 版本"],
        why: [
            "From 1.35 on a kubelet does not start on cgroup v1 unless it is told to bear it; support for v1 ends.",
            "自 1.35 起，除非明确允许，kubelet 不会在 cgroup v1 上启动；v1 支持即将终止。",
        ],
        fix: [
            "boot {node} with systemd.unified_cgroup_hierarchy=1 or from a newer image; for a time failCgroupV1: false in kubelet-config helps",
            "请以 systemd.unified_cgroup_hierarchy=1 启动 {node} 或使用更新的镜像；可暂时在 kubelet-config 中设置 failCgroupV1: false",
        ],
        sentences: &[
            says("refused", "it has cgroup v1, on which the kubelet of {target} does not start", "使用 cgroup v1，{target} 的 kubelet 无法启动"),
            says("old", "it has cgroup v1, whose support ends", "使用 cgroup v1，其支持即将终止"),
        ],
        source: "https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/5573-remove-cgroup-v1",
    }
    .check(),
    Machine {
        id: "NODE-013",
        name: "kernel",
        severity: Severity::Blocking,
        reads: ["uname, /sys/module, modprobe --dry-run", "uname、/sys/module、modprobe --dry-run 的结果"],
        title: ["Kernel and modules", "内核与模块"],
        why: ["kubeadm refuses kernels before 4.19, and pods and Services need some modules.", "kubeadm 拒绝 4.19 之前的内核；pod 与 Service 需要若干模块。"],
        fix: ["upgrade the kernel of {node}, or install its modules package", "请升级 {node} 的内核或安装其模块包"],
        sentences: &[
            says("old", "its kernel is {release}; 4.19 is the oldest that kubeadm accepts", "内核为 {release}；kubeadm 至少需要 4.19"),
            says("module", "its kernel has no module {module}", "内核缺少模块 {module}"),
        ],
        source: "https://github.com/kubernetes/system-validators",
    }
    .check(),
    Machine {
        id: "NODE-014",
        name: "systemd-version",
        severity: Severity::Blocking,
        reads: ["systemctl --version", "systemctl --version 的结果"],
        title: ["systemd", "systemd 版本"],
        why: ["systemd up to 219-67 loses track of units of containers under load.", "219-67 及更早的 systemd 在负载下会丢失容器单元。"],
        fix: ["update it on {node}: yum update systemd", "请在 {node} 上更新：yum update systemd"],
        sentences: &[says("old", "its systemd is {version}", "systemd 版本为 {version}")],
        source: "https://www.alibabacloud.com/help/en/document_detail/606069.html",
    }
    .check(),
    Machine {
        id: "NODE-015",
        name: "ntp-sync",
        severity: Severity::Blocking,
        reads: ["timedatectl or chronyc, the agent's clock beside the server's", "timedatectl 或 chronyc，以及 agent 与服务端时钟的对比"],
        title: ["Time", "时间同步"],
        why: ["Certificates and leases are judged by the clock; masters whose clocks differ refuse each other.", "证书与租约依赖时钟；时钟不一致的 master 会相互拒绝。"],
        fix: ["see to the time service of {node}: timedatectl set-ntp true, or chronyc makestep", "请检查 {node} 的时间服务：timedatectl set-ntp true 或 chronyc makestep"],
        sentences: &[
            says("unsynchronized", "nothing keeps its clock in time, by {by}", "时钟未同步（{by}）"),
            says("differs", "its clock is {seconds} s off this server's", "其时钟与服务端相差 {seconds} 秒"),
            says("masters", "its clock is {seconds} s off that of another master", "其时钟与另一 master 相差 {seconds} 秒"),
        ],
        source: "https://etcd.io/docs/v3.6/faq/",
    }
    .check(),
    Machine {
        id: "NODE-016",
        name: "iptables-backend",
        severity: Severity::Advice,
        reads: ["iptables --version, /proc/net/ip_tables_names", "iptables --version 的结果、/proc/net/ip_tables_names"],
        title: ["Backends of iptables", "iptables 后端"],
        why: ["Rules in both backends are applied one after the other and contradict each other.", "两个后端的规则会先后生效并互相冲突。"],
        fix: ["let everything on {node} use one backend, and flush the other: iptables-legacy -F", "请让 {node} 统一使用一个后端并清空另一个：iptables-legacy -F"],
        sentences: &[says("mixed", "iptables uses {backend}, while legacy tables are in use: {tables}", "iptables 使用 {backend}，但 legacy 表仍在使用：{tables}")],
        source: "https://kubernetes.io/docs/reference/networking/virtual-ips/",
    }
    .check(),
    Machine {
        id: "NODE-017",
        name: "runtime-health",
        severity: Severity::Blocking,
        reads: ["Version, Status and lists of CRI", "CRI 的 Version、Status 与列表"],
        title: ["Health of the runtime", "运行时健康状况"],
        why: ["A drain needs the runtime to end pods; one that does not answer leaves them behind.", "排空需要运行时结束 pod；无响应的运行时会留下它们。"],
        fix: ["on {node}: systemctl restart containerd, or reboot; then check again", "在 {node} 上执行 systemctl restart containerd 或重启节点，然后重新检查"],
        sentences: &[
            says("silent", "its runtime does not answer: {why}", "运行时无响应：{why}"),
            says("not-ready", "its runtime says: {why}", "运行时报告：{why}"),
            Sentence {
                name: "remarks",
                text: ["its runtime is ready and remarks: {why}", "运行时已就绪，并提示：{why}"],
                fix: Some(["nothing has to be done before this upgrade", "本次升级前无需处理"]),
            },
            says("slow", "its runtime took {milliseconds} ms to list what runs", "运行时列出容器耗时 {milliseconds} 毫秒"),
        ],
        source: "https://kubernetes.io/docs/concepts/containers/cri/",
    }
    .check(),
    Machine {
        id: "NODE-018",
        name: "kubelet-restart-loop",
        severity: Severity::Blocking,
        reads: ["the service manager's journal of the kubelet, its health endpoint", "服务管理器中 kubelet 的日志及其健康检查端点"],
        title: ["Kubelets that are not well", "异常的 kubelet"],
        why: ["A kubelet that ends again and again will do so with the new version too.", "反复退出的 kubelet 升级后仍会如此。"],
        fix: ["see journalctl -u kubelet on {node}", "请查看 {node} 上的 journalctl -u kubelet"],
        sentences: &[
            says("loop", "its kubelet ended and was started again {starts:time|times} in the last 20 minutes", "kubelet 在过去 20 分钟内退出并被重新启动了 {starts} 次"),
            says("ill", "its kubelet is not well: {why}", "kubelet 异常：{why}"),
        ],
        source: "https://github.com/kubernetes/node-problem-detector/blob/master/config/systemd-monitor-counter.json",
    }
    .check(),
    Machine {
        id: "NODE-019",
        name: "image-prepull",
        severity: Severity::Blocking,
        reads: ["the mirror, ImageStatus of CRI", "镜像站、CRI 的 ImageStatus"],
        title: ["Mirror and images of the target", "镜像站与目标版本镜像"],
        why: ["What a node cannot fetch it cannot run.", "节点无法获取的内容就无法运行。"],
        fix: ["see to the route from {node} to the mirror, and to what the mirror holds", "请检查 {node} 到镜像站的路由以及镜像站内容"],
        sentences: &[
            says("mirror", "it does not reach the mirror: {why}", "无法访问镜像站：{why}"),
            says("image", "it cannot get image {image}: {why}", "无法获取镜像 {image}：{why}"),
        ],
        source: "https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-upgrade/",
    }
    .check(),
    Machine {
        id: "NODE-020",
        name: "ports-free",
        severity: Severity::Blocking,
        reads: ["/proc/net/tcp, names of processes", "/proc/net/tcp、进程名"],
        title: ["Ports", "端口"],
        why: ["A component whose port somebody else holds does not come up again.", "端口被占用的组件无法再次启动。"],
        fix: ["stop {process} on {node}, or let it use another port: ss -ltnp 'sport = :{port}'", "请停止 {node} 上的 {process} 或更换其端口：ss -ltnp 'sport = :{port}'"],
        sentences: &[says("foreign", "port {port} is held by {process}", "端口 {port} 被 {process} 占用")],
        source: "https://kubernetes.io/docs/reference/networking/ports-and-protocols/",
    }
    .check(),
    Machine {
        id: "NODE-021",
        name: "hostname-dns",
        severity: Severity::Advice,
        reads: ["the host name, getent ahosts", "主机名、getent ahosts 的结果"],
        title: ["Host names", "主机名"],
        why: ["kubeadm takes the node's name from the host name, and API servers reach kubelets by it.", "kubeadm 以主机名作为节点名，API server 以其访问 kubelet。"],
        fix: ["put the name of {node} into DNS or /etc/hosts", "请将 {node} 写入 DNS 或 /etc/hosts"],
        sentences: &[
            says("differs", "its host name is {host}", "其主机名为 {host}"),
            says("unresolved", "its host name {host} cannot be resolved there", "其主机名 {host} 在该节点上无法解析"),
        ],
        source: "https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-join/",
    }
    .check(),
    Machine {
        id: "NODE-022",
        name: "proxy-env",
        severity: Severity::Advice,
        reads: ["names of variables of kubelet and containerd", "kubelet 与 containerd 的环境变量名"],
        title: ["Proxies", "代理"],
        why: ["What goes to the API server through a proxy breaks with that proxy.", "经代理访问 API server 时，代理故障会导致中断。"],
        fix: ["add {host} to NO_PROXY of {service} on {node}", "请将 {host} 加入 {node} 上 {service} 的 NO_PROXY"],
        sentences: &[says("covers", "{variable} of {service} covers the API server {host} too", "{service} 的 {variable} 也覆盖 API server {host}")],
        source: "https://kubernetes.io/docs/reference/setup-tools/kubeadm/kubeadm-init/",
    }
    .check(),
    Machine {
        id: "NODE-023",
        name: "selinux-firewalld",
        severity: Severity::Advice,
        reads: ["firewall services", "防火墙服务"],
        title: ["Firewalls", "防火墙"],
        why: ["A firewall that reloads drops kube-proxy's rules, and may close ports of the target.", "防火墙重载会丢弃 kube-proxy 规则，并可能关闭所需端口。"],
        fix: ["open the ports of Kubernetes on {node}, or stop it: systemctl disable --now {service}", "请在 {node} 上开放 Kubernetes 端口，或停用：systemctl disable --now {service}"],
        sentences: &[says("active", "{service} is active", "{service} 正在运行")],
        source: "https://kubernetes.io/docs/reference/networking/ports-and-protocols/",
    }
    .check(),
    Machine {
        id: "CP-008",
        name: "static-pod-manifests",
        severity: Severity::Blocking,
        reads: ["/etc/kubernetes/manifests beside what the installed kubeadm would write", "/etc/kubernetes/manifests，与已安装的 kubeadm 会写出的内容对比"],
        title: ["Manifests of static pods", "静态 pod 清单"],
        why: ["An upgrade writes the manifests anew; what was edited by hand is lost.", "升级会重写清单；手工修改会丢失。"],
        fix: ["give the edits as kubeadm patches, or let them go: --accept CP-008", "请以 kubeadm patches 提供这些修改，或放弃：--accept CP-008"],
        sentences: &[says("edited", "{path} has edits that kubeadm would not write", "{path} 含 kubeadm 不会写入的修改")],
        source: "https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/control-plane-flags/",
    }
    .check(),
    Machine {
        id: "WHK-014",
        name: "control-plane-cert-expiry",
        severity: Severity::Blocking,
        reads: ["/etc/kubernetes/pki, kubeconfigs of the control plane", "/etc/kubernetes/pki、控制面的 kubeconfig"],
        title: ["Certificates of the control plane", "控制面证书"],
        why: ["When one ends, components refuse each other, and a half-done upgrade stands still.", "证书到期后组件会相互拒绝，升级将停在半途。"],
        fix: ["on {node}: kubeadm certs renew all, then restart the static pods", "在 {node} 上执行 kubeadm certs renew all，然后重启静态 pod"],
        sentences: &[
            says("ended", "{path} has ended", "{path} 已过期"),
            says("soon", "{path} ends in {days:day|days}", "{path} 将在 {days} 天后到期"),
        ],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-certs/",
    }
    .check(),
];
