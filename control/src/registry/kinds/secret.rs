//! Secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::config_map::{MAX_DATA, data_keys, data_size, immutable_data};
use super::field_path::Field;
use super::{count, default_text, text};
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

/// The annotation that names the account of a token.
const ACCOUNT: &str = "kubernetes.io/service-account.name";

impl Strategy for Secret {
    fn set_defaults(&self, object: &mut Value) {
        let Some(object) = object.as_object_mut() else {
            return;
        };
        default_text(object, "type", "Opaque");
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
        errors.extend(validate_type(object));
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
            count(object, "/data").into(),
            age(object, now).into(),
        ]
    }
}

/// What the type promises of the data.
fn validate_type(object: &Value) -> Vec<FieldError> {
    let data = Field::root(object).at("data");
    let missing = |keys: &[&str]| -> Vec<FieldError> {
        let keys = keys.iter().map(|key| data.key(key));
        let missing = keys.filter(|value| !value.is_set());
        missing.map(|value| value.required("")).collect()
    };
    match text(object, "/type") {
        "kubernetes.io/service-account-token" => {
            let annotations = Field::root(object).at("metadata").at("annotations");
            let account = annotations.key(ACCOUNT);
            let nameless = account.is_empty().then(|| account.required(""));
            nameless.into_iter().collect()
        }
        "kubernetes.io/dockercfg" => json_object(&data.key(".dockercfg")),
        "kubernetes.io/dockerconfigjson" => json_object(&data.key(".dockerconfigjson")),
        "kubernetes.io/basic-auth" => match missing(&["username", "password"]) {
            both if both.len() == 2 => both,
            _ => Vec::new(),
        },
        "kubernetes.io/ssh-auth" => {
            let key = data.key("ssh-privatekey");
            let keyless = key.is_empty().then(|| key.required(""));
            keyless.into_iter().collect()
        }
        "kubernetes.io/tls" => missing(&["tls.crt", "tls.key"]),
        _ => Vec::new(),
    }
}

/// The value, decoded, is a JSON object.
fn json_object(value: &Field<'_>) -> Vec<FieldError> {
    if !value.is_set() {
        return vec![value.required("")];
    }
    let bytes = BASE64.decode(value.text()).unwrap_or_default();
    let parsed = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes);
    let error = parsed.err().map(|error| {
        let redacted = "<secret contents redacted>";
        FieldError::invalid(value.path(), redacted, error.to_string())
    });
    error.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_type_has_the_keys_it_promises() {
        let encoded = |text: &str| Value::from(BASE64.encode(text));
        let cases = [
            (json!({}), [].as_slice()),
            (
                json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
                &["data[tls.key]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/basic-auth", "data": {"username": ""}}),
                &[],
            ),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                &[
                    "data[username]: Required value",
                    "data[password]: Required value",
                ],
            ),
            (
                json!({"type": "kubernetes.io/ssh-auth", "data": {"ssh-privatekey": ""}}),
                &["data[ssh-privatekey]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/dockerconfigjson",
                    "data": {".dockerconfigjson": encoded(r#"{"auths": {}}"#)}}),
                &[],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
        ];
        for (mut object, expected) in cases {
            Secret.set_defaults(&mut object);
            let errors = Secret.validate(&object);
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected, "{object}");
        }
    }

    #[test]
    fn texts_become_data() {
        let mut object = json!({"stringData": {"a": "1"}});
        Secret.set_defaults(&mut object);
        assert_eq!(object["data"]["a"], "MQ==");
        assert_eq!(object.get("stringData"), None);
    }
}
