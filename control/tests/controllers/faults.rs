//! Controllers and a scheduler whose writes keep failing, before or after they have happened: as if they
//! were killed between any two of them, and as if caches were stale and answers lost. What is true in the end
//! is the same.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::client::Body;
use kube::core::NamespaceResourceScope;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, eventually, merge};

fn lost() -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "lost", "reason": "InternalError", "code": 500,
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    response
}

async fn cluster() -> Cluster {
    let mut cluster = unreliable().await;
    for node in ["n1", "n2"] {
        cluster.node(node).await;
    }
    cluster
}

/// Every fifth write fails before it happens, and of the others every seventh after it has.
async fn unreliable() -> Cluster {
    let writes = Arc::new(AtomicUsize::new(0));
    let handle = move |client: Client, request: Request<Body>| {
        let is_write = request.method() != Method::GET;
        let turn = match is_write {
            true => writes.fetch_add(1, Ordering::Relaxed),
            false => 0,
        };
        async move {
            if is_write && turn % 5 == 3 {
                return Ok(lost());
            }
            let response = client.send(request).await?;
            Ok(if is_write && turn % 7 == 5 {
                lost()
            } else {
                response
            })
        }
    };
    Cluster::start_through(|_| {}, handle).await
}

/// A workload named `web` of pods with that image, and more in its spec.
pub(crate) fn workload(image: &str, more: &Value) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": image}]}},
    });
    json_patch::merge(&mut spec, more);
    json!({"metadata": {"name": "web"}, "spec": spec})
}

