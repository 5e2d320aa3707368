//! sig-apps: Deployments, ReplicaSets, ReplicationControllers and budgets.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::json;

use super::{controller, owned_by, patch_status, pod_spec, workload};
use crate::cluster::{Cluster, create, eventually, merge, runs};

fn is_available(all: &BTreeMap<String, Deployment>, name: &str, replicas: i32) -> bool {
    let status = all.get(name).and_then(|of| of.status.as_ref());
    status.is_some_and(|status| {
        let generation = all[name].metadata.generation;
        status.observed_generation == generation
            && (
                status.replicas,
                status.updated_replicas,
                status.available_replicas,
            ) == (Some(replicas), Some(replicas), Some(replicas))
    })
}

/// Sizes that sets are told to have, largest first.
fn sizes(all: &BTreeMap<String, ReplicaSet>) -> Vec<i32> {
    let mut sizes: Vec<_> = all
        .values()
        .map(|set| set.spec.as_ref().unwrap().replicas.unwrap())
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}

fn image(image: &str) -> serde_json::Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// Conformance: [sig-apps] Deployment RecreateDeployment should delete old pods and create new ones [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn recreating_never_runs_old_and_new_pods_together() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (deployments, pods) = (cluster.api::<Deployment>(), cluster.api::<Pod>());
    let mut object = workload("web", 2);
    object["spec"]["strategy"] = json!({"type": "Recreate"});
    create(&deployments, object).await;
    eventually(&deployments, |all| is_available(all, "web", 2)).await;
    merge(&deployments, "web", image("new")).await;
    eventually(&pods, |all| {
        let images: Vec<_> = all
            .values()
            .map(|pod| {
                pod.spec.as_ref().unwrap().containers[0]
                    .image
                    .clone()
                    .unwrap()
            })
            .collect();
        let (old, new) = (
            images.contains(&"i".to_owned()),
            images.contains(&"new".to_owned()),
        );
        assert!(!(old && new), "{images:?}");
        new && images.len() == 2
    })
    .await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_takes_over_the_set_that_its_selector_matches() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    let mut old = workload("old", 1);
    old["metadata"]["labels"] = json!({"app": "web"});
    old["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    old["spec"]["template"]["metadata"]["labels"] = json!({"app": "web"});
    old["metadata"]["annotations"] =
        json!({"deployment.kubernetes.io/revision": "3546343826724305832"});
    create(&sets, old).await;
    let mut object = workload("web", 1);
    object["spec"]["template"]["spec"]["containers"][0]["image"] = json!("new");
    create(&deployments, object).await;
    let web = eventually(&deployments, |all| is_available(all, "web", 1)).await;
    let revision =
        &web["web"].metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"];
    assert_eq!(revision, "3546343826724305833");
    let all = eventually(&sets, |all| sizes(all) == [1, 0]).await;
    let owner = &all["old"].metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("Deployment", "web")
    );
    cluster.stop().await;
}

