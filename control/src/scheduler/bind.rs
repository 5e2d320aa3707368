//! Telling the API what was decided.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::pod_info::PodInfo;
use crate::controllers::runtime::metadata::Metadata;

/// Binds the pod to the node. Dropped midway, the binding may or may not have happened; the watch tells.
pub(super) async fn bind(
    client: Client,
    pod: &Arc<PodInfo>,
    node: &str,
) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, pod.metadata.namespace());
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

/// Writes the condition that says why the pod has no node.
pub(super) async fn mark_unschedulable(
    client: Client,
    pod: &Arc<PodInfo>,
    message: &str,
) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, pod.metadata.namespace());
    let patch = json!({
        "metadata": {"uid": pod.metadata.uid()},
        "status": {"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, "lastProbeTime": null,
            "lastTransitionTime": windlass_api::time::format_seconds(jiff::Timestamp::now()),
        }]},
    });
    let patch = Patch::Strategic(&patch);
    api.patch_status(pod.metadata.name(), &PatchParams::default(), &patch)
        .await
        .map(drop)
}
