//! The kubelet: its health, its settings, what it says.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Map, Value};
use shiplock_core::facts::examination::{KubeletHealth, Look};

use super::in_words;
use crate::control_plane::kubeconfig;
use crate::host::Host;
use crate::kubelet_configuration::{KubeletConfigurationReader, PATH};
use crate::steps::READ_LIMIT;

const HEALTH_PORT: u16 = 10248;
/// Lines of its journal that are read for what it says of PLEG.
const JOURNAL_LINES: &str = "--lines=2000";
const PLEG: &str = "PLEG is not healthy";
/// Starts of the kubelet are counted over so many seconds.
const STARTS_WITHIN_SECONDS: u64 = 1200;
const RESERVED: [&str; 2] = ["kubeReserved", "systemReserved"];

pub(super) async fn look<H: Host>(host: &H) -> Look<KubeletHealth> {
    let service = host.service("kubelet").await.map_err(in_words)?;
    if service.command.is_empty() {
        return Err("there is no service kubelet".to_owned());
    }
    let flags = flags(host, service.main_pid);
    let path = flags.iter().find_map(|(name, value)| (name == "config").then(|| value.clone()));
    let path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| PATH.to_owned());
    let text = fs::read_to_string(host.at(&path)).map_err(|error| format!("{path}: {error}"))?;
    let mut settings: Map<String, Value> = serde_saphyr::from_str(&text).map_err(|_| format!("{path} is not YAML"))?;
    let folder = flags.iter().find(|(name, _)| name == "config-dir").map(|(_, folder)| folder.clone());
    for drop_in in folder.iter().flat_map(|folder| drop_ins(host, folder)) {
        merge(&mut settings, drop_in);
    }
    let (healthy, pleg, starts) = futures::join!(host.is_healthy(HEALTH_PORT), pleg(host), starts(host));
    let edits = KubeletConfigurationReader::default().edits(host).await.map_err(in_words);
    let ill = match (service.state.as_str(), healthy) {
        ("active", true) => None,
        ("active", false) => Some("its health endpoint does not answer ok".to_owned()),
        (state, _) => Some(format!("its service is {state}")),
    };
    let server = kubeconfig::server(host, kubeconfig::KUBELET).unwrap_or_default();
    Ok(KubeletHealth {
        ill,
        pleg: pleg?,
        starts: starts?,
        api_server_host: host_of(&server),
        edits,
        ..settings_of(&settings, flags)
    })
}

/// What the settings say; flags outrank the file.
fn settings_of(settings: &Map<String, Value>, flags: Vec<(String, String)>) -> KubeletHealth {
    let text = |pointer: &[&str]| -> Option<String> {
        let mut at = settings.get(pointer[0])?;
        for name in &pointer[1..] {
            at = at.get(name)?;
        }
        at.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let flag = |wanted: &str| flags.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let mut reserved: BTreeMap<String, String> = BTreeMap::new();
    for name in RESERVED {
        for (resource, value) in settings.get(name).and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            reserved.insert(format!("{name}.{resource}"), value);
        }
    }
    for (name, key) in [("kube-reserved", "kubeReserved"), ("system-reserved", "systemReserved")] {
        for (resource, value) in flag(name).into_iter().flat_map(pairs) {
            reserved.insert(format!("{key}.{resource}"), value);
        }
    }
    if let Some(processors) = text(&["reservedSystemCPUs"]) {
        reserved.insert("reservedSystemCPUs".to_owned(), processors);
    }
    let gates = settings.get("featureGates").and_then(Value::as_object).into_iter().flatten();
    let mut feature_gates: BTreeMap<String, bool> =
        gates.filter_map(|(name, value)| Some((name.clone(), value.as_bool()?))).collect();
    feature_gates.extend(
        flag("feature-gates").into_iter().flat_map(pairs).filter_map(|(name, value)| Some((name, value.parse().ok()?))),
    );
    let in_file = settings.get("failSwapOn").and_then(Value::as_bool);
    let by_flag = flag("fail-swap-on").and_then(|value| if value.is_empty() { Some(true) } else { value.parse().ok() });
    KubeletHealth {
        ill: None,
        pleg: None,
        starts: 0,
        api_version: text(&["apiVersion"]).unwrap_or_default(),
        fails_on_swap: by_flag.or(in_file).unwrap_or(true),
        swap_behavior: text(&["memorySwap", "swapBehavior"]),
        fails_on_cgroup_v1: settings.get("failCgroupV1").and_then(Value::as_bool),
        reserved,
        feature_gates,
        flags: flags.into_iter().map(|(name, _)| name).collect(),
        edits: Ok(Vec::new()),
        api_server_host: String::new(),
    }
}

/// `a=1,b=2`
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
    text.split(',').filter_map(pair).collect()
}

