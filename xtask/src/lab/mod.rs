//! Real Kubernetes clusters on one machine: `cargo xtask lab …`.
//!
//! No claim about real behaviour rests on the simulator alone, so end-to-end tests need real
//! clusters, made by kubeadm, in seconds, without virtual machines, Docker or a registry. Each
//! node is a whole Debian system in a systemd-nspawn container; everything of Kubernetes is built
//! from its published Go modules, and its images are packed from those programs.
//!
//! ```text
//! cargo xtask lab build                                   once, about 20 minutes on 2 cores
//! cargo xtask lab up --masters 1 --workers 2 --from 1.36 --workers-at 1.35
//! cargo xtask lab status | exec w1 -- CMD | kubectl … | smoke
//! export KUBECONFIG=$(cargo xtask lab kubeconfig)
//! cargo xtask lab stop w1 --power-cut; cargo xtask lab start w1
//! cargo xtask lab down
//! ```
//!
//! Two clusters run side by side with `--id`, or `SHIPLOCK_LAB_ID`. Tests use [`Lab`].
//!
//! **What a node has.** Nodes are born with the images of the version that they run and no others,
//! so everything that an upgrade needs has to be fetched: from the [mirror], an HTTP
//! server on the lab's bridge with the layout of the official download site and a list,
//! `artefacts.json`. There is no route out of the bridge, no time service and no package source.
//!
//! **What it needs.** Linux with overlayfs, network bridges and nftables; root; Go 1.26; 12 GiB of
//! disk. Debian packages are installed where they are missing. Proved on Debian 12 with cgroup v1.
//!
//! **What stays.** `down` removes every trace of a lab but these: the inotify limits and
//! `ip_forward`, and sysctls that kubelets set (`vm.overcommit_memory`, `kernel.panic*`), for
//! /proc/sys is writable in the nodes and these keys belong to no namespace.

mod archive;
mod build;
mod cgroup;
pub mod cli;
mod cluster;
pub(crate) mod gobuild;
pub(crate) mod home;
mod host;
pub(crate) mod image;
mod janitor;
mod kubeadm;
mod layer;
pub mod mirror;
mod mirror_server;
mod network;
mod node;
pub(crate) mod process;
mod store;
pub mod versions;
pub mod workload;

pub use build::{build, build_where_missing};
pub use cluster::{Lab, UpOptions};
pub use home::Home;
pub(crate) use home::Lock;
pub(crate) use home::sha256;
pub(crate) use janitor::own_program;
pub use layer::{Containerd, Disk};
pub(crate) use mirror_server::{MirrorService, serve_beside};
pub use network::{API_PORT, MIRROR_PORT};
pub use node::{NodeStatus, Stop};
pub(crate) use versions::kubernetes_versions;
