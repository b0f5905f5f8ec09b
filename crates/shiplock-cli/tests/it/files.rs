//! `check` on files, as people and CI systems call it: the compiled program, its exit code and what it printed.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

const INGRESS: &str = "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata:\n  name: a\n";
const VALUES: &str = "replicas: 3\n";

/// The exit code, and check, sentence and name of each finding.
fn check(folder: &Path, words: &[&str], stdin: &[u8]) -> (i32, Vec<String>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_shiplock"))
        .arg("check")
        .args(words)
        .args(["--to", "1.37", "-o", "json", "--progress", "none"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that reads no standard input may have ended.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let found = report["report"]["findings"].as_array().unwrap().iter().map(|finding| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        format!("{} {} {}", text(&finding["check"]), text(&finding["sentence"]), text(&finding["subject"]["name"]))
    });
    (output.status.code().unwrap(), found.collect())
}

fn packed(text: &str) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[test]
fn where_nothing_came_to_be_judged_the_check_is_undecided_and_never_ready() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("none")).unwrap();
    write("empty.yaml", b"");
    write("remark.yaml", b"# nothing\n---\n");
    write("values.yaml", VALUES.as_bytes());
    write("complaint.yaml", b"Error: no such chart\n");
    write("text.yaml", b"no such chart\n");
    std::fs::create_dir(folder.path().join("some")).unwrap();
    write("some/empty.yaml", b"");
    write("some/text.yaml", b"v1.36.3\n");
    write("some/ingress.yaml", INGRESS.as_bytes());
    write("ingress.yaml", INGRESS.as_bytes());
    let event = "{\"stage\":\"ResponseComplete\",\"verb\":\"get\",\"user\":{\"username\":\"dev\"}}\n";
    write("audit.log.gz", &packed(event));
    let none = |name: &str| vec![format!("API-007 nothing {name}")];
    let ingress = || vec!["API-002 removed a".to_owned()];
    let cases: &[(&[&str], &str, i32, Vec<String>)] = &[
        (&["-f", "-"], "", 4, none("(stdin)")),
        (&["-f", "-"], "\n---\n# nothing\n", 4, none("(stdin)")),
        (&["-f", "-"], "Error: no such chart\n", 4, none("(stdin)")),
        (&["-f", "-"], INGRESS, 0, ingress()),
        (&["-f", "-", "ingress.yaml"], "", 4, [ingress(), none("(stdin)")].concat()),
        (&["-f", "none"], "", 4, none("none")),
        (&["-f", "empty.yaml"], "", 4, none("empty.yaml")),
        (&["-f", "remark.yaml", "none"], "", 4, none("remark.yaml")),
        // What was to be written to it may have failed.
        (&["-f", "empty.yaml", "ingress.yaml"], "", 4, [ingress(), none("empty.yaml")].concat()),
        (&["-f", "complaint.yaml"], "", 4, none("complaint.yaml")),
        (&["-f", "values.yaml"], "", 4, none("values.yaml")),
        (&["-f", "values.yaml", "ingress.yaml"], "", 0, ingress()),
        (&["-f", "text.yaml", "ingress.yaml"], "", 4, [ingress(), none("text.yaml")].concat()),
        // In a folder there are other files too.
        (&["-f", "some"], "", 0, ingress()),
        // Left out by name or not, of a file that cannot be read nothing is called well.
        (&["-f", "text.yaml", "--only", "API-002", "--skip", "API-007"], "", 4, Vec::new()),
        (&["--audit-log", "empty.yaml"], "", 4, vec!["API-009 empty empty.yaml".to_owned()]),
        (&["--audit-log", "audit.log.gz"], "", 0, Vec::new()),
    ];
    for (words, stdin, code, found) in cases {
        assert_eq!(check(folder.path(), words, stdin.as_bytes()), (*code, found.clone()), "{words:?} {stdin:?}");
    }
}

#[test]
fn what_was_not_given_is_not_asked_and_never_well() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pod.yaml"), "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n").unwrap();
    let event = "{\"stage\":\"ResponseComplete\",\"verb\":\"get\",\"user\":{\"username\":\"dev\"}}\n";
    std::fs::write(folder.path().join("audit.log"), event).unwrap();
    for (words, code, expected) in [
        (&["-f", "pod.yaml"][..], 0, "3 need an audit log"),
        (&["-f", "pod.yaml", "--only", "CP-010"], 4, "no check ran"),
        (&["-f", "pod.yaml", "--require", "audit-log"], 4, "--require"),
        (&["--audit-log", "audit.log"], 0, "1 needs files,"),
        (&["--audit-log", "audit.log", "--only", "API-001,API-007"], 4, "no check ran"),
        (&["-f", "pod.yaml", "--audit-log", "audit.log", "--require", "file,audit-log"], 0, "ready"),
    ] {
        let (ended, text, _) = said(folder.path(), words);
        assert_eq!(ended, code, "{words:?}: {text}");
        assert!(text.contains(expected), "{words:?}: {text}");
    }
}

