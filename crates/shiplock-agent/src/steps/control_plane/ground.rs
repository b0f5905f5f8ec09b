//! A master as every step on it needs it: its manifests, its images, and the swap itself.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};

use crate::control_plane::admission;
use crate::control_plane::manifest::{self, Manifest};
use crate::host::Host;
use crate::steps::{Failure, LOOK_EVERY, Step};

/// How long a container runtime that is being started is waited for.
const RUNTIME_LIMIT: Duration = Duration::from_secs(60);

/// The master that a step works on.
#[derive(Debug)]
pub(super) struct Ground<'a, H> {
    pub(super) step: &'a Step<H>,
    /// No other member of etcd and no other API server are asked for.
    pub(super) is_only: bool,
}

impl<H: Host> Ground<'_, H> {
    /// Refuses where a webhook keeps the static pods of this master out of the API.
    pub(super) async fn check_admission(&self) -> Result<(), Failure> {
        let refusing = admission::refusing_webhook(&*self.step.host, self.step.assignment.node.as_str()).await;
        refusing.map_or(Ok(()), |problem| Err(Failure::retryable(problem)))
    }

    /// After a power cut this agent may be up before containerd is.
    pub(super) async fn wait_for_runtime(&self) -> Result<(), Problem> {
        let mut waited = Duration::ZERO;
        loop {
            match self.step.host.runtime_version().await {
                Ok(_) => return Ok(()),
                Err(problem) if waited >= RUNTIME_LIMIT => return Err(problem),
                Err(_) => self.step.host.wait(LOOK_EVERY).await,
            }
            waited += LOOK_EVERY;
        }
    }

    /// The id of an image that must be there. Error: [`Code::ImageGone`] where it is not.
    pub(super) async fn image_id(&self, reference: &str) -> Result<String, Problem> {
        self.step.host.image_id(reference).await?.ok_or_else(|| self.image_gone(reference))
    }

    /// That an image is not there any more.
    pub(super) fn image_gone(&self, reference: &str) -> Problem {
        Problem::new(Code::ImageGone).with("image", reference).with("node", &self.step.assignment.node)
    }

    /// The manifests in force, by component.
    pub(super) fn manifests(&self) -> Result<BTreeMap<ControlPlaneComponent, Manifest>, Problem> {
        let parse = |(component, text): (ControlPlaneComponent, String)| {
            let manifest = Manifest::parse(component, &text).map_err(|why| {
                let path = self.step.host.at(&manifest::path(component));
                self.step.unusable(&path, "read", &std::io::ErrorKind::InvalidData.into()).cause(why)
            })?;
            Ok((component, manifest))
        };
        crate::control_plane::manifests(&*self.step.host).into_iter().map(parse).collect()
    }

    /// Runs the swap in a folder as a transient unit of this very program.
    pub(super) async fn swap(&self, phase: &str, folder: &Path) -> Result<(), Problem> {
        let own = std::env::current_exe().map_err(|error| {
            Problem::new(Code::Internal).with("what", "the path of this program is not known").because(&error)
        })?;
        let own = own.display().to_string();
        let folder = self.step.host.node_path(folder);
        self.step.program(phase, &[&own, "swap", &folder]).await
    }
}
