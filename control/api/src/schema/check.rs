//! Checking a value against a type, in place.
//!
//! One walk: fields the type does not declare are removed and their paths noted; `null` is removed where
//! Go leaves the zero value; scalars of the wrong type are noted in the words of Go's JSON decoder, which
//! users paste into search engines. Two paths are carried, because the two reports write them
//! differently: `spec.containers[0].foo` for unknown fields, `spec.containers.foo` for wrong types.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value};

use super::decode::Duplicate;
use super::{ListType, MapType, Schema, StructType, Type, TypeRef};
use crate::quantity::Quantity;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Paths of fields that are not declared (and were removed), in document order.
    pub unknown: Vec<String>,
    /// Values of the wrong type, in document order. Go reports the first one only.
    pub type_errors: Vec<TypeError>,
}

/// A value of the wrong type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TypeError {
    /// Path of the value, with list indices.
    pub path: String,
    /// The text upstream answers.
    pub message: String,
}

/// The text of a strict decoding error, unknown fields before duplicate ones; `None` if there is neither.
/// [`strict_messages`] gives the same texts one by one, for warnings.
#[must_use]
pub fn strict_error(duplicates: &[Duplicate], unknown: &[String]) -> Option<String> {
    let messages = strict_messages(duplicates, unknown);
    (!messages.is_empty()).then(|| format!("strict decoding error: {}", messages.join(", ")))
}

/// One text per unknown or duplicate field, in the order upstream lists them.
#[must_use]
pub fn strict_messages(duplicates: &[Duplicate], unknown: &[String]) -> Vec<String> {
    let (yaml, json): (Vec<_>, Vec<_>) = duplicates
        .iter()
        .partition(|duplicate| matches!(duplicate, Duplicate::YamlKey { .. }));
    let yaml = yaml.into_iter().map(ToString::to_string);
    let unknown = unknown
        .iter()
        .map(|path| format!("unknown field \"{path}\""));
    yaml.chain(unknown)
        .chain(json.into_iter().map(ToString::to_string))
        .collect()
}

pub(super) fn check(schema: &Schema, ty: TypeRef, value: &mut Value) -> CheckReport {
    let mut walk = Walk {
        schema,
        report: CheckReport::default(),
        place: Place::default(),
    };
    walk.value(ty, value);
    walk.report
}

/// Where the walk is: both spellings of the path, and the innermost named struct.
#[derive(Default)]
struct Place<'s> {
    path: String,
    field_path: String,
    owner: &'s str,
}

struct Walk<'s> {
    schema: &'s Schema,
    report: CheckReport,
    place: Place<'s>,
}

impl<'s> Walk<'s> {
    fn value(&mut self, ty: TypeRef, value: &mut Value) {
        let schema = self.schema;
        match (schema.get(ty), &mut *value) {
            (Type::Any, _) | (Type::String, Value::String(_)) | (Type::Boolean, Value::Bool(_)) => {
            }
            (Type::Number, Value::Number(_)) => {}
            (Type::Struct(of), Value::Object(object)) => self.object(of, object),
            (Type::Map(of), Value::Object(object)) => self.map(of, object),
            (Type::List(of), Value::Array(items)) => self.list(of, items),
            (Type::Int32, Value::Number(number)) => {
                let fits = number
                    .as_i64()
                    .is_some_and(|number| i32::try_from(number).is_ok());
                self.integer(fits, number, "int32");
            }
            (Type::Int64, Value::Number(number)) => {
                self.integer(number.as_i64().is_some(), number, "int64");
            }
            (Type::IntOrString, Value::String(_)) => {}
            (Type::IntOrString, Value::Number(number)) => {
                let fits = number
                    .as_i64()
                    .is_some_and(|number| i32::try_from(number).is_ok());
                if !fits {
                    self.mismatch(format!(
                        "json: cannot unmarshal number {number} into Go value of type int32"
                    ));
                }
            }
            (Type::Quantity, Value::String(_) | Value::Number(_)) => self.quantity(value),
            (Type::Bytes, Value::String(text)) => self.bytes(text),
            (Type::Time | Type::MicroTime, Value::String(text)) => self.time(text),
            (expected, found) => {
                let message = self.wrong_type(expected, found);
                self.mismatch(message);
            }
        }
    }

    fn object(&mut self, of: &'s StructType, object: &mut Map<String, Value>) {
        let outer = std::mem::replace(&mut self.place.owner, &of.name);
        // Most objects hold nothing to remove: the entries are walked in place, once.
        object.retain(|name, value| {
            let Some(field) = of.field(name) else {
                return of.preserve_unknown || self.unknown(name);
            };
            if value.is_null() {
                return false;
            }
            let marks = self.enter_field(name);
            self.value(field.ty, value);
            self.leave(marks);
            true
        });
        self.place.owner = outer;
    }

