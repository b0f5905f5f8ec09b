//! A close look at the node for the pre-check. It changes nothing, each part is bounded in time, and all parts are
//! looked at side by side.

mod kubelet;
mod machine;
mod network;
mod package_source;

use std::fs;
use std::path::Path;

use futures::future::join_all;
use jiff::Timestamp;
use shiplock_core::facts::examination::{
    CertificateEnd, ImageFound, Look, NodeExamination, NodeQuestion, RuntimeHealth, TlsDialled, TlsTarget, WantedImage,
};
use shiplock_core::problem::Problem;

use crate::control_plane::certificates;
use crate::download::Mirror;
use crate::host::Host;

/// More servers than this are not dialled for one question.
const DIALLED_MAX: usize = 8;
/// Where the kubelet keeps its certificates.
const KUBELET_CERTIFICATES: [&str; 2] =
    ["/var/lib/kubelet/pki/kubelet-client-current.pem", "/var/lib/kubelet/pki/kubelet-server-current.pem"];

/// Looks at the node.
pub async fn examine<H: Host>(host: &H, data_folder: &Path, question: &NodeQuestion) -> NodeExamination {
    let machine = machine::Reader { host, data_folder };
    let (
        systemd_version,
        file_system_errors,
        time,
        runtime,
        kubelet,
        package_source,
        packet_filter,
        mirror,
        dialled,
        names,
    ) = futures::join!(
        machine.systemd_version(),
        machine.file_system_errors(),
        machine.time(),
        runtime(host),
        kubelet::look(host),
        package_source::look(host, data_folder),
        network::packet_filter(host),
        mirror_and_images(host, question),
        dial(host, &question.dial),
        network::names(host),
    );
    let (mirror, images) = mirror;
    let (host_name, host_name_resolves, firewall) = names;
    let (kernel, proxies, ports) = (machine.kernel().await, network::proxies(host).await, network::ports(host));
    NodeExamination {
        // Last, so that little time passes until it is compared.
        clock: Timestamp::now(),
        host_name,
        host_name_resolves,
        operating_system: machine.operating_system(),
        kernel,
        systemd_version,
        cgroup_version: machine.cgroup_version(),
        file_systems: machine.file_systems(),
        file_system_errors,
        swaps: machine.swaps(),
        time,
        runtime,
        kubelet,
        package_source,
        packet_filter,
        selinux_enforces: fs::read_to_string(host.at("/sys/fs/selinux/enforce")).is_ok_and(|text| text.trim() == "1"),
        firewall,
        ports,
        proxies,
        certificates: certificate_ends(host),
        mirror,
        images,
        dialled,
    }
}

/// One that does not answer is asked once more: on a busy node an answer may be late, which is not silence.
async fn runtime<H: Host>(host: &H) -> Look<RuntimeHealth> {
    match host.runtime_health().await {
        Ok(health) => Ok(health),
        Err(_) => host.runtime_health().await.map_err(in_words),
    }
}

/// One after the other: few are dialled from nodes, and each is bounded.
async fn dial<H: Host>(host: &H, targets: &[TlsTarget]) -> Vec<TlsDialled> {
    let mut dialled = Vec::new();
    for target in targets.iter().take(DIALLED_MAX) {
        dialled.push(TlsDialled { target: target.clone(), outcome: host.dial(target).await });
    }
    dialled
}

fn in_words(problem: Problem) -> String {
    let causes: Vec<&str> = problem.causes.iter().map(String::as_str).collect();
    if causes.is_empty() { problem.to_string() } else { format!("{problem}: {}", causes.join(": ")) }
}

fn certificate_ends<H: Host>(host: &H) -> Vec<CertificateEnd> {
    let kubelet = KUBELET_CERTIFICATES.iter().map(|path| host.at(path));
    let mut ends: Vec<CertificateEnd> = certificates::files(host)
        .into_iter()
        .chain(kubelet)
        .filter_map(|path| {
            Some(CertificateEnd { ends_at: certificates::end_of(host, &path)?, path: host.node_path(&path) })
        })
        .collect();
    ends.sort_by(|one, other| (one.ends_at, &one.path).cmp(&(other.ends_at, &other.path)));
    ends
}

async fn mirror_and_images<H: Host>(host: &H, question: &NodeQuestion) -> (Option<Look<u64>>, Vec<ImageFound>) {
    let Some(root) = &question.mirror else { return (None, Vec::new()) };
    let mirror = match Mirror::open(root, "this node") {
        Ok(mirror) => mirror,
        Err(problem) => return (Some(Err(in_words(problem))), Vec::new()),
    };
    let index = mirror.index_size().await;
    // One that does not answer would be waited for with each image.
    let reachable = index.is_ok().then_some(&mirror);
    let images = join_all(question.images.iter().map(|wanted| image(host, reachable, wanted))).await;
    (Some(index), images)
}

async fn image<H: Host>(host: &H, mirror: Option<&Mirror>, wanted: &WantedImage) -> ImageFound {
    let here = host.image_id(&wanted.reference).await;
    let available = match (here, mirror) {
        (Ok(Some(_)), _) => Ok(()),
        (_, Some(mirror)) => mirror.has(&wanted.path).await,
        (Ok(None), None) => Err("the runtime does not have it, and the mirror does not answer".to_owned()),
        (Err(problem), None) => Err(in_words(problem)),
    };
    ImageFound { reference: wanted.reference.clone(), available }
}
