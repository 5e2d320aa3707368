//! `GET /containerLogs/{namespace}/{pod}/{container}`: what `kubectl logs` ends at.

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::DaemonState;
use crate::logs::{LogQuery, ReadError};
use crate::pods::{NodeContext, facts};

/// The parameters as kubelet takes them: texts, since each is refused by its own name.
#[derive(Debug, Default)]
struct Parameters {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    limit_bytes: Option<String>,
}

impl Parameters {
    fn parse(query: &str) -> Self {
        let mut parameters = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let field = match &*name {
                "follow" => &mut parameters.follow,
                "previous" => &mut parameters.previous,
                "timestamps" => &mut parameters.timestamps,
                "tailLines" => &mut parameters.tail_lines,
                "sinceSeconds" => &mut parameters.since_seconds,
                "sinceTime" => &mut parameters.since_time,
                "limitBytes" => &mut parameters.limit_bytes,
                // Unknown ones are not ours to refuse: the API server knows more than we do.
                _ => continue,
            };
            *field = Some(value.into_owned());
        }
        parameters
    }

    fn query(&self, now: Timestamp) -> Result<LogQuery, String> {
        let since_seconds: Option<i64> = number("sinceSeconds", self.since_seconds.as_deref())?;
        let since_time = self.since_time.as_deref().map(|text| {
            text.parse::<Timestamp>()
                .map_err(|error| format!("sinceTime: {text:?}: {error}"))
        });
        let since_seconds = since_seconds.map(|seconds| now - SignedDuration::from_secs(seconds));
        Ok(LogQuery {
            follow: flag("follow", self.follow.as_deref())?,
            previous: flag("previous", self.previous.as_deref())?,
            timestamps: flag("timestamps", self.timestamps.as_deref())?,
            tail_lines: number("tailLines", self.tail_lines.as_deref())?,
            limit_bytes: number("limitBytes", self.limit_bytes.as_deref())?,
            since: since_time.transpose()?.or(since_seconds),
        })
    }
}

fn flag(name: &str, text: Option<&str>) -> Result<bool, String> {
    match text {
        None | Some("false" | "0") => Ok(false),
        Some("" | "true" | "1") => Ok(true),
        Some(other) => Err(format!("{name}: {other:?} is neither true nor false")),
    }
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<Option<T>, String> {
    text.map(|text| {
        text.parse()
            .map_err(|_| format!("{name}: {text:?} is not a number"))
    })
    .transpose()
}

pub(super) async fn serve(
    State(state): State<DaemonState>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = match Parameters::parse(&query.unwrap_or_default()).query(Timestamp::now()) {
        Ok(query) => query,
        Err(message) => return (StatusCode::BAD_REQUEST, message).into_response(),
    };
    let Some(pod) = state.pods.find(&namespace, &name) else {
        return (
            StatusCode::NOT_FOUND,
            format!("pod \"{namespace}/{name}\" not found\n"),
        )
            .into_response();
    };
    if !has_container(&pod, &container) {
        let text = format!("container {container:?} is not valid for pod {name:?}");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let identity = NodeContext::identity(&pod);
    if !query.previous
        && let Some(reason) = waiting_reason(&pod, &container)
        && state.logs.attempts(&identity, &container).is_empty()
    {
        let text = format!("container {container:?} in pod {name:?} is waiting to start: {reason}");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    match state.logs.read(&identity, &container, query).await {
        Ok(stream) => (
            [(header::CONTENT_TYPE, "text/plain")],
            Body::from_stream(stream),
        )
            .into_response(),
        Err(ReadError::NoPrevious) => {
            let text =
                format!("previous terminated container {container:?} in pod {name:?} not found");
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        Err(ReadError::Io(error)) => {
            tracing::error!(%error, namespace, name, container, "read log");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("read log: {error}"),
            )
                .into_response()
        }
    }
}

pub(super) fn has_container(pod: &Pod, name: &str) -> bool {
    container_names(pod).any(|own| own == name)
}

/// The names of its containers in the order they start.
pub(super) fn container_names(pod: &Pod) -> impl Iterator<Item = &str> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| facts::names(spec).map(|(_, name)| name))
}

fn waiting_reason(pod: &Pod, name: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status
        .container_statuses
        .iter()
        .chain(&status.init_container_statuses)
        .chain(&status.ephemeral_container_statuses)
        .flatten();
    let found: &ContainerStatus = all.find(|found| found.name == name)?;
    found.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_or_refused_by_name() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let parameters = Parameters::parse("follow=true&tailLines=7&sinceSeconds=60&other=x");
        let query = parameters.query(now).unwrap();
        assert!(query.follow && !query.previous);
        assert_eq!(query.tail_lines, Some(7));
        assert_eq!(query.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        let time = Parameters::parse("sinceTime=2026-01-01T00%3A00%3A00Z");
        assert_eq!(time.query(now).unwrap().since, query.since);
        let bad = Parameters::parse("tailLines=-1");
        assert!(bad.query(now).unwrap_err().starts_with("tailLines"));
        let bad = Parameters::parse("follow=maybe");
        assert!(bad.query(now).unwrap_err().starts_with("follow"));
    }
}
