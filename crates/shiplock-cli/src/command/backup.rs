//! `backup`: what the server keeps of etcd, read back and handed out.

use std::io::{self, Write as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use shiplock_api::rest::BackupView;
use shiplock_core::plan::hexadecimal;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;

use super::Context;
use crate::arguments::{BackupCommand, BackupExportArguments};
use crate::exit::Exit;
use crate::render::backup;
use crate::result;

pub(super) async fn run(command: BackupCommand, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    match command {
        BackupCommand::List { cluster } => {
            let backups = client.backups(cluster.map(Into::into).as_ref()).await?;
            output.result(result::Backups { backups: backups.clone() }, |style| backup::list(&backups, style));
        }
        BackupCommand::Verify { backup: id } => {
            let verified = client.verify_backup(&id).await?;
            output.result(result::BackupVerified { verified: verified.clone() }, |style| {
                backup::verified(&verified, style)
            });
        }
        BackupCommand::Export(options) => {
            let exported = export(&options, context).await?;
            let path = options.file.display().to_string();
            output.result(result::BackupExported { exported: exported.clone(), path: path.clone() }, |style| {
                backup::exported(&exported, &path, style)
            });
        }
    }
    Ok(Exit::Done)
}

/// Writes beside the target, for the owner alone, and renames: the target is never half of a snapshot, and what is not
/// the snapshot that was kept has no name.
async fn export(options: &BackupExportArguments, context: &Context<'_>) -> Result<BackupView, Problem> {
    let Context { client, output } = context;
    let target = &options.file;
    if !options.force && target.symlink_metadata().is_ok() {
        return Err(in_the_way(target));
    }
    let view = client.backup(&options.backup).await?;
    let size = readable_bytes(view.snapshot.size_bytes);
    output.remark(&if output.style().zh() {
        format!("正在导出集群 {} 的备份 {}（{size}，未加密）", view.cluster, view.id)
    } else {
        format!("Exporting backup {} of cluster {} ({size}, not encrypted)", view.id, view.cluster)
    });
    let unwritable = |error: io::Error| {
        let problem = Problem::new(Code::FileUnusable).with("path", target.display());
        problem.with("subject", "this machine").with("operation", "written").because(&error)
    };
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Mode 0600 from the first byte on, and gone where this function ends early.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(unwritable)?;
    let mut content = client.backup_content(&view.id).await?;
    let (mut digest, mut length) = (Sha256::new(), 0_u64);
    loop {
        let piece = tokio::select! {
            piece = content.next() => piece?,
            // The file goes before the process does.
            _ = tokio::signal::ctrl_c() => return Err(unwritable(io::ErrorKind::Interrupted.into())),
        };
        let Some(piece) = piece else { break };
        digest.update(&piece);
        length += piece.as_ref().len() as u64;
        file.write_all(piece.as_ref()).map_err(unwritable)?;
    }
    let found = hexadecimal(&digest.finalize());
    if length != view.snapshot.size_bytes || found != view.snapshot.sha256 {
        let why = format!(
            "{length} bytes with SHA-256 {found} came, {} bytes with {} are recorded",
            view.snapshot.size_bytes, view.snapshot.sha256
        );
        return Err(Problem::new(Code::BackupDamaged).with("backup", &view.id).with("why", why));
    }
    file.as_file().sync_all().map_err(unwritable)?;
    let kept = if options.force { file.persist(target) } else { file.persist_noclobber(target) };
    kept.map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => in_the_way(target),
        _ => unwritable(error.error),
    })?;
    Ok(view)
}

fn in_the_way(target: &Path) -> Problem {
    let problem = Problem::new(Code::BadOption).with("option", "--file").with("value", target.display());
    problem.with("why", "there is something already; --force overwrites it")
}
