//! sig-network: Services and everything beside them, as objects.

use serde_json::{Value, json};
use windlass_tests::Cluster;

use super::collection::{Collection, SELECTOR, named, names_of};
use super::matrix::{Matrix, NAMESPACE, with_namespace};

const NETWORKING: &str = "networking.k8s.io/v1";

/// Conformance: [sig-network] API Server should provide secure master service [Conformance]
#[tokio::test]
async fn the_api_is_a_service() {
    let cluster = Cluster::control_plane().await.unwrap();
    let services = Collection::new(&cluster, "v1", "services", Some("default"));
    let service = services.get("kubernetes").await;
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert_eq!(
        (&ports[0]["name"], &ports[0]["port"]),
        (&json!("https"), &json!(443))
    );
}

/// Conformance: [sig-network] Services should find a service from listing all namespaces [Conformance]
#[tokio::test]
async fn a_service_is_found_in_all_namespaces() {
    let cluster = Cluster::control_plane().await.unwrap();
    let services = Collection::new(&cluster, "v1", "services", None);
    let found = services.list("").await;
    let mut places = found
        .iter()
        .map(|s| (&s["metadata"]["namespace"], &s["metadata"]["name"]));
    assert!(places.any(|place| place == (&json!("default"), &json!("kubernetes"))));
}

/// Conformance: [sig-network] Services should complete a service status lifecycle [Conformance]
#[tokio::test]
async fn the_status_of_a_service_is_read_patched_and_updated() {
    let service = json!({"spec": {
        "type": "LoadBalancer",
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 80}],
    }});
    Matrix::new("v1", "Service", "services", service)
        .namespaced()
        .status(json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}))
        .walk()
        .await;
}

/// Conformance: [sig-network] Services should delete a collection of services [Conformance]
#[tokio::test]
async fn services_are_deleted_as_a_collection() {
    let cluster = with_namespace().await;
    let services = Collection::new(&cluster, "v1", "services", Some(NAMESPACE));
    let service = json!({"spec": {"ports": [{"port": 80}]}});
    for name in ["a", "b"] {
        services.create(&named(name, &service)).await;
    }
    let mut kept = named("kept", &service);
    kept["metadata"]["labels"] = json!({"other": "yes"});
    services.create(&kept).await;
    assert_eq!(services.list("").await.len(), 3);
    services.delete_all(SELECTOR).await;
    assert_eq!(names_of(&services.list("").await), ["kept"]);
}

/// Conformance: [sig-network] EndpointSlice should support creating EndpointSlice API operations [Conformance]
#[tokio::test]
async fn endpoint_slices_can_be_operated_on() {
    let slice = json!({
        "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
    });
    Matrix::new(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "endpointslices",
        slice,
    )
    .namespaced()
    .change(json!({"endpoints": [{"addresses": ["10.0.0.2"]}]}))
    .walk()
    .await;
}

/// Conformance: [sig-network] Endpoints should test the lifecycle of an Endpoint [Conformance]
#[tokio::test]
async fn endpoints_live_and_die() {
    let subsets = |address: &str| -> Value {
        json!({"subsets": [{
            "addresses": [{"ip": address}],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        }]})
    };
    Matrix::new("v1", "Endpoints", "endpoints", subsets("10.0.0.24"))
        .namespaced()
        .change(subsets("10.0.0.25"))
        .walk()
        .await;
}

/// Conformance: [sig-network] Ingress API should support creating Ingress API operations [Conformance]
#[tokio::test]
async fn ingresses_can_be_operated_on() {
    let backend = json!({"service": {"name": "default-backend", "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "ImplementationSpecific", "backend": backend});
    let ingress = json!({"spec": {
        "defaultBackend": backend,
        "rules": [{"host": "foo.bar.com", "http": {"paths": [path]}}],
        "tls": [{"hosts": ["foo.bar.com"], "secretName": "secret"}],
    }});
    Matrix::new(NETWORKING, "Ingress", "ingresses", ingress)
        .namespaced()
        .change(json!({"spec": {"ingressClassName": "other"}}))
        .status(json!({"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}))
        .walk()
        .await;
}

/// Conformance: [sig-network] IngressClass API should support creating IngressClass API operations [Conformance]
#[tokio::test]
async fn ingress_classes_can_be_operated_on() {
    let class = json!({"spec": {"controller": "example.com/controller"}});
    Matrix::new(NETWORKING, "IngressClass", "ingressclasses", class)
        .walk()
        .await;
}

/// Conformance: [sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations [Conformance]
#[tokio::test]
async fn ip_addresses_can_be_operated_on() {
    let parent = json!({
        "group": "networking.example.com", "resource": "things", "namespace": "default",
        "name": "thing",
    });
    let address = json!({"spec": {"parentRef": parent}});
    Matrix::new(NETWORKING, "IPAddress", "ipaddresses", address)
        .names(["192.168.1.1", "192.168.1.2", "192.168.1.3"])
        .walk()
        .await;
}

/// Conformance: [sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations [Conformance]
#[tokio::test]
async fn service_cidrs_can_be_operated_on() {
    let condition = json!({
        "type": "Patched", "status": "True", "reason": "Test", "message": "set by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let cidr = json!({"spec": {"cidrs": ["10.99.0.0/24"]}});
    Matrix::new(NETWORKING, "ServiceCIDR", "servicecidrs", cidr)
        .status(json!({"conditions": [condition]}))
        .walk()
        .await;
}
