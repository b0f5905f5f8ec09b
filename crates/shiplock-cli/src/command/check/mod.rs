//! `check`: what will break, asked of files, of a cluster or of a snapshot. It changes nothing.

mod baseline;
mod client;
mod files;
mod known;
mod probe;
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;
use shiplock_api::check::CheckReportView;
use shiplock_check::named;
use shiplock_check::question::{Profile, Question};
use shiplock_check::render as forms;
use shiplock_check::report::{HORIZON, Outcome, Report, Verdict};
use shiplock_check::run::{Acceptance, Assembly, Baseline, Selection};
use shiplock_check::snapshot::Snapshot;
use shiplock_check::{api, catalogue};
use shiplock_cluster::collect::{Collection, collect, collect_again};
use shiplock_core::plan::PlanOptions;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::version::{KubernetesVersion, MinorVersion};

use super::{Context, snapshot};
use crate::arguments::{CheckArguments, FailOn, Format, Policy};
use crate::exit::Exit;
use crate::output::Output;
use crate::render;
use crate::render::table::one_line;
use crate::result::Envelope;
use crate::settings::read_bounded;

pub(super) use self::server::{accept, reports};

/// Has the server check a registered cluster.
pub(super) async fn check_registered(options: CheckArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let cluster = options.cluster.clone().unwrap_or_default();
    server::check(&cluster, &options, context).await
}

/// Checks and shows the report.
pub(super) async fn check(options: CheckArguments, output: &Output) -> Result<Exit, Problem> {
    let selection = Selection { only: options.only.clone(), skip: options.skip.clone() };
    if let Some(word) = selection.unknown_word() {
        return Err(bad_option("--only, --skip", word, &named::no_such(word)));
    }
    // Where options exclude the cluster, the parser does not miss it.
    if let Some(plan) = &options.plan {
        return Err(bad_option(
            "--plan",
            plan,
            "a plan is one of a registered cluster: shiplock check CLUSTER --plan PLAN",
        ));
    }
    if options.todo {
        let why = "it is of the report that a server keeps: shiplock check CLUSTER --todo";
        return Err(bad_option("--todo", "true", why));
    }
    let acceptances = acceptances(&options, output)?;
    let mut baseline = options.baseline.as_deref().map(|path| read_json::<Baseline>("--baseline", path)).transpose()?;
    let asks_files = !options.files.is_empty() || !options.audit_log.is_empty();
    let asks_cluster =
        !asks_files || options.access.kubeconfig.is_some() || options.access.context.is_some() || options.probe;
    if let (Some(path), false, None) = (&options.save_snapshot, asks_cluster, &options.snapshot) {
        let why = "no cluster is read for it; name one besides the files, by --kubeconfig or --context";
        return Err(bad_option("--save-snapshot", &path.to_string_lossy(), why));
    }
    // It is asked while the cluster is read.
    let kubectl = (asks_cluster && options.snapshot.is_none() && selection.wants_id("VER-007"))
        .then(|| tokio::spawn(client::kubectl(options.fresh)));
    let snapshot = match &options.snapshot {
        Some(path) => Some(snapshot::load(path)?),
        None if asks_cluster => Some(live(&options, &selection, output).await?),
        None => None,
    };
    if let (Some(path), Some(snapshot)) = (&options.save_snapshot, &snapshot) {
        write_json(path, snapshot)?;
    }
    let current = snapshot.as_ref().map(|snapshot| snapshot.version.clone());
    let minor = current.as_deref().and_then(|text| KubernetesVersion::parse_reported(text).ok());
    let minor = minor.map(|version| version.release);
    let Some(target) = options.to.or(minor.map(MinorVersion::next)) else {
        return Err(bad_option(
            "--to",
            "(not given)",
            "files do not tell the version of a cluster; name the minor to upgrade to, such as --to 1.37",
        ));
    };
    let now = snapshot.as_ref().map_or_else(Timestamp::now, |snapshot| snapshot.taken_at);
    let profile = if options.policy == Policy::Strict { Profile::Strict } else { Profile::Default };
    let max_parallel = PlanOptions::default().max_parallel;
    let question = Question { target, current: minor, profile, now, max_parallel };

    let (mut findings, mut usages) = (Vec::new(), Vec::new());
    let mut scopes = BTreeSet::new();
    let mut read = BTreeMap::new();
    findings.extend(api::horizon(&question));
    if !options.files.is_empty() {
        scopes.insert("file");
        let found = files::read(&options, &question)?;
        read.extend([("files", found.files), ("objects", found.objects), ("other_documents", found.others)]);
        read.insert("folders_left_out", found.folders_left_out);
        findings.extend(found.findings);
        usages.extend(found.usages);
    }
    for path in &options.audit_log {
        scopes.insert("audit-log");
        let (log, name) = files::read_audit_log(path, &question)?;
        read.insert("audit_lines", log.lines());
        findings.extend(log.judge(&name, &question));
    }
    let collected = snapshot.as_ref().filter(|_| !asks_files).map(|snapshot| snapshot.asked.clone());
    if let Some(snapshot) = &snapshot {
        scopes.extend(shiplock_cluster::collect::scopes(snapshot));
        let effort = &snapshot.effort;
        read.extend([
            ("requests", effort.requests),
            ("bytes", effort.bytes),
            ("in_flight_max", effort.in_flight_max),
            ("milliseconds", effort.milliseconds),
        ]);
        let (more_usages, mut of_snapshot) = api::live::judge(snapshot, &question);
        usages.extend(more_usages);
        of_snapshot.extend(shiplock_check::cluster::judge(snapshot, &question));
        of_snapshot.extend(shiplock_check::node::judge(snapshot, &question));
        of_snapshot.extend(shiplock_check::tls::judge(snapshot, &question));
        // What it was not read for it may hold a part of; what could not be read is told whoever rests on it.
        of_snapshot.retain(|finding| finding.leaves_open() || snapshot.asked.wants_id(&finding.check));
        findings.extend(of_snapshot);
    }
    // A report of thousands of findings must not lie beside the objects of thousands of nodes; to give these up takes long.
    if let Some(snapshot) = snapshot {
        std::thread::spawn(move || drop(snapshot));
    }
    if let Some(kubectl) = kubectl
        && let Ok(Some(kubectl)) = kubectl.await
    {
        scopes.insert("client");
        findings.extend(shiplock_check::cluster::client(&kubectl.version, &question));
        kubectl.keep();
    }
    findings.extend(api::judge(usages, &question));
    if let (Some(path), Some(baseline)) = (&options.baseline, &mut baseline) {
        baseline.names = baseline::names(&findings, path);
    }
    let names = options.write_baseline.as_ref().map(|path| (path, baseline::names(&findings, path)));
    let assembly = Assembly {
        target,
        current,
        selection: &selection,
        scopes: &scopes,
        collected: collected.as_ref(),
        required: &options.require,
        acceptances: &acceptances,
        baseline: baseline.as_ref(),
        blocks_on: blocks_on(&options),
        now,
        read: read.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
        of_the_plan: &[],
    };
    let blocks_on = assembly.blocks_on;
    let report = assembly.report(findings);
    // What --accept names goes with any run, whether or not there is anything of it.
    for acceptance in acceptances.iter().filter(|acceptance| !acceptance.author.is_empty()) {
        let has_run = report.ran.iter().any(|id| id.eq_ignore_ascii_case(&acceptance.check));
        if has_run && !report.findings.iter().any(|finding| acceptance.covers(finding)) {
            let subject = acceptance.subject.as_ref().map_or(String::new(), |subject| format!(" ({subject})"));
            let (english, chinese) = ("nothing is found that this acceptance is of", "没有与此接受项对应的发现");
            output.remark(&one_line(&format!("{}: {}{subject}", output.pick(english, chinese), acceptance.check)));
        }
    }
    if let Some((path, names)) = names {
        write_json(path, &Baseline::of(&report, names))?;
    }
    show(&report, None, blocks_on, output)?;
    let exit = match report.verdict {
        Verdict::Ready => Exit::Done,
        Verdict::Blocked => Exit::Blocked,
        Verdict::Undecided => Exit::Undecided,
    };
    // The process ends now: to take thousands of findings apart would be for nothing.
    std::mem::forget(report);
    Ok(exit)
}

