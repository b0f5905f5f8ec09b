//! `cargo xtask fields`: what fields each kind has, by name, number and type, from Kubernetes' own sources.
//!
//! The façade of simulated clusters reads bodies in Kubernetes' protobuf form by this table, and looks at the types of
//! those in JSON. Numbers and types are those of `generated.proto`; how a field is written in JSON, and whether it is left
//! out when it has its zero value, is what the Go types say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::lifecycle::{download, folders};

/// Where the table lies.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/shiplock-sim/data/fields.txt");
/// Packages without kinds of their own that fields are made of.
const PARTS: [&str; 4] = ["pkg/apis/meta/v1", "pkg/api/resource", "pkg/util/intstr", "pkg/runtime"];
/// Their JSON is not that of their fields: the reader of the table knows them by name.
const SPECIAL: [&str; 6] =
    ["IntOrString", "Quantity", "RawExtension", "meta.v1.FieldsV1", "meta.v1.MicroTime", "meta.v1.Time"];
/// What the façade is sent: the kinds that it serves, and what a subresource takes.
const KINDS: [&str; 49] = [
    "admissionregistration.v1.MutatingWebhookConfiguration",
    "admissionregistration.v1.ValidatingWebhookConfiguration",
    "apps.v1.ControllerRevision",
    "apps.v1.DaemonSet",
    "apps.v1.Deployment",
    "apps.v1.ReplicaSet",
    "apps.v1.StatefulSet",
    "authentication.v1.SelfSubjectReview",
    "authorization.v1.SelfSubjectAccessReview",
    "authorization.v1.SelfSubjectRulesReview",
    "autoscaling.v1.Scale",
    "autoscaling.v2.HorizontalPodAutoscaler",
    "batch.v1.CronJob",
    "batch.v1.Job",
    "certificates.v1.CertificateSigningRequest",
    "coordination.v1.Lease",
    "core.v1.ConfigMap",
    "core.v1.Endpoints",
    "core.v1.Event",
    "core.v1.LimitRange",
    "core.v1.Namespace",
    "core.v1.Node",
    "core.v1.PersistentVolume",
    "core.v1.PersistentVolumeClaim",
    "core.v1.Pod",
    "core.v1.ReplicationController",
    "core.v1.ResourceQuota",
    "core.v1.Secret",
    "core.v1.Service",
    "core.v1.ServiceAccount",
    "discovery.v1.EndpointSlice",
    "flowcontrol.v1.FlowSchema",
    "flowcontrol.v1.PriorityLevelConfiguration",
    "meta.v1.DeleteOptions",
    "networking.v1.Ingress",
    "networking.v1.IngressClass",
    "networking.v1.NetworkPolicy",
    "node.v1.RuntimeClass",
    "policy.v1.Eviction",
    "policy.v1.PodDisruptionBudget",
    "rbac.v1.ClusterRole",
    "rbac.v1.ClusterRoleBinding",
    "rbac.v1.Role",
    "rbac.v1.RoleBinding",
    "scheduling.v1.PriorityClass",
    "storage.v1.CSIDriver",
    "storage.v1.CSINode",
    "storage.v1.StorageClass",
    "storage.v1.VolumeAttachment",
];

/// Arguments of `cargo xtask fields`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The release of Kubernetes whose sources are read, as the Go modules number it
    #[arg(long, default_value = "0.37.2")]
    release: String,
    /// Write the table; without it a difference is an error
    #[arg(long)]
    write: bool,
}

/// What the Go type says of a field, by the name of the type and the field's number; under 0 where it is an object of its own,
/// with `apiVersion` and `kind`.
type Written = BTreeMap<(String, u32), GoField>;

/// How a field is written in JSON.
struct GoField {
    /// Empty where its fields are those of the message that it is in.
    name: String,
    /// Whether it is left out when it has its zero value.
    left_out: bool,
}

/// A message, and the fields of it as the table has them.
#[derive(Default)]
struct Message {
    /// `NUMBER:NAME:TYPE`, the type with marks: `^` its fields are written as those of the message, `?` left out when it is
    /// zero, `*` many, `%` many by a text.
    fields: Vec<String>,
    uses: Vec<String>,
}

