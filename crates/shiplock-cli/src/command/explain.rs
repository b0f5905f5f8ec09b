//! `explain`, `catalogue`, `version` and `completions`: what this command knows by itself.

use clap::CommandFactory as _;
use shiplock_core::language::Language;
use shiplock_core::problem::{Code, Problem};

use super::Context;
use crate::arguments::Arguments;
use crate::exit::Exit;
use crate::output::Output;
use crate::pages;
use crate::render::{self, Style, table};
use crate::result;

/// Shows the page of a code or of a check, or lists all of both.
pub(super) fn explain(code: Option<&str>, output: &Output) -> Result<Exit, Problem> {
    let sentence = |code: &Code, style: &Style| {
        let [english, chinese] = code.text().sentence;
        style.pick(english, chinese).to_owned()
    };
    let Some(asked) = code else {
        let english = |code: &Code| code.text().sentence[0].to_owned();
        let line = |code: &str, sentence: String| result::CodeLine { code: code.to_owned(), sentence };
        let codes = Code::ALL.iter().map(|code| line(code.id(), english(code)));
        let checks = pages::checks(Language::En).into_iter().map(|check| line(check.id, check.title));
        output.result(result::Codes { codes: codes.chain(checks).collect() }, |style| {
            let codes = Code::ALL.iter().map(|code| format!("{code}  {}\n", sentence(code, style)));
            let checks = pages::checks(style.language);
            let checks = checks.iter().map(|check| format!("{:<8} {}\n", check.id, check.title));
            codes.chain(checks).collect()
        });
        return Ok(Exit::Done);
    };
    if let Some(check) = pages::checks(output.language()).into_iter().find(|check| check.id.eq_ignore_ascii_case(asked))
    {
        let explained =
            result::ExplainedCheck { check: check.id.to_owned(), title: check.title, page: check.page.clone() };
        output.result(explained, |style| pages::for_terminal(&check.page, output.reading_width(), style));
        return Ok(Exit::Done);
    }
    let Some(code) = Code::from_id(asked) else {
        let asked = table::one_line(&asked.chars().take(40).collect::<String>());
        let why = "there is no such code; `shiplock explain` lists all";
        return Err(Problem::new(Code::BadOption).with("option", "CODE").with("value", asked).with("why", why));
    };
    let (text, page) = (code.text(), pages::page(code, output.language()));
    let [fix, _] = text.fix;
    let explained = result::Explained {
        code: code.id().to_owned(),
        http_status: text.http_status,
        sentence: text.sentence[0].to_owned(),
        fix: fix.to_owned(),
        page: page.to_owned(),
    };
    output.result(explained, |style| pages::for_terminal(page, output.reading_width(), style));
    Ok(Exit::Done)
}

/// Lists the versions of the server's catalogue.
pub(super) async fn catalogue(context: &Context<'_>) -> Result<Exit, Problem> {
    let versions = context.client.versions().await?;
    context
        .output
        .result(result::Catalogue { versions: versions.clone() }, |style| render::catalogue::list(&versions, style));
    Ok(Exit::Done)
}

/// Shows the versions of both ends.
pub(super) async fn version(context: &Context<'_>) -> Result<Exit, Problem> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let endpoint = context.client.endpoint().to_string();
    let server = context.client.server().await;
    let data = result::Versions {
        version: version.clone(),
        server: server.as_ref().ok().cloned(),
        endpoint: endpoint.clone(),
    };
    context.output.result(data, |style| {
        let theirs = match &server {
            Ok(server) if style.zh() => format!(
                "{}，版本目录 {}，agent 网关 {}（{}）",
                server.version, server.catalogue, server.agent_url, server.holder
            ),
            Ok(server) => format!(
                "{}, catalogue {}, agents at {} ({})",
                server.version, server.catalogue, server.agent_url, server.holder
            ),
            Err(problem) => problem.sentence(style.language),
        };
        format!(
            "{}  {version}\n{}  {theirs}  {endpoint}\n",
            style.pick("command", "命令  "),
            style.pick("server ", "服务端")
        )
    });
    Ok(Exit::Done)
}

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell, output: &Output) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "shiplock", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    output.result(result::Completions { shell: shell.to_string(), script: script.clone() }, |_| script);
    Exit::Done
}
