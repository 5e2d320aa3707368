//! metrics.k8s.io: what pods and nodes use now, asked of the nodes on request.
//!
//! Differs from Kubernetes: there is no server that collects in between, so an answer is as old as the
//! request, and rates are taken by the nodes. A node that does not answer in time is missing from a list, as
//! upstream's are.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::metrics::{GROUP, NODE_METRICS, POD_METRICS};
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::Computed;
use super::nodes::{ask, ask_for_pod, ask_for_pods, metadata, snapshot};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::server::verbs::Request;
use crate::store::{KeyRange, ObjectKey};

/// What a node and its pods use, as the node tells it.
const SUMMARY: &str = "/stats/summary";

pub(super) struct PodsMetrics;
pub(super) struct NodesMetrics;

#[async_trait]
impl Computed for PodsMetrics {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "pods")
    }

    async fn list(&self, request: &Request<'_>) -> Result<Vec<Value>, ApiError> {
        let (pods, summaries) = ask_for_pods(request, SUMMARY).await?;
        let all = summaries.iter().flat_map(told);
        let by_uid: HashMap<&str, &Value> = all.map(|told| (uid_of(told), told)).collect();
        let metrics = pods.iter().filter_map(|pod| {
            let told = by_uid.get(meta::uid(pod))?;
            pod_metrics(pod, told)
        });
        Ok(metrics.collect())
    }

    async fn get(&self, request: &Request<'_>) -> Result<Value, ApiError> {
        let (pod, summary) = ask_for_pod(request, SUMMARY).await?;
        let own = told(&summary).find(|told| uid_of(told) == meta::uid(&pod));
        let found = own.and_then(|told| pod_metrics(&pod, told));
        found.ok_or_else(|| ApiError::NotFound(request.target()))
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
        let mut told: HashMap<_, _> = ask(request, &snapshot, names, SUMMARY)
            .await
            .into_iter()
            .collect();
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
        let summary = request
            .server
            .nodes()
            .fetch(name, SUMMARY, &snapshot)
            .await?;
        node_metrics(&node, &summary).ok_or_else(missing)
    }
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
    let head = json!({
        "kind": gvk.kind, "apiVersion": gvk.api_version(), "metadata": metadata(of),
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
