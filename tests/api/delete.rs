//! DELETE.

use http::{Method, StatusCode};
use serde_json::json;
use windlass_tests::Cluster;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_away() {
    let cluster = Cluster::control_plane().await.unwrap();
    let object = json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}});
    cluster.create(CONFIG_MAPS, &object).await.unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    let marked = cluster
        .request(Method::DELETE, &path, &[], "")
        .await
        .unwrap();
    assert_eq!(marked.status, StatusCode::OK);
    assert!(
        marked.body["metadata"]["deletionTimestamp"].is_string(),
        "{marked:?}"
    );
    let merge = [("content-type", "application/merge-patch+json")];
    let more = r#"{"metadata":{"finalizers":["example.com/hold","example.com/more"]}}"#;
    let refused = cluster
        .request(Method::PATCH, &path, &merge, more)
        .await
        .unwrap();
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let none = r#"{"metadata":{"finalizers":null}}"#;
    cluster
        .request(Method::PATCH, &path, &merge, none)
        .await
        .unwrap();
    let gone = cluster.request(Method::GET, &path, &[], "").await.unwrap();
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn preconditions_guard_a_deletion() {
    let cluster = Cluster::control_plane().await.unwrap();
    cluster
        .create(CONFIG_MAPS, &json!({"metadata": {"name": "a"}}))
        .await
        .unwrap();
    let path = format!("{CONFIG_MAPS}/a");
    let body = r#"{"preconditions":{"uid":"another"}}"#;
    let refused = cluster
        .request(Method::DELETE, &path, &[], body)
        .await
        .unwrap();
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let deleted = cluster
        .request(Method::DELETE, &path, &[], "")
        .await
        .unwrap();
    assert_eq!(
        (&deleted.body["kind"], &deleted.body["status"]),
        (&json!("Status"), &json!("Success"))
    );
    let again = cluster
        .request(Method::DELETE, &path, &[], "")
        .await
        .unwrap();
    assert_eq!(again.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = Cluster::control_plane().await.unwrap();
    for (name, label) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let object = json!({"metadata": {"name": name, "labels": {"l": label}}});
        cluster.create(CONFIG_MAPS, &object).await.unwrap();
    }
    let path = format!("{CONFIG_MAPS}?labelSelector=l%3Dx");
    let deleted = cluster
        .request(Method::DELETE, &path, &[], "")
        .await
        .unwrap();
    assert_eq!(deleted.status, StatusCode::OK);
    let path = format!("{CONFIG_MAPS}?labelSelector=l");
    let rest = cluster.request(Method::GET, &path, &[], "").await.unwrap();
    let names: Vec<_> = rest.body["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| &i["metadata"]["name"])
        .collect();
    assert_eq!(names, ["c"]);
}

#[tokio::test]
async fn system_namespaces_stay() {
    let cluster = Cluster::control_plane().await.unwrap();
    let path = "/api/v1/namespaces/kube-system";
    let answer = cluster
        .request(Method::DELETE, path, &[], "")
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(
        answer.body["message"],
        r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#
    );
}
