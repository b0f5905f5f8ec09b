//! A problem as people read it: code, sentence, causes, fix and where to read more.

use shiplock_core::problem::Problem;

use super::{Style, Tone, table};

/// The lines of a problem.
pub fn problem(problem: &Problem, style: &Style) -> String {
    let sentence = table::one_line(&problem.sentence(style.language));
    let mut text = format!("{} {sentence}\n", style.tone(Tone::Bad, problem.code.id()));
    for cause in &problem.causes {
        for line in cause.lines().filter(|line| !line.trim().is_empty()) {
            text.push_str(&format!("  {}\n", style.tone(Tone::Faint, &table::one_line(line))));
        }
    }
    let fix = table::one_line(&problem.fix(style.language));
    text.push_str(&format!("  {}   {fix}\n", style.tone(Tone::Strong, style.pick("fix ", "处理"))));
    if let Some(request) = problem.parameters.get("request_id") {
        text.push_str(&format!("  {} {}\n", style.pick("request", "请求编号"), table::one_line(request)));
    }
    text.push_str(&format!("  {}   shiplock explain {}\n", style.pick("more", "详情"), problem.code.id()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use shiplock_core::language::Language;
    use shiplock_core::problem::Code;

    #[test]
    fn a_problem_says_what_why_and_what_to_do() {
        let occurrence = Problem::new(Code::ClusterUnreachable)
            .with("server", "https://10.0.0.1:6443")
            .cause("error trying to connect\ntcp connect error: refused\u{7}");
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            insta::assert_snapshot!(format!("problem_{name}"), problem(&occurrence, &sample::style(language)));
        }
    }
}
