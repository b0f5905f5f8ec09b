//! Every form is well formed, whatever objects are called.

use std::collections::BTreeMap;

use super::*;
use crate::report::{Place, REPORT_SCHEMA, Subject};

fn report() -> Report {
    let evil = "a\"'<b>&]]>\u{1}\u{FFFE}\u{FFFF}`|[x](y)\n# z";
    let finding = Finding::new("API-002", "removed", Outcome::Fail, Subject::new("Ingress", "n", evil))
        .with("api", "extensions/v1beta1 Ingress")
        .with("since", "1.22")
        .with("successor", evil)
        .seen("API-007", evil);
    let finding = Finding { place: Some(Place { file: format!("/tmp/{evil}"), line: 3 }), ..finding };
    let findings = vec![finding, Finding::unknown("API-003", evil)];
    Report {
        schema: REPORT_SCHEMA,
        target: "1.37".parse().unwrap(),
        current: None,
        verdict: Verdict::Blocked,
        ran: vec!["API-002".into(), "API-003".into(), "API-007".into()],
        skipped: BTreeMap::from([("API-008".into(), "scope:control-plane".into())]),
        findings,
        expired: Vec::new(),
        read: BTreeMap::new(),
    }
}

#[test]
fn names_of_objects_cannot_break_any_form() {
    let report = report();
    for language in [Language::En, Language::Zh] {
        let html = html(&report, language);
        assert!(!html.contains("<b>") && !html.contains('\u{1}'));
        let junit = junit(&report, Outcome::Fail, language);
        assert!(!junit.contains(['\u{1}', '\u{FFFE}', '\u{FFFF}']), "these are no characters of XML");
        assert!(!junit.contains("<b>") && junit.matches("<testcase ").count() == 4);
        assert!(junit.contains("failures=\"1\" errors=\"1\" skipped=\"1\""));
        let markdown = markdown(&report, language);
        assert!(!markdown.contains("<b>") && !markdown.contains("\n# z"));
        let sarif = sarif(&report, "0", language);
        assert_eq!(sarif["runs"][0]["results"].as_array().unwrap().len(), 2);
        let uri =
            sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].as_str();
        assert!(uri.unwrap().starts_with("file:///tmp/a%22"));
        // One result without a file, and GitHub takes none at all.
        let location = &sarif["runs"][0]["results"][1]["locations"][0];
        assert_eq!(location["physicalLocation"]["artifactLocation"]["uri"], "cluster/Cluster");
        assert_eq!(location["physicalLocation"]["region"]["startLine"], 1);
        assert_eq!(location["logicalLocations"][0]["fullyQualifiedName"], "Cluster");
        assert!(sarif["runs"][0]["tool"]["driver"]["rules"][0]["help"]["text"].is_string());
    }
}

#[test]
fn what_was_not_looked_at_is_told_in_every_form() {
    let report = Report { read: BTreeMap::from([("folders_left_out".into(), 2)]), ..report() };
    for text in [markdown(&report, Language::En), html(&report, Language::En)] {
        assert!(text.contains("not asked: 1 needs each API server"), "{text}");
        assert!(text.contains("not gone into: 2 folders named .git or node"), "{text}");
    }
    let junit = junit(&report, Outcome::Fail, Language::En);
    assert!(junit.contains("<property name=\"folders_left_out\" value=\"2\"/>"), "{junit}");
    let told = &sarif(&report, "0", Language::En)["runs"][0]["properties"];
    assert_eq!((&told["folders_left_out"], &told["skipped"]["API-008"]), (&2.into(), &"scope:control-plane".into()));
}

#[test]
fn warnings_that_block_are_failures_to_junit_too() {
    let mut report = report();
    let warning = Finding::new("API-007", "nothing", Outcome::Warn, Subject::new("File", "", "x"));
    report.findings.push(warning);
    for (blocks_on, failures) in [(Outcome::Fail, 1), (Outcome::Warn, 2)] {
        let junit = junit(&report, blocks_on, Language::En);
        assert!(junit.contains(&format!("failures=\"{failures}\" errors=\"1\"")), "{junit}");
        assert_eq!(junit.matches("<failure ").count(), failures);
    }
}

#[test]
fn findings_that_say_the_same_are_shown_together() {
    let mut report = report();
    let mut other = report.findings[0].clone();
    other.subject.name = "b".into();
    report.findings.insert(1, other);
    let sections = sections(&report, Language::En);
    let found = sections.iter().map(|section| {
        let numbers = section.groups.iter().map(|group| group.findings.len()).collect::<Vec<_>>();
        (section.title(Language::En), numbers)
    });
    assert_eq!(found.collect::<Vec<_>>(), [("API lifecycle", vec![2]), ("What could not be seen", vec![1])]);
}

