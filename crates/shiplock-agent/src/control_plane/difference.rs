//! Differences of manifests, for people: unified, bounded, without secrets.

use similar::TextDiff;

const BYTES_MAX: usize = 16 << 10;
/// etcd reads them when it is born and never again, and kubeadm's own upgrade writes others than its join did.
const BIRTH_FLAGS: &[&str] = &["--initial-cluster=", "--initial-cluster-state="];
/// Words in the name of a flag whose value may be a secret.
const SECRET_WORDS: &[&str] = &["password", "passwd", "secret", "token", "credential"];

/// The difference from one text to another; none where they are the same but for what etcd reads at its birth only.
pub fn unified(path: &str, from: (&str, &str), to: (&str, &str)) -> Option<String> {
    let (old, new) = (without_birth_flags(from.1), without_birth_flags(to.1));
    if old == new {
        return None;
    }
    let difference = TextDiff::from_lines(&old, &new);
    let mut unified = difference.unified_diff();
    let text = unified.header(&format!("{path} ({})", from.0), &format!("{path} ({})", to.0)).to_string();
    let mut shown = String::new();
    for line in text.lines() {
        let line = without_secret(line);
        if shown.len() + line.len() > BYTES_MAX {
            shown.push_str("…\n");
            break;
        }
        shown.push_str(&line);
        shown.push('\n');
    }
    Some(shown)
}

fn without_birth_flags(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    for line in text.lines() {
        let flag = line.trim_start().trim_start_matches("- ").trim_start_matches(['"', '\'']);
        if !BIRTH_FLAGS.iter().any(|birth| flag.starts_with(birth)) {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Values of environment variables and of flags that sound secret are left out. A path to a file is none.
fn without_secret(line: &str) -> String {
    let content = line.trim_start_matches(['+', '-', ' ']);
    if let Some(at) = line.find("value:").filter(|_| content.starts_with("value:")) {
        return format!("{}value: …", &line[..at]);
    }
    match line.split_once('=') {
        Some((name, value)) if !value.starts_with('/') && sounds_secret(name) => format!("{name}=…"),
        _ => line.to_owned(),
    }
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    !name.ends_with("-file") && SECRET_WORDS.iter().any(|word| name.contains(word)) && !name.contains("bootstrap-token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_shows_what_changes_and_keeps_secrets_to_itself() {
        let old =
            "a\n    - --oidc-client-secret=hunter2\n    - --audit=x\n    - name: PASSWORD\n      value: hunter2\nz\n";
        let new =
            "a\n    - --oidc-client-secret=hunter3\n    - --audit=y\n    - name: PASSWORD\n      value: hunter3\nz\n";
        let text = unified("/m.yaml", ("kubeadm", old), ("in force", new)).unwrap();
        assert!(text.starts_with("--- /m.yaml (kubeadm)\n+++ /m.yaml (in force)\n"), "{text}");
        assert!(text.contains("-    - --audit=x\n") && text.contains("+    - --audit=y\n"), "{text}");
        assert!(!text.contains("hunter"), "{text}");
        assert!(text.contains("secret=…") && text.contains("value: …"), "{text}");
        assert_eq!(without_secret("+ - --token-auth-file=/etc/tokens"), "+ - --token-auth-file=/etc/tokens");
    }

    #[test]
    fn what_etcd_reads_at_its_birth_only_is_no_difference() {
        let joined =
            "x\n    - --initial-cluster=m1=https://a:2380,m2=https://b:2380\n    - --initial-cluster-state=existing\n";
        assert_eq!(unified("p", ("", "x\n    - --initial-cluster=m2=https://b:2380\n"), ("", joined)), None);
        assert!(unified("p", ("", "x\n"), ("", "y\n")).is_some());
    }

    #[test]
    fn a_long_difference_is_cut() {
        let new: String = (0..10_000).map(|line| format!("{line}\n")).collect();
        assert!(unified("p", ("", ""), ("", &new)).unwrap().len() < BYTES_MAX + 100);
    }
}
