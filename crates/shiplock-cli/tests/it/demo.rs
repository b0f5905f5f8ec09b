//! The demo as it is typed: what is promised at its begin holds, the controls are real, and nothing is left.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Generous: a debug build on a busy machine.
const BOUND: Duration = Duration::from_secs(300);

struct Demo {
    child: Child,
    folder: tempfile::TempDir,
    told: Value,
}

impl Demo {
    fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_shiplock"));
        command.args(["demo", "-o", "ndjson"]).args(options).env("TMPDIR", folder.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { child, folder, told }
    }

    fn cluster(&self, standing: &str) -> &Value {
        let mut clusters = self.told["clusters"].as_array().unwrap().iter();
        clusters.find(|cluster| cluster["standing"] == standing).unwrap()
    }

    fn shiplock(&self, line: &str) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shiplock"));
        command.args(line.split_whitespace()).args(["-o", "json", "--progress", "none"]);
        let output = command.env("SHIPLOCK_SERVER", self.told["server"].as_str().unwrap()).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{line}: {error}: {}", String::from_utf8_lossy(&output.stderr)))
    }

    fn upgrade(&self, id: &str) -> Value {
        self.shiplock(&format!("upgrades show {id}"))["upgrade"].clone()
    }

    fn until(&self, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let upgrade = self.upgrade(id);
            if holds(&upgrade) {
                return upgrade;
            }
            assert!(begun.elapsed() < BOUND, "{upgrade:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends it as Ctrl-C does, and tells what is left.
    fn stop(mut self) -> Vec<PathBuf> {
        let pid = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Where an assertion failed before its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_newcomer_finds_three_clusters_as_promised_and_pauses_and_continues_the_upgrade_that_is_under_way() {
    // Slow enough that the upgrade cannot have ended before it is paused, on however busy a machine.
    let demo = Demo::start(&["--speed", "10", "--seed", "3"]);
    let underway = demo.cluster("underway")["upgrade"].as_str().unwrap().to_owned();
    // Before it runs there is nothing to pause.
    demo.until(&underway, |upgrade| upgrade["state"] == "running");
    let asked = demo.shiplock(&format!("pause {underway}"));
    assert_eq!(asked["upgrade"]["id"], underway.as_str(), "{asked:#}");
    let listed = demo.shiplock("cluster list");
    let versions: Vec<&str> =
        listed["clusters"].as_array().unwrap().iter().map(|cluster| cluster["version"].as_str().unwrap()).collect();
    assert_eq!(versions, ["v1.35.4", "v1.36.3", "v1.35.4"], "bakery, harbour, museum: {listed:#}");

    let blocked = demo.cluster("blocked")["upgrade"].as_str().unwrap().to_owned();
    let blocked = demo.until(&blocked, |upgrade| upgrade["state"] == "blocked");
    let checks: Vec<&str> =
        blocked["findings"].as_array().unwrap().iter().map(|finding| finding["check"].as_str().unwrap()).collect();
    assert_eq!(checks, ["CP-003", "CP-008", "WHK-006", "WL-001"], "{blocked:#}");

    // What checks of the plan itself found is in a report that is asked against a plan, and can be accepted.
    let museum = demo.cluster("blocked")["name"].as_str().unwrap();
    let plan = demo.shiplock(&format!("plan {museum} --to 1.36"));
    let plan = plan["plan"]["id"].as_str().unwrap();
    let shown = demo.shiplock(&format!("check {museum} --plan {plan}"));
    let found = |shown: &Value| {
        let of_masters = shown["report"]["findings"].as_array().unwrap().iter();
        let of_masters = of_masters.filter(|found| found["check"] == "CP-003").cloned().collect::<Vec<_>>();
        assert_eq!(of_masters.len(), 1, "{shown:#}");
        (of_masters[0]["outcome"].clone(), of_masters[0]["accepted"].is_string())
    };
    assert_eq!((found(&shown), &shown["report"]["verdict"]), (("fail".into(), false), &"blocked".into()));
    demo.shiplock(&format!("acceptances add {museum} CP-003 --reason at-night"));
    let again = demo.shiplock(&format!("check {museum} --plan {plan}"));
    assert_eq!(found(&again), ("fail".into(), true));
    assert_eq!(again["kept"]["compared_with"], shown["kept"]["id"], "{:#}", again["kept"]);
    let known = again["kept"]["known"].as_array().unwrap();
    assert_eq!(known.len(), again["report"]["findings"].as_array().unwrap().len());
    assert!(known.iter().all(|known| *known == true) && again["kept"]["gone"] == serde_json::json!([]), "{again:#}");
    let kept = demo.shiplock(&format!("reports show {}", again["kept"]["id"].as_str().unwrap()));
    assert_eq!(kept["kept"], again["kept"]);
    let blocked = blocked["id"].as_str().unwrap();
    demo.shiplock(&format!("continue {blocked}"));
    demo.until(blocked, |upgrade| {
        let checks = upgrade["findings"].as_array().unwrap().iter().map(|finding| finding["check"].as_str().unwrap());
        upgrade["state"] == "blocked" && checks.collect::<Vec<_>>() == ["CP-008", "WHK-006", "WL-001"]
    });

    let paused = demo.until(&underway, |upgrade| upgrade["state"] == "paused");
    assert!(paused["nodes_done"].as_u64() < paused["nodes_total"].as_u64(), "{paused:#}");
    demo.shiplock(&format!("continue {underway}"));
    demo.until(&underway, |upgrade| upgrade["nodes_done"].as_u64() > paused["nodes_done"].as_u64());
    assert_eq!(demo.stop(), Vec::<PathBuf>::new());
}

#[test]
fn the_ready_cluster_is_upgraded_at_the_speed_that_was_asked_for_and_the_one_under_way_ends() {
    let demo = Demo::start(&["--speed", "200", "--seed", "3"]);
    let ready = demo.shiplock("upgrade bakery --to 1.36 --yes");
    assert_eq!(ready["upgrade"]["state"], "succeeded", "{ready:#}");
    // Versions of API servers are read again twice a minute.
    let begun = Instant::now();
    while demo.shiplock("cluster show bakery")["cluster"]["version"] != "v1.36.3" {
        assert!(begun.elapsed() < BOUND);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(demo.shiplock("backup list bakery")["backups"].as_array().unwrap().len(), 1);
    // From there it goes on.
    let next = demo.shiplock("plan bakery --to 1.37");
    assert_eq!(next["plan"]["to"], "v1.37.2", "{next:#}");
    let underway = demo.cluster("underway")["upgrade"].as_str().unwrap().to_owned();
    demo.until(&underway, |upgrade| upgrade["state"] == "succeeded");
    assert_eq!(demo.stop(), Vec::<PathBuf>::new());
}

#[test]
fn every_master_of_an_upgrade_that_soaks_is_taken_back() {
    let demo = Demo::start(&["--speed", "200", "--seed", "3"]);
    // Longer than the test may take.
    let begun = demo.shiplock("upgrade bakery --to 1.36 --soak 24h --yes --detach");
    let id = begun["upgrade"]["id"].as_str().unwrap().to_owned();
    let soaks = |upgrade: &Value| {
        let mut stages = upgrade["stages"].as_array().unwrap().iter();
        stages.any(|stage| stage["stage"] == "soak" && stage["started"] == true)
    };
    demo.until(&id, soaks);
    let back = demo.shiplock(&format!("rollback {id} --yes"));
    assert_eq!(
        (&back["upgrade"]["state"], &back["upgrade"]["nodes_done"]),
        (&"succeeded".into(), &3.into()),
        "{back:#}"
    );
    assert_eq!(demo.upgrade(&id)["state"], "cancelled");
    assert_eq!(demo.stop(), Vec::<PathBuf>::new());
}

#[test]
fn two_demos_go_side_by_side_and_a_given_directory_stays() {
    let given = tempfile::tempdir().unwrap();
    let path = given.path().join("kept");
    let (one, other) = (Demo::start(&[]), Demo::start(&["--data-dir", path.to_str().unwrap()]));
    assert_ne!(one.told["server"], other.told["server"]);
    for demo in [&one, &other] {
        assert_eq!(demo.shiplock("cluster list")["clusters"].as_array().unwrap().len(), 3);
    }
    assert_eq!(one.stop(), Vec::<PathBuf>::new());
    assert_eq!(other.stop(), Vec::<PathBuf>::new());
    assert!(path.join("server/shiplock.db").is_file());
}

/// How `shiplock` ends with these words and this standard input: exit code, standard output, standard error.
fn fed(line: &str, stdin: &[u8]) -> (i32, Vec<u8>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shiplock"));
    command.args(line.split_whitespace()).args(["--lang", "en"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A program that reads no standard input may have ended.
        scope.spawn(move || input.write_all(stdin));
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), output.stdout, String::from_utf8(output.stderr).unwrap())
    })
}

#[test]
fn a_snapshot_goes_to_standard_output_and_a_rehearsal_reads_it_there() {
    let demo = Demo::start(&["--seed", "3"]);
    let kubeconfig = demo.cluster("ready")["kubeconfig"].as_str().unwrap();
    let (code, snapshot, told) = fed(&format!("snapshot --kubeconfig {kubeconfig} -o -"), b"");
    assert!(code == 0 && told.contains("pods") && told.contains("standard output"), "{code}: {told}");
    assert!(!std::path::Path::new("-").exists(), "no file has the name");
    let (code, _, told) = fed(&format!("snapshot --kubeconfig {kubeconfig} --file - -o json"), b"");
    assert!(code == 2 && told.contains("UPG0114"), "two documents in one: {code}: {told}");

    let rehearse = "rehearse --snapshot - --to 1.36 --accept cp-003 -o json";
    let (code, first, told) = fed(rehearse, &snapshot);
    assert_eq!(code, 0, "{told}");
    let report: Value = serde_json::from_slice(&first).unwrap();
    let report = &report["rehearsal"];
    assert_eq!((&report["drawn_runs"], &report["left_out"]), (&20.into(), &Value::Null), "{report:#}");
    assert!(fed(rehearse, &snapshot).1 == first, "the same again, to the letter");
    assert_eq!(demo.stop(), Vec::<PathBuf>::new());
}

#[test]
fn a_rehearsal_of_what_cannot_be_is_refused_before_anything_is_read_and_says_what_can() {
    for (options, said) in [
        ("--accept NOPE-1", "there is no check with this id"),
        ("--accept CP-03", "did you mean CP-003"),
        ("--accept CP-002", "it can be mended and not accepted"),
        ("--kubeadm-patches patches", "it must be an absolute path on the masters"),
        ("--max-parallel 0", "it must be 1 to"),
        ("--svg -", "name a file"),
    ] {
        let (code, output, told) = fed(&format!("rehearse --snapshot /nonexistent --to 1.36 {options}"), b"");
        assert!(code == 2 && output.is_empty(), "{options}: {code}: {told}");
        assert!(told.contains("UPG0114") && told.contains(said), "{options}: {told}");
    }
    let (code, _, told) = fed("rehearse --snapshot - --to 1.36", b"{\"schema\": 1, ");
    assert!(code == 1 && told.contains("UPG0841"), "{code}: {told}");
}

/// What a demo says that does not begin, and what it leaves below the folder that it was given.
fn not_begun(mut command: Command, below: &std::path::Path) -> String {
    let output = command.env("TMPDIR", below).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let left: Vec<PathBuf> = std::fs::read_dir(below).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_demo_that_cannot_begin_says_why_and_leaves_nothing() {
    let below = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_shiplock");

    let mut long = Command::new(program);
    long.args(["demo", "--data-dir"]).arg(below.path().join("a".repeat(60)).join("b".repeat(60)));
    let said = not_begun(long, below.path());
    assert!(said.contains("UPG0515") && said.contains("shiplock.sock"), "{said}");

    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 64; exec \"$0\" demo", program]);
    let said = not_begun(few, below.path());
    assert!(said.contains("UPG0808") && said.contains("ulimit -n 512"), "{said}");

    // Nobody can know of a demo that could not say where it is.
    let mut full = Command::new("sh");
    full.args(["-c", "exec \"$0\" demo >/dev/full", program]);
    let said = not_begun(full, below.path());
    assert!(said.contains("UPG0515") && said.contains("/dev/stdout"), "{said}");
}

#[test]
fn a_check_of_a_cluster_of_the_demo_leaves_nothing_at_home() {
    let demo = Demo::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_shiplock"));
    check.args(["check", "--kubeconfig", demo.cluster("blocked")["kubeconfig"].as_str().unwrap()]);
    let checked = check.env("HOME", home.path()).env_remove("XDG_CACHE_HOME").output().unwrap();
    assert_eq!(checked.status.code(), Some(3), "{checked:?}");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}
