//! The options of `reports` and `acceptances`.

use clap::{Args, Subcommand};
use jiff::civil::Date;

/// What to do with the reports that the server keeps.
#[derive(Debug, Subcommand)]
pub enum ReportsCommand {
    /// List the reports of a cluster, newest first.
    List {
        /// The cluster.
        cluster: String,
    },
    /// Show a report beside the one before it: what is new, what is gone, what is still there.
    Show(ReportShowArguments),
}

/// How a report is shown.
#[derive(Debug, Args)]
pub struct ReportShowArguments {
    /// The report.
    #[arg(value_name = "REPORT")]
    pub report: String,
    /// Another report to compare with.
    #[arg(long, value_name = "REPORT")]
    pub with: Option<String>,
    /// Only what must be handled before an upgrade can start.
    #[arg(long)]
    pub todo: bool,
}

/// What to do with findings that may pass.
#[derive(Debug, Subcommand)]
pub enum AcceptancesCommand {
    /// Let findings of one check pass, with a reason and an end.
    Add(AcceptanceAddArguments),
    /// List what lets findings of a cluster pass.
    List {
        /// The cluster.
        cluster: String,
    },
    /// Take an acceptance back.
    Remove {
        /// The cluster.
        cluster: String,
        /// The acceptance.
        #[arg(value_name = "ACCEPTANCE")]
        acceptance: String,
    },
}

/// What is let pass.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock acceptances add prod NODE-004 --reason \"no package source by design\"
  shiplock acceptances add prod WL-001 --subject 'PodDisruptionBudget shop/*' --reason \"drained by hand\" --until 2030-01-31

There is no way to accept all: each check is named, each acceptance ends.")]
pub struct AcceptanceAddArguments {
    /// The cluster.
    pub cluster: String,
    /// The id of the check, such as NODE-004.
    #[arg(value_name = "CHECK")]
    pub check: String,
    /// Why.
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Only what is about this, as reports print it, with * for any text.
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// The last day on which it holds; 30 days from now without it.
    #[arg(long, value_name = "DATE")]
    pub until: Option<Date>,
}
