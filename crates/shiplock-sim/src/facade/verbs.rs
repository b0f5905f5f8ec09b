//! The verbs: what is done with a collection, an object or a subresource. No I/O: a request in, an answer out.

use serde_json::{Value, json};

use super::fields;
use super::list::{self, Versions};
use super::objects;
use super::patch::{self, Applied, Form as PatchForm, Writer};
use super::path::{Query, Target};
use super::protobuf;
use super::resource::Resource;
use super::review;
use super::selector::Selectors;
use super::status::{Cause, Refusal};
use super::table::{Form, Include, Printer, partial};
use super::typed;
use super::watch::Watch;
use crate::world::World;

/// What subresources and deletions take.
const SCALE: Option<&str> = Some("autoscaling.v1.Scale");
const EVICTION: Option<&str> = Some("policy.v1.Eviction");
const DELETE_OPTIONS: Option<&str> = Some("meta.v1.DeleteOptions");

/// A request about objects.
pub(super) struct Asked<'a> {
    pub(super) method: &'a http::Method,
    pub(super) target: &'a Target,
    pub(super) query: &'a Query,
    pub(super) accept: &'a str,
    pub(super) content_type: &'a str,
    pub(super) user_agent: &'a str,
    pub(super) body: &'a [u8],
}

/// What a deletion asks for.
#[derive(Clone, Debug, Default)]
struct Deletion {
    uid: Option<String>,
    resource_version: Option<String>,
    grace_seconds: Option<u32>,
    is_dry_run: bool,
}

/// What comes of it.
pub(super) enum Answer {
    /// A document, with its code.
    Document(u16, Value),
    /// A stream of events.
    Watch(Box<Watch>),
}

