//! The checks of the whole catalogue that guard a start, run beside the driver: once for each check of the plan.
//!
//! They begin with the state `Checking` and are forgotten with it, so that no start rests on what was found for an
//! earlier one. What could not be checked at all is a finding too: unknown is not OK.

use std::sync::Arc;
use std::time::Duration;

use shiplock_api::check::CheckPolicy;
use shiplock_check::run::Selection;
use shiplock_core::check::{CheckResult, Finding};
use shiplock_core::id::UpgradeId;
use shiplock_core::plan::{Mode, Plan};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{State, Upgrade};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::precheck::{Asked, Precheck, guard};
use crate::store::StoreError;

/// A cluster that cannot be checked now, or not whole, is asked again for so long: an API server may just be restarting.
const AGAIN_FOR: Duration = Duration::from_secs(60);
/// The wait between two tries.
const PAUSE: Duration = Duration::from_secs(3);

/// The check before the start of one upgrade.
#[derive(Default)]
pub(crate) struct StartCheck {
    under_way: JoinSet<Vec<Finding>>,
    found: Option<Vec<Finding>>,
}

impl StartCheck {
    /// Begins the check where the upgrade waits for it, and forgets it where it does not.
    pub(crate) fn keep(&mut self, precheck: &Arc<Precheck>, upgrade: &Upgrade) {
        if upgrade.state != State::Checking {
            // Dropped, so that what was under way for an earlier check ends without a word.
            *self = Self::default();
        } else if upgrade.plan.mode == Mode::Rollback {
            // The way back is guarded by the checks of its plan; what the way forward asks does not hold it up.
            self.found = Some(Vec::new());
        } else if self.found.is_none() && self.under_way.is_empty() {
            let (precheck, plan, id) = (precheck.clone(), upgrade.plan.clone(), upgrade.id.clone());
            self.under_way.spawn(async move { findings(&precheck, &plan, &id).await });
        }
    }

    /// Ends when the check under way has ended; never where there is none.
    pub(crate) async fn ended(&mut self, plan: &Plan) {
        let found = match self.under_way.join_next().await {
            Some(Ok(found)) => found,
            Some(Err(error)) => {
                let problem = Problem::new(Code::Internal).with("what", "the checks before the start ended");
                guard::not_checked(plan, problem.because(&error))
            }
            None => return std::future::pending().await,
        };
        self.found = Some(found);
    }

    /// What was found, once all was asked.
    pub(crate) fn found(&self) -> Option<Vec<Finding>> {
        self.found.clone()
    }
}

async fn findings(precheck: &Precheck, plan: &Plan, upgrade: &UpgradeId) -> Vec<Finding> {
    let asked = Asked {
        cluster: &plan.cluster,
        target: None,
        policy: CheckPolicy::Default,
        selection: &Selection::default(),
        plan: Some(plan),
        upgrade: Some(upgrade),
        by: &plan.created_by,
    };
    let begun = Instant::now();
    loop {
        let is_last = begun.elapsed() > AGAIN_FOR;
        let problem = match look(precheck, &asked, plan, is_last).await {
            Ok(Some(found)) => return found,
            Ok(None) => None,
            Err(problem) if is_last => return guard::not_checked(plan, problem),
            Err(problem) => Some(problem),
        };
        let why = problem.map(|problem| problem.to_string()).unwrap_or_else(|| "something was not read".to_owned());
        tracing::warn!(%upgrade, cluster = %plan.cluster, why, "the cluster cannot be checked whole now; again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// What was found; none where a part could not be read, which a moment later often can be: nobody need come for that.
/// Only the report that counts is kept.
async fn look(
    precheck: &Precheck,
    asked: &Asked<'_>,
    plan: &Plan,
    is_last: bool,
) -> Result<Option<Vec<Finding>>, Problem> {
    let report = precheck.run(asked).await?;
    let mut found = guard::findings(&report, plan);
    if !is_last && found.iter().any(|found| found.result == CheckResult::Unknown && !found.accepted) {
        return Ok(None);
    }
    precheck.keep(asked, &report).await.map_err(StoreError::into_problem)?;
    found.extend(guard::accepted_of_the_plan(&report));
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use shiplock_cluster::port::Cluster;
    use shiplock_core::check::CheckReport;
    use shiplock_core::id::ClusterName;

    use super::*;
    use crate::clusters::Connector;
    use crate::http::sample;
    use crate::store::MemoryStore;

    /// No cluster answers.
    struct Gone;

    #[async_trait]
    impl Connector for Gone {
        async fn connect(&self, name: &ClusterName) -> Result<Arc<dyn Cluster>, Problem> {
            Err(Problem::new(Code::ClusterUnreachable).with("server", name))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_cannot_be_checked_is_asked_again_and_then_not_known_which_stops_the_start() {
        let store = Arc::new(MemoryStore::new());
        let precheck = Arc::new(Precheck::new(store, Arc::default(), Arc::new(Gone)));
        let mut upgrade = sample::upgrade();
        upgrade.state = State::Checking;
        let mut check = StartCheck::default();
        check.keep(&precheck, &upgrade);
        assert_eq!(check.found(), None, "nothing is known at once");
        let begun = Instant::now();
        check.ended(&upgrade.plan).await;
        assert!(begun.elapsed() > AGAIN_FOR, "{:?}", begun.elapsed());
        let report = CheckReport { findings: check.found().unwrap() };
        let blocking: Vec<_> = report.blocking().map(|found| found.result).collect();
        assert_eq!(blocking, [CheckResult::Unknown]);
        upgrade.state = State::Blocked;
        check.keep(&precheck, &upgrade);
        assert_eq!(check.found(), None, "what was found once holds for no later check");
    }
}