/// Writes the table, or says that it is not what the sources say.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut messages = BTreeMap::new();
    let (machinery, machinery_sum) = download(&format!("k8s.io/apimachinery@v{}", arguments.release))?;
    for part in PARTS {
        read_package(&machinery.join(part), &mut messages)?;
    }
    let (api, api_sum) = download(&format!("k8s.io/api@v{}", arguments.release))?;
    for group in folders(&api)? {
        for version in folders(&group)?.iter().filter(|path| path.join("generated.proto").exists()) {
            read_package(version, &mut messages)?;
        }
    }
    let mut wanted: Vec<String> = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    let mut written = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if SPECIAL.contains(&name.as_str()) || written.contains(&name) {
            continue;
        }
        let message = messages.get(&name).with_context(|| format!("no message {name}"))?;
        wanted.extend(message.uses.iter().cloned());
        written.insert(name);
    }
    let mut text = format!(
        "# cargo xtask fields --write\n# k8s.io/api v{0} {api_sum}\n# k8s.io/apimachinery v{0} {machinery_sum}\n",
        arguments.release
    );
    for name in &written {
        text.push_str(&format!("{name} {}\n", messages[name].fields.join(" ")));
    }
    let known = fs::read_to_string(TABLE).unwrap_or_default();
    if known == text {
        println!("{} messages, as the sources of {} say", written.len(), arguments.release);
    } else if arguments.write {
        fs::write(TABLE, text)?;
        println!("{} messages written", written.len());
    } else {
        bail!("the table differs from the sources of {}: cargo xtask fields --write", arguments.release);
    }
    Ok(())
}

fn read_package(folder: &Path, messages: &mut BTreeMap<String, Message>) -> Result<()> {
    let proto = fs::read_to_string(folder.join("generated.proto"))?;
    let written = read_types(folder)?;
    let package = proto.lines().find_map(|line| line.strip_prefix("package ")?.strip_suffix(';'));
    let package = package.with_context(|| format!("{} names no package", folder.display()))?;
    let mut inside: Option<(String, Message)> = None;
    for line in proto.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("message ").and_then(|line| line.strip_suffix(" {")) {
            let is_object = written.contains_key(&(name.to_owned(), 0));
            let fields = if is_object {
                vec!["0:apiVersion:?string".to_owned(), "0:kind:?string".to_owned()]
            } else {
                Vec::new()
            };
            inside = Some((name.to_owned(), Message { fields, uses: Vec::new() }));
        } else if line == "}" {
            if let Some((name, message)) = inside.take() {
                messages.insert(short(&format!("{package}.{name}")), message);
            }
        } else if let Some((name, message)) = &mut inside {
            read_field(line, package, name, &written, message).with_context(|| format!("{package}.{name}: {line}"))?;
        }
    }
    Ok(())
}

/// `optional string name = 1;`, `repeated X x = 2;` or `map<string, X> x = 3;`.
fn read_field(line: &str, package: &str, inside: &str, written: &Written, message: &mut Message) -> Result<()> {
    let (mark, rest) = if let Some(rest) = line.strip_prefix("optional ") {
        ("", rest)
    } else if let Some(rest) = line.strip_prefix("repeated ") {
        ("*", rest)
    } else if let Some(rest) = line.strip_prefix("map<string, ") {
        ("%", rest)
    } else {
        return Ok(());
    };
    let (kind, rest) = rest.split_once(' ').context("a type and a name")?;
    let kind = kind.trim_end_matches('>');
    let (name, number) = rest.trim_end_matches(';').split_once(" = ").context("a name and a number")?;
    let number: u32 = number.parse()?;
    let is_scalar = ["string", "bytes", "bool", "double"].contains(&kind) || kind.starts_with("int");
    let kind = match kind.strip_prefix('.') {
        _ if is_scalar => kind.to_owned(),
        Some(whole) => short(whole),
        None if kind.contains('.') => short(kind),
        None => short(&format!("{package}.{kind}")),
    };
    if !is_scalar {
        message.uses.push(kind.clone());
    }
    // Types that are lists of texts in Go have one field and no tags.
    let named = GoField { name: name.to_owned(), left_out: false };
    let of_go = written.get(&(inside.to_owned(), number)).unwrap_or(&named);
    let inline = if of_go.name.is_empty() { "^" } else { "" };
    let left_out = if of_go.left_out { "?" } else { "" };
    let name = if of_go.name.is_empty() { name } else { &of_go.name };
    message.fields.push(format!("{number}:{name}:{inline}{left_out}{mark}{kind}"));
    Ok(())
}

