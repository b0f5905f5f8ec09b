//! What kubeadm keeps in ConfigMaps of kube-system, as far as checks ask for it. Nothing else of a ConfigMap is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Field, Labels, is_default, null_is_default};

/// The ConfigMaps of kube-system that are read.
pub const CONFIGURATIONS: [&str; 4] = ["kubelet-config", "kube-proxy", "kubeadm-config", "coredns"];

/// What those ConfigMaps say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// The common configuration of kubelets.
    pub kubelet: Option<KubeletConfiguration>,
    /// The configuration of kube-proxy.
    pub proxy: Option<ProxyConfiguration>,
    /// The configuration of the cluster.
    pub cluster: Option<ClusterConfiguration>,
    /// The plugins in the Corefile of CoreDNS.
    pub dns_plugins: Option<Vec<String>>,
    /// ConfigMaps whose content is not what it should be, and why.
    pub unreadable: BTreeMap<String, String>,
}

objects! {
    /// The common configuration of kubelets.
    KubeletConfiguration {
        /// The version of its form.
        api_version: String,
        /// Feature gates that are set.
        feature_gates: BTreeMap<String, bool>,
        /// What is kept back for Kubernetes.
        kube_reserved: Labels,
        /// What is kept back for the system.
        system_reserved: Labels,
    }
    /// The configuration of kube-proxy.
    ProxyConfiguration {
        /// The version of its form.
        api_version: String,
        /// `iptables`, `ipvs` or `nftables`; empty for iptables.
        mode: String,
        /// Feature gates that are set.
        feature_gates: BTreeMap<String, bool>,
    }
    /// The configuration of the cluster.
    ClusterConfiguration {
        /// The version of its form.
        api_version: String,
        /// Networks.
        networking: Networking,
    }
    /// Networks.
    Networking {
        /// The ranges of Services, parted by a comma.
        service_subnet: String,
    }
}

impl Configuration {
    /// Takes one of the [`CONFIGURATIONS`].
    pub fn take(&mut self, name: &str, data: &BTreeMap<String, String>) {
        let text = |key: &str| data.get(key).map(String::as_str).ok_or_else(|| format!("it has no key {key}"));
        let outcome = match name {
            "kubelet-config" => text("kubelet").and_then(yaml).map(|read| self.kubelet = Some(read)),
            "kube-proxy" => text("config.conf").and_then(yaml).map(|read| self.proxy = Some(read)),
            "kubeadm-config" => text("ClusterConfiguration").and_then(yaml).map(|read| self.cluster = Some(read)),
            "coredns" => text("Corefile").map(|text| self.dns_plugins = Some(plugins(text))),
            _ => Ok(()),
        };
        if let Err(why) = outcome {
            self.unreadable.insert(name.to_owned(), why);
        }
    }
}

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    // The parser's message could quote what is written there; its place does not.
    serde_saphyr::from_str(text).map_err(|error| match error.location() {
        Some(place) => format!("line {} of it cannot be read", place.line()),
        None => "it cannot be read".to_owned(),
    })
}

/// The plugins of all server blocks: the first word of each line one level deep.
fn plugins(corefile: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut depth = 0_usize;
    for line in corefile.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        let word = line.split_whitespace().next().unwrap_or_default();
        let is_name = word.starts_with(|first: char| first.is_ascii_alphabetic());
        if depth == 1 && is_name && !found.iter().any(|known| known == word) {
            found.push(word.to_owned());
        }
        depth += line.matches('{').count();
        depth = depth.saturating_sub(line.matches('}').count());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubeadm_writes_is_read_and_what_is_broken_is_told() {
        let mut read = Configuration::default();
        let map = |key: &str, text: &str| BTreeMap::from([(key.to_owned(), text.to_owned())]);
        read.take(
            "kubelet-config",
            &map(
                "kubelet",
                "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nfeatureGates:\n  A: true\nclusterDNS:\n- 10.96.0.10\nsystemReserved: null\n",
            ),
        );
        read.take("kube-proxy", &map("config.conf", "mode: \"ipvs\"\nconntrack:\n  min: null\n"));
        read.take(
            "coredns",
            &map(
                "Corefile",
                ".:53 {\n    errors # c\n    health {\n       lameduck 5s\n    }\n    forward . /etc/resolv.conf {\n       max_concurrent 1000\n    }\n}\na.b {\n  federation x\n}\n",
            ),
        );
        read.take("kubeadm-config", &map("ClusterConfiguration", "apiVersion: [\n"));
        assert!(read.kubelet.as_ref().unwrap().feature_gates["A"]);
        assert_eq!(read.proxy.as_ref().unwrap().mode, "ipvs");
        assert_eq!(read.dns_plugins.as_ref().unwrap().join(" "), "errors health forward federation");
        assert_eq!(read.unreadable.keys().collect::<Vec<_>>(), ["kubeadm-config"]);
        let again: Configuration = serde_json::from_str(&serde_json::to_string(&read).unwrap()).unwrap();
        assert_eq!(again, read);
    }
}
