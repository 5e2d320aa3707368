//! Telling the API what was decided.

use k8s_openapi::api::core::v1::{
    Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use super::pod_info::PodInfo;
use super::state::{Explanation, ToBind};
use super::storage::SELECTED_NODE;
use crate::controllers::runtime::metadata::Metadata;

/// Binds the pod to the node. Dropped midway, the binding may or may not have happened; the watch tells.
pub(super) async fn bind(client: Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let api = pods(client, pod);
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            // Another pod of the same name must not get this one's node.
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let params = PostParams::default();
    let name = pod.metadata.name();
    let _: kube::core::Status = api
        .create_subresource("binding", name, &params, &binding)
        .await?;
    Ok(())
}

/// Writes the condition that says why the pod has no node, and which node it is promised.
pub(super) async fn explain(client: Client, said: &Explanation) -> Result<(), kube::Error> {
    let mut status = Map::new();
    if said.pod.unschedulable != said.message {
        let condition = condition("PodScheduled", "False", "Unschedulable", &said.message);
        status.insert("conditions".into(), vec![condition].into());
    }
    let promised = said.nominated.as_ref();
    if let Some(node) = promised.filter(|node| **node != said.pod.nominated) {
        let node = (!node.is_empty()).then_some(node.as_str());
        status.insert("nominatedNodeName".into(), node.into());
    }
    if status.is_empty() {
        return Ok(());
    }
    patch_status(client, &said.pod, &status.into()).await
}

/// Takes back the promise of a node.
pub(super) async fn displace(client: Client, pod: &PodInfo) -> Result<(), kube::Error> {
    patch_status(client, pod, &json!({"nominatedNodeName": null})).await
}

/// Evicts a pod for one that matters more.
pub(super) async fn evict(
    client: Client,
    victim: &PodInfo,
    scheduler: &str,
) -> Result<(), kube::Error> {
    let text = format!("{scheduler}: preempting to accommodate a higher priority pod");
    let condition = condition("DisruptionTarget", "True", "PreemptionByScheduler", &text);
    patch_status(client.clone(), victim, &json!({"conditions": [condition]})).await?;
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: victim.metadata.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    let api = pods(client, victim);
    api.delete(victim.metadata.name(), &params).await.map(drop)
}

/// Has the claims of a pod filled for the node: by a volume that is there, or by their provisioner.
pub(super) async fn provision(
    client: &Client,
    node: &str,
    claims: &[ToBind],
) -> Result<(), kube::Error> {
    let params = PatchParams::default();
    for (claim, volume) in claims {
        let metadata = &claim.metadata;
        if let Some(volume) = volume {
            let api: Api<PersistentVolume> = Api::all(client.clone());
            let patch = json!({
                "metadata": {"uid": volume.metadata.uid()},
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": metadata.namespace(), "name": metadata.name(),
                    "uid": metadata.uid(),
                }},
            });
            api.patch(volume.metadata.name(), &params, &Patch::Merge(&patch))
                .await?;
        } else if metadata.annotation(SELECTED_NODE) != node {
            let api: Api<PersistentVolumeClaim> =
                Api::namespaced(client.clone(), metadata.namespace());
            let annotations = json!({ SELECTED_NODE: node });
            let patch = json!({"metadata": {"uid": metadata.uid(), "annotations": annotations}});
            api.patch(metadata.name(), &params, &Patch::Merge(&patch))
                .await?;
        }
    }
    Ok(())
}

fn pods(client: Client, pod: &PodInfo) -> Api<Pod> {
    Api::namespaced(client, pod.metadata.namespace())
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "lastProbeTime": null,
        "lastTransitionTime": windlass_api::time::format_seconds(jiff::Timestamp::now()),
    })
}

async fn patch_status(client: Client, pod: &PodInfo, status: &Value) -> Result<(), kube::Error> {
    let patch = json!({"metadata": {"uid": pod.metadata.uid()}, "status": status});
    let params = PatchParams::default();
    let api = pods(client, pod);
    api.patch_status(pod.metadata.name(), &params, &Patch::Strategic(&patch))
        .await
        .map(drop)
}
