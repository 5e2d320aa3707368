//! sig-api-machinery: ResourceQuotas.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, Pod, ReplicationController, ResourceQuota, Secret, Service,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use super::{controller, patch_status, workload};
use crate::cluster::{Cluster, create, eventually, merge};

type Amounts = BTreeMap<String, Quantity>;

fn amounts(value: Value) -> Amounts {
    serde_json::from_value(value).unwrap()
}

fn quota(name: &str, hard: Value, scopes: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"hard": hard, "scopes": scopes}})
}

/// Waits until the quota says that this is used.
async fn uses(cluster: &Cluster, name: &str, used: Value) {
    let used = amounts(used);
    eventually(&cluster.api::<ResourceQuota>(), |all| {
        let status = all.get(name).and_then(|quota| quota.status.as_ref());
        status.and_then(|status| status.used.as_ref()) == Some(&used)
    })
    .await;
}

fn pod(name: &str, resources: Value, deadline: Option<i64>) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0,
        "activeDeadlineSeconds": deadline,
        "containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

async fn refused<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + serde::Serialize + std::fmt::Debug,
    K::DynamicType: Default,
{
    let object: K = serde_json::from_value(object).unwrap();
    let error = api
        .create(&PostParams::default(), &object)
        .await
        .unwrap_err();
    let kube::Error::Api(status) = error else {
        panic!("{error}")
    };
    assert_eq!(
        (status.code, &*status.reason),
        (403, "Forbidden"),
        "{}",
        status.message
    );
    assert!(
        status.message.contains("exceeded quota"),
        "{}",
        status.message
    );
}

