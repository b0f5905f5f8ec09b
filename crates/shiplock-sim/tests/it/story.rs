//! The stories that people tell, with their transcripts.

use std::path::Path;

#[test]
fn stories_read_as_their_transcripts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut scripts: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "txt"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 5, "{scripts:?}");
    let mut differ = Vec::new();
    for script in scripts {
        let told = shiplock_sim::story::tell(&std::fs::read_to_string(&script).unwrap()).unwrap();
        let golden = script.with_extension("transcript");
        if std::env::var_os("SHIPLOCK_WRITE_TRANSCRIPTS").is_some() {
            std::fs::write(&golden, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if told != expected {
            let line = told
                .lines()
                .zip(expected.lines())
                .position(|(a, b)| a != b)
                .unwrap_or_else(|| told.lines().count().min(expected.lines().count()));
            differ.push(format!("{}: line {}: {:?}", script.display(), line + 1, told.lines().nth(line)));
        }
    }
    assert!(
        differ.is_empty(),
        "write them anew with SHIPLOCK_WRITE_TRANSCRIPTS=1 and read the difference:\n{}",
        differ.join("\n")
    );
}

#[test]
fn a_script_that_cannot_be_read_says_which_line() {
    let problem = shiplock_sim::story::tell("cluster 3 3\nat 5 explode").unwrap_err();
    assert_eq!(problem.parameters["value"], "at 5 explode");
}