/// The tags of every struct in a package.
fn read_types(folder: &Path) -> Result<Written> {
    let mut written = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !name.ends_with(".go") || name.ends_with("_test.go") || name.contains("generated") {
            continue;
        }
        let mut inside = String::new();
        for line in fs::read_to_string(&path)?.lines() {
            if let Some(rest) = line.strip_prefix("type ") {
                inside = rest.split_once(" struct").map(|(name, _)| name.to_owned()).unwrap_or_default();
            }
            let Some((number, field)) = read_tags(line) else { continue };
            written.insert((inside.clone(), number), field);
        }
    }
    Ok(written)
}

/// ``Name *Type `json:"name,omitempty" protobuf:"bytes,1,opt,name=name"` ``.
fn read_tags(line: &str) -> Option<(u32, GoField)> {
    let (declared, tags) = line.split_once('`')?;
    if declared.trim().ends_with("TypeMeta") {
        return Some((0, GoField { name: String::new(), left_out: false }));
    }
    let tag = |name: &str| Some(tags.split_once(&format!("{name}:\""))?.1.split_once('"')?.0);
    let number = tag("protobuf")?.split(',').nth(1)?.parse().ok()?;
    let mut json = tag("json")?.split(',');
    let name = json.next()?.to_owned();
    let is_pointer = declared.split_whitespace().nth(1).is_some_and(|kind| kind.starts_with('*'));
    Some((number, GoField { name, left_out: !is_pointer && json.any(|word| word == "omitempty") }))
}

/// The name without what all have in common.
fn short(name: &str) -> String {
    let prefixes = [
        "k8s.io.apimachinery.pkg.util.intstr.",
        "k8s.io.apimachinery.pkg.api.resource.",
        "k8s.io.apimachinery.pkg.runtime.",
        "k8s.io.apimachinery.pkg.apis.",
        "k8s.io.api.",
    ];
    prefixes.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_written_as_its_go_type_says() {
        let go = "\tVolumes []Volume `json:\"volumes,omitempty\" patchStrategy:\"merge\" protobuf:\"bytes,1,rep,name=volumes\"`";
        let pointer = "\tReplicas *int32 `json:\"replicas,omitempty\" protobuf:\"varint,2,opt,name=replicas\"`";
        let inline = "\tVolumeSource `json:\"\" protobuf:\"bytes,3,opt,name=volumeSource\"`";
        let written: Written = [go, pointer, inline]
            .into_iter()
            .filter_map(read_tags)
            .map(|(number, field)| (("Spec".to_owned(), number), field))
            .collect();
        let mut message = Message::default();
        for line in [
            "repeated Volume volumes = 1;",
            "optional int32 replicas = 2;",
            "optional VolumeSource volumeSource = 3;",
            "map<string, .k8s.io.apimachinery.pkg.api.resource.Quantity> limits = 4;",
            "// optional remark",
        ] {
            read_field(line, "k8s.io.api.core.v1", "Spec", &written, &mut message).unwrap();
        }
        assert_eq!(
            message.fields,
            [
                "1:volumes:?*core.v1.Volume",
                "2:replicas:int32",
                "3:volumeSource:^core.v1.VolumeSource",
                "4:limits:%Quantity"
            ]
        );
        assert_eq!(message.uses, ["core.v1.Volume", "core.v1.VolumeSource", "Quantity"]);
    }
}
