//! Logs of a container, from the node that runs it.

use axum::response::Response;
use http::{HeaderValue, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::{Daemon, NodeConnector};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::server::request_info::Query;
use crate::store::Snapshot;

/// Query parameters that go on to the node.
const OPTIONS: [&str; 7] = [
    "follow",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "previous",
    "limitBytes",
];

/// How much of a node's error text is passed on.
const MAX_ERROR: usize = 4096;

impl NodeConnector {
    /// The logs of one container of `pod`.
    pub(crate) async fn logs(
        &self,
        pod: &Value,
        query: &Query,
        snapshot: &Snapshot,
    ) -> Result<Response, ApiError> {
        let container = container(pod, query.get("container"))?;
        check_numbers(query)?;
        let node = pod
            .pointer("/spec/nodeName")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if node.is_empty() {
            let text = format!("pod {} does not have a host assigned", meta::name(pod));
            return Err(ApiError::BadRequest(text));
        }
        let daemon = Daemon::of(node, snapshot)?;
        let response = self.send(&daemon, uri(pod, &container, query)?).await?;
        if response.status() != StatusCode::OK {
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ERROR)
                .collect()
                .await;
            let text = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
            let text = text.unwrap_or_else(|error| format!("{status}: {error}"));
            return Err(match status {
                StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => ApiError::BadRequest(text),
                _ => ApiError::Internal(format!("node {node:?} answered {status}: {text}")),
            });
        }
        let (_, body) = response.into_parts();
        let mut response = Response::new(body);
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }
}

/// The container asked for, or the only one.
fn container(pod: &Value, asked: &str) -> Result<String, ApiError> {
    let names = |list: &str| -> Vec<String> {
        let containers = pod
            .pointer(&format!("/spec/{list}"))
            .and_then(Value::as_array);
        let names = containers
            .into_iter()
            .flatten()
            .filter_map(|c| c.get("name")?.as_str());
        names.map(str::to_owned).collect()
    };
    let (init, main) = (names("initContainers"), names("containers"));
    let name = meta::name(pod);
    if asked.is_empty() {
        return match main.as_slice() {
            [only] => Ok(only.clone()),
            _ => Err(ApiError::BadRequest(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                main.join(" ")
            ))),
        };
    }
    let known = init.iter().chain(&main).any(|name| name == asked);
    let unknown = || ApiError::BadRequest(format!("container {asked} is not valid for pod {name}"));
    if known {
        Ok(asked.to_owned())
    } else {
        Err(unknown())
    }
}

fn check_numbers(query: &Query) -> Result<(), ApiError> {
    for field in ["tailLines", "sinceSeconds", "limitBytes"] {
        let text = query.get(field);
        if !text.is_empty() && text.parse::<u64>().is_err() {
            return Err(ApiError::BadRequest(format!(
                "{field}: Invalid value: {text:?}: must be greater than or equal to 0"
            )));
        }
    }
    Ok(())
}

fn uri(pod: &Value, container: &str, query: &Query) -> Result<Uri, ApiError> {
    let options: Vec<_> = OPTIONS
        .iter()
        .filter(|option| !query.get(option).is_empty())
        // Values are numbers, booleans and times; a plus in a time must survive the query.
        .map(|option| format!("{option}={}", query.get(option).replace('+', "%2B")))
        .collect();
    let (namespace, name) = (meta::namespace(pod), meta::name(pod));
    let text = format!(
        "/containerLogs/{namespace}/{name}/{container}?{}",
        options.join("&")
    );
    text.parse()
        .map_err(|error| ApiError::BadRequest(format!("log options: {error}")))
}
