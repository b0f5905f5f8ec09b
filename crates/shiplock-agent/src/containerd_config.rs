//! containerd's configuration file: which form it has, and which pause image it pins.
//!
//! It is edited as TOML, so that comments and everything else stay as they are.

use toml_edit::{DocumentMut, Item, TableLike, TomlError, value};

/// The newest form; older ones are migrated by the new containerd itself.
const CURRENT_FORM: i64 = 3;
/// Where each form keeps the pause image.
const PLACES: &[&[&str]] = &[
    &["plugins", "io.containerd.cri.v1.images", "pinned_images", "sandbox"],
    &["plugins", "io.containerd.grpc.v1.cri", "sandbox_image"],
];
/// Registries of the upstream pause image; another one is the operator's choice and stays.
const UPSTREAM: &[&str] = &["registry.k8s.io/pause:", "k8s.gcr.io/pause:"];

/// Whether the file has the newest form already.
pub fn is_current(text: &str) -> bool {
    let document = text.parse::<DocumentMut>().ok();
    document.is_some_and(|document| document.get("version").and_then(Item::as_integer) >= Some(CURRENT_FORM))
}

/// Names this pause image where an upstream one is named.
pub fn pin_sandbox(text: &str, image: &str) -> Result<String, TomlError> {
    let mut document: DocumentMut = text.parse()?;
    for place in PLACES {
        if let Some(item) = find(document.as_table_mut(), place)
            && item.as_str().is_some_and(|old| UPSTREAM.iter().any(|registry| old.starts_with(registry)))
        {
            let decor = item.as_value().map(|old| old.decor().clone());
            *item = value(image);
            if let (Some(new), Some(decor)) = (item.as_value_mut(), decor) {
                *new.decor_mut() = decor;
            }
        }
    }
    Ok(document.to_string())
}

fn find<'a>(table: &'a mut dyn TableLike, path: &[&str]) -> Option<&'a mut Item> {
    let (first, rest) = path.split_first()?;
    let item = table.get_mut(first)?;
    if rest.is_empty() { Some(item) } else { find(item.as_table_like_mut()?, rest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "registry.k8s.io/pause:3.10.2";

    #[test]
    fn an_upstream_pause_image_is_replaced_and_comments_and_everything_else_stay() {
        let old = r#"version = 3
# ours
[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = 'overlayfs' # fast
    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = "registry.k8s.io/pause:3.9" # pinned
  [plugins.'io.containerd.cri.v1.runtime']
    restrict_oom_score_adj = true
"#;
        assert_eq!(pin_sandbox(old, NEW).unwrap(), old.replace("registry.k8s.io/pause:3.9", NEW));
    }

    #[test]
    fn an_own_pause_image_and_a_file_without_one_stay_as_they_are() {
        for text in [
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"mirror.example/pause:3.9\"\n",
            "version = 3\n",
            "",
            "plugins = 1\n",
            "[plugins]\n'io.containerd.cri.v1.images' = 3\n",
        ] {
            assert_eq!(pin_sandbox(text, NEW).unwrap(), text);
        }
        assert!(pin_sandbox("= 3", NEW).is_err());
    }

    #[test]
    fn the_form_is_the_number_in_the_file() {
        for (text, current) in
            [("version = 3", true), ("version = 2", false), ("", false), ("version = '3'", false), ("= ", false)]
        {
            assert_eq!(is_current(text), current, "{text}");
        }
    }
}
