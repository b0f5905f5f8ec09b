//! Whether this master may be touched now: looked at right before the act, and never taken from facts that were told.

use std::time::Duration;

use serde_json::Value;
use shiplock_core::facts::{ControlPlaneComponent, EtcdClusterFacts};
use shiplock_core::problem::{Code, Problem};

use super::ground::Ground;
use crate::control_plane::manifest::{Manifest, bracketed};
use crate::control_plane::{kubeconfig, own_member};
use crate::endpoint::Question;
use crate::host::Host;
use crate::steps::Failure;

const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints/kubernetes";
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

impl<H: Host> Ground<'_, H> {
    /// Nothing where etcd keeps its quorum and another API server is ready; the leadership is elsewhere then. A swap
    /// that has begun is brought to its end also where this very member is away because of it.
    pub(super) async fn guard(&self, begun: bool) -> Result<(), Failure> {
        let host = &*self.step.host;
        let manifests = self.manifests()?;
        let Some(api_server) = manifests.get(&ControlPlaneComponent::KubeApiserver) else { return Ok(()) };
        if !self.is_only && !begun && !self.is_another_ready(api_server).await {
            return Err(Failure::retryable(Problem::new(Code::NoOtherApiServer).with("node", self.node())));
        }
        let etcd = match own_member(host, api_server, manifests.get(&ControlPlaneComponent::Etcd)) {
            // Elsewhere: it is not touched.
            None => return Ok(()),
            Some(etcd) => etcd.map_err(|problem| self.named(problem))?,
        };
        let cluster = match etcd.cluster(host).await {
            Err(_) if begun => return Ok(()),
            cluster => cluster.map_err(|problem| Failure::retryable(self.named(problem)))?,
        };
        self.check(&cluster, begun)?;
        if cluster.leader_id == cluster.own_id && !self.is_only {
            self.step.progress("moving_leader");
            let cluster = etcd.give_leadership_away(host).await;
            let cluster = cluster.map_err(|problem| Failure::retryable(self.named(problem)))?;
            self.check(&cluster, begun)?;
        }
        Ok(())
    }

    fn node(&self) -> &str {
        self.step.assignment.node.as_str()
    }

    fn named(&self, problem: Problem) -> Problem {
        if problem.code == Code::EtcdNotWell { problem.with("node", self.node()) } else { problem }
    }

    fn check(&self, cluster: &EtcdClusterFacts, begun: bool) -> Result<(), Failure> {
        let own_is_ill =
            cluster.members.iter().any(|member| member.id == cluster.own_id && member.healthy_version.is_none());
        match cluster.why_untouchable() {
            Some(_) if begun && own_is_ill => Ok(()),
            Some(why) => {
                let problem = Problem::new(Code::EtcdNotWell).with("node", self.node()).with("why", why);
                Err(Failure::retryable(problem))
            }
            None => Ok(()),
        }
    }

    /// Whether an API server on another master says that it is ready. All that there are tell their addresses in the
    /// Endpoints of Service `kubernetes`, which nodes may read.
    async fn is_another_ready(&self, api_server: &Manifest) -> bool {
        let host = &*self.step.host;
        let Ok(own) = kubeconfig::read(host, kubeconfig::KUBELET) else { return false };
        let ask = async |url: &str| {
            let question = Question { url, trust: &own.trust, body: None, limit: ANSWER_LIMIT };
            host.ask(&question).await.ok().filter(|answer| answer.status == 200)
        };
        let Some(answer) = ask(&format!("{}{ENDPOINTS}", own.server)).await else { return false };
        let own_address = api_server.advertised().map(|(address, _)| address).unwrap_or_default();
        for (address, port) in addresses(&answer.body) {
            if address != own_address && ask(&format!("https://{}:{port}/readyz", bracketed(&address))).await.is_some()
            {
                return true;
            }
        }
        false
    }
}

fn addresses(body: &str) -> Vec<(String, u64)> {
    let endpoints: Value = serde_json::from_str(body).unwrap_or_default();
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut found = Vec::new();
    for subset in list(&endpoints, "subsets") {
        let port = list(&subset, "ports").first().and_then(|port| port.get("port")).and_then(Value::as_u64);
        for address in list(&subset, "addresses") {
            if let (Some(ip), Some(port)) = (address.get("ip").and_then(Value::as_str), port) {
                found.push((ip.to_owned(), port));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_api_servers_are_read_from_their_endpoints() {
        let body = r#"{"subsets":[{"addresses":[{"ip":"10.0.0.1"},{"ip":"fd00::2"}],"ports":[{"name":"https","port":6443}]}]}"#;
        assert_eq!(addresses(body), [("10.0.0.1".to_owned(), 6443), ("fd00::2".to_owned(), 6443)]);
        assert!(addresses("{}").is_empty() && addresses("").is_empty());
    }
}
