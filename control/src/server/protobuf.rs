//! Objects in protobuf: stored JSON and answers into envelopes, request bodies out of them.
//!
//! Only built-in kinds have a protobuf form, so the built-in schema is all that is asked; metadata alone
//! can be had of every kind. What JSON clients are sent is never touched by any of this.

use bytes::Bytes;
use serde::Deserializer;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use windlass_api::resource::GroupVersionKind;
use windlass_api::schema::protobuf::{Problem, ProtobufError, envelope};
use windlass_api::schema::{Schema, TypeRef};

use super::codec;
use crate::registry::error::ApiError;
use crate::registry::strategy::Kind;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const META: &str = "meta.k8s.io/v1";
/// Length of the part of a damaged body that its sender is shown.
const SHOWN: usize = 30;

/// Whether objects of the kind have a protobuf form.
#[must_use]
pub(super) fn speaks(gvk: &GroupVersionKind) -> bool {
    let schema = Schema::builtin();
    schema.kind(gvk).is_some_and(|ty| schema.has_protobuf(ty))
}

/// A stored object in its envelope, in the form of the kind.
///
/// # Errors
/// When the kind has no protobuf form, or the stored bytes are damaged.
pub(super) fn object(kind: &Kind, bytes: &Bytes) -> Result<Bytes, ApiError> {
    let gvk = &kind.info.gvk;
    let message = message(kind, Schema::builtin().kind(gvk), bytes)?;
    Ok(envelope::seal(&gvk.api_version(), &gvk.kind, &message).into())
}

/// An object that is not stored in its envelope, by its own `apiVersion` and `kind`.
///
/// # Errors
/// When the kind has no protobuf form, or the object is not of its kind's type.
pub(super) fn written(object: &Value) -> Result<Bytes, ApiError> {
    let text = |field: &str| object.get(field).and_then(Value::as_str);
    let (api_version, kind) = (
        text("apiVersion").unwrap_or_default(),
        text("kind").unwrap_or_default(),
    );
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        kind: kind.to_owned().into(),
    };
    let message = encode(Schema::builtin().kind(&gvk), object)?;
    Ok(envelope::seal(api_version, kind, &message).into())
}

/// A list of a kind's stored objects in its envelope, in chunks.
///
/// # Errors
/// The first that [`object`] would have.
pub(super) fn list<'a>(
    kind: &Kind,
    metadata: &Value,
    objects: impl Iterator<Item = &'a Bytes>,
) -> Result<Vec<Bytes>, ApiError> {
    let gvk = &kind.info.gvk;
    let ty = Schema::builtin().kind(gvk);
    let items = objects.map(|bytes| message(kind, ty, bytes));
    let metadata = encode(Schema::builtin().definition(LIST_META), metadata)?;
    envelope::list(
        &gvk.api_version(),
        &format!("{}List", gvk.kind),
        &metadata,
        items,
    )
}

/// An object's metadata in its envelope.
///
/// # Errors
/// When the metadata is not of its type.
pub(super) fn partial<'de>(metadata: impl Deserializer<'de>) -> Result<Bytes, ApiError> {
    let message = partial_message(metadata)?;
    Ok(envelope::seal(META, "PartialObjectMetadata", &message).into())
}

/// The metadata of a list's objects in its envelope, in chunks.
///
/// # Errors
/// The first that [`partial`] would have, or that `objects` gives.
pub(super) fn partial_list<'a>(
    metadata: &Value,
    objects: impl Iterator<Item = Result<&'a RawValue, ApiError>>,
) -> Result<Vec<Bytes>, ApiError> {
    let items = objects.map(|metadata| partial_message(metadata?));
    let metadata = encode(Schema::builtin().definition(LIST_META), metadata)?;
    envelope::list(META, "PartialObjectMetadataList", &metadata, items)
}

fn partial_message<'de>(metadata: impl Deserializer<'de>) -> Result<Vec<u8>, ApiError> {
    let metadata = encode(Schema::builtin().definition(OBJECT_META), metadata)?;
    Ok(envelope::wrap(1, &metadata))
}

/// A stored object's message: straight from its text, unless it is stored in another form.
fn message(kind: &Kind, ty: Option<TypeRef>, bytes: &Bytes) -> Result<Vec<u8>, ApiError> {
    if kind.conversion.is_none() {
        return encode(ty, &mut serde_json::Deserializer::from_slice(bytes));
    }
    let object = serde_json::from_slice(bytes).map_err(|error| codec::damaged(&error))?;
    encode(ty, kind.from_stored(object))
}

