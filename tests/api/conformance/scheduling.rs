//! sig-scheduling: LimitRanges and PriorityClasses, as objects.

use http::StatusCode;
use serde_json::json;

use super::collection::{PatchType, SELECTOR, expect, merged, named, names_of};
use super::matrix::{Matrix, with_namespace};

/// Conformance: [sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection [Conformance]
#[tokio::test]
async fn limit_ranges_are_listed_patched_and_deleted() {
    let cluster = with_namespace().await;
    let range = |cpu: &str| {
        json!({"spec": {"limits": [{
            "type": "Container", "max": {"cpu": "500m"}, "default": {"cpu": "500m"},
            "defaultRequest": {"cpu": cpu},
        }]}})
    };
    let matrix = Matrix::new("v1", "LimitRange", "limitranges", range("50m"))
        .namespaced()
        .change(range("100m"));
    matrix.walk_in(&cluster).await;
    let here = matrix.collection(&cluster);
    let there = here.of("default");
    here.create(&named("range", &range("50m"))).await;
    there.create(&named("range", &range("50m"))).await;
    assert_eq!(here.list_everywhere(SELECTOR).await.len(), 2);
    here.delete_all(SELECTOR).await;
    assert_eq!(names_of(&there.list_everywhere(SELECTOR).await), ["range"]);
}

/// Conformance: [sig-scheduling] SchedulerPreemption PriorityClass endpoints verify PriorityClass endpoints can be operated with different HTTP methods [Conformance] [Serial]
#[tokio::test]
async fn priority_classes_keep_their_value() {
    let cluster = with_namespace().await;
    let (kind, plural) = ("PriorityClass", "priorityclasses");
    let class = json!({"value": 100});
    let matrix = Matrix::new("scheduling.k8s.io/v1", kind, plural, class.clone())
        .change(json!({"description": "changed"}));
    matrix.walk_in(&cluster).await;
    let classes = matrix.collection(&cluster);
    let created = classes.create(&named("fixed", &class)).await;
    let change = json!({"value": 200});
    let patched = classes.try_patch(PatchType::Merge, "fixed", &change).await;
    let replaced = classes.put("fixed", &merged(&created, &change)).await;
    for answer in [patched, replaced] {
        let refused = expect(answer, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused["reason"], "Invalid");
        let message = refused["message"].as_str().unwrap();
        assert!(
            message.contains("may not be changed in an update"),
            "{message}"
        );
    }
}