/// Reads the cluster of the kubeconfig.
async fn live(options: &CheckArguments, selection: &Selection, output: &Output) -> Result<Snapshot, Problem> {
    let kubeconfig = snapshot::open(&options.access, output)?;
    let collection = Collection { target: options.to, selection, for_start: false, with_copy: false };
    let kept = known::Kept::of(&kubeconfig.server, options.fresh);
    let mut snapshot = match kept.read() {
        None => snapshot::telling(output, async |progress| collect(&kubeconfig, &collection, progress).await).await?,
        Some(known) => {
            let (snapshot, marks) = snapshot::telling(output, async |progress| {
                collect_again(&kubeconfig, &collection, known, progress).await
            })
            .await?;
            if let Some(marks) = marks {
                kept.write(&snapshot, &marks);
            }
            snapshot
        }
    };
    if options.probe {
        probe::nodes(&kubeconfig, &mut snapshot, output).await?;
    }
    Ok(snapshot)
}

/// From which outcome on findings block.
fn blocks_on(options: &CheckArguments) -> Outcome {
    if options.fail_on == FailOn::Warn { Outcome::Warn } else { Outcome::Fail }
}

/// Shows a report; `kept` is what a server keeps of it.
fn show(report: &Report, kept: Option<&CheckReportView>, blocks_on: Outcome, output: &Output) -> Result<(), Problem> {
    use render::check::Shown;
    let language = output.language();
    let shown = kept.map_or_else(|| Shown::new(report), |view| Shown::kept(report, view));
    match output.format() {
        Format::Text | Format::Json | Format::Ndjson => {
            output.result(shown, |style| render::check::report(report, style));
        }
        Format::Yaml => {
            // The same document as in JSON.
            let text = serde_saphyr::to_string(&Envelope::new(shown));
            output.raw(&text.map_err(|error| internal("the report cannot be written as YAML").cause(error))?);
        }
        Format::Markdown => output.raw(&forms::markdown(report, language)),
        Format::Html => output.raw(&forms::html(report, language)),
        Format::Junit => output.raw(&forms::junit(report, blocks_on, language)),
        Format::Sarif => {
            let sarif = forms::sarif(report, env!("CARGO_PKG_VERSION"), language);
            output.raw(&(sarif.to_string() + "\n"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AcceptFile {
    #[serde(default)]
    accept: Vec<Acceptance>,
}

impl AcceptFile {
    /// TOML has dates of its own: with and without quotes `until` is the same.
    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let mut table: toml::Table = toml::from_str(text)?;
        let accepted = table.get_mut("accept").and_then(toml::Value::as_array_mut).into_iter().flatten();
        for until in accepted.filter_map(|one| one.get_mut("until")) {
            if let toml::Value::Datetime(date) = until {
                *until = toml::Value::String(date.to_string());
            }
        }
        table.try_into()
    }
}

fn acceptances(options: &CheckArguments, output: &Output) -> Result<Vec<Acceptance>, Problem> {
    let mut all = Vec::new();
    let is_horizon = |word: &str| {
        let is_horizon = catalogue::find(word).is_some_and(|check| check.id == HORIZON);
        if is_horizon {
            let english = "is not accepted: nothing is known of such a target; use a newer build of shiplock";
            let chinese = "不能接受：对此目标版本一无所知；请使用更新的 shiplock";
            output.remark(&format!("{HORIZON} {}", output.pick(english, chinese)));
        }
        is_horizon
    };
    // By name, never all at once.
    for id in options.accept.iter().filter(|id| !is_horizon(id)) {
        let check = named::acceptable(id).map_err(|why| bad_option("--accept", id, &why))?.to_owned();
        let reason = "--accept".to_owned();
        let (author, until) = (String::new(), None);
        all.push(Acceptance { check, subject: None, reason, author, until });
    }
    if let Some(path) = &options.accept_file {
        let text = read_bounded(path).map_err(|error| unread("--accept-file", path, error))?;
        let mut file = AcceptFile::parse(&text).map_err(|error| {
            let why = format!("it is no TOML file of acceptances: {}", error.message());
            bad_option("--accept-file", &path.to_string_lossy(), &why)
        })?;
        file.accept.retain(|acceptance| !is_horizon(&acceptance.check));
        for acceptance in &file.accept {
            let in_file = || format!("--accept-file {}", path.display());
            if acceptance.reason.trim().is_empty() {
                let why = "its reason is empty; write down why this finding may pass";
                return Err(bad_option(&in_file(), &acceptance.check, why));
            }
            if acceptance.author.trim().is_empty() {
                let why = "it has no author; write down who lets this finding pass: author = \"...\"";
                return Err(bad_option(&in_file(), &acceptance.check, why));
            }
            if acceptance.until.is_none() {
                let why = "it has no end; write down the last day on which it holds, such as until = 2027-03-31";
                return Err(bad_option(&in_file(), &acceptance.check, why));
            }
            named::acceptable(&acceptance.check).map_err(|why| bad_option(&in_file(), &acceptance.check, &why))?;
        }
        all.extend(file.accept);
    }
    Ok(all)
}

/// Reads what another option of an earlier check wrote.
fn read_json<T: serde::de::DeserializeOwned>(option: &str, path: &Path) -> Result<T, Problem> {
    let text = std::fs::read(path).map_err(|error| unread(option, path, error))?;
    serde_json::from_slice(&text).map_err(|error| {
        bad_option(option, &path.to_string_lossy(), &format!("no check wrote it, or it was changed: {error}"))
    })
}

fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<(), Problem> {
    let text = serde_json::to_vec(value).map_err(|error| internal("a value cannot be written as JSON").cause(error))?;
    std::fs::write(path, text).map_err(|error| unusable(path, "written").cause(error))
}

pub(super) fn bad_option(option: &str, value: &str, why: &str) -> Problem {
    let value = value.chars().take(200).collect::<String>();
    Problem::new(Code::BadOption).with("option", option).with("value", value).with("why", why)
}

/// What an option names and cannot be read, is not there, or is a folder.
pub(super) fn unread(option: &str, path: &Path, error: std::io::Error) -> Problem {
    if error.kind() == std::io::ErrorKind::NotFound {
        return bad_option(option, &path.to_string_lossy(), "there is no such file or folder");
    }
    if error.kind() == std::io::ErrorKind::IsADirectory {
        return bad_option(option, &path.to_string_lossy(), "it is a folder, not a file");
    }
    unusable(path, "read").cause(error)
}

fn unusable(path: &Path, operation: &str) -> Problem {
    let problem = Problem::new(Code::FileUnusable).with("path", path.display());
    problem.with("subject", "this machine").with("operation", operation)
}

fn internal(what: &str) -> Problem {
    Problem::new(Code::Internal).with("what", what)
}
