//! The v2 document in protobuf, the form in which kubectl up to 1.28 asks for it.
//!
//! The messages are those of `openapi.v2.Document` (gnostic's OpenAPIv2). Definitions are written and
//! paths are not: what reads this form looks for definitions.

use std::convert::Infallible;

use serde_json::{Map, Value};
use windlass_api::schema::protobuf::Writer;

/// The media type of this form, as it is answered.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The name client-go asks by, which no media type may have.
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
    out.message(8, |_| DONE)?;
    out.message(9, |out| named_schemas(out, document.get("definitions")))
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
    for required in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
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
    extensions(out, schema.as_object())
}

/// Members that begin with `x-`, each as the YAML of its value.
fn extensions(out: &mut Writer, schema: Option<&Map<String, Value>>) -> Done {
    let members = schema.into_iter().flatten();
    for (name, value) in members.filter(|(name, _)| name.starts_with("x-")) {
        out.message(31, |out| {
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
}
