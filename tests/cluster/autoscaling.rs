//! What pods use, and autoscaling by it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use windlass_tests::load::Load;
use windlass_tests::{Cluster, eventually};

use crate::{HELLO, apply, hello, node_port, push, rolled_out, url};

/// A cluster whose autoscalers look often, and a web app with one replica.
async fn running() -> (Cluster, String) {
    let mut cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.autoscaling_period = Duration::from_millis(250);
    })
    .await
    .unwrap();
    cluster.add_node("node-1").await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    let mut web = hello(&image, 1, "one");
    let container = &mut web["spec"]["template"]["spec"]["containers"][0];
    container["resources"] = json!({"requests": {"cpu": "10m", "memory": "16Mi"}});
    // The number of replicas is the autoscaler's.
    apply::<Deployment>(&cluster, &web).await;
    apply::<Service>(&cluster, &node_port()).await;
    rolled_out(&cluster).await;
    let url = url(&cluster).await;
    (cluster, url)
}

async fn fetch(cluster: &Cluster, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    cluster.client().request(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_and_nodes_use_is_told() {
    let (cluster, _) = running().await;
    let all = fetch(
        &cluster,
        "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dhello",
    )
    .await;
    assert_eq!(all["kind"], "PodMetricsList");
    let pod = &all["items"][0];
    assert_eq!(all["items"].as_array().unwrap().len(), 1);
    assert_eq!(pod["metadata"]["labels"]["app"], "hello");
    let usage = &pod["containers"][0]["usage"];
    let amount = |text: &Value| {
        let text = text.as_str().unwrap();
        let digits = text.trim_end_matches(char::is_alphabetic);
        digits.parse::<u64>().unwrap()
    };
    assert!(usage["cpu"].as_str().unwrap().ends_with('n'), "{usage}");
    assert!(pod["window"].as_str().unwrap().ends_with('s'), "{pod}");
    let name = pod["metadata"]["name"].as_str().unwrap();
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/{name}");
    assert_eq!(fetch(&cluster, &path).await["metadata"]["name"], name);
    let none = fetch(
        &cluster,
        "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dnone",
    )
    .await;
    assert_eq!(none["items"], json!([]));
    let nodes = fetch(&cluster, "/apis/metrics.k8s.io/v1beta1/nodes").await;
    assert!(
        amount(&nodes["items"][0]["usage"]["memory"]) > 1024,
        "{nodes}"
    );
    cluster.shutdown().await;
}

/// One that follows processors, and may come down at once.
fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "hello"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hello"},
            "minReplicas": 1, "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 50}}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0,
                "policies": [{"type": "Pods", "value": 9, "periodSeconds": 1}]}},
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_follows_the_load_up_and_down() {
    let (cluster, url) = running().await;
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client(), "default");
    let params = PatchParams::apply("test");
    autoscalers
        .patch("hello", &params, &Patch::Apply(autoscaler()))
        .await
        .unwrap();
    let load = Load::on(&url, 4);
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), "default");
    let has = |replicas: i32| {
        move |of: Option<&Deployment>| {
            let spec = of.and_then(|of| of.spec.as_ref());
            spec.is_some_and(|spec| spec.replicas == Some(replicas))
        }
    };
    eventually(deployments.clone(), "hello", "three replicas", has(3)).await;
    load.stop().await;
    eventually(deployments, "hello", "one replica", has(1)).await;
    let wants_one = |of: Option<&HorizontalPodAutoscaler>| {
        let status = of.and_then(|of| of.status.as_ref());
        status.is_some_and(|status| status.desired_replicas == 1)
    };
    let seen = eventually(autoscalers, "hello", "one desired", wants_one).await;
    let conditions = seen.unwrap().status.unwrap().conditions.unwrap();
    let holds = |kind: &str| {
        let mut all = conditions.iter();
        all.any(|of| of.type_ == kind && of.status == "True")
    };
    assert!(
        holds("AbleToScale") && holds("ScalingActive"),
        "{conditions:?}"
    );
    cluster.shutdown().await;
}
