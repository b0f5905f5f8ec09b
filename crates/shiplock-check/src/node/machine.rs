//! The machine itself.

use jiff::Timestamp;
use shiplock_core::facts::examination::{Kernel, NodeExamination, PackageSource};
use shiplock_core::size::readable_bytes;

use super::{Answer, NodeLook};
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Snapshot;

/// Under these shares of free space, in per cent, a disk is full, or nearly so; a large disk has room enough under them.
const FREE_FAIL: (u64, u64) = (5, 5 << 30);
const FREE_WARN: (u64, u64) = (15, 10 << 30);
const INODES_FAIL_PER_CENT: u64 = 5;
/// Clocks may differ by so much. The way of an answer takes part of it, so that less cannot be told from here.
const CLOCK_WARN_SECONDS: i64 = 5;
/// Clocks of two masters may differ by so much.
const MASTERS_SECONDS_MAX: i64 = 5;
/// The oldest kernel that kubeadm 1.32 and newer accept.
const KERNEL_MIN: (u32, u32) = (4, 19);
/// The newest systemd that loses track of units, as the package of RHEL 7 numbers it.
const SYSTEMD_BROKEN: (u32, u32) = (219, 67);

/// What an agent sees.
pub(super) fn judge(look: &mut NodeLook<'_>, found: &NodeExamination, at: Timestamp) {
    judge_probed(look, found, at);
    for line in look.need(&found.file_system_errors, &["NODE-010"]).into_iter().flatten() {
        let line: String = line.chars().take(160).collect();
        look.say(look.about("NODE-010", "errors", Outcome::Fail).with("line", line));
    }
    if let Some(time) = look.need(&found.time, &["NODE-015"])
        && !time.is_synchronized
    {
        look.say(look.about("NODE-015", "unsynchronized", Outcome::Warn).with("by", &time.told_by));
    }
    if let Some(source) = look.need(&found.package_source, &["NODE-004"]) {
        package_source(look, source);
    }
    names(look, found);
}

/// What a probe sees too.
pub(super) fn judge_probed(look: &mut NodeLook<'_>, found: &NodeExamination, at: Timestamp) {
    operating_system(look, found);
    kernel(look, &found.kernel);
    if let Some(version) = look.need(&found.systemd_version, &["NODE-014"])
        && systemd_is_broken(version)
    {
        look.say(look.about("NODE-014", "old", Outcome::Fail).with("version", version));
    }
    disks(look, found);
    swap(look, found);
    cgroups(look, found);
    let off = (found.clock.as_second() - at.as_second()).abs();
    if off > CLOCK_WARN_SECONDS {
        look.say(look.about("NODE-015", "differs", Outcome::Warn).with("seconds", off));
    }
}

fn operating_system(look: &mut NodeLook<'_>, found: &NodeExamination) {
    let Some(system) = look.need(&found.operating_system, &["NODE-005"]) else { return };
    if !system.custom_marks.is_empty() {
        let finding = look.about("NODE-005", "custom", Outcome::Warn);
        look.say(finding.with("marks", system.custom_marks.join(", ")));
    }
}

fn kernel(look: &mut NodeLook<'_>, kernel: &Kernel) {
    let mut numbers = kernel.release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => {
            if look.target_is_at_least(32) && (major, minor) < KERNEL_MIN {
                look.say(look.about("NODE-013", "old", Outcome::Fail).with("release", &kernel.release));
            }
        }
        _ => {
            let unread: Result<(), String> = Err(format!("the kernel's release `{}` is no version", kernel.release));
            look.need(&unread, &["NODE-013"]);
        }
    }
    for module in &kernel.missing_modules {
        look.say(look.about("NODE-013", "module", Outcome::Warn).with("module", module));
    }
}

/// `219-67.el7_8` and older; numbers of other packagers are newer.
fn systemd_is_broken(version: &str) -> bool {
    let mut numbers = version.split(['-', '.', '_', '~']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(version)), Some(Ok(package))) => (version, package) <= SYSTEMD_BROKEN,
        (Some(Ok(version)), _) => version < SYSTEMD_BROKEN.0,
        _ => false,
    }
}

fn disks(look: &mut NodeLook<'_>, found: &NodeExamination) {
    if found.file_systems.is_empty() {
        let unread: Result<(), String> = Err("no file system could be looked at".to_owned());
        look.need(&unread, &["NODE-008", "NODE-009"]);
    }
    for disk in &found.file_systems {
        if disk.is_read_only {
            look.say(look.about("NODE-010", "read-only", Outcome::Fail).with("path", &disk.path));
            continue;
        }
        let per_cent = disk.free_per_cent();
        let is_under = |(share, bytes): (u64, u64)| per_cent < share && disk.free_bytes < bytes;
        let level = match () {
            () if is_under(FREE_FAIL) => Some(("full", Outcome::Fail)),
            () if is_under(FREE_WARN) => Some(("low", Outcome::Warn)),
            () => None,
        };
        if let Some((sentence, outcome)) = level {
            let finding = look.about("NODE-008", sentence, outcome).with("path", &disk.path);
            look.say(finding.with("free", readable_bytes(disk.free_bytes)).with("per_cent", per_cent));
        }
        let per_cent = disk.free_inodes_per_cent();
        if per_cent < INODES_FAIL_PER_CENT {
            let finding = look.about("NODE-009", "full", Outcome::Fail).with("path", &disk.path);
            look.say(finding.with("per_cent", per_cent));
        }
    }
}

