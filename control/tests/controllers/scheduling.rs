//! The scheduler: it binds, and it says why not.

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::cluster::{Cluster, create, eventually, merge};

fn pod(name: &str, more: Value) -> Value {
    let mut spec = json!({"containers": [{"name": "c", "image": "a"}]});
    json_patch::merge(&mut spec, &more);
    json!({"metadata": {"name": name}, "spec": spec})
}

fn reason(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled")?;
    scheduled.message.as_deref()
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_with_a_reason_until_a_node_fits() {
    let cluster = Cluster::start().await;
    let pods = cluster.api::<Pod>();
    create(&pods, pod("p", json!({"nodeSelector": {"disk": "fast"}}))).await;
    eventually(&pods, |all| {
        reason(&all["p"]) == Some("no nodes available to schedule pods")
    })
    .await;
    cluster.idle_node("a", 10).await;
    let text = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. \
                preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    eventually(&pods, |all| reason(&all["p"]) == Some(text)).await;
    eventually(&cluster.api::<Event>(), |all| {
        all.values().any(|event| {
            event.reason.as_deref() == Some("FailedScheduling")
                && event.message.as_deref() == Some(text)
        })
    })
    .await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    merge(
        &nodes,
        "a",
        json!({"metadata": {"labels": {"disk": "fast"}}}),
    )
    .await;
    eventually(&pods, |all| node_of(&all["p"]) == Some("a")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_takes_the_next_pod_when_one_leaves() {
    let cluster = Cluster::start().await;
    cluster.idle_node("a", 1).await;
    let pods = cluster.api::<Pod>();
    create(&pods, pod("first", json!({}))).await;
    eventually(&pods, |all| node_of(&all["first"]) == Some("a")).await;
    create(&pods, pod("second", json!({}))).await;
    let text = "0/1 nodes are available: 1 Too many pods. preemption: 0/1 nodes are available: \
                1 No preemption victims found for incoming pod.";
    eventually(&pods, |all| reason(&all["second"]) == Some(text)).await;
    pods.delete("first", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually(&pods, |all| node_of(&all["second"]) == Some("a")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_other_schedulers_are_left_alone() {
    let cluster = Cluster::start().await;
    cluster.idle_node("a", 10).await;
    let pods = cluster.api::<Pod>();
    create(&pods, pod("other", json!({"schedulerName": "mine"}))).await;
    create(&pods, pod("ours", json!({}))).await;
    let all = eventually(&pods, |all| node_of(&all["ours"]).is_some()).await;
    assert_eq!(node_of(&all["other"]), None);
    cluster.stop().await;
}
