//! Names: random ones for what the server makes, and the rule for those that people and agents bring.

use rand::Rng;
use shiplock_core::problem::{Code, Problem};

/// Digits that no eye confuses and that are lower case, since names become parts of unit names.
const DIGITS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A new name: a prefix and random letters and digits of 5 bits each.
pub(crate) fn random_name(prefix: &str, digits: usize) -> String {
    let mut random = rand::rng();
    let mut name = prefix.to_owned();
    name.extend((0..digits).map(|_| char::from(DIGITS[random.random_range(0..DIGITS.len())])));
    name
}

/// Whether a text is a subdomain as RFC 1123 has it and Kubernetes wants it of node names.
pub(crate) fn is_subdomain(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

/// Refuses the name of a cluster that could not stand in a path, a certificate and a command line alike.
pub(crate) fn check_cluster_name(name: &str) -> Result<(), Problem> {
    if is_subdomain(name) && name.len() <= 63 {
        return Ok(());
    }
    Err(Problem::new(Code::BadOption)
        .with("option", "name")
        .with("value", name.chars().take(64).collect::<String>())
        .with(
            "why",
            "it must be 1 to 63 lower-case letters, digits, `-` and `.`, beginning and ending with a letter or digit",
        ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_are_subdomains() {
        for (name, good) in [
            ("w1", true),
            ("node-1.rack-2.example", true),
            ("1", true),
            ("", false),
            (".", false),
            ("a..b", false),
            ("-a", false),
            ("a-", false),
            ("a.-b", false),
            ("A", false),
            ("a/b", false),
            ("a b", false),
            ("ä", false),
        ] {
            assert_eq!(is_subdomain(name), good, "{name}");
        }
        assert!(!is_subdomain(&"a".repeat(254)));
        assert!(check_cluster_name(&"a".repeat(63)).is_ok());
        assert!(check_cluster_name(&"a".repeat(64)).is_err());
    }

    #[test]
    fn random_names_differ_and_hold_lower_case_letters_and_digits_only() {
        let (one, other) = (random_name("u", 8), random_name("u", 8));
        assert_ne!(one, other);
        assert_eq!(one.len(), 9);
        assert!(one.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    }
}
