//! GET of a collection.

use axum::body::Body;
use axum::response::Response;
use http::StatusCode;

use super::{Request, represented};
use crate::registry::error::ApiError;
use crate::registry::field_error::FieldError;
use crate::registry::list::{Filter, ListQuery, Listing, invalid_options};
use crate::server::negotiation::Representation;
use crate::server::{codec, compression};

pub(super) async fn respond(request: &Request<'_>) -> Result<Response, ApiError> {
    let representation = request.representation()?;
    if !request.context.query.get("sendInitialEvents").is_empty() {
        let why = "sendInitialEvents is forbidden for list";
        return Err(invalid_options(FieldError::forbidden(
            "sendInitialEvents",
            why,
        )));
    }
    let query = query(request)?;
    let listing = request
        .server
        .registry()
        .list(&request.call(), &query)
        .await?;
    audit(request, &listing);
    let chunks = codec::list(&request.served.kind, representation, &listing)?;
    let response = represented(StatusCode::OK, representation, Body::empty());
    Ok(compression::fill(
        response,
        &request.context.headers,
        chunks,
    ))
}

/// Shows the audit log what is answered.
pub(super) fn audit(request: &Request<'_>, listing: &Listing) {
    request.context.audit.answered(|| {
        let chunks = codec::list(&request.served.kind, Representation::Json, listing);
        let whole: Vec<u8> = chunks.ok()?.into_iter().flatten().collect();
        serde_json::from_slice(&whole).ok()
    });
}

/// The filter of a list, a watch or a deletion of many.
pub(super) fn filter(request: &Request<'_>) -> Result<Filter, ApiError> {
    let query = &request.context.query;
    Filter::parse(
        &request.served.kind,
        query.get("labelSelector"),
        query.get("fieldSelector"),
    )
}

pub(super) fn query(request: &Request<'_>) -> Result<ListQuery, ApiError> {
    let query = &request.context.query;
    let limit = match query.get("limit") {
        "" => 0,
        text => text.parse().map_err(|_| {
            ApiError::BadRequest(format!("limit: Invalid value: {text:?}: must be a number"))
        })?,
    };
    Ok(ListQuery {
        filter: filter(request)?,
        limit,
        continue_token: query.get("continue").into(),
        resource_version: query.get("resourceVersion").into(),
        resource_version_match: query.get("resourceVersionMatch").into(),
    })
}
