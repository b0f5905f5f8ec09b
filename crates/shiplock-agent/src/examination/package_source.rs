//! Whether the package manager's sources can be used, by its own word, without touching what it has cached.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use shiplock_core::facts::examination::{Look, PackageSource};

use super::in_words;
use crate::host::Host;

/// How long the package manager may take.
const REFRESH_LIMIT: Duration = Duration::from_secs(30);
/// Package managers, the one that manages the node first.
const MANAGERS: [&str; 4] = ["apt-get", "dnf", "yum", "zypper"];
/// What a complaint of a package manager begins with.
const COMPLAINTS: [&str; 4] = ["E: ", "W: ", "Error", "error"];

pub(super) async fn look<H: Host>(host: &H, data_folder: &Path) -> Look<PackageSource> {
    let Some((manager, program)) = MANAGERS.iter().find_map(|name| Some((*name, host.find_program(name)?))) else {
        return Ok(PackageSource { manager: String::new(), sources: 0, failure: None });
    };
    let addresses = addresses(host, manager);
    let found = |failure: Option<String>| PackageSource {
        manager: manager.to_owned(),
        sources: u32::try_from(addresses.len()).unwrap_or(u32::MAX),
        failure,
    };
    if addresses.is_empty() {
        return Ok(found(None));
    }
    // A host that is away is named at once; the package manager itself would wait for it for minutes.
    if !has_proxy(host, manager) {
        let hosts: BTreeSet<(String, u16)> = addresses.iter().filter_map(|address| host_and_port(address)).collect();
        let reached = join_all(hosts.iter().map(|(name, port)| async move {
            host.reaches(name, *port).await.err().map(|why| format!("{name}:{port}: {why}"))
        }));
        let away: Vec<String> = reached.await.into_iter().flatten().collect();
        if !away.is_empty() {
            return Ok(found(Some(away.join("; "))));
        }
    }
    let cache = data_folder.join("package-source");
    let partial = cache.join("partial");
    fs::create_dir_all(&partial).map_err(|error| format!("{}: {error}", partial.display()))?;
    let refreshed = refresh(host, manager, &program, &cache).await;
    // What is left is a few files in our own folder, and the next look makes it anew.
    let _ = fs::remove_dir_all(&cache);
    Ok(found(refreshed.err()))
}

