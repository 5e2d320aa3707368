//! The v2 document in protobuf, the form in which kubectl up to 1.28 asks for it.
//!
//! The messages are those of `openapi.v2.Document` (gnostic's OpenAPIv2).

use std::convert::Infallible;

use serde_json::{Map, Value};
use windlass_api::schema::protobuf::Writer;

/// The media type of this form. Old clients ask for it under a name that is not even one by the rules of
/// media types, and must not be answered with that.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The name under which old clients ask for it.
pub const OLD_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

type Done = Result<(), Infallible>;
const DONE: Done = Ok(());

/// A JSON document as a message.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut out = Writer::with_capacity(1 << 20);
    let Ok(()) = write_document(&mut out, document);
    out.into_bytes()
}

fn write_document(out: &mut Writer, document: &Value) -> Done {
    text(out, 1, document.get("swagger"));
    out.message(2, |out| {
        let info = document.get("info");
        text(out, 1, info.and_then(|info| info.get("title")));
        text(out, 2, info.and_then(|info| info.get("version")));
        DONE
    })?;
    out.message(8, |out| paths(out, document.get("paths")))?;
    out.message(9, |out| named_schemas(out, document.get("definitions")))
}

/// Methods and their numbers in a path item.
const METHODS: &[(&str, u8)] = &[
    ("get", 2),
    ("put", 3),
    ("post", 4),
    ("delete", 5),
    ("patch", 8),
];

fn paths(out: &mut Writer, paths: Option<&Value>) -> Done {
    for (path, item) in paths.and_then(Value::as_object).into_iter().flatten() {
        out.message(2, |out| {
            out.bytes(1, path.as_bytes());
            out.message(2, |out| {
                for (method, number) in METHODS {
                    if let Some(described) = item.get(method) {
                        out.message(*number, |out| operation(out, described))?;
                    }
                }
                parameters(out, 9, item)
            })
        })?;
    }
    DONE
}

fn operation(out: &mut Writer, described: &Value) -> Done {
    text(out, 3, described.get("description"));
    text(out, 5, described.get("operationId"));
    for (field, number) in [("produces", 6), ("consumes", 7), ("schemes", 10)] {
        for media_type in list(described, field) {
            text(out, number, Some(media_type));
        }
    }
    parameters(out, 8, described)?;
    out.message(9, |out| responses(out, described.get("responses")))?;
    extensions(out, 13, described.as_object())
}

fn responses(out: &mut Writer, responses: Option<&Value>) -> Done {
    for (status, response) in responses.and_then(Value::as_object).into_iter().flatten() {
        out.message(1, |out| {
            out.bytes(1, status.as_bytes());
            // The value is one of two messages, and so is the schema in it.
            out.message(2, |out| {
                out.message(1, |out| {
                    text(out, 1, response.get("description"));
                    match response.get("schema") {
                        Some(schema) => {
                            out.message(2, |out| out.message(1, |out| write_schema(out, schema)))
                        }
                        None => DONE,
                    }
                })
            })
        })?;
    }
    DONE
}

/// The parameters of a path or an operation: each one message of many, by where it stands.
fn parameters(out: &mut Writer, number: u8, holder: &Value) -> Done {
    for parameter in list(holder, "parameters") {
        out.message(number, |out| {
            out.message(1, |out| match parameter.get("in").and_then(Value::as_str) {
                Some("body") => out.message(1, |out| body(out, parameter)),
                Some("path") => out.message(2, |out| out.message(4, |out| path(out, parameter))),
                _ => out.message(2, |out| out.message(3, |out| query(out, parameter))),
            })
        })?;
    }
    DONE
}

fn body(out: &mut Writer, parameter: &Value) -> Done {
    text(out, 2, parameter.get("name"));
    text(out, 3, parameter.get("in"));
    flag(out, 4, parameter.get("required"));
    let Some(schema) = parameter.get("schema") else {
        return DONE;
    };
    out.message(5, |out| write_schema(out, schema))
}

fn query(out: &mut Writer, parameter: &Value) -> Done {
    named(out, parameter);
    text(out, 6, parameter.get("type"));
    flag(out, 20, parameter.get("uniqueItems"));
    DONE
}

fn path(out: &mut Writer, parameter: &Value) -> Done {
    named(out, parameter);
    text(out, 5, parameter.get("type"));
    flag(out, 19, parameter.get("uniqueItems"));
    DONE
}

