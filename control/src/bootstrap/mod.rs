//! Objects that every cluster has: system namespaces and priority classes, default roles, the Services of
//! the API itself and of DNS, the class of Ingresses, and what a joining node reads. Made through the API like everything else, and again after somebody removed them.

mod roles;

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::IngressClass;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use windlass_api::ingress;

use crate::config::Config;

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
const MANAGER: &str = "kube-apiserver";

/// The classes of pods that the cluster itself needs: name, value, whom they are for.
const PRIORITY_CLASSES: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "For pods that their node cannot do without.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "For pods that the cluster cannot do without, on whichever node.",
    ),
];

/// Makes sure that the objects are there and say `address`; but for what [`publish`] says.
///
/// # Errors
/// When the API refuses, which means that it does not work.
pub(crate) async fn ensure(
    client: &Client,
    config: &Config,
    address: SocketAddr,
) -> Result<(), kube::Error> {
    for namespace in NAMESPACES {
        let object =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply(client, "namespaces", None, &object).await?;
    }
    for class in PRIORITY_CLASSES {
        apply(client, "priorityclasses", None, &priority_class(class)).await?;
    }
    roles::ensure(client).await?;
    apply(client, "services", Some("default"), &service(config)).await?;
    apply(client, "endpoints", Some("default"), &endpoints(address)).await?;
    apply(client, "endpointslices", Some("default"), &slice(address)).await?;
    ensure_dns(client, config).await?;
    ensure_ingress_class(client).await
}

/// Makes the class of Ingresses that nodes serve if there is none: an administrator may have another one be the default.
async fn ensure_ingress_class(client: &Client) -> Result<(), kube::Error> {
    let classes: Api<IngressClass> = Api::all(client.clone());
    if classes.get_opt(ingress::CLASS).await?.is_some() {
        return Ok(());
    }
    apply(client, "ingressclasses", None, &ingress_class()).await
}

/// Makes the Service of DNS if there is none: its address cannot change, and may be another's in data of before.
async fn ensure_dns(client: &Client, config: &Config) -> Result<(), kube::Error> {
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    if services.get_opt("kube-dns").await?.is_some() {
        return Ok(());
    }
    let service = dns_service(config);
    match apply(client, "services", Some("kube-system"), &service).await {
        Err(kube::Error::Api(status)) if status.is_invalid() => {
            let message = status.message;
            tracing::warn!(
                message,
                "DNS has no address: programs that send packets to it resolve nothing"
            );
            Ok(())
        }
        outcome => outcome,
    }
}

/// Says to nodes that join whom to trust.
///
/// # Errors
/// When the API refuses.
pub(crate) async fn publish(
    client: &Client,
    address: SocketAddr,
    ca_certificate: &str,
) -> Result<(), kube::Error> {
    let info = cluster_info(address, ca_certificate);
    apply(client, "configmaps", Some("kube-public"), &info).await
}

/// Waits until pods can be made in namespace `default`: until the controllers gave it a ServiceAccount.
/// That takes milliseconds; should it take longer, the server serves all the same.
pub(crate) async fn settle(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
    let is_there = |account: Option<&ServiceAccount>| account.is_some();
    let wait = await_condition(accounts, "default", is_there);
    match tokio::time::timeout(SETTLE_LIMIT, wait).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "watch for ServiceAccount default/default"),
        Err(_) => tracing::warn!("ServiceAccount default/default is not there yet"),
    }
}

/// Applies one object as the API server itself.
async fn apply(
    client: &Client,
    plural: &str,
    namespace: Option<&str>,
    object: &Value,
) -> Result<(), kube::Error> {
    let text = |field: &str| {
        object
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let (group, version) = text("apiVersion")
        .split_once('/')
        .unwrap_or(("", text("apiVersion")));
    let gvk = GroupVersionKind::gvk(group, version, text("kind"));
    let resource = ApiResource::from_gvk_with_plural(&gvk, plural);
    let api: Api<DynamicObject> = match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let name = object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let params = PatchParams::apply(MANAGER).force();
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .map(drop)
}

fn priority_class((name, value, description): (&str, i64, &str)) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": name}, "value": value, "description": description,
    })
}

fn service(config: &Config) -> Value {
    let address = config.api_service_address().to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    })
}

fn ingress_class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
        "metadata": {
            "name": ingress::CLASS,
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
        },
        "spec": {"controller": ingress::CONTROLLER},
    })
}

/// The Service by whose address pods ask for names. It has no pods: every node answers for itself.
fn dns_service(config: &Config) -> Value {
    let address = config.dns_service_address().to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

fn endpoints(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": address.ip().to_string()}],
            "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
        }],
    })
}

fn slice(address: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": address.port(), "protocol": "TCP"}],
    })
}

fn cluster_info(address: SocketAddr, ca_certificate: &str) -> Value {
    let kubeconfig = crate::kubeconfig::anonymous(&format!("https://{address}"), ca_certificate);
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cluster-info", "namespace": "kube-public"},
        "data": {"kubeconfig": kubeconfig},
    })
}