#[test]
fn folders_that_are_left_out_by_their_names_are_counted_and_a_path_that_is_not_there_is_a_wrong_option() {
    let folder = tempfile::tempdir().unwrap();
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";
    for name in ["a/.git", "a/b/node_modules"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("old.yaml"), INGRESS).unwrap();
    }
    std::fs::write(folder.path().join("a/pod.yaml"), pod).unwrap();
    let run = |words: &[&str]| {
        let (code, text, error) = said(folder.path(), words);
        (code, text + &error)
    };
    let (code, text) = run(&["-f", "a"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("not gone into: 2 folders named .git or node_modules\n"), "{text}");
    for needs in ["1 needs kubectl of this machine,", "need the cluster's API,", "1 needs a plan\n"] {
        assert!(text.contains(needs), "{needs}: {text}");
    }
    let (_, text) = run(&["-f", "a", "--only", "API-007"]);
    assert!(text.contains(" 1 check ok") && text.contains("   1 check\n"), "{text}");
    for words in [
        &["-f", "none"][..],
        &["--audit-log", "none"],
        &["--snapshot", "none"],
        &["--kubeconfig", "none"],
        &["-f", "a", "--baseline", "none"],
        &["-f", "a", "--accept-file", "none"],
    ] {
        let (code, text) = run(words);
        assert_eq!(code, 2, "{words:?}: {text}");
        assert!(text.contains("there is no such file or folder") && !text.contains("continue"), "{text}");
    }
    for (words, why) in [
        (&["--audit-log", "a"][..], "it is a folder, not a file"),
        (&["-f", "a", "--save-snapshot", "q.json"], "no cluster is read for it"),
        (&["-f", "a", "--todo"], "shiplock check CLUSTER --todo"),
    ] {
        let (code, text) = run(words);
        assert!(code == 2 && text.contains(why) && text.contains("UPG0114"), "{words:?}: {text}");
    }
    assert!(!folder.path().join("q.json").exists());
}

#[test]
fn what_no_api_server_takes_is_told_and_never_silence() {
    let folder = tempfile::tempdir().unwrap();
    for (api_version, kind, sentence) in [
        ("\"\"", "Ingress", "incomplete"),
        ("extensions/v1beta1", "\"\"", "incomplete"),
        ("extensions/v1beta1/", "Ingress", "shape"),
        ("a/b/v1", "Ingress", "shape"),
        ("/v1", "Pod", "shape"),
        ("v1/", "Pod", "shape"),
        ("extensions/v1beta1", "ingress", "shape"),
        ("networking.k8s.io/v1", "ingress", "shape"),
        ("API_VERSION", "Ingress", "shape"),
        ("ENC[AES256_GCM,data:p673w==,iv:YY=,type:str]", "Ingress", "shape"),
        ("\"extensions/v1beta1 \"", "Ingress", "shape"),
        ("Extensions/v1beta1", "Ingress", "shape"),
        ("extensions/V1beta1", "Ingress", "shape"),
        ("a..b/v1", "Ingress", "shape"),
        ("a-/v1", "Ingress", "shape"),
        ("1.1.0", "Ingress", "shape"),
        ("v1", "\"Pod \"", "shape"),
        // Kubernetes never had these kinds, and serves nothing of these versions any more.
        ("apps/v1beta1", "Deploymnet", "shape"),
        ("extensions/v1beta1", "Job", "shape"),
        ("autoscaling/v2alpha1", "HorizontalPodAutoscaler", "shape"),
        ("apps/v1alpha1", "PetSet", "shape"),
        ("policy/v1alpha1", "PodDisruptionBudget", "shape"),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: a\n");
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let expected = (4, vec![format!("API-007 {sentence} a.yaml")]);
        assert_eq!(check(folder.path(), &["-f", "a.yaml"], b""), expected, "{api_version} {kind}");
    }
    for (api_version, kind) in [
        ("x.io/v1", "thing"),
        ("x.io/v1b1", "Thing"),
        ("3scale.net/v1-a", "A2"),
        ("v1alpha1", "HostnameConfig"),
        ("skaffold/v2beta1", "Config"),
        ("metrics.k8s.io/v1beta1", "NodeMetrics"),
        ("snapshot.storage.k8s.io/v1", "VolumeSnapshot"),
        ("kubeadm.k8s.io/v1beta4", "ClusterConfiguration"),
        ("apps/v1", "Deployment"),
    ] {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: a\n");
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        assert_eq!(check(folder.path(), &["-f", "a.yaml"], b""), (0, Vec::new()), "{api_version} {kind}");
    }
    for (version, sentence) in [
        ("kubeadm.k8s.io/v1beta1", "kubeadm-file"),
        ("kubeadm.k8s.io/v1beta3", "kubeadm-file"),
        ("kubescheduler.config.k8s.io/v1alpha2", "removed"),
    ] {
        let text = format!("apiVersion: {version}\nkind: X\nmetadata:\n  name: a\n");
        std::fs::write(folder.path().join("a.yaml"), text).unwrap();
        let expected = (3, vec![format!("API-012 {sentence} a")]);
        assert_eq!(check(folder.path(), &["-f", "a.yaml"], b""), expected, "{version}");
    }
}