/// What parameters of paths and queries have under the same numbers.
fn named(out: &mut Writer, parameter: &Value) {
    flag(out, 1, parameter.get("required"));
    text(out, 2, parameter.get("in"));
    text(out, 3, parameter.get("description"));
    text(out, 4, parameter.get("name"));
}

/// A map of schemas: `Definitions` and `Properties` are the same message.
fn named_schemas(out: &mut Writer, schemas: Option<&Value>) -> Done {
    for (name, schema) in schemas.and_then(Value::as_object).into_iter().flatten() {
        out.message(1, |out| {
            out.bytes(1, name.as_bytes());
            out.message(2, |out| write_schema(out, schema))
        })?;
    }
    DONE
}

fn write_schema(out: &mut Writer, schema: &Value) -> Done {
    text(out, 1, schema.get("$ref"));
    text(out, 2, schema.get("format"));
    text(out, 4, schema.get("description"));
    if let Some(default) = schema.get("default") {
        out.message(5, |out| yaml(out, default))?;
    }
    for required in list(schema, "required") {
        text(out, 19, Some(required));
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(any)) => out.message(21, |out| {
            out.varint(2, u64::from(*any));
            DONE
        })?,
        Some(values) => out.message(21, |out| out.message(1, |out| write_schema(out, values)))?,
        None => {}
    }
    if let Some(kind) = schema.get("type") {
        out.message(22, |out| {
            text(out, 1, Some(kind));
            DONE
        })?;
    }
    if let Some(items) = schema.get("items") {
        out.message(23, |out| out.message(1, |out| write_schema(out, items)))?;
    }
    if let Some(properties) = schema.get("properties") {
        out.message(25, |out| named_schemas(out, Some(properties)))?;
    }
    extensions(out, 31, schema.as_object())
}

/// Members that begin with `x-`, each as the YAML of its value.
fn extensions(out: &mut Writer, number: u8, holder: Option<&Map<String, Value>>) -> Done {
    let members = holder.into_iter().flatten();
    for (name, value) in members.filter(|(name, _)| name.starts_with("x-")) {
        out.message(number, |out| {
            out.bytes(1, name.as_bytes());
            out.message(2, |out| yaml(out, value))
        })?;
    }
    DONE
}

/// `Any`: the value's YAML, of which JSON is a part.
fn yaml(out: &mut Writer, value: &Value) -> Done {
    out.bytes(2, value.to_string().as_bytes());
    DONE
}

fn text(out: &mut Writer, number: u8, value: Option<&Value>) {
    if let Some(text) = value.and_then(Value::as_str) {
        out.bytes(number, text.as_bytes());
    }
}

fn flag(out: &mut Writer, number: u8, value: Option<&Value>) {
    if value == Some(&Value::Bool(true)) {
        out.varint(number, 1);
    }
}

fn list<'a>(holder: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    let items = holder.get(field).and_then(Value::as_array);
    items.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_definition_has_the_bytes_of_its_message() {
        let mut out = Writer::with_capacity(0);
        let schema = json!({"type": "array", "items": {"$ref": "#/definitions/a"}, "x-k": 1});
        let Ok(()) = write_schema(&mut out, &schema);
        let golden = b"\xb2\x01\x07\x0a\x05array\
            \xba\x01\x13\x0a\x11\x0a\x0f#/definitions/a\
            \xfa\x01\x0a\x0a\x03x-k\x12\x03\x12\x011";
        assert_eq!(out.into_bytes(), golden);
    }

    #[test]
    fn an_operation_has_the_bytes_of_its_message() {
        let mut out = Writer::with_capacity(0);
        let item = json!({"/a": {"get": {
            "operationId": "read",
            "parameters": [{"name": "q", "in": "query", "type": "string"}],
            "responses": {"200": {"description": "OK"}},
        }}});
        let Ok(()) = paths(&mut out, Some(&item));
        let golden = b"\x12\x39\x0a\x02/a\x12\x33\x12\x31\
            \x2a\x04read\
            \x42\x18\x0a\x16\x12\x14\x1a\x12\x12\x05query\x22\x01q\x32\x06string\
            \x4a\x0f\x0a\x0d\x0a\x03200\x12\x06\x0a\x04\x0a\x02OK";
        assert_eq!(out.into_bytes(), golden.to_vec());
    }
}
