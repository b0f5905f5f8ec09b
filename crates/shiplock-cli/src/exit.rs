//! How a command ends, for scripts: the exit codes of all commands in one place.

use std::process::ExitCode;

use shiplock_api::rest::UpgradeView;
use shiplock_core::check::CheckResult;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::State;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what was asked; warnings allowed.
    Done,
    /// 1: the tool failed.
    Failed,
    /// 2: it was asked in a way that it does not understand.
    Usage,
    /// 3: findings stop the start.
    Blocked,
    /// 4: what must be known before a start could not be seen.
    Undecided,
    /// 5: paused, a person is needed.
    Paused,
    /// 6: cancelled or expired.
    Ended,
    /// 130: detached by the reader; the upgrade goes on.
    Detached,
}

impl Exit {
    /// The number that a shell sees.
    pub fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Blocked => 3,
            Self::Undecided => 4,
            Self::Paused => 5,
            Self::Ended => 6,
            Self::Detached => 130,
        }
    }

    /// How a command ends that met a problem.
    pub fn of_problem(problem: &Problem) -> Self {
        match problem.code {
            Code::NotAVersion
            | Code::BadOption
            | Code::BadCommandLine
            | Code::ConfirmationNeeded
            | Code::ConfirmationDiffers
            | Code::ConfigurationUnreadable
            | Code::NoActiveUpgrade
            | Code::NoLogs
            | Code::SeveralActiveUpgrades => Self::Usage,
            Code::RollbackLeft => Self::Detached,
            Code::RollbackBlocked => Self::Blocked,
            _ => Self::Failed,
        }
    }

    /// How an attached command ends when the upgrade is as it is; none while it goes on by itself.
    pub fn of_upgrade(upgrade: &UpgradeView) -> Option<Self> {
        Some(match &upgrade.state {
            State::Succeeded => Self::Done,
            State::Cancelled | State::Expired => Self::Ended,
            State::Paused { .. } => Self::Paused,
            State::Blocked => {
                let failed = upgrade.findings.iter().any(|finding| finding.result == CheckResult::Fail);
                if failed || upgrade.findings.is_empty() { Self::Blocked } else { Self::Undecided }
            }
            // It does not come to rest before a person has settled which store is the newest.
            State::Pausing { because, .. } if because.is_older_store() => Self::Paused,
            State::Planned
            | State::Checking
            | State::Ready { .. }
            | State::Running
            | State::Pausing { .. }
            | State::Cancelling
            | State::Expiring => return None,
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}
