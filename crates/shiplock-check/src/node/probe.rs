//! What a probe pod tells of its node where there is no agent: a short script that only reads, and how its words are read.
//!
//! It sees less than an agent does: the kubelet's health, the runtime, ports, the package manager and the mirror are not
//! looked at, and the checks that need them are skipped.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use shiplock_core::facts::examination::{
    CertificateEnd, FileSystem, Kernel, KubeletHealth, Look, NodeExamination, OperatingSystem,
};
use x509_parser::pem::Pem;

/// What a probe runs with `sh`, with the node's programs and libraries, and its root read-only at `/host`.
pub const SCRIPT: &str = r##"p() { printf '\n=== %s\n' "$1"; }
p clock; date -u +%s
p host; uname -n
p kernel; uname -r
p modules; for m in overlay br_netfilter nf_conntrack; do
  if [ ! -e "/sys/module/$m" ] && ! grep -qw "$m" /proc/filesystems && ! grep -q "/$m\.ko" "/host/lib/modules/$(uname -r)/modules.dep" "/host/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null; then echo "$m"; fi
done
p os; cat /host/etc/os-release 2>/dev/null || cat /host/usr/lib/os-release
p systemd; systemctl --version 2>/dev/null | head -n 1
p cgroup; if [ -e /host/sys/fs/cgroup/cgroup.controllers ]; then echo 2; elif [ -d /host/sys/fs/cgroup ]; then echo 1; fi
p swaps; cat /proc/swaps
p kubelet; cat /host/var/lib/kubelet/config.yaml
p disks; for d in / /var/lib/kubelet /var/lib/containerd /var/lib/etcd /etc/kubernetes; do
  if [ -d "/host$d" ]; then stat -f -c "%i %S %b %a %c %d $d" "/host$d"; fi
