//! The kubectl of this machine.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;

/// How long it may take to tell its version; it asks no cluster.
const LIMIT: Duration = Duration::from_secs(5);

/// The version that it reports; none where there is none, or where it does not tell.
pub(super) async fn kubectl_version() -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        client_version: Version,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let mut command = tokio::process::Command::new("kubectl");
    command.args(["version", "--client", "-o", "json"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    // Whatever the caller's kubeconfig holds, it is not asked.
    command.env("KUBECONFIG", "/dev/null");
    let output = tokio::time::timeout(LIMIT, command.output()).await.ok()?.ok()?;
    let answer: Answer = serde_json::from_slice(&output.stdout).ok()?;
    Some(answer.client_version.git_version)
}