/// A patch to another image.
pub(crate) fn change(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

/// The pods that are there to stay, with their images.
fn staying(all: &BTreeMap<String, Pod>) -> Vec<(&str, &str)> {
    let stays = all
        .values()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none());
    stays
        .map(|pod| {
            let container = &pod.spec.as_ref().unwrap().containers[0];
            let name = pod.metadata.name.as_deref().unwrap();
            (name, container.image.as_deref().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_ends_with_as_many_pods_as_wanted() {
    let cluster = cluster().await;
    let (deployments, pods) = (cluster.api::<Deployment>(), cluster.api::<Pod>());
    create(&deployments, workload("a", &json!({"replicas": 5}))).await;
    let is_done = |all: &BTreeMap<String, Deployment>| {
        let status = all["web"].status.clone().unwrap_or_default();
        status.observed_generation == all["web"].metadata.generation
            && (status.replicas, status.updated_replicas) == (Some(5), Some(5))
            && status.available_replicas == Some(5)
    };
    eventually(&deployments, is_done).await;
    for image in ["b", "c"] {
        merge(&deployments, "web", change(image)).await;
        eventually(&deployments, is_done).await;
        eventually(&pods, |all| {
            all.len() == 5 && staying(all).iter().all(|(_, of)| *of == image)
        })
        .await;
    }
    let params = DeleteParams::foreground();
    deployments.delete("web", &params).await.unwrap();
    eventually(&pods, BTreeMap::is_empty).await;
    eventually(&deployments, BTreeMap::is_empty).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_never_has_two_of_a_name_and_is_replaced_from_the_end() {
    let cluster = cluster().await;
    let (sets, pods) = (cluster.api::<StatefulSet>(), cluster.api::<Pod>());
    let more = json!({"replicas": 3, "serviceName": "web"});
    create(&sets, workload("a", &more)).await;
    let all_of = |image: &'static str| {
        move |all: &BTreeMap<String, Pod>| {
            staying(all) == [("web-0", image), ("web-1", image), ("web-2", image)]
        }
    };
    eventually(&pods, all_of("a")).await;
    merge(&sets, "web", change("b")).await;
    let mut replaced = Vec::new();
    eventually(&pods, |all| {
        for (name, image) in staying(all) {
            if image == "b" && !replaced.contains(&name.to_owned()) {
                replaced.push(name.to_owned());
            }
        }
        all_of("b")(all)
    })
    .await;
    assert_eq!(replaced, ["web-2", "web-1", "web-0"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_has_one_pod_of_a_daemon_set() {
    let cluster = cluster().await;
    let (sets, pods) = (cluster.api::<DaemonSet>(), cluster.api::<Pod>());
    create(&sets, workload("a", &json!({}))).await;
    let settled = |image: &'static str| {
        move |all: &BTreeMap<String, Pod>| {
            let nodes = all
                .values()
                .map(|pod| pod.spec.as_ref().unwrap().node_name.clone());
            let nodes: HashSet<_> = nodes.collect();
            nodes.len() == 2 && all.len() == 2 && staying(all).iter().all(|(_, of)| *of == image)
        }
    };
    eventually(&pods, settled("a")).await;
    merge(&sets, "web", change("b")).await;
    eventually(&pods, settled("b")).await;
    eventually(&sets, |all| {
        let status = all["web"].status.as_ref();
        status.is_some_and(|status| status.updated_number_scheduled == Some(2))
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_result_of_a_job_is_lost_or_counted_twice() {
    let cluster = unreliable().await;
    cluster.idle_node("n1", 110).await;
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    let job = json!({"metadata": {"name": "sum"}, "spec": {
        "completions": 6, "parallelism": 3, "completionMode": "Indexed",
        "template": {"spec": {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i"}]}}}});
    create(&jobs, job).await;
    let worker = tokio::spawn({
        let pods = pods.clone();
        async move {
            let mut ended = HashSet::new();
            loop {
                let all = eventually(&pods, |all| {
                    staying(all).iter().any(|(name, _)| !ended.contains(*name))
                })
                .await;
                for (name, _) in staying(&all) {
                    if ended.insert(name.to_owned()) {
                        let status = json!({"status": {"phase": "Succeeded"}});
                        let (params, patch) = (PatchParams::default(), Patch::Merge(&status));
                        // Its Job may have ended, and it with it.
                        let _ = pods.patch_status(name, &params, &patch).await;
                    }
                }
            }
        }
    });
    let all = eventually(&jobs, |all| {
        let status = all["sum"].status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|of| of.type_ == "Complete" && of.status == "True")
    })
    .await;
    worker.abort();
    let status = all["sum"].status.clone().unwrap();
    assert_eq!(status.succeeded, Some(6));
    assert_eq!(status.completed_indexes.as_deref(), Some("0-5"));
    assert_eq!(status.failed.unwrap_or(0), 0);
    let pods: Api<Pod> = cluster.api();
    eventually(&pods, |all| {
        let mut held = all
            .values()
            .flat_map(|pod| pod.metadata.finalizers.iter().flatten());
        held.next().is_none()
    })
    .await;
    cluster.stop().await;
}

/// Everything that is involved in a rollout is written by others all the time, so that writes at a version are
/// refused; and another set wants the same pods.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_other_writers_and_a_rival_change_nothing() {
    let mut cluster = Cluster::start().await;
    cluster.node("n1").await;
    let deployments = cluster.api::<Deployment>();
    create(&deployments, workload("a", &json!({"replicas": 4}))).await;
    let rival = json!({"metadata": {"name": "rival"}, "spec": workload("a", &json!({"replicas": 2}))["spec"]});
    create(&cluster.api::<ReplicaSet>(), rival).await;
    let client = cluster.client.clone();
    let storm = tokio::spawn(async move {
        let mut at = 0_u64;
        loop {
            storm_over::<Deployment>(&client, at).await;
            storm_over::<ReplicaSet>(&client, at).await;
            storm_over::<Pod>(&client, at).await;
            at += 1;
        }
    });
    let sets = cluster.api::<ReplicaSet>();
    for image in ["b", "c", "d"] {
        merge(&deployments, "web", change(image)).await;
        eventually(&deployments, |all| {
            let status = all["web"].status.clone().unwrap_or_default();
            status.observed_generation == all["web"].metadata.generation
                && (status.replicas, status.available_replicas) == (Some(4), Some(4))
                && status.updated_replicas == Some(4)
        })
        .await;
    }
    let owners = |all: &BTreeMap<String, Pod>| {
        let mut counts = BTreeMap::new();
        for pod in all.values() {
            let owners = pod.metadata.owner_references.as_deref().unwrap_or(&[]);
            assert_eq!(owners.len(), 1, "{:?} has one owner", pod.metadata.name);
            *counts.entry(owners[0].name.clone()).or_insert(0) += 1;
        }
        counts
    };
    let pods = cluster.api::<Pod>();
    let all = eventually(&pods, |all| owners(all).values().copied().eq([2, 4])).await;
    assert_eq!(owners(&all)["rival"], 2, "{:?}", owners(&all));
    eventually(&sets, |all| {
        let of = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
        all.values().map(of).sum::<i32>() == 6
    })
    .await;
    storm.abort();
    cluster.stop().await;
}

/// Writes every object of a kind once.
async fn storm_over<K>(client: &Client, at: u64)
where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let note = json!({"metadata": {"annotations": {"storm": at.to_string()}}});
    for object in api.list(&ListParams::default()).await.unwrap() {
        let name = object.meta().name.as_deref().unwrap();
        // It may be gone by now.
        let _ = api
            .patch(name, &PatchParams::default(), &Patch::Merge(&note))
            .await;
    }
}
