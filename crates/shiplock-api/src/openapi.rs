//! The OpenAPI document of REST v1, made from [`Operation`] and the wire types and from nothing else.
//!
//! `cargo xtask codegen` writes it to `openapi/v1.json`; a test here fails when the file is another one.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use shiplock_core::join::JoinInstructions;
use shiplock_core::plan::Plan;
use shiplock_core::upgrade::EventRecord;

use crate::check::{AcceptanceCreate, AcceptanceView, CheckCreate, CheckReportRow, CheckReportView};
use crate::operation::{Operation, ROOT};
use crate::rest::{
    AgentView, BackupView, CancelRequest, ClusterAdd, ClusterChange, ClusterView, EventPage, JoinToken, Page,
    PlanCreate, ProblemBody, RollbackCreate, ServerView, UpgradeChange, UpgradeCreate, UpgradeView, VersionView,
};

/// Where components lie in the document, as a JSON pointer.
const COMPONENTS: &str = "/components/schemas";

/// Makes the document.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths = Map::new();
    for operation in Operation::ALL.iter().copied() {
        let path = paths.entry(format!("{ROOT}{}", operation.path())).or_insert_with(|| json!({}));
        path[operation.method().word().to_ascii_lowercase()] = schemas.operation(operation);
    }
    let problem = schemas.answer::<ProblemBody>();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Shiplock",
            "summary": "Upgrades of Kubernetes clusters.",
            "description": "Types change only by addition: a reader must bear fields, kinds and codes that it does \
                not know. Every error has the same body.",
            "version": "v1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Over the network; the local socket needs none, its owner is known.",
                },
            },
            "responses": {
                "Problem": { "description": "What went wrong, and what to do.", "content": { "application/json": { "schema": problem } } },
            },
            "schemas": schemas.components(),
        },
    })
}

/// The document as the file holds it.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("a value of JSON serialises");
    text.push('\n');
    text
}

/// Gathers the schemas of both ways. What a server answers has every field; of what it is asked, some may be left out.
struct Schemas {
    answers: SchemaGenerator,
    requests: SchemaGenerator,
    /// The schemas of bodies of requests by name.
    bodies: Map<String, Value>,
}

impl Schemas {
    fn new() -> Self {
        let settings = || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = COMPONENTS.into());
        let whole = |settings: &mut SchemaSettings| settings.inline_subschemas = true;
        Self {
            answers: settings().for_serialize().into_generator(),
            requests: settings().for_deserialize().with(whole).into_generator(),
            bodies: Map::new(),
        }
    }

    fn answer<T: JsonSchema>(&mut self) -> Value {
        self.answers.subschema_for::<T>().to_value()
    }

    fn components(mut self) -> Value {
        let mut components = self.answers.take_definitions(true);
        for (name, body) in self.bodies {
            let before = components.insert(name.clone(), body);
            assert!(before.is_none(), "{name} is both asked and answered: its two forms need two names");
        }
        Value::Object(components)
    }

    fn body<T: JsonSchema>(&mut self) -> Value {
        let name = T::schema_name().into_owned();
        let mut schema = self.requests.root_schema_for::<T>().to_value();
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("$schema");
            schema.remove("title");
        }
        let reference = format!("#{COMPONENTS}/{name}");
        self.bodies.insert(name, schema);
        json!({ "required": true, "content": { "application/json": { "schema": { "$ref": reference } } } })
    }

    fn operation(&mut self, operation: Operation) -> Value {
        let body = match operation {
            Operation::AddCluster => Some(self.body::<ClusterAdd>()),
            Operation::ChangeCluster => Some(self.body::<ClusterChange>()),
            Operation::RunChecks => Some(self.body::<CheckCreate>()),
            Operation::AddAcceptance => Some(self.body::<AcceptanceCreate>()),
            Operation::MakePlan => Some(self.body::<PlanCreate>()),
            Operation::CreateUpgrade => Some(self.body::<UpgradeCreate>()),
            Operation::ChangeUpgrade => Some(self.body::<UpgradeChange>()),
            Operation::CancelUpgrade => Some(self.body::<CancelRequest>()),
            Operation::RollBackUpgrade => Some(self.body::<RollbackCreate>()),
            _ => None,
        };
        let mut described = json!({
            "operationId": operation.id(),
            "summary": operation.summary(),
            "parameters": parameters(operation),
            "responses": self.responses(operation),
        });
        if let Some(body) = body {
            described["requestBody"] = body;
        }
        described
    }

    fn responses(&mut self, operation: Operation) -> Value {
        let good = |what: &str, schema: Value| json!({ "description": what, "content": { "application/json": { "schema": schema } } });
        // Generated clients get one shape for an upgrade, whatever was done to it.
        let upgrade = |schema: Value| {
            let mut response = good("The upgrade.", schema);
            response["headers"]["ETag"] =
                json!({ "schema": { "type": "string" }, "description": "The number of events, for If-Match." });
            response
        };
        let mut responses = match operation {
            Operation::ShowServer => json!({ "200": good("The server.", self.answer::<ServerView>()) }),
            Operation::ListVersions => json!({ "200": good("All minors.", self.answer::<Page<VersionView>>()) }),
            Operation::ListClusters => json!({ "200": good("All clusters.", self.answer::<Page<ClusterView>>()) }),
            Operation::AddCluster => json!({ "201": good("It is registered.", self.answer::<ClusterView>()) }),
            Operation::ShowCluster => json!({ "200": good("The cluster.", self.answer::<ClusterView>()) }),
            Operation::ChangeCluster => json!({ "200": good("The cluster.", self.answer::<ClusterView>()) }),
            Operation::RemoveCluster => json!({ "204": { "description": "It is forgotten." } }),
            Operation::ListAgents => json!({ "200": good("All agents.", self.answer::<Page<AgentView>>()) }),
            Operation::RemoveAgent => json!({ "204": { "description": "It is forgotten." } }),
            Operation::MakeJoinToken => json!({ "201": good("The token, shown once.", self.answer::<JoinToken>()) }),
            Operation::ShowJoinInstructions => {
                json!({ "200": good("What a new node needs.", self.answer::<JoinInstructions>()) })
            }
            Operation::RunChecks => json!({ "201": good("The report.", self.answer::<CheckReportView>()) }),
            Operation::ListReports => json!({ "200": good("The reports.", self.answer::<Page<CheckReportRow>>()) }),
            Operation::ShowReport => json!({ "200": good("The report.", self.answer::<CheckReportView>()) }),
            Operation::AddAcceptance => json!({ "201": good("It is kept.", self.answer::<AcceptanceView>()) }),
            Operation::ListAcceptances => json!({ "200": good("All of them.", self.answer::<Page<AcceptanceView>>()) }),
            Operation::RemoveAcceptance => json!({ "204": { "description": "It is taken back." } }),
            Operation::ListBackups => json!({ "200": good("The backups.", self.answer::<Page<BackupView>>()) }),
            Operation::ShowBackup => json!({ "200": good("The backup.", self.answer::<BackupView>()) }),
            Operation::VerifyBackup => json!({ "200": good("It is whole.", self.answer::<BackupView>()) }),
            Operation::ReadBackup => json!({ "200": {
                "description": "The snapshot. Compare it with the SHA-256 of the backup.",
                "content": { "application/octet-stream": {} },
            } }),
            Operation::MakePlan | Operation::RollBackUpgrade => json!({
                "200": good("The plan, not kept (dry_run).", self.answer::<Plan>()),
                "201": good("The plan, kept.", self.answer::<Plan>()),
            }),
            Operation::ShowPlan => json!({ "200": good("The plan.", self.answer::<Plan>()) }),
            Operation::ListUpgrades => json!({ "200": good("A page.", self.answer::<Page<UpgradeView>>()) }),
            Operation::CreateUpgrade => json!({
                "200": upgrade(self.answer::<UpgradeView>()),
                "201": upgrade(self.answer::<UpgradeView>()),
            }),
            Operation::ShowUpgrade
            | Operation::ChangeUpgrade
            | Operation::PauseUpgrade
            | Operation::ContinueUpgrade
            | Operation::CancelUpgrade => json!({ "200": upgrade(self.answer::<UpgradeView>()) }),
            Operation::ListUpgradeEvents | Operation::ListEvents => {
                let event = self.answer::<EventRecord>();
                let mut page =
                    good("A page; or a stream, each of whose messages holds one event.", self.answer::<EventPage>());
                page["content"]["text/event-stream"] = json!({ "schema": { "type": "string" }, "itemSchema": event });
                json!({ "200": page, "204": { "description": "A stream was asked for; the upgrade has ended and nothing follows." } })
            }
        };
        responses["default"] = json!({ "$ref": "#/components/responses/Problem" });
        responses
    }
}

