//! What a close look at a simulated machine shows, for the pre-check.
//!
//! What the world holds of a machine is told as it is; the rest, such as its kernel and its clock, is that of a machine
//! that is well, as the demo's machines are.

use jiff::Timestamp;
use shiplock_core::facts::examination::{
    CertificateEnd, FileSystem, ImageFound, Kernel, KubeletHealth, NodeExamination, NodeQuestion, OperatingSystem,
    PackageSource, PacketFilter, PortOwner, RuntimeHealth, TimeService, TlsDialled, TlsOutcome,
};

use crate::machine::{API_SERVER_CERTIFICATE, certificates_end_at};
use crate::release::artefacts;
use crate::world::{Installed, World};

/// The size of a simulated disk.
const DISK_BYTES: u64 = 100 << 30;

/// Looks at a machine that is on.
pub(super) fn examine(world: &World, id: u32, question: &NodeQuestion) -> Option<NodeExamination> {
    let machine = world.machine(id).filter(|machine| machine.on)?;
    let runs = |installed: &Installed| installed.running.clone();
    let runtime = runs(&machine.runtime).ok_or_else(|| "containerd does not answer".to_owned());
    let owner = |port, process: &str| PortOwner { port, process: process.to_owned() };
    let is_master = !machine.static_pods.is_empty();
    let of_masters = [(2379, "etcd"), (2380, "etcd"), (10257, "kube-controller"), (10259, "kube-scheduler")];
    let ports = of_masters.into_iter().filter(|_| is_master).chain([(10250, "kubelet")]);
    let artefacts: usize = artefacts().releases.iter().map(|release| release.files.len() + release.images.len()).sum();
    Some(NodeExamination {
        // The server compares it with its own, not with the cluster's faster one.
        clock: Timestamp::now(),
        host_name: machine.name.to_string(),
        host_name_resolves: true,
        operating_system: Ok(OperatingSystem {
            id: "debian".to_owned(),
            version_id: "12".to_owned(),
            name: "Debian GNU/Linux 12 (bookworm)".to_owned(),
            custom_marks: Vec::new(),
        }),
        kernel: Kernel { release: "6.1.0-41-amd64".to_owned(), missing_modules: Vec::new() },
        systemd_version: Ok("252".to_owned()),
        cgroup_version: Ok(2),
        file_systems: vec![FileSystem {
            path: "/".to_owned(),
            size_bytes: DISK_BYTES,
            free_bytes: if machine.faults.disk_full { 0 } else { machine.disk_free_bytes },
            inodes: 6_500_000,
            free_inodes: 6_000_000,
            is_read_only: false,
        }],
        file_system_errors: Ok(Vec::new()),
        swaps: Ok(Vec::new()),
        time: Ok(TimeService { is_synchronized: true, told_by: "timedatectl".to_owned() }),
        runtime: runtime.map(|running| RuntimeHealth {
            version: running.version.to_string(),
            not_ready: Vec::new(),
            list_milliseconds: 20,
            tells_cgroup_driver: !running.version.starts_with("v1."),
        }),
        kubelet: Ok(KubeletHealth {
            ill: runs(&machine.kubelet).is_none().then(|| "connection refused".to_owned()),
            pleg: None,
            starts: 0,
            api_version: "kubelet.config.k8s.io/v1beta1".to_owned(),
            fails_on_swap: true,
            swap_behavior: None,
            fails_on_cgroup_v1: None,
            reserved: [("kubeReserved.memory".to_owned(), "512Mi".to_owned())].into(),
            feature_gates: Default::default(),
            flags: Vec::new(),
            edits: Ok(Vec::new()),
            api_server_host: "127.0.0.1".to_owned(),
        }),
        package_source: Ok(PackageSource { manager: "apt-get".to_owned(), sources: 3, failure: None }),
        packet_filter: Ok(PacketFilter { backend: "nf_tables".to_owned(), other_tables: Vec::new() }),
        selinux_enforces: false,
        firewall: None,
        ports: Ok(ports.map(|(port, process)| owner(port, process)).collect()),
        proxies: Vec::new(),
        certificates: is_master
            .then(|| CertificateEnd { path: API_SERVER_CERTIFICATE.to_owned(), ends_at: certificates_end_at(world) })
            .into_iter()
            .collect(),
        mirror: question.mirror.is_some().then_some(Ok(artefacts as u64)),
        images: question
            .images
            .iter()
            .map(|wanted| ImageFound { reference: wanted.reference.clone(), available: Ok(()) })
            .collect(),
        dialled: question
            .dial
            .iter()
            .map(|target| TlsDialled {
                target: target.clone(),
                outcome: TlsOutcome::NotSeen { why: "a simulated machine reaches no other".to_owned() },
            })
            .collect(),
    })
}
