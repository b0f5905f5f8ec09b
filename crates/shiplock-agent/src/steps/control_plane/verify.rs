//! Judges the components, each by its own endpoint, its running container and the version that it answers.
//!
//! That the node is Ready says nothing here: a new kubelet is Ready before it starts its static pods anew.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::version::MinorVersion;

use crate::control_plane::manifest::Manifest;
use crate::control_plane::{is_healthy, kubeconfig, newest};
use crate::cri::Container;
use crate::endpoint::{Question, Trust};
use crate::host::Host;
use crate::steps::logs::end_of;
use crate::steps::{Step, kubelet};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A component may take its time on a slow disk; one that ends again and again is not waited for.
const LIMIT: Duration = Duration::from_secs(180);
/// So long everything must stay as it came up.
const STABLE: Duration = Duration::from_secs(3);
/// A component that has ended so often, while what it needs is well, ends again.
const ENDS_MAX: u32 = 3;
/// A kubelet is up at once, and makes containers at once; where there is none after so long, it cannot.
const NONE_MADE: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_millis(1500);
const LOG_BYTES_MAX: usize = 4 << 10;
const LOG_LOOKS: u32 = 40;
const LOG_LINES: usize = 12;

/// A component as it must run.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) component: ControlPlaneComponent,
    /// Its manifest; where it tells its health does not change with it.
    pub(super) manifest: Manifest,
    /// The reference of its image.
    pub(super) reference: String,
    /// The digest of that image's configuration.
    pub(super) image_id: String,
}

/// Looks at components.
pub(super) struct Judge<'a, H> {
    pub(super) step: &'a Step<H>,
    pub(super) expected: &'a [Expected],
    /// Those that must run in another container than before.
    pub(super) stopped: &'a [ControlPlaneComponent],
    /// The containers from before.
    pub(super) old: BTreeSet<String>,
    /// The digest of the kubelet's executable, where it is swapped too.
    pub(super) kubelet: Option<&'a str>,
    /// The version that the API server must answer.
    pub(super) version: &'a str,
    /// The minor version that it must answer that it behaves like; none where nothing is known of that.
    pub(super) behaves_like: Option<MinorVersion>,
}

/// What is wrong.
#[derive(Clone, Debug)]
pub(super) struct Wrong {
    component: &'static str,
    state: String,
    /// It ended so often.
    ended: u32,
    /// There is none of it.
    missing: bool,
}