fn parameters(operation: Operation) -> Vec<Value> {
    let parameter = |place: &str, name: &str, kind: Value, what: &str| json!({ "name": name, "in": place, "required": place == "path", "schema": kind, "description": what });
    let text = || json!({ "type": "string" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    let path = operation.path().split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = path
        .map(|name| parameter("path", name, text(), if name == "name" { "The cluster's name." } else { "The id." }))
        .collect();
    match operation {
        Operation::ListUpgrades => parameters.extend([
            parameter("query", "cluster", text(), "Only those of this cluster."),
            parameter("query", "active", json!({ "type": "boolean" }), "Only those in work, or only those that ended."),
            parameter("query", "after", text(), "`next` of the page before."),
            parameter("query", "limit", count(), "The most rows."),
        ]),
        Operation::ShowJoinInstructions => {
            parameters.push(parameter("query", "architecture", text(), "The new node's; without it amd64."));
        }
        Operation::ShowReport => {
            parameters.push(parameter("query", "with", text(), "Another report to compare with."));
        }
        Operation::ListBackups => {
            parameters.push(parameter("query", "cluster", text(), "Only those of this cluster."));
        }
        Operation::CreateUpgrade => {
            parameters.push(parameter("header", "Idempotency-Key", text(), "Makes a repeat harmless."));
        }
        Operation::ChangeUpgrade | Operation::PauseUpgrade | Operation::ContinueUpgrade | Operation::CancelUpgrade => {
            parameters.push(parameter("header", "If-Match", text(), "The ETag that was looked at."));
        }
        Operation::ListUpgradeEvents | Operation::ListEvents => parameters.extend([
            parameter("query", "after", count(), "The id of the newest event that the reader has."),
            parameter("query", "limit", count(), "The most rows of a page."),
            parameter("header", "Last-Event-ID", text(), "In place of `after`, for streams."),
        ]),
        _ => {}
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_document_of_these_types() {
        let file = include_str!("../../../openapi/v1.json");
        assert!(file == text(), "openapi/v1.json is not what the types say: run `cargo xtask codegen`");
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere_and_every_id_is_unique() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{} references", found.len());
        for reference in found {
            let place = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(place).is_some(), "{reference} leads nowhere");
        }
        let ids: std::collections::BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.id()).collect();
        assert_eq!(ids.len(), Operation::ALL.len());
    }
}
