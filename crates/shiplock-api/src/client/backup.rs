//! The backups of etcd that a server keeps.

use std::time::Duration;

use reqwest::Method;
use shiplock_core::id::ClusterName;
use shiplock_core::problem::{Code, Problem};

use super::{ANSWER_WITHIN, Client, Endpoint, Rows, with_query};
use crate::rest::BackupView;

/// How long a whole backup may take, on its way here or while the server reads it back.
const WHOLE_WITHIN: Duration = Duration::from_secs(3_600);
/// How long the next piece of a backup may take.
const PIECE_WITHIN: Duration = Duration::from_secs(60);

impl Client {
    /// The backups of all clusters or of one, newest first.
    pub async fn backups(&self, cluster: Option<&ClusterName>) -> Result<Vec<BackupView>, Problem> {
        let request = self.request(Method::GET, &["backups"], ANSWER_WITHIN);
        let pairs = [("cluster", cluster.map(ToString::to_string))];
        let rows: Rows<BackupView> = self.send(with_query(request, &self.url(&["backups"]), pairs)).await?;
        Ok(rows.into_vec())
    }

    /// One backup.
    pub async fn backup(&self, id: &str) -> Result<BackupView, Problem> {
        self.get(&["backups", id], ANSWER_WITHIN).await
    }

    /// Has the server read a whole backup back.
    pub async fn verify_backup(&self, id: &str) -> Result<BackupView, Problem> {
        let request = self.request(Method::POST, &["backups", id, "verify"], WHOLE_WITHIN);
        self.send(request.json(&serde_json::json!({}))).await
    }

    /// Begins to read the snapshot of a backup. Whoever reads compares it with the backup's size and SHA-256.
    pub async fn backup_content(&self, id: &str) -> Result<BackupContent, Problem> {
        let request = self.request(Method::GET, &["backups", id, "content"], WHOLE_WITHIN);
        let response = self.open(request).await.map_err(|lost| lost.problem)?;
        if !response.status().is_success() {
            let answer = self.finish(response).await.map_err(|lost| lost.problem)?;
            answer.succeed(&self.endpoint)?;
            return Err(super::answer::unreadable(&self.endpoint, "the content of a backup"));
        }
        Ok(BackupContent { response, endpoint: self.endpoint.clone() })
    }
}

/// The snapshot of a backup on its way here.
#[derive(Debug)]
pub struct BackupContent {
    response: reqwest::Response,
    endpoint: Endpoint,
}

impl BackupContent {
    /// The next piece; none after the last one.
    pub async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Problem> {
        let lost = || Problem::new(Code::ServerUnreachable).with("server", &self.endpoint);
        match tokio::time::timeout(PIECE_WITHIN, self.response.chunk()).await {
            Ok(piece) => piece.map_err(|error| lost().cause(super::answer::chain(&error))),
            Err(_) => Err(lost().cause(format!("nothing came for {} s", PIECE_WITHIN.as_secs()))),
        }
    }
}
