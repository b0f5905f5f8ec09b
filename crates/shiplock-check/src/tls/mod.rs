//! The certificates of webhooks, conversion webhooks and aggregated APIs, as they showed them when they were dialled.
//!
//! They are judged as an API server judges them: by name (subject alternative names alone), time, chain to `caBundle`
//! and signature algorithm. Who dialled verified nothing, so that all of it is seen at once.

mod chain;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use shiplock_core::facts::examination::{TlsOutcome, TlsTarget};

use self::chain::{Judged, Trust, judge_chain};
use crate::api::live::stored;
use crate::cluster::ready_nodes;
use crate::object::Objects;
use crate::object::{ServiceReference, WebhookClient};
use crate::question::Question;
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Snapshot;

/// A certificate that ends within so many seconds may end within the upgrade.
const WITHIN_SECONDS: i64 = 86400;
/// A certificate that ends within so many days is told.
const DAYS_WARN: i64 = 30;
/// The port of a webhook's Service where it names none.
const PORT: u16 = 443;

/// A backend that was dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialled {
    /// The backend: its `server_name` is what an API server asks for, its host and port name the Service's or the URL's.
    pub target: TlsTarget,
    /// How: `pod NAMESPACE/NAME`, `agent on NODE`, `directly`.
    pub via: String,
    /// Where an agent can try, in place of whoever could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// What came of it.
    pub outcome: TlsOutcome,
}

/// The backend of a Service, as [`Dialled::target`] names it.
pub fn of_service(service: &ServiceReference) -> TlsTarget {
    let name = format!("{}.{}.svc", service.name, service.namespace);
    TlsTarget { host: name.clone(), port: service.port.unwrap_or(PORT), server_name: name }
}

/// The backend of an address; none where it is no `https://` URL.
pub fn of_url(url: &str) -> Option<TlsTarget> {
    let rest = url.strip_prefix("https://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':').unwrap_or("443"))
        }
        None => authority.rsplit_once(':').unwrap_or((authority, "443")),
    };
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| TlsTarget { host: host.to_owned(), port, server_name: host.to_owned() })
}

/// Everything behind which an API server expects a TLS server of somebody else, each once.
pub fn backends(snapshot: &Snapshot) -> Vec<TlsTarget> {
    let mut found: Vec<TlsTarget> = each(snapshot).into_iter().map(|backend| backend.target).collect();
    found.sort();
    found.dedup();
    found
}

/// Whether the certificate of every such server was seen as it is now. Where a list of them could not be read it is not.
pub(crate) fn are_all_seen(snapshot: &Snapshot) -> bool {
    let Objects { validating, mutating, definitions, api_services, .. } = &snapshot.objects;
    let are_listed = validating.seen().is_some()
        && mutating.seen().is_some()
        && definitions.seen().is_some()
        && api_services.seen().is_some();
    are_listed
        && backends(snapshot).iter().all(|target| {
            let now = |dialled: &&Dialled| dialled.target == *target;
            snapshot
                .dialled
                .iter()
                .find(now)
                .is_some_and(|dialled| matches!(dialled.outcome, TlsOutcome::Presented { .. }))
        })
}

/// One thing that an API server calls.
struct Backend<'a> {
    subject: Subject,
    /// The webhook's name within its configuration; else the name of the object.
    name: &'a str,
    target: TlsTarget,
    /// Namespace and name of the Service, where it is behind one.
    service: Option<(&'a str, &'a str)>,
    authority: &'a str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whether requests fail with it.
    Webhook {
        is_strict: bool,
    },
    /// Whether there may be objects to convert.
    Conversion {
        is_used: bool,
    },
    Aggregated,
}

impl Kind {
    /// The checks of name, end, trust and signature.
    fn checks(self) -> [&'static str; 4] {
        match self {
            Self::Webhook { .. } => ["WHK-001", "WHK-002", "WHK-003", "WHK-004"],
            Self::Conversion { .. } => ["WHK-013"; 4],
            Self::Aggregated => ["WHK-012"; 4],
        }
    }
}

fn each(snapshot: &Snapshot) -> Vec<Backend<'_>> {
    let objects = &snapshot.objects;
    let mut found = Vec::new();
    let kinds =
        [("ValidatingWebhookConfiguration", &objects.validating), ("MutatingWebhookConfiguration", &objects.mutating)];
    for (kind, list) in kinds {
        for configuration in list.seen().into_iter().flatten() {
            // Without rules it is never called.
            for webhook in configuration.webhooks.iter().filter(|webhook| !webhook.rules.is_empty()) {
                let Some(target) = target_of(&webhook.client_config) else { continue };
                found.push(Backend {
                    subject: Subject::new(kind, "", &configuration.metadata.name),
                    name: &webhook.name,
                    target,
                    service: webhook.client_config.service.as_ref().map(named),
                    authority: &webhook.client_config.ca_bundle,
                    kind: Kind::Webhook { is_strict: webhook.failure_policy != "Ignore" },
                });
            }
        }
    }
    for definition in objects.definitions.seen().into_iter().flatten() {
        let Some(client) = definition.converter() else { continue };
        let Some(target) = target_of(client) else { continue };
        let stored = stored(snapshot, &definition.spec.group, &definition.spec.names.plural);
        found.push(Backend {
            subject: Subject::new("CustomResourceDefinition", "", &definition.metadata.name),
            name: &definition.metadata.name,
            target,
            service: client.service.as_ref().map(named),
            authority: &client.ca_bundle,
            kind: Kind::Conversion { is_used: stored != Some(0) },
        });
    }
    for service in objects.api_services.seen().into_iter().flatten() {
        let Some(reference) = service.spec.service.as_ref().filter(|_| !service.spec.insecure_skip_tls_verify) else {
            continue;
        };
        found.push(Backend {
            subject: Subject::new("APIService", "", &service.metadata.name),
            name: &service.metadata.name,
            target: of_service(reference),
            service: Some(named(reference)),
            authority: &service.spec.ca_bundle,
            kind: Kind::Aggregated,
        });
    }
    found
}

