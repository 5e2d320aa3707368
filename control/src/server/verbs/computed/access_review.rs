//! Reviews of access: whether somebody may do something, and what one may do.
//!
//! A review asks the same question that every request is asked (`server/authz/`), about a request that
//! is not made.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::Computed;
use crate::identity::UserInfo;
use crate::registry::error::ApiError;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::server::authz;
use crate::server::request_info::{RequestInfo, known_verb};
use crate::server::verbs::Request;
use crate::store::Freshness;

const GROUP: &str = "authorization.k8s.io";

pub(super) struct SubjectAccessReviews;
pub(super) struct SelfSubjectAccessReviews;
pub(super) struct LocalSubjectAccessReviews;
pub(super) struct SelfSubjectRulesReviews;

#[async_trait]
impl Computed for SubjectAccessReviews {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "subjectaccessreviews")
    }

    async fn create(&self, request: &Request<'_>, review: Value) -> Result<Value, ApiError> {
        let mut errors = attribute_errors(&review);
        errors.extend(subject_errors(&review));
        refuse(request, errors)?;
        let user = subject(&review);
        decide(request, review, &user).await
    }
}

#[async_trait]
impl Computed for SelfSubjectAccessReviews {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "selfsubjectaccessreviews")
    }

    async fn create(&self, request: &Request<'_>, review: Value) -> Result<Value, ApiError> {
        refuse(request, attribute_errors(&review))?;
        decide(request, review, &request.context.user).await
    }
}

#[async_trait]
impl Computed for LocalSubjectAccessReviews {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "localsubjectaccessreviews")
    }

    async fn create(&self, request: &Request<'_>, review: Value) -> Result<Value, ApiError> {
        let mut errors = attribute_errors(&review);
        errors.extend(subject_errors(&review));
        errors.extend(local_errors(&review, &request.context.info.namespace));
        refuse(request, errors)?;
        let user = subject(&review);
        decide(request, review, &user).await
    }
}

#[async_trait]
impl Computed for SelfSubjectRulesReviews {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "selfsubjectrulesreviews")
    }

    async fn create(&self, request: &Request<'_>, mut review: Value) -> Result<Value, ApiError> {
        let namespace = review.pointer("/spec/namespace").and_then(Value::as_str);
        if namespace.unwrap_or_default().is_empty() {
            return Err(ApiError::BadRequest("no namespace on request".into()));
        }
        let namespace = namespace.unwrap_or_default().to_owned();
        let store = request.server.registry().store();
        let snapshot = store.snapshot(Freshness::Latest).await?;
        let grounds = request.server.grounds(&snapshot).await?;
        let rules = authz::rules(&request.context.user, &namespace, grounds);
        if let Some(review) = review.as_object_mut() {
            review.insert("status".into(), rules);
        }
        Ok(review)
    }
}

fn refuse(request: &Request<'_>, errors: Vec<FieldError>) -> Result<(), ApiError> {
    if errors.is_empty() {
        return Ok(());
    }
    let target = request.target();
    Err(ApiError::Invalid { target, errors })
}

/// A review is about a resource or about a path.
fn attribute_errors(review: &Value) -> Vec<FieldError> {
    let given = |field: &str| {
        let value = review.pointer(&format!("/spec/{field}"));
        value.filter(|value| !value.is_null()).cloned()
    };
    match (given("resourceAttributes"), given("nonResourceAttributes")) {
        (Some(_), Some(path)) => vec![FieldError::invalid(
            "spec.nonResourceAttributes",
            path,
            "cannot be specified in combination with resourceAttributes",
        )],
        (None, None) => vec![FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}

fn subject_errors(review: &Value) -> Option<FieldError> {
    let user = review.pointer("/spec/user").and_then(Value::as_str);
    let groups = review.pointer("/spec/groups").and_then(Value::as_array);
    let nobody = user.unwrap_or_default().is_empty() && groups.is_none_or(Vec::is_empty);
    nobody.then(|| {
        FieldError::invalid(
            "spec.user",
            "",
            "at least one of user or group must be specified",
        )
    })
}

fn local_errors(review: &Value, namespace: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let asked = review.pointer("/spec/resourceAttributes/namespace");
    let asked = asked.and_then(Value::as_str).unwrap_or_default();
    if asked != namespace {
        let path = "spec.resourceAttributes.namespace";
        errors.push(FieldError::invalid(
            path,
            asked,
            "must match metadata.namespace",
        ));
    }
    if let Some(path) = review.pointer("/spec/nonResourceAttributes")
        && !path.is_null()
    {
        let detail = "disallowed on this kind of request";
        errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            path.clone(),
            detail,
        ));
    }
    errors
}

