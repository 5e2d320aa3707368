//! node.windlass.dev: what nodes know of their pods' components and flows, asked on request.

use std::collections::HashMap;

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::node_info::{COMPONENTS_PATH, FLOWS_PATH, GROUP, POD_COMPONENTS, POD_FLOWS};
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::Computed;
use super::nodes::{ask_for_pod, ask_for_pods, metadata};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::server::verbs::Request;

/// A kind of the group: what nodes are asked for, and under which field it is told.
pub(super) struct NodeInfo {
    resource: &'static str,
    gvk: GroupVersionKind,
    path: &'static str,
    field: &'static str,
}

pub(super) static COMPONENTS: NodeInfo = NodeInfo {
    resource: "podcomponents",
    gvk: POD_COMPONENTS,
    path: COMPONENTS_PATH,
    field: "containers",
};

pub(super) static FLOWS: NodeInfo = NodeInfo {
    resource: "podflows",
    gvk: POD_FLOWS,
    path: FLOWS_PATH,
    field: "flows",
};

#[async_trait]
impl Computed for NodeInfo {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, self.resource)
    }

    async fn list(&self, request: &Request<'_>) -> Result<Vec<Value>, ApiError> {
        let (pods, answers) = ask_for_pods(request, self.path).await?;
        let mut told: HashMap<String, Value> = answers.into_iter().flat_map(by_uid).collect();
        let objects = pods.iter().filter_map(|pod| {
            let items = told.remove(meta::uid(pod))?;
            Some(self.object(pod, items))
        });
        Ok(objects.collect())
    }

    async fn get(&self, request: &Request<'_>) -> Result<Value, ApiError> {
        let (pod, answer) = ask_for_pod(request, self.path).await?;
        let items = by_uid(answer).find(|(uid, _)| uid == meta::uid(&pod));
        let (_, items) = items.ok_or_else(|| ApiError::NotFound(request.target()))?;
        Ok(self.object(&pod, items))
    }
}

impl NodeInfo {
    fn object(&self, pod: &Value, items: Value) -> Value {
        let mut object = Map::new();
        object.insert("kind".into(), self.gvk.kind.as_ref().into());
        object.insert("apiVersion".into(), self.gvk.api_version().into());
        object.insert("metadata".into(), metadata(pod));
        object.insert("timestamp".into(), json!(format_seconds(Timestamp::now())));
        object.insert(self.field.into(), items);
        object.into()
    }
}

/// What a node says, by uid of the pod.
fn by_uid(answer: Value) -> impl Iterator<Item = (String, Value)> {
    let pods = match answer {
        Value::Array(pods) => pods,
        _ => Vec::new(),
    };
    pods.into_iter().filter_map(|mut pod| {
        let items = pod.get_mut("items")?.take();
        Some((pod.get("uid")?.as_str()?.to_owned(), items))
    })
}
