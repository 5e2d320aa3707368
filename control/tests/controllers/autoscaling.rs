//! HorizontalPodAutoscalers by metrics that a test makes up. `tests/cluster` has those of real pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use windlass_control::Config;

use crate::cluster::{Cluster, create, eventually};

/// Where the servers of custom and external metrics would answer.
const METRICS: [&str; 2] = [
    "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue",
    "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/web/requests",
];

/// A cluster in which all custom and external metrics have one value.
async fn cluster(value: &Arc<AtomicI64>) -> Cluster {
    let value = Arc::clone(value);
    let handle = move |client: Client, request: Request<Body>| {
        let value = value.load(Ordering::Relaxed);
        async move {
            if !METRICS.contains(&request.uri().path()) {
                return client.send(request).await;
            }
            let values = json!({"items": [
                {"metricName": "m", "timestamp": null, "value": value.to_string()}]});
            Ok(Response::new(Body::from(values.to_string().into_bytes())))
        }
    };
    let often = |config: &mut Config| config.autoscaling_period = Duration::from_millis(100);
    let mut cluster = Cluster::start_through(often, handle).await;
    cluster.node("n1").await;
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}}}});
    create(&cluster.api::<Deployment>(), deployment).await;
    cluster
}

fn autoscaler(target: &str, least: i32, metric: &Value) -> Value {
    json!({"metadata": {"name": "web"}, "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": target, "name": "web"},
        "minReplicas": least, "maxReplicas": 6, "metrics": [metric],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0,
            "policies": [{"type": "Pods", "value": 9, "periodSeconds": 1}]}},
    }})
}

fn replicas(all: &BTreeMap<String, Deployment>) -> (i32, i32) {
    let status = all["web"].status.clone().unwrap_or_default();
    let wanted = all["web"].spec.as_ref().unwrap().replicas.unwrap();
    (wanted, status.available_replicas.unwrap_or(0))
}

fn says(all: &BTreeMap<String, HorizontalPodAutoscaler>, kind: &str) -> Option<String> {
    let conditions = all["web"].status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|of| of.type_ == kind)?;
    let reason = found.reason.clone()?;
    Some(format!("{} {reason}", found.status))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_outside_is_followed() {
    let value = Arc::new(AtomicI64::new(35));
    let cluster = cluster(&value).await;
    let target = json!({"type": "AverageValue", "averageValue": "10"});
    let metric =
        json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": target}});
    let (autoscalers, deployments) = (cluster.api(), cluster.api::<Deployment>());
    create(&autoscalers, autoscaler("Deployment", 1, &metric)).await;
    eventually(&deployments, |all| replicas(all) == (4, 4)).await;
    eventually(&autoscalers, |all| {
        says(all, "ScalingActive").as_deref() == Some("True ValidMetricFound")
    })
    .await;
    value.store(200, Ordering::Relaxed);
    eventually(&deployments, |all| replicas(all) == (6, 6)).await;
    eventually(&autoscalers, |all| {
        says(all, "ScalingLimited").as_deref() == Some("True TooManyReplicas")
    })
    .await;
    value.store(5, Ordering::Relaxed);
    eventually(&deployments, |all| replicas(all) == (1, 1)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_the_cluster_is_followed() {
    let value = Arc::new(AtomicI64::new(300));
    let cluster = cluster(&value).await;
    let metric = json!({"type": "Object", "object": {
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "web"},
        "metric": {"name": "requests"}, "target": {"type": "Value", "value": "100"}}});
    let (autoscalers, deployments) = (cluster.api(), cluster.api::<Deployment>());
    eventually(&deployments, |all| replicas(all) == (1, 1)).await;
    create(&autoscalers, autoscaler("Deployment", 1, &metric)).await;
    eventually(&deployments, |all| replicas(all).0 == 6).await;
    value.store(100, Ordering::Relaxed);
    let all = eventually(
        &autoscalers,
        |all: &BTreeMap<String, HorizontalPodAutoscaler>| {
            let metrics = all["web"]
                .status
                .as_ref()
                .and_then(|of| of.current_metrics.as_ref());
            let object = metrics.and_then(|all| all.first()?.object.as_ref());
            object.is_some_and(|of| of.current.value.as_ref().is_some_and(|of| of.0 == "100"))
        },
    )
    .await;
    assert_eq!(
        says(&all, "AbleToScale").unwrap().split(' ').next(),
        Some("True")
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_and_the_least_holds_all_the_same() {
    let cluster = cluster(&Arc::default()).await;
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 50}}});
    let (autoscalers, deployments) = (cluster.api(), cluster.api::<Deployment>());
    create(&autoscalers, autoscaler("Deployment", 2, &cpu)).await;
    // Nobody tells what these pods use.
    eventually(&deployments, |all| replicas(all) == (2, 2)).await;
    eventually(&autoscalers, |all| {
        says(all, "ScalingActive").as_deref() == Some("False FailedGetResourceMetric")
    })
    .await;
    let other = json!({"spec": {"scaleTargetRef": {"apiVersion": "example.com/v1", "kind": "Thing", "name": "web"}}});
    crate::cluster::merge(&autoscalers, "web", other).await;
    eventually(&autoscalers, |all| {
        says(all, "AbleToScale").as_deref() == Some("False FailedGetScale")
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_count_the_same_pods_say_so_until_one_is_gone() {
    let value = Arc::new(AtomicI64::new(30));
    let cluster = cluster(&value).await;
    let target = json!({"type": "AverageValue", "averageValue": "10"});
    let metric =
        json!({"type": "External", "external": {"metric": {"name": "queue"}, "target": target}});
    let autoscalers = cluster.api::<HorizontalPodAutoscaler>();
    create(&autoscalers, autoscaler("Deployment", 1, &metric)).await;
    let active = |all: &_, expected: &str| says(all, "ScalingActive").as_deref() == Some(expected);
    eventually(&autoscalers, |all| active(all, "True ValidMetricFound")).await;
    let mut other = autoscaler("Deployment", 1, &metric);
    other["metadata"]["name"] = json!("other");
    create(&autoscalers, other).await;
    let all = eventually(&autoscalers, |all| active(all, "False AmbiguousSelector")).await;
    let conditions = all["web"].status.as_ref().unwrap().conditions.as_ref();
    let text = conditions
        .unwrap()
        .iter()
        .find_map(|of| of.message.as_deref().filter(|of| of.contains("multiple")));
    let expected =
        "pods by selector app=web are controlled by multiple HPAs: [default/other default/web]";
    assert_eq!(text, Some(expected));
    autoscalers
        .delete("other", &Default::default())
        .await
        .unwrap();
    eventually(&autoscalers, |all| active(all, "True ValidMetricFound")).await;
    cluster.stop().await;
}
