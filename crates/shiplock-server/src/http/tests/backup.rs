//! Backups as a client sees them.

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};
use shiplock_api::agent::EtcdSnapshot;
use shiplock_api::rest::BackupView;
use shiplock_core::plan::hexadecimal;

use super::*;

const CONTENT: &[u8] = &[3; 200_000];

impl Bench {
    async fn keep_backup(&self, id: &str, cluster: &str) -> BackupView {
        let snapshot = EtcdSnapshot {
            sha256: hexadecimal(&Sha256::digest(CONTENT)),
            size_bytes: CONTENT.len() as u64,
            hash: 5,
            revision: 42,
            keys: 7,
            etcd_version: "3.6.8".to_owned(),
        };
        let view = BackupView {
            id: id.to_owned(),
            cluster: cluster.into(),
            upgrade: "u1".into(),
            node: "m1".into(),
            created_at: Timestamp::now(),
            snapshot,
        };
        let pieces = futures::stream::iter([Ok(Bytes::from_static(CONTENT))]);
        self.site.backups.receive(view, pieces).await.unwrap().keep().await.unwrap()
    }
}

#[tokio::test]
async fn backups_are_listed_shown_read_back_and_handed_out() {
    let bench = Bench::new().await;
    let (one, other) = (bench.keep_backup("u1-2-3", "lab").await, bench.keep_backup("u2-2-3", "other").await);
    assert_eq!(bench.get("/api/v1/backups").await.read::<Page<BackupView>>().items.len(), 2);
    let of_other: Page<BackupView> = bench.get("/api/v1/backups?cluster=other").await.read();
    assert_eq!(of_other.items, [other]);
    assert_eq!(bench.get("/api/v1/backups/u1-2-3").await.read::<BackupView>(), one);
    let verified = bench.ask(Method::POST, "/api/v1/backups/u1-2-3/verify", None).await;
    assert_eq!(verified.read::<BackupView>(), one);
    let content = bench.get("/api/v1/backups/u1-2-3/content").await;
    assert_eq!(content.headers[CONTENT_TYPE], "application/octet-stream");
    assert_eq!(content.headers["content-length"], "200000");
    assert!(content.body == CONTENT);
}

#[tokio::test]
async fn a_backup_that_is_not_there_or_damaged_is_named_by_code() {
    let bench = Bench::new().await;
    for id in ["u9-9-9", "..%2Fshiplock", "%00", &"a".repeat(300)] {
        for (method, path) in [(Method::GET, ""), (Method::POST, "/verify"), (Method::GET, "/content")] {
            let answer = bench.ask(method.clone(), &format!("/api/v1/backups/{id}{path}"), None).await;
            assert_eq!(answer.code(), Code::BackupUnknown, "{method} {id}{path}");
        }
    }
    bench.keep_backup("u1-2-3", "lab").await;
    let path = bench.site.backups.folder().join("u1-2-3.backup");
    let mut file = std::fs::read(&path).unwrap();
    *file.last_mut().unwrap() ^= 1;
    std::fs::write(&path, file).unwrap();
    let verified = bench.ask(Method::POST, "/api/v1/backups/u1-2-3/verify", None).await;
    assert_eq!(verified.code(), Code::BackupDamaged);
    let content = bench.get("/api/v1/backups/u1-2-3/content").await;
    assert_eq!(content.code(), Code::BackupDamaged, "before the first byte is handed out");
}
