//! The options of `backup`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with backups of etcd.
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// List the backups that the server keeps, newest first.
    List {
        /// Only those of this cluster.
        cluster: Option<String>,
    },
    /// Read a backup back on the server: all of it must open and have its SHA-256.
    Verify {
        /// The backup.
        #[arg(value_name = "BACKUP")]
        backup: String,
    },
    /// Write the snapshot to a file, opened. It holds everything of the cluster, its Secrets too.
    Export(BackupExportArguments),
}

/// How a backup is exported.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  shiplock backup export u3fx9-4-17 --file etcd.db

To restore it, stop the API servers and etcd on every master (move their manifests away), copy the file to each, and
make a new data directory from it, with the etcdutl of the backup's version or newer:
  etcdutl snapshot restore etcd.db --data-dir /var/lib/etcd-restored \\
    --bump-revision 1000000000 --mark-compacted --name m1 \\
    --initial-cluster m1=https://10.0.0.1:2380 \\
    --initial-advertise-peer-urls https://10.0.0.1:2380
`--initial-cluster` names all members and is the same on each. Then put the directory in the place of /var/lib/etcd and
the manifests back. What happened in the cluster after the backup is lost.")]
pub struct BackupExportArguments {
    /// The backup.
    #[arg(value_name = "BACKUP")]
    pub backup: String,
    /// The file to write, for its owner alone.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Overwrite the file where there is one.
    #[arg(long)]
    pub force: bool,
}
