//! Joining: a key is made, the server signs for it, and the agent is installed as a service.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use shiplock_api::agent::{EnrolRequest, PROTOCOL};
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::NodeName;
use shiplock_core::problem::{Code, Problem};

use crate::facts::FactsReader;
use crate::files;
use crate::gateway::{GatewayError, HttpsGateway};
use crate::host::Host as _;
use crate::identity::Identity;
use crate::steps::READ_LIMIT;
use crate::system::System;

const UNIT: &str = "/etc/systemd/system/shiplock-agent.service";
const SERVICE: &str = "shiplock-agent.service";

/// What joining needs.
#[derive(Debug)]
pub struct Join {
    /// The gateway, `https://…`.
    pub server: String,
    /// The one-time token.
    pub token: String,
    /// The pin of the certificate authority.
    pub pin: [u8; 32],
    /// The node.
    pub node: NodeName,
    /// Where the agent keeps its things.
    pub data_folder: PathBuf,
    /// Whether the service is installed and started.
    pub install_service: bool,
    /// Whether an agent of another installation is taken over.
    pub replace: bool,
}

/// Joins.
pub async fn join(join: &Join) -> Result<ExitCode, Problem> {
    // An address that is none is refused before anything is written.
    HttpsGateway::to_enrol(&join.server, join.pin)?;
    if !join.replace {
        refuse_agent_of_another(&join.data_folder, join.pin)?;
        // The service of this machine is one, whatever folder it works with.
        if join.install_service
            && let Some(folder) = std::fs::read_to_string(UNIT).ok().as_deref().and_then(folder_of_unit)
        {
            refuse_agent_of_another(folder, join.pin)?;
        }
    }
    // The facts need the folder for its free space.
    std::fs::create_dir_all(&join.data_folder)
        .map_err(|error| files::unusable(&join.data_folder, "this node", "made", &error))?;
    let machine = FactsReader::default().read(&System::default(), &join.data_folder).await;
    let identity = enrol(&join.server, join.pin, &join.token, &join.node, machine).await?;
    identity.store(&join.data_folder)?;
    eprintln!("node {} of cluster {} is enrolled at {}", identity.node, identity.cluster, identity.server);
    if join.install_service {
        install(&join.data_folder).await?;
        eprintln!("service {SERVICE} runs; see `journalctl -u {SERVICE}`");
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses where the agent of this folder works for another installation than that of the pin. One whose identity cannot
/// be read works for none.
fn refuse_agent_of_another(data_folder: &Path, pin: [u8; 32]) -> Result<(), Problem> {
    let Ok(identity) = Identity::load(data_folder) else { return Ok(()) };
    if identity.authority_pin() == Some(pin) {
        return Ok(());
    }
    Err(Problem::new(Code::AgentOfAnotherInstallation)
        .with("server", identity.server)
        .with("node", identity.node)
        .with("cluster", identity.cluster))
}

/// Has the server sign for a new key, and says who the agent is from then on. Nothing is stored.
pub async fn enrol(
    server: &str,
    pin: [u8; 32],
    token: &str,
    node: &NodeName,
    machine: MachineFacts,
) -> Result<Identity, Problem> {
    let gateway = HttpsGateway::to_enrol(server, pin)?;
    let SigningRequest { key_pem, csr_pem } = SigningRequest::new(node)?;
    let request = EnrolRequest { protocol: PROTOCOL, token: token.to_owned(), node: node.clone(), csr_pem, machine };
    let response = gateway.enrol(&request).await.map_err(|error| match error {
        GatewayError::Refused(problem) => *problem,
        GatewayError::Unreachable(why) => Problem::new(Code::GatewayUnreachable).with("server", server).cause(why),
    })?;
    let identity = Identity {
        server: server.to_owned(),
        cluster: response.cluster,
        node: node.clone(),
        key_pem,
        certificate_pem: response.certificate_pem,
        ca_pem: response.ca_pem,
    };
    // What cannot be used is not worth keeping.
    HttpsGateway::enrolled(&identity)?;
    if response.cluster_has_node == Some(false) {
        eprintln!(
            "warning: cluster {} has no node {node} yet; until a node joins it under this name, this agent has nothing to do. \
             If the name is wrong, run a new join command with --node NAME, and `shiplock agent remove` takes this one away",
            identity.cluster
        );
    }
    Ok(identity)
}

/// A new key, and the request to have it signed.
pub(crate) struct SigningRequest {
    /// The private key, PEM. It never leaves the node.
    pub(crate) key_pem: String,
    /// The request, PEM.
    pub(crate) csr_pem: String,
}

impl SigningRequest {
    pub(crate) fn new(node: &NodeName) -> Result<Self, Problem> {
        let internal = |what: &'static str| {
            move |error: rcgen::Error| Problem::new(Code::Internal).with("what", what).because(&error)
        };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(internal("making a key"))?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        let request = params.serialize_request(&key).and_then(|request| request.pem());
        let csr_pem = request.map_err(internal("making a signing request"))?;
        Ok(Self { key_pem: key.serialize_pem(), csr_pem })
    }
}

async fn install(data_folder: &Path) -> Result<(), Problem> {
    let program = std::env::current_exe()
        .map_err(|error| files::unusable(Path::new("/proc/self/exe"), "this node", "read", &error))?;
    let path = Path::new(UNIT);
    files::replace(path, &unit_text(&program, data_folder), 0o644)
        .map_err(|error| files::unusable(path, "this node", "written", &error))?;
    let host = System::default();
    for arguments in [&["daemon-reload"][..], &["enable", "--quiet", SERVICE], &["restart", SERVICE]] {
        let output = host.output("systemctl", arguments, READ_LIMIT).await?;
        if !output.success {
            return Err(Problem::new(Code::ProgramFailed)
                .with("program", format!("systemctl {}", arguments.join(" ")))
                .with("node", "this node")
                .with("result", "an error")
                .cause(output.error));
        }
    }
    Ok(())
}

fn unit_text(program: &Path, data_folder: &Path) -> String {
    format!(
        "# Written by `shiplock-agent join`.\n\
         [Unit]\n\
         Description=Shiplock node agent\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart={} run --data-dir {}\n\
         Restart=always\n\
         RestartSec=2\n\
         # What a step started goes on when the agent is stopped.\n\
         KillMode=process\n\
         UMask=0077\n\
         NoNewPrivileges=yes\n\
         LockPersonality=yes\n\
         RestrictRealtime=yes\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        program.display(),
        data_folder.display()
    )
}

/// The data folder that a unit's agent works with.
fn folder_of_unit(text: &str) -> Option<&Path> {
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    command.split_once(" run --data-dir ").map(|(_, folder)| Path::new(folder))
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, IsCa};

    use super::*;
    use crate::gateway::pin_of;

    /// A certificate authority: its certificate and its pin.
    fn authority() -> (String, [u8; 32]) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        (certificate.pem(), pin_of(certificate.der()).unwrap())
    }

    #[test]
    fn the_service_tells_which_folder_its_agent_works_with() {
        let folder = Path::new("/var/lib/an agent");
        assert_eq!(folder_of_unit(&unit_text(Path::new("/usr/local/bin/shiplock-agent"), folder)), Some(folder));
        assert_eq!(folder_of_unit("[Service]\nExecStart=/bin/true\n"), None);
    }

    #[tokio::test]
    async fn an_agent_of_another_installation_is_taken_over_only_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let ((ca_pem, ours), (_, another)) = (authority(), authority());
        let (server, cluster, node) = ("https://first.example:7443".to_owned(), "prod".into(), NodeName::from("w-1"));
        let (key_pem, certificate_pem) = (String::new(), String::new());
        let identity = Identity { server, cluster, node: node.clone(), key_pem, certificate_pem, ca_pem };
        identity.store(folder.path()).unwrap();
        let kept = || std::fs::read(folder.path().join("identity.json")).unwrap();
        let before = kept();
        // Nobody answers there: whoever gets as far as asking is told so.
        let (server, token) = ("https://127.0.0.1:1".to_owned(), "token".to_owned());
        let data_folder = folder.path().to_owned();
        let mut wanted =
            Join { server, token, pin: another, node, data_folder, install_service: false, replace: false };
        let problem = join(&wanted).await.unwrap_err();
        assert_eq!(problem.code, Code::AgentOfAnotherInstallation);
        assert!(problem.to_string().contains("https://first.example:7443"), "{problem}");
        wanted.replace = true;
        assert_eq!(join(&wanted).await.unwrap_err().code, Code::GatewayUnreachable);
        assert_eq!(refuse_agent_of_another(folder.path(), ours), Ok(()));
        assert_eq!(kept(), before);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else was written");
    }
}
