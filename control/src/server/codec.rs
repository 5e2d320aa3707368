//! From stored bytes to what a client asked for: the object, rows of a table, or metadata alone; as JSON,
//! YAML or protobuf.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::negotiation::{Encoding, IncludeObject, Representation};
use super::protobuf;
use crate::registry::error::ApiError;
use crate::registry::list::Listing;
use crate::registry::strategy::{Column, Kind};
use crate::registry::{object_meta as meta, parse};
use crate::store::Entry;

/// One object, represented.
///
/// # Errors
/// When stored bytes are damaged.
pub fn object(
    kind: &Kind,
    representation: Representation,
    bytes: &Bytes,
) -> Result<Bytes, ApiError> {
    match representation {
        Representation::Json if kind.conversion.is_none() => Ok(bytes.clone()),
        Representation::Json => Ok(text(&kind.from_stored(value(bytes)?))),
        Representation::Yaml => yaml(&kind.from_stored(value(bytes)?)),
        Representation::Protobuf => protobuf::object(&kind.from_stored(value(bytes)?)),
        Representation::PartialMetadata(Encoding::Json) => Ok(text(&partial(&value(bytes)?))),
        Representation::PartialMetadata(Encoding::Protobuf) => protobuf::partial(&value(bytes)?),
        Representation::Table(include) => {
            let object = value(bytes)?;
            let version = meta::text(&object, "resourceVersion").to_owned();
            let rows = [row(kind, &object, include)];
            Ok(text(&table(
                kind,
                &json!({"resourceVersion": version}),
                &rows,
            )))
        }
    }
}

/// One object of a watch after the first: tables repeat no column definitions.
///
/// # Errors
/// When stored bytes are damaged.
pub fn watched(
    kind: &Kind,
    representation: Representation,
    bytes: &Bytes,
    first: bool,
) -> Result<Bytes, ApiError> {
    let Representation::Table(include) = representation else {
        return object(kind, representation, bytes);
    };
    if first {
        return object(kind, representation, bytes);
    }
    let object = value(bytes)?;
    let version = meta::text(&object, "resourceVersion").to_owned();
    let mut table = table(
        kind,
        &json!({"resourceVersion": version}),
        &[row(kind, &object, include)],
    );
    if let Some(table) = table.as_object_mut() {
        table.insert("columnDefinitions".into(), Value::Null);
    }
    Ok(text(&table))
}

/// An object that is not stored, such as a Status or a Scale, in the encoding its reader wants.
///
/// # Errors
/// When it is not of the kind it says.
pub fn written(object: &Value, encoding: Encoding) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Json => Ok(text(object)),
        Encoding::Protobuf => protobuf::object(object),
    }
}

/// A page of objects, represented. JSON lists are chunks that share the stored bytes.
///
/// # Errors
/// When stored bytes are damaged.
pub fn list(
    kind: &Kind,
    representation: Representation,
    listing: &Listing,
) -> Result<Vec<Bytes>, ApiError> {
    let metadata = list_metadata(listing);
    let converted = |entry: &Arc<Entry>| Ok(kind.from_stored(parse(entry)?));
    match representation {
        Representation::Json => json_list(kind, &metadata, listing),
        Representation::Yaml => {
            let items = listing.entries.iter().map(converted);
            let items = items.collect::<Result<Vec<_>, ApiError>>()?;
            let list = json!({
                "kind": format!("{}List", kind.info.gvk.kind),
                "apiVersion": kind.info.gvk.api_version(),
                "metadata": metadata, "items": items,
            });
            Ok(vec![yaml(&list)?])
        }
        Representation::Protobuf => {
            let objects = listing.entries.iter().map(converted);
            protobuf::list(&kind.info.gvk, &metadata, objects)
        }
        Representation::PartialMetadata(Encoding::Protobuf) => {
            let objects = listing.entries.iter().map(|entry| parse(entry));
            protobuf::partial_list(&metadata, objects)
        }
        Representation::PartialMetadata(Encoding::Json) => {
            let items = listing
                .entries
                .iter()
                .map(|entry| Ok(partial(&parse(entry)?)));
            let items = items.collect::<Result<Vec<_>, ApiError>>()?;
            Ok(vec![text(&json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items,
            }))])
        }
        Representation::Table(include) => {
            let row = |entry: &Arc<Entry>| Ok(row(kind, &parse(entry)?, include));
            let rows = listing
                .entries
                .iter()
                .map(row)
                .collect::<Result<Vec<_>, ApiError>>()?;
            Ok(vec![text(&table(kind, &metadata, &rows))])
        }
    }
}

fn json_list(kind: &Kind, metadata: &Value, listing: &Listing) -> Result<Vec<Bytes>, ApiError> {
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
        kind.info.gvk.kind,
        kind.info.gvk.api_version(),
    );
    let mut chunks = Vec::with_capacity(listing.entries.len() * 2 + 2);
    chunks.push(Bytes::from(head));
    for (at, entry) in listing.entries.iter().enumerate() {
        if at > 0 {
            chunks.push(Bytes::from_static(b","));
        }
        chunks.push(object(kind, Representation::Json, &entry.bytes)?);
    }
    chunks.push(Bytes::from_static(b"]}"));
    Ok(chunks)
}

fn list_metadata(listing: &Listing) -> Value {
    let mut metadata = json!({"resourceVersion": listing.revision.to_string()});
    if let Some(metadata) = metadata.as_object_mut() {
        if let Some(token) = &listing.continue_token {
            metadata.insert("continue".into(), token.clone().into());
        }
        if let Some(remaining) = listing.remaining {
            metadata.insert("remainingItemCount".into(), remaining.into());
        }
    }
    metadata
}

fn value(bytes: &Bytes) -> Result<Value, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| ApiError::Internal(format!("stored object: {e}")))
}

fn text(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn yaml(value: &Value) -> Result<Bytes, ApiError> {
    let text = serde_yaml::to_string(value);
    text.map(Bytes::from)
        .map_err(|error| ApiError::Internal(format!("encode YAML: {error}")))
}

fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata"),
    })
}

fn table(kind: &Kind, metadata: &Value, rows: &[Value]) -> Value {
    let definition = |column: &Column| {
        json!({
            "name": column.name, "type": column.kind,
            "format": if column.name == "Name" && column.priority == 0 { "name" } else { "" },
            "description": column.description, "priority": column.priority,
        })
    };
    let columns: Vec<_> = kind.strategy.columns().iter().map(definition).collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn row(kind: &Kind, object: &Value, include: IncludeObject) -> Value {
    let cells = kind.strategy.cells(object, Timestamp::now());
    let mut row = json!({"cells": cells});
    let included = match include {
        IncludeObject::None => return row,
        IncludeObject::Metadata => partial(object),
        IncludeObject::Object => kind.from_stored(object.clone()),
    };
    if let Some(row) = row.as_object_mut() {
        row.insert("object".into(), included);
    }
    row
}
