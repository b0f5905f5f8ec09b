//! `--probe`: nodes are looked at by short-lived pods, which go again whatever comes of it.

use shiplock_check::node::ExaminedNode;
use shiplock_cluster::InlinedKubeconfig;
use shiplock_cluster::probe::{LABEL, NAMESPACE, probe, sweep};
use shiplock_core::problem::{Code, Problem};

use crate::attached::interrupted;
use crate::output::Output;

/// Probes every node. Ctrl-C, or an end that the system asks for, takes the pods away before it ends.
pub(super) async fn nodes(kubeconfig: &InlinedKubeconfig, output: &Output) -> Result<Vec<ExaminedNode>, Problem> {
    let run = format!("{:x}-{}", jiff::Timestamp::now().as_millisecond(), std::process::id());
    let english = "probing: a pod on each node, gone when this ends: kubectl get pods";
    let chinese = "正在探测：每个节点一个 pod，结束时删除：kubectl get pods";
    output.remark(&format!("{} -n {NAMESPACE} -l {LABEL}={run}", output.pick(english, chinese)));
    let probed = tokio::select! {
        probed = probe(kubeconfig, &run) => probed,
        () = interrupted() => {
            let problem = Problem::new(Code::ClusterNotRead).with("cluster", &kubeconfig.server);
            Err(problem.with("since", jiff::Timestamp::now()).cause("interrupted: no node was looked at"))
        }
    };
    let swept = sweep(kubeconfig, &run).await;
    let probed = probed?;
    swept?;
    Ok(probed)
}
