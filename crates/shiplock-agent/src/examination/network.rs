//! Names, ports, proxies and the packet filter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use shiplock_core::facts::examination::{Look, PacketFilter, PortOwner, ProxySetting};

use super::in_words;
use crate::host::Host;
use crate::steps::READ_LIMIT;

/// The ports of kubelet, API server, controller manager, scheduler and etcd.
const PORTS: [u16; 6] = [2379, 2380, 6443, 10250, 10257, 10259];
/// The state of a socket that listens, in `/proc/net/tcp`.
const LISTENS: &str = "0A";
const FIREWALLS: [&str; 2] = ["firewalld", "ufw"];

/// The host name, whether it resolves, and the firewall that is active.
pub(super) async fn names<H: Host>(host: &H) -> (String, bool, Option<String>) {
    let name = fs::read_to_string(host.at("/proc/sys/kernel/hostname")).unwrap_or_default().trim().to_owned();
    // `getent hosts` asks for the other kind of address too, and waits for a name server that does not answer.
    let resolved = host.output("getent", &["ahosts", &name], READ_LIMIT).await.is_ok_and(|output| output.success);
    let mut firewall = None;
    for service in FIREWALLS {
        if host.service(service).await.is_ok_and(|found| found.state == "active") {
            firewall.get_or_insert(service.to_owned());
        }
    }
    (name, resolved, firewall)
}

pub(super) async fn packet_filter<H: Host>(host: &H) -> Look<PacketFilter> {
    let Some(program) = host.find_program("iptables") else {
        return Ok(PacketFilter { backend: String::new(), other_tables: Vec::new() });
    };
    let output = host.output(&program, &["--version"], READ_LIMIT).await.map_err(in_words)?;
    let backend = if output.text.contains("nf_tables") { "nf_tables" } else { "legacy" };
    // The legacy backend lists its tables here once they are in use; those of nf_tables are not among them.
    let legacy = fs::read_to_string(host.at("/proc/net/ip_tables_names")).unwrap_or_default();
    let other_tables = if backend == "nf_tables" { legacy.lines().map(str::to_owned).collect() } else { Vec::new() };
    Ok(PacketFilter { backend: backend.to_owned(), other_tables })
}

/// Who listens on the ports of Kubernetes.
pub(super) fn ports<H: Host>(host: &H) -> Look<Vec<PortOwner>> {
    let mut sockets: BTreeMap<String, u16> = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(host.at(file)).map_err(|error| format!("{file}: {error}"));
        match text {
            Ok(text) => sockets.extend(text.lines().skip(1).filter_map(listener)),
            // A kernel without IPv6 has no such file.
            Err(why) if file.ends_with("tcp") => return Err(why),
            Err(_) => {}
        }
    }
    let mut owners: BTreeSet<(u16, String)> = BTreeSet::new();
    for process in fs::read_dir(host.at("/proc")).into_iter().flatten().flatten() {
        let path = process.path();
        if !process.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        // One that ends meanwhile listens no more.
        for descriptor in fs::read_dir(path.join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if let Some(port) = inode.and_then(|inode| sockets.get(inode)) {
                let name = fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
                owners.insert((*port, name));
            }
        }
    }
    Ok(owners.into_iter().map(|(port, process)| PortOwner { port, process }).collect())
}

/// The inode and port of a line about a socket that listens on one of our ports.
fn listener(line: &str) -> Option<(String, u16)> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let port = u16::from_str_radix(columns.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    let listens = columns.get(3) == Some(&LISTENS) && PORTS.contains(&port);
    listens.then(|| columns.get(9).map(|inode| ((*inode).to_owned(), port)))?
}

/// Proxies in the environment of kubelet and runtime. Their addresses may hold passwords, and are not told.
pub(super) async fn proxies<H: Host>(host: &H) -> Vec<ProxySetting> {
    let mut found = Vec::new();
    for service in ["kubelet", "containerd"] {
        let Ok(known) = host.service(service).await else { continue };
        let environment = fs::read(host.at(&format!("/proc/{}/environ", known.main_pid))).unwrap_or_default();
        let variables: BTreeMap<String, String> = environment
            .split(|byte| *byte == 0)
            .filter_map(|entry| {
                String::from_utf8_lossy(entry).split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))
            })
            .collect();
        let value = |name: &str| variables.get(name).or_else(|| variables.get(&name.to_lowercase()));
        for variable in ["HTTP_PROXY", "HTTPS_PROXY"] {
            if value(variable).is_some_and(|proxy| !proxy.is_empty()) {
                found.push(ProxySetting {
                    service: service.to_owned(),
                    variable: variable.to_owned(),
                    except: value("NO_PROXY").cloned().unwrap_or_default(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_counts_where_it_listens_on_a_port_of_kubernetes() {
        let line = |port: &str, state: &str| {
            format!("0: 00000000:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 4711 1 x")
        };
        assert_eq!(listener(&line("280A", "0A")), Some(("4711".to_owned(), 10250)));
        assert_eq!(listener(&line("280A", "01")), None, "a connection");
        assert_eq!(listener(&line("0016", "0A")), None, "another port");
        assert_eq!(listener("damaged"), None);
    }
}
