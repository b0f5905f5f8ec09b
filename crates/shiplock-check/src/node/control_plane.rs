//! What agents on masters tell: etcd, manifests, certificates.

use shiplock_core::facts::examination::NodeExamination;
use shiplock_core::facts::{ControlPlaneFacts, EtcdFacts, MachineFacts, Observed};
use shiplock_core::problem::Problem;

use super::NodeLook;
use crate::report::Outcome;

/// A certificate that ends within so many days may end within the upgrade, or soon after it.
const DAYS_FAIL: i64 = 2;
const DAYS_WARN: i64 = 30;

pub(super) fn judge(look: &mut NodeLook<'_>, found: &NodeExamination, machine: Option<&MachineFacts>) {
    if let Some(facts) = machine.and_then(|machine| machine.control_plane.as_deref()) {
        etcd(look, facts);
        manifests(look, facts);
    }
    let now = look.question.now.as_second();
    for certificate in found.certificates.iter().filter(|found| is_of_control_plane(&found.path)) {
        let days = (certificate.ends_at.as_second() - now).div_euclid(86400);
        let (sentence, outcome) = match days {
            _ if days < 0 => ("ended", Outcome::Fail),
            _ if days < DAYS_FAIL => ("soon", Outcome::Fail),
            _ if days < DAYS_WARN => ("soon", Outcome::Warn),
            _ => continue,
        };
        look.say(look.about("WHK-014", sentence, outcome).with("path", &certificate.path).with("days", days));
    }
}

/// The kubelet's own kubeconfig names a certificate that the kubelet renews.
fn is_of_control_plane(path: &str) -> bool {
    path.starts_with("/etc/kubernetes/") && path != "/etc/kubernetes/kubelet.conf"
}

fn etcd(look: &mut NodeLook<'_>, facts: &ControlPlaneFacts) {
    let EtcdFacts::Stacked { cluster } = &facts.etcd else { return };
    match cluster {
        Observed::Known(etcd) => {
            if let Some(why) = etcd.why_untouchable() {
                look.say(look.about("CP-004", "ill", Outcome::Fail).with("why", why));
            }
        }
        Observed::Unknown { problem, .. } => {
            look.need(&unseen(problem), &["CP-004"]);
        }
    }
}

fn manifests(look: &mut NodeLook<'_>, facts: &ControlPlaneFacts) {
    match &facts.hand_edits {
        Observed::Known(edits) => {
            for edit in edits {
                look.say(look.about("CP-008", "edited", Outcome::Fail).with("path", &edit.path));
            }
        }
        Observed::Unknown { problem, .. } => {
            look.need(&unseen(problem), &["CP-008"]);
        }
    }
}

fn unseen(problem: &Problem) -> Result<(), String> {
    Err(problem.causes.first().map_or_else(|| problem.to_string(), |cause| format!("{problem}: {cause}")))
}
