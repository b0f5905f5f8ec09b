//! `--probe`: nodes are looked at by short-lived pods, which go again whatever comes of it.

use shiplock_check::snapshot::Snapshot;
use shiplock_cluster::InlinedKubeconfig;
use shiplock_cluster::probe::{LABEL, NAMESPACE, probe, sweep};
use shiplock_core::problem::{Code, Problem};

use crate::attached::interrupted;
use crate::output::Output;
use crate::render::table::one_line;

/// Probes every node and puts what came of it into the snapshot; where none could be probed, why. Ctrl-C, or an end that the
/// system asks for, takes the pods away before it ends.
pub(super) async fn nodes(
    kubeconfig: &InlinedKubeconfig,
    snapshot: &mut Snapshot,
    output: &Output,
) -> Result<(), Problem> {
    let run = format!("{:x}-{}", jiff::Timestamp::now().as_millisecond(), std::process::id());
    let english = "probing: a pod on each node, gone when this ends: kubectl get pods";
    let chinese = "正在探测：每个节点一个 pod，结束时删除：kubectl get pods";
    let of_run = format!("-n {NAMESPACE} -l {LABEL}={run}");
    output.remark(&format!("{} {of_run}", output.pick(english, chinese)));
    let probed = tokio::select! {
        probed = probe(kubeconfig, &run) => Some(probed),
        () = interrupted() => None,
    };
    let may_be_left = !matches!(probed, Some(Err(_)));
    if may_be_left && let Err(problem) = sweep(kubeconfig, &run).await {
        let english = "pods of the probe may be left; delete them: kubectl delete pods";
        let chinese = "探测所用的 pod 可能仍在；请删除：kubectl delete pods";
        output.remark(&format!("{} {of_run} ({})", output.pick(english, chinese), one_line(&problem.to_string())));
    }
    match probed {
        Some(Ok(nodes)) => snapshot.nodes = nodes,
        Some(Err(problem)) => snapshot.nodes_unseen = Some(problem.to_string()),
        None => {
            let problem = Problem::new(Code::ClusterNotRead).with("cluster", &kubeconfig.server);
            let problem = problem.with("since", jiff::Timestamp::now());
            return Err(problem.cause("interrupted: no node was looked at"));
        }
    }
    Ok(())
}
