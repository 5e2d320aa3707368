//! Definitions of types as version 3 writes them.
//!
//! The schema engine's definitions are plain JSON Schema with Kubernetes' extensions. Version 3 wraps a
//! reference that has siblings into `allOf` and names the alternatives of scalars with two types.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use windlass_api::resource::{GroupVersionKind, ResourceInfo};

use super::{META, Names, V3_PREFIX};

/// Definitions by name.
pub(super) type Definitions = Map<String, Value>;

/// The definition of the list of a kind.
pub(super) fn list_definition(gvk: &GroupVersionKind, item: &str) -> Value {
    let kind = &gvk.kind;
    json!({
        "description": format!("{kind}List is a list of {kind} objects."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "type": "string", "description": "APIVersion defines the versioned schema of this representation of an object." },
            "items": { "type": "array", "description": "The objects.", "items": { "$ref": format!("{V3_PREFIX}{item}") } },
            "kind": { "type": "string", "description": "Kind is a string value representing the REST resource this object represents." },
            "metadata": { "$ref": format!("{V3_PREFIX}{META}.ListMeta"), "description": "Standard list metadata." },
        },
        "x-kubernetes-group-version-kind": [
            { "group": gvk.group, "version": gvk.version, "kind": format!("{kind}List") }
        ],
    })
}

/// The definitions that paths and kinds refer to, directly or not, in v3's form.
pub(super) fn reachable(
    definitions: &Definitions,
    paths: &Map<String, Value>,
    resources: &[&ResourceInfo],
    names: &Names,
) -> Definitions {
    let mut wanted = Vec::new();
    for path in paths.values() {
        references(path, &mut wanted);
    }
    for name in resources
        .iter()
        .filter_map(|resource| names.get(&resource.gvk))
    {
        wanted.extend([name.clone(), format!("{name}List")]);
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if let (Some(definition), true) = (definitions.get(&name), !seen.contains(&name)) {
            references(definition, &mut wanted);
            seen.insert(name);
        }
    }
    let schema = |name: String| {
        let schema = definitions.get(&name).cloned().unwrap_or_default();
        let schema = to_v3(&name, schema);
        (name, schema)
    };
    seen.into_iter().map(schema).collect()
}

pub(super) fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            let reference = object.get("$ref").and_then(Value::as_str);
            found.extend(
                reference
                    .and_then(|to| to.strip_prefix(V3_PREFIX))
                    .map(str::to_owned),
            );
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// A definition as v3 documents write it: scalars of two types say so, references with siblings stand in
/// `allOf`.
fn to_v3(name: &str, mut schema: Value) -> Value {
    wrap_references(&mut schema);
    let alternatives = match name.rsplit('.').next() {
        Some("Quantity") => json!([{ "type": "string" }, { "type": "number" }]),
        Some("IntOrString") => json!([{ "type": "integer" }, { "type": "string" }]),
        _ => return schema,
    };
    if let Value::Object(schema) = &mut schema {
        let is_int_or_string = name.ends_with(".IntOrString");
        schema.shift_remove("x-kubernetes-int-or-string");
        schema.insert("oneOf".to_owned(), alternatives);
        if is_int_or_string {
            schema.insert("format".to_owned(), "int-or-string".into());
        }
    }
    schema
}

// Differs from Kubernetes: upstream adds `default: {}` beside references to types that Go holds by value.
// Nothing reads it, and the schemas don't tell those types from pointers.
fn wrap_references(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(wrap_references);
            if object.len() > 1
                && let Some(reference) = object.shift_remove("$ref")
            {
                object.insert("allOf".to_owned(), json!([{ "$ref": reference }]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(wrap_references),
        _ => {}
    }
}
