//! sig-network and sig-auth: what is published of Services, of the API, and of its authority.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::json;

use super::pod_spec;
use crate::cluster::{Cluster, create, eventually, merge};

/// The addresses of the slices that belong to a Service.
fn addresses_of(all: &BTreeMap<String, EndpointSlice>, service: &str) -> Vec<String> {
    let slices = all.values().filter(|slice| {
        let labels = slice.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get("kubernetes.io/service-name"))
            == Some(&service.to_owned())
    });
    let addresses = slices
        .flat_map(|slice| &slice.endpoints)
        .flat_map(|of| &of.addresses);
    let mut addresses: Vec<_> = addresses.cloned().collect();
    addresses.sort();
    addresses
}

fn service(selector: &str) -> serde_json::Value {
    json!({"metadata": {"name": "s"}, "spec": {"selector": {"app": selector},
        "ports": [{"port": 80, "targetPort": 8080}]}})
}

/// Conformance: [sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_a_service_with_endpoints() {
    let cluster = Cluster::start().await;
    let service = cluster.api::<Service>().get("kubernetes").await.unwrap();
    let port = &service.spec.unwrap().ports.unwrap()[0];
    assert_eq!((port.name.as_deref(), port.port), (Some("https"), 443));
    let endpoints = cluster.api::<Endpoints>().get("kubernetes").await.unwrap();
    let subset = &endpoints.subsets.unwrap()[0];
    let slice = cluster
        .api::<EndpointSlice>()
        .get("kubernetes")
        .await
        .unwrap();
    let address = &slice.endpoints[0].addresses[0];
    assert_eq!(&subset.addresses.as_ref().unwrap()[0].ip, address);
    let of_slice = slice.ports.unwrap()[0].port;
    assert_eq!(Some(subset.ports.as_ref().unwrap()[0].port), of_slice);
    cluster.stop().await;
}

/// Conformance: [sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods [Conformance]
/// Conformance: [sig-network] EndpointsController should create and delete Endpoints for a Service with a selector that matches no pods [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_pods_has_endpoints_that_are_empty_and_go_with_it() {
    let cluster = Cluster::start().await;
    let (services, slices, endpoints) = (
        cluster.api::<Service>(),
        cluster.api::<EndpointSlice>(),
        cluster.api::<Endpoints>(),
    );
    create(&services, service("none")).await;
    let empty = eventually(&endpoints, |all| all.contains_key("s")).await;
    assert!(empty["s"].subsets.as_ref().is_none_or(Vec::is_empty));
    let of_service =
        |all: &BTreeMap<String, EndpointSlice>| all.keys().any(|name| name.starts_with("s-"));
    eventually(&slices, of_service).await;
    services
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&endpoints, |all| !all.contains_key("s")).await;
    eventually(&slices, |all| !of_service(all)).await;
    cluster.stop().await;
}

/// Conformance: [sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service [Conformance]
/// Conformance: [sig-network] EndpointsController should create Endpoints for Pods matching a Service [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn the_pods_a_service_selects_are_its_endpoints() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (pods, slices) = (cluster.api::<Pod>(), cluster.api::<EndpointSlice>());
    create(&cluster.api::<Service>(), service("a")).await;
    for name in ["one", "two"] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "a"}}, "spec": pod_spec()});
        create(&pods, pod).await;
    }
    let running = eventually(&pods, |all| {
        let addresses = all
            .values()
            .filter_map(|pod| pod.status.as_ref()?.pod_ip.clone());
        addresses.count() == 2
    })
    .await;
    let ips = |all: &BTreeMap<String, Pod>| -> Vec<String> {
        let mut ips: Vec<_> = all
            .values()
            .filter_map(|pod| pod.status.as_ref()?.pod_ip.clone())
            .collect();
        ips.sort();
        ips
    };
    eventually(&slices, |all| addresses_of(all, "s") == ips(&running)).await;
    eventually(&cluster.api::<Endpoints>(), |all| {
        let subsets = all
            .get("s")
            .and_then(|of| of.subsets.clone())
            .unwrap_or_default();
        subsets
            .iter()
            .flat_map(|subset| subset.addresses.iter().flatten())
            .count()
            == 2
    })
    .await;
    pods.delete("one", &DeleteParams::default()).await.unwrap();
    let left = ips(&[("two".to_owned(), running["two"].clone())].into());
    eventually(&slices, |all| addresses_of(all, "s") == left).await;
    cluster.stop().await;
}

/// Conformance: [sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and delete [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_a_person_wrote_are_mirrored() {
    let cluster = Cluster::start().await;
    let (endpoints, slices) = (cluster.api::<Endpoints>(), cluster.api::<EndpointSlice>());
    let without_selector = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    create(&cluster.api::<Service>(), without_selector).await;
    let subset = |ip: &str| json!([{"addresses": [{"ip": ip}], "ports": [{"port": 80}]}]);
    let custom = json!({"metadata": {"name": "s"}, "subsets": subset("10.1.2.3")});
    create(&endpoints, custom).await;
    eventually(&slices, |all| addresses_of(all, "s") == ["10.1.2.3"]).await;
    merge(&endpoints, "s", json!({"subsets": subset("10.2.3.4")})).await;
    eventually(&slices, |all| addresses_of(all, "s") == ["10.2.3.4"]).await;
    endpoints
        .delete("s", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&slices, |all| addresses_of(all, "s").is_empty()).await;
    cluster.stop().await;
}
