//! The events.k8s.io/v1 form of an Event, which is stored as one of the core group.
//!
//! The two forms say the same in other words. The newer API is stricter: what it creates names its reporter
//! and time and uses none of the old members, and of what it has created only the series changes.

use serde_json::{Map, Value};
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, member};
use crate::registry::field_error::FieldError;
use crate::registry::strategy::{Conversion, Kind};

/// Members with two names: the core group's, events.k8s.io's.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

const TYPES: [&str; 2] = ["Normal", "Warning"];

/// Members the newer API never changes.
const IMMUTABLE: [&str; 12] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingInstance",
];

/// Selectable fields, by the names that each form has for them.
const FIELDS: &[(&str, &str)] = &[
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    (
        "regarding.resourceVersion",
        "involvedObject.resourceVersion",
    ),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reason", "reason"),
    ("reportingController", "reportingComponent"),
    ("type", "type"),
];

/// The row of the table.
pub(super) fn kind() -> Kind {
    static FORM: Conversion = Conversion {
        stored: GroupVersionKind::of("", "v1", "Event"),
        to_stored: from_v1,
        from_stored: to_v1,
        refuses: |event, old| match old {
            None => validate_create(event),
            Some(old) => validate_update(old, event),
        },
        fields: FIELDS,
    };
    let mut kind = super::event::kind().stored_as(&FORM);
    kind.info.gvk = GroupVersionKind::of("events.k8s.io", "v1", "Event");
    kind
}

/// The events.k8s.io form of a stored event.
fn to_v1(stored: &Value) -> Value {
    rename(stored, "events.k8s.io/v1", |name| {
        RENAMED
            .iter()
            .find(|(core, _)| *core == name)
            .map(|(_, newer)| *newer)
    })
}

/// The stored form of an events.k8s.io event.
fn from_v1(given: &Value) -> Value {
    rename(given, "v1", |name| {
        RENAMED
            .iter()
            .find(|(_, newer)| *newer == name)
            .map(|(core, _)| *core)
    })
}

fn rename(object: &Value, version: &str, to: impl Fn(&str) -> Option<&'static str>) -> Value {
    let members = object.as_object().into_iter().flatten();
    let members = members.map(|(name, value)| {
        let value = match name.as_str() {
            "apiVersion" => version.into(),
            _ => value.clone(),
        };
        (to(name).unwrap_or(name).to_owned(), value)
    });
    Value::Object(members.collect::<Map<_, _>>())
}

/// All that the newer API refuses in a new event; `event` is in the stored form, as upstream's errors are.
fn validate_create(event: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let root = Field::root("", event);
    validate_series(&root, &mut errors);
    let time = root.child("eventTime");
    if time.text().is_empty() {
        errors.push(time.required(""));
    }
    let kind = root.child("type");
    if !TYPES.contains(&kind.text()) {
        let detail = format!("has invalid value: {}", kind.text());
        errors.push(kind.invalid_as("", detail));
    }
    for field in ["firstTimestamp", "lastTimestamp", "count", "source"] {
        let field = root.child(field);
        let empty = match field.value() {
            Value::Object(source) => source.values().all(|text| text == ""),
            other => other.is_null() || other == 0,
        };
        if !empty {
            errors.push(field.invalid_as("", "needs to be unset"));
        }
    }
    errors
}

/// All that the newer API refuses in a changed event.
fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Errors::new();
    let root = Field::root("", new);
    if member(old, "series") != member(new, "series") {
        validate_series(&root, &mut errors);
    }
    for field in IMMUTABLE {
        errors.extend(root.child(field).unchanged(member(old, field)));
    }
    // Upstream's errors use the name of the newer API here.
    let reporter = Field::root("reportingController", member(new, "reportingComponent"));
    errors.extend(reporter.unchanged(member(old, "reportingComponent")));
    errors
}

fn validate_series(root: &Field<'_, '_>, errors: &mut Errors) {
    let series = root.child("series");
    if !series.is_set() {
        return;
    }
    if series.integer_of("count").unwrap_or_default() < 2 {
        let count = series.child("count");
        errors.push(count.invalid_as("", "should be at least 2"));
    }
    let last = series.child("lastObservedTime");
    if last.text().is_empty() {
        errors.push(last.required(""));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Value {
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
            "regarding": {"kind": "Pod"}, "note": "hello", "type": "Normal",
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "a/b",
        })
    }

    #[test]
    fn both_forms_say_the_same() {
        let stored = from_v1(&event());
        assert_eq!(stored["apiVersion"], "v1");
        assert_eq!(stored["involvedObject"]["kind"], "Pod");
        assert_eq!(stored["message"], "hello");
        assert_eq!(stored["reportingComponent"], "a/b");
        assert_eq!(to_v1(&stored), event());
    }

    #[test]
    fn the_newer_api_is_stricter() {
        let stored = from_v1(&event());
        assert_eq!(validate_create(&stored), []);
        let mut old_fashioned = stored.clone();
        old_fashioned["count"] = 3.into();
        old_fashioned["series"] = json!({"count": 1, "lastObservedTime": "2026-01-01T00:00:00Z"});
        let found = validate_create(&old_fashioned);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                r#"series.count: Invalid value: "": should be at least 2"#,
                r#"count: Invalid value: "": needs to be unset"#,
            ]
        );
        let mut changed = stored.clone();
        changed["message"] = "bye".into();
        changed["series"] = json!({"count": 2, "lastObservedTime": "2026-01-01T00:00:00Z"});
        let found = validate_update(&stored, &changed);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, "message");
    }
}
