//! `lab build`: everything that does not belong to a running cluster, each thing once.
//!
//! The order is what a person waits for: the nodes' system downloads beside the compiler, the
//! newest release first.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::archive::{build_archives, build_small_programs};
use super::gobuild::{builds_of, common_builds};
use super::home::Home;
use super::host::prepare_build;
use super::layer::{build_system, system_disk};
use super::mirror::{build_mirror, is_built};
use super::process::say;
use super::store::store_for;
use super::versions::{DEFAULT_MINORS, RELEASES, Release};

/// Builds the releases that scenarios and benchmarks use, where anything of them is missing.
pub fn build_where_missing() -> Result<()> {
    let home = Home::open()?;
    let releases = DEFAULT_MINORS.iter().map(|minor| Release::find(minor)).collect::<Result<Vec<_>>>()?;
    if is_whole(&home, &releases) {
        return Ok(());
    }
    say(format!("the lab is built first, about 20 minutes on 2 cores, and kept in {}", home.root().display()));
    build(&DEFAULT_MINORS.map(str::to_owned))
}

fn is_whole(home: &Home, releases: &[&Release]) -> bool {
    system_disk(home).exists()
        && home.mirror().join("artefacts.json").exists()
        && releases.iter().all(|release| is_built(home, release))
}

/// Builds these Kubernetes releases with all that they need. What is built stays.
pub fn build(minors: &[String]) -> Result<()> {
    let start = Instant::now();
    let mut releases = minors.iter().map(|minor| Release::find(minor)).collect::<Result<Vec<_>>>()?;
    releases.sort_by_key(|release| std::cmp::Reverse(RELEASES.iter().position(|known| known == *release)));
    releases.dedup();
    let home = Home::open()?;
    prepare_build(&home, is_whole(&home, &releases))?;
    let _lock = home.lock("build")?;
    home.sweep()?;

    std::thread::scope(|scope| {
        let system = scope.spawn(|| build_system(&home));
        let programs = (|| {
            build_small_programs(&home)?;
            for build in releases.iter().flat_map(|release| builds_of(release)).chain(common_builds()) {
                build.run(&home)?;
            }
            anyhow::Ok(())
        })();
        system.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the build of the nodes' system panicked")))?;
        programs
    })?;

    for release in &releases {
        build_archives(&home, release)
            .with_context(|| format!("cannot make the images of Kubernetes {}", release.kubernetes))?;
    }
    build_mirror(&home)?;
    for release in &releases {
        for master in [true, false] {
            store_for(&home, release, master)?;
        }
    }
    let built: Vec<&str> =
        RELEASES.iter().filter(|release| is_built(&home, release)).map(|release| release.kubernetes).collect();
    say(format!(
        "built in {:.0} s; {} has Kubernetes {}",
        start.elapsed().as_secs_f32(),
        home.root().display(),
        built.join(", ")
    ));
    Ok(())
}