fn named(service: &ServiceReference) -> (&str, &str) {
    (&service.namespace, &service.name)
}

fn target_of(client: &WebhookClient) -> Option<TlsTarget> {
    match &client.service {
        Some(service) => Some(of_service(service)),
        None => of_url(&client.url),
    }
}

/// Judges what was dialled. Only where nobody asked for it a backend that was not dialled says nothing.
pub fn judge(snapshot: &Snapshot, question: &Question) -> Vec<Finding> {
    let mut findings = Vec::new();
    let endpoints = snapshot.objects.slices.seen().map(|slices| ready_nodes(slices));
    let is_nobody = |service: (&str, &str)| {
        endpoints.as_ref().is_some_and(|endpoints| endpoints.get(&service).is_none_or(Vec::is_empty))
    };
    for backend in each(snapshot) {
        // Nobody answers there, which WHK-006, WHK-011 and WHK-013 say: there is no certificate to be unknown.
        if backend.service.is_some_and(is_nobody) {
            continue;
        }
        match snapshot.dialled.iter().find(|dialled| dialled.target == backend.target) {
            Some(dialled) => judge_one(&backend, dialled, question, &mut findings),
            None if backend.kind.checks().iter().any(|check| snapshot.asked.wants_id(check)) => {
                findings.extend(not_dialled(&backend, "nobody tried"));
            }
            None => {}
        }
    }
    findings
}

/// The checks of a certificate that nobody has seen. What its trust and its signature are rests on them.
fn not_dialled(backend: &Backend<'_>, why: &str) -> Vec<Finding> {
    let [by_name, by_end, ..] = backend.kind.checks();
    let mut checks = vec![by_name, by_end];
    checks.dedup();
    let why = format!("{} was not dialled: {why}", backend.target.server_name);
    let finding = |check| Finding { subject: backend.subject.clone(), ..Finding::unknown(check, &why) };
    checks.into_iter().map(finding).collect()
}

/// Whether a DNS name is an address, as in a URL or bare.
fn reads_as(name: &str, address: IpAddr) -> bool {
    name.trim_start_matches('[').trim_end_matches(']').parse() == Ok(address)
}

fn judge_one(backend: &Backend<'_>, dialled: &Dialled, question: &Question, findings: &mut Vec<Finding>) {
    let [by_name, by_end, by_trust, by_signature] = backend.kind.checks();
    // A webhook that may fail, and one that has nothing to convert, holds nothing up.
    let worst = match backend.kind {
        Kind::Webhook { is_strict: false } | Kind::Conversion { is_used: false } => Outcome::Warn,
        _ => Outcome::Fail,
    };
    let server_name = &backend.target.server_name;
    let address: Option<IpAddr> = server_name.parse().ok();
    let say = |check: &'static str, sentence: &'static str, outcome: Outcome| {
        Finding::new(check, sentence, outcome, backend.subject.clone())
            .with("webhook", backend.name)
            .with("name", server_name)
            .with("san", if address.is_some() { format!("IP:{server_name}") } else { format!("DNS:{server_name}") })
            .seen(check, format!("dialled via {}", dialled.via))
    };
    let chain = match &dialled.outcome {
        TlsOutcome::Presented { chain } => chain,
        TlsOutcome::Failed { why } => {
            findings.push(say(by_name, "no-handshake", worst).with("why", why));
            return;
        }
        TlsOutcome::NotSeen { why } => {
            findings.extend(not_dialled(backend, why));
            return;
        }
    };
    let Judged { names, name_fits, not_before, not_after, trust, is_sha1 } =
        match judge_chain(chain, backend.authority, server_name, question.now) {
            Ok(judged) => judged,
            Err(why) => {
                findings.push(say(by_name, "no-handshake", worst).with("why", why));
                return;
            }
        };
    if names.is_empty() {
        findings.push(say(by_name, "no-san", worst));
    } else if !name_fits && address.is_some_and(|own| names.iter().any(|name| reads_as(name, own))) {
        findings.push(say(by_name, "dns-san", worst));
    } else if !name_fits {
        findings.push(say(by_name, "wrong-san", worst).with("names", names.join(", ")));
    }
    let now = question.now.as_second();
    let days = (not_after - now).div_euclid(86400);
    if not_after < now {
        findings.push(say(by_end, "ended", worst).with("days", -days));
    } else if not_before > now {
        findings.push(say(by_end, "not-yet", worst));
    } else if not_after < now + WITHIN_SECONDS {
        findings.push(say(by_end, "within", worst).with("hours", (not_after - now).div_euclid(3600)));
    } else if days < DAYS_WARN {
        findings.push(say(by_end, "soon", Outcome::Warn).with("days", days));
    }
    if is_sha1 {
        findings.push(say(by_signature, "signed", worst));
    }
    match trust {
        Trust::Good => {}
        Trust::Untrusted(why) => findings.push(say(by_trust, "untrusted", worst).with("why", why)),
        Trust::NotJudged(why) => {
            findings.push(Finding { subject: backend.subject.clone(), ..Finding::unknown(by_trust, why) })
        }
    }
}

#[cfg(test)]
mod tests;
