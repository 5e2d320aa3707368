//! From stored bytes to what a client asked for: the object, rows of a table, or metadata alone; as JSON,
//! YAML or protobuf.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::negotiation::{Encoding, Representation};
use super::{protobuf, table};
use crate::registry::error::ApiError;
use crate::registry::list::Listing;
use crate::registry::strategy::Kind;

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
        Representation::Json => json(kind, bytes),
        Representation::Yaml => yaml(&kind.from_stored(value(bytes)?)),
        Representation::Protobuf => protobuf::object(kind, bytes),
        Representation::PartialMetadata(Encoding::Json) => {
            let mut partial = Vec::with_capacity(bytes.len());
            write_partial(&mut partial, bytes)?;
            Ok(partial.into())
        }
        Representation::PartialMetadata(Encoding::Protobuf) => protobuf::partial(metadata(bytes)?),
        Representation::Table(include) => table::one(kind, include, bytes, true),
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
    match representation {
        Representation::Table(include) => table::one(kind, include, bytes, first),
        _ => object(kind, representation, bytes),
    }
}

/// An object that is not stored, such as a Status or a Scale, in the encoding its reader wants.
///
/// # Errors
/// When it is not of the kind it says.
pub fn written(object: &Value, encoding: Encoding) -> Result<Bytes, ApiError> {
    match encoding {
        Encoding::Json => Ok(text(object)),
        Encoding::Protobuf => protobuf::written(object),
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
    let bytes = listing.entries.iter().map(|entry| &entry.bytes);
    match representation {
        Representation::Json => json_list(
            &kind.info.gvk,
            &metadata,
            bytes.map(|bytes| json(kind, bytes)),
        ),
        Representation::Yaml => {
            let items = bytes.map(|bytes| Ok(kind.from_stored(value(bytes)?)));
            let items = items.collect::<Result<Vec<_>, ApiError>>()?;
            let list = json!({
                "kind": format!("{}List", kind.info.gvk.kind),
                "apiVersion": kind.info.gvk.api_version(),
                "metadata": metadata, "items": items,
            });
            Ok(vec![yaml(&list)?])
        }
        Representation::Protobuf => protobuf::list(kind, &metadata, bytes),
        Representation::PartialMetadata(Encoding::Protobuf) => {
            protobuf::partial_list(&metadata, bytes.map(|bytes| self::metadata(bytes)))
        }
        Representation::PartialMetadata(Encoding::Json) => {
            let partial = |bytes: &Bytes| {
                let mut partial = Vec::new();
                write_partial(&mut partial, bytes)?;
                Ok(partial.into())
            };
            json_list(&PARTIAL, &metadata, bytes.map(partial))
        }
        Representation::Table(include) => table::list(kind, include, &metadata, bytes),
    }
}

const PARTIAL: GroupVersionKind =
    GroupVersionKind::of("meta.k8s.io", "v1", "PartialObjectMetadata");

/// A list of encoded objects, in chunks that share their bytes.
fn json_list(
    gvk: &GroupVersionKind,
    metadata: &Value,
    objects: impl ExactSizeIterator<Item = Result<Bytes, ApiError>>,
) -> Result<Vec<Bytes>, ApiError> {
    let head = format!(
        r#"{{"kind":"{}List","apiVersion":"{}","metadata":{metadata},"items":["#,
        gvk.kind,
        gvk.api_version(),
    );
    let mut chunks = Vec::with_capacity(objects.len() * 2 + 2);
    chunks.push(Bytes::from(head));
    for (at, object) in objects.enumerate() {
        if at > 0 {
            chunks.push(Bytes::from_static(b","));
        }
        chunks.push(object?);
    }
    chunks.push(Bytes::from_static(b"]}"));
    Ok(chunks)
}

/// A stored object's JSON in the form of the kind: the stored bytes themselves, if that is the form.
pub(super) fn json(kind: &Kind, bytes: &Bytes) -> Result<Bytes, ApiError> {
    match kind.conversion {
        None => Ok(bytes.clone()),
        Some(_) => Ok(text(&kind.from_stored(value(bytes)?))),
    }
}

/// Writes a stored object's metadata as an object, in JSON.
pub(super) fn write_partial(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ApiError> {
    let metadata = metadata(bytes)?.get();
    out.extend_from_slice(
        br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#,
    );
    out.extend_from_slice(metadata.as_bytes());
    out.push(b'}');
    Ok(())
}

/// A stored object's metadata, as it is written there.
fn metadata(bytes: &[u8]) -> Result<&RawValue, ApiError> {
    #[derive(Deserialize)]
    struct Stored<'a> {
        #[serde(borrow)]
        metadata: &'a RawValue,
    }
    let stored: Stored<'_> = serde_json::from_slice(bytes).map_err(|error| damaged(&error))?;
    Ok(stored.metadata)
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
    serde_json::from_slice(bytes).map_err(|error| damaged(&error))
}

pub(super) fn damaged(error: &serde_json::Error) -> ApiError {
    ApiError::Internal(format!("stored object: {error}"))
}

fn text(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn yaml(value: &Value) -> Result<Bytes, ApiError> {
    let text = serde_yaml::to_string(value);
    text.map(Bytes::from)
        .map_err(|error| ApiError::Internal(format!("encode YAML: {error}")))
}
