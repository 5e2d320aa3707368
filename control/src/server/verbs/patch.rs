//! PATCH of an object, in four languages.
//!
//! A patch becomes a change (`registry/update.rs`) and runs as often as needed. Its result is checked
//! against the schema like any object from a client.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::body::Body;
use axum::response::Response;
use jiff::Timestamp;
use serde_json::Value;
use windlass_api::schema::{Decoded, decode_json, decode_yaml};

use super::{Request, body};
use crate::patch::{self, ApplyError, ApplyRequest, PatchError, json, merge, strategic_merge};
use crate::registry::Written;
use crate::registry::error::{ApiError, ApplyConflict, Target};
use crate::registry::field_error::FieldError;
use crate::registry::managers;
use crate::registry::strategy::Endpoint;
use crate::registry::update::Update;
use crate::server::negotiation::content_type;

const APPLY: &str = "application/apply-patch+yaml";
const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/strategic-merge-patch+json";

/// The language of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Json,
    Merge,
    StrategicMerge,
    Apply,
}

/// Whether the request is a server-side apply.
pub(super) fn is_apply(request: &Request<'_>) -> bool {
    content_type(&request.context.headers) == APPLY
}

fn language(request: &Request<'_>) -> Result<Language, ApiError> {
    match content_type(&request.context.headers) {
        "application/json-patch+json" => Ok(Language::Json),
        "application/merge-patch+json" => Ok(Language::Merge),
        "application/strategic-merge-patch+json" => Ok(Language::StrategicMerge),
        APPLY => Ok(Language::Apply),
        _ => Err(ApiError::UnsupportedMediaType(ACCEPTED.into())),
    }
}

pub(super) async fn respond(request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
    let endpoint = request.endpoint()?;
    let language = language(request)?;
    let bytes = body::read(body).await?;
    let malformed = |error: &dyn std::fmt::Display| {
        ApiError::BadRequest(format!("error decoding patch: {error}"))
    };
    let decoded = match language {
        Language::Apply => decode_yaml(&bytes).map_err(|error| malformed(&error))?,
        _ => decode_json(&bytes).map_err(|error| malformed(&error))?,
    };
    request.context.audit.sent(&decoded.value);
    if language == Language::Apply {
        return respond_apply(request, endpoint, decoded).await;
    }
    let warnings = Mutex::new(Vec::new());
    let change = |current: Option<&Value>| {
        let current = current.ok_or_else(|| ApiError::NotFound(request.target()))?;
        let kind = &request.served.kind;
        // A patch means the object in the form that the client sees.
        let patched = match kind.conversion {
            Some(_) => {
                let seen = kind.from_stored(current.clone());
                patch(request, language, &seen, &decoded.value)?
            }
            None => patch(request, language, current, &decoded.value)?,
        };
        let gvk = &kind.info.gvk;
        let ty = request.served.ty;
        let checked = body::inspect(request, gvk, ty, patched, &decoded.duplicates)?;
        let checked = checked.map_err(|misfit| {
            // Upstream shows a strategic patch as it came, and of the others what they led to.
            let shown = match language {
                Language::StrategicMerge => go_text(&decoded.value),
                _ => misfit.value.to_string(),
            };
            ApiError::Invalid {
                target: Target::default(),
                errors: vec![FieldError::invalid("patch", shown, misfit.detail)],
            }
        })?;
        *warnings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = checked.warnings;
        Ok(kind.to_stored(checked.object))
    };
    let update = Update {
        endpoint,
        change: &change,
        may_create: false,
        manages_fields: false,
    };
    let written = request
        .server
        .registry()
        .update(&request.call(), &update)
        .await?;
    let warnings = warnings
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    request.written(&written, &warnings)
}

fn patch(
    request: &Request<'_>,
    language: Language,
    current: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let schema = request.server.registry().schema();
    let patched = match language {
        Language::Json => json::patch(current, patch),
        Language::Merge => merge::patch(current, patch),
        _ => strategic_merge::patch(schema, request.served.ty, current, patch),
    };
    patched.map_err(unpatched)
}

