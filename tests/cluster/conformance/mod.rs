//! Rows of Kubernetes' conformance suite whose pods have to run: here they run as components.

mod dns;
mod init;
mod network;
mod pods;
mod volumes;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, eventually, push};

use crate::HELLO;
use crate::faults::command;

/// Components by what they do.
struct Images {
    /// Answers requests for ever.
    serves: String,
    /// Ends well at once.
    ends: String,
    /// Fails at once.
    fails: String,
}

async fn begin() -> (Cluster, Images) {
    let cluster = Cluster::with_node().await.unwrap();
    let images = Images {
        serves: push(&cluster, "serves", HELLO).await,
        ends: push(&cluster, "ends", &command("i32.const 0")).await,
        fails: push(&cluster, "fails", &command("i32.const 1")).await,
    };
    (cluster, images)
}

fn pods(cluster: &Cluster) -> Api<Pod> {
    Api::namespaced(cluster.client(), "default")
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + serde::Serialize + serde::de::DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// A pod labelled `app: NAME` with one container, `c`.
fn pod(name: &str, image: &str, more: &Value) -> Value {
    let mut spec = json!({"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]});
    let fields = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})
}

fn phase(pod: Option<&Pod>) -> &str {
    let status = pod.and_then(|pod| pod.status.as_ref());
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|of| of.type_ == kind)?;
    Some(&found.status)
}

fn container(statuses: Option<&Vec<ContainerStatus>>) -> Option<&ContainerStatus> {
    statuses?.first()
}

async fn until_phase(cluster: &Cluster, name: &str, wanted: &str) -> Pod {
    let reached = |pod: Option<&Pod>| phase(pod) == wanted;
    eventually(pods(cluster), name, wanted, reached)
        .await
        .unwrap()
}

async fn until_gone(cluster: &Cluster, name: &str) {
    eventually(pods(cluster), name, "its end", |pod| pod.is_none()).await;
}
