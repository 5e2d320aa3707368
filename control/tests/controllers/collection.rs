//! Garbage collection and the end of namespaces.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ServiceAccount};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, eventually, merge};
use crate::workloads::deployment;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_deleted_deployment_owned_goes_in_each_way() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (deployments, sets, pods) = (
        cluster.api::<Deployment>(),
        cluster.api::<ReplicaSet>(),
        cluster.api::<Pod>(),
    );
    for params in [DeleteParams::background(), DeleteParams::foreground()] {
        create(&deployments, deployment(2, "a")).await;
        eventually(&pods, |all| all.len() == 2).await;
        deployments.delete("web", &params).await.unwrap();
        eventually(&deployments, |all| all.is_empty()).await;
        eventually(&sets, |all| all.is_empty()).await;
        eventually(&pods, |all| all.is_empty()).await;
    }
    create(&deployments, deployment(2, "a")).await;
    eventually(&pods, |all| all.len() == 2).await;
    deployments
        .delete("web", &DeleteParams::orphan())
        .await
        .unwrap();
    eventually(&deployments, |all| all.is_empty()).await;
    let left = eventually(&sets, |_| true).await;
    assert_eq!(left.len(), 1);
    assert!(
        left.values()
            .all(|set| set.metadata.owner_references.is_none())
    );
    cluster.stop().await;
}

fn owned(name: &str, owner: &str, uid: &str) -> Value {
    json!({"metadata": {"name": name, "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_whose_owner_never_was_goes_and_one_with_another_owner_stays() {
    let cluster = Cluster::start().await;
    let maps = cluster.api::<ConfigMap>();
    let owner = create(&maps, json!({"metadata": {"name": "owner"}})).await;
    let uid = owner.metadata.uid.unwrap();
    let mut both = owned("both", "owner", &uid);
    let nobody =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "no-such-uid"});
    both["metadata"]["ownerReferences"]
        .as_array_mut()
        .unwrap()
        .push(nobody);
    create(&maps, both).await;
    create(&maps, owned("lost", "x", "another-uid")).await;
    create(&maps, owned("child", "owner", &uid)).await;
    let all = eventually(&maps, |all| !all.contains_key("lost")).await;
    assert!(all.contains_key("child") && all.contains_key("both"));
    maps.delete("owner", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&maps, |all| {
        !all.contains_key("child") && !all.contains_key("both")
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_namespace_is_emptied_and_goes() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.namespace("team").await;
    let client = cluster.client.clone();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "team");
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "team");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "team");
    create(&deployments, deployment(2, "a")).await;
    eventually(&pods, |all| all.len() == 2).await;
    create(
        &maps,
        json!({"metadata": {"name": "held", "finalizers": ["example.com/wait"]}}),
    )
    .await;
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&namespaces, |all| {
        let conditions = all["team"]
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| {
            let message = condition.message.as_deref().unwrap_or_default();
            message.contains("example.com/wait in 1 resource instances")
        })
    })
    .await;
    merge(&maps, "held", json!({"metadata": {"finalizers": null}})).await;
    eventually(&namespaces, |all| !all.contains_key("team")).await;
    eventually(&pods, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-auth] ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn every_namespace_has_its_account_and_authority_repaired() {
    let cluster = Cluster::start().await;
    cluster.namespace("team").await;
    let client = cluster.client.clone();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "team");
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "team");
    let is_right = |map: &ConfigMap| {
        map.data
            .as_ref()
            .is_some_and(|data| data["ca.crt"].starts_with("-----BEGIN CERTIFICATE"))
    };
    let name = "kube-root-ca.crt";
    eventually(&maps, |all| all.get(name).is_some_and(is_right)).await;
    merge(&maps, name, json!({"data": {"ca.crt": "wrong"}})).await;
    eventually(&maps, |all| all.get(name).is_some_and(is_right)).await;
    maps.delete(name, &DeleteParams::default()).await.unwrap();
    eventually(&maps, |all| all.get(name).is_some_and(is_right)).await;
    accounts
        .delete("default", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&accounts, |all| all.contains_key("default")).await;
    cluster.stop().await;
}
