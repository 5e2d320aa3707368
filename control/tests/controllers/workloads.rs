//! Deployments, ReplicaSets and the Services before them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Endpoints, Event, Pod, ReplicationController, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, eventually, merge, runs};

pub(crate) fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image}]}},
        },
    })
}

/// Whether everything that was asked for has been observed and done, in this revision.
fn is_done(all: &BTreeMap<String, Deployment>, replicas: i32, revision: i64) -> bool {
    let Some(web) = all.get("web") else {
        return false;
    };
    let at = |annotations: &BTreeMap<String, String>| {
        annotations
            .get("deployment.kubernetes.io/revision")
            .is_some_and(|found| *found == revision.to_string())
    };
    web.metadata.annotations.as_ref().is_some_and(at)
        && web.status.as_ref().is_some_and(|status| {
            status.observed_generation == web.metadata.generation
                && status.updated_replicas == Some(replicas)
                && status.replicas == Some(replicas)
                && status.available_replicas == Some(replicas)
                && status
                    .conditions
                    .iter()
                    .flatten()
                    .any(|condition| condition.reason.as_deref() == Some("NewReplicaSetAvailable"))
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_controller_keeps_adopts_and_gives_up_pods() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (controllers, pods) = (cluster.api::<ReplicationController>(), cluster.api::<Pod>());
    let orphan = json!({"metadata": {"name": "orphan", "labels": {"app": "old"}},
        "spec": {"containers": [{"name": "c", "image": "a"}]}});
    create(&pods, orphan).await;
    runs(&pods, "orphan").await;
    let object = json!({"metadata": {"name": "old"}, "spec": {"replicas": 3,
        "selector": {"app": "old"}, "template": {"metadata": {"labels": {"app": "old"}},
            "spec": {"containers": [{"name": "c", "image": "a"}]}}}});
    create(&controllers, object).await;
    let has = |all: &BTreeMap<String, ReplicationController>, replicas: i32| {
        let status = all.get("old").and_then(|old| old.status.as_ref());
        status.is_some_and(|status| {
            (status.replicas, status.available_replicas) == (replicas, Some(replicas))
        })
    };
    eventually(&controllers, |all| has(all, 3)).await;
    let all = eventually(&pods, |all| all.len() == 3).await;
    let owner = &all["orphan"].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("ReplicationController", "old")
    );
    // A pod that loses the label is released, and another takes its place.
    merge(
        &pods,
        "orphan",
        json!({"metadata": {"labels": {"app": "free"}}}),
    )
    .await;
    let all = eventually(&pods, |all| all.len() == 4).await;
    let owners = all["orphan"]
        .metadata
        .owner_references
        .as_deref()
        .unwrap_or_default();
    assert!(owners.is_empty(), "{owners:?}");
    merge(&controllers, "old", json!({"spec": {"replicas": 1}})).await;
    eventually(&controllers, |all| has(all, 1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_becomes_pods_rolls_out_rolls_back_and_scales() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let deployments = cluster.api::<Deployment>();
    let sets = cluster.api::<ReplicaSet>();
    create(&deployments, deployment(4, "a")).await;
    eventually(&deployments, |all| is_done(all, 4, 1)).await;
    let pods = eventually(&cluster.api::<Pod>(), |_| true).await;
    assert_eq!(pods.len(), 4, "{:?}", pods.keys());

    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    merge(&deployments, "web", image("b")).await;
    eventually(&deployments, |all| is_done(all, 4, 2)).await;
    let sizes = |all: &BTreeMap<String, ReplicaSet>| -> Vec<i32> {
        let mut sizes: Vec<_> = all
            .values()
            .map(|set| set.status.as_ref().unwrap().replicas)
            .collect();
        sizes.sort_unstable();
        sizes
    };
    eventually(&sets, |all| sizes(all) == [0, 4]).await;

    merge(&deployments, "web", image("a")).await;
    let web = eventually(&deployments, |all| is_done(all, 4, 3)).await;
    let revision =
        &web["web"].metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"];
    assert_eq!(revision, "3");
    assert_eq!(
        eventually(&sets, |_| true).await.len(),
        2,
        "the old set was taken again"
    );

    merge(&deployments, "web", json!({"spec": {"replicas": 1}})).await;
    eventually(&deployments, |all| is_done(all, 1, 3)).await;
    eventually(&cluster.api::<Pod>(), |all| all.len() == 1).await;
    let said = |all: &BTreeMap<String, Event>, text: &str| {
        all.values().any(|event| {
            event
                .message
                .as_deref()
                .unwrap_or_default()
                .starts_with(text)
        })
    };
    eventually(&cluster.api::<Event>(), |all| {
        said(all, "Scaled up replica set web-")
            && said(all, "Created pod: web-")
            && said(all, "Deleted pod: web-")
            && said(all, "Successfully assigned default/web-")
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pods_are_created_once_each() {
    let mut cluster = Cluster::start().await;
    for node in ["n1", "n2"] {
        cluster.node(node).await;
    }
    let sets = cluster.api::<ReplicaSet>();
    let spec = |replicas: i32| deployment(replicas, "a");
    create(&sets, spec(150)).await;
    let mut most = 0;
    eventually(&cluster.api::<Pod>(), |all| {
        most = most.max(all.len());
        let bound = all
            .values()
            .filter(|pod| pod.spec.as_ref().unwrap().node_name.is_some());
        bound.count() == 150
    })
    .await;
    let available = |set: &ReplicaSet| {
        set.status
            .as_ref()
            .and_then(|status| status.available_replicas)
    };
    eventually(&sets, |all| {
        all.values().any(|set| available(set) == Some(150))
    })
    .await;
    let pods = eventually(&cluster.api::<Pod>(), |_| true).await;
    assert_eq!((pods.len(), most), (150, 150));
    let events = eventually(&cluster.api::<Event>(), |_| true).await;
    let deleted = events
        .values()
        .filter(|event| event.reason.as_deref() == Some("SuccessfulDelete"));
    assert_eq!(deleted.count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pod_is_replaced_and_an_orphan_adopted() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let pods = cluster.api::<Pod>();
    create(
        &pods,
        json!({"metadata": {"name": "orphan", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "a"}]}}),
    )
    .await;
    runs(&pods, "orphan").await;
    create(&cluster.api::<ReplicaSet>(), deployment(2, "a")).await;
    let owned = |all: &BTreeMap<String, Pod>| {
        all.values()
            .filter(|pod| pod.metadata.owner_references.is_some())
            .count()
    };
    let all = eventually(&pods, |all| owned(all) == 2).await;
    assert!(all.contains_key("orphan"));
    pods.delete("orphan", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&pods, |all| owned(all) == 2 && !all.contains_key("orphan")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_shows_its_ready_pods() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    create(
        &cluster.api::<Service>(),
        json!({"metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}}),
    )
    .await;
    let deployments = cluster.api::<Deployment>();
    create(&deployments, deployment(3, "a")).await;
    let of_web = |all: &BTreeMap<String, EndpointSlice>| -> Vec<bool> {
        let slices = all.iter().filter(|(name, _)| name.starts_with("web-"));
        let endpoints = slices.flat_map(|(_, slice)| &slice.endpoints);
        endpoints
            .map(|endpoint| endpoint.conditions.as_ref().unwrap().ready.unwrap())
            .collect()
    };
    let slices = cluster.api::<EndpointSlice>();
    eventually(&slices, |all| of_web(all) == [true; 3]).await;
    let addresses = |all: &BTreeMap<String, Endpoints>| {
        let subsets = all
            .get("web")
            .and_then(|endpoints| endpoints.subsets.as_ref());
        subsets
            .into_iter()
            .flatten()
            .flat_map(|subset| subset.addresses.iter().flatten())
            .count()
    };
    eventually(&cluster.api::<Endpoints>(), |all| addresses(all) == 3).await;
    merge(&deployments, "web", json!({"spec": {"replicas": 0}})).await;
    eventually(&slices, |all| of_web(all).is_empty()).await;
    eventually(&cluster.api::<Endpoints>(), |all| addresses(all) == 0).await;
    cluster
        .api::<Service>()
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&slices, |all| {
        !all.keys().any(|name| name.starts_with("web-"))
    })
    .await;
    eventually(&cluster.api::<Endpoints>(), |all| !all.contains_key("web")).await;
    cluster.stop().await;
}
