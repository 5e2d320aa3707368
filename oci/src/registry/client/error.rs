//! Why a registry did not give or take something, and what may be done about it.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};

use super::BoxError;
use crate::content_store::ContentError;
use crate::digest::Digest;

/// Why the registry did not give or take something.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The registry was not reached.
    #[error("{what}: registry not reached: {source}")]
    Transport {
        /// What was asked for.
        what: String,
        /// Why.
        source: BoxError,
    },
    /// It does not go on.
    #[error("{what}: no answer for {} seconds", .after.as_secs())]
    Stalled {
        /// What was asked for.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// There is no such repository, tag or digest.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry does not let us.
    #[error("{what}: {message}")]
    Denied {
        /// What was asked for.
        what: String,
        /// The registry's words.
        message: String,
    },
    /// Any other answer.
    #[error("{what}: unexpected status {status}: {message}")]
    Status {
        /// What was asked for.
        what: String,
        /// HTTP status.
        status: StatusCode,
        /// The registry's words.
        message: String,
        /// When the registry wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The answer breaks the protocol.
    #[error("{0}")]
    Protocol(String),
    /// A blob ended early.
    #[error("{what}: ended after {received} of {expected} bytes")]
    Truncated {
        /// What was asked for.
        what: String,
        /// How many bytes came in all.
        received: u64,
        /// How many were announced.
        expected: u64,
    },
    /// The manifest does not have the digest it was asked for by.
    #[error("manifest has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The content store failed or refused the bytes.
    #[error(transparent)]
    Content(#[from] ContentError),
}

impl ClientError {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Transport { source, .. } => !source.is::<Refused>(),
            Self::Stalled { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => {
                let timeouts = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
                status.is_server_error() || timeouts.contains(status)
            }
            _ => false,
        }
    }

    /// Whether other credentials may help: registries say 404 of what they hide.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        matches!(self, Self::NotFound(_) | Self::Denied { .. })
    }

    /// When the registry wants to be asked again, if it said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(super) fn of_answer(
        what: &str,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Self {
        let (what, message) = (what.to_owned(), message_of(status, body));
        match status {
            StatusCode::NOT_FOUND => Self::NotFound(what),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied { what, message },
            status => Self::Status {
                what,
                status,
                message,
                retry_after: retry_after(headers),
            },
        }
    }
}

/// A transport that won't send a request, however often it is tried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Spec: RFC 9110: seconds, or a date. Registries write seconds.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// The messages of a distribution error, or a Kubernetes `Status`, or the text itself; the status' own words where
/// there is none of these.
fn message_of(status: StatusCode, body: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let errors = parsed.as_ref().and_then(|value| {
        let errors = value.get("errors")?.as_array()?;
        let texts = errors.iter().filter_map(|error| {
            let text = |name| error.get(name).and_then(serde_json::Value::as_str);
            text("message")
                .filter(|text| !text.is_empty())
                .or_else(|| text("code"))
        });
        Some(texts.collect::<Vec<_>>().join("; "))
    });
    let of_status = || parsed.as_ref()?.get("message")?.as_str().map(str::to_owned);
    let plain = || String::from_utf8_lossy(body).trim().to_owned();
    let found = errors.or_else(of_status).unwrap_or_else(plain);
    if found.is_empty() || found.starts_with('<') {
        return status
            .canonical_reason()
            .unwrap_or("no message")
            .to_lowercase();
    }
    // A page of text helps nobody in a pod's status.
    found.chars().take(1000).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_bodies_become_their_message() {
        let cases: [(&[u8], &str); 6] = [
            (br#"{"errors":[{"message":"a"},{"message":"b"}]}"#, "a; b"),
            (br#"{"errors":[{"code":"DENIED"}]}"#, "DENIED"),
            (br#"{"kind":"Status","message":"forbidden"}"#, "forbidden"),
            (b"plain\n", "plain"),
            (b"<html>", "bad gateway"),
            (b"", "bad gateway"),
        ];
        for (body, want) in cases {
            assert_eq!(message_of(StatusCode::BAD_GATEWAY, body), want);
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let of = |code: u16| {
            let status = StatusCode::from_u16(code).unwrap();
            ClientError::of_answer("x", status, &HeaderMap::new(), b"")
        };
        for (code, retriable) in [
            (429, true),
            (408, true),
            (500, true),
            (503, true),
            (401, false),
            (403, false),
            (404, false),
            (400, false),
        ] {
            assert_eq!(of(code).is_retriable(), retriable, "{code}");
        }
        let of = |source| ClientError::Transport {
            what: "x".to_owned(),
            source,
        };
        assert!(of("reset".into()).is_retriable());
        assert!(!of(Refused("x".to_owned()).into()).is_retriable());
    }
}
