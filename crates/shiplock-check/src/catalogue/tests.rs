//! The catalogue holds together.

use std::collections::BTreeSet;

use super::*;

/// Parameters that are numbers of things.
const NUMBERS: [&str; 11] =
    ["all", "count", "days", "expected", "free", "hops", "hours", "nodes", "others", "pods", "starts"];

#[test]
fn ids_and_names_are_unique_and_every_text_is_there_in_both_languages() {
    let mut seen = BTreeSet::new();
    for check in all() {
        assert!(seen.insert(check.id), "{} twice", check.id);
        assert!(seen.insert(check.name), "{} twice", check.name);
        assert!(check.id.starts_with(check.category().prefix()), "{}", check.id);
        let reads = check.not_built.is_none().then_some(check.reads);
        let texts = [check.title, check.why, check.fix].into_iter().chain(reads);
        for [english, chinese] in
            texts.chain(check.sentences.iter().flat_map(|sentence| [Some(sentence.text), sentence.fix]).flatten())
        {
            assert!(
                !english.is_empty() && chinese.chars().any(|character| character > '\u{2E80}'),
                "{}: {english}",
                check.id
            );
            let parameters = |text: &str| -> BTreeSet<String> {
                text.split('{')
                    .skip(1)
                    .filter_map(|rest| rest.split_once('}'))
                    .map(|(name, _)| name.split_once(':').map_or(name, |(name, _)| name).to_owned())
                    .collect()
            };
            assert_eq!(parameters(english), parameters(chinese), "{}: {english}", check.id);
        }
        // Those that are always more than one.
        let is_many =
            |name: &str| [("VER-001", "hops"), ("WL-004", "replicas"), ("CP-003", "count")].contains(&(check.id, name));
        for sentence in check.sentences {
            let numbers = sentence.text[0].split('{').skip(1).filter_map(|rest| rest.split_once("} "));
            for (name, after) in numbers.filter(|(name, _)| NUMBERS.contains(name) && !is_many(name)) {
                let is_plural =
                    after.split([' ', ',', ';']).next().is_some_and(|word| word.ends_with('s') && word != "ms");
                assert!(
                    !is_plural && !after.starts_with("of its "),
                    "{}: {name} may be one: {}",
                    check.id,
                    sentence.text[0]
                );
            }
        }
        let mut names = BTreeSet::new();
        assert!(check.sentences.iter().all(|sentence| names.insert(sentence.name)), "{}", check.id);
        assert_eq!(check.sentences.is_empty(), check.not_built.is_some(), "{}: built or not", check.id);
    }
}