fn swap(look: &mut NodeLook<'_>, found: &NodeExamination) {
    let Some(devices) = look.need(&found.swaps, &["NODE-006"]).filter(|swaps| !swaps.is_empty()) else { return };
    let Some(kubelet) = look.need(&found.kubelet, &["NODE-006"]) else { return };
    let (sentence, outcome) = if kubelet.fails_on_swap { ("refused", Outcome::Fail) } else { ("borne", Outcome::Warn) };
    look.say(look.about("NODE-006", sentence, outcome).with("devices", devices.join(", ")));
}

fn cgroups(look: &mut NodeLook<'_>, found: &NodeExamination) {
    let Some(1) = look.need(&found.cgroup_version, &["NODE-012"]) else { return };
    let Some(kubelet) = look.need(&found.kubelet, &["NODE-012"]) else { return };
    let target = look.question.target;
    if look.target_is_at_least(35) && kubelet.fails_on_cgroup_v1 != Some(false) {
        look.say(look.about("NODE-012", "refused", Outcome::Fail).with("target", target));
    } else if look.target_is_at_least(31) {
        look.say(look.about("NODE-012", "old", Outcome::Warn));
    }
}

fn package_source(look: &mut NodeLook<'_>, source: &PackageSource) {
    let command = match source.manager.as_str() {
        // A system without a package manager takes no packages.
        "" => return,
        "apt-get" => "apt-get update",
        "zypper" => "zypper refresh",
        "dnf" => "dnf makecache",
        _ => "yum makecache",
    };
    let with = |finding: Finding| finding.with("manager", &source.manager).with("command", command);
    let outcome = if look.is_strict() { Outcome::Fail } else { Outcome::Warn };
    match &source.failure {
        Some(why) => look.say(with(look.about("NODE-004", "unusable", outcome)).with("why", why)),
        None if source.sources == 0 => look.say(with(look.about("NODE-004", "none", Outcome::Warn))),
        None => {}
    }
}

fn names(look: &mut NodeLook<'_>, found: &NodeExamination) {
    let host = &found.host_name;
    let short = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
    if short(host) != short(look.node) {
        look.say(look.about("NODE-021", "differs", Outcome::Warn).with("host", host));
    }
    if !found.host_name_resolves {
        look.say(look.about("NODE-021", "unresolved", Outcome::Warn).with("host", host));
    }
    if let Some(service) = &found.firewall {
        look.say(look.about("NODE-023", "active", Outcome::Warn).with("service", service));
    }
    if let Some(filter) = look.need(&found.packet_filter, &["NODE-016"])
        && !filter.other_tables.is_empty()
    {
        let finding = look.about("NODE-016", "mixed", Outcome::Warn).with("backend", &filter.backend);
        look.say(finding.with("tables", filter.other_tables.join(", ")));
    }
}

/// Masters judge each other's certificates and leases, so that their clocks must agree.
pub(super) fn compare_clocks(snapshot: &Snapshot, findings: &mut Vec<Finding>) {
    let offsets: Vec<(&str, i64)> = snapshot
        .nodes
        .iter()
        .filter(|node| node.machine.as_ref().is_some_and(|machine| machine.control_plane.is_some()))
        .filter_map(|node| match &node.answer {
            Answer::Examined { examination, at } => {
                Some((node.node.as_str(), examination.clock.as_millisecond() - at.as_millisecond()))
            }
            _ => None,
        })
        .collect();
    let Some(least) = offsets.iter().map(|(_, offset)| *offset).min() else { return };
    for (node, offset) in &offsets {
        let seconds = (offset - least) / 1000;
        if seconds > MASTERS_SECONDS_MAX {
            let subject = Subject::new("Node", "", node);
            let finding = Finding::new("NODE-015", "masters", Outcome::Fail, subject).with("node", node);
            findings.push(finding.with("seconds", seconds));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::systemd_is_broken;

    #[test]
    fn the_systemd_that_loses_units_is_known_by_its_package() {
        for (version, broken) in [
            ("219", false),
            ("219-62.el7_6.5", true),
            ("219-67.el7", true),
            ("219-73.el7_8.9", false),
            ("208-11.el7", true),
            ("252.39-1~deb12u1", false),
            ("252", false),
            ("v257", false),
        ] {
            assert_eq!(systemd_is_broken(version), broken, "{version}");
        }
    }
}
