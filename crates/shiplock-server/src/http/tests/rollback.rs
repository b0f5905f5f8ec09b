//! The request that takes an upgrade back.

use axum::http::Method;
use serde_json::json;
use shiplock_api::rest::UpgradeView;
use shiplock_core::id::UpgradeId;
use shiplock_core::problem::Code;
use shiplock_core::upgrade::{Event, PauseReason};

use super::Answer;
use crate::http::sample::Bench;

impl Bench {
    async fn roll_back(&self, id: &UpgradeId, body: serde_json::Value) -> Answer {
        self.ask(Method::POST, &format!("/api/v1/upgrades/{id}/rollback"), Some(body)).await
    }

    async fn end(&self, id: &UpgradeId) {
        let by = || "p".into();
        let events = [
            Event::PauseRequested { reason: PauseReason::Operator, by: by() },
            Event::Paused,
            Event::CancelRequested { by: by(), abandon: Vec::new() },
            Event::Cancelled,
        ];
        self.append(id, &events).await;
    }
}

#[tokio::test]
async fn what_is_in_work_is_only_previewed_and_what_cannot_go_back_is_refused_by_name() {
    let bench = Bench::new().await;
    let id = bench.running().await;
    assert_eq!(bench.roll_back(&id, json!({})).await.code(), Code::UpgradeActive);
    let pools_alone = bench.roll_back(&id, json!({"dry_run": true})).await;
    assert_eq!(pools_alone.code(), Code::RollbackRefused);
    assert_eq!(bench.roll_back(&id, json!({"force": true})).await.code(), Code::BadRequest);
    assert_eq!(bench.roll_back(&"u0".into(), json!({})).await.code(), Code::UpgradeUnknown);

    bench.end(&id).await;
    assert_eq!(bench.roll_back(&id, json!({})).await.code(), Code::RollbackRefused);
    let plan = bench.plan().await;
    let newer = bench.create(&plan, &plan.hash, "second").await.read::<UpgradeView>().id;
    let answer = bench.roll_back(&id, json!({"dry_run": true})).await;
    assert_eq!(answer.code(), Code::RollbackNotNewest);
    assert!(String::from_utf8_lossy(&answer.body).contains(newer.as_str()), "the newest one is named");
}
