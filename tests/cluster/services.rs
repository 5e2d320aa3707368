//! Services as clients outside of the cluster reach them.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, PATIENCE, eventually};

use crate::{HELLO, apply, get, is_ready, push};

fn balancer(name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "LoadBalancer", "selector": {"app": "hello"}, "allocateLoadBalancerNodePorts": false,
            "ports": [{"port": port, "targetPort": "http"}]},
    })
}

fn address(service: Option<&Service>) -> Option<String> {
    let status = service?.status.as_ref()?.load_balancer.as_ref()?;
    status.ingress.as_ref()?.first()?.ip.clone()
}

/// A port of loopback that nobody has now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_is_reached_at_the_nodes_address_and_gives_it_up() {
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "one", "labels": {"app": "hello"}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{
            "name": "hello", "image": image, "env": [{"name": "POD_NAME", "value": "one"}],
            "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    apply::<Pod>(&cluster, &pod).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    eventually(pods, "one", "readiness", is_ready).await;
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    let port = free_port();
    apply::<Service>(&cluster, &balancer("first", port)).await;
    let what = "an address";
    let first = eventually(services.clone(), "first", what, |it| address(it).is_some()).await;
    let url = format!("http://{}:{port}/", address(first.as_ref()).unwrap());
    let answers = async { while !matches!(get(&url).await, Ok((200, _))) {} };
    assert!(
        tokio::time::timeout(PATIENCE, answers).await.is_ok(),
        "{url}"
    );

    // The port is the first one's as long as that is a load balancer.
    apply::<Service>(&cluster, &balancer("second", port)).await;
    let patch = json!({"spec": {"type": "ClusterIP"}});
    let params = PatchParams::default();
    services
        .patch("first", &params, &Patch::Merge(&patch))
        .await
        .unwrap();
    eventually(services.clone(), "second", what, |it| address(it).is_some()).await;
    let gone = "no address";
    eventually(services, "first", gone, |it| {
        it.is_some() && address(it).is_none()
    })
    .await;
    cluster.shutdown().await;
}
