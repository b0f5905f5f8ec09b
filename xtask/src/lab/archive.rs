//! Which files make which image, and the two small programs that only the lab has.
//!
//! Kubernetes' own images cannot be fetched here, so the lab makes images of the same names with
//! the programs it built. The one with a story is kube-proxy: it calls iptables, whose extensions
//! are shared objects with libraries of their own; where one is missing, Services with more than
//! one endpoint do not work while all others do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::gobuild::go;
use super::home::{Home, stamp, write};
use super::image::ImageContent;
use super::layer::system_disk;
use super::process::{command, run, say};
use super::versions::{Image, Release};

const PAUSE_SOURCE: &str = include_str!("../../lab-files/pause.c");
const WEB_SOURCE: &str = include_str!("../../lab-files/web/main.go");
/// Raised when the way an image is put together changes.
const RECIPE: u32 = 1;
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// The first characters of a digest: the version of something that has none.
pub(crate) fn short_digest(text: &str) -> String {
    Sha256::digest(text).iter().take(5).map(|byte| format!("{byte:02x}")).collect()
}

/// The sandbox process, built for these sources.
fn pause_program(home: &Home) -> PathBuf {
    home.bin("pause", &short_digest(PAUSE_SOURCE)).join("pause")
}

/// The test application, built for these sources.
pub(crate) fn web_program(home: &Home) -> PathBuf {
    home.bin("web", &short_digest(WEB_SOURCE)).join("web")
}

/// Builds both.
pub(crate) fn build_small_programs(home: &Home) -> Result<()> {
    home.make(&home.bin("pause", &short_digest(PAUSE_SOURCE)), |folder| {
        let source = folder.join("pause.c");
        write(&source, PAUSE_SOURCE, 0o644)?;
        run(command("gcc", &["-Os", "-static", "-s", "-o"]).arg(folder.join("pause")).arg(&source))?;
        Ok(fs::remove_file(source)?)
    })?;
    home.make(&home.bin("web", &short_digest(WEB_SOURCE)), |folder| {
        write(&folder.join("main.go"), WEB_SOURCE, 0o644)?;
        write(&folder.join("go.mod"), "module web\n\ngo 1.26\n", 0o644)?;
        run(go(folder).args(["build", "-trimpath", "-ldflags", "-s -w", "-o", "web", "."]))?;
        fs::remove_file(folder.join("main.go"))?;
        Ok(fs::remove_file(folder.join("go.mod"))?)
    })
}

/// Where the archive of an image is, or will be.
pub(crate) fn archive_path(home: &Home, image: &Image) -> PathBuf {
    home.root().join("images").join(image.archive())
}

/// Builds every archive that a release needs, for its own nodes and for the mirror.
pub(crate) fn build_archives(home: &Home, release: &Release) -> Result<()> {
    let mut images = release.master_images();
    images.extend(release.worker_images());
    images.sort();
    images.dedup();
    for image in images {
        let content = content_of(home, release, &image)?;
        let place = archive_path(home, &image);
        // The sources' stamp lies beside the archive: a program that was built anew is packed anew.
        let stamp_file = place.with_extension("stamp");
        let wanted = format!("recipe {RECIPE} {:?}", content.1);
        if place.exists() && fs::read_to_string(&stamp_file).is_ok_and(|text| text == wanted) {
            continue;
        }
        let _ = fs::remove_file(&place);
        home.make(&place, |temporary| content.0.write(&image.reference, temporary))?;
        write(&stamp_file, &wanted, 0o644)?;
        say(format!("image {}", image.reference));
    }
    Ok(())
}

