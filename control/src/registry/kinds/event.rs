//! Event of the core group.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
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
        let event = Field::root(object);
        let is_new = !event.at("eventTime").is_empty();
        let about = text(object, "/involvedObject/namespace");
        let namespace = meta::namespace(object);
        let matches = match about {
            "" => namespace == "default" || (is_new && namespace == "kube-system"),
            about => about == namespace,
        };
        let mut errors = Vec::new();
        if !matches {
            let detail = "does not match event.namespace";
            let path = "involvedObject.namespace";
            errors.push(FieldError::invalid(path, about, detail));
        }
        if is_new {
            errors.extend(validate_new(&event));
        }
        errors
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

/// What an event with a time of its own must say: who reports what, why, and what was done.
fn validate_new(event: &Field<'_>) -> Vec<FieldError> {
    const MAX: usize = 128;
    const MAX_MESSAGE: usize = 1024;
    let mut errors = event
        .at("reportingComponent")
        .must_follow(names::qualified_name);
    let too_long = |field: &Field<'_>, max: usize| {
        let detail = format!("can have at most {max} characters");
        (field.len() > max).then(|| FieldError::invalid(field.path(), "", detail))
    };
    for field in ["reportingInstance", "action", "reason"] {
        let field = event.at(field);
        errors.extend(field.is_empty().then(|| field.required("")));
        errors.extend(too_long(&field, MAX));
    }
    errors.extend(too_long(&event.at("message"), MAX_MESSAGE));
    errors
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_with_a_time_of_its_own_says_more() {
        let old = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "a"}});
        assert_eq!(Event.validate(&old), []);
        let mut new = old;
        new["eventTime"] = "2026-01-01T00:00:00.000000Z".into();
        let errors = Event.validate(&new);
        let paths: Vec<_> = errors.iter().map(|error| error.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "reportingComponent",
                "reportingInstance",
                "action",
                "reason"
            ]
        );
    }
}
