//! Event of the core group.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{integer, text};
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::since;
use crate::registry::strategy::{Column, Kind, Strategy};

struct Event;

/// The row of the table.
pub(super) fn kind() -> Kind {
    Kind::namespaced(GroupVersionKind::of("", "v1", "Event"), "events", &Event).short_names(&["ev"])
}

const COLUMNS: &[Column] = &[
    Column::new("Last Seen", "string", "When the event was last seen."),
    Column::new("Type", "string", "Normal or Warning."),
    Column::new("Reason", "string", "Why, in one word."),
    Column::new("Object", "string", "What the event is about."),
    Column::wide(
        "Subobject",
        "string",
        "The part of the object the event is about.",
    ),
    Column::wide("Source", "string", "Who reports the event."),
    Column::new("Message", "string", "What happened."),
    Column::wide("First Seen", "string", "When the event was first seen."),
    Column::wide("Count", "integer", "How often the event was seen."),
    Column::wide("Name", "string", "The event's own name."),
];

impl Strategy for Event {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let about = text(object, "/involvedObject/namespace");
        let namespace = meta::namespace(object);
        if about == namespace || (about.is_empty() && namespace == "default") {
            return Vec::new();
        }
        let detail = "does not match event.namespace";
        vec![FieldError::invalid(
            "involvedObject.namespace",
            about,
            detail,
        )]
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ]
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        match field {
            "source" => source(object).to_owned(),
            _ => text(object, &format!("/{}", field.replace('.', "/"))).to_owned(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let first = first_set(object, &["/firstTimestamp", "/eventTime"]);
        let last = first_set(
            object,
            &[
                "/series/lastObservedTime",
                "/lastTimestamp",
                "/firstTimestamp",
                "/eventTime",
            ],
        );
        let kind = text(object, "/involvedObject/kind").to_lowercase();
        let host = text(object, "/source/host");
        let source = [source(object), host]
            .into_iter()
            .filter(|part| !part.is_empty());
        let count = integer(object, "/series/count")
            .max(integer(object, "/count"))
            .max(1);
        vec![
            since(last, now).into(),
            text(object, "/type").into(),
            text(object, "/reason").into(),
            format!("{kind}/{}", text(object, "/involvedObject/name")).into(),
            text(object, "/involvedObject/fieldPath").into(),
            source.collect::<Vec<_>>().join(", ").into(),
            text(object, "/message").trim().into(),
            since(first, now).into(),
            count.into(),
            meta::name(object).into(),
        ]
    }
}

fn source(object: &Value) -> &str {
    first_set(object, &["/source/component", "/reportingComponent"])
}

fn first_set<'a>(object: &'a Value, pointers: &[&str]) -> &'a str {
    let found = pointers
        .iter()
        .map(|pointer| text(object, pointer))
        .find(|text| !text.is_empty());
    found.unwrap_or_default()
}
