//! A lab's network: one bridge, fixed addresses, and no way out.
//!
//! Nodes reach each other, the API's balancer and the mirror on the bridge address, and nothing
//! else. What a node sends anywhere else is refused *with a TCP reset*: before kube-proxy has
//! rules, a pod's first packet to a ClusterIP would otherwise leave a conntrack entry without
//! translation, and CoreDNS would be ready only after its dial timeout of 30 s.

use std::fmt::Write as _;
use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::home::write;
use super::process::{Recorded, command, run, succeeds, wait_until};

/// Port of the mirror on the bridge address.
pub const MIRROR_PORT: u16 = 8480;
/// Port of the API, on the masters and on the balancer.
pub const API_PORT: u16 = 6443;
/// All pods of a lab.
pub(crate) const POD_NET: &str = "10.244.0.0/16";

/// How many nodes of each kind have an address.
pub(crate) const MASTERS: u8 = 5;
/// As above.
pub(crate) const WORKERS: u8 = 9;

/// Names and addresses of one lab. Two labs share nothing but the machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    lab: u8,
}

impl Network {
    /// The network of the lab with this number.
    pub(crate) fn of(lab: u8) -> Self {
        Self { lab }
    }

    /// Name of the bridge.
    pub(crate) fn bridge(self) -> String {
        format!("slab{}", self.lab)
    }

    /// The first three parts of its addresses; no lab has those of Services (10.96) or pods (10.244).
    fn net(self) -> String {
        format!("10.{}.0", 100 + self.lab)
    }

    /// The machine's address on the bridge.
    pub(crate) fn gateway(self) -> String {
        format!("{}.1", self.net())
    }

    /// Name of a node for systemd-nspawn, unique on this machine.
    pub(crate) fn machine(self, node: &str) -> String {
        format!("slab{}-{node}", self.lab)
    }

    /// The machine's end of a node's cable; nspawn makes this name.
    fn cable(self, node: &str) -> String {
        format!("vb-{}", self.machine(node))
    }

    /// m1 is 11, w1 is 21: last part of the node's address, third of its pods'.
    pub(crate) fn index(node: &str) -> Result<u8> {
        let number = node.get(1..).and_then(|digits| digits.parse::<u8>().ok());
        match (node.get(..1), number) {
            (Some("m"), Some(number @ 1..=MASTERS)) => Ok(10 + number),
            (Some("w"), Some(number @ 1..=WORKERS)) => Ok(20 + number),
            _ => bail!("no node {node:?}: masters are m1 to m{MASTERS}, workers w1 to w{WORKERS}"),
        }
    }

    /// A node's address.
    pub(crate) fn address(self, node: &str) -> Result<String> {
        Ok(format!("{}.{}", self.net(), Self::index(node)?))
    }

    /// A node's pod network.
    pub(crate) fn pod_net(node: &str) -> Result<String> {
        Ok(format!("10.244.{}.0/24", Self::index(node)?))
    }

    /// Every name that a node can have.
    fn all_names() -> impl Iterator<Item = String> {
        (1..=MASTERS).map(|number| format!("m{number}")).chain((1..=WORKERS).map(|number| format!("w{number}")))
    }

    /// /etc/hosts of a node.
    pub(crate) fn hosts(self) -> Result<String> {
        let mut text = format!("127.0.0.1 localhost\n{} lab-api\n", self.gateway());
        for name in Self::all_names() {
            writeln!(text, "{} {name}", self.address(&name)?)?;
        }
        Ok(text)
    }

    /// What the node's first unit reads.
    pub(crate) fn node_settings(self, node: &str) -> Result<String> {
        let mut routes = Vec::new();
        for other in Self::all_names().filter(|other| other != node) {
            routes.push(format!("{}={}", Self::pod_net(&other)?, self.address(&other)?));
        }
        let (address, gateway) = (self.address(node)?, self.gateway());
        Ok(format!("ADDRESS={address}\nGATEWAY={gateway}\nPOD_NET={POD_NET}\nROUTES=\"{}\"\n", routes.join(" ")))
    }

