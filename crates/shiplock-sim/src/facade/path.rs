//! What a request is about, read from its path and query.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::resource::Resource;
use super::status::Refusal;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `/version`.
    Version,
    /// `/healthz`, `/livez` or `/readyz`.
    Health(&'static str),
    /// `/metrics`.
    Metrics,
    /// `/api`.
    CoreVersions,
    /// `/apis`.
    Groups,
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1` or `/apis/GROUP/VERSION`.
    Resources { group: String, version: String },
    /// `/openapi/v3`.
    OpenApi,
    /// `/openapi/v3/api/v1` or `/openapi/v3/apis/GROUP/VERSION`.
    OpenApiOf { group: String, version: String },
    /// A collection, an object or a subresource.
    Objects(Target),
    /// A way to what runs in a pod or on a node, such as a log.
    NotSimulated(&'static Resource, String),
    /// Nothing that is served.
    Unknown,
}

/// A collection, an object or a subresource of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

/// Subresources of upstream that lead into what runs in pods and on nodes.
const NOT_SIMULATED: [(&str, &[&str]); 4] = [
    ("pods", &["attach", "binding", "ephemeralcontainers", "exec", "log", "portforward", "proxy", "resize"]),
    ("nodes", &["proxy"]),
    ("services", &["proxy"]),
    ("serviceaccounts", &["token"]),
];

impl Route {
    /// Reads a path.
    pub(super) fn parse(path: &str) -> Self {
        let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
        let segments: Vec<String> = path.split('/').filter(|segment| !segment.is_empty()).map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["version"] => Self::Version,
            ["healthz", ..] => Self::Health("healthz"),
            ["livez", ..] => Self::Health("livez"),
            ["readyz", ..] => Self::Health("readyz"),
            ["metrics"] => Self::Metrics,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["apis", group] => Self::Group((*group).to_owned()),
            ["api", "v1"] => Self::Resources { group: String::new(), version: "v1".to_owned() },
            ["apis", group, version] => Self::Resources { group: (*group).to_owned(), version: (*version).to_owned() },
            ["openapi", "v3"] => Self::OpenApi,
            ["openapi", "v3", "api", "v1"] => Self::OpenApiOf { group: String::new(), version: "v1".to_owned() },
            ["openapi", "v3", "apis", group, version] => {
                Self::OpenApiOf { group: (*group).to_owned(), version: (*version).to_owned() }
            }
            ["api", "v1", rest @ ..] => Self::objects("", "v1", rest),
            ["apis", group, version, rest @ ..] => Self::objects(group, version, rest),
            _ => Self::Unknown,
        }
    }

    fn objects(group: &str, version: &str, rest: &[&str]) -> Self {
        // Namespaces are objects themselves: two words are the object, three a subresource or a collection within.
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !matches!(rest, [] | ["status" | "finalize"]) => {
                (Some((*namespace).to_owned()), rest)
            }
            _ => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(*name), None),
            [plural, name, subresource] => (plural, Some(*name), Some(*subresource)),
            // What comes behind a proxy is for what it leads to.
            [plural, name, "proxy", ..] => (plural, Some(*name), Some("proxy")),
            _ => return Self::Unknown,
        };
        let Some(resource) = Resource::find(group, version, plural) else { return Self::Unknown };
        // An object within a namespace is only reached through it; a cluster's object never is.
        if (namespace.is_some() && !resource.namespaced)
            || (resource.namespaced && name.is_some() && namespace.is_none())
        {
            return Self::Unknown;
        }
        if let Some(subresource) = subresource.filter(|one| !resource.subresources.contains(one)) {
            let leads_in = |(of, all): &(&str, &[&str])| *of == resource.plural && all.contains(&subresource);
            let is_known = resource.group.is_empty() && NOT_SIMULATED.iter().any(leads_in);
            return if is_known { Self::NotSimulated(resource, subresource.to_owned()) } else { Self::Unknown };
        }
        let owned = |word: Option<&str>| word.map(str::to_owned);
        Self::Objects(Target { resource, namespace, name: owned(name), subresource: owned(subresource) })
    }
}

/// The parameters behind the question mark; of one that is given twice the first counts.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let mut all = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned() {
            all.entry(name).or_insert(value);
        }
        Self(all)
    }

    /// A parameter; one that is empty counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    /// A whole number, 0 where there is none; one below 0 counts as 0.
    pub(super) fn number(&self, name: &str) -> Result<u64, Refusal> {
        let Some(text) = self.text(name) else { return Ok(0) };
        let number: i64 = text
            .parse()
            .map_err(|_| Refusal::bad_request(format!("{name}: strconv.ParseInt: parsing {text:?}: invalid syntax")))?;
        Ok(u64::try_from(number).unwrap_or(0))
    }

    /// Whether something is asked for: only what is absent, `0` and `false` is a no.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|text| text != "0" && !text.eq_ignore_ascii_case("false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_collections_objects_and_subresources_as_an_api_server_reads_them() {
        let target =
            |group: &str, plural: &str, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>| {
                let owned = |word: Option<&str>| word.map(str::to_owned);
                Route::Objects(Target {
                    resource: Resource::find(group, "v1", plural).unwrap(),
                    namespace: owned(namespace),
                    name: owned(name),
                    subresource: owned(subresource),
                })
            };
        let resources = |group: &str, version: &str| Route::Resources { group: group.into(), version: version.into() };
        for (path, expected) in [
            ("/version", Route::Version),
            ("/readyz/etcd", Route::Health("readyz")),
            ("/metrics", Route::Metrics),
            ("/api", Route::CoreVersions),
            ("/apis/", Route::Groups),
            ("/apis/apps", Route::Group("apps".into())),
            ("/api/v1", resources("", "v1")),
            ("/apis/apps/v1", resources("apps", "v1")),
            ("/openapi/v3", Route::OpenApi),
            ("/openapi/v3/apis/apps/v1", Route::OpenApiOf { group: "apps".into(), version: "v1".into() }),
            ("/api/v1/nodes", target("", "nodes", None, None, None)),
            ("/api/v1/nodes/w%2D1", target("", "nodes", None, Some("w-1"), None)),
            ("/api/v1/pods", target("", "pods", None, None, None)),
            ("/api/v1/namespaces", target("", "namespaces", None, None, None)),
            ("/api/v1/namespaces/shop", target("", "namespaces", None, Some("shop"), None)),
            ("/api/v1/namespaces/shop/status", target("", "namespaces", None, Some("shop"), Some("status"))),
            ("/api/v1/namespaces/shop/pods", target("", "pods", Some("shop"), None, None)),
            ("/api/v1/namespaces/shop/pods/a/eviction", target("", "pods", Some("shop"), Some("a"), Some("eviction"))),
            ("/apis/apps/v1/deployments", target("apps", "deployments", None, None, None)),
            (
                "/apis/apps/v1/namespaces/shop/deployments/web",
                target("apps", "deployments", Some("shop"), Some("web"), None),
            ),
            (
                "/api/v1/namespaces/shop/pods/a/log",
                Route::NotSimulated(Resource::find("", "v1", "pods").unwrap(), "log".into()),
            ),
            (
                "/api/v1/nodes/a/proxy/stats/summary",
                Route::NotSimulated(Resource::find("", "v1", "nodes").unwrap(), "proxy".into()),
            ),
            ("/api/v1/namespaces/shop/pods/a/moon", Route::Unknown),
            ("/api/v1/pods/a", Route::Unknown),
            ("/api/v1/namespaces/shop/nodes", Route::Unknown),
            ("/api/v1/nodes/a/eviction", Route::Unknown),
            ("/api/v1/moons", Route::Unknown),
            ("/apis/apps/v2/deployments", Route::Unknown),
            ("/", Route::Unknown),
        ] {
            assert_eq!(Route::parse(path), expected, "{path}");
        }
    }

    #[test]
    fn a_query_is_read_as_upstream_reads_it() {
        let query =
            Query::parse(Some("watch=1&limit=5&limit=7&fieldSelector=spec.nodeName%3Dw-1&continue=&moon=many&less=-1"));
        assert!(query.flag("watch") && query.flag("continue") && !query.flag("absent"));
        assert!(!Query::parse(Some("watch=0")).flag("watch") && !Query::parse(Some("watch=False")).flag("watch"));
        assert_eq!(
            (query.number("limit").unwrap(), query.number("less").unwrap(), query.number("no").unwrap()),
            (5, 0, 0)
        );
        assert_eq!(query.number("moon").unwrap_err().code, 400);
        assert_eq!(query.text("fieldSelector"), Some("spec.nodeName=w-1"));
        assert_eq!(query.text("continue"), None);
    }
}
