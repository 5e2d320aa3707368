//! Logs of a container, from the node that runs it: as text, or as messages of a WebSocket.

use axum::body::Body;
use axum::response::Response;
use futures::StreamExt;
use futures::future::ready;
use http::{HeaderValue, Request, StatusCode, header};
use serde_json::Value;
use windlass_api::stream::websocket::{self, Framing, send_all};

use super::upgrade::{refusal, web_socket};
use super::{Daemon, NodeConnector, pod, refused};
use crate::registry::error::{ApiError, Target};
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::server::Context;
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

/// Subprotocols of a WebSocket that carries logs.
const BINARY: &str = "binary.k8s.io";
const BASE64: &str = "base64.binary.k8s.io";

impl NodeConnector {
    /// The logs of one container of `pod`.
    pub(crate) async fn logs(
        &self,
        pod: &Value,
        context: &Context,
        snapshot: &Snapshot,
    ) -> Result<Response, ApiError> {
        let query = &context.query;
        let errors = check(query)?;
        if !errors.is_empty() {
            let target = Target {
                kind: "PodLogOptions".into(),
                name: meta::name(pod).into(),
                ..Target::default()
            };
            return Err(ApiError::Invalid { target, errors });
        }
        let container = pod::container(pod, query.get("container"))?;
        let daemon = Daemon::of_pod(pod, snapshot)?;
        let request = Request::get(path(pod, &container, query))
            .body(Body::empty())
            .map_err(|error| ApiError::BadRequest(format!("log options: {error}")))?;
        let response = self.send(&daemon, request).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(&daemon, response).await);
        }
        let (_, body) = response.into_parts();
        if websocket::is_requested(&context.headers) {
            return as_messages(context, body);
        }
        let mut response = Response::new(body);
        let plain = HeaderValue::from_static("text/plain");
        response.headers_mut().insert(header::CONTENT_TYPE, plain);
        Ok(response)
    }
}

/// What is wrong with the options, as upstream validates them.
fn check(query: &Query) -> Result<Vec<FieldError>, ApiError> {
    let mut errors = Vec::new();
    for (field, least) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        let text = query.get(field);
        if text.is_empty() {
            continue;
        }
        let number: i64 = text
            .parse()
            .map_err(|error| ApiError::BadRequest(format!("{field}: parsing {text:?}: {error}")))?;
        if number < least {
            let detail = if least == 0 {
                "must be greater than or equal to 0"
            } else {
                "must be greater than 0"
            };
            errors.push(FieldError::invalid(field, number, detail));
        }
    }
    if !query.get("sinceSeconds").is_empty() && !query.get("sinceTime").is_empty() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden("", detail));
    }
    if !query.get("stream").is_empty() {
        errors.push(FieldError::forbidden("stream", "may not be specified"));
    }
    Ok(errors)
}

/// The logs as messages of a WebSocket.
fn as_messages(context: &Context, logs: Body) -> Result<Response, ApiError> {
    let protocol = websocket::select(&context.headers, &[BINARY, BASE64]);
    let protocol = protocol.map_err(|error| refusal(&error))?;
    let framing = match protocol {
        Some(BASE64) => Framing::Base64,
        _ => Framing::Binary,
    };
    web_socket(context, protocol, async move |socket| {
        // A node that fails in the middle ends the logs: there is no other way to say so.
        let pieces = logs.into_data_stream();
        let pieces = pieces
            .take_while(|piece| ready(piece.is_ok()))
            .filter_map(|piece| ready(piece.ok()));
        send_all(socket, pieces, framing).await;
    })
}

fn path(pod: &Value, container: &str, query: &Query) -> String {
    let given = OPTIONS.iter().map(|option| (*option, query.get(option)));
    let options = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(given.filter(|(_, value)| !value.is_empty()))
        .finish();
    let (namespace, name) = (meta::namespace(pod), meta::name(pod));
    format!("/containerLogs/{namespace}/{name}/{container}?{options}")
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;

    #[test]
    fn options_are_validated_as_upstream_does() {
        let errors = |query: &str| {
            let uri: Uri = format!("/?{query}").parse().unwrap();
            let errors = check(&Query::of(&uri)).map_err(|error| error.to_string())?;
            Ok::<_, String>(errors.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let invalid = "tailLines: Invalid value: -1: must be greater than or equal to 0";
        assert_eq!(errors("tailLines=-1"), Ok(vec![invalid.to_owned()]));
        let invalid = "limitBytes: Invalid value: 0: must be greater than 0";
        assert_eq!(
            errors("limitBytes=0&tailLines=0"),
            Ok(vec![invalid.to_owned()])
        );
        assert_eq!(
            errors("sinceSeconds=1&sinceTime=x&stream=All")
                .unwrap()
                .len(),
            2
        );
        assert!(
            errors("tailLines=x")
                .unwrap_err()
                .starts_with("tailLines: ")
        );
        assert_eq!(errors("follow=true&container=c"), Ok(Vec::new()));
    }
}
