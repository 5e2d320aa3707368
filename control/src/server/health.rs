//! `/healthz`, `/livez`, `/readyz` and `/version`.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::Context;

/// Whether the server is ready, and whether it is about to stop.
#[derive(Debug, Default)]
pub(super) struct Health {
    ready: AtomicBool,
    stopping: AtomicBool,
}

/// A check by its name, and whether it passed.
type Check = (&'static str, bool);

impl Health {
    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub(super) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// The answer, if `path` is one of health's. `store` says whether the store can be read.
    pub(super) fn respond(&self, path: &str, context: &Context, store: bool) -> Option<Response> {
        if path == "/version" {
            return Some(version());
        }
        let path = path.strip_prefix('/')?;
        let (root, check) = path.split_once('/').unwrap_or((path, ""));
        let mut checks = self.checks(root, store)?;
        if !check.is_empty() {
            checks.retain(|(name, _)| *name == check);
        }
        if checks.is_empty() {
            return None;
        }
        let excluded: Vec<_> = context.query.all("exclude").collect();
        Some(report(
            root,
            &checks,
            &excluded,
            context.query.flag("verbose"),
        ))
    }

    /// The checks of an endpoint, in the order they are shown.
    fn checks(&self, root: &str, store: bool) -> Option<Vec<Check>> {
        let ready = self.ready.load(Ordering::Acquire);
        let stays = !self.stopping.load(Ordering::Acquire);
        let mut checks = vec![("ping", true), ("etcd", store)];
        match root {
            "livez" => {}
            "healthz" => checks.push(("poststarthook/bootstrap-objects", ready)),
            "readyz" => checks.extend([
                ("poststarthook/bootstrap-objects", ready),
                ("shutdown", stays),
            ]),
            _ => return None,
        }
        Some(checks)
    }
}

fn report(root: &str, checks: &[Check], excluded: &[&str], verbose: bool) -> Response {
    let counts = |name: &str| !excluded.contains(&name);
    let passed = checks.iter().all(|(name, ok)| *ok || !counts(name));
    let mut text = String::new();
    if verbose || !passed {
        for (name, ok) in checks {
            let line = match (counts(name), ok) {
                (false, _) => format!("[+]{name} excluded: ok\n"),
                (true, true) => format!("[+]{name} ok\n"),
                (true, false) => format!("[-]{name} failed: reason withheld\n"),
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
