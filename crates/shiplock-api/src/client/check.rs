//! Pre-checks: run, listed, shown; and findings that somebody lets pass.

use reqwest::Method;
use shiplock_core::id::ClusterName;
use shiplock_core::problem::Problem;

use super::{ANSWER_WITHIN, Client, Rows, WORK_WITHIN, with_query};
use crate::check::{AcceptanceCreate, AcceptanceView, CheckCreate, CheckReportRow, CheckReportView};

impl Client {
    /// Runs the pre-check of a cluster; the server keeps the report.
    pub async fn run_checks(&self, cluster: &ClusterName, check: &CheckCreate) -> Result<CheckReportView, Problem> {
        let path = ["clusters", cluster.as_str(), "checks"];
        self.send(self.request(Method::POST, &path, WORK_WITHIN).json(check)).await
    }

    /// The reports of a cluster, newest first.
    pub async fn reports(&self, cluster: &ClusterName) -> Result<Vec<CheckReportRow>, Problem> {
        let path = ["clusters", cluster.as_str(), "checks"];
        Ok(self.get::<Rows<CheckReportRow>>(&path, ANSWER_WITHIN).await?.into_vec())
    }

    /// One report, compared with another one or with the one before it.
    pub async fn report(&self, id: &str, with: Option<&str>) -> Result<CheckReportView, Problem> {
        let path = ["checks", id];
        let request = self.request(Method::GET, &path, ANSWER_WITHIN);
        self.send(with_query(request, &self.url(&path), [("with", with.map(str::to_owned))])).await
    }

    /// Lets findings of one check pass.
    pub async fn add_acceptance(
        &self,
        cluster: &ClusterName,
        acceptance: &AcceptanceCreate,
    ) -> Result<AcceptanceView, Problem> {
        let path = ["clusters", cluster.as_str(), "acceptances"];
        self.send(self.request(Method::POST, &path, ANSWER_WITHIN).json(acceptance)).await
    }

    /// What lets findings of a cluster pass.
    pub async fn acceptances(&self, cluster: &ClusterName) -> Result<Vec<AcceptanceView>, Problem> {
        let path = ["clusters", cluster.as_str(), "acceptances"];
        Ok(self.get::<Rows<AcceptanceView>>(&path, ANSWER_WITHIN).await?.into_vec())
    }

    /// Takes an acceptance back.
    pub async fn remove_acceptance(&self, cluster: &ClusterName, id: &str) -> Result<(), Problem> {
        let path = ["clusters", cluster.as_str(), "acceptances", id];
        self.send_for_nothing(self.request(Method::DELETE, &path, ANSWER_WITHIN)).await
    }
}
