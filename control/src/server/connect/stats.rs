//! What a node and its pods use, as the node says it.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Daemon, NodeConnector, refused};
use crate::registry::error::ApiError;
use crate::store::Snapshot;

/// A summary of ten thousand containers has a few megabytes.
const MAX_SUMMARY: usize = 32 << 20;

impl NodeConnector {
    /// The summary of the node called `name`.
    pub(crate) async fn summary(&self, name: &str, snapshot: &Snapshot) -> Result<Value, ApiError> {
        let daemon = Daemon::of(name, snapshot)?;
        let request = Request::get("/stats/summary")
            .body(Body::empty())
            .map_err(|error| ApiError::Internal(error.to_string()))?;
        let response = self.send(&daemon, request).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(&daemon, response).await);
        }
        let body = Limited::new(response.into_body(), MAX_SUMMARY);
        let body = body.collect().await;
        let body = body.map_err(|error| daemon.unreachable("read the summary of", &error))?;
        serde_json::from_slice(&body.to_bytes())
            .map_err(|error| daemon.unreachable("understand the summary of", &error))
    }
}
