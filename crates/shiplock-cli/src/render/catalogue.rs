//! The versions of a catalogue.

use shiplock_api::rest::VersionView;

use super::Style;
use super::table::Table;

/// One line for each minor, newest first.
pub fn list(versions: &[VersionView], style: &Style) -> String {
    let mut table = Table::new([
        style.pick("VERSION", "版本"),
        style.pick("NEWEST", "最新补丁"),
        style.pick("RELEASED", "发布"),
        style.pick("SUPPORTED UNTIL", "支持至"),
        style.pick("UPGRADES TO", "可升级到"),
        "ETCD",
        "COREDNS",
        style.pick("FOR NEW CLUSTERS", "可用于新集群"),
    ]);
    for version in versions {
        let next: Vec<String> = version.upgrades_to.iter().map(ToString::to_string).collect();
        table.row([
            version.minor.to_string(),
            version.newest.to_string(),
            version.released.clone().unwrap_or_default(),
            version.end_of_support.clone().unwrap_or_default(),
            next.join(" "),
            version.etcd.clone(),
            version.coredns.clone(),
            if version.creatable { style.pick("yes", "是") } else { style.pick("no", "否") }.to_owned(),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use shiplock_core::language::Language;

    use crate::render::sample;

    #[test]
    fn the_newest_three_minors_are_for_new_clusters_and_older_ones_say_where_they_may_go() {
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let text = super::list(&sample::versions(), &sample::style(language));
            insta::assert_snapshot!(format!("catalogue_{name}"), text);
        }
    }
}
