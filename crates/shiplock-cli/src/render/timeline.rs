//! A picture of a rehearsal's timeline: a lane for each stage, and one for each node where there are few.

use std::fmt::Write as _;

use shiplock_core::language::Language;
use shiplock_sim::rehearsal::{BatchLine, Report};

use super::table::cut;
use super::words;

const WIDTH: u64 = 1_000;
const LEFT: u64 = 190;
const LANE: u64 = 18;
const TOP: u64 = 64;
/// So many cells of a name fit beside the lanes; the whole of it is the title.
const LABEL_CELLS_MAX: usize = 26;
/// Nodes of a stage that have lanes of their own; with more its batches share one.
const NODE_LANES_MAX: usize = 60;

/// The picture: one SVG file without scripts, fonts or links.
pub fn svg(report: &Report, language: Language) -> String {
    let total = report.total.nominal_milliseconds.max(1);
    let x = |milliseconds: u64| LEFT + milliseconds.min(total).saturating_mul(WIDTH) / total;
    let (mut body, mut y) = (String::new(), TOP);
    for stage in &report.stages {
        let nodes: usize = stage.batches.iter().map(|batch| batch.nodes.len()).sum();
        let name = words::stage(stage.stage, stage.pool.as_deref(), language);
        label(&mut body, y, &name, true);
        bar(&mut body, x(stage.begin_milliseconds), x(stage.end_milliseconds), y, "#5b7fa6", &name);
        y += LANE;
        if nodes <= NODE_LANES_MAX {
            y = node_lanes(&mut body, &stage.batches, report, language, y, &x);
        } else {
            for batch in &stage.batches {
                let nodes = words::nodes(batch.nodes.len(), language);
                let title = format!("{}{}{nodes}", batch_name(batch, language), language.pick(": ", "："));
                bar(&mut body, x(batch.begin_milliseconds), x(batch.end_milliseconds), y, "#8fb4d9", &title);
            }
            label(&mut body, y, language.pick("batches", "批次"), false);
            y += LANE;
        }
    }
    for held in report.blockers.iter().chain(&report.timed_out) {
        let at = x(held.begin_milliseconds);
        let _ = writeln!(
            body,
            "<path d=\"M{at} {} V{y}\" stroke=\"#c0392b\" stroke-dasharray=\"3 3\"><title>{}</title></path>",
            TOP - 6,
            escaped(&held.waiting_on.sentence(language))
        );
    }
    let height = y + 40;
    let mut axis = String::new();
    for tick in 0..=10 {
        let at = total * tick / 10;
        let seconds = i64::try_from(at / 1_000).unwrap_or(0);
        let _ = writeln!(
            axis,
            "<path d=\"M{0} {TOP} V{y}\" stroke=\"#ddd\"/><text x=\"{0}\" y=\"{1}\" text-anchor=\"middle\">{2}</text>",
            x(at),
            TOP - 12,
            escaped(&super::time::duration(seconds, language))
        );
    }
    let to = report.to.map_or_else(String::new, |to| format!(" → {to}"));
    let title = format!("{}{to}", report.version);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"12\" y=\"24\" font-size=\"15\">{}</text>\n{axis}{body}</svg>\n",
        LEFT + WIDTH + 30,
        escaped(&format!("{} {title}", language.pick("Rehearsal", "演练")))
    )
}

fn batch_name(batch: &BatchLine, language: Language) -> String {
    match language {
        Language::Zh => format!("第 {} 批", batch.batch),
        Language::En => format!("batch {}", batch.batch),
    }
}

