//! PUT of an object.

use axum::body::Body;
use axum::response::Response;
use serde_json::Value;

use super::{Request, body};
use crate::registry::error::ApiError;
use crate::registry::update::Update;

pub(super) async fn respond(request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
    let endpoint = request.endpoint()?;
    let checked = body::object(request, body).await?;
    let object = request.served.kind.to_stored(checked.object);
    let update = Update {
        endpoint,
        change: &|_: Option<&Value>| Ok(object.clone()),
        may_create: request.served.kind.strategy.creates_on_update(),
        manages_fields: false,
    };
    let written = request
        .server
        .registry()
        .update(&request.call(), &update)
        .await?;
    request.written(&written, &checked.warnings)
}
