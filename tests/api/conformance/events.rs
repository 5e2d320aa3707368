//! sig-instrumentation: Events in both groups.

use serde_json::{Value, json};

use super::collection::{Collection, SELECTOR, named, names_of};
use super::matrix::{Matrix, NAMESPACE, with_namespace};

const TIME: &str = "2026-01-01T00:00:00.000000Z";

fn core_event() -> Value {
    json!({
        "involvedObject": {"namespace": NAMESPACE, "kind": "Pod", "name": "p"},
        "message": "a test event", "reason": "Test", "type": "Normal", "count": 1,
    })
}

fn event() -> Value {
    json!({
        "eventTime": TIME, "reportingController": "test-controller",
        "reportingInstance": "test-node", "action": "Do", "reason": "Test", "type": "Normal",
        "note": "a test event", "regarding": {"namespace": NAMESPACE, "kind": "Pod", "name": "p"},
    })
}

/// Conformance: [sig-instrumentation] Events should manage the lifecycle of an event [Conformance]
#[tokio::test]
async fn core_events_live_and_die() {
    let cluster = with_namespace().await;
    let matrix = Matrix::new("v1", "Event", "events", core_event())
        .namespaced()
        .change(json!({"message": "another text"}));
    matrix.walk_in(&cluster).await;
    let events = matrix.collection(&cluster);
    events.create(&named("series", &core_event())).await;
    let series = json!({"series": {"count": 100, "lastObservedTime": TIME}});
    let updated = events.update("series", &series).await;
    assert_eq!(updated["series"]["count"], 100);
    let selected = events
        .list(&selecting("reason=Test,involvedObject.kind=Pod"))
        .await;
    assert_eq!(names_of(&selected), ["series"]);
    events.delete("series").await;
}

/// Conformance: [sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed [Conformance]
#[tokio::test]
async fn events_live_and_die_and_are_found_by_their_reporter() {
    let cluster = with_namespace().await;
    let series = |count| json!({"series": {"count": count, "lastObservedTime": TIME}});
    let matrix = Matrix::new("events.k8s.io/v1", "Event", "events", event())
        .namespaced()
        .change(series(2));
    matrix.walk_in(&cluster).await;
    let events = matrix.collection(&cluster);
    events.create(&named("here", &event())).await;
    let there = events.of("default");
    let mut elsewhere = event();
    elsewhere["regarding"]["namespace"] = json!("default");
    there.create(&named("there", &elsewhere)).await;
    let query = selecting("reportingController=test-controller");
    assert_eq!(names_of(&events.list(&query).await), ["here"]);
    assert_eq!(events.list_everywhere(&query).await.len(), 2);
    let core = Collection::new(&cluster, "v1", "events", Some(NAMESPACE));
    let query = selecting("reportingComponent=test-controller");
    assert_eq!(names_of(&core.list(&query).await), ["here"]);
    assert_eq!(core.get("here").await["message"], "a test event");
    let updated = events.update("here", &series(100)).await;
    assert_eq!(updated["series"]["count"], 100);
    events.delete("here").await;
    assert_eq!(names_of(&events.list_everywhere(SELECTOR).await), ["there"]);
}

fn selecting(fields: &str) -> String {
    format!("{SELECTOR}&fieldSelector={}", fields.replace('=', "%3D"))
}

/// Conformance: [sig-instrumentation] Events should delete a collection of events [Conformance]
/// Conformance: [sig-instrumentation] Events API should delete a collection of events [Conformance]
#[tokio::test]
async fn events_are_deleted_as_a_collection() {
    let cluster = with_namespace().await;
    for (group_version, object) in [("v1", core_event()), ("events.k8s.io/v1", event())] {
        let events = Collection::new(&cluster, group_version, "events", Some(NAMESPACE));
        let kept = json!({"metadata": {"name": "kept", "labels": {"other": "yes"}}});
        let kept = super::collection::merged(&object, &kept);
        events.create(&kept).await;
        for name in ["a", "b", "c"] {
            events.create(&named(name, &object)).await;
        }
        assert_eq!(names_of(&events.list(SELECTOR).await), ["a", "b", "c"]);
        events.delete_all(SELECTOR).await;
        events.delete("kept").await;
    }
}
