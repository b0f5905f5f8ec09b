//! What is wrong with a command line, told from the kind of clap's error and what it knows beside it.

use std::error::Error as _;
use std::fmt::Write as _;

use clap::builder::{StyledStr, Styles};
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::with_words;
use crate::arguments::{FORM_OF_CHECK, WrongValue};

/// What is wrong, in one sentence; none for kinds that are told in English.
pub(super) fn sentence(error: &clap::Error) -> Option<String> {
    let argument = || names(error, ContextKind::InvalidArg);
    let number = |kind| match error.get(kind) {
        Some(ContextValue::Number(number)) => Some(*number),
        _ => None,
    };
    Some(match error.kind() {
        ErrorKind::UnknownArgument => format!("无法识别参数 `{}`", argument()?),
        ErrorKind::InvalidSubcommand => {
            format!("无法识别子命令 `{}`", names(error, ContextKind::InvalidSubcommand)?)
        }
        ErrorKind::MissingRequiredArgument => format!("缺少必需的参数：{}", argument()?),
        ErrorKind::MissingSubcommand => format!(
            "`{}` 之后缺少子命令；可用的子命令：{}",
            names(error, ContextKind::InvalidSubcommand)?,
            names(error, ContextKind::ValidSubcommand)?
        ),
        ErrorKind::InvalidValue if crate::what_is_wrong(&error.render().to_string()) == FORM_OF_CHECK => {
            "该命令只输出 text、json 或 ndjson；其他形式仅用于 `check`".to_owned()
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = names(error, ContextKind::InvalidValue)?;
            let mut sentence = if value.is_empty() {
                format!("参数 `{}` 缺少取值", argument()?)
            } else {
                format!("参数 `{}` 的取值 `{value}` 无效", argument()?)
            };
            if let Some(possible) = names(error, ContextKind::ValidValue).filter(|values| !values.is_empty()) {
                sentence.push_str(&format!("；可选值：{possible}"));
            }
            if let Some(why) = error.source() {
                let ours = why.downcast_ref::<WrongValue>().map(|wrong| wrong.chinese.clone());
                sentence.push_str(&format!("：{}", ours.unwrap_or_else(|| why.to_string())));
            }
            sentence
        }
        ErrorKind::TooManyValues => {
            format!("参数 `{}` 不需要取值 `{}`", argument()?, names(error, ContextKind::InvalidValue)?)
        }
        ErrorKind::TooFewValues => format!(
            "参数 `{}` 至少需要 {} 个取值，只给出了 {} 个",
            argument()?,
            number(ContextKind::MinValues)?,
            number(ContextKind::ActualNumValues)?
        ),
        ErrorKind::WrongNumberOfValues => format!(
            "参数 `{}` 需要 {} 个取值，给出了 {} 个",
            argument()?,
            number(ContextKind::ExpectedNumValues)?,
            number(ContextKind::ActualNumValues)?
        ),
        ErrorKind::ArgumentConflict => {
            let named = argument()?;
            match names(error, ContextKind::PriorArg) {
                Some(prior) if prior == named => format!("参数 `{named}` 不能重复使用"),
                Some(prior) => format!("参数 `{named}` 不能与 `{}` 同时使用", prior.replace('、', "`、`")),
                None => format!("参数 `{named}` 不能与其他给出的参数同时使用"),
            }
        }
        _ => return None,
    })
}

/// All that people read: what is wrong, a tip where clap has one, the usage and the way to help.
pub(super) fn text(what: &str, error: &clap::Error) -> StyledStr {
    let styles = Styles::styled();
    let (wrong, good) = (styles.get_error(), styles.get_valid());
    let mut text = format!("{wrong}错误：{wrong:#}{what}\n");
    let mut tips = Vec::new();
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue] {
        tips.extend(names(error, kind).map(|near| format!("您要的是否为 `{}`？", near.replace('、', "`、`"))));
    }
    if let Some(ContextValue::StyledStrs(others)) = error.get(ContextKind::Suggested) {
        tips.extend(others.iter().map(|tip| {
            let tip = tip.to_string();
            match tip.strip_suffix(" exists") {
                Some(command) => format!("可以使用 {command}"),
                None => tip,
            }
        }));
    }
    for (index, tip) in tips.iter().enumerate() {
        let _ = writeln!(text, "{}  {good}提示：{good:#}{tip}", if index == 0 { "\n" } else { "" });
    }
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        let _ = write!(text, "\n{}\n", usage.ansi());
    }
    text.push_str("\n更多信息请用 `--help` 查看。\n");
    with_words(&text.into())
}

fn names(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(name) => Some(name.clone()),
        ContextValue::Strings(names) => Some(names.join("、")),
        _ => None,
    }
}
