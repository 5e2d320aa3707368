//! The one place that makes a Kubernetes `Status`.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::codec;
use super::negotiation::Encoding;
use crate::registry::error::{ApiError, Target};

/// What a client sees of an error: HTTP status, reason, and details.
struct Shape {
    code: StatusCode,
    reason: &'static str,
    details: Map<String, Value>,
}

/// The Status of an error.
#[must_use]
pub fn of(error: &ApiError) -> Value {
    let Shape {
        code,
        reason,
        details,
    } = shape(error);
    let mut metadata = json!({});
    if let ApiError::Expired {
        continue_token: Some(token),
        ..
    } = error
    {
        metadata = json!({"continue": token});
    }
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
        "message": error.to_string(), "reason": reason, "code": code.as_u16(),
    });
    if let (false, Some(status)) = (details.is_empty(), status.as_object_mut()) {
        status.insert("details".into(), details.into());
    }
    status
}

/// The Status of a deletion that took place at once.
#[must_use]
pub fn deleted(target: &Target, uid: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": {
            "name": target.name, "group": target.group, "kind": target.resource, "uid": uid,
        },
    })
}

/// The response that carries an error, in the encoding the client reads.
#[must_use]
pub fn response(error: &ApiError, encoding: Encoding) -> Response {
    let code = shape(error).code;
    if code.is_server_error() {
        tracing::warn!(%error, "request failed");
    }
    let mut response = body(&of(error), encoding);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after(error) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if matches!(error, ApiError::Unauthorized) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// A Status in the encoding asked for. Every Status has a protobuf form; were it not so, JSON is what
/// each client can fall back to.
fn body(status: &Value, encoding: Encoding) -> Response {
    let (media_type, bytes) = match codec::written(status, encoding) {
        Ok(bytes) => (encoding.media_type(), bytes),
        Err(error) => {
            tracing::warn!(%error, "a Status could not be encoded");
            (Encoding::Json.media_type(), status.to_string().into())
        }
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn retry_after(error: &ApiError) -> Option<u32> {
    if let ApiError::DisruptionBudget { retry_after, .. } = error {
        return *retry_after;
    }
    let waits = matches!(
        error,
        ApiError::TooManyRequests(_)
            | ApiError::ResourceVersionTooLarge { .. }
            | ApiError::NameExhausted(_)
            | ApiError::ServiceUnavailable(_)
    );
    waits.then_some(1)
}

fn shape(error: &ApiError) -> Shape {
    let (code, reason) = code_and_reason(error);
    let mut details = details(error);
    if let Some(seconds) = retry_after(error) {
        details.insert("retryAfterSeconds".into(), seconds.into());
    }
    Shape {
        code,
        reason,
        details,
    }
}

fn code_and_reason(error: &ApiError) -> (StatusCode, &'static str) {
    use StatusCode as C;
    match error {
        ApiError::NotFound(_) | ApiError::NoSuchPath => (C::NOT_FOUND, "NotFound"),
        ApiError::AlreadyExists(_) | ApiError::NameExhausted(_) => (C::CONFLICT, "AlreadyExists"),
        ApiError::Conflict { .. } | ApiError::ApplyConflict(_) => (C::CONFLICT, "Conflict"),
        ApiError::Invalid { .. } | ApiError::UnprocessablePatch(_) => {
            (C::UNPROCESSABLE_ENTITY, "Invalid")
        }
        ApiError::BadRequest(_) => (C::BAD_REQUEST, "BadRequest"),
        ApiError::Unauthorized => (C::UNAUTHORIZED, "Unauthorized"),
        ApiError::Forbidden { .. } => (C::FORBIDDEN, "Forbidden"),
        ApiError::MethodNotAllowed { .. } => (C::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        ApiError::NotAcceptable(_) => (C::NOT_ACCEPTABLE, "NotAcceptable"),
        ApiError::UnsupportedMediaType(_) => (C::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType"),
        ApiError::TooLarge(_) | ApiError::PatchTooLarge(_) => {
            (C::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge")
        }
        ApiError::Expired { .. } => (C::GONE, "Expired"),
        ApiError::ResourceVersionTooLarge { .. } | ApiError::Timeout(_) => {
            (C::GATEWAY_TIMEOUT, "Timeout")
        }
        ApiError::TooManyRequests(_) | ApiError::DisruptionBudget { .. } => {
            (C::TOO_MANY_REQUESTS, "TooManyRequests")
        }
        ApiError::ServiceUnavailable(_) | ApiError::Unreachable(_) => {
            (C::SERVICE_UNAVAILABLE, "ServiceUnavailable")
        }
        ApiError::NotImplemented(_) => (C::NOT_IMPLEMENTED, "NotImplemented"),
        ApiError::Internal(_) | ApiError::SeveralBudgets => {
            (C::INTERNAL_SERVER_ERROR, "InternalError")
        }
    }
}

fn details(error: &ApiError) -> Map<String, Value> {
    match error {
        ApiError::NotFound(target)
        | ApiError::AlreadyExists(target)
        | ApiError::NameExhausted(target)
        | ApiError::Conflict { target, .. }
        | ApiError::MethodNotAllowed { target, .. } => about(target, &target.resource, Vec::new()),
        ApiError::Forbidden {
            target,
            cause,
            reason,
        } => {
            let causes = cause.map(|cause| json!({"reason": cause, "message": reason}));
            about(target, &target.resource, causes.into_iter().collect())
        }
        ApiError::Invalid { target, errors } => {
            let cause = |error: &crate::registry::field_error::FieldError| json!({"reason": error.reason(), "message": error.message(), "field": error.path});
            about(target, &target.kind, errors.iter().map(cause).collect())
        }
        ApiError::ApplyConflict(conflicts) => {
            let cause = |conflict: &crate::registry::error::ApplyConflict| {
                json!({
                    "reason": "FieldManagerConflict",
                    "message": conflict.message,
                    "field": conflict.field,
                })
            };
            let causes: Vec<_> = conflicts.iter().map(cause).collect();
            Map::from_iter([("causes".to_owned(), causes.into())])
        }
        ApiError::UnprocessablePatch(message) => {
            let causes = json!([{"reason": "FieldValueInvalid", "message": message}]);
            Map::from_iter([("causes".to_owned(), causes)])
        }
        ApiError::ResourceVersionTooLarge { .. } => {
            let causes = json!([{
                "reason": "ResourceVersionTooLarge",
                "message": "Too large resource version",
            }]);
            Map::from_iter([("causes".to_owned(), causes)])
        }
        ApiError::DisruptionBudget { cause, .. } => {
            let causes = json!([{"reason": "DisruptionBudget", "message": cause}]);
            Map::from_iter([("causes".to_owned(), causes)])
        }
        ApiError::Internal(message) => {
            Map::from_iter([("causes".to_owned(), json!([{"message": message}]))])
        }
        _ => Map::new(),
    }
}

fn about(target: &Target, kind: &str, causes: Vec<Value>) -> Map<String, Value> {
    let mut details = Map::new();
    for (key, value) in [
        ("name", &*target.name),
        ("group", &*target.group),
        ("kind", kind),
    ] {
        if !value.is_empty() {
            details.insert(key.into(), value.into());
        }
    }
    if !causes.is_empty() {
        details.insert("causes".into(), causes.into());
    }
    details
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::field_error::FieldError;

    fn target() -> Target {
        let text = |text: &str| text.to_owned();
        Target {
            group: text("apps"),
            resource: text("deployments"),
            kind: text("Deployment"),
            name: text("web"),
        }
    }

    #[test]
    fn messages_are_those_users_search_for() {
        let cases = [
            (
                ApiError::NotFound(target()),
                404,
                r#"deployments.apps "web" not found"#,
            ),
            (
                ApiError::AlreadyExists(target()),
                409,
                r#"deployments.apps "web" already exists"#,
            ),
            (
                ApiError::Invalid {
                    target: target(),
                    errors: vec![FieldError::required("spec.selector", "")],
                },
                422,
                r#"Deployment.apps "web" is invalid: spec.selector: Required value"#,
            ),
        ];
        for (error, code, message) in cases {
            let status = of(&error);
            assert_eq!(
                (&status["code"], &status["message"]),
                (&json!(code), &json!(message))
            );
        }
    }

    #[test]
    fn a_status_is_written_in_the_clients_encoding() {
        for (encoding, media_type) in [
            (Encoding::Json, "application/json"),
            (Encoding::Protobuf, "application/vnd.kubernetes.protobuf"),
        ] {
            let response = response(&ApiError::NotFound(target()), encoding);
            assert_eq!(response.status(), StatusCode::NOT_FOUND);
            assert_eq!(response.headers()[header::CONTENT_TYPE], media_type);
        }
    }

    #[test]
    fn invalid_objects_name_every_field() {
        let errors = vec![
            FieldError::required("a", ""),
            FieldError::duplicate("b[1]", "x"),
        ];
        let status = of(&ApiError::Invalid {
            target: target(),
            errors,
        });
        assert_eq!(status["details"]["causes"][1]["field"], "b[1]");
        assert_eq!(status["details"]["kind"], "Deployment");
    }
}
