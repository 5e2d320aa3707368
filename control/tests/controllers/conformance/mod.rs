//! Rows of Kubernetes' conformance suite that need controllers, and pods that only have to say they run.
//! `tests/api/conformance` has those that need nothing but the API, and keeps the list.

mod apps;
mod collection;
mod network;
mod preemption;
mod quotas;
mod scheduling;
mod sets;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

/// A spec with one container, for a pod or a template.
fn pod_spec() -> Value {
    json!({"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]})
}

/// A template of pods labelled `app: NAME`.
fn template(name: &str) -> Value {
    json!({"metadata": {"labels": {"app": name}}, "spec": pod_spec()})
}

/// A ReplicaSet or a Deployment of pods labelled `app: NAME`.
fn workload(name: &str, replicas: i32) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template(name)}})
}

/// A ReplicationController of pods labelled `app: NAME`.
fn controller(name: &str, replicas: i32) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {
        "replicas": replicas, "selector": {"app": name}, "template": template(name)}})
}

/// The node of the pod of that name.
fn node_of<'a>(all: &'a BTreeMap<String, Pod>, name: &str) -> Option<&'a str> {
    all.get(name)?.spec.as_ref()?.node_name.as_deref()
}

/// How many of the pods are owned by an object of that kind.
fn owned_by(all: &BTreeMap<String, Pod>, kind: &str) -> usize {
    let owners = all
        .values()
        .map(|pod| pod.metadata.owner_references.iter().flatten());
    owners
        .filter(|owners| owners.clone().any(|owner| owner.kind == kind))
        .count()
}

/// Patches an object's status.
async fn patch_status<K>(api: &Api<K>, name: &str, status: Value) -> K
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let patch = json!({ "status": status });
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap()
}
