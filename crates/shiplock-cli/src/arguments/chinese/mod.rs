//! Help and usage errors in Chinese.
//!
//! Command lines are read with the English definition. Only where one is not carried out is it looked at again: help is
//! that of a definition whose texts are replaced, errors are told from what clap knows of them.

mod refusal;
mod texts;

use std::ffi::OsString;

use clap::builder::{PossibleValuesParser, StyledStr};
use clap::error::ErrorKind;
use clap::{Arg, Command, CommandFactory as _};

use self::texts::TEXTS;
use super::Arguments;

/// clap's own words, which it has no names for. The longer one of two that begin alike comes first.
const WORDS_OF_CLAP: &[(&str, &str)] = &[
    ("Usage:\u{1b}[0m ", "用法：\u{1b}[0m"),
    ("Usage:", "用法："),
    ("Commands:", "命令："),
    ("Arguments:", "参数："),
    ("Options:", "选项："),
    ("[OPTIONS]", "[选项]"),
    ("<COMMAND>", "<命令>"),
    ("Possible values:", "可选值："),
    ("[possible values: ", "[可选值："),
    ("[default: ", "[默认："),
    ("[env: ", "[环境变量："),
    ("Print help (see more with '--help')", "显示帮助（`--help` 给出更多说明）"),
    ("Print help (see a summary with '-h')", "显示帮助（`-h` 给出摘要）"),
    ("Print help", "显示帮助"),
    ("Print version", "显示版本"),
];

/// What is said of a command line that is not carried out.
pub(crate) struct Said {
    /// What people read; its lines are not broken yet.
    pub(crate) text: StyledStr,
    /// What is wrong, in one sentence; none where help was asked for.
    pub(crate) what_is_wrong: Option<String>,
}

/// What is said in Chinese instead of `english`; none where it stays English.
pub(crate) fn of(given: &[OsString], english: &clap::Error) -> Option<Said> {
    match english.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let help = definition().try_get_matches_from(given).err()?;
            Some(Said { text: with_words(&help.render()), what_is_wrong: None })
        }
        _ => {
            let what = refusal::sentence(english)?;
            Some(Said { text: refusal::text(&what, english), what_is_wrong: Some(what) })
        }
    }
}

/// The definition of the command line with Chinese texts; for help only, since values are not read into their types.
fn definition() -> Command {
    // clap breaks lines at blanks only, which Chinese has few of.
    translated(Arguments::command().term_width(0), &chinese)
}

fn chinese(english: &str) -> Option<&'static str> {
    TEXTS.iter().find(|(text, _)| *text == english).map(|(_, chinese)| *chinese)
}

/// The Chinese text for an English one, if there is one.
type Translate<'a> = &'a dyn Fn(&str) -> Option<&'static str>;

fn translated(mut command: Command, translate: Translate<'_>) -> Command {
    if let Some(about) = command.get_about().and_then(|text| translate(&text.to_string())) {
        command = command.about(about);
    }
    if let Some(about) = command.get_long_about().and_then(|text| translate(&text.to_string())) {
        command = command.long_about(about);
    }
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        command = command.after_help(examples(&text, translate));
    }
    command
        .mut_args(|argument| translated_argument(argument, translate))
        .mut_subcommands(|command| translated(command, translate))
}

fn translated_argument(mut argument: Arg, translate: Translate<'_>) -> Arg {
    if let Some(help) = argument.get_help().and_then(|text| translate(&text.to_string())) {
        argument = argument.help(help);
    }
    if let Some(help) = argument.get_long_help().and_then(|text| translate(&text.to_string())) {
        argument = argument.long_help(help);
    }
    if let Some(heading) = argument.get_help_heading().and_then(translate) {
        argument = argument.help_heading(heading);
    }
    let values = argument.get_possible_values();
    if values.iter().any(|value| value.get_help().is_some()) {
        let values =
            values.into_iter().map(|value| match value.get_help().and_then(|text| translate(&text.to_string())) {
                Some(help) => value.help(help),
                None => value,
            });
        argument = argument.value_parser(PossibleValuesParser::new(values));
    }
    argument
}

