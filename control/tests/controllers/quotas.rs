//! ResourceQuotas: counted when they come, exact from then on.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, ReplicationController, ResourceQuota, Service};
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, eventually, merge};

fn quota(hard: &Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})
}

/// What the quota says is used, once it says it of everything.
async fn used_of(cluster: &Cluster, expected: Value) {
    let expected: BTreeMap<String, String> = serde_json::from_value(expected).unwrap();
    let used = |all: &BTreeMap<String, ResourceQuota>| {
        let status = all.get("q")?.status.as_ref()?;
        let used = status.used.as_ref()?.iter();
        let used = used.map(|(name, amount)| (name.clone(), amount.0.clone()));
        Some(used.collect::<BTreeMap<_, _>>())
    };
    eventually(&cluster.api::<ResourceQuota>(), |all| {
        used(all).as_ref() == Some(&expected)
    })
    .await;
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [
        {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_counts_what_is_there_and_what_comes_and_goes() {
    let cluster = Cluster::start().await;
    let (pods, maps) = (cluster.api::<Pod>(), cluster.api::<ConfigMap>());
    create(&pods, pod("early", "100m")).await;
    let quotas = cluster.api::<ResourceQuota>();
    let hard = json!({"pods": "2", "requests.cpu": "1", "count/configmaps": "5", "services.nodeports": "3"});
    create(&quotas, quota(&hard)).await;
    // Every namespace has one ConfigMap, the authority's certificate.
    let counts = |pods: &str, cpu: &str, maps: &str| json!({"pods": pods, "requests.cpu": cpu, "count/configmaps": maps, "services.nodeports": "0"});
    used_of(&cluster, counts("1", "100m", "1")).await;
    create(&maps, json!({"metadata": {"name": "m"}})).await;
    create(&pods, pod("late", "900m")).await;
    used_of(&cluster, counts("2", "1", "2")).await;
    let third = serde_json::from_value(pod("third", "1")).unwrap();
    let refused = pods
        .create(&PostParams::default(), &third)
        .await
        .unwrap_err();
    let expected = "pods \"third\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=1, \
                    used: pods=2,requests.cpu=1, limited: pods=2,requests.cpu=1";
    assert!(refused.to_string().contains(expected), "{refused}");
    // A pod that ended takes nothing, though it is there.
    let ended = json!({"status": {"phase": "Succeeded"}});
    let params = kube::api::PatchParams::default();
    pods.patch_status("late", &params, &kube::api::Patch::Merge(&ended))
        .await
        .unwrap();
    used_of(&cluster, counts("1", "100m", "2")).await;
    pods.delete("early", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    maps.delete("m", &DeleteParams::default()).await.unwrap();
    used_of(&cluster, counts("0", "0", "1")).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort",
        "selector": {"a": "b"}, "ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}});
    create(&cluster.api::<Service>(), service).await;
    let hard = json!({"spec": {"hard": {"services": "3", "services.nodeports": "3",
        "pods": null, "requests.cpu": null, "count/configmaps": null}}});
    merge(&quotas, "q", hard).await;
    used_of(
        &cluster,
        json!({"services": "2", "services.nodeports": "2"}),
    )
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_do_not_get_more_than_there_is() {
    let cluster = Cluster::start().await;
    create(
        &cluster.api::<ResourceQuota>(),
        quota(&json!({"pods": "10"})),
    )
    .await;
    used_of(&cluster, json!({"pods": "0"})).await;
    let pods = cluster.api::<Pod>();
    let attempts = (0..50).map(|at| {
        let pods = pods.clone();
        async move {
            let pod = serde_json::from_value(pod(&format!("p{at}"), "1m")).unwrap();
            pods.create(&PostParams::default(), &pod).await
        }
    });
    let results = futures::future::join_all(attempts).await;
    let (created, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(created.len(), 10);
    for refused in refused {
        let error = refused.unwrap_err().to_string();
        assert!(
            error.contains("exceeded quota: q, requested: pods=1, used: pods=10"),
            "{error}"
        );
    }
    used_of(&cluster, json!({"pods": "10"})).await;
    cluster.stop().await;
}

/// Conformance: [sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_says_that_a_quota_holds_it_back_until_it_asks_for_less() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    create(
        &cluster.api::<ResourceQuota>(),
        quota(&json!({"pods": "2"})),
    )
    .await;
    used_of(&cluster, json!({"pods": "0"})).await;
    let controllers = cluster.api::<ReplicationController>();
    let controller = json!({"metadata": {"name": "c"}, "spec": {"replicas": 3,
        "selector": {"app": "c"}, "template": {"metadata": {"labels": {"app": "c"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    create(&controllers, controller).await;
    let failure = |all: &BTreeMap<String, ReplicationController>| {
        let status = all
            .get("c")
            .and_then(|c| c.status.clone())
            .unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        conditions
            .iter()
            .any(|of| of.type_ == "ReplicaFailure" && of.reason.as_deref() == Some("FailedCreate"))
    };
    eventually(&controllers, failure).await;
    merge(&controllers, "c", json!({"spec": {"replicas": 2}})).await;
    eventually(&controllers, |all| !failure(all)).await;
    cluster.stop().await;
}
