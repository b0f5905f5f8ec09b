use std::fs;

use serde_json::{Value, json};

use super::*;

const SECRET: &str = "c2VjcmV0LXRva2Vu";

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn document(context: &str, server: &str, user: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": format!("{context}-cluster"), "user": format!("{context}-user")}}],
        "clusters": [{"name": format!("{context}-cluster"), "cluster": {"server": server}}],
        "users": [{"name": format!("{context}-user"), "user": user}],
    })
}

fn read(inlined: &InlinedKubeconfig) -> Value {
    serde_json::from_str(&inlined.text).unwrap()
}

fn inline_text(text: &str) -> Result<InlinedKubeconfig, Problem> {
    Kubeconfig::inline(&KubeconfigSource::Text(text.to_owned()), None, &[])
}

#[test]
fn every_file_that_is_named_becomes_content() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "pki/ca.crt", "CA");
    write(folder.path(), "pki/me.crt", "CERT");
    let key = write(folder.path(), "pki/me.key", "KEY");
    write(folder.path(), "token", "TOKEN\n");
    let user = json!({"client-certificate": "pki/me.crt", "client-key": key, "tokenFile": "token", "token": "old"});
    let mut config = document("prod", "https://10.0.0.1:6443", user);
    config["clusters"][0]["cluster"]["certificate-authority"] = json!("pki/ca.crt");
    let path = write(folder.path(), "config", &config.to_string());
    let inlined = Kubeconfig::inline(&KubeconfigSource::File(path), None, &[]).unwrap();
    assert_eq!((inlined.context.as_str(), inlined.server.as_str()), ("prod", "https://10.0.0.1:6443"));
    let read = read(&inlined);
    assert_eq!(read["clusters"][0]["cluster"]["certificate-authority-data"], json!(STANDARD.encode("CA")));
    let expected = json!({"client-certificate-data": STANDARD.encode("CERT"), "client-key-data": STANDARD.encode("KEY"), "token": "TOKEN"});
    assert_eq!(read["users"][0]["user"], expected);
    assert!(Kubeconfig::standing_alone(&inlined.text, &[]).is_ok());
}

#[test]
fn a_token_that_is_no_header_is_refused_whether_it_stands_there_or_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "token", "ab\ncd\n");
    let from_file = document("c", "https://a", json!({"tokenFile": "token"})).to_string();
    let file = write(folder.path(), "config", &from_file);
    let inlined = document("c", "https://a", json!({"token": "ab\ncd"})).to_string();
    let from_file = Kubeconfig::inline(&KubeconfigSource::File(file), None, &[]).unwrap_err();
    for problem in [from_file, Kubeconfig::standing_alone(&inlined, &[]).unwrap_err()] {
        assert_eq!(problem.code, Code::KubeconfigUnreadable);
        assert!(problem.causes[0].contains("token") && !problem.causes[0].contains("ab"), "{problem:?}");
    }
}

#[test]
fn content_that_is_there_already_wins_over_a_file() {
    let config = document(
        "prod",
        "https://a",
        json!({"client-certificate-data": STANDARD.encode("DATA"), "client-certificate": "/nowhere"}),
    );
    let inlined = inline_text(&config.to_string()).unwrap();
    assert_eq!(read(&inlined)["users"][0]["user"], json!({"client-certificate-data": STANDARD.encode("DATA")}));
}

#[test]
fn in_a_list_the_first_wins_missing_files_are_passed_over_and_names_count_from_their_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "two/token", "TWO");
    let one = write(folder.path(), "one/config", &document("one", "https://one", json!({"token": "1"})).to_string());
    let mut second = document("two", "https://two", json!({"tokenFile": "token"}));
    second["clusters"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "one-cluster", "cluster": {"server": "https://other"}}));
    let two = write(folder.path(), "two/config", &second.to_string());
    let list = KubeconfigSource::List(vec![folder.path().join("none"), one, two]);
    let first = Kubeconfig::inline(&list, None, &[]).unwrap();
    assert_eq!((first.context.as_str(), first.server.as_str()), ("one", "https://one"));
    let chosen = Kubeconfig::inline(&list, Some("two"), &[]).unwrap();
    assert_eq!(chosen.server, "https://two");
    let read = read(&chosen);
    assert_eq!(read["users"], json!([{"name": "two-user", "user": {"token": "TWO"}}]));
    assert_eq!(["clusters", "contexts", "users"].map(|key| read[key].as_array().unwrap().len()), [1, 1, 1]);
    let none = KubeconfigSource::List(vec![folder.path().join("none")]);
    assert_eq!(Kubeconfig::inline(&none, None, &[]).unwrap_err().code, Code::KubeconfigUnreadable);
}

