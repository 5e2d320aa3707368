//! node.windlass.dev: what nodes know of their pods' components and flows, asked on request.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::node_info::{COMPONENTS_PATH, FLOWS_PATH, GROUP, POD_COMPONENTS, POD_FLOWS};
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::format_seconds;

use super::Computed;
use super::nodes::{ask, metadata, node_of, pods, snapshot};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::server::verbs::Request;
use crate::store::ObjectKey;

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
        let snapshot = snapshot(request).await?;
        let pods = pods(request, &snapshot)?;
        // Only nodes that have some of them are asked.
        let nodes: BTreeSet<&str> = pods.iter().filter_map(node_of).collect();
        let nodes = nodes.into_iter().map(str::to_owned).collect();
        let answers = ask(request, &snapshot, nodes, self.path).await;
        let mut told: HashMap<String, Value> = HashMap::new();
        for (_, answer) in answers {
            told.extend(by_uid(answer));
        }
        let objects = pods.iter().filter_map(|pod| {
            let items = told.remove(meta::uid(pod))?;
            Some(self.object(pod, items))
        });
        Ok(objects.collect())
    }

    async fn get(&self, request: &Request<'_>) -> Result<Value, ApiError> {
        let snapshot = snapshot(request).await?;
        let info = &request.context.info;
        let missing = || ApiError::NotFound(request.target());
        let key = ObjectKey::new("", "pods", &info.namespace, &info.name);
        let pod = parse(snapshot.get(&key).ok_or_else(missing)?)?;
        let node = node_of(&pod).ok_or_else(missing)?;
        let connector = request.server.nodes();
        let answer = connector.fetch(node, self.path, &snapshot).await?;
        let items = by_uid(answer).find(|(uid, _)| uid == meta::uid(&pod));
        let (_, items) = items.ok_or_else(missing)?;
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
