//! What the embedded registry answers when it does not do as asked.
//!
//! Spec: OCI distribution specification v1.1, error codes.

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde_json::json;

use super::server::Denied;
use crate::content_store::ContentError;
use crate::digest::Digest;

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
    #[error("blob upload unknown to registry")]
    UploadUnknown,
    #[error("provided digest did not match uploaded content")]
    DigestInvalid,
    #[error("content is larger than {0} bytes")]
    TooLarge(u64),
    #[error("too many uploads in progress")]
    TooManyUploads,
    #[error("the request body was interrupted")]
    BodyInterrupted,
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
            other => Self::Store(other),
        }
    }
}

impl RegistryError {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Unsupported => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::NameInvalid(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestBlobUnknown(_) => (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::UploadUnknown => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::DigestInvalid => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::TooManyUploads => (StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS"),
            Self::BodyInterrupted => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
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
        let body = json!({ "errors": [{ "code": code, "message": self.to_string() }] });
        (status, json_body(&body)).into_response()
    }
}

pub(super) fn json_body(value: &serde_json::Value) -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        value.to_string(),
    )
        .into_response()
}
