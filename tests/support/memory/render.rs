//! Answers in the form that was asked for: whole objects, their metadata, or rows for people.

use std::sync::Arc;

use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    BoxError, events,
    kinds::Kind,
    read::Listing,
    request::{Form, Request},
    store::Clock,
    table,
    watch::{BOOKMARK, ERROR, Event},
};

/// The API group of forms other than the object itself.
const META: &str = "meta.k8s.io/v1";

/// A line of a watch. As the real ones it begins with the type, so that who reads it knows what the object is for.
#[derive(Serialize)]
struct Line<'a> {
    r#type: &'a str,
    object: &'a Value,
}

/// Gives objects of one kind the form that a request asked for.
pub(super) struct Renderer {
    kind: &'static Kind,
    form: Form,
    /// Whether a row carries the whole object, and not its metadata alone.
    whole_rows: bool,
    /// The first table of a watch names the columns, the others do not.
    columns_sent: bool,
    clock: Clock,
}

impl Renderer {
    pub(super) fn new(request: &Request, clock: Clock) -> Self {
        let whole_rows = request.parameter("includeObject") == "Object";
        Self { kind: request.kind, form: request.form, whole_rows, columns_sent: false, clock }
    }

    /// The answer to whatever is about one object; a Status stays what it is.
    pub(super) fn object(&self, object: Arc<Value>) -> Arc<Value> {
        if object["kind"] == "Status" {
            return object;
        }
        match self.form {
            Form::Full => events::from_stored(self.kind, &object),
            Form::Metadata => Arc::new(metadata_of(&object)),
            Form::Table => Arc::new(self.table(&object["metadata"]["resourceVersion"], &[&object], true)),
        }
    }

    /// The answer to a list.
    pub(super) fn list(&self, listing: &Listing) -> Value {
        let list = |kind: &str, version: &str, items: Vec<Value>| {
            let mut list = json!({"kind": kind, "apiVersion": version, "metadata": listing.metadata});
            list["items"] = Value::Array(items);
            list
        };
        match self.form {
            Form::Full => {
                let item = |object: &Arc<Value>| {
                    let mut object = Arc::unwrap_or_clone(events::from_stored(self.kind, object));
                    if let Some(fields) = object.as_object_mut() {
                        fields.remove("kind");
                        fields.remove("apiVersion");
                    }
                    object
                };
                let name = format!("{}List", self.kind.name);
                list(&name, &self.kind.api_version(), listing.items.iter().map(item).collect())
            }
            Form::Metadata => {
                let items = listing.items.iter().map(|object| metadata_of(object)).collect();
                list("PartialObjectMetadataList", META, items)
            }
            Form::Table => {
                let objects: Vec<&Value> = listing.items.iter().map(|object| &**object).collect();
                let mut table = self.table(&Value::Null, &objects, true);
                table["metadata"] = listing.metadata.clone();
                table
            }
        }
    }

    /// An event of a watch as a line.
    pub(super) fn line(&mut self, (word, object): &Event) -> Result<Bytes, BoxError> {
        let shown = match (self.form, *word) {
            (_, ERROR) => object.clone(),
            (Form::Full, _) => events::from_stored(self.kind, object),
            (Form::Metadata, _) => Arc::new(metadata_of(object)),
            (Form::Table, word) => {
                let rows: &[&Value] = if word == BOOKMARK { &[] } else { &[object] };
                let table = self.table(&object["metadata"]["resourceVersion"], rows, !self.columns_sent);
                self.columns_sent = true;
                Arc::new(table)
            }
        };
        let mut line = serde_json::to_vec(&Line { r#type: word, object: &shown })?;
        line.push(b'\n');
        Ok(line.into())
    }

    fn table(&self, version: &Value, objects: &[&Value], with_columns: bool) -> Value {
        let now = (self.clock)();
        let row = |object: &&Value| {
            let carried = if self.whole_rows { (*object).clone() } else { metadata_of(object) };
            json!({"cells": table::cells(self.kind, object, now), "object": carried})
        };
        let rows: Vec<Value> = objects.iter().map(row).collect();
        let columns = if with_columns { table::columns(self.kind) } else { Value::Null };
        let metadata = if version.is_null() { json!({}) } else { json!({"resourceVersion": version}) };
        json!({"kind": "Table", "apiVersion": META, "metadata": metadata, "columnDefinitions": columns, "rows": rows})
    }
}

/// The object as of another resourceVersion.
pub(super) fn with_version(object: &Value, revision: u64) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = json!(revision.to_string());
    object
}

fn metadata_of(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": object["metadata"]})
}
