//! Webhooks, aggregated APIs, certificates.

use super::{Check, Scope, Sentence, Severity, says};

const FIX_DIALLED: Option<[&str; 2]> = Some([
    "issue the certificate of {name} anew with subjectAltName={san}, and put its authority into caBundle of {webhook}",
    "请为 {name} 重新签发带 subjectAltName={san} 的证书，并更新 {webhook} 的 caBundle",
]);

/// A sentence about the certificate that a backend showed.
const fn shown(name: &'static str, english: &'static str, chinese: &'static str) -> Sentence {
    Sentence { name, text: [english, chinese], fix: FIX_DIALLED }
}

const NO_SAN: Sentence =
    shown("no-san", "the certificate of {name} has no subject alternative name", "{name} 的证书没有 SAN");
const WRONG_SAN: Sentence = shown("wrong-san", "{name} shows a certificate for {names}", "{name} 的证书适用于 {names}");
const DNS_SAN: Sentence = shown(
    "dns-san",
    "the certificate of {name} has it as a DNS name only, and an address is matched by IP names alone",
    "{name} 的证书仅将其写作 DNS 名称，而地址只与 IP 名称匹配",
);
const NO_HANDSHAKE: Sentence = shown("no-handshake", "{name} was dialled: {why}", "拨测 {name}：{why}");
const ENDED: Sentence =
    shown("ended", "the certificate of {name} ended {days:day|days} ago", "{name} 的证书已过期 {days} 天");
const SOON: Sentence =
    shown("soon", "the certificate of {name} ends in {days:day|days}", "{name} 的证书将在 {days} 天后到期");
const WITHIN: Sentence = shown(
    "within",
    "the certificate of {name} ends in {hours:hour|hours}, which may be within the upgrade",
    "{name} 的证书将在 {hours} 小时后到期，可能就在升级期间",
);
const NOT_YET: Sentence = shown("not-yet", "the certificate of {name} does not hold yet", "{name} 的证书尚未生效");
const UNTRUSTED: Sentence = shown(
    "untrusted",
    "the certificate of {name} does not lead to caBundle: {why}",
    "{name} 的证书无法由 caBundle 验证：{why}",
);
const SIGNED: Sentence =
    shown("signed", "the certificate of {name} is signed with SHA-1", "{name} 的证书使用 SHA-1 签名");