/// A file in an archive of `tar`.
fn member(name: &str, text: &str) -> Vec<u8> {
    let mut member = vec![0; 512];
    member[..name.len()].copy_from_slice(name.as_bytes());
    member[124..135].copy_from_slice(format!("{:011o}", text.len()).as_bytes());
    member[257..262].copy_from_slice(b"ustar");
    member.extend(text.as_bytes());
    member.resize(member.len().div_ceil(512) * 512, 0);
    member
}

#[test]
fn a_file_in_a_folder_that_holds_manifests_is_never_passed_over_whatever_its_name_is() {
    let chart = [member("c/notes.txt", "x"), member("c/templates/a.yaml", INGRESS), vec![0; 1024]].concat();
    let source = [member("s/main.c", "x"), member("s/.travis.yml", "a: b\n"), vec![0; 1024]].concat();
    let pack = |bytes: &[u8]| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let zip = |name: &str| {
        [&b"PK\x03\x04....PK\x01\x02"[..], &[0; 24], &[name.len() as u8], &[0; 17], name.as_bytes()].concat()
    };
    let wide: Vec<u8> = format!("\u{feff}{INGRESS}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let ingress = Some("API-002 removed");
    let unreadable = Some("API-007 unreadable");
    let below = format!("replicas: 1\n---\n{INGRESS}");
    let quoted = format!("\"apiVersion\": {}", &INGRESS[12..]);
    let behind = format!("spec: {{}}\n{INGRESS}");
    let cases: &[(&str, &[u8], Option<&str>)] = &[
        ("chart.tar.gz", &pack(&chart), Some("API-007 template")),
        ("chart.tar", &chart, unreadable),
        ("source.tar.gz", &pack(&source), None),
        ("source.tar", &source, None),
        ("deploy.zip", &zip("a.yaml"), unreadable),
        ("photos.zip", &zip("a.jpeg"), None),
        ("program.jar", &zip("a.yml"), None),
        ("x.yaml.bz2", b"BZh91AY", unreadable),
        ("x.json.zst", b"\x28\xb5\x2f\xfd", unreadable),
        ("notes.bz2", b"BZh91AY", None),
        ("deploy.gz", &pack(INGRESS.as_bytes()), ingress),
        ("log.gz", &pack(b"apiVersion was asked for\n"), None),
        ("x.yaml.erb", b"<% if x %>\napiVersion: v1\n<% end %>\n", Some("API-007 template")),
        ("x.yaml.j2", b"{% if x %}\napiVersion: v1\n{% endif %}\n", Some("API-007 template")),
        ("x.yaml.bak", below.as_bytes(), ingress),
        ("settings.yaml.example", b"a: b\n", None),
        ("deploy", quoted.as_bytes(), ingress),
        ("deploy.list", b"- apiVersion: extensions/v1beta1\n  kind: Ingress\n", ingress),
        ("deploy.txt", behind.as_bytes(), ingress),
        ("deploy.conf", b"[{\"apiVersion\":\"extensions/v1beta1\",\"kind\":\"Ingress\"}]", ingress),
        ("settings.ini", b"[apiVersion]\na = b\n", None),
        ("wide.txt", &wide, ingress),
        ("notes.txt", b"- apiVersion is a key\n", None),
        ("pointer.yaml", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", unreadable),
    ];
    for (name, content, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), content).unwrap();
        std::fs::write(folder.path().join("values.yaml"), "apiVersion: v1\nkind: Pod\n").unwrap();
        let (code, found) = check(folder.path(), &["-f", "."], b"");
        let found: Vec<&str> = found.iter().map(|one| one.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(found, expected.as_slice(), "{name}");
        assert_eq!(
            code,
            if expected.is_some_and(|expected| expected.starts_with("API-007")) { 4 } else { 0 },
            "{name}"
        );
    }
}

#[test]
fn a_file_beyond_the_bound_is_told_by_its_size_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    for (name, code) in [("large.yaml", 4), ("large.iso", 0)] {
        let path = folder.path().join(name);
        // It takes no room: nothing was written to it.
        std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
        std::fs::write(folder.path().join("a.yaml"), INGRESS).unwrap();
        assert_eq!(check(folder.path(), &["-f", "."], b"").0, code, "{name}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_folder_is_read_once_whatever_links_lead_to_it_and_texts_about_manifests_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("deploy/more")).unwrap();
    std::fs::write(path("deploy/a.yaml"), INGRESS).unwrap();
    std::fs::write(path("deploy/README.md"), format!("---\ntitle: x\n---\n# How\n```yaml\n{INGRESS}```\n* a: b: c\n"))
        .unwrap();
    std::os::unix::fs::symlink("..", path("deploy/more/up")).unwrap();
    std::os::unix::fs::symlink(".", path("deploy/self")).unwrap();
    assert_eq!(check(folder.path(), &["-f", "deploy"], b""), (0, vec!["API-002 removed a".to_owned()]));
    std::os::unix::fs::symlink("gone", path("deploy/lost.yaml")).unwrap();
    std::os::unix::fs::symlink("loop.yaml", path("deploy/loop.yaml")).unwrap();
    let (code, found) = check(folder.path(), &["-f", "deploy"], b"");
    let unreadable = |name: &str| format!("API-007 unreadable deploy/{name}.yaml");
    assert_eq!((code, &found[1..]), (4, &[unreadable("loop"), unreadable("lost")][..]));
}

#[test]
fn what_comes_out_of_a_packed_file_before_it_breaks_off_is_judged_and_the_break_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let objects: String = (0..200).map(|index| format!("{}  namespace: n{index}\n---\n", INGRESS)).collect();
    let whole = packed(&objects);
    std::fs::write(folder.path().join("cut.yaml.gz"), &whole[..whole.len() - 12]).unwrap();
    let (code, found) = check(folder.path(), &["-f", "cut.yaml.gz"], b"");
    assert_eq!(code, 4);
    assert!(found.iter().any(|one| one == "API-002 removed a"), "{found:?}");
    assert!(found.iter().any(|one| one == "API-007 unreadable cut.yaml.gz"), "{found:?}");
}

#[test]
fn a_snapshot_of_which_secrets_were_refused_is_undecided_whichever_check_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = |only: &str| {
        serde_json::json!({
            "schema": 1, "taken_at": "2026-11-27T08:00:00Z", "server": "https://x", "version": "v1.36.3",
            "asked": { "only": [only], "skip": [] },
            "served": { "seen": [] }, "written": [], "releases": { "not_seen": "secrets is forbidden" }, "metrics": [],
            "objects": {}, "effort": { "requests": 1, "bytes": 1, "in_flight_max": 1, "milliseconds": 1 },
        })
    };
    for (read_for, asked, exit) in [
        ("API-002", &["--only", "API-002"][..], 4),
        ("API-002", &[], 4),
        ("API", &["--only", "API-001"], 4),
        ("API", &["--only", "API-010"], 0),
        // It was not read for that.
        ("API-002", &["--only", "NODE-001"], 4),
    ] {
        let path = folder.path().join("snapshot.json");
        std::fs::write(&path, snapshot(read_for).to_string()).unwrap();
        let words = [&["--snapshot", path.to_str().unwrap()], asked].concat();
        assert_eq!(check(folder.path(), &words, b"").0, exit, "{read_for} {asked:?}");
    }
}

