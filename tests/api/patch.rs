//! PATCH in its languages.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::{Answer, Cluster};

const PODS: &str = "/api/v1/namespaces/default/configmaps";

async fn patch(cluster: &Cluster, kind: &str, body: Value) -> Answer {
    let headers = [("content-type", kind)];
    let path = format!("{PODS}/a");
    cluster
        .request(Method::PATCH, &path, &headers, body.to_string())
        .await
        .unwrap()
}

async fn with_config_map() -> Cluster {
    let cluster = Cluster::control_plane().await.unwrap();
    let object = json!({"metadata": {"name": "a"}, "data": {"x": "1", "y": "2"}});
    cluster.create(PODS, &object).await.unwrap();
    cluster
}

#[tokio::test]
async fn each_language_changes_what_it_says() {
    let cluster = with_config_map().await;
    let cases = [
        (
            "application/merge-patch+json",
            json!({"data": {"x": null}}),
            json!({"y": "2"}),
        ),
        (
            "application/strategic-merge-patch+json",
            json!({"data": {"z": "3"}}),
            json!({"y": "2", "z": "3"}),
        ),
        (
            "application/json-patch+json",
            json!([{"op": "replace", "path": "/data/z", "value": "4"}]),
            json!({"y": "2", "z": "4"}),
        ),
    ];
    for (kind, body, expected) in cases {
        let answer = patch(&cluster, kind, body).await;
        assert_eq!(
            (answer.status, &answer.body["data"]),
            (StatusCode::OK, &expected),
            "{kind}"
        );
    }
}

#[tokio::test]
async fn broken_patches_are_refused() {
    let cluster = with_config_map().await;
    let cases = [
        (
            "application/json-patch+json",
            json!([{"op": "test", "path": "/data/x", "value": "9"}]),
            422,
        ),
        ("application/json-patch+json", json!({"op": "x"}), 400),
        ("application/merge-patch+json", json!([1]), 400),
        (
            "application/merge-patch+json",
            json!({"data": {"k": 7}}),
            422,
        ),
        ("text/plain", json!({}), 415),
        (
            "application/apply-patch+yaml",
            json!({"apiVersion": "v1", "kind": "ConfigMap"}),
            422,
        ),
    ];
    for (kind, body, status) in cases {
        let answer = patch(&cluster, kind, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{kind} {body}: {answer:?}");
        assert_eq!(answer.body["kind"], "Status");
    }
}

#[tokio::test]
async fn a_patch_that_names_an_old_version_is_a_conflict() {
    let cluster = with_config_map().await;
    let kind = "application/merge-patch+json";
    let answer = patch(
        &cluster,
        kind,
        json!({"metadata": {"resourceVersion": "1"}}),
    )
    .await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
}