/// Reads the sources' indices into a folder of our own.
async fn refresh<H: Host>(host: &H, manager: &str, program: &str, cache: &Path) -> Result<(), String> {
    let folder = cache.display();
    let arguments = match manager {
        "apt-get" => vec![
            "update".to_owned(),
            "-qq".to_owned(),
            format!("-oDir::State::Lists={folder}"),
            "-oDir::Cache::pkgcache=".to_owned(),
            "-oDir::Cache::srcpkgcache=".to_owned(),
            "-oAPT::Update::Error-Mode=any".to_owned(),
            "-oAcquire::Retries=0".to_owned(),
        ],
        "zypper" => vec!["--non-interactive".to_owned(), format!("--cache-dir={folder}"), "refresh".to_owned()],
        _ => vec!["makecache".to_owned(), "-q".to_owned(), format!("--setopt=cachedir={folder}")],
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = host.output(program, &arguments, REFRESH_LIMIT).await.map_err(in_words)?;
    if output.success {
        return Ok(());
    }
    let said = format!("{}\n{}", output.error, output.text);
    let complaint = said.lines().find(|line| COMPLAINTS.iter().any(|begin| line.starts_with(begin)));
    let complaint = complaint.or_else(|| said.lines().find(|line| !line.trim().is_empty()));
    Err(complaint.unwrap_or("it failed without a word").chars().take(300).collect())
}

/// The addresses of all sources that are switched on.
fn addresses<H: Host>(host: &H, manager: &str) -> Vec<String> {
    let files = |folder: &str| -> Vec<PathBuf> {
        fs::read_dir(host.at(folder)).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let paths = match manager {
        "apt-get" => [vec![host.at("/etc/apt/sources.list")], files("/etc/apt/sources.list.d")].concat(),
        "zypper" => files("/etc/zypp/repos.d"),
        _ => files("/etc/yum.repos.d"),
    };
    let mut found: Vec<String> = paths
        .iter()
        .filter_map(|path| Some((path.extension()?.to_str()?, fs::read_to_string(path).ok()?)))
        .flat_map(|(ending, text)| match ending {
            "list" => of_list(&text),
            "sources" => of_stanzas(&text),
            "repo" => of_repositories(&text),
            _ => Vec::new(),
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// `deb [options] URI suite component…`
fn of_list(text: &str) -> Vec<String> {
    let uri = |line: &str| {
        let rest = line.trim().strip_prefix("deb ")?.trim_start();
        let rest = if rest.starts_with('[') { rest.split_once(']')?.1.trim_start() } else { rest };
        rest.split_whitespace().next().map(str::to_owned)
    };
    text.lines().filter_map(uri).collect()
}

/// Stanzas with `URIs:`, which `Enabled: no` switches off.
fn of_stanzas(text: &str) -> Vec<String> {
    let value = |stanza: &str, name: &str| {
        let line =
            stanza.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.eq_ignore_ascii_case(name)));
        line.map(|(_, value)| value.trim().to_owned())
    };
    text.split("\n\n")
        .filter(|stanza| value(stanza, "Enabled").is_none_or(|word| !word.eq_ignore_ascii_case("no")))
        .flat_map(|stanza| {
            value(stanza, "URIs").unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Sections with `baseurl`, `mirrorlist` or `metalink`, which `enabled=0` switches off.
fn of_repositories(text: &str) -> Vec<String> {
    let value = |section: &str, name: &str| {
        let line = section.lines().find_map(|line| line.split_once('=').filter(|(key, _)| key.trim() == name));
        line.map(|(_, value)| value.trim().to_owned())
    };
    text.split("\n[")
        .filter(|section| value(section, "enabled").is_none_or(|word| !matches!(&*word, "0" | "false" | "no")))
        .filter_map(|section| ["baseurl", "mirrorlist", "metalink"].iter().find_map(|name| value(section, name)))
        .collect()
}

fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (scheme, rest) = address.split_once("://")?;
    let port = match scheme {
        "http" => 80,
        "https" => 443,
        // A folder or a medium has no host.
        _ => return None,
    };
    let authority = rest.split('/').next()?.rsplit('@').next()?;
    match authority.rsplit_once(':') {
        Some((host, given)) if given.parse::<u16>().is_ok() => Some((host.to_owned(), given.parse().ok()?)),
        _ => Some((authority.to_owned(), port)),
    }
}

/// Whether the package manager goes through a proxy: then hosts are not reached from here.
fn has_proxy<H: Host>(host: &H, manager: &str) -> bool {
    let (folder, single, word) = match manager {
        "apt-get" => ("/etc/apt/apt.conf.d", "/etc/apt/apt.conf", "proxy"),
        "zypper" => ("/etc/zypp", "/etc/sysconfig/proxy", "proxy"),
        "dnf" => ("/etc/dnf", "/etc/dnf/dnf.conf", "proxy"),
        _ => ("/etc/yum", "/etc/yum.conf", "proxy"),
    };
    let entries = fs::read_dir(host.at(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.chain([host.at(single)]).any(|path| {
        let text = fs::read_to_string(path).unwrap_or_default().to_lowercase();
        text.lines().any(|line| !line.trim_start().starts_with(['#', '/']) && line.contains(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_of_sources_that_are_switched_on_are_read_in_every_form() {
        let list = "# deb http://no/ x y\ndeb [signed-by=/k arch=amd64] http://a.example/debian bookworm main\ndeb-src http://s/ x\ndeb cdrom:[Debian]/ x\n";
        assert_eq!(of_list(list), ["http://a.example/debian", "cdrom:[Debian]/"]);
        let stanzas = "Types: deb\nURIs: http://b.example/ https://c.example/x\n\nURIs: http://off/\nEnabled: no\n";
        assert_eq!(of_stanzas(stanzas), ["http://b.example/", "https://c.example/x"]);
        let repositories = "[base]\nname=x\nmirrorlist=http://m.example/$releasever\n\n[extra]\nbaseurl = https://e.example:8443/\nenabled=0\n\n[more]\nbaseurl=file:///srv\n";
        assert_eq!(of_repositories(repositories), ["http://m.example/$releasever", "file:///srv"]);
    }

    #[test]
    fn a_host_has_the_port_of_its_scheme_unless_one_is_given() {
        for (address, expected) in [
            ("http://a.example/debian", Some(("a.example", 80))),
            ("https://user:secret@b.example/x", Some(("b.example", 443))),
            ("http://10.0.0.1:8080", Some(("10.0.0.1", 8080))),
            ("file:///srv/mirror", None),
            ("cdrom:[x]", None),
        ] {
            let expected = expected.map(|(host, port): (&str, u16)| (host.to_owned(), port));
            assert_eq!(host_and_port(address), expected, "{address}");
        }
    }
}
