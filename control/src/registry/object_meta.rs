//! Reading and writing the metadata of an object held as a JSON value.
//!
//! Objects on the generic path have no Rust type. These functions are the whole of what that path
//! knows about their inside. An absent or empty text reads as `""`.

use serde_json::{Map, Value, json};

/// The text at `metadata.FIELD`.
#[must_use]
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|m| m.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `metadata.name`.
#[must_use]
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.namespace`.
#[must_use]
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`.
#[must_use]
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.generation`, 0 when absent.
#[must_use]
pub fn generation(object: &Value) -> i64 {
    get(object, "generation")
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// Whether deletion has begun.
#[must_use]
pub fn is_terminating(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// The value at `metadata.FIELD`.
#[must_use]
pub fn get<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(field)
}

/// `metadata`, made if it is not there or not an object.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    member_mut(object, "metadata")
}

/// The object under `field`, made if it is not there or not an object.
#[expect(
    clippy::expect_used,
    reason = "both values were made objects one line above"
)]
pub fn member_mut<'a>(object: &'a mut Value, field: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    let member = object
        .as_object_mut()
        .expect("an object")
        .entry(field)
        .or_insert(Value::Null);
    if !member.is_object() {
        *member = json!({});
    }
    member.as_object_mut().expect("an object")
}

/// Sets `metadata.FIELD`.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// Removes `metadata.FIELD`.
pub fn remove(object: &mut Value, field: &str) {
    metadata_mut(object).shift_remove(field);
}

/// Makes `metadata.FIELD` of `to` what it is in `from`, absent if it is absent there.
pub fn copy(from: &Value, to: &mut Value, field: &str) {
    match get(from, field) {
        Some(value) => set(to, field, value.clone()),
        None => remove(to, field),
    }
}

/// Makes the top-level `field` of `to` what it is in `from`, absent if it is absent there.
pub fn copy_member(from: &Value, to: &mut Value, field: &str) {
    let Some(to) = to.as_object_mut() else { return };
    match from.get(field) {
        Some(value) => drop(to.insert(field.to_owned(), value.clone())),
        None => drop(to.shift_remove(field)),
    }
}

/// `metadata.finalizers`.
#[must_use]
pub fn finalizers(object: &Value) -> Vec<&str> {
    let finalizers = get(object, "finalizers").and_then(Value::as_array);
    finalizers
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

/// Adds a finalizer unless it is there.
pub fn add_finalizer(object: &mut Value, finalizer: &str) {
    if finalizers(object).contains(&finalizer) {
        return;
    }
    let list = metadata_mut(object)
        .entry("finalizers")
        .or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(finalizer.into());
    }
}

/// Removes a finalizer, and the list with the last of them.
pub fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let Some(list) = metadata_mut(object)
        .get_mut("finalizers")
        .and_then(Value::as_array_mut)
    else {
        return;
    };
    list.retain(|entry| entry != finalizer);
    if list.is_empty() {
        remove(object, "finalizers");
    }
}
/// Puts a condition into an object's status, in place of the one of its type.
pub fn set_condition(object: &mut Value, condition: Value) {
    let status = member_mut(object, "status");
    let conditions = status
        .entry("conditions")
        .or_insert_with(|| Value::Array(Vec::new()));
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(|old| old.get("type") != condition.get("type"));
        conditions.push(condition);
    }
}