/// Examples: indented lines are commands, of which only the comment is a text; lines that are not indented, and further
/// ones that are indented far, are one text.
fn examples(english: &str, translate: Translate<'_>) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut text = String::new();
    for line in english.lines().chain([""]) {
        let is_text = !line.is_empty() && (!line.starts_with(' ') || line.starts_with("        "));
        if is_text {
            text = format!("{text} {}", line.trim()).trim_start().to_owned();
            continue;
        }
        if !text.is_empty() {
            lines.push(translate(&text).map_or_else(|| text.clone(), str::to_owned));
            text.clear();
        }
        lines.push(match line.split_once("# ") {
            Some((command, comment)) => {
                let comment = comment.trim_start();
                let begin = line.len() - comment.len() - command.len();
                let marks = &line[command.len()..command.len() + begin];
                format!("{command}{marks}{}", translate(comment).unwrap_or(comment))
            }
            None => line.to_owned(),
        });
    }
    lines.join("\n").trim_end().to_owned()
}

/// The text with clap's own words replaced.
fn with_words(text: &StyledStr) -> StyledStr {
    let text = WORDS_OF_CLAP.iter().fold(text.ansi().to_string(), |text, (word, chinese)| text.replace(word, chinese));
    // clap writes its colon behind every heading.
    let lines = text.lines().map(|line| match line.strip_suffix(":\u{1b}[0m").or_else(|| line.strip_suffix(':')) {
        Some(heading) if line.ends_with(':') => format!("{heading}：\n"),
        Some(heading) => format!("{heading}：\u{1b}[0m\n"),
        None => format!("{line}\n"),
    });
    lines.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::table;
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    fn said(line: &str) -> Said {
        let given: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        of(&given, &crate::arguments::parse(&given).unwrap_err()).unwrap()
    }

    fn commands(mut definition: Command) -> Vec<Command> {
        definition.build();
        let mut waiting = vec![definition];
        let mut commands = Vec::new();
        while let Some(command) = waiting.pop() {
            waiting.extend(command.get_subcommands().cloned());
            commands.push(command);
        }
        commands
    }

    #[test]
    fn every_text_of_help_has_a_chinese_one_and_none_is_left_over() {
        let asked = RefCell::new(BTreeSet::new());
        translated(Arguments::command(), &|text| {
            asked.borrow_mut().insert(text.to_owned());
            None
        });
        let asked = asked.into_inner();
        let there: BTreeSet<String> = TEXTS.iter().map(|(english, _)| (*english).to_owned()).collect();
        assert_eq!(there.len(), TEXTS.len(), "a text stands twice");
        let missing: Vec<_> = asked.difference(&there).collect();
        let left_over: Vec<_> = there.difference(&asked).collect();
        assert!(missing.is_empty() && left_over.is_empty(), "missing: {missing:#?}\nleft over: {left_over:#?}");
        for (english, chinese) in TEXTS {
            assert!(chinese.chars().any(|character| ('\u{4e00}'..'\u{9fff}').contains(&character)), "{english}");
        }
    }

    #[test]
    fn no_word_of_clap_is_left_in_the_help_of_any_command() {
        for mut command in commands(definition()) {
            for help in [command.render_help(), command.render_long_help()] {
                let help = with_words(&help).to_string();
                for word in
                    ["sage", "rguments", "ptions", "OPTIONS", "ommands:", "Print", "[default", "ossible", "[env"]
                {
                    assert!(!help.contains(word), "{word} in the help of {}:\n{help}", command.get_name());
                }
                assert!(help.lines().all(|line| !line.ends_with(':')), "{help}");
            }
        }
    }

    #[test]
    fn options_values_and_example_commands_are_the_same_in_both_languages() {
        let flags = |command: &Command| {
            let named = |argument: &Arg| {
                let values = argument.get_possible_values();
                let values: Vec<_> = values.iter().map(|value| value.get_name().to_owned()).collect();
                (argument.to_string(), values)
            };
            command.get_arguments().map(named).collect::<Vec<_>>()
        };
        let examples = |command: &Command| {
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let commands = text.lines().filter(|line| line.starts_with("  shiplock"));
            commands.map(|line| line.split('#').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        let (english, chinese) = (commands(Arguments::command()), commands(definition()));
        assert_eq!(english.len(), chinese.len());
        for (english, chinese) in english.iter().zip(&chinese) {
            assert_eq!(flags(english), flags(chinese), "{}", english.get_name());
            assert_eq!(examples(english), examples(chinese), "{}", english.get_name());
        }
    }

    #[test]
    fn help_in_chinese_teaches_like_the_english_one() {
        for (name, line) in [
            ("help_zh", "shiplock --help"),
            ("help_upgrade_zh", "shiplock --lang zh upgrade --help"),
            ("help_upgrade_short_zh", "shiplock upgrade -h"),
        ] {
            insta::assert_snapshot!(name, table::wrapped(&said(line).text.to_string(), 100));
        }
    }

    #[test]
    fn a_command_line_that_is_refused_says_what_is_wrong_in_chinese() {
        for (line, expected) in [
            ("shiplock run", "无法识别子命令 `run`"),
            ("shiplock --lang zh", "`shiplock` 之后缺少子命令；可用的子命令："),
            ("shiplock plan prod", "缺少必需的参数：--to <VERSION>"),
            ("shiplock agent remove", "缺少必需的参数：<CLUSTER>、<NODE>"),
            ("shiplock watch --sty", "无法识别参数 `--sty`"),
            ("shiplock watch u1 u2", "无法识别参数 `u2`"),
            ("shiplock plan prod --to", "参数 `--to <VERSION>` 缺少取值"),
            (
                "shiplock plan prod --to 1.36 --drain no",
                "参数 `--drain <WHEN>` 的取值 `no` 无效；可选值：auto、always、never",
            ),
            ("shiplock plan prod --to x", "参数 `--to <VERSION>` 的取值 `x` 无效：`x` 不是 Kubernetes 版本号；请给出"),
            ("shiplock check --to x", "参数 `--to <MINOR>` 的取值 `x` 无效：`x` 不是 Kubernetes 版本号"),
            ("shiplock plan prod --to 1.36 --soak 5", "参数 `--soak <TIME>` 的取值 `5` 无效：`5` 不是时长；请写作 90s"),
            ("shiplock watch --lang fr", "参数 `--lang <en|zh>` 的取值 `fr` 无效：可用的语言为 en 和 zh"),
            ("shiplock demo --speed 0", "参数 `--speed <N>` 的取值 `0` 无效："),
            ("shiplock upgrade prod --plan p1", "参数 `[CLUSTER]` 不能与 `--plan <PLAN>` 同时使用"),
            ("shiplock upgrade --plan p1 --plan p2", "参数 `--plan <PLAN>` 不能重复使用"),
            ("shiplock watch --stay=yes", "参数 `--stay` 不需要取值 `yes`"),
            ("shiplock catalogue -o html", "该命令只输出 text、json 或 ndjson；其他形式仅用于 `check`"),
        ] {
            let what = said(line).what_is_wrong.unwrap();
            assert!(what.starts_with(expected), "{line}: {what}");
        }
    }

    #[test]
    fn what_is_wrong_stands_above_a_tip_the_usage_and_the_way_to_help() {
        for (name, line) in [
            ("refused_missing_zh", "shiplock --lang zh upgrade prod"),
            ("refused_unknown_zh", "shiplock --lang zh plan prod --to 1.36 --max-paralel 3"),
        ] {
            insta::assert_snapshot!(name, table::wrapped(&said(line).text.to_string(), 100));
        }
    }
}