    /// Notes an unknown field; it is not to be kept.
    fn unknown(&mut self, name: &str) -> bool {
        let path = &self.place.path;
        let path = if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        };
        self.report.unknown.push(path);
        false
    }

    fn map(&mut self, of: &MapType, object: &mut Map<String, Value>) {
        for (key, value) in object.iter_mut() {
            let mark = self.place.path.len();
            self.place.path.push('.');
            self.place.path.push_str(key);
            self.element(of.value, value);
            self.place.path.truncate(mark);
        }
    }

    fn list(&mut self, of: &ListType, items: &mut [Value]) {
        for (at, item) in items.iter_mut().enumerate() {
            let mark = self.place.path.len();
            // Writing to a String can't fail.
            let _ = write!(self.place.path, "[{at}]");
            self.element(of.item, item);
            self.place.path.truncate(mark);
        }
    }

    /// A value of a map or an item of a list: there `null` is Go's zero value.
    fn element(&mut self, ty: TypeRef, value: &mut Value) {
        if value.is_null() {
            if let Some(zero) = zero(self.schema.get(ty)) {
                *value = zero;
            }
            return;
        }
        self.value(ty, value);
    }

    fn integer(&mut self, fits: bool, number: &Number, go: &str) {
        if !fits {
            let message = self.cannot_unmarshal(&format!("number {number}"), go);
            self.mismatch(message);
        }
    }

    /// Quantities are kept as canonical texts, which is what Go writes back.
    fn quantity(&mut self, value: &mut Value) {
        let text = match &*value {
            Value::String(text) => text.parse(),
            number => number.to_string().parse(),
        };
        let canonical = match text {
            Ok(quantity) => Quantity::to_string(&quantity),
            Err(error) => return self.mismatch(error.to_string()),
        };
        if value.as_str() != Some(canonical.as_str()) {
            *value = Value::String(canonical);
        }
    }

    fn bytes(&mut self, text: &mut String) {
        if text.contains(['\n', '\r']) {
            text.retain(|c| c != '\n' && c != '\r');
        }
        if let Err(error) = STANDARD.decode(text.as_bytes()) {
            let at = match error {
                base64::DecodeError::InvalidByte(at, _)
                | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len(),
            };
            self.mismatch(format!("illegal base64 data at input byte {at}"));
        }
    }

    fn time(&mut self, text: &str) {
        if crate::time::parse(text).is_err() {
            self.mismatch(format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\""
            ));
        }
    }

    fn wrong_type(&self, expected: &Type, found: &Value) -> String {
        let found = json_type(found);
        match expected {
            Type::IntOrString => {
                format!("json: cannot unmarshal {found} into Go value of type int32")
            }
            Type::Time | Type::MicroTime => {
                format!("json: cannot unmarshal {found} into Go value of type string")
            }
            Type::Quantity => crate::quantity::ParseError::Format.to_string(),
            _ => self.cannot_unmarshal(found, &go_type(self.schema, expected)),
        }
    }

    fn cannot_unmarshal(&self, found: &str, go: &str) -> String {
        let Place {
            owner, field_path, ..
        } = &self.place;
        if field_path.is_empty() {
            return format!("json: cannot unmarshal {found} into Go value of type {go}");
        }
        let owner = owner.rsplit('.').next().unwrap_or(owner);
        format!(
            "json: cannot unmarshal {found} into Go struct field {owner}.{field_path} of type {go}"
        )
    }

    fn mismatch(&mut self, message: String) {
        self.report.type_errors.push(TypeError {
            path: self.place.path.clone(),
            message,
        });
    }

    fn enter_field(&mut self, name: &str) -> (usize, usize) {
        let marks = (self.place.path.len(), self.place.field_path.len());
        for path in [&mut self.place.path, &mut self.place.field_path] {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        }
        marks
    }

    fn leave(&mut self, (path, field_path): (usize, usize)) {
        self.place.path.truncate(path);
        self.place.field_path.truncate(field_path);
    }
}

