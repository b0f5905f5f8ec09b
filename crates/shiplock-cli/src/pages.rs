//! The pages of `docs/errors` and `docs/checks`, built in, so that `explain` works without a network.
//!
//! Each page has two parts, English then Chinese, with a line `---` between. A test holds pages, codes and checks together.

use shiplock_check::catalogue;
use shiplock_core::check::CHECKS;
use shiplock_core::language::Language;
use shiplock_core::problem::Code;

use crate::render::{Style, Tone, table};

macro_rules! pages {
    ($name:ident $folder:literal $($id:literal)*) => {
        const $name: &[(&str, &str)] = &[$((
            $id,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/", $folder, "/", $id, ".md")),
        ),)*];
    };
}

pages! { PAGES "errors"
    "UPG0101" "UPG0102" "UPG0103" "UPG0104" "UPG0105" "UPG0106" "UPG0107" "UPG0108" "UPG0109"
    "UPG0110" "UPG0111" "UPG0112" "UPG0113" "UPG0114" "UPG0115" "UPG0116" "UPG0117" "UPG0118" "UPG0119" "UPG0120" "UPG0121" "UPG0122" "UPG0123" "UPG0124" "UPG0125" "UPG0126" "UPG0127" "UPG0140" "UPG0150" "UPG0151" "UPG0152" "UPG0201"
    "UPG0202" "UPG0203" "UPG0204" "UPG0205" "UPG0206" "UPG0207" "UPG0208" "UPG0301" "UPG0302"
    "UPG0303" "UPG0304" "UPG0305" "UPG0306" "UPG0307" "UPG0308" "UPG0309" "UPG0310" "UPG0311"
    "UPG0312" "UPG0313" "UPG0314" "UPG0315" "UPG0316" "UPG0317" "UPG0318" "UPG0401" "UPG0402" "UPG0403"
    "UPG0404" "UPG0405" "UPG0406" "UPG0407" "UPG0408" "UPG0409" "UPG0410" "UPG0411" "UPG0412" "UPG0413" "UPG0414"
    "UPG0415" "UPG0416" "UPG0417"
    "UPG0501" "UPG0502" "UPG0503" "UPG0504" "UPG0505" "UPG0506" "UPG0507" "UPG0508" "UPG0509"
    "UPG0510" "UPG0511" "UPG0512" "UPG0513" "UPG0514" "UPG0515" "UPG0516" "UPG0517" "UPG0518"
    "UPG0519" "UPG0520" "UPG0521" "UPG0522" "UPG0523" "UPG0524" "UPG0525" "UPG0526" "UPG0527" "UPG0528" "UPG0529" "UPG0530" "UPG0531" "UPG0601" "UPG0602" "UPG0603" "UPG0701" "UPG0702"
    "UPG0703" "UPG0704" "UPG0705" "UPG0706" "UPG0707" "UPG0801" "UPG0802" "UPG0803" "UPG0804" "UPG0805"
    "UPG0806" "UPG0807" "UPG0808" "UPG0841" "UPG0842" "UPG0843" "UPG0844" "UPG0845"
}

pages! { CHECK_PAGES "checks"
    "ADD-008" "AGT-001" "AGT-002" "CLU-001" "CP-002" "CP-003" "CP-004" "CP-008" "CP-015" "NOD-001" "NOD-002" "NODE-007" "VER-014" "WHK-016"
}

/// What parts the languages of a page.
const PARTING: &str = "\n---\n\n";

/// The page of a code in a language.
pub(crate) fn page(code: Code, language: Language) -> &'static str {
    part(PAGES, code.id(), language)
}

/// A check as people look it up: its id, what it promises, its page.
pub(crate) struct CheckPage {
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) page: String,
}

/// The pages of all checks in a language, by id: those that guard a plan, and those of the pre-check's catalogue. Where
/// both ask the same the page is the one of the plan's check, which says more.
pub(crate) fn checks(language: Language) -> Vec<CheckPage> {
    let of_plans = CHECKS.iter().map(|id| (*id, part(CHECK_PAGES, id, language).to_owned()));
    let others = catalogue::all().iter().filter(|check| !CHECKS.contains(&check.id));
    let of_catalogue = others.map(|check| {
        let whole = shiplock_check::render::page(check);
        let (english, chinese) = whole.split_once(PARTING).unwrap_or((&whole, &whole));
        (check.id, language.pick(english, chinese).to_owned())
    });
    let mut pages: Vec<CheckPage> = of_plans
        .chain(of_catalogue)
        .map(|(id, page)| {
            let heading = page.lines().next().unwrap_or_default();
            let title = heading.split_once([':', '：']).map_or(heading, |(_, title)| title.trim()).to_owned();
            CheckPage { id, title, page }
        })
        .collect();
    pages.sort_by_key(|page| page.id);
    pages
}

