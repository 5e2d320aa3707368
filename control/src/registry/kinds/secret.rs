//! Secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::config_map::{MAX_DATA, data_keys, data_size, immutable_data};
use super::{count, default, text};
use crate::registry::age;
use crate::registry::field_error::{FieldError, Problem};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct Secret;

/// The row of the table.
pub(super) fn kind() -> Kind {
    Kind::namespaced(GroupVersionKind::of("", "v1", "Secret"), "secrets", &Secret)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Type", "string", "What the data is for."),
    Column::new("Data", "string", "Number of entries in data."),
    AGE,
];

/// Keys that a type of Secret must have.
const REQUIRED: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

impl Strategy for Secret {
    fn set_defaults(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else {
            return;
        };
        default(object, "type", "Opaque");
        let Some(Value::Object(texts)) = object.shift_remove("stringData") else {
            return;
        };
        let data = object
            .entry("data")
            .or_insert_with(|| serde_json::json!({}));
        let Some(data) = data.as_object_mut() else {
            return;
        };
        for (key, value) in texts {
            let encoded = BASE64.encode(value.as_str().unwrap_or_default());
            data.insert(key, encoded.into());
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = data_keys(object, "data");
        if data_size(object, "data") > MAX_DATA {
            errors.push(FieldError {
                path: "data".into(),
                problem: Problem::TooLong(MAX_DATA),
            });
        }
        let required = REQUIRED
            .iter()
            .find(|(kind, _)| *kind == text(object, "/type"));
        for key in required.map(|(_, keys)| *keys).unwrap_or_default() {
            if object.get("data").and_then(|data| data.get(key)).is_none() {
                errors.push(FieldError::required(format!("data[{key}]"), ""));
            }
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let mut errors = immutable_data(old, new, &["data"]);
        if old.get("type") != new.get("type") {
            errors.push(FieldError::immutable(
                "type",
                new.get("type").cloned().unwrap_or_default(),
            ));
        }
        errors
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["type"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            text(object, "/type").into(),
            count(object, "/data").to_string().into(),
            age(object, now).into(),
        ]
    }
}