fn encode<'de>(ty: Option<TypeRef>, object: impl Deserializer<'de>) -> Result<Vec<u8>, ApiError> {
    let ty = ty.ok_or_else(|| failed(&Problem::NoForm.into()))?;
    let message = Schema::builtin().encode_protobuf(ty, object);
    message.map_err(|error| failed(&error))
}

fn failed(error: &ProtobufError) -> ApiError {
    ApiError::Internal(format!("encode protobuf: {error}"))
}

/// Reads an object of the kind `gvk` from its envelope, with the `apiVersion` and `kind` its sender gave.
///
/// # Errors
/// [`ApiError::BadRequest`] when the bytes are no such object.
pub(super) fn decode(gvk: &GroupVersionKind, bytes: &[u8]) -> Result<Value, ApiError> {
    let kind = &gvk.kind;
    let opened = envelope::open(bytes).map_err(|error| {
        ApiError::BadRequest(format!(
            "the object provided is unrecognized (must be of type {kind}): {error} ({})",
            shown(bytes)
        ))
    })?;
    let mut object = Map::new();
    for (field, text) in [("kind", opened.kind), ("apiVersion", opened.api_version)] {
        if !text.is_empty() {
            object.insert(field.into(), text.into());
        }
    }
    // Somebody else's message would mean nothing here; who reads on says that it is of another kind.
    if !opened.kind.is_empty() && opened.kind != *kind {
        return Ok(Value::Object(object));
    }
    let schema = Schema::builtin();
    let ty = schema.kind(gvk).ok_or_else(|| Problem::NoForm.into());
    let decoded = ty.and_then(|ty: TypeRef| schema.decode_protobuf(ty, opened.message));
    let decoded = decoded.map_err(|error: ProtobufError| {
        ApiError::BadRequest(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: {error}",
            gvk.version
        ))
    })?;
    if let Value::Object(decoded) = decoded {
        object.extend(decoded);
    }
    Ok(Value::Object(object))
}

/// The start of a body that is no text, as upstream shows it.
fn shown(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    if bytes.is_empty() {
        return "<empty>".into();
    }
    let mut text = String::new();
    for byte in bytes.iter().take(SHOWN) {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    if bytes.len() > SHOWN {
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONFIG_MAP: GroupVersionKind = GroupVersionKind::of("", "v1", "ConfigMap");

    #[test]
    fn an_object_comes_out_of_its_envelope_as_it_went_in() {
        let config_map = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"},
        });
        let bytes = written(&config_map).unwrap();
        assert_eq!(decode(&CONFIG_MAP, &bytes).unwrap(), config_map);
    }

    #[test]
    fn a_message_of_another_kind_is_not_read() {
        let bytes = envelope::seal("v1", "Secret", b"\xff");
        let expected = json!({"kind": "Secret", "apiVersion": "v1"});
        assert_eq!(decode(&CONFIG_MAP, &bytes).unwrap(), expected);
    }

    #[test]
    fn damaged_bodies_are_refused_in_upstreams_words() {
        let cases: [(&[u8], &str); 3] = [
            (
                b"{\"kind\":",
                "the object provided is unrecognized (must be of type ConfigMap): provided data does \
                 not appear to be a protobuf message, expected prefix [107 56 115 0] (7b226b696e64223a)",
            ),
            (
                b"",
                "the object provided is unrecognized (must be of type ConfigMap): provided data does \
                 not appear to be a protobuf message, expected prefix [107 56 115 0] (<empty>)",
            ),
            (
                b"k8s\0\x12\x02\x0a\x05",
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: metadata: unexpected EOF",
            ),
        ];
        for (bytes, text) in cases {
            assert_eq!(decode(&CONFIG_MAP, bytes).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn a_custom_kind_has_metadata_only() {
        let custom = json!({
            "kind": "X", "apiVersion": "example.com/v1", "metadata": {"name": "a"}, "spec": {},
        });
        assert!(written(&custom).is_err());
        let bytes = partial(&custom["metadata"]).unwrap();
        let opened = envelope::open(&bytes).unwrap();
        assert_eq!(opened.kind, "PartialObjectMetadata");
        assert_eq!(opened.message, b"\x0a\x03\x0a\x01a");
    }
}
