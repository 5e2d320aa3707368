//! GET of one object.

use axum::response::Response;
use http::StatusCode;

use super::Request;
use crate::registry::error::ApiError;

pub(super) async fn respond(request: &Request<'_>) -> Result<Response, ApiError> {
    request.endpoint()?;
    let entry = request.server.registry().get(&request.call()).await?;
    request.object(StatusCode::OK, &entry.bytes)
}
