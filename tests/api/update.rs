//! PUT, and what every write keeps.

use http::{Method, StatusCode};
use serde_json::json;
use windlass_tests::Cluster;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment() -> serde_json::Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    })
}

#[tokio::test]
async fn stale_resource_version_is_a_conflict() {
    let cluster = Cluster::control_plane().await.unwrap();
    let mut object = cluster
        .create(CONFIG_MAPS, &json!({"metadata": {"name": "a"}}))
        .await
        .unwrap();
    object["data"] = json!({"k": "1"});
    let path = format!("{CONFIG_MAPS}/a");
    let fresh = cluster
        .request(Method::PUT, &path, &[], object.to_string())
        .await
        .unwrap();
    assert_eq!(fresh.status, StatusCode::OK, "{fresh:?}");
    let stale = cluster
        .request(Method::PUT, &path, &[], object.to_string())
        .await
        .unwrap();
    assert_eq!(stale.status, StatusCode::CONFLICT);
    assert_eq!(
        stale.body["message"],
        r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    );
}

#[tokio::test]
async fn an_update_that_changes_nothing_is_no_write() {
    let cluster = Cluster::control_plane().await.unwrap();
    let object = cluster
        .create(CONFIG_MAPS, &json!({"metadata": {"name": "a"}}))
        .await
        .unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    let answer = cluster
        .request(Method::PUT, &path, &[], object.to_string())
        .await
        .unwrap();
    assert_eq!(
        answer.body["metadata"]["resourceVersion"],
        object["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn spec_and_status_are_written_apart() {
    let cluster = Cluster::control_plane().await.unwrap();
    let mut paused = deployment();
    // Its controller would write an annotation, which counts as a generation too.
    paused["spec"]["paused"] = json!(true);
    let mut object = cluster.create(DEPLOYMENTS, &paused).await.unwrap();
    assert_eq!(object["metadata"]["generation"], 1);
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    object["status"] = json!({"replicas": 9});
    object["spec"]["minReadySeconds"] = json!(5);
    let path = format!("{DEPLOYMENTS}/web");
    let main = cluster
        .request(Method::PUT, &path, &[], object.to_string())
        .await
        .unwrap();
    assert_eq!(main.status, StatusCode::OK, "{main:?}");
    assert_ne!(main.body["status"]["replicas"], 9);
    assert_eq!(main.body["metadata"]["generation"], 2);
    object["spec"]["minReadySeconds"] = json!(7);
    object["status"] = json!({"observedGeneration": 2, "replicas": 9});
    let path = format!("{path}/status");
    let status = cluster
        .request(Method::PUT, &path, &[], object.to_string())
        .await
        .unwrap();
    assert_eq!(status.body["spec"]["minReadySeconds"], 5);
    assert_eq!(status.body["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_selector_cannot_change_and_must_match() {
    let cluster = Cluster::control_plane().await.unwrap();
    let mut object = cluster.create(DEPLOYMENTS, &deployment()).await.unwrap();
    object["metadata"]
        .as_object_mut()
        .unwrap()
        .remove("resourceVersion");
    object["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    object["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    let path = format!("{DEPLOYMENTS}/web");
    let answer = cluster
        .request(Method::PUT, &path, &[], object.to_string())
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let message = answer.body["message"].as_str().unwrap();
    assert!(
        message.contains("spec.selector") && message.contains("field is immutable"),
        "{message}"
    );
    let mut mismatch = deployment();
    mismatch["metadata"]["name"] = json!("mismatch");
    mismatch["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    let answer = cluster
        .request(Method::POST, DEPLOYMENTS, &[], mismatch.to_string())
        .await
        .unwrap();
    let message = answer.body["message"].as_str().unwrap();
    assert!(
        message.contains("`selector` does not match template `labels`"),
        "{message}"
    );
}

#[tokio::test]
async fn concurrent_patches_all_take_effect() {
    let cluster = Cluster::control_plane().await.unwrap();
    cluster
        .create(CONFIG_MAPS, &json!({"metadata": {"name": "a"}}))
        .await
        .unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    let merge = [("content-type", "application/merge-patch+json")];
    let patches = (0..20).map(|n| {
        let body = json!({"data": {(format!("k{n}")): "v"}}).to_string();
        cluster.request(Method::PATCH, &path, &merge, body)
    });
    for answer in futures::future::join_all(patches).await {
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    let answer = cluster.request(Method::GET, &path, &[], "").await.unwrap();
    assert_eq!(answer.body["data"].as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn scale_reads_and_writes_replicas() {
    let cluster = Cluster::control_plane().await.unwrap();
    cluster.create(DEPLOYMENTS, &deployment()).await.unwrap();
    let path = format!("{DEPLOYMENTS}/web/scale");
    let scale = cluster.request(Method::GET, &path, &[], "").await.unwrap();
    assert_eq!(
        (&scale.body["kind"], &scale.body["spec"]["replicas"]),
        (&json!("Scale"), &json!(0))
    );
    assert_eq!(scale.body["status"]["selector"], "app=web");
    let merge = [("content-type", "application/merge-patch+json")];
    let body = r#"{"spec":{"replicas":3}}"#;
    let patched = cluster
        .request(Method::PATCH, &path, &merge, body)
        .await
        .unwrap();
    assert_eq!(patched.body["spec"]["replicas"], 3, "{patched:?}");
}
