//! Kubernetes versions: `v1.36.3` and the minor `1.36`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A minor release such as `1.36`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MinorVersion {
    /// The first number, 1 for all of Kubernetes so far.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

/// A full version such as `v1.36.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesVersion {
    /// The release that the patch belongs to.
    pub release: MinorVersion,
    /// The third number.
    pub patch: u32,
}

/// The text is not a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAVersion(pub String);

impl fmt::Display for NotAVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a Kubernetes version such as 1.36 or v1.36.3", self.0)
    }
}
impl std::error::Error for NotAVersion {}

impl KubernetesVersion {
    /// Builds `v{major}.{minor}.{patch}`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { release: MinorVersion { major, minor }, patch }
    }

    /// Reads what a component reports, which may carry a vendor's suffix: `v1.30.1-aliyun.1`, `v1.33.4+k3s1`.
    pub fn parse_reported(text: &str) -> Result<Self, NotAVersion> {
        text.split(['-', '+']).next().unwrap_or_default().parse().map_err(|_| NotAVersion(text.to_owned()))
    }
}

impl MinorVersion {
    /// How many minors `self` is older than `newer`; 0 when it is not older.
    pub fn minors_behind(self, newer: Self) -> u32 {
        if self.major == newer.major { newer.minor.saturating_sub(self.minor) } else { 0 }
    }

    /// The next minor.
    #[must_use]
    pub fn next(self) -> Self {
        Self { major: self.major, minor: self.minor + 1 }
    }
}

fn number(text: &str) -> Option<u32> {
    // `+1` and ` 1` parse as numbers in Rust, and leading zeros are no version.
    let plain = !text.is_empty() && text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok()
}

impl FromStr for MinorVersion {
    type Err = NotAVersion;
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let (major, minor) =
            text.strip_prefix('v').unwrap_or(text).split_once('.').ok_or_else(|| NotAVersion(text.to_owned()))?;
        match (number(major), number(minor)) {
            (Some(major), Some(minor)) => Ok(Self { major, minor }),
            _ => Err(NotAVersion(text.to_owned())),
        }
    }
}

impl FromStr for KubernetesVersion {
    type Err = NotAVersion;
    fn from_str(text: &str) -> Result<Self, NotAVersion> {
        let (release, patch) = text.rsplit_once('.').ok_or_else(|| NotAVersion(text.to_owned()))?;
        match (release.parse(), number(patch)) {
            (Ok(release), Some(patch)) => Ok(Self { release, patch }),
            _ => Err(NotAVersion(text.to_owned())),
        }
    }
}

impl fmt::Display for MinorVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.release, self.patch)
    }
}

macro_rules! as_text {
    ($name:ident, $pattern:literal) => {
        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}
as_text!(MinorVersion, r"^v?[0-9]+\.[0-9]+$");
as_text!(KubernetesVersion, r"^v?[0-9]+\.[0-9]+\.[0-9]+$");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_v_and_everything_else_is_refused() {
        for (text, expected) in [("v1.36.3", Some((36, 3))), ("1.36.3", Some((36, 3))), ("v1.9.0", Some((9, 0)))] {
            assert_eq!(text.parse().ok(), expected.map(|(minor, patch)| KubernetesVersion::new(1, minor, patch)));
        }
        for text in
            ["", "1", "1.36", "v1.36.", "v1.36.3-rc.0", "vv1.36.3", "v1.036.3", "v1.+6.3", "v1.36.99999999", "１.36.3"]
        {
            assert!(text.parse::<KubernetesVersion>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_vendor_suffix_is_read_over_only_where_a_component_reports_it() {
        assert_eq!(KubernetesVersion::parse_reported("v1.30.1-aliyun.1"), Ok(KubernetesVersion::new(1, 30, 1)));
        assert_eq!(KubernetesVersion::parse_reported("v1.33.4+k3s1"), Ok(KubernetesVersion::new(1, 33, 4)));
        assert!(KubernetesVersion::parse_reported("unknown").is_err());
    }

    #[test]
    fn versions_order_by_number_and_not_by_text() {
        assert!(KubernetesVersion::new(1, 9, 0) < KubernetesVersion::new(1, 10, 0));
        assert!(KubernetesVersion::new(1, 36, 10) > KubernetesVersion::new(1, 36, 9));
    }
}
