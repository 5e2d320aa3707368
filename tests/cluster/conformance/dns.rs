//! sig-network: names. What upstream's pods look up with `dig` and `getent`, a probe looks up through its resolver, and
//! a plain client on the wire.

use hickory_proto::rr::RecordType;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use windlass_tests::{Cluster, push};

use super::{begin, create, pod, pods, until_phase};
use crate::built::guest;
use crate::dns::{Client, probe};

fn services(cluster: &Cluster) -> Api<Service> {
    Api::namespaced(cluster.client(), "default")
}

/// A cluster and the probe's image; nothing where guests can't be built.
async fn with_probe() -> Option<(Cluster, String)> {
    let file = guest("probe")?;
    let (cluster, _) = begin().await;
    let image = push(&cluster, "probe", &std::fs::read(file).unwrap()).await;
    Some((cluster, image))
}

async fn resolve(cluster: &Cluster, image: &str, name: &str, spec: &Value) -> String {
    probe(cluster, image, &["resolve", name], spec).await
}

/// Conformance: [sig-network] DNS should provide DNS for the cluster [Conformance]
/// Conformance: [sig-network] DNS should provide /etc/hosts entries for the cluster [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_own_names_and_the_pods_resolve() {
    let Some((cluster, image)) = with_probe().await else {
        return;
    };
    let none = json!({});
    for name in [
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ] {
        assert_eq!(
            resolve(&cluster, &image, name, &none).await,
            "10.96.0.1",
            "{name}"
        );
    }
    // As from /etc/hosts: no Service has these names.
    let named = json!({"hostname": "querier", "subdomain": "queriers"});
    for name in ["querier", "querier.queriers.default.svc.cluster.local"] {
        let own = resolve(&cluster, &image, name, &named).await;
        assert!(own.starts_with("10.128."), "{name}: {own}");
    }
    cluster.shutdown().await;
}

/// Conformance: [sig-network] DNS should provide DNS for services [Conformance]
/// Conformance: [sig-network] DNS should provide DNS for pods for Hostname [Conformance]
/// Conformance: [sig-network] DNS should provide DNS for pods for Subdomain [Conformance]
/// Conformance: [sig-network] DNS should resolve DNS of partial qualified names for services [LinuxOnly] [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn services_and_pods_with_names_resolve() {
    let Some((cluster, image)) = with_probe().await else {
        return;
    };
    let serves = push(&cluster, "serves", crate::HELLO).await;
    let ports = json!([{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]);
    for (name, address) in [("normal", Value::Null), ("headless", json!("None"))] {
        let service = json!({"metadata": {"name": name}, "spec": {"clusterIP": address,
            "selector": {"app": "member"}, "ports": ports}});
        create(&services(&cluster), service).await;
    }
    let named = json!({"hostname": "host", "subdomain": "headless"});
    create(&pods(&cluster), pod("member", &serves, &named)).await;
    let member = until_phase(&cluster, "member", "Running").await;
    let member = member.status.unwrap().pod_ip.unwrap();
    let normal = services(&cluster).get("normal").await.unwrap();
    let normal = normal.spec.unwrap().cluster_ip.unwrap();
    let client = Client::of(&cluster).await;
    let full = "host.headless.default.svc.cluster.local.";
    client.until(full, RecordType::A, &[&member]).await;
    for (name, want) in [
        (
            "_http._tcp.normal.default.svc.cluster.local",
            "0 100 80 normal.default.svc.cluster.local.",
        ),
        (
            "_http._tcp.headless.default.svc.cluster.local",
            &format!("0 100 8080 {full}"),
        ),
    ] {
        client.until(name, RecordType::SRV, &[want]).await;
    }
    for (address, want) in [
        (&normal, "normal.default.svc.cluster.local."),
        (&member, full),
    ] {
        let name = hickory_proto::rr::Name::from(address.parse::<std::net::IpAddr>().unwrap());
        client
            .until(&name.to_ascii(), RecordType::PTR, &[want])
            .await;
    }
    let none = json!({});
    for (name, want) in [
        ("normal", &normal),
        ("normal.default", &normal),
        ("normal.default.svc", &normal),
        ("headless", &member),
        ("headless.default.svc.cluster.local", &member),
        ("host.headless", &member),
        ("host.headless.default.svc.cluster.local", &member),
    ] {
        assert_eq!(
            &resolve(&cluster, &image, name, &none).await,
            want,
            "{name}"
        );
    }
    cluster.shutdown().await;
}

/// Conformance: [sig-network] DNS should provide DNS for ExternalName services [Conformance]
/// Conformance: [sig-network] Services should be able to change the type from ClusterIP to ExternalName [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_service_becomes_an_alias_and_an_address_again() {
    let (cluster, _) = begin().await;
    let client = Client::of(&cluster).await;
    let services = services(&cluster);
    let name = "changing.default.svc.cluster.local";
    let alias = json!({"metadata": {"name": "changing"},
        "spec": {"type": "ExternalName", "externalName": "foo.example.com"}});
    create(&services, alias).await;
    client
        .until(name, RecordType::CNAME, &["foo.example.com."])
        .await;
    let change = async |spec: Value| {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let params = PatchParams::default();
        let changed = services.patch("changing", &params, &patch).await.unwrap();
        changed.spec.unwrap().cluster_ip.unwrap_or_default()
    };
    change(json!({"externalName": "bar.example.com"})).await;
    client
        .until(name, RecordType::CNAME, &["bar.example.com."])
        .await;
    let address = change(json!({"type": "ClusterIP", "externalName": null,
        "ports": [{"port": 80, "protocol": "TCP"}]}))
    .await;
    client.until(name, RecordType::A, &[&address]).await;
    // Towards a name of the cluster the alias is followed.
    let target = "kubernetes.default.svc.cluster.local";
    let released = change(
        json!({"type": "ExternalName", "externalName": target, "clusterIP": null,
        "clusterIPs": null, "ports": null}),
    )
    .await;
    assert_eq!(released, "");
    let full = format!("{target}.");
    client
        .until(name, RecordType::A, &["10.96.0.1", &full])
        .await;
    cluster.shutdown().await;
}

/// Conformance: [sig-network] DNS should support configurable pod DNS nameservers [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_the_servers_and_domains_that_it_names() {
    let Some((cluster, image)) = with_probe().await else {
        return;
    };
    let config = |server: &str| {
        json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": [server],
            "searches": ["default.svc.cluster.local"], "options": [{"name": "timeout", "value": "1"},
                {"name": "attempts", "value": "1"}]}})
    };
    let named = config("10.96.0.10");
    assert_eq!(
        resolve(&cluster, &image, "kubernetes", &named).await,
        "10.96.0.1"
    );
    // Nobody is at that address, and nobody else is asked.
    let nobody = resolve(&cluster, &image, "kubernetes", &config("10.191.255.1")).await;
    assert!(nobody.starts_with("error:"), "{nobody}");
    cluster.shutdown().await;
}
