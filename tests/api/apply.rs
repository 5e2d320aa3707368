//! Server-side apply through the API.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::{Answer, Cluster};

async fn apply(cluster: &Cluster, manager: &str, force: bool, data: Value) -> Answer {
    let path =
        format!("/api/v1/namespaces/default/configmaps/a?fieldManager={manager}&force={force}");
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    let headers = [("content-type", "application/apply-patch+yaml")];
    cluster
        .request(Method::PATCH, &path, &headers, object.to_string())
        .await
        .unwrap()
}

#[tokio::test]
async fn applying_creates_owns_conflicts_and_gives_up() {
    let cluster = Cluster::control_plane().await.unwrap();
    let created = apply(&cluster, "one", false, json!({"x": "1", "y": "1"})).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let again = apply(&cluster, "one", false, json!({"x": "1", "y": "1"})).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(
        again.body["metadata"]["resourceVersion"],
        created.body["metadata"]["resourceVersion"]
    );
    let conflict = apply(&cluster, "two", false, json!({"x": "2"})).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT);
    assert_eq!(
        conflict.body["message"],
        r#"Apply failed with 1 conflict: conflict with "one": .data.x"#
    );
    assert_eq!(conflict.body["details"]["causes"][0]["field"], ".data.x");
    let forced = apply(&cluster, "two", true, json!({"x": "2"})).await;
    assert_eq!(forced.body["data"], json!({"x": "2", "y": "1"}));
    let given_up = apply(&cluster, "one", false, json!({})).await;
    assert_eq!(given_up.body["data"], json!({"x": "2"}));
}

#[tokio::test]
async fn a_scale_is_applied_to_what_it_scales_and_owned_there() {
    let cluster = Cluster::control_plane().await.unwrap();
    let sets = "/apis/apps/v1/namespaces/default/replicasets";
    let set = json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            },
        },
    });
    cluster.create(sets, &set).await.unwrap();
    let apply = async |manager: &str, force: bool, replicas: i64| {
        let path = format!("{sets}/web/scale?fieldManager={manager}&force={force}");
        let scale = json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"},
            "spec": {"replicas": replicas},
        });
        let headers = [("content-type", "application/apply-patch+yaml")];
        let answer = cluster.request(Method::PATCH, &path, &headers, scale.to_string());
        answer.await.unwrap()
    };
    let conflict = apply("scaler", false, 2).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT, "{conflict:?}");
    assert_eq!(
        conflict.body["details"]["causes"][0]["field"],
        ".spec.replicas"
    );
    let forced = apply("scaler", true, 2).await;
    assert_eq!(forced.status, StatusCode::OK, "{forced:?}");
    assert_eq!(forced.body["kind"], "Scale");
    assert_eq!(forced.body["spec"]["replicas"], 2);
    let path = format!("{sets}/web");
    let set = cluster.request(Method::GET, &path, &[], "").await.unwrap();
    let owners = set.body["metadata"]["managedFields"].as_array().unwrap();
    let scaler = owners.iter().find(|entry| entry["manager"] == "scaler");
    let scaler = scaler.unwrap();
    assert_eq!(scaler["subresource"], "scale");
    assert_eq!(scaler["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(apply("other", false, -1).await.status, 422);
}
