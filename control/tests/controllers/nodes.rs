//! Nodes: their networks, their taints, their certificates, and what becomes of their pods.

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::json;

use crate::cluster::{Cluster, create, eventually, merge};
use crate::workloads::deployment;

#[tokio::test(flavor = "multi_thread")]
async fn every_node_gets_a_network_of_its_own() {
    let cluster = Cluster::start().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    for name in ["a", "b", "c"] {
        cluster.idle_node(name, 10).await;
    }
    let cidr = |node: &Node| node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
    let all = eventually(&nodes, |all| {
        all.len() == 3 && all.values().all(|node| cidr(node).is_some())
    })
    .await;
    let mut cidrs: Vec<_> = all.values().filter_map(cidr).collect();
    cidrs.sort();
    cidrs.dedup();
    assert_eq!(cidrs.len(), 3);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_leave_a_tainted_node_and_come_back_elsewhere() {
    let mut cluster = Cluster::start().await;
    cluster.node("a").await;
    let pods = cluster.api::<Pod>();
    create(&cluster.api::<ReplicaSet>(), deployment(2, "a")).await;
    let on = |pod: &Pod, node: &str| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node);
    eventually(&pods, |all| {
        all.len() == 2 && all.values().all(|pod| on(pod, "a"))
    })
    .await;
    cluster.node("b").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let taint = json!({"spec": {"taints": [{"key": "broken", "effect": "NoExecute"}]}});
    merge(&nodes, "a", taint).await;
    eventually(&pods, |all| {
        all.len() == 2 && all.values().all(|pod| on(pod, "b"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_ready_is_tainted_and_its_pods_are_not_ready() {
    let mut cluster = Cluster::start().await;
    cluster.node("a").await;
    let pods = cluster.api::<Pod>();
    create(&cluster.api::<ReplicaSet>(), deployment(2, "a")).await;
    let ready = |pod: &Pod| {
        let conditions = pod
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    };
    eventually(&pods, |all| all.len() == 2 && all.values().all(ready)).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    // As long as nobody else is there, nobody is given up.
    cluster.idle_node("b", 0).await;
    let report = |status: &str| {
        Patch::Strategic(json!({"status": {"conditions": [{"type": "Ready", "status": status}]}}))
    };
    nodes
        .patch_status("a", &PatchParams::default(), &report("False"))
        .await
        .unwrap();
    let tainted = |node: &Node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints
            .into_iter()
            .flatten()
            .filter(|t| t.key == "node.kubernetes.io/not-ready")
            .count()
    };
    eventually(&nodes, |all| tainted(&all["a"]) == 2).await;
    eventually(&pods, |all| !all.values().any(ready)).await;
    nodes
        .patch_status("a", &PatchParams::default(), &report("True"))
        .await
        .unwrap();
    eventually(&nodes, |all| tainted(&all["a"]) == 0).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_deleted_node_are_replaced() {
    let mut cluster = Cluster::start().await;
    cluster.idle_node("a", 10).await;
    let pods = cluster.api::<Pod>();
    create(&cluster.api::<ReplicaSet>(), deployment(2, "a")).await;
    let on = |pod: &Pod, node: &str| pod.spec.as_ref().unwrap().node_name.as_deref() == Some(node);
    eventually(&pods, |all| {
        all.len() == 2 && all.values().all(|pod| on(pod, "a"))
    })
    .await;
    cluster.node("b").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.delete("a", &DeleteParams::default()).await.unwrap();
    eventually(&pods, |all| {
        all.len() == 2 && all.values().all(|pod| on(pod, "b"))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nodes_request_is_approved_and_signed_and_others_are_left_alone() {
    let cluster = Cluster::start().await;
    let request = |organization: &str| {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        params
            .distinguished_name
            .push(DnType::CommonName, "system:node:new");
        let pem = params
            .serialize_request(&KeyPair::generate().unwrap())
            .unwrap()
            .pem()
            .unwrap();
        ByteString(pem.into_bytes())
    };
    let requests: Api<CertificateSigningRequest> = Api::all(cluster.client.clone());
    // An administrator asks here, who is no node: nothing is approved without a human's word.
    let spec = |organization: &str| {
        json!({"request": request(organization), "usages": ["digital signature", "client auth"],
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet"})
    };
    create(
        &requests,
        json!({"metadata": {"name": "good"}, "spec": spec("system:nodes")}),
    )
    .await;
    create(
        &requests,
        json!({"metadata": {"name": "bad"}, "spec": spec("system:masters")}),
    )
    .await;
    let approved = json!({"status": {"conditions": [
        {"type": "Approved", "status": "True", "reason": "Test", "message": ""}]}});
    for name in ["good", "bad"] {
        requests
            .patch_approval(name, &PatchParams::default(), &Patch::Merge(&approved))
            .await
            .unwrap();
    }
    let all = eventually(&requests, |all| {
        all.values().all(|request| {
            let status = request.status.as_ref();
            status.is_some_and(|status| {
                let mut conditions = status.conditions.iter().flatten();
                status.certificate.is_some() || conditions.any(|c| c.type_ == "Failed")
            })
        })
    })
    .await;
    let certificate = |name: &str| all[name].status.as_ref().unwrap().certificate.clone();
    assert!(certificate("good").is_some());
    assert_eq!(certificate("bad"), None);
    cluster.stop().await;
}
