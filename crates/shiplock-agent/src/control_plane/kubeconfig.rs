//! Kubeconfigs that kubeadm made on this node: where the API server is, and who the node is to it.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use shiplock_core::problem::{Code, Problem};

use crate::endpoint::Trust;
use crate::host::Host;

/// The kubelet's. It may read what the agent needs: ConfigMap `kubeadm-config`, and the Endpoints of the API servers.
pub const KUBELET: &str = "/etc/kubernetes/kubelet.conf";
/// The administrator's, which kubeadm itself uses for upgrades.
pub const ADMINISTRATOR: &str = "/etc/kubernetes/admin.conf";

/// A kubeconfig with everything that it names.
#[derive(Clone, Debug)]
pub struct Kubeconfig {
    /// The server, such as `https://10.0.0.1:6443`.
    pub server: String,
    /// Its authority, and our certificate and key.
    pub trust: Trust,
}

#[derive(Deserialize)]
struct Document {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: Option<String>,
    certificate_authority: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: Option<String>,
    client_certificate: Option<String>,
    client_key_data: Option<String>,
    client_key: Option<String>,
}

/// Reads a kubeconfig. kubeadm's have one cluster and one user.
pub fn read<H: Host>(host: &H, path: &str) -> Result<Kubeconfig, Problem> {
    let unusable = |why: String| Problem::new(Code::KubeconfigUnreadable).with("path", path).cause(why);
    let text = fs::read_to_string(host.at(path)).map_err(|error| unusable(error.to_string()))?;
    let document = parse(&text).map_err(unusable)?;
    let (cluster, user) = document;
    let load = |data: Option<String>, file: Option<String>| -> Result<Vec<u8>, Problem> {
        match (data, file) {
            (Some(data), _) => STANDARD.decode(data.trim()).map_err(|_| unusable("its data is not base64".to_owned())),
            (None, Some(file)) => {
                let found = host.at(&file);
                fs::read(&found).map_err(|error| unusable(format!("{}: {error}", Path::new(&file).display())))
            }
            (None, None) => Err(unusable("it has no certificate".to_owned())),
        }
    };
    let authority_pem = load(cluster.certificate_authority_data, cluster.certificate_authority)?;
    let mut identity_pem = load(user.client_certificate_data, user.client_certificate)?;
    identity_pem.push(b'\n');
    identity_pem.extend(load(user.client_key_data, user.client_key)?);
    Ok(Kubeconfig { server: cluster.server, trust: Trust::Authority { authority_pem, identity_pem } })
}

/// The error quotes nothing of the text, which has keys in it.
fn parse(text: &str) -> Result<(Cluster, User), String> {
    let document: Document =
        serde_saphyr::from_str(text).map_err(|_| "it is not the YAML of a kubeconfig".to_owned())?;
    let (cluster, user) = (document.clusters.into_iter().next(), document.users.into_iter().next());
    Ok((cluster.ok_or("it has no cluster")?.cluster, user.ok_or("it has no user")?.user))
}

/// The client certificate that a kubeconfig holds or names, PEM.
pub fn certificate_pem<H: Host>(host: &H, text: &str) -> Option<Vec<u8>> {
    let (_, user) = parse(text).ok()?;
    match (user.client_certificate_data, user.client_certificate) {
        (Some(data), _) => STANDARD.decode(data.trim()).ok(),
        (None, Some(file)) => fs::read(host.at(&file)).ok(),
        (None, None) => None,
    }
}

/// The server that a kubeconfig names.
pub fn server<H: Host>(host: &H, path: &str) -> Option<String> {
    let text = fs::read_to_string(host.at(path)).ok()?;
    Some(parse(&text).ok()?.0.server)
}
