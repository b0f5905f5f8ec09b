//! Backups of etcd as a table and as sentences.

use shiplock_api::rest::BackupView;
use shiplock_core::size::readable_bytes;

use super::Style;
use super::table::{Table, one_line};

/// The list of backups.
pub fn list(backups: &[BackupView], style: &Style) -> String {
    if backups.is_empty() {
        let text = style.pick(
            "No backup is kept. An upgrade of a control plane makes one before it touches a master.",
            "尚无备份。升级控制面时，会在改动控制面节点之前进行备份。",
        );
        return format!("{text}\n");
    }
    let titles = [
        style.pick("BACKUP", "备份"),
        style.pick("CLUSTER", "集群"),
        style.pick("TAKEN", "时间"),
        style.pick("NODE", "节点"),
        "ETCD",
        style.pick("REVISION", "修订版本"),
        style.pick("KEYS", "键"),
        style.pick("SIZE", "大小"),
    ];
    let mut table = Table::new(titles);
    for backup in backups {
        table.row([
            backup.id.clone(),
            backup.cluster.to_string(),
            style.date(backup.created_at),
            backup.node.to_string(),
            backup.snapshot.etcd_version.clone(),
            backup.snapshot.revision.to_string(),
            backup.snapshot.keys.to_string(),
            readable_bytes(backup.snapshot.size_bytes),
        ]);
    }
    table.render()
}

/// What a backup is that was read back.
pub fn verified(backup: &BackupView, style: &Style) -> String {
    let (id, size) = (one_line(&backup.id), readable_bytes(backup.snapshot.size_bytes));
    let (revision, sha256) = (backup.snapshot.revision, one_line(&backup.snapshot.sha256));
    if style.zh() {
        format!("备份 {id} 完好：{size}，修订版本 {revision}，SHA-256 {sha256}\n")
    } else {
        format!("backup {id} is whole: {size}, revision {revision}, SHA-256 {sha256}\n")
    }
}

/// What was written, and what can be done with it.
pub fn exported(backup: &BackupView, path: &str, style: &Style) -> String {
    let (id, path, version) = (one_line(&backup.id), one_line(path), one_line(&backup.snapshot.etcd_version));
    if style.zh() {
        format!(
            "备份 {id} 已写入 {path}（仅所有者可读，其中包含集群的全部 Secret）\n下一步：etcdutl snapshot restore {path} --data-dir DIR（etcd {version} 或更新；详见 shiplock backup export --help）\n"
        )
    } else {
        format!(
            "backup {id} is in {path}, for its owner alone: it holds every Secret of the cluster\nnext: etcdutl snapshot restore {path} --data-dir DIR (etcd {version} or newer; see shiplock backup export --help)\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use shiplock_core::language::Language;

    #[test]
    fn backups_are_shown_in_both_languages() {
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let style = sample::style(language);
            let backups = sample::backups();
            let text = [
                list(&backups, &style),
                list(&[], &style),
                verified(&backups[0], &style),
                exported(&backups[0], "etcd.db", &style),
            ];
            insta::assert_snapshot!(format!("backup_{name}"), text.join("\n=====\n"));
        }
    }
}
