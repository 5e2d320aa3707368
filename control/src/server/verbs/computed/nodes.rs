//! Asking nodes: what the kinds that are computed of nodes' answers share.
//!
//! A node that does not answer in time is missing from a list.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::time::format_seconds;

use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::server::verbs::Request;
use crate::store::{Freshness, KeyRange, ObjectKey, Snapshot};

/// Nodes that are asked at once.
const AT_ONCE: usize = 32;
/// How long a node may take.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn snapshot(request: &Request<'_>) -> Result<Snapshot, ApiError> {
    let store = request.server.registry().store();
    Ok(store.snapshot(Freshness::Latest).await?)
}

/// The pods that a request is about, and what their nodes answer to `GET path`.
pub(super) async fn ask_for_pods(
    request: &Request<'_>,
    path: &'static str,
) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
    let snapshot = snapshot(request).await?;
    let pods = pods(request, &snapshot)?;
    // Only nodes that have some of them are asked.
    let nodes: BTreeSet<&str> = pods.iter().filter_map(node_of).collect();
    let nodes = nodes.into_iter().map(str::to_owned).collect();
    let answers = ask(request, &snapshot, nodes, path).await;
    let answers = answers.into_iter().map(|(_, answer)| answer);
    Ok((pods, answers.collect()))
}

/// The pod that a request names, and what its node answers to `GET path`.
pub(super) async fn ask_for_pod(
    request: &Request<'_>,
    path: &'static str,
) -> Result<(Value, Value), ApiError> {
    let snapshot = snapshot(request).await?;
    let info = &request.context.info;
    let missing = || ApiError::NotFound(request.target());
    let key = ObjectKey::new("", "pods", &info.namespace, &info.name);
    let pod = parse(snapshot.get(&key).ok_or_else(missing)?)?;
    let node = node_of(&pod).ok_or_else(missing)?;
    let answer = request.server.nodes().fetch(node, path, &snapshot).await?;
    Ok((pod, answer))
}

/// The pods of the request's namespace, or all.
fn pods(request: &Request<'_>, snapshot: &Snapshot) -> Result<Vec<Value>, ApiError> {
    let range = match request.context.info.namespace.as_str() {
        "" => KeyRange::resource("", "pods"),
        namespace => KeyRange::namespace("", "pods", namespace),
    };
    let pods = snapshot.range(&range, None);
    pods.map(|pod| parse(pod)).collect()
}

/// The answers to `GET path` of those nodes that answer.
pub(super) async fn ask(
    request: &Request<'_>,
    snapshot: &Snapshot,
    names: Vec<String>,
    path: &'static str,
) -> Vec<(String, Value)> {
    let connector = request.server.nodes();
    let fetch = |name: String| async move {
        let answer = tokio::time::timeout(LIMIT, connector.fetch(&name, path, snapshot)).await;
        match answer {
            Ok(Ok(answer)) => Some((name, answer)),
            Ok(Err(error)) => {
                tracing::debug!(node = name, path, %error, "no answer");
                None
            }
            Err(_) => {
                tracing::debug!(node = name, path, "no answer in time");
                None
            }
        }
    };
    stream::iter(names)
        .map(fetch)
        .buffer_unordered(AT_ONCE)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// The node of a pod that has one.
fn node_of(pod: &Value) -> Option<&str> {
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str);
    node.filter(|node| !node.is_empty())
}

/// Metadata of an object about another: its name, namespace and labels.
pub(super) fn metadata(of: &Value) -> Value {
    let mut metadata = json!({
        "name": meta::name(of),
        "creationTimestamp": format_seconds(Timestamp::now()),
    });
    if let Some(metadata) = metadata.as_object_mut() {
        if !meta::namespace(of).is_empty() {
            metadata.insert("namespace".into(), meta::namespace(of).into());
        }
        if let Some(labels) = of.pointer("/metadata/labels") {
            metadata.insert("labels".into(), labels.clone());
        }
    }
    metadata
}