fn node_lanes(
    body: &mut String,
    batches: &[BatchLine],
    report: &Report,
    language: Language,
    top: u64,
    x: &impl Fn(u64) -> u64,
) -> u64 {
    let mut y = top;
    let drain_name = language.pick("drain", "排空");
    for batch in batches {
        let batch_name = batch_name(batch, language);
        for node in &batch.nodes {
            label(body, y, &node.node, false);
            let blocked = report.blocked_nodes().any(|blocked| blocked == node.node);
            let (fill, drain_fill) = if blocked { ("#e6a19a", "#c0392b") } else { ("#8fb4d9", "#e0a94a") };
            let title = format!("{}{}{batch_name}", node.node, language.pick(", ", "，"));
            bar(body, x(node.begin_milliseconds), x(node.end_milliseconds), y, fill, &title);
            if let (Some(begin), Some(takes)) = (node.drain_begin_milliseconds, node.drain_milliseconds) {
                let title = format!("{}{}{drain_name}", node.node, language.pick(": ", "："));
                bar(body, x(begin), x(begin + takes), y, drain_fill, &title);
            }
            y += LANE;
        }
    }
    y
}

fn label(body: &mut String, y: u64, text: &str, is_stage: bool) {
    let (x, weight) = if is_stage { (8, "bold") } else { (20, "normal") };
    let (shown, whole) = (escaped(&cut(text, LABEL_CELLS_MAX)), escaped(text));
    let title = if shown == whole { String::new() } else { format!("<title>{whole}</title>") };
    let _ = writeln!(body, "<text x=\"{x}\" y=\"{}\" font-weight=\"{weight}\">{title}{shown}</text>", y + 12);
}

fn bar(body: &mut String, from: u64, to: u64, y: u64, fill: &str, title: &str) {
    let width = to.saturating_sub(from).max(1);
    let _ = writeln!(
        body,
        "<rect x=\"{from}\" y=\"{}\" width=\"{width}\" height=\"{}\" fill=\"{fill}\" stroke=\"#fff\" stroke-width=\".5\"><title>{}</title></rect>",
        y + 2,
        LANE - 4,
        escaped(title)
    );
}

/// Names come from a file that anybody may have written.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            character if character.is_control() => {}
            character => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::rehearsal::tests::rehearsed;

    #[test]
    fn the_picture_has_a_lane_for_each_node_and_marks_drains_that_block() {
        let told = rehearsed();
        insta::assert_snapshot!("timeline_en", svg(&told, Language::En));
    }

    #[test]
    fn names_from_a_file_that_anybody_wrote_stay_text() {
        let mut told = rehearsed();
        told.stages[0].pool = Some("</text><script>alert(1)</script>".to_owned());
        let picture = svg(&told, Language::Zh);
        assert!(!picture.contains("<script>") && picture.contains("&lt;script&gt;"));
    }

    #[test]
    fn a_long_name_is_cut_beside_its_lane_and_whole_in_its_title() {
        let mut told = rehearsed();
        let long = "w".repeat(63);
        let last = told.stages.iter_mut().rfind(|stage| !stage.batches.is_empty()).unwrap();
        last.batches[0].nodes[0].node = long.clone();
        let picture = svg(&told, Language::En);
        assert!(picture.contains(&format!("<title>{long}</title>{}…</text>", "w".repeat(25))), "{picture}");
    }

    #[test]
    fn words_are_of_the_language() {
        let picture = svg(&rehearsed(), Language::Zh);
        for word in ["节点池 blue", "控制面", "第 1 批", "排空"] {
            assert!(picture.contains(word), "{word}: {picture}");
        }
        for word in ["batch", "drain", "control_plane", "node_pool"] {
            assert!(!picture.contains(word), "{word}: {picture}");
        }
    }

    #[test]
    fn a_rehearsal_without_nodes_or_time_has_a_picture() {
        let mut told = rehearsed();
        told.stages.truncate(1);
        (told.blockers, told.total) = (Vec::new(), shiplock_sim::rehearsal::Range::default());
        let picture = svg(&told, Language::En);
        assert!(picture.ends_with("</svg>\n") && !picture.contains("NaN"), "{picture}");
        told.stages.clear();
        assert!(svg(&told, Language::Zh).ends_with("</svg>\n"));
    }
}
