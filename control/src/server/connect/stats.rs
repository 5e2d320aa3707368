//! What nodes tell of themselves and their pods, in JSON.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Daemon, NodeConnector, refused};
use crate::registry::error::ApiError;
use crate::store::Snapshot;

/// A summary of ten thousand containers has a few megabytes.
const MAX_ANSWER: usize = 32 << 20;

impl NodeConnector {
    /// What the node called `name` answers to `GET path`.
    pub(crate) async fn fetch(
        &self,
        name: &str,
        path: &'static str,
        snapshot: &Snapshot,
    ) -> Result<Value, ApiError> {
        let daemon = Daemon::of(name, snapshot)?;
        let request = Request::get(path)
            .body(Body::empty())
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        let response = self.send(&daemon, request).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(&daemon, response).await);
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await;
        let body = body.map_err(|error| daemon.unreachable("read the answer of", &error))?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|error| daemon.unreachable("understand the answer of", &error))
    }
}