/// Conformance: [sig-apps] Deployment deployment should delete old replica sets [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_keeps_no_more_history_than_it_is_told() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    let mut object = workload("web", 1);
    object["spec"]["revisionHistoryLimit"] = json!(0);
    create(&deployments, object).await;
    eventually(&deployments, |all| is_available(all, "web", 1)).await;
    merge(&deployments, "web", image("new")).await;
    eventually(&deployments, |all| is_available(all, "web", 1)).await;
    eventually(&sets, |all| sizes(all) == [1]).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] Deployment deployment should support rollover [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_is_overtaken_gives_way_to_the_next() {
    let mut cluster = Cluster::start().await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    // Nothing runs yet: the first two rollouts cannot end.
    create(&deployments, workload("web", 1)).await;
    eventually(&sets, |all| all.len() == 1).await;
    merge(&deployments, "web", image("second")).await;
    eventually(&sets, |all| all.len() == 2).await;
    merge(&deployments, "web", image("third")).await;
    eventually(&sets, |all| all.len() == 3).await;
    cluster.node("n1").await;
    eventually(&deployments, |all| is_available(all, "web", 1)).await;
    let all = eventually(&sets, |all| sizes(all) == [1, 0, 0]).await;
    let current = all
        .values()
        .find(|set| set.spec.as_ref().unwrap().replicas == Some(1));
    let template = current
        .unwrap()
        .spec
        .as_ref()
        .unwrap()
        .template
        .as_ref()
        .unwrap();
    assert_eq!(
        template.spec.as_ref().unwrap().containers[0]
            .image
            .as_deref(),
        Some("third")
    );
    cluster.stop().await;
}

/// Conformance: [sig-apps] Deployment deployment should support proportional scaling [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_that_is_stuck_is_scaled_in_proportion() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (deployments, sets) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>());
    let mut object = workload("web", 10);
    object["spec"]["strategy"] = json!({"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    create(&deployments, object).await;
    eventually(&deployments, |all| is_available(all, "web", 10)).await;
    // No node has this label, so the new pods never run.
    let stuck = json!({"spec": {"template": {"spec": {"nodeSelector": {"no": "node"}}}}});
    merge(&deployments, "web", stuck).await;
    eventually(&sets, |all| sizes(all) == [8, 5]).await;
    merge(&deployments, "web", json!({"spec": {"replicas": 30}})).await;
    eventually(&sets, |all| sizes(all) == [20, 13]).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] Deployment Deployment should have a working scale subresource [Conformance]
/// Conformance: [sig-apps] ReplicaSet Replicaset should have a working scale subresource [Conformance]
/// Conformance: [sig-apps] ReplicationController should get and update a ReplicationController scale [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn workloads_are_scaled_through_their_scale() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    create(&cluster.api::<Deployment>(), workload("a", 1)).await;
    create(&cluster.api::<ReplicaSet>(), workload("b", 1)).await;
    create(&cluster.api::<ReplicationController>(), controller("c", 1)).await;
    let (params, patch) = (
        PatchParams::default(),
        Patch::Merge(json!({"spec": {"replicas": 2}})),
    );
    let (a, b, c) = (
        cluster.api::<Deployment>(),
        cluster.api::<ReplicaSet>(),
        cluster.api::<ReplicationController>(),
    );
    assert_eq!(
        a.get_scale("a").await.unwrap().spec.unwrap().replicas,
        Some(1)
    );
    assert_eq!(
        b.get_scale("b").await.unwrap().spec.unwrap().replicas,
        Some(1)
    );
    assert_eq!(
        c.get_scale("c").await.unwrap().spec.unwrap().replicas,
        Some(1)
    );
    a.patch_scale("a", &params, &patch).await.unwrap();
    b.patch_scale("b", &params, &patch).await.unwrap();
    c.patch_scale("c", &params, &patch).await.unwrap();
    eventually(&a, |all| is_available(all, "a", 2)).await;
    eventually(&b, |all| {
        all["b"].status.as_ref().unwrap().available_replicas == Some(2)
    })
    .await;
    eventually(&c, |all| {
        all["c"].status.as_ref().unwrap().available_replicas == Some(2)
    })
    .await;
    let scale = a.get_scale("a").await.unwrap();
    assert_eq!(scale.status.unwrap().selector.as_deref(), Some("app=a"));
    cluster.stop().await;
}

/// Conformance: [sig-apps] Deployment should run the lifecycle of a Deployment [Conformance]
/// Conformance: [sig-apps] Deployment should validate Deployment Status endpoints [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_created_patched_given_a_status_and_deleted() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let deployments = cluster.api::<Deployment>();
    create(&deployments, workload("web", 1)).await;
    eventually(&deployments, |all| is_available(all, "web", 1)).await;
    let condition =
        json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set"});
    let strategic = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let patched = deployments
        .patch_status("web", &PatchParams::default(), &strategic)
        .await
        .unwrap();
    let conditions = patched.status.unwrap().conditions.unwrap();
    assert!(
        conditions
            .iter()
            .any(|of| of.type_ == "StatusUpdate" && of.status == "True")
    );
    merge(
        &deployments,
        "web",
        json!({"metadata": {"labels": {"step": "two"}}, "spec": {"replicas": 2}}),
    )
    .await;
    eventually(&deployments, |all| is_available(all, "web", 2)).await;
    let selected = ListParams::default().labels("step=two");
    assert_eq!(deployments.list(&selected).await.unwrap().items.len(), 1);
    deployments
        .delete_collection(&DeleteParams::background(), &selected)
        .await
        .unwrap();
    eventually(&deployments, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods [Conformance]
/// Conformance: [sig-apps] ReplicationController should adopt matching pods on creation [Conformance]
/// Conformance: [sig-apps] ReplicationController should release no longer matching pods [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn matching_pods_are_adopted_and_strangers_released() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let pods = cluster.api::<Pod>();
    for (name, kind) in [("set", "ReplicaSet"), ("rc", "ReplicationController")] {
        let orphan =
            json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": pod_spec()});
        create(&pods, orphan).await;
        runs(&pods, name).await;
        if kind == "ReplicaSet" {
            create(&cluster.api::<ReplicaSet>(), workload(name, 1)).await;
        } else {
            create(&cluster.api::<ReplicationController>(), controller(name, 1)).await;
        }
        eventually(&pods, |all| {
            let owners = all[name]
                .metadata
                .owner_references
                .as_deref()
                .unwrap_or_default();
            owned_by(all, kind) == 1 && owners.iter().any(|owner| owner.kind == kind)
        })
        .await;
        merge(
            &pods,
            name,
            json!({"metadata": {"labels": {"app": "free"}}}),
        )
        .await;
        eventually(&pods, |all| {
            let owners = all[name]
                .metadata
                .owner_references
                .as_deref()
                .unwrap_or_default();
            owners.is_empty() && owned_by(all, kind) == 1
        })
        .await;
    }
    cluster.stop().await;
}

/// Conformance: [sig-apps] ReplicaSet Replace and Patch tests [Conformance]
/// Conformance: [sig-apps] ReplicaSet should list and delete a collection of ReplicaSets [Conformance]
/// Conformance: [sig-apps] ReplicaSet should validate Replicaset Status endpoints [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_replaced_patched_given_a_status_and_deleted_with_others() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let sets = cluster.api::<ReplicaSet>();
    let ready = |all: &BTreeMap<String, ReplicaSet>, count: i32| {
        let status = all.get("set").and_then(|set| set.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(count))
    };
    create(&sets, workload("set", 1)).await;
    let mut found = eventually(&sets, |all| ready(all, 1))
        .await
        .remove("set")
        .unwrap();
    found.spec.as_mut().unwrap().replicas = Some(3);
    found.metadata.resource_version = None;
    sets.replace("set", &Default::default(), &found)
        .await
        .unwrap();
    eventually(&sets, |all| ready(all, 3)).await;
    let condition =
        json!({"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "set"});
    let status = json!({"status": {"conditions": [condition]}});
    let (params, patch) = (PatchParams::default(), Patch::Strategic(status));
    let patched = sets.patch_status("set", &params, &patch).await;
    let conditions = patched.unwrap().status.unwrap().conditions.unwrap();
    assert!(conditions.iter().any(|of| of.type_ == "StatusUpdate"));
    merge(&sets, "set", json!({"spec": {"replicas": 0}})).await;
    eventually(&sets, |all| {
        ready(all, 0) || all["set"].status.as_ref().unwrap().replicas == 0
    })
    .await;
    let own = ListParams::default().labels("app=set");
    sets.delete_collection(&DeleteParams::background(), &own)
        .await
        .unwrap();
    eventually(&sets, |all| all.is_empty()).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] ReplicationController should test the lifecycle of a ReplicationController [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_is_patched_given_a_status_scaled_and_deleted() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let controllers = cluster.api::<ReplicationController>();
    create(&controllers, controller("rc", 1)).await;
    let ready = |all: &BTreeMap<String, ReplicationController>, count: i32| {
        let status = all.get("rc").and_then(|rc| rc.status.as_ref());
        status.is_some_and(|status| status.ready_replicas == Some(count))
    };
    eventually(&controllers, |all| ready(all, 1)).await;
    let labelled = merge(
        &controllers,
        "rc",
        json!({"metadata": {"labels": {"step": "two"}}}),
    )
    .await;
    assert_eq!(labelled.metadata.labels.unwrap()["step"], "two");
    let written = patch_status(
        &controllers,
        "rc",
        json!({"readyReplicas": 0, "availableReplicas": 0}),
    )
    .await;
    assert_eq!(written.status.unwrap().ready_replicas.unwrap_or(0), 0);
    // What its pods say counts.
    eventually(&controllers, |all| ready(all, 1)).await;
    merge(&controllers, "rc", json!({"spec": {"replicas": 2}})).await;
    eventually(&controllers, |all| ready(all, 2)).await;
    let own = ListParams::default().labels("step=two");
    controllers
        .delete_collection(&DeleteParams::background(), &own)
        .await
        .unwrap();
    eventually(&controllers, |all| all.is_empty()).await;
    cluster.stop().await;
}

fn budget(min_available: i32) -> serde_json::Value {
    json!({"metadata": {"name": "b"}, "spec": {"minAvailable": min_available,
        "selector": {"matchLabels": {"app": "web"}}}})
}

/// Conformance: [sig-apps] DisruptionController should create a PodDisruptionBudget [Conformance]
/// Conformance: [sig-apps] DisruptionController should observe PodDisruptionBudget status updated [Conformance]
/// Conformance: [sig-apps] DisruptionController should update/patch PodDisruptionBudget status [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_knows_its_pods_and_its_status_can_be_written() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let budgets = cluster.api::<PodDisruptionBudget>();
    create(&budgets, budget(1)).await;
    eventually(&budgets, |all| {
        let status = all["b"].status.as_ref();
        status.is_some_and(|status| status.observed_generation == all["b"].metadata.generation)
    })
    .await;
    create(&cluster.api::<ReplicaSet>(), workload("web", 3)).await;
    let counted = |all: &BTreeMap<String, PodDisruptionBudget>| {
        let status = all["b"].status.clone().unwrap_or_default();
        (
            status.current_healthy,
            status.expected_pods,
            status.disruptions_allowed,
        )
    };
    eventually(&budgets, |all| counted(all) == (3, 3, 2)).await;
    let disrupted = json!({"disruptedPods": {"gone": "2026-01-01T00:00:00Z"}});
    let written = patch_status(&budgets, "b", disrupted).await;
    assert!(
        written
            .status
            .unwrap()
            .disrupted_pods
            .unwrap()
            .contains_key("gone")
    );
    // A pod that is not there was not disrupted: the controller says so.
    eventually(&budgets, |all| {
        let status = all["b"].status.as_ref().unwrap();
        status
            .disrupted_pods
            .as_ref()
            .is_none_or(BTreeMap::is_empty)
    })
    .await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_waits_for_a_budget_that_allows_it() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let (budgets, pods) = (cluster.api::<PodDisruptionBudget>(), cluster.api::<Pod>());
    create(&budgets, budget(3)).await;
    create(&cluster.api::<ReplicaSet>(), workload("web", 3)).await;
    eventually(&budgets, |all| {
        let status = all["b"].status.clone().unwrap_or_default();
        (status.current_healthy, status.disruptions_allowed) == (3, 0)
    })
    .await;
    let name = eventually(&pods, |_| true)
        .await
        .into_keys()
        .next()
        .unwrap();
    let kube::Error::Api(refused) = pods
        .evict(&name, &EvictParams::default())
        .await
        .unwrap_err()
    else {
        panic!("not a status")
    };
    assert_eq!((refused.code, &*refused.reason), (429, "TooManyRequests"));
    merge(&budgets, "b", json!({"spec": {"minAvailable": 2}})).await;
    eventually(&budgets, |all| {
        let status = all["b"].status.as_ref().unwrap();
        status.disruptions_allowed == 1
    })
    .await;
    pods.evict(&name, &EvictParams::default()).await.unwrap();
    eventually(&pods, |all| !all.contains_key(&name) && all.len() == 3).await;
    cluster.stop().await;
}