#[test]
fn what_is_forbidden_is_told_once_with_every_check_that_is_blind_by_it_and_one_fix() {
    let said = |what: &str| {
        format!(
            "{what} is forbidden: User \"dev\" cannot {}",
            match what {
                "pods" => "list resource \"pods\" in API group \"\" at the cluster scope",
                "poddisruptionbudgets.policy" =>
                    "list resource \"poddisruptionbudgets\" in API group \"policy\" at the cluster scope",
                _ => "get resource \"configmaps\" in API group \"\" in the namespace \"kube-system\": RBAC: no role",
            }
        )
    };
    let unknown = |check: &'static str, why: &str| Finding::unknown(check, why);
    let of_node =
        |check, node: &str| Finding { subject: Subject::new("Node", "", node), ..unknown(check, "no such file") };
    let findings = vec![
        unknown("API-003", "no answer"),
        unknown("API-012", &said("configmaps \"kubeadm-config\"")),
        unknown("API-013", &said("configmaps \"kubelet-config\"")),
        unknown("CP-011", "forbidden: User \"dev\" cannot get path \"/metrics\""),
        of_node("NODE-009", "w1"),
        of_node("NODE-009", "w2"),
        of_node("NODE-012", "w1"),
        of_node("NODE-012", "w2"),
        of_node("NODE-013", "w2"),
        unknown("WL-001", &said("poddisruptionbudgets.policy")),
        unknown("WL-003", &format!("UPG0204 the cluster refuses it: {}", said("poddisruptionbudgets.policy"))),
        unknown("WL-009", &said("pods")),
    ];
    let report = Report { findings, ..report() };
    for (language, texts) in [
        (
            Language::En,
            [
                "dev may not get configmaps in kube-system",
                "dev may not get /metrics",
                "dev may not list poddisruptionbudgets.policy",
                "dev may not list pods",
            ],
        ),
        (
            Language::Zh,
            [
                "dev 无权在 kube-system 中 get configmaps",
                "dev 无权 get /metrics",
                "dev 无权 list poddisruptionbudgets.policy",
                "dev 无权 list pods",
            ],
        ),
    ] {
        let sections = sections(&report, language);
        let [Section { category: None, groups }] = &sections[..] else { panic!("{sections:#?}") };
        let checks: Vec<&[&str]> = groups.iter().map(|group| group.checks.as_slice()).collect();
        let expected: [&[&str]; 7] = [
            &["API-012", "API-013"],
            &["CP-011"],
            &["WL-001", "WL-003"],
            &["WL-009"],
            &["API-003"],
            &["NODE-009", "NODE-012"],
            &["NODE-013"],
        ];
        assert_eq!(checks, expected);
        assert_eq!(groups.iter().take(4).map(|group| group.text.as_str()).collect::<Vec<_>>(), texts);
        let fixes: Vec<bool> = groups.iter().map(|group| group.fix.is_some()).collect();
        assert_eq!(
            fixes,
            [false, false, false, true, false, false, true],
            "one for all that is forbidden, one for the rest"
        );
        for text in [markdown(&report, language), html(&report, language)] {
            assert_eq!(
                text.matches("shiplock cluster role |").count() + text.matches("shiplock cluster role \\|").count(),
                1
            );
            assert_eq!(text.matches("WL-003").count(), 1, "{text}");
        }
    }
}

#[test]
fn the_list_of_checks_is_what_the_catalogue_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/checks/README.md");
    if std::env::var_os("SHIPLOCK_UPDATE_PAGES").is_some() {
        std::fs::write(&path, index()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, index(), "{}: SHIPLOCK_UPDATE_PAGES=1 cargo test -p shiplock-check", path.display());
    for check in crate::catalogue::all() {
        // Once in each language.
        assert_eq!(written.matches(&format!("]({}.md)", check.id)).count(), 2, "{}", check.id);
    }
}

#[test]
fn the_list_of_checks_names_those_of_plans_too_as_their_pages_do() {
    let is_of_plans_alone = |id: &&&str| crate::catalogue::find(id).is_none();
    let expected: Vec<&str> = shiplock_core::check::CHECKS.iter().filter(is_of_plans_alone).copied().collect();
    assert_eq!(page::OF_PLANS.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/checks");
    for (id, [english, chinese]) in page::OF_PLANS {
        let page = std::fs::read_to_string(folder.join(format!("{id}.md"))).unwrap();
        for heading in [format!("# {id}: {english}"), format!("# {id}：{chinese}")] {
            assert!(page.lines().any(|line| line == heading), "{heading}");
        }
    }
}

#[test]
fn the_page_of_each_check_is_what_the_catalogue_says() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/checks");
    let update = std::env::var_os("SHIPLOCK_UPDATE_PAGES").is_some();
    // Where a check that guards a plan has the id, its page is written by hand and says more.
    let of_plans = shiplock_core::check::CHECKS;
    for check in crate::catalogue::all().iter().filter(|check| !of_plans.contains(&check.id)) {
        let path = folder.join(format!("{}.md", check.id));
        if update {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, page(check)).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(written, page(check), "{}: SHIPLOCK_UPDATE_PAGES=1 cargo test -p shiplock-check", path.display());
    }
}