fn part(pages: &'static [(&str, &str)], id: &str, language: Language) -> &'static str {
    let whole = pages.iter().find(|(named, _)| *named == id).map_or("", |(_, text)| *text);
    let (english, chinese) = whole.split_once(PARTING).unwrap_or((whole, whole));
    language.pick(english, chinese)
}

/// A page for a terminal: titles and commands stand out, marks of the source do not show, and lines are no longer
/// than `width`, if there is one.
pub(crate) fn for_terminal(page: &str, width: Option<usize>, style: &Style) -> String {
    let mut text = String::new();
    let mut in_commands = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_commands = !in_commands;
        } else if in_commands {
            text.push_str(&format!("    {}\n", style.tone(Tone::Strong, line)));
        } else if let Some(title) = line.strip_prefix("# ").or_else(|| line.strip_prefix("## ")) {
            text.push_str(&format!("{}\n", style.tone(Tone::Strong, title)));
        } else {
            for part in width.map_or_else(|| vec![line.to_owned()], |width| table::wrap(line, width)) {
                text.push_str(part.trim_start());
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn files(folder: &str) -> BTreeSet<String> {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(folder);
        let names = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter_map(|name| name.strip_suffix(".md").map(str::to_owned)).collect()
    }

    fn built_in(pages: &[(&str, &str)]) -> BTreeSet<String> {
        pages.iter().map(|(id, _)| (*id).to_owned()).collect()
    }

    #[test]
    fn every_check_has_a_page_and_every_page_a_check() {
        let checks: BTreeSet<String> = CHECKS.iter().map(|id| (*id).to_owned()).collect();
        assert_eq!(checks, built_in(CHECK_PAGES), "write docs/checks/ID.md and name the check in pages!");
        let all: BTreeSet<String> =
            checks.into_iter().chain(catalogue::all().iter().map(|check| check.id.to_owned())).collect();
        let mut pages = files("checks");
        assert!(pages.remove("README"), "docs/checks/README.md lists all of them");
        assert_eq!(all, pages, "docs/checks and the checks differ");
        for (language, parts) in [
            (Language::En, ["## When it stops the start\n", "## What to do\n", "## Related\n"]),
            (Language::Zh, ["## 何时阻止开始\n", "## 如何处理\n", "## 相关\n"]),
        ] {
            for check in super::checks(language).into_iter().filter(|check| CHECKS.contains(&check.id)) {
                assert!(check.page.starts_with(&format!("# {}", check.id)), "{} {language:?}", check.id);
                assert!(!check.title.is_empty() && !check.title.contains(check.id), "{}: {}", check.id, check.title);
                for part in parts {
                    assert_eq!(check.page.matches(part).count(), 1, "{} {language:?} {part}", check.id);
                }
            }
        }
    }

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let codes: BTreeSet<String> = Code::ALL.iter().map(|code| code.id().to_owned()).collect();
        assert_eq!(codes, built_in(PAGES), "write docs/errors/CODE.md and name the code in pages!");
        assert_eq!(codes, files("errors"), "docs/errors and the codes differ");
    }

    #[test]
    fn every_page_says_what_when_and_what_to_do_in_both_languages() {
        for code in Code::ALL {
            for (language, parts) in [
                (Language::En, ["## When it happens\n", "## What to do\n", "## Related\n"]),
                (Language::Zh, ["## 何时出现\n", "## 如何处理\n", "## 相关\n"]),
            ] {
                let page = page(*code, language);
                assert!(page.starts_with(&format!("# {code}")), "{code} {language:?}");
                for part in parts {
                    assert_eq!(page.matches(part).count(), 1, "{code} {language:?} {part}");
                }
                assert!(page.chars().count() > 120, "{code} {language:?} says too little");
                let chinese = page.chars().filter(|character| ('\u{4e00}'..'\u{9fff}').contains(character)).count();
                assert_eq!(chinese > 30, language == Language::Zh, "{code} {language:?}");
                assert_eq!(page.matches("```").count() % 2, 0, "{code} {language:?}");
            }
        }
    }

    #[test]
    fn codes_that_a_page_names_exist() {
        for (id, text) in PAGES.iter().chain(CHECK_PAGES) {
            for (position, _) in text.match_indices("UPG") {
                let named: String = text[position..].chars().take(7).collect();
                assert!(Code::from_id(&named).is_some(), "{id} names {named}");
            }
        }
    }

    #[test]
    fn commands_that_pages_name_can_be_typed() {
        for (id, text) in PAGES.iter().chain(CHECK_PAGES) {
            for line in text.lines().map(str::trim).filter(|line| line.starts_with("shiplock ")) {
                let typed = line.split('#').next().unwrap_or_default().split('|').next().unwrap_or_default();
                let typed = typed.replace("VERSION", "1.36").replace("ADDRESS:PORT", "127.0.0.1:1");
                let words = typed.split_whitespace().filter(|word| *word != "…").map(std::ffi::OsString::from);
                let words: Vec<_> = words.collect();
                let wrong = crate::arguments::parse(&words).err().filter(clap::Error::use_stderr);
                assert!(wrong.is_none(), "{id}: {line}");
            }
        }
    }

    #[test]
    fn a_page_on_a_terminal_has_no_marks_of_its_source() {
        let style = Style::plain(Language::En, jiff::Timestamp::UNIX_EPOCH);
        let shown = for_terminal("# UPG1: x\n\nText.\n\n## What to do\n\n```\nshiplock watch\n```\n", None, &style);
        assert_eq!(shown, "UPG1: x\n\nText.\n\nWhat to do\n\n    shiplock watch\n");
        assert_eq!(for_terminal("one two three\n", Some(8), &style), "one two\nthree\n");
    }
}