/// Patches an object that has no type of its own in the registry, such as a Scale: in the languages
/// that need no schema, and strategically where a merge means the same.
pub(super) fn generic(
    request: &Request<'_>,
    current: &Value,
    patch: &Value,
) -> Result<Value, ApiError> {
    let patched = match language(request)? {
        Language::Json => json::patch(current, patch),
        // An apply is answered by [`apply`] before it gets here.
        Language::Merge | Language::StrategicMerge | Language::Apply => {
            merge::patch(current, patch)
        }
    };
    patched.map_err(unpatched)
}

fn unpatched(error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(text) => ApiError::BadRequest(text),
        PatchError::TooLarge(text) => ApiError::PatchTooLarge(text),
        PatchError::DoesNotFit(text) => ApiError::UnprocessablePatch(text),
    }
}

/// A value as Go prints it with `%+v`: maps by key, texts without quotes.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(go_text).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(fields) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            let fields = sorted
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_text(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
        scalar => scalar.to_string(),
    }
}

/// Server-side apply.
async fn respond_apply(
    request: &Request<'_>,
    endpoint: Endpoint,
    decoded: Decoded,
) -> Result<Response, ApiError> {
    let kind = &request.served.kind;
    let (gvk, ty) = (&kind.info.gvk, request.served.ty);
    let checked = body::check(request, gvk, ty, decoded.value, &decoded.duplicates)?;
    let config = kind.to_stored(checked.object);
    let written = apply(request, endpoint, &config).await?;
    request.written(&written, &checked.warnings)
}

/// Applies `config`, in the stored form, to what `endpoint` may write of the object.
pub(super) async fn apply(
    request: &Request<'_>,
    endpoint: Endpoint,
    config: &Value,
) -> Result<Written, ApiError> {
    let manager = request.context.query.get("fieldManager");
    if manager.is_empty() {
        let target = Target {
            group: "meta.k8s.io".into(),
            kind: "PatchOptions".into(),
            ..Target::default()
        };
        let detail = "is required for apply patch";
        let errors = vec![FieldError::required("fieldManager", detail)];
        return Err(ApiError::Invalid { target, errors });
    }
    let call = request.call();
    // Differs from Kubernetes: fields are owned in the form in which the object is stored, and the entry
    // in managedFields names that version, whichever the client applied.
    let api_version = call.served.kind.info.gvk.api_version();
    let apply = ApplyRequest {
        manager,
        api_version: &api_version,
        subresource: endpoint.name(),
        force: request.context.query.flag("force"),
        now: Timestamp::now(),
        ignored: managers::ignored(&call, endpoint),
    };
    let schema = request.server.registry().schema();
    let change = |current: Option<&Value>| {
        patch::apply(schema, call.served.ty, current, config, &apply).map_err(refused)
    };
    let update = Update {
        endpoint,
        change: &change,
        may_create: endpoint == Endpoint::Main,
        manages_fields: true,
    };
    request.server.registry().update(&call, &update).await
}

fn refused(error: ApplyError) -> ApiError {
    match error {
        ApplyError::Conflicts(conflicts) => {
            let conflict = |conflict: patch::Conflict| ApplyConflict {
                message: conflict.cause(),
                field: conflict.path,
            };
            ApiError::ApplyConflict(conflicts.into_iter().map(conflict).collect())
        }
        given @ ApplyError::ManagedFieldsGiven => ApiError::BadRequest(given.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_shown_as_go_shows_them() {
        let value = json!({"spec": {"replicas": 1, "paused": null}, "a": ["x y", true, {}, []]});
        let expected = "map[a:[x y true map[] []] spec:map[paused:<nil> replicas:1]]";
        assert_eq!(go_text(&value), expected);
    }
}