done
p mounts; grep -E ' /host(/var|/var/lib|/var/lib/kubelet|/var/lib/containerd|/var/lib/etcd|/etc|/etc/kubernetes)? ' /proc/self/mountinfo
p certificates; for f in /host/etc/kubernetes/pki/*.crt /host/etc/kubernetes/pki/etcd/*.crt /host/var/lib/kubelet/pki/kubelet-client-current.pem; do
  if [ -f "$f" ]; then echo "# ${f#/host}"; sed -n '/BEGIN CERTIFICATE/,/END CERTIFICATE/p' "$f"; fi
done
p end
"##;

/// The checks that an agent answers and a probe does not.
pub(super) const NOT_LOOKED_AT: [&str; 11] = [
    "NODE-003", "NODE-004", "NODE-007", "NODE-016", "NODE-017", "NODE-018", "NODE-019", "NODE-020", "NODE-021",
    "NODE-022", "NODE-023",
];

/// What its words mean for a part that it does not look at.
const NOT_ASKED: &str = "a probe does not look at it";

/// The sections of what was printed, by name.
fn sections(text: &str) -> BTreeMap<&str, &str> {
    let mut found = BTreeMap::new();
    for part in text.split("\n=== ").skip(1) {
        let (name, body) = part.split_once('\n').unwrap_or((part, ""));
        found.insert(name.trim(), body);
    }
    found
}

/// Reads what a probe printed. Fails where it did not come to its end.
pub fn read(text: &str) -> Result<NodeExamination, String> {
    let sections = sections(text);
    if !sections.contains_key("end") {
        return Err("the probe did not print all that it was to print".to_owned());
    }
    let body = |name: &str| sections.get(name).copied().unwrap_or_default();
    let word = |name: &str| body(name).trim().to_owned();
    let clock = word("clock").parse().ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    Ok(NodeExamination {
        clock: clock.ok_or_else(|| "the probe does not tell the time".to_owned())?,
        host_name: word("host"),
        host_name_resolves: true,
        operating_system: operating_system(body("os")),
        kernel: Kernel {
            release: word("kernel"),
            missing_modules: body("modules").split_whitespace().map(str::to_owned).collect(),
        },
        systemd_version: systemd_version(body("systemd")),
        cgroup_version: word("cgroup").parse().map_err(|_| "/sys/fs/cgroup is not there".to_owned()),
        file_systems: file_systems(body("disks"), body("mounts")),
        file_system_errors: Err(NOT_ASKED.to_owned()),
        swaps: swaps(body("swaps")),
        time: Err(NOT_ASKED.to_owned()),
        runtime: Err(NOT_ASKED.to_owned()),
        kubelet: kubelet(body("kubelet")),
        package_source: Err(NOT_ASKED.to_owned()),
        packet_filter: Err(NOT_ASKED.to_owned()),
        selinux_enforces: false,
        firewall: None,
        ports: Err(NOT_ASKED.to_owned()),
        proxies: Vec::new(),
        certificates: certificates(body("certificates")),
        mirror: None,
        images: Vec::new(),
        dialled: Vec::new(),
    })
}

fn operating_system(text: &str) -> Look<OperatingSystem> {
    let found = OperatingSystem::of_os_release(text);
    if found.id.is_empty() {
        return Err("/etc/os-release does not name the operating system".to_owned());
    }
    Ok(found)
}

/// `systemd 252 (252.39-1~deb12u1)`, `systemd 219`
fn systemd_version(text: &str) -> Look<String> {
    let detail = text.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(detail, _)| detail);
    let version = detail.or_else(|| text.split_whitespace().nth(1));
    version.map(str::to_owned).ok_or_else(|| "systemctl does not say its version".to_owned())
}

/// The first line is a heading.
fn swaps(text: &str) -> Look<Vec<String>> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.next().ok_or_else(|| "/proc/swaps is empty".to_owned())?;
    Ok(lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn file_systems(disks: &str, mounts: &str) -> Vec<FileSystem> {
    // Of a mount: the folder on the node, and the options of its file system, which come last. Those of the mount itself
    // are the probe's own.
    let mounts: Vec<(&str, &str)> = mounts
        .lines()
        .filter_map(|line| {
            let at = line.split(' ').nth(4)?.strip_prefix("/host")?;
            Some((if at.is_empty() { "/" } else { at }, line.rsplit(' ').next()?))
        })
        .collect();
    let holds = |mount: &str, path: &str| mount == "/" || path == mount || path.starts_with(&format!("{mount}/"));
    let is_read_only = |path: &str| {
        let nearest = mounts.iter().filter(|(mount, _)| holds(mount, path)).max_by_key(|(mount, _)| mount.len());
        nearest.is_some_and(|(_, options)| options.split(',').any(|option| option == "ro"))
    };
    let mut found: BTreeMap<&str, FileSystem> = BTreeMap::new();
    for line in disks.lines() {
        let words: Vec<&str> = line.splitn(7, ' ').collect();
        let [id, block, blocks, free, inodes, free_inodes, path] = words.as_slice() else { continue };
        let number = |text: &str| text.parse::<u64>().ok();
        let (Some(block), Some(blocks), Some(free), Some(inodes), Some(free_inodes)) =
            (number(block), number(blocks), number(free), number(inodes), number(free_inodes))
        else {
            continue;
        };
        found.entry(*id).and_modify(|known| known.path.push_str(&format!(", {path}"))).or_insert_with(|| FileSystem {
            path: (*path).to_owned(),
            size_bytes: blocks.saturating_mul(block),
            free_bytes: free.saturating_mul(block),
            inodes,
            free_inodes,
            is_read_only: is_read_only(path),
        });
    }
    found.into_values().collect()
}

/// What the kubelet's own file says; flags are not seen.
fn kubelet(text: &str) -> Look<KubeletHealth> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Settings {
        api_version: String,
        fail_swap_on: bool,
        fail_cgroup_v1: Option<bool>,
    }
    impl Default for Settings {
        fn default() -> Self {
            Self { api_version: String::new(), fail_swap_on: true, fail_cgroup_v1: None }
        }
    }
    let unread = || "/var/lib/kubelet/config.yaml could not be read".to_owned();
    let settings: Settings = serde_saphyr::from_str(text).map_err(|_| unread())?;
    if settings.api_version.is_empty() {
        return Err(unread());
    }
    Ok(KubeletHealth {
        ill: None,
        pleg: None,
        starts: 0,
        api_version: settings.api_version,
        fails_on_swap: settings.fail_swap_on,
        swap_behavior: None,
        fails_on_cgroup_v1: settings.fail_cgroup_v1,
        reserved: BTreeMap::new(),
        feature_gates: BTreeMap::new(),
        flags: Vec::new(),
        edits: Err(NOT_ASKED.to_owned()),
        api_server_host: String::new(),
    })
}

/// `# PATH`, then the certificates of that file.
fn certificates(text: &str) -> Vec<CertificateEnd> {
    let mut found = Vec::new();
    for part in format!("\n{text}").split("\n# ").skip(1) {
        let (path, pem) = part.split_once('\n').unwrap_or((part, ""));
        let pems = Pem::iter_from_buffer(pem.as_bytes()).flatten();
        let end = pems.filter_map(|pem| Some(pem.parse_x509().ok()?.validity().not_after.timestamp())).min();
        if let Some(ends_at) = end.and_then(|seconds| Timestamp::from_second(seconds).ok()) {
            found.push(CertificateEnd { path: path.trim().to_owned(), ends_at });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "
=== clock
1795478400

=== host
w1

=== kernel
6.1.0-41-amd64

=== modules
br_netfilter

=== os
PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"
VERSION_ID=\"12\"
ID=debian
IMAGE_ID=ours

=== systemd
systemd 252 (252.39-1~deb12u1)

=== cgroup
2

=== swaps
Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/swapfile                               file\t\t1048572\t\t0\t\t-2

=== kubelet
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false

=== disks
a1 4096 1000 500 100 50 /
a1 4096 1000 500 100 50 /var/lib/kubelet
b2 1024 100 1 0 0 /var/lib/etcd
nonsense

=== mounts
1 2 8:1 / /host ro,relatime - ext4 /dev/sda1 rw,errors=remount-ro
3 1 0:9 / /host/var/lib/etcd rw,relatime shared:7 - tmpfs tmpfs ro,size=1024k

=== certificates
# /etc/kubernetes/pki/apiserver.crt
CERTIFICATE
=== end
";

    #[test]
    fn what_a_probe_prints_is_read_and_a_part_that_is_missing_is_no_answer() {
        let text = PRINTED.replace("CERTIFICATE\n", include_str!("../tls/testdata/corpus/names.pem"));
        let found = read(&text).unwrap();
        assert_eq!((found.host_name.as_str(), found.kernel.release.as_str()), ("w1", "6.1.0-41-amd64"));
        assert_eq!(found.kernel.missing_modules, ["br_netfilter"]);
        assert_eq!(found.operating_system.unwrap().custom_marks, ["IMAGE_ID=ours"]);
        assert_eq!(found.systemd_version.as_deref(), Ok("252.39-1~deb12u1"));
        assert_eq!(found.cgroup_version, Ok(2));
        assert_eq!(found.swaps.unwrap(), ["/swapfile"]);
        assert!(!found.kubelet.unwrap().fails_on_swap);
        let disks: Vec<_> = found
            .file_systems
            .iter()
            .map(|disk| (disk.path.as_str(), disk.size_bytes, disk.free_bytes, disk.is_read_only))
            .collect();
        assert_eq!(
            disks,
            [("/, /var/lib/kubelet", 4_096_000, 2_048_000, false), ("/var/lib/etcd", 102_400, 1024, true)]
        );
        let paths: Vec<&str> = found.certificates.iter().map(|found| found.path.as_str()).collect();
        assert_eq!(paths, ["/etc/kubernetes/pki/apiserver.crt"]);
        assert!(read(text.split("=== end").next().unwrap()).is_err());
        assert!(read("").is_err());
    }

    #[test]
    fn what_could_not_be_read_is_unknown() {
        let bare = read("\n=== clock\n1795478400\n=== end\n").unwrap();
        assert!(bare.operating_system.is_err() && bare.systemd_version.is_err() && bare.cgroup_version.is_err());
        assert!(bare.swaps.is_err() && bare.kubelet.is_err() && bare.file_systems.is_empty());
    }
}
