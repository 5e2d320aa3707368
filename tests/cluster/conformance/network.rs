//! sig-network: who is behind a Service.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use windlass_tests::{Cluster, PATIENCE, eventually};

use super::{begin, create, pod, pods, until_phase};

/// The addresses of a Service's slices, once there are `count`.
async fn slices(cluster: &Cluster, service: &str, count: usize) -> Vec<String> {
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client(), "default");
    let labels = format!("kubernetes.io/service-name={service}");
    let config = watcher::Config::default().labels(&labels);
    let seen = watcher(api.clone(), config)
        .default_backoff()
        .applied_objects();
    let mut seen = std::pin::pin!(seen);
    let wait = async {
        while let Some(event) = seen.next().await {
            event.unwrap();
            let all = api
                .list(&ListParams::default().labels(&labels))
                .await
                .unwrap();
            let addresses = all.items.into_iter().flat_map(|slice| slice.endpoints);
            let addresses: Vec<_> = addresses.flat_map(|endpoint| endpoint.addresses).collect();
            if addresses.len() == count {
                return addresses;
            }
        }
        Vec::new()
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

/// Conformance: [sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service [Conformance]
/// Conformance: [sig-network] EndpointsController should create Endpoints for Pods matching a Service [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn pods_come_and_go_behind_their_service() {
    let (cluster, images) = begin().await;
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"set": "web"},
        "ports": [{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": 8080}]}});
    create(&services, service).await;
    let mut ips = Vec::new();
    for name in ["one", "two"] {
        let mut pod = pod(name, &images.serves, &json!({}));
        pod["metadata"]["labels"]["set"] = "web".into();
        create(&pods(&cluster), pod).await;
        let running = until_phase(&cluster, name, "Running").await;
        ips.push(running.status.unwrap().pod_ip.unwrap());
    }
    let mut addresses = slices(&cluster, "web", 2).await;
    addresses.sort();
    ips.sort();
    assert_eq!(addresses, ips);
    let endpoints: Api<Endpoints> = Api::namespaced(cluster.client(), "default");
    let holds = |count: usize| {
        move |of: Option<&Endpoints>| {
            let subsets = of.and_then(|of| of.subsets.as_ref()).into_iter().flatten();
            let addresses = subsets.map(|subset| {
                let ports = subset.ports.as_ref().map_or(0, Vec::len);
                subset.addresses.as_ref().map_or(0, Vec::len) * usize::from(ports == 2)
            });
            addresses.sum::<usize>() == count
        }
    };
    eventually(endpoints.clone(), "web", "two addresses", holds(2)).await;
    let params = DeleteParams::default();
    pods(&cluster).delete("one", &params).await.unwrap();
    assert_eq!(slices(&cluster, "web", 1).await.len(), 1);
    eventually(endpoints, "web", "one address", holds(1)).await;
    cluster.shutdown().await;
}

/// Conformance: [sig-network] Service endpoints latency should not be very high [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn every_one_of_many_services_gets_its_endpoint() {
    let (cluster, images) = begin().await;
    create(&pods(&cluster), pod("web", &images.serves, &json!({}))).await;
    until_phase(&cluster, "web", "Running").await;
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    let name = |number: usize| format!("latency-{number}");
    for number in 0..50 {
        let service = json!({"metadata": {"name": name(number)},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
        create(&services, service).await;
    }
    for number in 0..50 {
        assert_eq!(slices(&cluster, &name(number), 1).await.len(), 1);
    }
    cluster.shutdown().await;
}