/// What Go leaves where `null` is given for an item; `None` keeps the `null`.
fn zero(ty: &Type) -> Option<Value> {
    match ty {
        Type::String | Type::Bytes => Some(Value::String(String::new())),
        Type::Boolean => Some(Value::Bool(false)),
        Type::Int32 | Type::Int64 | Type::Number | Type::IntOrString => Some(Value::from(0)),
        Type::Quantity => Some(Value::String("0".to_owned())),
        Type::Struct(_) => Some(Value::Object(Map::new())),
        Type::Any | Type::Time | Type::MicroTime | Type::Map(_) | Type::List(_) => None,
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The type's name in Go: `int32`, `[]v1.Container`, `map[string]string`.
fn go_type(schema: &Schema, ty: &Type) -> String {
    match ty {
        Type::Any => "interface {}".to_owned(),
        Type::String => "string".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Number => "float64".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Map(of) => format!("map[string]{}", go_type(schema, schema.get(of.value))),
        Type::List(of) => format!("[]{}", go_type(schema, schema.get(of.item))),
        Type::Struct(of) => {
            let mut parts = of.name.rsplit('.');
            let (name, package) = (parts.next().unwrap_or_default(), parts.next());
            package.map_or_else(|| name.to_owned(), |package| format!("{package}.{name}"))
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown = self
            .unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\""));
        let texts: Vec<_> = self
            .type_errors
            .iter()
            .map(ToString::to_string)
            .chain(unknown)
            .collect();
        f.write_str(&texts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::GroupVersionKind;
    use serde_json::json;

    fn deployment(mut value: Value) -> (Value, CheckReport) {
        let schema = Schema::builtin();
        let gvk = GroupVersionKind::of("apps", "v1", "Deployment");
        let root = schema.kind(&gvk).expect("is built in");
        let report = schema.check(root, &mut value);
        (value, report)
    }

    #[test]
    fn a_correct_object_is_left_alone() {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "x", "labels": {"a": "b"}, "managedFields": [
                {"fieldsV1": {"f:spec": {"f:replicas": {}}}, "time": "2024-01-01T00:00:00Z"}]},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "strategy":
                {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
              "template": {"spec": {"containers": [{"name": "c", "resources":
                {"requests": {"cpu": "100m", "memory": "64Mi"}}}]}}},
        });
        assert_eq!(deployment(object.clone()), (object, CheckReport::default()));
    }

    #[test]
    fn unknown_fields_are_removed_and_reported_with_indices() {
        let (value, report) = deployment(json!({
            "bogus": 1, "metadata": {"unknownMeta": "x"},
            "spec": {"template": {"spec": {"containers": [{"name": "c", "foo": {"bar": 1}}]}}},
        }));
        assert_eq!(
            report.unknown,
            [
                "bogus",
                "metadata.unknownMeta",
                "spec.template.spec.containers[0].foo"
            ]
        );
        assert!(report.type_errors.is_empty());
        assert_eq!(
            value,
            json!({"metadata": {}, "spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}})
        );
    }

    #[test]
    fn wrong_types_are_worded_as_go_words_them() {
        let container =
            |container: Value| json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        for (value, message) in [
            (
                json!({"spec": {"replicas": "x"}}),
                "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 3_000_000_000_u64}}),
                "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": []}),
                "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!("x"),
                "json: cannot unmarshal string into Go value of type v1.Deployment",
            ),
            (
                container(json!("x")),
                "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type v1.Container",
            ),
            (
                container(json!({"args": "x"})),
                "json: cannot unmarshal string into Go struct field Container.spec.template.spec.containers.args of type []string",
            ),
            (
                container(json!({"resources": {"limits": {"cpu": "x1"}}})),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (
                json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}),
                "json: cannot unmarshal bool into Go value of type int32",
            ),
            (
                json!({"metadata": {"creationTimestamp": "yesterday"}}),
                "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\"",
            ),
        ] {
            let (_, report) = deployment(value);
            let messages: Vec<_> = report.type_errors.iter().map(ToString::to_string).collect();
            assert_eq!(messages, [message]);
        }
    }

    #[test]
    fn null_fields_are_dropped_and_null_items_become_zero_values() {
        let (value, report) = deployment(json!({
            "metadata": {"creationTimestamp": null, "labels": {"a": null}, "finalizers": [null]},
            "spec": {"replicas": null, "template": {"spec": {"containers": [null]}}}, "status": null,
        }));
        assert_eq!(report, CheckReport::default());
        assert_eq!(
            value,
            json!({"metadata": {"labels": {"a": ""}, "finalizers": [""]},
                   "spec": {"template": {"spec": {"containers": [{}]}}}})
        );
    }

    #[test]
    fn quantities_become_canonical() {
        let resources = |cpu: Value| json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": cpu}}}]}}}});
        for (given, kept) in [(json!(1), "1"), (json!(0.5), "500m"), (json!("1000m"), "1")] {
            let (value, report) = deployment(resources(given));
            assert_eq!(report, CheckReport::default());
            assert_eq!(value, resources(json!(kept)));
        }
    }

    #[test]
    fn strict_errors_list_unknown_fields_before_duplicates() {
        let duplicates = [Duplicate::Field("spec.replicas".to_owned())];
        assert_eq!(
            strict_error(&duplicates, &["spec.unknownField".to_owned()]).as_deref(),
            Some(
                "strict decoding error: unknown field \"spec.unknownField\", duplicate field \"spec.replicas\""
            )
        );
        assert_eq!(strict_error(&[], &[]), None);
    }
}