/// The flags of the running process; those of the unit may come from variables.
fn flags<H: Host>(host: &H, pid: u32) -> Vec<(String, String)> {
    let line = fs::read(host.at(&format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).skip(1);
    let mut flags = Vec::new();
    let mut open: Option<String> = None;
    for word in words.by_ref() {
        match word.strip_prefix("--").or_else(|| word.strip_prefix('-')) {
            Some(flag) => {
                flags.extend(open.take().map(|name| (name, String::new())));
                match flag.split_once('=') {
                    Some((name, value)) => flags.push((name.to_owned(), value.to_owned())),
                    None => open = Some(flag.to_owned()),
                }
            }
            None if word.is_empty() => {}
            None => flags.extend(open.take().map(|name| (name, word))),
        }
    }
    flags.extend(open.map(|name| (name, String::new())));
    flags
}

/// Files `*.conf` of `--config-dir`, in the order in which the kubelet merges them.
fn drop_ins<H: Host>(host: &H, folder: &str) -> Vec<Map<String, Value>> {
    let entries = fs::read_dir(host.at(folder)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == "conf")).collect();
    paths.sort();
    paths.iter().filter_map(|path| serde_saphyr::from_str(&fs::read_to_string(path).ok()?).ok()).collect()
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(into)), Value::Object(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn host_of(server: &str) -> String {
    let authority = server.split_once("://").map_or(server, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

/// The newest complaint of the last minutes.
async fn pleg<H: Host>(host: &H) -> Result<Option<String>, String> {
    let arguments =
        ["--unit=kubelet", "--no-pager", "--quiet", "--since=-4min", JOURNAL_LINES, "--reverse", "--output=cat"];
    let output = host.output("journalctl", &arguments, READ_LIMIT).await.map_err(in_words)?;
    // With each start it says that PLEG has yet to be successful, which is no complaint.
    let line = output.text.lines().find(|line| line.contains(PLEG) && line.contains("pleg was last seen active"));
    Ok(line.and_then(|line| line.find(PLEG).map(|at| line[at..].chars().take(160).collect())))
}

/// How often the service manager had to start it again in the last 20 minutes, by its own journal: what people and
/// upgrades start is no loop. Before the node joins that happens again and again, as kubeadm means it to: counted is from
/// then on.
async fn starts<H: Host>(host: &H) -> Result<u32, String> {
    let joined = fs::metadata(host.at(kubeconfig::KUBELET)).and_then(|metadata| metadata.modified());
    let seconds =
        joined.ok().and_then(|joined| joined.elapsed().ok()).map_or(STARTS_WITHIN_SECONDS, |age| age.as_secs());
    let since = format!("--since=-{}s", seconds.min(STARTS_WITHIN_SECONDS));
    let arguments = ["_PID=1", "UNIT=kubelet.service", "--no-pager", "--quiet", &since, "--output=cat"];
    let output = host.output("journalctl", &arguments, READ_LIMIT).await.map_err(in_words)?;
    Ok(u32::try_from(output.text.lines().filter(|line| line.contains("Scheduled restart job")).count())
        .unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_have_the_defaults_of_the_kubelet_and_flags_outrank_the_file() {
        let settings = |value: Value, flags: &[(&str, &str)]| {
            let flags = flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            settings_of(value.as_object().unwrap(), flags)
        };
        let bare = settings(json!({}), &[]);
        assert!(bare.fails_on_swap && bare.reserved.is_empty() && bare.fails_on_cgroup_v1.is_none());
        let full = settings(
            json!({
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "failSwapOn": false,
                "failCgroupV1": false,
                "memorySwap": { "swapBehavior": "LimitedSwap" },
                "kubeReserved": { "cpu": "100m", "memory": "1Gi" },
                "reservedSystemCPUs": "0,1",
                "featureGates": { "A": true, "B": false },
            }),
            &[("system-reserved", "memory=500Mi,cpu=1"), ("feature-gates", "B=true"), ("fail-swap-on", "true")],
        );
        assert!(full.fails_on_swap, "the flag outranks the file");
        assert_eq!(full.swap_behavior.as_deref(), Some("LimitedSwap"));
        assert_eq!(full.fails_on_cgroup_v1, Some(false));
        let reserved: Vec<&str> = full.reserved.keys().map(String::as_str).collect();
        let expected = [
            "kubeReserved.cpu",
            "kubeReserved.memory",
            "reservedSystemCPUs",
            "systemReserved.cpu",
            "systemReserved.memory",
        ];
        assert_eq!(reserved, expected);
        assert_eq!(full.feature_gates, BTreeMap::from([("A".to_owned(), true), ("B".to_owned(), true)]));
    }

    #[test]
    fn the_host_of_a_server_is_without_scheme_and_port() {
        for (server, host) in
            [("https://10.0.0.1:6443", "10.0.0.1"), ("https://[fd00::1]:6443", "fd00::1"), ("https://api.x/", "api.x")]
        {
            assert_eq!(host_of(server), host);
        }
    }
}
