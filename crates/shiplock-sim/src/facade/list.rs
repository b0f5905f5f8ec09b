//! Lists in pages. Every page is of the version of the first, for as long as that is kept; after it a client is told how to go
//! on from the present, as upstream tells it.

use std::collections::VecDeque;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::status::Refusal;
use crate::world::World;

/// So many versions are kept for lists that have not been read to their end.
const VERSIONS_MAX: usize = 8;
/// The version of a token that goes on from the present.
const PRESENT: i64 = -1;

/// Worlds as they were when a list of them began. A clone shares with the world what did not change since.
#[derive(Default)]
pub(super) struct Versions(VecDeque<World>);

impl Versions {
    fn keep(&mut self, world: &World) {
        if self.0.iter().any(|kept| kept.version() == world.version()) {
            return;
        }
        if self.0.len() == VERSIONS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(world.clone());
    }

    /// The world of which a token goes on.
    fn find<'a>(&'a self, present: &'a World, token: &Token) -> Result<&'a World, Refusal> {
        if token.rv == PRESENT {
            return Ok(present);
        }
        let is_meant = |world: &World| i64::try_from(world.version()) == Ok(token.rv);
        let mut all = std::iter::once(present).chain(&self.0);
        all.find(|world| is_meant(world)).ok_or_else(|| {
            let start = token.start.clone();
            Refusal::continue_expired(Token { v: token.v.clone(), rv: PRESENT, start }.text())
        })
    }
}

/// Where a list goes on, in the form of upstream's tokens.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    /// The last object that was given out, `namespace/name`.
    start: String,
}

impl Token {
    const FORM: &'static str = "meta.k8s.io/v1";

    fn read(text: &str) -> Result<Self, Refusal> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let token = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        token
            .filter(|token| token.v == Self::FORM && token.rv >= PRESENT)
            .ok_or_else(|| Refusal::bad_request("continue key is not valid"))
    }

    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }
}

/// What is asked.
pub(super) struct Asked<'a> {
    /// The most objects of the page; 0 for all.
    pub(super) limit: u64,
    pub(super) token: Option<&'a str>,
    /// Whether what is left is counted, which upstream does without selectors only.
    pub(super) counts_rest: bool,
}

/// One page.
pub(super) struct Page {
    pub(super) objects: Vec<Value>,
    /// The list's metadata.
    pub(super) metadata: Value,
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// A page of what a world lists, in order of namespace and name.
pub(super) fn page(
    world: &World,
    versions: &mut Versions,
    asked: &Asked<'_>,
    list: impl FnOnce(&World) -> Vec<Value>,
) -> Result<Page, Refusal> {
    let token = asked.token.map(Token::read).transpose()?;
    let of = token.as_ref().map_or(Ok(world), |token| versions.find(world, token))?;
    let mut left = list(of);
    if let Some(token) = &token {
        left.retain(|object| key(object) > token.start);
    }
    let version = of.version();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    if limit > 0 && left.len() > limit {
        let rest = left.split_off(limit);
        let start = left.last().map(key).unwrap_or_default();
        let rv = i64::try_from(version).unwrap_or(PRESENT);
        metadata["continue"] = Token { v: Token::FORM.to_owned(), rv, start }.text().into();
        if asked.counts_rest {
            metadata["remainingItemCount"] = rest.len().into();
        }
        if version == world.version() {
            versions.keep(world);
        }
    }
    Ok(Page { objects: left, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Labels, Pace};

    fn world() -> World {
        World::new(7, jiff::Timestamp::UNIX_EPOCH.into(), Pace::default(), 100)
    }

    fn add(world: &mut World, name: &str) {
        world.add_service("shop", name, Some(Labels::default()), &[]).unwrap();
    }

    fn list(world: &World) -> Vec<Value> {
        let names = world.services().in_namespace("shop").map(|(_, service)| service.meta.name.to_string());
        names.map(|name| json!({"metadata": {"namespace": "shop", "name": name}})).collect()
    }

    fn asked(token: Option<&str>) -> Asked<'_> {
        Asked { limit: 1, token, counts_rest: true }
    }

    fn names(page: &Page) -> Vec<&str> {
        page.objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap()).collect()
    }

    #[test]
    fn every_page_is_of_the_version_of_the_first_whatever_changes_between_them() {
        let (mut world, mut versions) = (world(), Versions::default());
        ["a", "c", "e"].into_iter().for_each(|name| add(&mut world, name));
        let first = page(&world, &mut versions, &asked(None), list).unwrap();
        assert_eq!((names(&first), &first.metadata["remainingItemCount"]), (vec!["a"], &json!(2)));
        let version = first.metadata["resourceVersion"].clone();
        let mut token = first.metadata["continue"].as_str().map(str::to_owned);
        for (new, expected) in [("b", "c"), ("d", "e")] {
            add(&mut world, new);
            let next = page(&world, &mut versions, &asked(token.as_deref()), list).unwrap();
            assert_eq!((names(&next), &next.metadata["resourceVersion"]), (vec![expected], &version));
            token = next.metadata["continue"].as_str().map(str::to_owned);
        }
        assert_eq!(token, None);
    }

    #[test]
    fn a_list_that_is_forgotten_goes_on_from_the_present_where_the_client_wants_that() {
        let (mut world, mut versions) = (world(), Versions::default());
        ["a", "c"].into_iter().for_each(|name| add(&mut world, name));
        let first = page(&world, &mut versions, &asked(None), list).unwrap();
        let token = first.metadata["continue"].as_str();
        for number in 0..VERSIONS_MAX {
            add(&mut world, &format!("d{number}"));
            page(&world, &mut versions, &asked(None), list).unwrap();
        }
        let refused = page(&world, &mut versions, &asked(token), list).map(drop).unwrap_err();
        assert_eq!(refused.code, 410);
        let body = refused.body();
        let fresh = body["metadata"]["continue"].as_str();
        add(&mut world, "b");
        assert_eq!(names(&page(&world, &mut versions, &asked(fresh), list).unwrap()), ["b"]);
        assert_eq!(page(&world, &mut versions, &asked(Some("moon")), list).map(drop).unwrap_err().code, 400);
    }
}