/// Whom a review is about.
fn subject(review: &Value) -> UserInfo {
    let text = |field: &str| {
        let value = review.pointer(&format!("/spec/{field}"));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let texts = |value: &Value| -> Vec<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .filter_map(|item| Some(item.as_str()?.to_owned()))
            .collect()
    };
    let extra = review.pointer("/spec/extra").and_then(Value::as_object);
    let extra = extra.into_iter().flatten();
    UserInfo {
        name: text("user"),
        uid: text("uid"),
        groups: review
            .pointer("/spec/groups")
            .map(texts)
            .unwrap_or_default(),
        extra: extra
            .map(|(key, values)| (key.to_lowercase(), texts(values)))
            .collect(),
    }
}

/// The request that the review asks about.
fn asked(review: &Value) -> RequestInfo {
    let field = |of: &str, name: &str| {
        let value = review.pointer(&format!("/spec/{of}/{name}"));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    if review
        .pointer("/spec/resourceAttributes")
        .is_none_or(Value::is_null)
    {
        let of = |name| field("nonResourceAttributes", name);
        return RequestInfo {
            verb: known_verb(&of("verb")),
            path: of("path"),
            ..RequestInfo::default()
        };
    }
    let of = |name| field("resourceAttributes", name);
    RequestInfo {
        verb: known_verb(&of("verb")),
        is_resource: true,
        group: of("group"),
        version: of("version"),
        namespace: of("namespace"),
        resource: of("resource"),
        subresource: of("subresource"),
        name: of("name"),
        ..RequestInfo::default()
    }
}

async fn decide(
    request: &Request<'_>,
    mut review: Value,
    user: &UserInfo,
) -> Result<Value, ApiError> {
    let store = request.server.registry().store();
    let snapshot = store.snapshot(Freshness::Latest).await?;
    let fields = review.pointer("/spec/resourceAttributes/fieldSelector/rawSelector");
    let fields = fields.and_then(Value::as_str).unwrap_or_default();
    let grounds = request.server.grounds(&snapshot).await?;
    let allowed = authz::may(user, &asked(&review), grounds, fields);
    let status = meta::member_mut(&mut review, "status");
    *status = serde_json::Map::new();
    status.insert("allowed".into(), json!(allowed));
    Ok(review)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_review_is_about_one_thing_and_somebody() {
        let both = json!({"spec": {"resourceAttributes": {}, "nonResourceAttributes": {}}});
        assert_eq!(
            texts(&attribute_errors(&both)),
            [
                "spec.nonResourceAttributes: Invalid value: {}: cannot be specified in combination with resourceAttributes"
            ]
        );
        assert_eq!(texts(&attribute_errors(&json!({"spec": {}}))).len(), 1);
        assert!(subject_errors(&json!({"spec": {"user": "a"}})).is_none());
        assert!(subject_errors(&json!({"spec": {"groups": []}})).is_some());
    }

    #[test]
    fn a_local_review_stays_in_its_namespace() {
        let review = json!({"spec": {"resourceAttributes": {"namespace": "b"}}});
        assert_eq!(
            texts(&local_errors(&review, "a")),
            [
                r#"spec.resourceAttributes.namespace: Invalid value: "b": must match metadata.namespace"#
            ]
        );
    }

    #[test]
    fn the_question_is_read_from_the_review() {
        let review = json!({"spec": {"resourceAttributes": {
            "verb": "get", "group": "apps", "resource": "deployments", "namespace": "a",
        }}});
        let info = asked(&review);
        assert_eq!((info.verb, &*info.resource), ("get", "deployments"));
        let review = json!({"spec": {"nonResourceAttributes": {"verb": "get", "path": "/x"}}});
        assert_eq!(
            (asked(&review).path, asked(&review).is_resource),
            ("/x".into(), false)
        );
    }
}