#[test]
fn a_snapshot_without_its_lists_is_undecided_and_never_ready() {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = serde_json::json!({
        "schema": 1, "taken_at": "2026-11-27T08:00:00Z", "server": "https://x", "version": "v1.36.3",
        "served": { "seen": [] }, "written": [], "releases": { "seen": [] }, "metrics": [],
        "objects": {}, "effort": { "requests": 1, "bytes": 1, "in_flight_max": 1, "milliseconds": 1 },
    });
    std::fs::write(folder.path().join("snapshot.json"), snapshot.to_string()).unwrap();
    for (asked, found) in [(&[][..], "VER-003 not-seen "), (&["--only", "WL-001"], "WL-001 not-seen ")] {
        let (code, all) = check(folder.path(), &[&["--snapshot", "snapshot.json"], asked].concat(), b"");
        assert!(code == 4 && all.iter().any(|one| one == found), "{asked:?}: {code} {all:?}");
    }
}

#[test]
fn a_target_that_this_build_does_not_know_stays_undecided_whatever_is_accepted_ignored_or_known_from_before() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n").unwrap();
    let accept = "[[accept]]\ncheck = \"API-014\"\nreason = \"we looked\"\nauthor = \"li\"\n";
    std::fs::write(folder.path().join("accept.toml"), accept).unwrap();
    for words in [
        &["--write-baseline", "baseline.json"][..],
        &["--baseline", "baseline.json"],
        &["--accept", "API-014"],
        &["--accept-file", "accept.toml"],
        &["--skip", "API-014"],
    ] {
        for target in ["1.99", "1.2"] {
            let output = Command::new(env!("CARGO_BIN_EXE_shiplock"))
                .args(["check", "-f", "a.yaml", "--to", target])
                .args(words)
                .current_dir(folder.path())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(4), "{words:?} {target}: {output:?}");
            let said = String::from_utf8_lossy(&output.stderr).contains("API-014 is not accepted");
            assert_eq!(said, words[0].starts_with("--accept"), "{words:?}: {output:?}");
        }
    }
}