/// The content of an image, and stamps of what it was made from.
fn content_of(home: &Home, release: &Release, image: &Image) -> Result<(ImageContent, Vec<String>)> {
    let kubernetes = home.bin("kubernetes", release.kubernetes);
    let etcd = home.bin("etcd", release.etcd);
    let mut sources = Vec::new();
    let mut source = |path: PathBuf| -> Result<PathBuf> {
        sources.push(stamp(&path)?);
        Ok(path)
    };
    let content = match image.role {
        "etcd" => ["etcd", "etcdctl", "etcdutl"].iter().try_fold(ImageContent::new(), |content, name| {
            anyhow::Ok(content.program(source(etcd.join(name))?, &format!("usr/local/bin/{name}")))
        })?,
        "coredns" => ImageContent::new()
            .program(source(home.bin("coredns", release.coredns).join("coredns"))?, "coredns")
            .entrypoint("/coredns"),
        "pause" => ImageContent::new().program(source(pause_program(home))?, "pause").entrypoint("/pause"),
        "web" => ImageContent::new()
            .program(source(web_program(home))?, "web")
            .program("/bin/busybox", "bin/busybox")
            .link("bin/sh", "busybox")
            .entrypoint("/web"),
        "kube-proxy" => {
            let program = source(kubernetes.join("kube-proxy"))?;
            proxy_tools(&system_disk(home))?.program(program, "usr/local/bin/kube-proxy")
        }
        component => {
            let program = source(kubernetes.join(component))?;
            ImageContent::new().program(program, &format!("usr/local/bin/{component}"))
        }
    };
    Ok((content, sources))
}

/// iptables, nft and conntrack out of the nodes' own system, with every library they load.
fn proxy_tools(system: &Path) -> Result<ImageContent> {
    let extensions = system.join(LIBRARIES).join("xtables");
    let mut programs: Vec<String> =
        ["xtables-nft-multi", "nft", "conntrack"].iter().map(|name| format!("usr/sbin/{name}")).collect();
    programs.push("usr/bin/dash".to_owned());
    let mut loaded = programs.clone();
    for entry in fs::read_dir(&extensions).with_context(|| format!("no iptables in {}", system.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".so") {
            loaded.push(format!("{LIBRARIES}/xtables/{name}"));
        }
    }
    loaded.sort();

    let mut content = ImageContent::new().link("lib", "usr/lib").link("lib64", "usr/lib64").link("sbin", "usr/sbin");
    for library in libraries_of(system, &loaded)? {
        let from = resolve(system, &library)?;
        let at = library.trim_start_matches('/');
        // /lib and /lib64 are links into /usr.
        let at = if at.starts_with("usr/") { at.to_owned() } else { format!("usr/{at}") };
        content = content.program(from, &at);
    }
    for extension in loaded.iter().filter(|path| path.contains("/xtables/")) {
        content = content.file(resolve(system, extension)?, extension);
    }
    for program in &programs[..3] {
        content = content.program(resolve(system, program)?, program);
    }
    content = content.program(resolve(system, "usr/bin/dash")?, "bin/sh");
    for family in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            content = content.link(&format!("usr/sbin/{family}{suffix}"), "xtables-nft-multi");
        }
    }
    Ok(content)
}

/// Everything that `ldd` names for these files, as paths in the system.
fn libraries_of(system: &Path, files: &[String]) -> Result<BTreeSet<String>> {
    let mut ldd = command("chroot", &[]);
    ldd.arg(system).args(["/usr/bin/ldd"]).args(files.iter().map(|file| format!("/{file}")));
    let text = run(&mut ldd)?;
    if let Some(line) = text.lines().find(|line| line.contains("not found")) {
        bail!("a library of iptables is missing in the nodes' system: {}", line.trim());
    }
    let paths = text.split_whitespace().filter(|word| word.starts_with('/') && word.contains(".so"));
    // The files themselves are named too, with a colon.
    Ok(paths.filter(|word| !word.ends_with(':')).map(str::to_owned).collect())
}

/// A path in the system with its links followed inside the system.
fn resolve(system: &Path, path: &str) -> Result<PathBuf> {
    let absolute = format!("/{}", path.trim_start_matches('/'));
    let real = run(command("chroot", &[]).arg(system).args(["/usr/bin/readlink", "-f", &absolute]))?;
    Ok(system.join(real.trim().trim_start_matches('/')))
}
