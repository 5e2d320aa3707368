//! sig-api-machinery: Namespaces.

use http::StatusCode;
use serde_json::{Value, json};
use windlass_tests::Cluster;

use super::collection::{Collection, PatchType, expect, named};

const NAME: &str = "team";

fn namespaces(cluster: &Cluster) -> Collection<'_> {
    Collection::new(cluster, "v1", "namespaces", None)
}

async fn with_team() -> Cluster {
    let cluster = Cluster::control_plane().await.unwrap();
    namespaces(&cluster).create(&named(NAME, &json!({}))).await;
    cluster
}

/// Conformance: [sig-api-machinery] Namespaces should patch a Namespace [Conformance] [Serial]
#[tokio::test]
async fn a_namespace_is_patched() {
    let cluster = with_team().await;
    let namespaces = namespaces(&cluster);
    let patch = json!({"metadata": {"labels": {"testLabel": "testValue"}}});
    namespaces.patch(PatchType::Strategic, NAME, &patch).await;
    let found = namespaces.get(NAME).await;
    assert_eq!(found["metadata"]["labels"]["testLabel"], "testValue");
}

/// Conformance: [sig-api-machinery] Namespaces should apply an update to a Namespace [Conformance] [Serial]
#[tokio::test]
async fn a_namespace_is_updated() {
    let cluster = with_team().await;
    let namespaces = namespaces(&cluster);
    let change = json!({"metadata": {"labels": {NAME: "updated"}}});
    namespaces.update(NAME, &change).await;
    assert_eq!(
        namespaces.get(NAME).await["metadata"]["labels"][NAME],
        "updated"
    );
}

/// Conformance: [sig-api-machinery] Namespaces should apply changes to a namespace status [Conformance] [Serial]
#[tokio::test]
async fn the_status_of_a_namespace_is_patched_and_updated() {
    let cluster = with_team().await;
    let namespaces = namespaces(&cluster);
    let part = format!("{NAME}/status");
    assert_eq!(namespaces.get(&part).await["status"]["phase"], "Active");
    let condition = |kind| {
        json!({"status": {"conditions": [{
            "type": kind, "status": "True", "reason": "Test", "message": "set by a test",
        }]}})
    };
    let patched = namespaces
        .patch(PatchType::Merge, &part, &condition("StatusPatch"))
        .await;
    assert_eq!(types(&patched), ["StatusPatch"]);
    let updated = namespaces.update(&part, &condition("StatusUpdate")).await;
    assert_eq!(types(&updated), ["StatusUpdate"]);
    assert_eq!(updated["status"]["phase"], "Active");
}

fn types(namespace: &Value) -> Vec<&str> {
    let conditions = namespace["status"]["conditions"].as_array().unwrap();
    conditions
        .iter()
        .map(|condition| condition["type"].as_str().unwrap())
        .collect()
}

/// Conformance: [sig-api-machinery] Namespaces should apply a finalizer to a Namespace [Conformance] [Serial]
#[tokio::test]
async fn a_finalizer_is_given_to_a_namespace_and_taken_away() {
    let cluster = with_team().await;
    let namespaces = namespaces(&cluster);
    let fake = "conformance.example.com/fake";
    for finalizers in [json!(["kubernetes", fake]), json!(["kubernetes"])] {
        let mut namespace = namespaces.get(NAME).await;
        namespace["spec"]["finalizers"] = finalizers.clone();
        let part = format!("{NAME}/finalize");
        expect(namespaces.put(&part, &namespace).await, StatusCode::OK);
        let found = namespaces.get(NAME).await;
        assert_eq!(found["spec"]["finalizers"], finalizers);
    }
    namespaces.delete(NAME).await;
}