impl Asked<'_> {
    /// Does what is asked; what is asked for as a dry run it does to a world that nobody sees.
    pub(super) fn carry_out(&self, world: &mut World, versions: &mut Versions) -> Result<Answer, Refusal> {
        match self.query.text("dryRun") {
            None => self.act(world, versions),
            Some("All") => self.act(&mut world.clone(), versions),
            Some(other) => Err(unsupported_dry_run(other)),
        }
    }

    fn act(&self, world: &mut World, versions: &mut Versions) -> Result<Answer, Refusal> {
        let Target { resource, name, subresource, .. } = self.target;
        let is_read = matches!(*self.method, http::Method::GET | http::Method::HEAD);
        match (self.method.as_str(), name.as_deref(), subresource.as_deref()) {
            ("POST", None, None) if resource.is_review => {
                Ok(Answer::Document(201, review::answer(resource, self.typed(self.message())?)))
            }
            _ if resource.is_review => Err(Refusal::method_not_allowed(self.target)),
            (_, None, None) if is_read && self.query.flag("watch") => Ok(Answer::Watch(Box::new(self.watch(world)?))),
            (_, None, None) if is_read => self.list(world, versions),
            (_, Some(name), None | Some("status")) if is_read => {
                Ok(Answer::Document(200, self.shown(world, self.existing(world, name)?)))
            }
            (_, Some(name), Some("scale")) if is_read => Ok(Answer::Document(200, scale(&self.existing(world, name)?))),
            ("POST", None, None) => self.create(world),
            ("POST", Some(name), Some("eviction")) => self.evict(world, name),
            ("PUT", Some(name), subresource @ (None | Some("status"))) => {
                let object = self.typed(self.message())?;
                self.replace(world, name, object, subresource.is_some())
            }
            ("PUT", Some(name), Some("scale")) => {
                let wanted = self.typed(SCALE)?;
                self.set_scale(world, name, &wanted)
            }
            ("PATCH", Some(name), Some("scale")) => {
                let object = scale(&self.existing(world, name)?);
                let mut patched = patch::patched(resource, &object, self.patch_form()?, &self.document()?)?;
                self.conform_patched(SCALE, &mut patched)?;
                self.set_scale(world, name, &patched)
            }
            ("PATCH", Some(name), subresource @ (None | Some("status"))) => {
                self.patch(world, name, subresource.is_some())
            }
            ("DELETE", Some(name), None) => self.delete(world, name),
            _ => Err(Refusal::method_not_allowed(self.target)),
        }
    }

    fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }

    fn existing(&self, world: &World, name: &str) -> Result<Value, Refusal> {
        let resource = self.target.resource;
        objects::get(world, resource, self.namespace(), name).ok_or_else(|| Refusal::not_found(resource, name))
    }

    /// The body; apply patches are YAML, of which JSON is a part.
    fn document(&self) -> Result<Value, Refusal> {
        if self.content_type.contains("cbor") {
            // Clients that send it try again in JSON.
            return Err(Refusal::unsupported_media_type());
        }
        if self.content_type.contains("protobuf") {
            let unreadable = || Refusal::bad_request("the object provided is unrecognized");
            return protobuf::object(self.body).ok_or_else(unreadable);
        }
        if self.content_type.contains("yaml") {
            let text = std::str::from_utf8(self.body).map_err(|error| Refusal::bad_request(error.to_string()))?;
            return serde_saphyr::from_str(text).map_err(|error| Refusal::bad_request(error.to_string()));
        }
        serde_json::from_slice(self.body)
            .map_err(|error| Refusal::bad_request(format!("the object provided is unrecognized: {error}")))
    }

    /// The name of the message of what is asked for; none where upstream has none.
    fn message(&self) -> Option<&'static str> {
        let resource = self.target.resource;
        fields::of_kind(&resource.api_version(), resource.kind)
    }

    /// Has an object be of a message. What it does not have is dropped, unless the client wants to be told of it.
    fn conform(&self, message: Option<&'static str>, object: &mut Value) -> Result<(), String> {
        let Some(message) = message else { return Ok(()) };
        let unknown = typed::conform(message, object)?;
        if unknown.is_empty() || self.query.text("fieldValidation") != Some("Strict") {
            return Ok(());
        }
        let unknown: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
        Err(format!("strict decoding error: {}", unknown.join(", ")))
    }

    /// The body as an object of a message.
    fn typed(&self, message: Option<&'static str>) -> Result<Value, Refusal> {
        let mut object = self.document()?;
        let resource = self.target.resource;
        self.conform(message, &mut object).map_err(|why| {
            let (kind, version) = (resource.kind, resource.version);
            Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
        })?;
        Ok(object)
    }

    /// Has an object that a patch made be of a message.
    fn conform_patched(&self, message: Option<&'static str>, object: &mut Value) -> Result<(), Refusal> {
        let refused = |why: String| {
            let name = self.target.name.as_deref().unwrap_or_default();
            Refusal::invalid(self.target.resource, name, vec![Cause::invalid("patch", format!("Invalid value: {why}"))])
        };
        self.conform(message, object).map_err(refused)
    }

    /// An object in the form that the client accepts.
    fn shown(&self, world: &World, object: Value) -> Value {
        match Form::of(self.accept) {
            Form::Plain => object,
            Form::Metadata => partial(&object),
            Form::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let printer = Printer::new(self.target.resource, Include::of(self.query.text("includeObject")));
                printer.table(&[object], metadata, true, world.now().timestamp())
            }
        }
    }

    fn selectors(&self) -> Result<Selectors, Refusal> {
        let (labels, fields) = (self.query.text("labelSelector"), self.query.text("fieldSelector"));
        Selectors::parse(self.target.resource.kind, labels, fields)
    }

    fn list(&self, world: &World, versions: &mut Versions) -> Result<Answer, Refusal> {
        let resource = self.target.resource;
        let selectors = self.selectors()?;
        self.check_version(world)?;
        let find = |world: &World| {
            let mut found = match selectors.field("spec.nodeName").filter(|node| !node.is_empty()) {
                Some(node) if resource.kind == "Pod" && self.target.namespace.is_none() => {
                    objects::pods_on(world, node)
                }
                _ => objects::list(world, resource, self.target.namespace.as_deref()),
            };
            found.retain(|object| selectors.matches(object));
            found
        };
        let asked = list::Asked {
            limit: self.query.number("limit")?,
            token: self.query.text("continue"),
            counts_rest: selectors.is_empty(),
        };
        let page = list::page(world, versions, &asked, find)?;
        let body = match Form::of(self.accept) {
            Form::Plain => json!({
                "kind": format!("{}List", resource.kind),
                "apiVersion": resource.api_version(),
                "metadata": page.metadata,
                "items": page.objects,
            }),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": page.metadata,
                "items": page.objects.iter().map(partial).collect::<Vec<_>>(),
            }),
            Form::Table => {
                let printer = Printer::new(resource, Include::of(self.query.text("includeObject")));
                printer.table(&page.objects, page.metadata, true, world.now().timestamp())
            }
        };
        Ok(Answer::Document(200, body))
    }

    /// A list of a version that was or that is to come cannot be given.
    fn check_version(&self, world: &World) -> Result<(), Refusal> {
        let (wanted, newest) = (self.query.number("resourceVersion")?, world.version());
        match self.query.text("resourceVersionMatch") {
            _ if wanted > newest => Err(Refusal::too_large_version(wanted, newest)),
            Some("Exact") if wanted != newest => Err(Refusal::expired(wanted, newest)),
            None | Some("Exact" | "NotOlderThan") => Ok(()),
            Some(other) => Err(Refusal::bad_request(format!("resourceVersionMatch: Unsupported value: {other:?}"))),
        }
    }

    fn watch(&self, world: &World) -> Result<Watch, Refusal> {
        let form = Form::of(self.accept);
        let printer = Printer::new(self.target.resource, Include::of(self.query.text("includeObject")));
        Watch::begin(
            world,
            self.target.resource,
            self.target.namespace.clone(),
            self.selectors()?,
            self.query,
            form,
            printer,
        )
    }

    fn create(&self, world: &mut World) -> Result<Answer, Refusal> {
        let mut object = self.typed(self.message())?;
        let resource = self.target.resource;
        self.check_kind(&object)?;
        self.put_namespace(&mut object)?;
        let metadata = &mut object["metadata"];
        let prefix = metadata["generateName"].as_str().unwrap_or_default().to_owned();
        if metadata["name"].as_str().is_none_or(str::is_empty) {
            if prefix.is_empty() {
                let why = "Required value: name or generateName is required";
                return Err(Refusal::invalid(
                    resource,
                    "",
                    vec![Cause::new("FieldValueRequired", "metadata.name", why)],
                ));
            }
            // Not random: the version makes it unlike any other, and the same in each run.
            metadata["name"] = format!("{prefix}{:05x}", world.version() + 1).into();
        }
        if metadata["resourceVersion"].as_str().is_some_and(|version| !version.is_empty()) {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let name = text(&object, "name");
        if objects::get(world, resource, self.namespace(), &name).is_some() {
            return Err(Refusal::already_exists(resource, &name));
        }
        self.check_namespace(world)?;
        self.book(world, None, &mut object);
        let made = objects::create(world, resource, object)?;
        Ok(Answer::Document(201, self.shown(world, made)))
    }

    /// Books who has set what, and when.
    fn book(&self, world: &World, before: Option<&Value>, after: &mut Value) {
        let time = time_text(world);
        // Clients that name no manager are known by the program that they say they are.
        let program = self.user_agent.split('/').next().filter(|name| !name.is_empty()).unwrap_or("unknown");
        let writer = Writer { manager: self.query.text("fieldManager").unwrap_or(program), time: &time };
        patch::book(before, after, writer);
    }

    fn check_kind(&self, object: &Value) -> Result<(), Refusal> {
        let resource = self.target.resource;
        let (kind, version) = (object["kind"].as_str(), object["apiVersion"].as_str());
        // The typed clients of Go leave both out.
        if kind.is_none_or(|kind| kind == resource.kind)
            && version.is_none_or(|version| version == resource.api_version())
        {
            return Ok(());
        }
        let (kind, version) = (kind.unwrap_or_default(), version.unwrap_or_default());
        Err(Refusal::bad_request(format!(
            "the API version in the data ({version}) or its kind ({kind}) does not match the expected ({} {})",
            resource.api_version(),
            resource.kind
        )))
    }

    fn put_namespace(&self, object: &mut Value) -> Result<(), Refusal> {
        if !object.is_object() {
            return Err(Refusal::bad_request("the object provided is unrecognized"));
        }
        object["apiVersion"] = self.target.resource.api_version().into();
        object["kind"] = self.target.resource.kind.into();
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        let Some(namespace) = &self.target.namespace else { return Ok(()) };
        match object["metadata"]["namespace"].as_str() {
            Some(given) if !given.is_empty() && given != namespace => Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            )),
            _ => {
                object["metadata"]["namespace"] = namespace.as_str().into();
                Ok(())
            }
        }
    }

    fn check_namespace(&self, world: &World) -> Result<(), Refusal> {
        let Some(namespace) = &self.target.namespace else { return Ok(()) };
        let namespaces = Resource::find("", "v1", "namespaces").ok_or_else(Refusal::no_such_path)?;
        objects::get(world, namespaces, "", namespace)
            .map(drop)
            .ok_or_else(|| Refusal::not_found(namespaces, namespace))
    }

    fn replace(&self, world: &mut World, name: &str, mut object: Value, is_status: bool) -> Result<Answer, Refusal> {
        let resource = self.target.resource;
        self.check_kind(&object)?;
        self.put_namespace(&mut object)?;
        if text(&object, "name") != name {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({}) does not match the name on the URL ({name})",
                text(&object, "name")
            )));
        }
        let found = self.existing(world, name)?;
        self.check_writer(&found, &object)?;
        self.book(world, Some(&found), &mut object);
        let kept = objects::replace(world, resource, object, is_status)?;
        Ok(Answer::Document(200, self.shown(world, kept)))
    }

    /// A writer that names a version or a UID must name those that are there.
    fn check_writer(&self, found: &Value, written: &Value) -> Result<(), Refusal> {
        let (resource, name) = (self.target.resource, text(found, "name"));
        let (version, uid) = (text(written, "resourceVersion"), text(written, "uid"));
        if !version.is_empty() && version != text(found, "resourceVersion") {
            return Err(Refusal::modified(resource, &name));
        }
        if !uid.is_empty() && uid != text(found, "uid") {
            return Err(Refusal::precondition(resource, &name, "UID", &uid, &text(found, "uid")));
        }
        Ok(())
    }

    fn patch_form(&self) -> Result<PatchForm, Refusal> {
        PatchForm::of(self.content_type).ok_or_else(Refusal::unsupported_media_type)
    }

    fn patch(&self, world: &mut World, name: &str, is_status: bool) -> Result<Answer, Refusal> {
        let resource = self.target.resource;
        let form = self.patch_form()?;
        let body = if form == PatchForm::Apply { self.typed(self.message())? } else { self.document()? };
        let found = objects::get(world, resource, self.namespace(), name);
        let mut next = if form == PatchForm::Apply {
            let manager = self.query.text("fieldManager").ok_or_else(|| {
                Refusal::bad_request("PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch")
            })?;
            let applied =
                Applied { manager, force: self.query.flag("force"), configuration: &body, time: &time_text(world) };
            patch::apply(found.as_ref(), &applied)?
        } else {
            let found = found.as_ref().ok_or_else(|| Refusal::not_found(resource, name))?;
            patch::patched(resource, found, form, &body)?
        };
        self.conform_patched(self.message(), &mut next)?;
        let Some(found) = found else {
            self.put_namespace(&mut next)?;
            next["metadata"]["name"] = name.into();
            self.check_namespace(world)?;
            let made = objects::create(world, resource, next)?;
            return Ok(Answer::Document(201, self.shown(world, made)));
        };
        self.check_writer(&found, &next)?;
        if next == found {
            return Ok(Answer::Document(200, self.shown(world, next)));
        }
        self.put_namespace(&mut next)?;
        if form != PatchForm::Apply {
            self.book(world, Some(&found), &mut next);
        }
        let kept = objects::replace(world, resource, next, is_status)?;
        Ok(Answer::Document(200, self.shown(world, kept)))
    }

    fn set_scale(&self, world: &mut World, name: &str, wanted: &Value) -> Result<Answer, Refusal> {
        let mut object = self.existing(world, name)?;
        self.check_writer(&object, wanted)?;
        let replicas = &wanted["spec"]["replicas"];
        object["spec"]["replicas"] = if replicas.is_null() { 0.into() } else { replicas.clone() };
        let kept = objects::replace(world, self.target.resource, object, false)?;
        Ok(Answer::Document(200, scale(&kept)))
    }

    /// What a deletion or an eviction asks for: its options, and the query.
    fn deletion(&self, options: &Value) -> Result<Deletion, Refusal> {
        let text = |pointer: &str| options.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        // Upstream takes one below 0 for 1.
        let grace = options["gracePeriodSeconds"].as_i64().map(|seconds| u64::try_from(seconds).unwrap_or(1));
        let of_query = self.query.text("gracePeriodSeconds").map(|_| self.query.number("gracePeriodSeconds"));
        let grace = grace.or(of_query.transpose()?);
        let dry_run = options["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).next();
        if let Some(other) = dry_run.filter(|word| *word != "All") {
            return Err(unsupported_dry_run(other));
        }
        let policy = options["propagationPolicy"].as_str().or(self.query.text("propagationPolicy"));
        if policy == Some("Orphan") || options["orphanDependents"] == true {
            let why = "what an object owns is always deleted with it in a simulated cluster".to_owned();
            let cause = Cause::new("FieldValueNotSupported", "propagationPolicy", why);
            return Err(Refusal::invalid_kind("DeleteOptions", "", vec![cause]));
        }
        Ok(Deletion {
            uid: text("/preconditions/uid"),
            resource_version: text("/preconditions/resourceVersion"),
            grace_seconds: grace.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            is_dry_run: dry_run.is_some(),
        })
    }

    fn check_preconditions(&self, found: &Value, deletion: &Deletion) -> Result<(), Refusal> {
        let name = text(found, "name");
        let wanted =
            [("UID", "uid", &deletion.uid), ("ResourceVersion", "resourceVersion", &deletion.resource_version)];
        for (what, field, wanted) in wanted {
            let there = text(found, field);
            if let Some(wanted) = wanted.as_ref().filter(|wanted| **wanted != there) {
                return Err(Refusal::precondition(self.target.resource, &name, what, wanted, &there));
            }
        }
        Ok(())
    }

    fn delete(&self, world: &mut World, name: &str) -> Result<Answer, Refusal> {
        let resource = self.target.resource;
        let options = if self.body.is_empty() { Value::Null } else { self.typed(DELETE_OPTIONS)? };
        let deletion = self.deletion(&options)?;
        let found = self.existing(world, name)?;
        self.check_preconditions(&found, &deletion)?;
        if deletion.is_dry_run {
            return Ok(Answer::Document(200, success(resource, &found)));
        }
        let left = objects::delete(world, resource, self.namespace(), name, deletion.grace_seconds)?;
        Ok(Answer::Document(200, left.unwrap_or_else(|| success(resource, &found))))
    }

    fn evict(&self, world: &mut World, name: &str) -> Result<Answer, Refusal> {
        let body = self.typed(EVICTION)?;
        if body["metadata"]["name"].as_str().is_some_and(|given| given != name) {
            return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
        }
        let deletion = self.deletion(&body["deleteOptions"])?;
        let found = self.existing(world, name)?;
        self.check_preconditions(&found, &deletion)?;
        let grace = deletion.grace_seconds;
        let evict = |world: &mut World| objects::evict(world, self.target.resource, self.namespace(), name, grace);
        if deletion.is_dry_run { evict(&mut world.clone()) } else { evict(world) }?;
        Ok(Answer::Document(201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})))
    }
}

fn unsupported_dry_run(word: &str) -> Refusal {
    let why = format!("Unsupported value: {word:?}: supported values: \"All\"");
    Refusal::invalid_kind("Options", "", vec![Cause::new("FieldValueNotSupported", "dryRun", why)])
}

fn time_text(world: &World) -> String {
    world.now().timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A text of an object's metadata, empty where there is none.
fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}

/// What is answered when an object is gone at once.
fn success(resource: &Resource, object: &Value) -> Value {
    let mut details = json!({"name": text(object, "name"), "kind": resource.plural, "uid": text(object, "uid")});
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The subresource `scale` of a workload.
fn scale(object: &Value) -> Value {
    let metadata = &object["metadata"];
    let labels = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let selector: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
            "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object["status"]["replicas"].as_u64().unwrap_or(0), "selector": selector.join(",")},
    })
}
