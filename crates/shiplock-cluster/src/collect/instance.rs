//! Each instance of the API server, asked at its own address.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use serde::Deserialize;
use shiplock_check::api::metrics::Metrics;
use shiplock_check::snapshot::{Instance, Read};

use super::kept::{Counted, catch_up};
use super::request::Requests;
use crate::connection::Connection;
use crate::survey::{INSTANCES_MAX, instance_addresses};

/// The checks that read instances.
pub(super) const CHECKS: &[&str] =
    &["API-008", "WHK-004", "WHK-005", "CP-001", "CP-005", "CP-006", "CP-011", "VER-006"];
/// A line of metrics is not longer.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Asks all instances, each after its caches of the lists with these paths have caught up with etcd.
pub(super) async fn all(requests: &Requests<'_>, connection: &Connection, paths: &[&str]) -> Vec<Counted> {
    let addresses = match instance_addresses(connection).await {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return vec![unseen(&connection.server, "the Service kubernetes has no endpoints")],
        Err(problem) => return vec![unseen(&connection.server, &problem.to_string())],
    };
    futures::stream::iter(addresses)
        .map(|address| async move {
            match connection.to_instance(&address) {
                Some(Ok(instance)) => one(requests, &instance, address, paths).await,
                Some(Err(problem)) => unseen(&address, &problem.to_string()),
                None => one(requests, connection, address, paths).await,
            }
        })
        .buffered(INSTANCES_MAX)
        .collect()
        .await
}

fn unseen(address: &str, why: &str) -> Counted {
    let instance = Instance {
        address: address.to_owned(),
        metrics: Read::NotSeen(why.to_owned()),
        version: Read::NotSeen(why.to_owned()),
        not_ready: Read::NotSeen(why.to_owned()),
    };
    Counted { instance, caught_up: BTreeSet::new() }
}

async fn one(requests: &Requests<'_>, instance: &Connection, address: String, paths: &[&str]) -> Counted {
    let caught_up = catch_up(requests, instance, paths).await;
    let (metrics, version, ready) = futures::join!(
        metrics(requests, instance, &address),
        requests.get_from(instance, "/version", "application/json"),
        requests.get_from(instance, "/readyz?verbose", "text/plain"),
    );
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let version = match version.map(|body| serde_json::from_slice::<Version>(&body)) {
        Ok(Ok(version)) => Read::Seen(version.git_version),
        Ok(Err(_)) => Read::NotSeen("its answer is no version".to_owned()),
        Err(failure) => Read::NotSeen(failure.why),
    };
    let not_ready = match ready {
        Ok(_) => Read::Seen(Vec::new()),
        Err(failure) if failure.status >= 500 => Read::Seen(vec![failure.why]),
        Err(failure) => Read::NotSeen(failure.why),
    };
    Counted { instance: Instance { address, metrics, version, not_ready }, caught_up }
}

async fn metrics(requests: &Requests<'_>, instance: &Connection, address: &str) -> Read<Metrics> {
    let mut metrics = Metrics { address: address.to_owned(), samples: Vec::new() };
    let mut rest: Vec<u8> = Vec::new();
    let mut line = |line: &[u8]| {
        if let Ok(line) = std::str::from_utf8(line) {
            metrics.take(line);
        }
    };
    let outcome = requests
        .stream(instance, "/metrics", "text/plain;version=0.0.4", |chunk| {
            let mut begin = 0;
            for (end, _) in chunk.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
                if rest.is_empty() {
                    line(&chunk[begin..end]);
                } else {
                    rest.extend_from_slice(&chunk[begin..end]);
                    line(&rest);
                    rest.clear();
                }
                begin = end + 1;
            }
            if rest.len() + chunk.len() - begin > LINE_BYTES_MAX {
                return Err("a line of its metrics does not end".to_owned());
            }
            rest.extend_from_slice(&chunk[begin..]);
            Ok(())
        })
        .await;
    match outcome {
        Ok(()) => Read::Seen(metrics),
        Err(failure) => Read::NotSeen(failure.why),
    }
}
