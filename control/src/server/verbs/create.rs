//! POST of an object.

use axum::body::Body;
use axum::response::Response;

use super::{Request, body};
use crate::registry::error::ApiError;

pub(super) async fn respond(request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
    if !request.context.info.name.is_empty() {
        let verb = request.context.info.verb.into();
        return Err(ApiError::MethodNotAllowed {
            target: request.target(),
            verb,
        });
    }
    let checked = body::object(request, body).await?;
    let written = request
        .server
        .registry()
        .create(
            &request.call(),
            request.served.kind.to_stored(checked.object),
        )
        .await?;
    request.written(&written, &checked.warnings)
}
