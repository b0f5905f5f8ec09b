//! The catalogue holds together.

use std::collections::BTreeSet;

use super::*;

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
        let mut names = BTreeSet::new();
        assert!(check.sentences.iter().all(|sentence| names.insert(sentence.name)), "{}", check.id);
        assert_eq!(check.sentences.is_empty(), check.not_built.is_some(), "{}: built or not", check.id);
    }
}
