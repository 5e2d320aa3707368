//! sig-api-machinery: what goes with its owner, and with its namespace.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, ReplicationController, Service};
use kube::api::{Api, DeleteParams};
use serde_json::json;

use super::{controller, owned_by, pod_spec, workload};
use crate::cluster::{Cluster, create, eventually, merge};

/// Conformance: [sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn the_sets_of_a_deployment_go_with_it_unless_they_are_orphaned() {
    let cluster = Cluster::start().await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    create(&deployments, workload("web", 2)).await;
    eventually(&sets, |all| all.len() == 1).await;
    let background = DeleteParams::background();
    deployments.delete("web", &background).await.unwrap();
    eventually(&sets, |all| all.is_empty()).await;
    create(&deployments, workload("web", 2)).await;
    eventually(&sets, |all| all.len() == 1).await;
    let orphan = DeleteParams::orphan();
    deployments.delete("web", &orphan).await.unwrap();
    eventually(&deployments, |all| all.is_empty()).await;
    let left = eventually(&sets, |_| true).await;
    let owners: Vec<_> = left
        .values()
        .map(|set| &set.metadata.owner_references)
        .collect();
    assert_eq!(owners, [&None]);
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning [Conformance]
/// Conformance: [sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Conformance] [Serial]
/// Conformance: [sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_controller_go_with_it_stay_or_go_before_it() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (controllers, pods) = (cluster.api::<ReplicationController>(), cluster.api::<Pod>());
    create(&controllers, controller("a", 3)).await;
    eventually(&pods, |all| all.len() == 3).await;
    controllers
        .delete("a", &DeleteParams::background())
        .await
        .unwrap();
    eventually(&pods, |all| all.is_empty()).await;

    create(&controllers, controller("b", 2)).await;
    // Once they run, everybody has seen them: what the collector has not seen it cannot let go.
    eventually(&controllers, |all| {
        let status = all.get("b").and_then(|of| of.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(2))
    })
    .await;
    controllers
        .delete("b", &DeleteParams::orphan())
        .await
        .unwrap();
    eventually(&controllers, |all| all.is_empty()).await;
    let orphans = eventually(&pods, |_| true).await;
    assert_eq!(
        (orphans.len(), owned_by(&orphans, "ReplicationController")),
        (2, 0)
    );

    create(&controllers, controller("c", 2)).await;
    let all = eventually(&pods, |all| owned_by(all, "ReplicationController") == 2).await;
    let own = all
        .values()
        .find(|pod| pod.metadata.owner_references.is_some());
    let own = own.unwrap().metadata.name.clone().unwrap();
    // One pod that does not go yet holds the controller up.
    merge(
        &pods,
        &own,
        json!({"metadata": {"finalizers": ["example.com/wait"]}}),
    )
    .await;
    controllers
        .delete("c", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually(&pods, |all| owned_by(all, "ReplicationController") == 1).await;
    let waiting = controllers.get("c").await.unwrap();
    assert_eq!(waiting.metadata.finalizers.unwrap(), ["foregroundDeletion"]);
    merge(&pods, &own, json!({"metadata": {"finalizers": null}})).await;
    eventually(&controllers, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] Garbage collector should not be blocked by dependency circle [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_circle_of_owners_goes_when_one_of_them_does() {
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>();
    let names = ["pod1", "pod2", "pod3"];
    let mut uids = Vec::new();
    for name in names {
        let pod = create(
            &pods,
            json!({"metadata": {"name": name}, "spec": pod_spec()}),
        )
        .await;
        uids.push(pod.metadata.uid.unwrap());
    }
    for at in 0..3 {
        let owner = (at + 2) % 3;
        let reference = json!({"apiVersion": "v1", "kind": "Pod", "name": names[owner],
            "uid": uids[owner], "controller": true, "blockOwnerDeletion": true});
        merge(
            &pods,
            names[at],
            json!({"metadata": {"ownerReferences": [reference]}}),
        )
        .await;
    }
    pods.delete("pod1", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually(&pods, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_dependent_with_another_owner_outlives_one_that_waits_for_its_dependents() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (controllers, pods) = (cluster.api::<ReplicationController>(), cluster.api::<Pod>());
    create(&controllers, controller("goes", 4)).await;
    let stays = create(&controllers, controller("stays", 0)).await;
    let all = eventually(&pods, |all| all.len() == 4).await;
    let shared: Vec<_> = all.keys().take(2).cloned().collect();
    for name in &shared {
        let mut owners = all[name].metadata.owner_references.clone().unwrap();
        let mut second = owners[0].clone();
        "stays".clone_into(&mut second.name);
        second.uid = stays.metadata.uid.clone().unwrap();
        second.controller = None;
        owners.push(second);
        merge(
            &pods,
            name,
            json!({"metadata": {"ownerReferences": owners}}),
        )
        .await;
    }
    controllers
        .delete("goes", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually(&controllers, |all| !all.contains_key("goes")).await;
    let left = eventually(&pods, |_| true).await;
    assert_eq!(left.keys().cloned().collect::<Vec<_>>(), shared);
    for pod in left.values() {
        let owners = pod.metadata.owner_references.as_ref().unwrap();
        let owners: Vec<_> = owners.iter().map(|owner| owner.name.as_str()).collect();
        assert_eq!(owners, ["stays"]);
    }
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] Namespaces should ensure that all services are removed when a namespace is deleted [Conformance] [Serial]
/// Conformance: [sig-api-machinery] Namespaces should ensure that all pods are removed when a namespace is deleted [Conformance] [Serial]
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_comes_again_is_empty() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let (pods, services): (Api<Pod>, Api<Service>) = (
        Api::namespaced(cluster.client.clone(), "team"),
        Api::namespaced(cluster.client.clone(), "team"),
    );
    cluster.namespace("team").await;
    create(
        &pods,
        json!({"metadata": {"name": "p"}, "spec": pod_spec()}),
    )
    .await;
    create(
        &services,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
    )
    .await;
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&namespaces, |all| !all.contains_key("team")).await;
    cluster.namespace("team").await;
    assert!(eventually(&pods, |_| true).await.is_empty());
    assert!(eventually(&services, |_| true).await.is_empty());
    cluster.stop().await;
}

/// Conformance: [sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn the_pods_of_a_namespace_go_before_everything_else() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    cluster.namespace("team").await;
    let client = cluster.client.clone();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let pods: Api<Pod> = Api::namespaced(client.clone(), "team");
    let maps: Api<ConfigMap> = Api::namespaced(client, "team");
    let held =
        json!({"metadata": {"name": "p", "finalizers": ["example.com/wait"]}, "spec": pod_spec()});
    create(&pods, held).await;
    create(&maps, json!({"metadata": {"name": "m"}})).await;
    namespaces
        .delete("team", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&pods, |all| all["p"].metadata.deletion_timestamp.is_some()).await;
    // The namespace says what it waits for; what the pod may read while it ends is still there.
    eventually(&namespaces, |all| {
        let status = all["team"].status.clone().unwrap_or_default();
        let mut conditions = status.conditions.into_iter().flatten();
        conditions.any(|of| of.type_ == "NamespaceContentRemaining" && of.status == "True")
    })
    .await;
    assert!(
        maps.get("m")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );
    merge(&pods, "p", json!({"metadata": {"finalizers": null}})).await;
    eventually(&namespaces, |all| !all.contains_key("team")).await;
    cluster.stop().await;
}
