//! Tables: the form of answers that kubectl prints, made by the server as upstream's printers make them
//! (`pkg/printers/internalversion/printers.go`).

mod cells;
mod duration;

use serde_json::{Value, json};

use self::cells::Column;
use super::resource::Resource;

/// How much of each object comes with its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Whole,
}

/// Which form of an answer a client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The objects themselves.
    Plain,
    /// A table of them.
    Table,
    /// Their metadata alone.
    Metadata,
}

impl Form {
    /// The first form that a client names and that is served.
    pub(super) fn of(accept: &str) -> Self {
        for form in accept.split(',') {
            let has = |wanted: &str| form.split(';').any(|parameter| parameter.trim() == wanted);
            if !has("g=meta.k8s.io") && form.contains("application/json") {
                return Self::Plain;
            }
            if has("v=v1") && has("as=Table") {
                return Self::Table;
            }
            if has("v=v1") && (has("as=PartialObjectMetadataList") || has("as=PartialObjectMetadata")) {
                return Self::Metadata;
            }
        }
        Self::Plain
    }
}

impl Include {
    /// As the query asks.
    pub(super) fn of(text: Option<&str>) -> Self {
        match text {
            Some("None") => Self::Nothing,
            Some("Object") => Self::Whole,
            _ => Self::Metadata,
        }
    }
}

/// A table's head and rows. `now_seconds` is the cluster's clock, from which ages are told.
pub(super) struct Printer {
    resource: &'static Resource,
    columns: Vec<Column>,
    include: Include,
}

impl Printer {
    pub(super) fn new(resource: &'static Resource, include: Include) -> Self {
        Self { resource, columns: cells::columns(resource.kind), include }
    }

    /// A table of objects. A watch tells the columns with its first event only.
    pub(super) fn table(&self, objects: &[Value], metadata: Value, with_columns: bool, now: jiff::Timestamp) -> Value {
        let column = |column: &Column| {
            json!({
                "name": column.name,
                "type": column.form,
                "format": if column.name == "Name" { "name" } else { "" },
                "description": "",
                "priority": column.priority,
            })
        };
        let rows: Vec<Value> = objects.iter().map(|object| self.row(object, now)).collect();
        let definitions: Value = if with_columns { self.columns.iter().map(column).collect() } else { Value::Null };
        json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": definitions,
            "rows": rows,
        })
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Value {
        let cells: Vec<Value> = self.columns.iter().map(|column| (column.cell)(object, now)).collect();
        let included = match self.include {
            Include::Nothing => Value::Null,
            Include::Metadata => partial(object),
            Include::Whole => object.clone(),
        };
        let mut row = json!({"cells": cells, "object": included});
        if self.resource.kind == "Pod"
            && let Some(reason) = cells::end_of_pod(object)
        {
            row["conditions"] = json!([{"type": "Completed", "status": "True", "reason": reason,
                "message": format!("The pod has {}.", if reason == "Succeeded" { "completed successfully" } else { "failed" })}]);
        }
        row
    }
}

/// The metadata of an object alone.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

#[cfg(test)]
mod tests;
