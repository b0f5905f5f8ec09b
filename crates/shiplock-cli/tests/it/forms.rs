//! The forms in which a report is printed.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_report_in_yaml_is_the_same_document_as_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata:\n  name: \"a: b\"\n";
    std::fs::write(folder.path().join("a.yaml"), manifest).unwrap();
    let printed = |form: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_shiplock"))
            .args(["check", "-f", "a.yaml", "--to", "1.37", "--progress", "none", "-o", form])
            .current_dir(folder.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&printed("json")).unwrap();
    let yaml: Value = serde_saphyr::from_str(&printed("yaml")).unwrap();
    assert!(json["schema"].is_string() && !json["sentences"].as_array().unwrap().is_empty(), "{json:#}");
    assert_eq!(yaml, json);
}