impl<H: Host> Judge<'_, H> {
    /// Waits until everything is up and stays so. Gives the time when it was; else the problem, with the last lines of
    /// what did not come up.
    pub(super) async fn wait(&self) -> Result<Timestamp, Problem> {
        let mut waited = Duration::ZERO;
        let mut up: Option<(Timestamp, Duration, Vec<String>)> = None;
        loop {
            match self.look().await {
                Ok(containers) => match &up {
                    Some((since, at, before)) if *before == containers => {
                        if waited.saturating_sub(*at) >= STABLE {
                            return Ok(*since);
                        }
                    }
                    _ => up = Some((Timestamp::now(), waited, containers)),
                },
                Err(wrong) => {
                    up = None;
                    let hopeless = wrong.ended >= ENDS_MAX || (wrong.missing && waited >= NONE_MADE);
                    if hopeless || waited >= LIMIT {
                        return Err(self.problem(wrong).await);
                    }
                }
            }
            self.step.host.wait(LOOK_EVERY).await;
            waited += LOOK_EVERY;
        }
    }

    /// One look: the containers that everything runs in, or what is wrong first, in the order in which components need
    /// each other.
    pub(super) async fn look(&self) -> Result<Vec<String>, Wrong> {
        if let Some(sha256) = self.kubelet {
            let up = kubelet::is_up(self.step, sha256).await;
            up.map_err(|why| Wrong { missing: true, ..Wrong::of("kubelet", why) })?;
        }
        let containers = self.step.host.containers().await;
        let containers = containers.map_err(|problem| Wrong::of("containerd", problem.to_string()))?;
        let mut ids = Vec::new();
        for expected in self.expected {
            ids.push(self.look_at(expected, &containers).await?);
        }
        Ok(ids)
    }

    async fn look_at(&self, expected: &Expected, containers: &[Container]) -> Result<String, Wrong> {
        let name = expected.component.name();
        let must_be_new = self.stopped.contains(&expected.component);
        let found =
            newest(containers, expected.component).filter(|found| !must_be_new || !self.old.contains(&found.id));
        let Some(found) = found else {
            return Err(Wrong { missing: true, ..Wrong::of(name, "no container was made for it".to_owned()) });
        };
        let wrong = |state: String| Wrong::of(name, state);
        if !found.running {
            let ended = found.attempt + 1;
            return Err(Wrong { ended, ..wrong(format!("it ended {ended} times")) });
        }
        if found.image_id != expected.image_id {
            return Err(wrong(format!("it runs image {}", found.image_id)));
        }
        if !is_healthy(&*self.step.host, &expected.manifest).await {
            return Err(wrong("it runs, and its health endpoint does not say ok".to_owned()));
        }
        if expected.component == ControlPlaneComponent::KubeApiserver && self.is_of_the_plan(expected) {
            let answer = self.version_answer(&expected.manifest).await;
            let text = |name: &str| answer.as_ref().and_then(|said| said.get(name)?.as_str());
            let found = text("gitVersion").unwrap_or("none");
            if found != self.version {
                return Err(wrong(format!("it answers version {found}")));
            }
            let emulated = (text("emulationMajor").unwrap_or_default(), text("emulationMinor").unwrap_or_default());
            let as_wanted = |minor: MinorVersion| (minor.major.to_string(), minor.minor.to_string());
            if let Some(minor) = self.behaves_like.filter(|minor| {
                let (major, minor) = as_wanted(*minor);
                emulated != (&*major, &*minor)
            }) {
                return Err(wrong(format!("it behaves like {}.{}, not like {minor}", emulated.0, emulated.1)));
            }
        }
        Ok(found.id.clone())
    }

    /// Whether its image has the version of the plan; others are judged by their image alone.
    fn is_of_the_plan(&self, expected: &Expected) -> bool {
        expected.reference.ends_with(&format!(":{}", self.version))
    }

    async fn version_answer(&self, api_server: &Manifest) -> Option<Value> {
        let host = &*self.step.host;
        let root = api_server.health_url.rsplit_once('/')?.0;
        let url = format!("{root}/version");
        let question = Question { url: &url, trust: &Trust::Anybody, body: None, limit: ANSWER_LIMIT };
        let mut answer = host.ask(&question).await.ok()?;
        if matches!(answer.status, 401 | 403) {
            let own = kubeconfig::read(host, kubeconfig::KUBELET).ok()?;
            answer = host.ask(&Question { trust: &own.trust, ..question }).await.ok()?;
        }
        serde_json::from_str(&answer.body).ok()
    }

    /// One line for each component: `kube-apiserver v1.36.3`.
    pub(super) async fn versions(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for expected in self.expected {
            let tag = expected.reference.rsplit_once(':').map_or("", |(_, tag)| tag);
            let name = expected.component.name();
            let emulated = (self.behaves_like.map(|minor| minor.to_string())).filter(|minor| {
                expected.component != ControlPlaneComponent::Etcd && !self.version[1..].starts_with(minor)
            });
            lines.push(match emulated {
                Some(minor) => format!("{name} {tag} (emulates {minor})"),
                None => format!("{name} {tag}"),
            });
        }
        if self.kubelet.is_some()
            && let Ok(version) = kubelet::reported_version(self.step).await
        {
            lines.push(format!("kubelet {version}"));
        }
        lines
    }

    async fn problem(&self, wrong: Wrong) -> Problem {
        if wrong.component == "kubelet" {
            return self.step.not_up("kubelet", &wrong.state).await;
        }
        let problem = Problem::new(Code::ControlPlaneNotUp)
            .with("component", wrong.component)
            .with("node", &self.step.assignment.node)
            .with("version", self.version)
            .with("state", wrong.state);
        if !wrong.missing
            && let Some(lines) = self.last_words(wrong.component).await
        {
            return problem.cause(lines);
        }
        problem.cause(self.step.host.journal(&["kubelet"], 10).await)
    }

    /// The end of the log of the newest container that has one. A kubelet that starts a container again and again
    /// removes those before, with their logs, so that one look may find nothing.
    async fn last_words(&self, component: &str) -> Option<String> {
        for _ in 0..LOG_LOOKS {
            let mut containers = self.step.host.containers().await.unwrap_or_default();
            containers.retain(|container| container.name == component);
            containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
            for container in &containers {
                if let Some(lines) = self.last_lines(&container.id).await.filter(|lines| !lines.is_empty()) {
                    return Some(lines);
                }
            }
            self.step.host.wait(LOOK_EVERY).await;
        }
        None
    }

    /// The end of a container's log, without what the runtime puts ahead of each line.
    async fn last_lines(&self, id: &str) -> Option<String> {
        let details = self.step.host.container_details(id).await.ok()?;
        let text = fs::read(self.step.host.at(&details.log_path)).ok()?;
        let text = String::from_utf8_lossy(&text);
        let text = end_of(&text, LOG_BYTES_MAX);
        let lines: Vec<&str> =
            text.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).filter(|line| !line.is_empty()).collect();
        Some(lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }
}

impl Wrong {
    fn of(component: &'static str, state: String) -> Self {
        Self { component, state, ended: 0, missing: false }
    }
}
