//! SelfSubjectReview: who the server thinks one is.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::Computed;
use crate::identity::UserInfo;
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::server::verbs::Request;

pub(super) struct SelfSubjectReviews;

#[async_trait]
impl Computed for SelfSubjectReviews {
    fn resource(&self) -> (&'static str, &'static str) {
        ("authentication.k8s.io", "selfsubjectreviews")
    }

    async fn create(&self, request: &Request<'_>, mut review: Value) -> Result<Value, ApiError> {
        let status = meta::member_mut(&mut review, "status");
        status.insert("userInfo".into(), user_info(&request.context.user));
        Ok(review)
    }
}

/// The user as `authentication.k8s.io` writes one down.
pub(super) fn user_info(user: &UserInfo) -> Value {
    let mut info = json!({"username": user.name});
    let rest = [
        ("uid", (!user.uid.is_empty()).then(|| json!(user.uid))),
        (
            "groups",
            (!user.groups.is_empty()).then(|| json!(user.groups)),
        ),
        ("extra", (!user.extra.is_empty()).then(|| json!(user.extra))),
    ];
    if let Some(info) = info.as_object_mut() {
        let given = rest
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        info.extend(given);
    }
    info
}