/// The exit code, standard output and standard error of a check of files.
fn said(folder: &Path, words: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shiplock"));
    command.args(["check", "--to", "1.37", "--progress", "none"]).args(words).current_dir(folder);
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_baseline_knows_a_file_however_it_is_given_and_wherever_the_command_is_run() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("repository");
    let path = |name: &str| folder.join(name);
    std::fs::create_dir_all(path("deploy/more")).unwrap();
    std::fs::write(path("deploy/a.yaml"), format!("{INGRESS}---\na: [\n")).unwrap();
    std::os::unix::fs::symlink(&folder, root.path().join("link")).unwrap();
    let absolute = path("deploy/a.yaml").to_string_lossy().into_owned();
    let by_link = root.path().join("link/deploy/a.yaml").to_string_lossy().into_owned();
    let outside = root.path().join("kept.json").to_string_lossy().into_owned();
    let strict = ["--policy", "strict"];
    let within = [(".", "known.json"), ("deploy", "../known.json"), ("deploy/more", "../../known.json")];
    for (place, kept) in within.into_iter().chain([(".", outside.as_str()), ("deploy", outside.as_str())]) {
        let from = path(place);
        let relative = match place {
            "." => ["deploy/a.yaml", "./deploy/a.yaml", "deploy", "deploy/more/../a.yaml"],
            "deploy" => ["a.yaml", "./a.yaml", ".", "../deploy"],
            _ => ["../a.yaml", "./../a.yaml", "..", "../../deploy/a.yaml"],
        };
        let given = relative.into_iter().chain([absolute.as_str(), by_link.as_str()]);
        for written in given.clone() {
            let words = [&["-f", written, "--write-baseline", kept][..], &strict].concat();
            assert_eq!(said(&from, &words).0, 3, "{place} {written}");
            for read in given.clone() {
                let words = [&["-f", read, "--baseline", kept][..], &strict].concat();
                assert_eq!(said(&from, &words).0, 0, "{place} {written} {read}");
            }
        }
    }
    // One more of the same is new.
    let words = [&["-f", "twice.yaml", "--write-baseline", "twice.json"][..], &strict].concat();
    let nameless = "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata:\n  generateName: a-\n---\n";
    std::fs::write(path("twice.yaml"), nameless).unwrap();
    assert_eq!(said(&folder, &words).0, 3);
    for (times, code) in [(1, 0), (2, 3)] {
        std::fs::write(path("twice.yaml"), nameless.repeat(times)).unwrap();
        let words = [&["-f", "twice.yaml", "--baseline", "twice.json"][..], &strict].concat();
        assert_eq!(said(&folder, &words).0, code, "{times}");
    }
    // The baseline lies beside the files: both may be read from anywhere, and elsewhere.
    std::fs::rename(&folder, root.path().join("moved")).unwrap();
    let words = [&["-f", "moved/deploy", "--baseline", "moved/known.json"][..], &strict].concat();
    assert_eq!(said(root.path(), &words).0, 0);
    // Another file with the same object is not that one.
    std::fs::write(root.path().join("moved/deploy/more/a.yaml"), INGRESS).unwrap();
    assert_eq!(said(root.path(), &words).0, 3);
    std::fs::create_dir(root.path().join("deploy")).unwrap();
    std::fs::write(root.path().join("deploy/a.yaml"), INGRESS).unwrap();
    let words = [&["-f", "deploy/a.yaml", "--baseline", "moved/known.json"][..], &strict].concat();
    assert_eq!(said(root.path(), &words).0, 3);
}

