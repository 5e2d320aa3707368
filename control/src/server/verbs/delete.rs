//! DELETE of an object, and of a collection.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{Request, body, list, represented};
use crate::registry::delete::{DeleteOptions, Deleted};
use crate::registry::error::ApiError;
use crate::registry::list::ListQuery;
use crate::registry::{Call, WriteOptions, object_meta as meta};
use crate::server::{codec, status};

const DELETE_OPTIONS: GroupVersionKind = GroupVersionKind::of("", "v1", "DeleteOptions");

pub(super) async fn respond(request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
    request.endpoint()?;
    let options = options(request, body).await?;
    let write = write_options(request, &options);
    let call = Call {
        options: &write,
        ..request.call()
    };
    match request.server.registry().delete(&call, &options).await? {
        Deleted::Marked(bytes) => request.object(StatusCode::OK, &bytes),
        // A pod's deletion answers with the pod, as upstream's does for kinds that end gracefully.
        Deleted::Gone(object) => {
            let status = status::deleted(&request.target(), meta::uid(&object));
            request.answer(StatusCode::OK, &status)
        }
    }
}

/// Deletes every object of the collection that the selectors let through, and answers with them.
pub(super) async fn respond_collection(
    request: &Request<'_>,
    body: Body,
) -> Result<Response, ApiError> {
    let representation = request.representation()?;
    let options = options(request, body).await?;
    let write = write_options(request, &options);
    let query = ListQuery {
        filter: list::filter(request)?,
        ..list::query(request)?
    };
    let registry = request.server.registry();
    let listing = registry.list(&request.call(), &query).await?;
    for entry in &listing.entries {
        let call = Call {
            served: request.call().served,
            namespace: entry.key.namespace(),
            name: entry.key.name(),
            options: &write,
        };
        match registry.delete(&call, &options).await {
            // Somebody else was faster.
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(other) => return Err(other),
        }
    }
    list::audit(request, &listing);
    let chunks = codec::list(&request.served.kind, representation, &listing)?;
    let body = Body::from(chunks.concat());
    Ok(represented(StatusCode::OK, representation, body))
}

fn write_options(request: &Request<'_>, options: &DeleteOptions) -> WriteOptions {
    let dry_run = request.options.dry_run || options.dry_run.iter().any(|value| value == "All");
    WriteOptions {
        dry_run,
        ..request.options.clone()
    }
}

/// Options from the body, or from the query where the body says nothing.
async fn options(request: &Request<'_>, body: Body) -> Result<DeleteOptions, ApiError> {
    let bytes = body::read(body).await?;
    let given = if bytes.is_empty() {
        serde_json::json!({})
    } else {
        let decoded = body::decode(request, &DELETE_OPTIONS, &bytes)?;
        let kind = decoded.value.get("kind").and_then(Value::as_str);
        if kind.is_some_and(|kind| !["", "DeleteOptions"].contains(&kind)) {
            let text = "decoded object cannot be converted to DeleteOptions";
            return Err(ApiError::BadRequest(text.into()));
        }
        decoded.value
    };
    options_of(request, given)
}

/// Options from a DeleteOptions object, or from the query where it says nothing.
pub(super) fn options_of(request: &Request<'_>, given: Value) -> Result<DeleteOptions, ApiError> {
    let mut options = DeleteOptions::deserialize(given)
        .map_err(|error| ApiError::BadRequest(format!("DeleteOptions: {error}")))?;
    let query = &request.context.query;
    if options.grace_period_seconds.is_none() && !query.get("gracePeriodSeconds").is_empty() {
        let text = query.get("gracePeriodSeconds");
        let seconds = text.parse().map_err(|_| {
            ApiError::BadRequest(format!("gracePeriodSeconds: {text:?} is not a number"))
        })?;
        options.grace_period_seconds = Some(seconds);
    }
    if options.propagation_policy.is_none() && !query.get("propagationPolicy").is_empty() {
        options.propagation_policy = Some(query.get("propagationPolicy").into());
    }
    if options.orphan_dependents.is_none() && !query.get("orphanDependents").is_empty() {
        options.orphan_dependents = Some(query.flag("orphanDependents"));
    }
    Ok(options)
}
