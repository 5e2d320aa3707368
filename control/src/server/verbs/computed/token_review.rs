//! TokenReview: whose token it is, for servers that authenticate through the API.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::Computed;
use super::self_subject_review::user_info;
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::server::verbs::Request;
use crate::store::Freshness;

pub(super) struct TokenReviews;

#[async_trait]
impl Computed for TokenReviews {
    fn resource(&self) -> (&'static str, &'static str) {
        ("authentication.k8s.io", "tokenreviews")
    }

    async fn create(&self, request: &Request<'_>, mut review: Value) -> Result<Value, ApiError> {
        let token = review.pointer("/spec/token").and_then(Value::as_str);
        let token = token.unwrap_or_default().to_owned();
        if token.is_empty() {
            return Err(ApiError::BadRequest(
                "token is required for TokenReview in authentication".into(),
            ));
        }
        let asked = review.pointer("/spec/audiences").and_then(Value::as_array);
        let asked = asked.into_iter().flatten().filter_map(Value::as_str);
        let audiences: Vec<String> = asked.map(str::to_owned).collect();
        let store = request.server.registry().store();
        let snapshot = store.snapshot(Freshness::Latest).await?;
        let found = request
            .server
            .authenticator
            .token(&snapshot, &token, &audiences)
            .await;
        let status = match found {
            Some((user, audiences)) => json!({
                "authenticated": true, "user": user_info(&user), "audiences": audiences,
            }),
            None => json!({"user": {}, "error": "invalid bearer token"}),
        };
        if let Some(review) = review.as_object_mut() {
            review.insert("status".into(), status);
        }
        // The token itself has served its purpose.
        meta::member_mut(&mut review, "spec").insert("token".into(), token.into());
        Ok(review)
    }
}
