//! The v2 document, made from the parts of v3's.
//!
//! 1. Paths: a body is one of an operation's parameters, what it consumes and produces are two lists of
//!    media types, and a parameter's type stands in the parameter itself.
//! 2. Definitions: there are no alternatives, and a reference stands beside what is said of it.

use serde_json::{Map, Value, json};

use super::schemas::Definitions;
use super::{V3_PREFIX, paths};

/// Where references of v2 documents point.
const PREFIX: &str = "#/definitions/";

/// The document with these paths and definitions, both as version 3 writes them.
pub(super) fn document(paths: Map<String, Value>, schemas: Definitions, version: &str) -> Value {
    let paths: Map<_, _> = paths
        .into_iter()
        .map(|(path, item)| (path, path_item(item)))
        .collect();
    let definitions: Definitions = schemas
        .into_iter()
        .map(|(name, schema)| (name, definition(schema)))
        .collect();
    json!({
        "swagger": "2.0",
        "info": { "title": "Kubernetes", "version": version },
        "paths": paths,
        "definitions": definitions,
    })
}

fn path_item(item: Value) -> Value {
    let Value::Object(item) = item else {
        return item;
    };
    let member = |(name, value): (String, Value)| {
        let value = if name == "parameters" {
            parameters(value).into()
        } else {
            operation(value)
        };
        (name, value)
    };
    Value::Object(item.into_iter().map(member).collect())
}

fn operation(described: Value) -> Value {
    let Value::Object(mut described) = described else {
        return described;
    };
    let mut parameters = described
        .shift_remove("parameters")
        .map(parameters)
        .unwrap_or_default();
    let body = described.shift_remove("requestBody").unwrap_or_default();
    let mut consumes: Vec<String> = vec![paths::ANY.to_owned()];
    if let Some((types, schema)) = content(&body) {
        let mut parameter = json!({ "name": "body", "in": "body", "schema": schema });
        if let (Some(required), Value::Object(parameter)) = (body.get("required"), &mut parameter) {
            parameter.insert("required".to_owned(), required.clone());
        }
        parameters.insert(0, parameter);
        consumes = types;
    }
    let (responses, produces) = responses(described.shift_remove("responses"));
    described.insert("consumes".to_owned(), consumes.into());
    described.insert("produces".to_owned(), produces.into());
    described.insert("parameters".to_owned(), parameters.into());
    described.insert("responses".to_owned(), responses.into());
    described.insert("schemes".to_owned(), json!(["https"]));
    described.into()
}

/// The answers by status, and the media types of any of them.
fn responses(responses: Option<Value>) -> (Map<String, Value>, Vec<String>) {
    let Some(Value::Object(responses)) = responses else {
        return Default::default();
    };
    let mut produces = Vec::new();
    let answer = |(status, answer): (String, Value)| {
        let mut plain = json!({ "description": answer.get("description") });
        if let Some((types, schema)) = content(&answer) {
            produces = types;
            if let Value::Object(plain) = &mut plain {
                plain.insert("schema".to_owned(), schema);
            }
        }
        (status, plain)
    };
    let responses = responses.into_iter().map(answer).collect();
    (responses, produces)
}

/// The media types of what is sent, and its schema, which is the same for all of them.
fn content(holder: &Value) -> Option<(Vec<String>, Value)> {
    let content = holder.get("content")?.as_object()?;
    let schema = content.values().next()?.get("schema")?.clone();
    Some((content.keys().cloned().collect(), definition(schema)))
}

fn parameters(parameters: Value) -> Vec<Value> {
    let Value::Array(mut parameters) = parameters else {
        return Vec::new();
    };
    for parameter in parameters.iter_mut().filter_map(Value::as_object_mut) {
        if let Some(Value::Object(schema)) = parameter.shift_remove("schema") {
            parameter.extend(schema);
        }
    }
    parameters
}

/// A v3 schema as version 2 writes it.
fn definition(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(object) => {
            if object.shift_remove("oneOf").is_some() {
                object.insert("type".to_owned(), "string".into());
            }
            if let Some(Value::Array(all_of)) = object.shift_remove("allOf") {
                let reference = all_of
                    .into_iter()
                    .next()
                    .and_then(|mut of| of.get_mut("$ref").map(Value::take));
                object.extend(reference.map(|reference| ("$ref".to_owned(), reference)));
            }
            for (key, value) in object.iter_mut() {
                *value = match value.as_str().and_then(|to| to.strip_prefix(V3_PREFIX)) {
                    Some(name) if key == "$ref" => format!("{PREFIX}{name}").into(),
                    _ => definition(value.take()),
                };
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| *item = definition(item.take())),
        _ => {}
    }
    schema
}
