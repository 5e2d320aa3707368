//! Watches.

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::Request;
use serde_json::{Value, json};
use windlass_tests::Cluster;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// The events of a watch, read until `count` of them came or the stream ended.
async fn events(cluster: &Cluster, query: &str, count: usize) -> Vec<Value> {
    let request = Request::get(format!("{CONFIG_MAPS}?watch=1&{query}"))
        .body(Vec::new())
        .unwrap();
    let stream = cluster.client().request_stream(request).await.unwrap();
    let lines = stream
        .lines()
        .map_ok(|line| serde_json::from_str(&line).unwrap());
    let read = lines.take(count).try_collect::<Vec<Value>>();
    tokio::time::timeout(windlass_tests::PATIENCE, read)
        .await
        .unwrap()
        .unwrap()
}

fn told(events: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    events
        .iter()
        .map(|e| (text(&e["type"]), text(&e["object"]["metadata"]["name"])))
        .collect()
}

fn expected(events: &[(&str, &str)]) -> Vec<(String, String)> {
    events
        .iter()
        .map(|(kind, name)| (kind.to_string(), name.to_string()))
        .collect()
}

async fn create(cluster: &Cluster, name: &str, label: &str) -> Value {
    let object = json!({"metadata": {"name": name, "labels": {"l": label}}});
    cluster.create(CONFIG_MAPS, &object).await.unwrap()
}

async fn relabel(cluster: &Cluster, name: &str, label: &str) {
    let merge = [("content-type", "application/merge-patch+json")];
    let body = json!({"metadata": {"labels": {"l": label}}}).to_string();
    let path = format!("{CONFIG_MAPS}/{name}");
    cluster
        .request(http::Method::PATCH, &path, &merge, body)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_watch_from_a_revision_replays_what_came_after() {
    let cluster = Cluster::control_plane().await.unwrap();
    let first = create(&cluster, "a", "x").await;
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    create(&cluster, "b", "x").await;
    let path = format!("{CONFIG_MAPS}/a");
    cluster
        .request(http::Method::DELETE, &path, &[], "")
        .await
        .unwrap();
    let query = format!("resourceVersion={version}&labelSelector=l");
    let found = events(&cluster, &query, 2).await;
    assert_eq!(told(&found), expected(&[("ADDED", "b"), ("DELETED", "a")]));
    assert_ne!(found[1]["object"]["metadata"]["resourceVersion"], version);
}

#[tokio::test]
async fn selectors_turn_changes_into_added_and_deleted() {
    let cluster = Cluster::control_plane().await.unwrap();
    let object = create(&cluster, "a", "no").await;
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    for label in ["yes", "yes", "no"] {
        relabel(&cluster, "a", label).await;
    }
    relabel(&cluster, "a", "yes").await;
    let query = format!("resourceVersion={version}&labelSelector=l%3Dyes");
    let found = events(&cluster, &query, 3).await;
    assert_eq!(
        told(&found),
        expected(&[("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")])
    );
    assert_eq!(
        found[1]["object"]["metadata"]["labels"]["l"], "yes",
        "as it was last seen"
    );
}

#[tokio::test]
async fn a_watch_list_ends_its_initial_events_with_a_bookmark() {
    let cluster = Cluster::control_plane().await.unwrap();
    create(&cluster, "a", "x").await;
    let query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=l";
    let found = events(&cluster, query, 2).await;
    assert_eq!(found[0]["type"], "ADDED");
    assert_eq!(found[1]["type"], "BOOKMARK");
    assert_eq!(found[1]["object"]["kind"], "ConfigMap");
    assert_eq!(
        found[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let cluster = Cluster::control_plane().await.unwrap();
    let query = "timeoutSeconds=1&allowWatchBookmarks=true&labelSelector=none";
    let found = events(&cluster, query, 10).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["type"], "BOOKMARK");
}

#[tokio::test]
async fn a_watch_from_before_the_history_gets_410() {
    use std::time::Duration;
    use windlass_control::store::{Retention, Store};
    let cluster = Cluster::control_plane().await.unwrap();
    create(&cluster, "a", "x").await;
    let store = std::sync::Arc::clone(cluster.plane().server().registry().store());
    let nothing = Retention {
        age: Duration::ZERO,
        events: 0,
    };
    Store::compact(&*store, nothing).await.unwrap();
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion=1");
    let answer = cluster
        .request(http::Method::GET, &path, &[], "")
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body["reason"]),
        (410, &json!("Expired"))
    );
    let message = answer.body["message"].as_str().unwrap();
    assert!(
        message.starts_with("too old resource version: 1 ("),
        "{message}"
    );
}
