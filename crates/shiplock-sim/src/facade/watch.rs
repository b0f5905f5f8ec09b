//! Watches: what has changed since a version, as a client that selects and wants a certain form sees it.
//!
//! A watch is a value without I/O: it is asked for the next lines whenever the world has changed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::objects;
use super::path::Query;
use super::resource::Resource;
use super::selector::Selectors;
use super::status::Refusal;
use super::table::{Form, Printer, partial};
use crate::world::{ChangeKind, World};

/// A watch without a bound of its own ends after this; upstream takes 30 to 60 minutes.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// One watch.
pub(super) struct Watch {
    resource: &'static Resource,
    namespace: Option<String>,
    selectors: Selectors,
    form: Form,
    printer: Printer,
    /// What has been told of up to this version.
    version: u64,
    /// The keys of the objects that the client knows.
    known: BTreeSet<(String, String)>,
    /// Events that come before those of changes.
    initial: Vec<Value>,
    told_columns: bool,
    /// Nothing can be told any more: the last event was an error.
    pub(super) is_broken: bool,
    pub(super) wants_bookmarks: bool,
    pub(super) timeout: Duration,
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

impl Watch {
    /// Begins a watch as its query asks.
    pub(super) fn begin(
        world: &World,
        resource: &'static Resource,
        namespace: Option<String>,
        selectors: Selectors,
        query: &Query,
        form: Form,
        printer: Printer,
    ) -> Result<Self, Refusal> {
        let asked = match query.text("resourceVersion") {
            None | Some("0") => None,
            Some(text) => {
                let version: u64 =
                    text.parse().map_err(|_| Refusal::bad_request(format!("Invalid value: \"{text}\"")))?;
                Some(version)
            }
        };
        let sends_initial = query.flag("sendInitialEvents");
        let begins_at = asked.filter(|_| !sends_initial);
        let begun = match begins_at {
            Some(version) => {
                objects::changes(world, resource, version).map_err(|_| Refusal::expired(version, world.version()))?
            }
            None => Vec::new(),
        };
        let mut watch = Self {
            resource,
            namespace,
            selectors,
            form,
            printer,
            version: begins_at.unwrap_or_else(|| world.version()),
            known: BTreeSet::new(),
            initial: Vec::new(),
            told_columns: false,
            is_broken: false,
            wants_bookmarks: query.flag("allowWatchBookmarks"),
            timeout: match query.number("timeoutSeconds")? {
                0 => TIMEOUT_DEFAULT,
                seconds => Duration::from_secs(seconds),
            },
        };
        let mut objects = objects::list(world, resource, watch.namespace.as_deref());
        objects.retain(|object| watch.selectors.matches(object));
        if begins_at.is_none() {
            for object in objects {
                watch.known.insert(key(&object));
                let event = watch.event(world, "ADDED", object);
                watch.initial.push(event);
            }
            if sends_initial && watch.wants_bookmarks {
                let annotations = json!({"k8s.io/initial-events-end": "true"});
                let event = watch.bookmark(world, annotations);
                watch.initial.push(event);
            }
        } else {
            // What the client listed: what is there but has not come since, and what was changed or is gone since.
            let mut since = BTreeSet::new();
            for change in &begun {
                let key = key(&change.object);
                if since.insert(key.clone()) && change.kind != ChangeKind::Added {
                    watch.known.insert(key);
                }
            }
            watch.known.extend(objects.iter().map(key).filter(|key| !since.contains(key)));
        }
        Ok(watch)
    }

    /// The events that the client has not seen, as lines; an error event and nothing more where some are forgotten.
    pub(super) fn next(&mut self, world: &World) -> Vec<Value> {
        let mut events = std::mem::take(&mut self.initial);
        let Ok(changes) = objects::changes(world, self.resource, self.version) else {
            self.is_broken = true;
            let refusal = Refusal::expired(self.version, world.version());
            events.push(json!({"type": "ERROR", "object": refusal.body()}));
            return events;
        };
        for change in changes {
            let key = key(&change.object);
            if self.namespace.as_ref().is_some_and(|namespace| *namespace != key.0) {
                continue;
            }
            let is_there = change.kind != ChangeKind::Deleted && self.selectors.matches(&change.object);
            let was_known = self.known.contains(&key);
            let kind = match (was_known, is_there) {
                (false, false) => continue,
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
            };
            if is_there {
                self.known.insert(key);
            } else {
                self.known.remove(&key);
            }
            let event = self.event(world, kind, change.object);
            events.push(event);
        }
        self.version = world.version();
        events
    }

    fn event(&mut self, world: &World, kind: &str, object: Value) -> Value {
        let object = match self.form {
            Form::Plain => object,
            Form::Metadata => partial(&object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let with_columns = !std::mem::replace(&mut self.told_columns, true);
                self.printer.table(&[object], metadata, with_columns, world.now().timestamp())
            }
        };
        json!({"type": kind, "object": object})
    }

    /// Tells how far the watch is.
    pub(super) fn bookmark(&mut self, world: &World, annotations: Value) -> Value {
        let mut metadata = json!({"resourceVersion": self.version.to_string(), "creationTimestamp": null});
        if annotations.is_object() {
            metadata["annotations"] = annotations;
        }
        let object =
            json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
        self.event(world, "BOOKMARK", object)
    }
}
