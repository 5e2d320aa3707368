//! `/healthz`, `/livez`, `/readyz` and `/version`.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::Context;

/// Whether the server is ready.
#[derive(Debug, Default)]
pub(super) struct Health {
    ready: AtomicBool,
}

impl Health {
    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// The answer, if `path` is one of health's.
    pub(super) fn respond(&self, path: &str, context: &Context) -> Option<Response> {
        if path == "/version" {
            return Some(version());
        }
        let (root, check) = path
            .strip_prefix('/')?
            .split_once('/')
            .unwrap_or((path.strip_prefix('/')?, ""));
        let ready = self.ready.load(Ordering::Acquire);
        let checks = match root {
            "livez" => vec![("ping", true)],
            "healthz" | "readyz" => vec![("ping", true), ("bootstrap", ready)],
            _ => return None,
        };
        let selected: Vec<_> = checks
            .into_iter()
            .filter(|(name, _)| check.is_empty() || *name == check)
            .collect();
        if selected.is_empty() {
            return None;
        }
        Some(report(root, &selected, context.query.flag("verbose")))
    }
}

fn report(root: &str, checks: &[(&str, bool)], verbose: bool) -> Response {
    let passed = checks.iter().all(|(_, ok)| *ok);
    let mut text = String::new();
    if verbose || !passed {
        for (name, ok) in checks {
            let line = if *ok {
                format!("[+]{name} ok\n")
            } else {
                format!("[-]{name} failed\n")
            };
            text.push_str(&line);
        }
        let outcome = if passed { "passed" } else { "failed" };
        text.push_str(&format!("{root} check {outcome}\n"));
    } else {
        text.push_str("ok");
    }
    let mut response = Response::new(Body::from(text));
    if !passed {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn version() -> Response {
    let mut parts = crate::VERSION.trim_start_matches('v').split('.');
    let mut next = || parts.next().unwrap_or_default();
    let version = json!({
        "major": next(), "minor": next(),
        "gitVersion": crate::VERSION,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    });
    super::verbs::json(StatusCode::OK, Body::from(version.to_string()))
}

/// The architecture by Go's name, as clients expect it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
