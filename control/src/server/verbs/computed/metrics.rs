//! metrics.k8s.io: what pods and nodes use now, asked of the nodes on request.
//!
//! Differs from Kubernetes: there is no server that collects in between, so an answer is as old as the
//! request, and rates are taken by the nodes. A node that does not answer in time is missing from a list, as
//! upstream's are.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::metrics::{GROUP, NODE_METRICS, POD_METRICS};
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::Computed;
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::server::verbs::Request;
use crate::store::{Freshness, KeyRange, ObjectKey, Snapshot};

/// Nodes that are asked at once.
const AT_ONCE: usize = 32;
/// How long a node may take.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) struct PodsMetrics;
pub(super) struct NodesMetrics;

#[async_trait]
impl Computed for PodsMetrics {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "pods")
    }

    async fn list(&self, request: &Request<'_>) -> Result<Vec<Value>, ApiError> {
        let snapshot = snapshot(request).await?;
        let namespace = &request.context.info.namespace;
        let range = match namespace.as_str() {
            "" => KeyRange::resource("", "pods"),
            namespace => KeyRange::namespace("", "pods", namespace),
        };
        let pods = snapshot.range(&range, None);
        let pods: Vec<Value> = pods.map(|pod| parse(pod)).collect::<Result<_, _>>()?;
        // Only nodes that have some of them are asked.
        let nodes: BTreeSet<&str> = pods.iter().filter_map(node_of).collect();
        let nodes = nodes.into_iter().map(str::to_owned).collect();
        let summaries = ask(request, &snapshot, nodes).await;
        let all = summaries.iter().flat_map(|(_, summary)| told(summary));
        let by_uid: HashMap<&str, &Value> = all.map(|told| (uid_of(told), told)).collect();
        let metrics = pods.iter().filter_map(|pod| {
            let told = by_uid.get(meta::uid(pod))?;
            pod_metrics(pod, told)
        });
        Ok(metrics.collect())
    }

    async fn get(&self, request: &Request<'_>) -> Result<Value, ApiError> {
        let snapshot = snapshot(request).await?;
        let info = &request.context.info;
        let missing = || ApiError::NotFound(request.target());
        let key = ObjectKey::new("", "pods", &info.namespace, &info.name);
        let pod = parse(snapshot.get(&key).ok_or_else(missing)?)?;
        let node = node_of(&pod).ok_or_else(missing)?;
        let summary = request.server.nodes().summary(node, &snapshot).await?;
        let own = told(&summary).find(|told| uid_of(told) == meta::uid(&pod));
        let found = own.and_then(|told| pod_metrics(&pod, told));
        found.ok_or_else(missing)
    }
}

#[async_trait]
impl Computed for NodesMetrics {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "nodes")
    }

    async fn list(&self, request: &Request<'_>) -> Result<Vec<Value>, ApiError> {
        let snapshot = snapshot(request).await?;
        let range = KeyRange::resource("", "nodes");
        let nodes = snapshot.range(&range, None);
        let nodes: Vec<Value> = nodes.map(|node| parse(node)).collect::<Result<_, _>>()?;
        let names = nodes
            .iter()
            .map(|node| meta::name(node).to_owned())
            .collect();
        let mut told: HashMap<_, _> = ask(request, &snapshot, names).await.into_iter().collect();
        let all = nodes.iter().filter_map(|node| {
            let summary = told.remove(meta::name(node))?;
            node_metrics(node, &summary)
        });
        Ok(all.collect())
    }

    async fn get(&self, request: &Request<'_>) -> Result<Value, ApiError> {
        let snapshot = snapshot(request).await?;
        let missing = || ApiError::NotFound(request.target());
        let name = &request.context.info.name;
        let key = ObjectKey::new("", "nodes", "", name);
        let node = parse(snapshot.get(&key).ok_or_else(missing)?)?;
        let summary = request.server.nodes().summary(name, &snapshot).await?;
        node_metrics(&node, &summary).ok_or_else(missing)
    }
}

async fn snapshot(request: &Request<'_>) -> Result<Snapshot, ApiError> {
    let store = request.server.registry().store();
    Ok(store.snapshot(Freshness::Latest).await?)
}

/// The summaries of those nodes that answer.
async fn ask(
    request: &Request<'_>,
    snapshot: &Snapshot,
    names: Vec<String>,
) -> Vec<(String, Value)> {
    let connector = request.server.nodes();
    let summary = |name: String| async move {
        let answer = tokio::time::timeout(LIMIT, connector.summary(&name, snapshot)).await;
        match answer {
            Ok(Ok(summary)) => Some((name, summary)),
            Ok(Err(error)) => {
                tracing::debug!(node = name, %error, "no metrics");
                None
            }
            Err(_) => {
                tracing::debug!(node = name, "no metrics in time");
                None
            }
        }
    };
    stream::iter(names)
        .map(summary)
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

fn uid_of(told: &Value) -> &str {
    let uid = told.pointer("/podRef/uid").and_then(Value::as_str);
    uid.unwrap_or_default()
}

/// What a node says of its pods.
fn told(summary: &Value) -> impl Iterator<Item = &Value> {
    let pods = summary.get("pods").and_then(Value::as_array);
    pods.into_iter().flatten()
}

fn pod_metrics(pod: &Value, told: &Value) -> Option<Value> {
    let containers = told.get("containers").and_then(Value::as_array)?;
    let usages = containers.iter().map(|container| {
        let name = container.get("name").cloned().unwrap_or_default();
        json!({"name": name, "usage": usage(container)})
    });
    let usages: Vec<_> = usages.collect();
    let when = containers.first()?;
    let mut metrics = head(&POD_METRICS, pod, when);
    metrics.insert("containers".into(), usages.into());
    Some(metrics.into())
}

fn node_metrics(node: &Value, summary: &Value) -> Option<Value> {
    let told = summary.get("node")?;
    let mut metrics = head(&NODE_METRICS, node, told);
    metrics.insert("usage".into(), usage(told));
    Some(metrics.into())
}

/// What both kinds begin with.
fn head(gvk: &GroupVersionKind, of: &Value, told: &Value) -> Map<String, Value> {
    let text = |path: &str| {
        told.pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let time: Option<Timestamp> = text("/cpu/time").parse().ok();
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
    let head = json!({
        "kind": gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata,
        "timestamp": format_seconds(time.unwrap_or_else(Timestamp::now)),
        "window": text("/cpu/window"),
    });
    match head {
        Value::Object(head) => head,
        _ => Map::new(),
    }
}

fn usage(told: &Value) -> Value {
    let number = |path: &str| told.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    json!({
        "cpu": format!("{}n", number("/cpu/usageNanoCores")),
        "memory": format!("{}Ki", number("/memory/workingSetBytes") / 1024),
    })
}