const DIALLED: &[Sentence] =
    &[NO_SAN, WRONG_SAN, DNS_SAN, NO_HANDSHAKE, ENDED, WITHIN, SOON, NOT_YET, UNTRUSTED, SIGNED];

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "WHK-001",
        name: "webhook-cert-san",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "webhook configurations; the certificate that each backend shows when it is dialled",
            "webhook 配置；连接每个后端时其出示的证书",
        ],
        title: ["Names in webhook certificates", "webhook 证书中的名称"],
        why: [
            "API servers look at subject alternative names alone. With a certificate that has a common name only, every call fails, and masters do not come up where the webhook matches their pods.",
            "API server 只检查 SAN。证书仅有 Common Name 时所有调用都会失败；若 webhook 匹配 master 的 pod，master 将无法启动。",
        ],
        fix: [
            "issue the certificate of {webhook} anew with subjectAltName={san}, and put its authority into caBundle",
            "请为 {webhook} 重新签发带 subjectAltName={san} 的证书，并更新 caBundle",
        ],
        sentences: &[
            says(
                "no-san",
                "webhook {webhook}: its certificate has no subject alternative name",
                "webhook {webhook}：证书没有 SAN",
            ),
            says(
                "wrong-san",
                "webhook {webhook}: its certificate is for {names}, not for {name}",
                "webhook {webhook}：证书适用于 {names}，而非 {name}",
            ),
            says(
                "dns-san",
                "webhook {webhook}: its certificate has {name} as a DNS name only, and an address is matched by IP names alone",
                "webhook {webhook}：证书仅将 {name} 写作 DNS 名称，而地址只与 IP 名称匹配",
            ),
            Sentence {
                name: "no-handshake",
                text: ["webhook {webhook}: {name} was dialled: {why}", "webhook {webhook}：拨测 {name}：{why}"],
                fix: Some([
                    "let what is behind {name} serve TLS 1.2 or newer, or take {webhook} out for the upgrade",
                    "请让 {name} 的后端提供 TLS 1.2 或更新版本，或在升级期间移除 {webhook}",
                ]),
            },
        ],
        source: "https://go.dev/doc/go1.17#crypto/x509, https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/",
        not_built: None,
    },
    Check {
        id: "WHK-002",
        name: "webhook-cert-expiry",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["the certificate that each backend shows when it is dialled", "连接每个后端时其出示的证书"],
        title: ["End of webhook certificates", "webhook 证书有效期"],
        why: [
            "With a certificate that has ended every call of the webhook fails.",
            "证书过期后 webhook 的所有调用都会失败。",
        ],
        fix: ["renew the certificate of {webhook}", "请更新 {webhook} 的证书"],
        sentences: &[
            says(
                "ended",
                "webhook {webhook}: its certificate ended {days:day|days} ago",
                "webhook {webhook}：证书已过期 {days} 天",
            ),
            says(
                "within",
                "webhook {webhook}: its certificate ends in {hours:hour|hours}, which may be within the upgrade",
                "webhook {webhook}：证书将在 {hours} 小时后到期，可能就在升级期间",
            ),
            says(
                "soon",
                "webhook {webhook}: its certificate ends in {days:day|days}",
                "webhook {webhook}：证书将在 {days} 天后到期",
            ),
            says("not-yet", "webhook {webhook}: its certificate does not hold yet", "webhook {webhook}：证书尚未生效"),
        ],
        source: "https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/",
        not_built: None,
    },
    Check {
        id: "WHK-012",
        name: "apiservice-cert-san",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "APIServices; the certificate that each backend shows when it is dialled",
            "APIService；连接每个后端时其出示的证书",
        ],
        title: ["Certificates of aggregated APIs", "聚合 API 的证书"],
        why: [
            "An API server that does not take the certificate of an aggregated API serves none of its objects.",
            "API server 不接受聚合 API 的证书时，无法提供其任何对象。",
        ],
        fix: [
            "issue the certificate of {webhook} anew with subjectAltName={san}, and put its authority into caBundle",
            "请为 {webhook} 重新签发带 subjectAltName={san} 的证书，并更新 caBundle",
        ],
        sentences: DIALLED,
        source: "https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/",
        not_built: None,
    },
    Check {
        id: "WHK-003",
        name: "webhook-ca-bundle",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["webhook configurations", "webhook 配置"],
        title: ["Authorities of webhooks", "Webhook 的 CA"],
        why: [
            "The API server verifies a webhook with caBundle. A bundle that has expired or cannot be read makes every call fail.",
            "API server 用 caBundle 验证 webhook。过期或无法读取的 caBundle 会使所有调用失败。",
        ],
        fix: [
            "put the issuing authority into caBundle of {webhook} anew",
            "请重新将签发 CA 写入 {webhook} 的 caBundle",
        ],
        sentences: &[
            says("bundle", "webhook {webhook}: {why}", "webhook {webhook}：{why}"),
            says(
                "untrusted",
                "webhook {webhook}: the certificate that it shows does not lead to caBundle: {why}",
                "webhook {webhook}：其证书无法由 caBundle 验证：{why}",
            ),
        ],
        source: "https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/",
        not_built: None,
    },
    Check {
        id: "WHK-004",
        name: "webhook-cert-sha1",
        severity: Severity::Blocking,
        scope: Scope::ControlPlane,
        reads: [
            "the certificate that each backend shows; apiserver_webhooks_x509_insecure_sha1_total and its twin of aggregated APIs",
            "每个后端出示的证书；apiserver_webhooks_x509_insecure_sha1_total 及聚合 API 的同类指标",
        ],
        title: ["Certificates signed with SHA-1", "使用 SHA-1 签名的证书"],
        why: [
            "API servers from 1.24 on refuse certificates that are signed with SHA-1; the ones before count them.",
            "1.24 起 API server 拒绝 SHA-1 签名的证书；之前的版本会统计。",
        ],
        fix: [
            "issue the certificates with SHA-256 anew; the audit annotation insecure-sha1.invalid-cert.kubernetes.io names the host",
            "请用 SHA-256 重新签发证书；审计注解 insecure-sha1.invalid-cert.kubernetes.io 指出主机",
        ],
        sentences: &[
            says(
                "signed",
                "webhook {webhook}: its certificate is signed with SHA-1",
                "webhook {webhook}：证书使用 SHA-1 签名",
            ),
            says(
                "counted",
                "this API server met {count:certificate|certificates} of webhooks or aggregated APIs with a SHA-1 signature",
                "该 API server 遇到 {count} 次使用 SHA-1 签名的 webhook 或聚合 API 证书",
            ),
            says(
                "counted-before",
                "since its start this API server met {count:certificate|certificates} with a SHA-1 signature; those that it calls now were judged by themselves",
                "该 API server 启动以来遇到 {count} 次使用 SHA-1 签名的证书；当前调用的证书已逐一检查",
            ),
        ],
        source: "https://kubernetes.io/docs/reference/labels-annotations-taints/audit-annotations/",
        not_built: None,
    },
    Check {
        id: "WHK-005",
        name: "missing-san-metric",
        severity: Severity::Blocking,
        scope: Scope::ControlPlane,
        reads: [
            "apiserver_webhooks_x509_missing_san_total and its twin of aggregated APIs",
            "apiserver_webhooks_x509_missing_san_total 及聚合 API 的同类指标",
        ],
        title: ["Certificates without SAN, as API servers count them", "API server 统计到的缺少 SAN 的证书"],
        why: [
            "A certificate that names its host in the common name only is refused from 1.23 on: a webhook with one stops what it is asked about.",
            "仅在 CN 中写主机名的证书自 1.23 起被拒绝：使用此类证书的 webhook 会阻断请求。",
        ],
        fix: [
            "issue the certificate with SAN SERVICE.NAMESPACE.svc and renew caBundle; the audit annotation missing-san.invalid-cert.kubernetes.io names the host",
            "请重新签发带 SAN SERVICE.NAMESPACE.svc 的证书并更新 caBundle；审计注解 missing-san.invalid-cert.kubernetes.io 指出主机",
        ],
        sentences: &[
            says(
                "counted",
                "this API server met {count:certificate|certificates} of webhooks or aggregated APIs without SAN",
                "该 API server 遇到 {count} 次缺少 SAN 的 webhook 或聚合 API 证书",
            ),
            says(
                "counted-before",
                "since its start this API server met {count:certificate|certificates} without SAN; those that it calls now were judged by themselves",
                "该 API server 启动以来遇到 {count} 次缺少 SAN 的证书；当前调用的证书已逐一检查",
            ),
        ],
        source: "https://kubernetes.io/docs/reference/labels-annotations-taints/audit-annotations/",
        not_built: None,
    },
    Check {
        id: "WHK-006",
        name: "webhook-no-endpoints",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["webhook configurations, EndpointSlices", "webhook 配置、EndpointSlice"],
        title: ["Webhooks that nobody answers", "无人响应的 webhook"],
        why: [
            "A webhook with failurePolicy Fail and without a ready endpoint refuses everything that it is asked about, also the pods of the control plane. With failurePolicy Ignore nothing is refused, and what it would have refused or filled in goes in as it is.",
            "failurePolicy 为 Fail 且没有就绪端点的 webhook 会拒绝所有相关请求，包括控制面的 pod。failurePolicy 为 Ignore 时不拒绝任何请求，但本应由它拒绝或补全的对象会原样写入。",
        ],
        fix: [
            "bring {service} back, or set failurePolicy of {webhook} to Ignore for the upgrade",
            "请恢复 {service}，或在升级期间将 {webhook} 的 failurePolicy 设为 Ignore",
        ],
        sentences: &[
            says(
                "none",
                "webhook {webhook} must answer, and its Service {service} has no ready endpoint",
                "webhook {webhook} 必须响应，但其 Service {service} 没有就绪端点",
            ),
            Sentence {
                name: "none-ignored",
                text: [
                    "webhook {webhook} is passed over (failurePolicy Ignore): its Service {service} has no ready endpoint",
                    "webhook {webhook} 被跳过（failurePolicy 为 Ignore）：其 Service {service} 没有就绪端点",
                ],
                fix: Some([
                    "bring {service} back, so that what is written during the upgrade is checked and filled in, or delete {webhook} if nothing needs it",
                    "请恢复 {service}，使升级期间写入的对象得到检查和补全；若已无用处，请删除 {webhook}",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#failure-policy",
        not_built: None,
    },
    Check {
        id: "WHK-007",
        name: "webhook-intercepts-system",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: [
            "webhook configurations; labels of namespace kube-system, of its pods and of nodes",
            "webhook 配置；命名空间 kube-system、其中的 pod 以及节点的标签",
        ],
        title: ["Webhooks that are asked about kube-system", "拦截 kube-system 的 webhook"],
        why: [
            "While its node is drained such a webhook is away, and what must be answered by it cannot happen: pods of the system, leases of those who lead, evictions.",
            "其节点被排空时该 webhook 不可用，需要它响应的操作都无法进行：系统 pod、选主所用的 lease、驱逐。",
        ],
        fix: [
            "leave kube-system out with namespaceSelector: kubernetes.io/metadata.name NotIn [kube-system]",
            "请用 namespaceSelector 排除 kube-system：kubernetes.io/metadata.name NotIn [kube-system]",
        ],
        sentences: &[
            says(
                "system",
                "webhook {webhook} ({service}) must answer for pods or leases of kube-system",
                "kube-system 的 pod 或 lease 须经 webhook {webhook}（{service}）响应",
            ),
            Sentence {
                name: "system-perhaps",
                text: [
                    "webhook {webhook} ({service}) must answer for pods or leases of kube-system, unless its matchConditions leave them out, which cannot be told from here",
                    "kube-system 的 pod 或 lease 可能须经 webhook {webhook}（{service}）响应；其 matchConditions 是否排除它们，在此无法判断",
                ],
                fix: Some([
                    "see that the matchConditions of {webhook} leave kube-system out, or leave it out with namespaceSelector: kubernetes.io/metadata.name NotIn [kube-system]",
                    "请确认 {webhook} 的 matchConditions 排除了 kube-system，或用 namespaceSelector 排除：kubernetes.io/metadata.name NotIn [kube-system]",
                ]),
            },
            Sentence {
                name: "drain",
                text: [
                    "webhook {webhook} ({service}) must answer for nodes or evictions of kube-system",
                    "节点或 kube-system 的驱逐须经 webhook {webhook}（{service}）响应",
                ],
                fix: Some([
                    "take nodes and pods/eviction out of the rules of {webhook}, or set its failurePolicy to Ignore",
                    "请从 {webhook} 的规则中去掉 nodes 和 pods/eviction，或将其 failurePolicy 设为 Ignore",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#avoiding-operating-on-the-kube-system-namespace",
        not_built: None,
    },
    Check {
        id: "WHK-008",
        name: "webhook-single-replica",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["webhook configurations, EndpointSlices", "webhook 配置、EndpointSlice"],
        title: ["Webhooks on one pod or one node", "仅在一个 pod 或节点上的 webhook"],
        why: [
            "It goes away while its node is upgraded, and everything that it must answer waits or fails.",
            "其节点升级时它会消失，所有需要它响应的请求会等待或失败。",
        ],
        fix: ["run two replicas or more of {service} on different nodes", "请在不同节点上运行两个以上 {service} 副本"],
        sentences: &[
            says(
                "single",
                "webhook {webhook} must answer, and its Service {service} has one ready endpoint",
                "webhook {webhook} 必须响应，但其 Service {service} 仅有一个就绪端点",
            ),
            says(
                "one-node",
                "webhook {webhook} must answer, and all endpoints of {service} are on one node",
                "webhook {webhook} 必须响应，但 {service} 的所有端点都在同一节点",
            ),
        ],
        source: "https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/",
        not_built: None,
    },
    Check {
        id: "WHK-009",
        name: "webhook-timeout",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["webhook configurations", "webhook 配置"],
        title: ["Webhooks that may take long", "超时过长的 webhook"],
        why: [
            "Each request that it is asked about may wait for so long while it is away.",
            "它不可用时，每个相关请求都可能等待这么久。",
        ],
        fix: ["lower timeoutSeconds of {webhook} to 10 or less", "请将 {webhook} 的 timeoutSeconds 降到 10 以内"],
        sentences: &[says("slow", "webhook {webhook} may take {seconds} s", "webhook {webhook} 的超时为 {seconds} 秒")],
        source: "https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#timeouts",
        not_built: None,
    },
    Check {
        id: "WHK-010",
        name: "webhook-review-version",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["webhook configurations", "webhook 配置"],
        title: ["Webhooks that do not read AdmissionReview v1", "不支持 AdmissionReview v1 的 webhook"],
        why: [
            "The older version of reviews will go; then such a webhook cannot be called.",
            "旧版 AdmissionReview 将被移除，届时无法调用此类 webhook。",
        ],
        fix: [
            "let {webhook} read v1 and list it in admissionReviewVersions",
            "请让 {webhook} 支持 v1 并写入 admissionReviewVersions",
        ],
        sentences: &[says(
            "no-v1",
            "webhook {webhook} does not list v1 in admissionReviewVersions",
            "webhook {webhook} 的 admissionReviewVersions 不含 v1",
        )],
        source: "https://kubernetes.io/docs/reference/using-api/deprecation-guide/#webhook-resources-v122",
        not_built: None,
    },
    Check {
        id: "WHK-011",
        name: "apiservice-available",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["APIServices", "所有 APIService"],
        title: ["Aggregated APIs", "聚合 API"],
        why: [
            "While an aggregated API is away, discovery is incomplete: namespaces cannot be deleted, clients fail.",
            "聚合 API 不可用时发现信息不完整：命名空间无法删除，客户端会失败。",
        ],
        fix: [
            "repair what is behind it (kubectl describe apiservice), or delete it",
            "请修复其后端（kubectl describe apiservice），或删除它",
        ],
        sentences: &[says("unavailable", "it is not available: {message}", "不可用：{message}")],
        source: "https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/apiserver-aggregation/",
        not_built: None,
    },
    Check {
        id: "WHK-013",
        name: "crd-conversion-webhook",
        severity: Severity::Blocking,
        scope: Scope::Cluster,
        reads: ["CustomResourceDefinitions, EndpointSlices", "CustomResourceDefinition、EndpointSlice"],
        title: ["Conversion webhooks", "转换 webhook"],
        why: [
            "Without its conversion webhook no object of the kind can be read in another version, and controllers of the API server stall.",
            "没有转换 webhook 就无法以其他版本读取该类型的对象，API server 的控制器会停滞。",
        ],
        fix: ["bring {service} back before the control plane is touched", "请在升级控制面之前恢复 {service}"],
        sentences: &[
            says(
                "none",
                "its conversion webhook {service} has no ready endpoint",
                "其转换 webhook {service} 没有就绪端点",
            ),
            NO_SAN,
            WRONG_SAN,
            DNS_SAN,
            NO_HANDSHAKE,
            ENDED,
            WITHIN,
            SOON,
            NOT_YET,
            UNTRUSTED,
            SIGNED,
        ],
        source: "https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-conversion",
        not_built: None,
    },
    Check {
        id: "WHK-015",
        name: "kubelet-cert-rotation",
        severity: Severity::Advice,
        scope: Scope::Cluster,
        reads: ["CertificateSigningRequests", "所有 CertificateSigningRequest"],
        title: ["Certificates that kubelets wait for", "kubelet 等待签发的证书"],
        why: [
            "A kubelet whose certificate is not renewed leaves the cluster when the old one ends.",
            "kubelet 证书未续期时，旧证书到期后节点会脱离集群。",
        ],
        fix: ["look at it and approve it: kubectl certificate approve", "请查看并批准：kubectl certificate approve"],
        sentences: &[
            says("pending", "the request of {user} waits for approval", "{user} 的请求等待批准"),
            Sentence {
                name: "ends",
                text: ["{path} ends in {days:day|days} and was not renewed", "{path} 将在 {days} 天后到期且尚未续期"],
                fix: Some([
                    "see why its kubelet does not renew it: journalctl -u kubelet, kubectl get csr",
                    "请查看 kubelet 未续期的原因：journalctl -u kubelet、kubectl get csr",
                ]),
            },
        ],
        source: "https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/",
        not_built: None,
    },
];
