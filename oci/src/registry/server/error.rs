//! What the embedded registry answers when it does not do as asked.
//!
//! Spec: OCI distribution specification v1.1, error codes.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::Denied;
use crate::content_store::ContentError;
use crate::digest::Digest;

/// How clients say who they are: with any user name, and a token as the password.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"windlass\"");

/// Everything that can be answered but success, in the specification's codes.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    #[error("page not found")]
    NotFound,
    #[error("the operation is unsupported")]
    Unsupported,
    #[error("invalid repository name {0:?}: want NAMESPACE/NAME")]
    NameInvalid(String),
    #[error("repository {0:?} not known to registry")]
    NameUnknown(String),
    #[error("manifest {0} unknown")]
    ManifestUnknown(String),
    #[error("manifest invalid: {0}")]
    ManifestInvalid(String),
    #[error("manifest references the unknown blob {0}")]
    ManifestBlobUnknown(Digest),
    #[error("blob {0} unknown to repository")]
    BlobUnknown(Digest),
    #[error("blob {blob} is part of the manifest {manifest}: delete that first")]
    BlobInUse { blob: Digest, manifest: Digest },
    #[error("blob upload unknown to registry")]
    UploadUnknown,
    #[error("another request writes to this upload")]
    UploadBusy,
    #[error("provided digest did not match uploaded content")]
    DigestInvalid,
    #[error("the range is not inside the blob of {0} bytes")]
    RangeInvalid(u64),
    #[error("content is larger than {0} bytes")]
    TooLarge(u64),
    #[error("too many uploads in progress")]
    TooManyUploads,
    #[error("the request body was interrupted")]
    BodyInterrupted,
    #[error("there is no room left on the registry's disk")]
    DiskFull,
    #[error("authentication required")]
    Unauthenticated,
    #[error("{0}")]
    Forbidden(String),
    #[error("content store failed")]
    Store(#[source] ContentError),
}

impl From<Denied> for RegistryError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Unauthenticated => Self::Unauthenticated,
            Denied::Forbidden(message) => Self::Forbidden(message),
        }
    }
}

impl From<ContentError> for RegistryError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::DigestMismatch { .. } => Self::DigestInvalid,
            ContentError::TooLarge { limit } => Self::TooLarge(limit),
            ContentError::InvalidName(name) => Self::NameInvalid(name),
            full if full.is_full() => Self::DiskFull,
            other => Self::Store(other),
        }
    }
}

impl RegistryError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Unsupported | Self::BlobInUse { .. } => {
                (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED")
            }
            Self::NameInvalid(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestBlobUnknown(_) => (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::UploadBusy => (StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID"),
            Self::DigestInvalid => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::RangeInvalid(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::BodyInterrupted => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::DiskFull => (StatusCode::INSUFFICIENT_STORAGE, "DENIED"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }
}

impl IntoResponse for RegistryError {
    fn into_response(self) -> Response {
        if let Self::Store(error) = &self {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "registry content store"
            );
        }
        let (status, code) = self.code();
        let mut response = refusal(status, code, &self.to_string());
        if let Self::RangeInvalid(size) = self
            && let Ok(range) = HeaderValue::try_from(format!("bytes */{size}"))
        {
            response.headers_mut().insert(header::CONTENT_RANGE, range);
        }
        response
    }
}

/// An answer in the form of the specification: a code of its list, and words. Who is not known is told how to say who
/// they are. For what a server in front of the registry refuses in its name, too.
#[must_use]
pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message }] });
    let mut response = (status, json_body(&body)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        let headers = response.headers_mut();
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
    response
}

pub(super) fn json_body(value: &serde_json::Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}