#[test]
fn an_acceptance_that_ended_is_told_and_one_without_reason_author_or_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), INGRESS).unwrap();
    let strict = |until: &str, reason: &str| {
        let text = format!(
            "[[accept]]\ncheck = \"API-002\"\nsubject = \"Ingress *\"\nreason = \"{reason}\"\nauthor = \"li\"\n{until}"
        );
        std::fs::write(folder.path().join("accept.toml"), text).unwrap();
        said(folder.path(), &["-f", "a.yaml", "--policy", "strict", "--accept-file", "accept.toml"])
    };
    let (code, text, _) = strict("until = \"2999-01-01\"\n", "known");
    assert!(code == 0 && !text.contains("expired"), "{text}");
    let other =
        "[[accept]]\ncheck = \"API-002\"\nsubject = \"Pod *\"\nreason = \"r\"\nauthor = \"li\"\nuntil = 2999-01-01\n";
    std::fs::write(folder.path().join("other.toml"), other).unwrap();
    let (_, _, error) = said(folder.path(), &["-f", "a.yaml", "--accept-file", "other.toml"]);
    assert!(error.contains("nothing is found that this acceptance is of: API-002 (Pod *)"), "{error}");
    let (code, text, error) = strict("until = 2999-01-01\n", "known");
    assert!(!error.contains("nothing is found"), "{error}");
    assert!(code == 0 && !text.contains("expired"), "a date of TOML: {text} {error}");
    let (code, _, error) = strict("until = \"soon\"\n", "known");
    assert!(code == 2 && error.contains("accept.toml"), "{error}");
    let (code, text, error) = strict("", "known");
    assert!(code == 2 && text.is_empty() && error.contains("it has no end") && error.contains("API-002"), "{error}");
    let nobody = "[[accept]]\ncheck = \"API-002\"\nreason = \"known\"\nuntil = 2999-01-01\n";
    std::fs::write(folder.path().join("accept.toml"), nobody).unwrap();
    let (code, _, error) = said(folder.path(), &["-f", "a.yaml", "--accept-file", "accept.toml"]);
    assert!(code == 2 && error.contains("it has no author"), "{error}");
    let (code, text, _) = strict("until = \"2020-01-31\"\n", "known");
    let line = "\nthe acceptance of API-002 (Ingress *) by li expired: it held until 2020-01-31\n";
    assert!(code == 3 && text.matches(line).count() == 1, "{text}");
    for reason in ["", " ", "\\t"] {
        let (code, text, error) = strict("", reason);
        assert!(code == 2 && text.is_empty() && error.contains("its reason is empty"), "{reason:?} {error}");
        assert!(error.contains("accept.toml") && error.contains("API-002") && error.contains("UPG"), "{error}");
    }
}

#[test]
fn the_last_line_says_why_the_exit_code_is_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.yaml"), INGRESS).unwrap();
    for (words, code, line) in [
        (&["-f", "a.yaml"][..], 0, "ready: 0 blocking, 1 warning, 0 unknown, "),
        (&["-f", "a.yaml", "--fail-on", "warn"], 3, "(warnings block: --fail-on warn)"),
        (&["-f", "a.yaml", "--require", "cluster"], 4, "(what --require asks for was not reached)"),
        (&["-f", "a.yaml", "--only", "NODE-001"], 4, "(no check ran)"),
    ] {
        let (exit, text, _) = said(folder.path(), words);
        let last = text.lines().rfind(|line| line.contains(" blocking, ")).unwrap_or_else(|| panic!("{text}"));
        assert!(exit == code && last.contains(line), "{words:?} {exit}: {last}");
    }
}
