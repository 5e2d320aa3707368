//! Reading and checking request bodies.

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;
use windlass_api::schema::{
    DecodeError, Decoded, Duplicate, TypeRef, decode_json, decode_yaml, strict_messages,
};

use super::Request;
use crate::registry::error::ApiError;
use crate::server::negotiation::{BodyFormat, body_format};
use crate::server::protobuf;

/// Largest body the server reads, upstream's limit.
const MAX_BODY: usize = 3 << 20;

/// What to do about fields that are unknown or given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// An object from a client, checked against its schema.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) object: Value,
    /// What the client is told about unknown and duplicate fields.
    pub(super) warnings: Vec<String>,
}

/// A value that does not fit its schema.
#[derive(Debug)]
pub(super) struct Misfit {
    /// What is wrong with it.
    pub(super) detail: String,
    pub(super) value: Value,
}

/// The whole body.
pub(super) async fn read(body: Body) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(ApiError::TooLarge(MAX_BODY))
        }
        Err(error) => Err(ApiError::BadRequest(format!(
            "read the request body: {error}"
        ))),
    }
}

pub(super) fn field_validation(request: &Request<'_>) -> Result<FieldValidation, ApiError> {
    match request.context.query.get("fieldValidation") {
        "" | "Warn" => Ok(FieldValidation::Warn),
        "Ignore" => Ok(FieldValidation::Ignore),
        "Strict" => Ok(FieldValidation::Strict),
        other => Err(ApiError::BadRequest(format!(
            "fieldValidation: Unsupported value: {other:?}: supported values: \"\", \"Ignore\", \"Strict\", \"Warn\""
        ))),
    }
}

/// Decodes bytes in the format the headers name; those of a message are taken for an object of `gvk`.
pub(super) fn decode(
    request: &Request<'_>,
    gvk: &GroupVersionKind,
    bytes: &[u8],
) -> Result<Decoded, ApiError> {
    let decoded = match body_format(&request.context.headers, protobuf::speaks(gvk))? {
        BodyFormat::Json => decode_json(bytes).map_err(|error| malformed(&error))?,
        BodyFormat::Yaml => decode_yaml(bytes).map_err(|error| malformed(&error))?,
        // A message has no names: no field of it can be unknown, and repeating one is no mistake.
        BodyFormat::Protobuf => Decoded {
            value: protobuf::decode(gvk, bytes)?,
            duplicates: Vec::new(),
        },
    };
    request.context.audit.sent(&decoded.value);
    Ok(decoded)
}

fn malformed(error: &DecodeError) -> ApiError {
    ApiError::BadRequest(format!("the object provided is unrecognized: {error}"))
}

/// Reads an object of the request's kind.
pub(super) async fn object(request: &Request<'_>, body: Body) -> Result<Checked, ApiError> {
    let gvk = request.served.kind.info.gvk.clone();
    of_kind(request, body, &gvk, request.served.ty).await
}

/// Reads an object of the kind `gvk`, a subresource's perhaps.
pub(super) async fn of_kind(
    request: &Request<'_>,
    body: Body,
    gvk: &GroupVersionKind,
    ty: TypeRef,
) -> Result<Checked, ApiError> {
    let bytes = read(body).await?;
    let Decoded { value, duplicates } = decode(request, gvk, &bytes)?;
    check(request, gvk, ty, value, &duplicates)
}

/// Checks a decoded value: right kind, right types, known fields.
pub(super) fn check(
    request: &Request<'_>,
    gvk: &GroupVersionKind,
    ty: TypeRef,
    value: Value,
    duplicates: &[Duplicate],
) -> Result<Checked, ApiError> {
    let checked = inspect(request, gvk, ty, value, duplicates)?;
    checked.map_err(|Misfit { detail, .. }| {
        ApiError::BadRequest(format!(
            "{} in version {:?} cannot be handled as a {}: {detail}",
            gvk.kind, gvk.version, gvk.kind
        ))
    })
}

/// As [`check`]; a value that does not fit its schema comes back, with the reason.
pub(super) fn inspect(
    request: &Request<'_>,
    gvk: &GroupVersionKind,
    ty: TypeRef,
    mut value: Value,
    duplicates: &[Duplicate],
) -> Result<Result<Checked, Misfit>, ApiError> {
    if !value.is_object() {
        let text = format!("the body is not a {} object", gvk.kind);
        return Err(ApiError::BadRequest(text));
    }
    identify(gvk, &mut value)?;
    let report = request.server.registry().schema().check(ty, &mut value);
    if let Some(error) = report.type_errors.first() {
        let detail = error.message.clone();
        return Ok(Err(Misfit { detail, value }));
    }
    let messages = strict_messages(duplicates, &report.unknown);
    let warnings = match field_validation(request)? {
        FieldValidation::Strict if !messages.is_empty() => {
            let detail = format!("strict decoding error: {}", messages.join(", "));
            return Ok(Err(Misfit { detail, value }));
        }
        FieldValidation::Warn => messages,
        _ => Vec::new(),
    };
    let object = value;
    Ok(Ok(Checked { object, warnings }))
}

/// Fills in apiVersion and kind, which typed clients may leave out, or says they are wrong.
fn identify(gvk: &GroupVersionKind, value: &mut Value) -> Result<(), ApiError> {
    let api_version = gvk.api_version();
    for (field, expected) in [("apiVersion", &*api_version), ("kind", &*gvk.kind)] {
        let found = value.get(field).and_then(Value::as_str).unwrap_or_default();
        if !found.is_empty() && found != expected {
            let text = format!(
                "the {field} in the data ({found}) does not match the expected {field} ({expected})"
            );
            return Err(ApiError::BadRequest(text));
        }
    }
    let Some(object) = value.as_object_mut() else {
        return Ok(());
    };
    if object.contains_key("apiVersion") && object.contains_key("kind") {
        object.insert("kind".into(), gvk.kind.as_ref().into());
        object.insert("apiVersion".into(), api_version.as_ref().into());
        return Ok(());
    }
    // Stored objects begin with their kind, as clients print them.
    let mut rest = std::mem::take(object);
    object.insert("kind".into(), gvk.kind.as_ref().into());
    object.insert("apiVersion".into(), api_version.as_ref().into());
    rest.shift_remove("kind");
    rest.shift_remove("apiVersion");
    object.extend(rest);
    Ok(())
}
