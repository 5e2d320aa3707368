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
                let path = format!("binaryData[{key}]");
                errors.push(FieldError::invalid(
                    path,
                    key.as_str(),
                    "duplicate of key present in data",
                ));
            }
        }
        let size: usize = ["data", "binaryData"]
            .iter()
            .map(|field| data_size(object, field))
            .sum();
        if size > MAX_DATA {
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
            data.to_string().into(),
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

/// Bytes of all values of `field`, counting base64 as what it stands for.
pub(super) fn data_size(object: &Value, field: &str) -> usize {
    let size = |value: &Value| value.as_str().map_or(0, str::len);
    let total: usize = members(object, field).map(|(_, value)| size(value)).sum();
    if field == "data" && object.get("kind") == Some(&"ConfigMap".into()) {
        total
    } else {
        total / 4 * 3
    }
}

/// What an immutable object must not change.
pub(super) fn immutable_data(old: &Value, new: &Value, fields: &[&str]) -> Vec<FieldError> {
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return Vec::new();
    }
    const DETAIL: &str = "field is immutable when `immutable` is set";
    let changed = fields.iter().copied().chain(["immutable"]);
    changed
        .filter(|field| old.get(field) != new.get(field))
        .map(|field| FieldError::forbidden(field, DETAIL))
        .collect()
}