#[test]
fn what_runs_programs_or_trusts_anybody_is_refused_unless_allowed_by_name() {
    let exec = document(
        "c",
        "https://a",
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "login"}}),
    );
    let provider = document("c", "https://a", json!({"auth-provider": {"name": "gcp"}}));
    let mut insecure = document("c", "https://a", json!({"token": "t"}));
    insecure["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = json!(true);
    for (config, feature, entry) in [
        (exec, FEATURE_EXEC, "c-user"),
        (provider, FEATURE_AUTH_PROVIDER, "c-user"),
        (insecure, FEATURE_INSECURE, "c-cluster"),
    ] {
        let text = config.to_string();
        let others: Vec<String> = [FEATURE_EXEC, FEATURE_AUTH_PROVIDER, FEATURE_INSECURE]
            .into_iter()
            .filter(|other| *other != feature)
            .map(str::to_owned)
            .collect();
        let source = KubeconfigSource::Text(text.clone());
        for problem in [
            Kubeconfig::inline(&source, None, &others).unwrap_err(),
            Kubeconfig::standing_alone(&text, &others).unwrap_err(),
        ] {
            assert_eq!(problem.code, Code::KubeconfigUnsafe);
            assert_eq!(
                (problem.parameters["feature"].as_str(), problem.parameters["entry"].as_str()),
                (feature, entry)
            );
        }
        assert!(Kubeconfig::inline(&source, None, &[feature.to_owned()]).is_ok());
    }
}

#[test]
fn a_context_that_is_not_chosen_is_not_judged() {
    let mut config = document("good", "https://a", json!({"token": "t"}));
    config["users"].as_array_mut().unwrap().push(json!({"name": "bad", "user": {"exec": {"command": "x"}}}));
    assert!(inline_text(&config.to_string()).is_ok());
}

#[test]
fn unusable_kubeconfigs_are_told_with_the_cause_and_without_their_content() {
    let base = || document("c", "https://a", json!({"token": SECRET}));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut config = base();
        change(&mut config);
        config.to_string()
    };
    let cases = [
        ("not YAML", format!("users: [{{user: {{token: {SECRET}")),
        ("wrong type", format!("users: {SECRET}\n")),
        ("text alone", SECRET.to_owned()),
        ("empty", String::new()),
        ("no context", changed(&|config| config["current-context"] = json!(""))),
        ("unknown context", changed(&|config| config["current-context"] = json!("other"))),
        ("no cluster", changed(&|config| config["clusters"] = json!([]))),
        ("no user", changed(&|config| config["users"] = json!([]))),
        ("no server", changed(&|config| config["clusters"][0]["cluster"] = json!({}))),
        ("proxy", changed(&|config| config["clusters"][0]["cluster"]["proxy-url"] = json!("http://proxy"))),
        ("not base64", changed(&|config| config["users"][0]["user"] = json!({"client-certificate-data": "%%%"}))),
        ("missing file", changed(&|config| config["users"][0]["user"]["client-key"] = json!("/nowhere/key"))),
        ("too large", format!("# {}", "x".repeat(1024 * 1024))),
    ];
    for (case, text) in cases {
        let problem = inline_text(&text).unwrap_err();
        assert_eq!(problem.code, Code::KubeconfigUnreadable, "{case}");
        assert!(!problem.causes.is_empty(), "{case}");
        assert!(!format!("{problem:?}").contains(SECRET), "{case}: {problem:?}");
    }
    assert!(!format!("{:?}", inline_text(&base().to_string()).unwrap()).contains(SECRET));
}

#[test]
fn one_that_stands_alone_names_no_file() {
    for (key, entry) in [
        ("client-certificate", "c-user"),
        ("client-key", "c-user"),
        ("tokenFile", "c-user"),
        ("certificate-authority", "c-cluster"),
    ] {
        let mut config = document("c", "https://a", json!({}));
        let place =
            if entry == "c-user" { &mut config["users"][0]["user"] } else { &mut config["clusters"][0]["cluster"] };
        place[key] = json!("/etc/hostname");
        let problem = Kubeconfig::standing_alone(&config.to_string(), &[]).unwrap_err();
        assert_eq!(problem.code, Code::KubeconfigUnreadable);
        assert!(problem.causes[0].contains(key) && problem.causes[0].contains(entry));
    }
}

#[test]
fn the_source_is_chosen_as_kubectl_does() {
    let home = Some(Path::new("/home/me"));
    let label = |asked: Option<&str>, variable: Option<&str>| {
        format!("{:?}", KubeconfigSource::choose(asked.map(Path::new), variable.map(OsStr::new), home))
    };
    assert_eq!(label(Some("/a"), Some("/b")), "KubeconfigSource(/a)");
    assert_eq!(label(None, Some("/b::/c")), "KubeconfigSource(/b:/c)");
    assert_eq!(label(None, Some("")), "KubeconfigSource(/home/me/.kube/config)");
    assert_eq!(label(None, None), "KubeconfigSource(/home/me/.kube/config)");
}
