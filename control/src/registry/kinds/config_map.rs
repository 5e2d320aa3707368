//! ConfigMap.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::count;
use crate::registry::age;
use crate::registry::field_error::{FieldError, Problem};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};
use crate::registry::validation::invalid;

/// All values of a ConfigMap or Secret together.
pub(super) const MAX_DATA: usize = 1 << 20;

struct ConfigMap;

/// The row of the table.
pub(super) fn kind() -> Kind {
    Kind::namespaced(
        GroupVersionKind::of("", "v1", "ConfigMap"),
        "configmaps",
        &ConfigMap,
    )
    .short_names(&["cm"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "Data",
        "string",
        "Number of entries in data and binaryData.",
    ),
    AGE,
];

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = data_keys(object, "data");
        errors.extend(data_keys(object, "binaryData"));
        for key in members(object, "data").map(|(key, _)| key) {
            if members(object, "binaryData").any(|(other, _)| other == key) {
                let detail = "duplicate of key present in binaryData";
                let path = format!("data[{key}]");
                errors.push(FieldError::invalid(path, key.as_str(), detail));
            }
        }
        if text_size(object, "data") + data_size(object, "binaryData") > MAX_DATA {
            errors.push(FieldError {
                path: String::new(),
                problem: Problem::TooLong(MAX_DATA),
            });
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        immutable_data(old, new, &["data", "binaryData"])
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let data = count(object, "/data") + count(object, "/binaryData");
        vec![
            meta::name(object).into(),
            data.into(),
            age(object, now).into(),
        ]
    }
}

fn members<'a>(object: &'a Value, field: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object
        .get(field)
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

/// All that is wrong with the keys of `field`.
pub(super) fn data_keys(object: &Value, field: &str) -> Vec<FieldError> {
    let check = |key: &String| {
        let path = format!("{field}[{key}]");
        invalid(&path, key, names::config_map_key(key)).collect::<Vec<_>>()
    };
    members(object, field)
        .flat_map(|(key, _)| check(key))
        .collect()
}

/// Bytes of all texts of `field`.
fn text_size(object: &Value, field: &str) -> usize {
    let sizes = members(object, field).map(|(_, value)| value.as_str().map_or(0, str::len));
    sizes.sum()
}

/// Bytes that the base64 texts of `field` stand for.
pub(super) fn data_size(object: &Value, field: &str) -> usize {
    let size = |text: &str| {
        let padding = text.bytes().rev().take_while(|b| *b == b'=').count();
        (text.len() / 4 * 3).saturating_sub(padding)
    };
    let texts = members(object, field).filter_map(|(_, value)| value.as_str());
    texts.map(size).sum()
}

/// What an immutable object must not change.
pub(super) fn immutable_data(old: &Value, new: &Value, fields: &[&str]) -> Vec<FieldError> {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return Vec::new();
    }
    const DETAIL: &str = "field is immutable when `immutable` is set";
    let changed = ["immutable"].into_iter().chain(fields.iter().copied());
    changed
        .filter(|field| !same_data(old.get(field), new.get(field)))
        .map(|field| FieldError::forbidden(field, DETAIL))
        .collect()
}

/// Whether two maps hold the same; one that is not there is empty.
fn same_data(old: Option<&Value>, new: Option<&Value>) -> bool {
    let empty = |value: &&Value| value.as_object().is_none_or(|map| !map.is_empty());
    old.filter(empty) == new.filter(empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_key_is_in_one_of_the_maps() {
        let object = json!({"data": {"a": "1", "b/c": "2"}, "binaryData": {"a": "MQ=="}});
        let found = texts(&ConfigMap.validate(&object));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(
            found.last().map(String::as_str),
            Some(r#"data[a]: Invalid value: "a": duplicate of key present in binaryData"#)
        );
    }

    #[test]
    fn data_is_bounded_by_what_it_stands_for() {
        let of = |bytes: usize| json!({"binaryData": {"a": "AAAA".repeat(bytes / 3)}});
        assert_eq!(ConfigMap.validate(&of(MAX_DATA)), []);
        assert_eq!(
            texts(&ConfigMap.validate(&of(MAX_DATA + 3))),
            [": Too long: may not be more than 1048576 bytes"]
        );
    }

    #[test]
    fn an_immutable_config_map_keeps_its_data() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"data": {"a": "2"}, "binaryData": {}});
        assert_eq!(
            texts(&ConfigMap.validate_update(&old, &new, Endpoint::Main)),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }
}
