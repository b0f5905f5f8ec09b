//! Looks at a real cluster through the port, and tries its acts by hand.
//!
//! `inspect KUBECONFIG [snapshot | facts | watch | role | cordon NODE | uncordon NODE | drain NODE SECONDS | claim |
//! release]`, with `EPOCH`, `UPGRADE` and `ON_TIMEOUT` from the environment.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use shiplock_cluster::port::{Claim, Cluster as _};
use shiplock_cluster::{Kubeconfig, KubeconfigSource, KubernetesCluster};
use shiplock_core::facts::NodeOwner;
use shiplock_core::id::{Epoch, NodeName, ObjectUid, UpgradeId};
use shiplock_core::language::Language;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::OnDrainTimeout;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}\n{}", problem.fix(Language::En));
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[&str]) -> Result<(), Problem> {
    let usage = || Problem::new(Code::BadRequest).with("what", "see the head of this example");
    let (path, rest) = words.split_first().ok_or_else(usage)?;
    if *path == "role" {
        print!("{}", shiplock_cluster::role::ROLE_MANIFEST);
        return Ok(());
    }
    let inlined = Kubeconfig::inline(&KubeconfigSource::File(PathBuf::from(path)), None, &[])?;
    let cluster = KubernetesCluster::connect(&inlined.text, &[]).await?;
    let variable = |name: &str, otherwise: &str| std::env::var(name).unwrap_or_else(|_| otherwise.to_owned());
    let upgrade = UpgradeId::from(variable("UPGRADE", "trial"));
    let owner = NodeOwner { upgrade: upgrade.clone(), epoch: Epoch(variable("EPOCH", "1").parse().unwrap_or(1)) };
    let begun = Instant::now();
    match rest {
        ["snapshot"] => print(&cluster.snapshot().await?),
        [] | ["facts"] => print(&cluster.facts().await?),
        ["watch"] => loop {
            match cluster.facts().await {
                Ok(facts) => {
                    println!("{:?} good until {} with {} pods", begun.elapsed(), facts.observed_at, facts.pods.len())
                }
                Err(problem) => println!("{:?} {problem}", begun.elapsed()),
            }
            cluster.changed().await;
        },
        ["cordon", node] => {
            println!("{:?}", cluster.cordon(&NodeName::from(*node), &uid(&cluster, node).await?, &owner).await?)
        }
        ["uncordon", node] => {
            println!("{:?}", cluster.uncordon(&NodeName::from(*node), &uid(&cluster, node).await?, &owner).await?)
        }
        ["drain", node, seconds] => {
            drain(&cluster, node, seconds.parse().unwrap_or(60), &variable("ON_TIMEOUT", "pause")).await?
        }
        ["claim"] => {
            let event_number = variable("EVENT", "1").parse().unwrap_or(1);
            let claim = Claim { installation: variable("INSTALLATION", "here"), upgrade, event_number };
            println!("{:?}", cluster.claim(&claim).await?);
        }
        ["release"] => cluster.release(&upgrade).await?,
        _ => return Err(usage()),
    }
    eprintln!("took {:?}", begun.elapsed());
    Ok(())
}

fn print(facts: &impl serde::Serialize) {
    println!("{}", serde_json::to_string_pretty(facts).unwrap_or_default());
}

async fn uid(cluster: &KubernetesCluster, node: &str) -> Result<ObjectUid, Problem> {
    let found = cluster.node(&NodeName::from(node)).await?;
    found
        .map(|found| found.uid)
        .ok_or_else(|| Problem::new(Code::NodeUnknown).with("cluster", "this").with("node", node))
}

async fn drain(cluster: &KubernetesCluster, node: &str, seconds: u64, on_timeout: &str) -> Result<(), Problem> {
    let on_timeout = match on_timeout {
        "force" => OnDrainTimeout::Force,
        "skip" => OnDrainTimeout::Skip,
        _ => OnDrainTimeout::Pause,
    };
    // Caches make the drain react sooner, as they do in a server.
    cluster.facts().await?;
    let shown = std::sync::Mutex::new(Vec::new());
    let progress = |waits: Vec<shiplock_core::upgrade::WaitingOn>| {
        let lines: Vec<String> = waits.iter().map(|wait| wait.sentence(Language::En)).collect();
        let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *shown != lines {
            println!("{lines:#?}");
            *shown = lines;
        }
    };
    let limit = Duration::from_secs(seconds);
    let outcome =
        shiplock_cluster::drain::drain(cluster, &NodeName::from(node), limit, on_timeout, &|| true, &progress).await;
    println!("{:?}", outcome.map_err(|(problem, _)| problem)?);
    Ok(())
}
