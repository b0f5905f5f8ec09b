//! Checks by the words that people type: which one is meant, and what is near a word that names none.

use shiplock_core::check::{ACCEPTABLE, CHECKS};

use crate::catalogue::{self, Category};
use crate::report::HORIZON;

/// So many names are offered for a word that names nothing.
const NEAR_MAX: usize = 3;

/// The id of the check whose findings may be accepted under a word; else why they may not, with the names that are near.
pub fn acceptable(word: &str) -> Result<&'static str, String> {
    let of_plan = CHECKS.iter().copied().find(|id| id.eq_ignore_ascii_case(word));
    if let Some(id) = of_plan {
        let mends = "it guards what would break the cluster, so that it can be mended and not accepted";
        return if ACCEPTABLE.contains(&id) { Ok(id) } else { Err(mends.to_owned()) };
    }
    match catalogue::find(word) {
        Some(check) if check.not_built.is_some() => Err("that check finds nothing: it is not built".to_owned()),
        Some(check) if check.id == HORIZON => {
            Err("nothing is known of such a target, so that it cannot be accepted; use a newer build".to_owned())
        }
        Some(check) => Ok(check.id),
        None => Err(format!("there is no check with this id{}", near(word, ids()))),
    }
}

/// Why a word names no check and no category, with the names that are near.
pub fn no_such(word: &str) -> String {
    let names = catalogue::all().iter().flat_map(|check| [check.id, check.name]);
    let words = names.chain(Category::ALL.map(Category::prefix)).map(|word| (word, word));
    format!("there is no check and no category of this name{}; `shiplock explain` lists all", near(word, words))
}

/// Each id under itself and under the name of its check.
fn ids() -> impl Iterator<Item = (&'static str, &'static str)> {
    let built = catalogue::all().iter().flat_map(|check| [(check.id, check.id), (check.name, check.id)]);
    built.chain(CHECKS.iter().map(|id| (*id, *id)))
}

/// `: did you mean WL-001?`, or nothing where no name is near. `known` are words, each with what is offered for it.
fn near(word: &str, known: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let word = word.trim().to_ascii_lowercase();
    // A third of a word may be mistyped; of two letters none.
    let bound = (word.chars().count() / 3).min(3);
    let distance = |known: &str| strsim::damerau_levenshtein(&known.to_ascii_lowercase(), &word);
    let mut near: Vec<(usize, &str)> = known.map(|(known, offered)| (distance(known), offered)).collect();
    near.retain(|(distance, _)| *distance <= bound);
    near.sort_unstable();
    near.dedup();
    let Some((least, _)) = near.first() else { return String::new() };
    let names = near.iter().take_while(|(distance, _)| distance == least).map(|(_, name)| *name);
    format!(": did you mean {}?", names.take(NEAR_MAX).collect::<Vec<_>>().join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_accepted_by_the_name_of_a_check_that_there_is_and_near_names_are_offered() {
        for (word, expected) in [
            ("WL-001", Ok("WL-001")),
            ("wl-001", Ok("WL-001")),
            ("cp-003", Ok("CP-003")),
            ("CP-004", Err("it guards what would break the cluster, so that it can be mended and not accepted")),
            ("AGT-001", Err("it guards what would break the cluster, so that it can be mended and not accepted")),
            ("API-014", Err("nothing is known of such a target, so that it cannot be accepted; use a newer build")),
            ("NODE", Err("there is no check with this id")),
            ("WL001", Err("there is no check with this id: did you mean WL-001?")),
            ("NODE-0006", Err("there is no check with this id: did you mean NODE-006?")),
            ("everything", Err("there is no check with this id")),
            ("*", Err("there is no check with this id")),
            ("", Err("there is no check with this id")),
        ] {
            assert_eq!(acceptable(word), expected.map_err(str::to_owned), "{word}");
        }
        assert!(no_such("NODES").starts_with("there is no check and no category of this name: did you mean NODE?"));
        for check in catalogue::all().iter().filter(|check| check.not_built.is_some()) {
            assert!(acceptable(check.id).is_err(), "{}", check.id);
        }
    }
}