/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly calculated. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_quota_says_soon_what_is_used_also_when_it_changes() {
    let cluster = Cluster::start().await;
    let quotas = cluster.api::<ResourceQuota>();
    create(
        &quotas,
        quota("q", json!({"services": "1", "secrets": "2"}), &[]),
    )
    .await;
    // The API's own Service is there already.
    uses(&cluster, "q", json!({"services": "1", "secrets": "0"})).await;
    merge(
        &quotas,
        "q",
        json!({"spec": {"hard": {"secrets": null, "services": "3"}}}),
    )
    .await;
    uses(&cluster, "q", json!({"services": "1"})).await;
    let status = quotas.get("q").await.unwrap().status.unwrap();
    assert_eq!(status.hard.unwrap(), amounts(json!({"services": "3"})));
    quotas.delete("q", &DeleteParams::default()).await.unwrap();
    eventually(&quotas, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication controller. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set. [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn objects_count_while_they_live() {
    let cluster = Cluster::start().await;
    let hard = json!({"configmaps": "9", "secrets": "9", "replicationcontrollers": "9",
        "count/replicasets.apps": "9"});
    create(&cluster.api::<ResourceQuota>(), quota("q", hard, &[])).await;
    let used = |maps: &str, secrets: &str, controllers: &str, sets: &str| {
        json!({"configmaps": maps, "secrets": secrets, "replicationcontrollers": controllers,
            "count/replicasets.apps": sets})
    };
    // The certificate of the cluster's authority is there already.
    uses(&cluster, "q", used("1", "0", "0", "0")).await;
    create(
        &cluster.api::<ConfigMap>(),
        json!({"metadata": {"name": "a"}}),
    )
    .await;
    uses(&cluster, "q", used("2", "0", "0", "0")).await;
    create(&cluster.api::<Secret>(), json!({"metadata": {"name": "a"}})).await;
    uses(&cluster, "q", used("2", "1", "0", "0")).await;
    create(&cluster.api::<ReplicationController>(), controller("a", 0)).await;
    uses(&cluster, "q", used("2", "1", "1", "0")).await;
    create(&cluster.api::<ReplicaSet>(), workload("b", 0)).await;
    uses(&cluster, "q", used("2", "1", "1", "1")).await;
    let gone = DeleteParams::background();
    cluster.api::<ConfigMap>().delete("a", &gone).await.unwrap();
    cluster.api::<Secret>().delete("a", &gone).await.unwrap();
    cluster
        .api::<ReplicationController>()
        .delete("a", &gone)
        .await
        .unwrap();
    cluster
        .api::<ReplicaSet>()
        .delete("b", &gone)
        .await
        .unwrap();
    uses(&cluster, "q", used("1", "0", "0", "0")).await;
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service. [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn services_count_their_node_ports_and_balancers() {
    let cluster = Cluster::start().await;
    let hard = json!({"services": "9", "services.nodeports": "1", "services.loadbalancers": "1"});
    create(&cluster.api::<ResourceQuota>(), quota("q", hard, &[])).await;
    let used = |all: &str, ports: &str, balancers: &str| json!({"services": all, "services.nodeports": ports, "services.loadbalancers": balancers});
    // The API's own Service is there already.
    uses(&cluster, "q", used("1", "0", "0")).await;
    let service = |name: &str, kind: &str, allocate: Option<bool>| {
        json!({"metadata": {"name": name}, "spec": {"type": kind, "ports": [{"port": 80}],
            "allocateLoadBalancerNodePorts": allocate}})
    };
    let services = cluster.api::<Service>();
    create(&services, service("a", "ClusterIP", None)).await;
    create(&services, service("b", "NodePort", None)).await;
    uses(&cluster, "q", used("3", "1", "0")).await;
    refused(&services, service("c", "LoadBalancer", None)).await;
    create(&services, service("c", "LoadBalancer", Some(false))).await;
    uses(&cluster, "q", used("4", "1", "1")).await;
    for name in ["a", "b", "c"] {
        services
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }
    uses(&cluster, "q", used("1", "0", "0")).await;
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod. [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn pods_count_what_they_ask_for_and_cannot_ask_for_more() {
    let cluster = Cluster::start().await;
    let hard = json!({"pods": "5", "cpu": "1", "memory": "500Mi",
        "requests.ephemeral-storage": "50Gi", "requests.example.com/dongle": "3"});
    create(&cluster.api::<ResourceQuota>(), quota("q", hard, &[])).await;
    let used = |pods: &str, cpu: &str, memory: &str, storage: &str, dongles: &str| {
        json!({"pods": pods, "cpu": cpu, "memory": memory,
            "requests.ephemeral-storage": storage, "requests.example.com/dongle": dongles})
    };
    uses(&cluster, "q", used("0", "0", "0", "0", "0")).await;
    let pods = cluster.api::<Pod>();
    let asks = |cpu: &str, dongles: &str| {
        json!({"requests": {"cpu": cpu, "memory": "252Mi", "ephemeral-storage": "30Gi",
            "example.com/dongle": dongles}, "limits": {"example.com/dongle": dongles}})
    };
    create(&pods, pod("a", asks("500m", "2"), None)).await;
    let one = used("1", "500m", "252Mi", "30Gi", "2");
    uses(&cluster, "q", one.clone()).await;
    refused(
        &pods,
        pod(
            "b",
            json!({"requests": {"cpu": "600m", "memory": "100Mi", "ephemeral-storage": "1Gi"}}),
            None,
        ),
    )
    .await;
    refused(&pods, pod("c", asks("1m", "2"), None)).await;
    let nothing = serde_json::from_value(pod("d", json!({}), None)).unwrap();
    let silent = pods
        .create(&PostParams::default(), &nothing)
        .await
        .unwrap_err();
    assert!(
        silent
            .to_string()
            .contains("must specify cpu for: c; memory for: c"),
        "{silent}"
    );
    uses(&cluster, "q", one).await;
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    uses(&cluster, "q", used("0", "0", "0", "0", "0")).await;
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope. [Conformance]
/// Conformance: [sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes. [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_scope_counts_its_own_pods_only() {
    let cluster = Cluster::start().await;
    let (quotas, pods) = (cluster.api::<ResourceQuota>(), cluster.api::<Pod>());
    let asking = json!({"requests": {"cpu": "1m"}, "limits": {"cpu": "1m"}});
    for (scope, other, inside, outside) in [
        (
            "BestEffort",
            "NotBestEffort",
            pod("in", json!({}), None),
            pod("out", asking.clone(), None),
        ),
        (
            "Terminating",
            "NotTerminating",
            pod("in", json!({}), Some(3600)),
            pod("out", json!({}), None),
        ),
    ] {
        create(&quotas, quota("of", json!({"pods": "1"}), &[scope])).await;
        create(&quotas, quota("other", json!({"pods": "1"}), &[other])).await;
        uses(&cluster, "of", json!({"pods": "0"})).await;
        uses(&cluster, "other", json!({"pods": "0"})).await;
        create(&pods, inside).await;
        uses(&cluster, "of", json!({"pods": "1"})).await;
        uses(&cluster, "other", json!({"pods": "0"})).await;
        create(&pods, outside).await;
        uses(&cluster, "other", json!({"pods": "1"})).await;
        for name in ["in", "out"] {
            pods.delete(name, &DeleteParams::default().grace_period(0))
                .await
                .unwrap();
        }
        uses(&cluster, "of", json!({"pods": "0"})).await;
        uses(&cluster, "other", json!({"pods": "0"})).await;
        for name in ["of", "other"] {
            quotas.delete(name, &DeleteParams::default()).await.unwrap();
        }
    }
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_listed_everywhere_patched_and_deleted_together() {
    let cluster = Cluster::start().await;
    let quotas = cluster.api::<ResourceQuota>();
    let mut object = quota("q", json!({"cpu": "1", "memory": "500Mi"}), &[]);
    object["metadata"]["labels"] = json!({"of": "test"});
    create(&quotas, object).await;
    let everywhere: Api<ResourceQuota> = Api::all(cluster.client.clone());
    let own = ListParams::default().labels("of=test");
    assert_eq!(everywhere.list(&own).await.unwrap().items.len(), 1);
    let change =
        json!({"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": {"memory": "750Mi"}}});
    let patched = merge(&quotas, "q", change).await;
    assert_eq!(
        patched.spec.unwrap().hard.unwrap()["memory"],
        Quantity("750Mi".into())
    );
    quotas
        .delete_collection(&DeleteParams::default(), &own)
        .await
        .unwrap();
    eventually(&quotas, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] ResourceQuota should apply changes to a resourcequota status [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn the_status_of_a_quota_is_written_apart_and_put_right() {
    let cluster = Cluster::start().await;
    let quotas = cluster.api::<ResourceQuota>();
    create(
        &quotas,
        quota("q", json!({"cpu": "500m", "memory": "500Mi"}), &[]),
    )
    .await;
    uses(&cluster, "q", json!({"cpu": "0", "memory": "0"})).await;
    let written = patch_status(&quotas, "q", json!({"hard": {"cpu": "1", "memory": "1Gi"}})).await;
    assert_eq!(
        written.spec.unwrap().hard.unwrap(),
        amounts(json!({"cpu": "500m", "memory": "500Mi"}))
    );
    // The controller says again what the spec says.
    eventually(&quotas, |all| {
        let hard = all["q"]
            .status
            .as_ref()
            .and_then(|status| status.hard.clone());
        hard == Some(amounts(json!({"cpu": "500m", "memory": "500Mi"})))
    })
    .await;
    cluster.stop().await;
}
