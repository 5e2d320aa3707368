//! Rows for printing: `meta.k8s.io/v1` Tables of stored objects.
//!
//! A kind's strategy reads the cells off the object. That object is decoded without its managed fields,
//! which are most of many objects and which no cell shows; what a row carries of its object is copied from
//! the stored bytes as it stands there.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::codec;
use super::negotiation::IncludeObject;
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Kind};

/// Size in bytes from which on a chunk is not added to.
const CHUNK: usize = 64 << 10;

/// The table of one object. Those of a watch repeat no column definitions after the first.
///
/// # Errors
/// When stored bytes are damaged.
pub(super) fn one(
    kind: &Kind,
    include: IncludeObject,
    bytes: &Bytes,
    columns: bool,
) -> Result<Bytes, ApiError> {
    let object = without_managed_fields(bytes)?;
    let metadata = json!({ "resourceVersion": meta::text(&object, "resourceVersion") });
    let mut table = head(columns.then_some(kind), &metadata)?;
    write_row(&mut table, kind, include, bytes, Timestamp::now())?;
    table.extend_from_slice(TAIL);
    Ok(table.into())
}

/// The table of a list's objects, in chunks.
///
/// # Errors
/// When stored bytes are damaged.
pub(super) fn list<'a>(
    kind: &Kind,
    include: IncludeObject,
    metadata: &Value,
    objects: impl Iterator<Item = &'a Bytes>,
) -> Result<Vec<Bytes>, ApiError> {
    let now = Timestamp::now();
    let mut chunks = Vec::new();
    let mut chunk = head(Some(kind), metadata)?;
    for (at, bytes) in objects.enumerate() {
        if at > 0 {
            chunk.push(b',');
        }
        write_row(&mut chunk, kind, include, bytes, now)?;
        if chunk.len() >= CHUNK {
            let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK + CHUNK / 8));
            chunks.push(Bytes::from(full));
        }
    }
    chunk.extend_from_slice(TAIL);
    chunks.push(Bytes::from(chunk));
    Ok(chunks)
}

const TAIL: &[u8] = b"]}";

/// Everything before the rows; with the columns of `kind`, if there is one.
fn head(kind: Option<&Kind>, metadata: &Value) -> Result<Vec<u8>, ApiError> {
    let definition = |column: &Column| {
        json!({
            "name": column.name, "type": column.kind,
            "format": if column.name == "Name" && column.priority == 0 { "name" } else { "" },
            "description": column.description, "priority": column.priority,
        })
    };
    let columns = kind.map(|kind| kind.strategy.columns().iter().map(definition));
    let columns: Option<Vec<_>> = columns.map(Iterator::collect);
    let mut out = br#"{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":"#.to_vec();
    write(&mut out, metadata)?;
    out.extend_from_slice(br#","columnDefinitions":"#);
    write(&mut out, &columns.into())?;
    out.extend_from_slice(br#","rows":["#);
    Ok(out)
}

fn write_row(
    out: &mut Vec<u8>,
    kind: &Kind,
    include: IncludeObject,
    bytes: &Bytes,
    now: Timestamp,
) -> Result<(), ApiError> {
    let object = without_managed_fields(bytes)?;
    out.extend_from_slice(br#"{"cells":"#);
    write(out, &kind.strategy.cells(&object, now).into())?;
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => {
            out.extend_from_slice(br#","object":"#);
            codec::write_partial(out, bytes)?;
        }
        IncludeObject::Object => {
            out.extend_from_slice(br#","object":"#);
            out.extend_from_slice(&codec::json(kind, bytes)?);
        }
    }
    out.push(b'}');
    Ok(())
}

fn write(out: &mut Vec<u8>, value: &Value) -> Result<(), ApiError> {
    serde_json::to_writer(out, value)
        .map_err(|error| ApiError::Internal(format!("encode a table: {error}")))
}

/// A stored object without `metadata.managedFields`.
fn without_managed_fields(bytes: &[u8]) -> Result<Value, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let object = Lean { path: LEFT_OUT }.deserialize(&mut json);
    object.map_err(|error| codec::damaged(&error))
}

const LEFT_OUT: &[&str] = &["metadata", "managedFields"];

/// Decodes an object without the member at a path.
struct Lean {
    path: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for Lean {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<Value, D::Error> {
        value.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Lean {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = match self.path {
                [last] if *last == name => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
                [first, rest @ ..] if *first == name => {
                    members.next_value_seed(Self { path: rest })?
                }
                _ => members.next_value()?,
            };
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_managed_fields_are_left_out() {
        let object = json!({
            "kind": "X", "managedFields": [1], "spec": {"metadata": {"managedFields": [2]}},
            "metadata": {"name": "a", "managedFields": [{"manager": "m"}], "labels": {"managedFields": "b"}},
        });
        let mut expected = object.clone();
        meta::member_mut(&mut expected, "metadata").shift_remove("managedFields");
        let lean = without_managed_fields(object.to_string().as_bytes()).unwrap();
        assert_eq!(lean, expected);
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for bytes in [&b"{\"metadata\":{"[..], b"[]", b""] {
            assert!(without_managed_fields(bytes).is_err());
        }
    }
}
