//! The rollback-safe way of the masters: first the target's components that emulate the minor version before, then a
//! soak, then the step up, in which the emulation ends and the kubelets follow.
//!
//! While the components emulate, they serve and store what the old version knows, so that the old version may come back.
//! Kubelets stay behind until the step up: interoperability is "defined in terms of the emulated version",
//! <https://kubernetes.io/docs/concepts/cluster-administration/compatibility-version/>, and no kubelet may be newer than
//! its API server.

use super::control_plane::{Master, refused};
use super::make::PlanInput;
use crate::problem::{Code, Problem};
use crate::step::ControlPlaneMethod;
use crate::version::{KubernetesVersion, MinorVersion};

/// The first minor version whose emulation is stable: <https://www.kubernetes.dev/resources/keps/4330/>.
const STABLE_SINCE: MinorVersion = MinorVersion { major: 1, minor: 34 };

/// The minor version that is emulated during the soak; none where none was asked for. Refuses where there cannot be one.
pub(super) fn emulated(
    input: &PlanInput<'_>,
    control_plane: KubernetesVersion,
    to: KubernetesVersion,
    masters: &[Master<'_>],
) -> Result<Option<MinorVersion>, Problem> {
    let options = &input.request.options;
    if options.soak_seconds == 0 {
        return Ok(None);
    }
    let impossible = |why: String| {
        let problem = Problem::new(Code::BadOption).with("option", "soak").with("value", options.soak_seconds);
        Err(problem.with("why", why))
    };
    if masters.is_empty() {
        return impossible("this plan does not touch the control plane".to_owned());
    }
    if options.control_plane_method != ControlPlaneMethod::StagedSwap {
        return impossible("kubeadm's own commands cannot do it, the staged swap can".to_owned());
    }
    if to.release == control_plane.release {
        return impossible(format!("the control plane is {control_plane} already, and a patch emulates nothing"));
    }
    if to.release < STABLE_SINCE {
        return impossible(format!("emulation is stable since {STABLE_SINCE}, the target is {to}"));
    }
    let ahead = |master: &&Master<'_>| !master.components_behind || master.kubelet.release > control_plane.release;
    if let Some(master) = masters.iter().find(ahead) {
        return impossible(format!("master {} is ahead of {} already", master.name, control_plane.release));
    }
    let selected = |name: &crate::id::NodeName| masters.iter().any(|master| master.name == name);
    let all = input.facts.nodes.iter().filter(|(_, node)| node.is_control_plane());
    if let Some((name, _)) = all.into_iter().find(|(name, _)| !selected(name)) {
        return impossible(format!("master {name} runs {to} already"));
    }
    if let Some(server) = input.facts.api_servers.iter().find(|server| server.emulates.is_some()) {
        let emulates = server.behaves_like();
        return Err(refused(input, format!("the API server at {} emulates {emulates} already", server.address)));
    }
    Ok(Some(control_plane.release))
}
