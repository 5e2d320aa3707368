//! Behaviour of whole clusters: controllers, scheduler, a node, wasm pods, the network between them.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod api_access;
mod autoscaling;
#[path = "../guests/built.rs"]
mod built;
mod conformance;
mod dns;
mod faults;
mod grants;
mod images;
mod ingress;
mod kubelet_permissions;
mod pods;
mod policies;
mod private_images;
mod services;
mod static_pods;
mod streams;
mod two_nodes;
mod web_app;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, PATIENCE, eventually, get, push};

/// The component of `examples/hello`.
const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");

/// A Deployment of the hello component with a readiness probe.
fn hello(image: &str, replicas: i32, greeting: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hello"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "hello"}},
            "template": {
                "metadata": {"labels": {"app": "hello"}},
                "spec": {"terminationGracePeriodSeconds": 5, "containers": [{
                    "name": "hello", "image": image,
                    "env": [
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "GREETING", "value": greeting},
                    ],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {
                        "httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1,
                    },
                }]},
            },
        },
    })
}

fn node_port() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"},
        "spec": {
            "type": "NodePort", "selector": {"app": "hello"},
            "ports": [{"port": 80, "targetPort": "http"}],
        },
    })
}

async fn apply<K>(cluster: &Cluster, object: &Value)
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(cluster.client(), "default");
    let name = object["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("test").force();
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .unwrap();
}

/// Waits until every wanted replica runs the newest template and is available.
async fn rolled_out(cluster: &Cluster) {
    let api: Api<Deployment> = Api::namespaced(cluster.client(), "default");
    let done = |deployment: Option<&Deployment>| {
        let Some(deployment) = deployment else {
            return false;
        };
        let (spec, status) = (deployment.spec.as_ref().unwrap(), deployment.status.clone());
        let (wanted, status) = (spec.replicas.unwrap_or(1), status.unwrap_or_default());
        status.observed_generation == deployment.metadata.generation
            && status.updated_replicas.unwrap_or(0) == wanted
            && status.available_replicas.unwrap_or(0) == wanted
            && status.replicas.unwrap_or(0) == wanted
    };
    eventually(api, "hello", "the rollout", done).await;
}

/// The URL of Service `hello` on the node.
async fn url(cluster: &Cluster) -> String {
    let api: Api<Service> = Api::namespaced(cluster.client(), "default");
    let service = api.get("hello").await.unwrap();
    let port = service.spec.unwrap().ports.unwrap()[0].node_port.unwrap();
    format!("http://{}:{port}/", cluster.node_address())
}

fn is_ready(pod: Option<&Pod>) -> bool {
    let status = pod.and_then(|pod| pod.status.as_ref());
    let mut conditions = status
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The answer behind a node port, which leads somewhere a moment after its pod is ready.
async fn answered(url: &str) -> (u16, String) {
    let answer = async {
        loop {
            if let Ok(answer) = get(url).await {
                return answer;
            }
        }
    };
    let answer = tokio::time::timeout(PATIENCE, answer).await;
    answer.unwrap_or_else(|_| panic!("{url} does not answer"))
}