    /// Makes the bridge and the refusals. What is there stays.
    pub(crate) fn create(self) -> Result<()> {
        let bridge = self.bridge();
        if !succeeds(&mut command("ip", &["link", "show", &bridge])) {
            run(&mut command("ip", &["link", "add", &bridge, "type", "bridge"]))?;
        }
        run(&mut command("ip", &["address", "replace", &format!("{}/24", self.gateway()), "dev", &bridge]))?;
        run(&mut command("ip", &["link", "set", &bridge, "up"]))?;
        if Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
            run(&mut command("sysctl", &["-qw", "net.bridge.bridge-nf-call-iptables=0"]))?;
        }
        for rule in self.refusals() {
            if !succeeds(&mut iptables("-C", &rule)) {
                run(&mut iptables("-I", &rule))?;
            }
        }
        Ok(())
    }

    /// The later one is put before the earlier one.
    fn refusals(self) -> [Vec<String>; 2] {
        let bridge = self.bridge();
        let words = |text: &str| text.replace("BRIDGE", &bridge).split(' ').map(str::to_owned).collect();
        [
            words("-i BRIDGE ! -o BRIDGE -j REJECT"),
            words("-i BRIDGE ! -o BRIDGE -p tcp -j REJECT --reject-with tcp-reset"),
        ]
    }

    /// Removes a node's cable; a killed nspawn leaves it, and the next start would fail.
    pub(crate) fn remove_cable(self, node: &str) {
        let _ = succeeds(&mut command("ip", &["link", "delete", &self.cable(node)]));
    }

    /// Removes everything of this lab.
    pub(crate) fn destroy(self) -> Result<()> {
        for name in Self::all_names() {
            if Path::new("/sys/class/net").join(self.cable(&name)).exists() {
                self.remove_cable(&name);
            }
        }
        if Path::new("/sys/class/net").join(self.bridge()).exists() {
            run(&mut command("ip", &["link", "delete", &self.bridge()]))?;
        }
        for rule in self.refusals() {
            while succeeds(&mut iptables("-C", &rule)) {
                run(&mut iptables("-D", &rule))?;
            }
        }
        Ok(())
    }
}

fn iptables(action: &str, rule: &[String]) -> std::process::Command {
    let mut iptables = command("iptables", &["-w", "30", action, "FORWARD"]);
    iptables.args(rule);
    iptables
}

/// The TCP balancer of the API on the bridge address.
#[derive(Debug)]
pub(crate) struct Balancer<'a> {
    /// The lab's folder.
    pub(crate) folder: &'a Path,
    /// The lab's network.
    pub(crate) network: Network,
}

impl Balancer<'_> {
    fn recorded(&self) -> Option<Recorded> {
        Recorded::read(&self.folder.join("haproxy.pid"), &self.folder.join("haproxy.cfg").to_string_lossy())
    }

    /// Starts it for these masters. A connection that a master refuses goes to another one, as kubeadm's guide to a
    /// highly available API has it (<https://github.com/kubernetes/kubeadm/blob/main/docs/ha-considerations.md>).
    pub(crate) fn start(&self, masters: &[String]) -> Result<()> {
        self.stop();
        let mut text = format!(
            "global\n  maxconn 2000\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 10m\n  \
             timeout server 10m\n  option redispatch\n  retries 1\nfrontend api\n  bind {}:{API_PORT}\n  default_backend masters\nbackend masters\n  \
             option httpchk GET /readyz\n  http-check expect status 200\n",
            self.network.gateway()
        );
        for master in masters {
            let address = self.network.address(master)?;
            writeln!(
                text,
                "  server {master} {address}:{API_PORT} check check-ssl verify none inter 1s fall 2 rise 1 \
                 on-marked-down shutdown-sessions"
            )?;
        }
        let config = self.folder.join("haproxy.cfg");
        write(&config, &text, 0o644)?;
        let mut haproxy = command("haproxy", &["-D", "-q", "-p"]);
        haproxy.arg(self.folder.join("haproxy.pid")).arg("-f").arg(config);
        // The daemon keeps what it gets; a pipe would never end.
        let status = haproxy.stdout(Stdio::null()).stderr(Stdio::null()).status().context("cannot start haproxy")?;
        if !status.success() {
            bail!("the API's balancer does not start: does something else use {}:{API_PORT}?", self.network.gateway());
        }
        Ok(())
    }

    /// Ends it.
    pub(crate) fn stop(&self) {
        if let Some(process) = self.recorded() {
            process.end(Duration::from_secs(2));
        }
    }
}

/// Waits until somebody takes connections there.
pub(crate) fn wait_for_port(address: &str, bound: Duration) -> Result<()> {
    let address = address.to_socket_addrs()?.next().context("no address")?;
    wait_until(&format!("a connection to {address}"), bound, || {
        Ok(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok())
    })
}

/// Reads a pid file that a program of ours wrote, for `status`.
pub(crate) fn balancer_runs(folder: &Path, network: Network) -> bool {
    let balancer = Balancer { folder, network };
    balancer.recorded().is_some() && fs::exists(folder.join("haproxy.cfg")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_labs_share_no_address() {
        assert_eq!(Network::of(0).address("m1").unwrap(), "10.100.0.11");
        assert_eq!(Network::of(1).address("w9").unwrap(), "10.101.0.29");
        assert_eq!(Network::pod_net("w1").unwrap(), "10.244.21.0/24");
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in ["", "m0", "m6", "w10", "x1", "w", "m1; rm"] {
            assert!(Network::index(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_node_has_a_route_to_every_other_and_none_to_itself() {
        let text = Network::of(3).node_settings("w2").unwrap();
        assert!(text.contains("10.244.11.0/24=10.103.0.11") && !text.contains("10.244.22.0/24="));
        assert_eq!(text.matches('=').count(), 4 + usize::from(MASTERS + WORKERS) - 1);
    }
}
