//! sig-scheduling: LimitRanges and PriorityClasses, as objects.

use http::StatusCode;
use serde_json::{Value, json};

use super::collection::{Collection, PatchType, SELECTOR, expect, merged, named, names_of};
use super::matrix::{Matrix, NAMESPACE, assert_contains, with_namespace};

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

/// Conformance: [sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults applied. [Conformance]
#[tokio::test]
async fn a_limit_range_gives_defaults_and_refuses_what_is_out_of_bounds() {
    let cluster = with_namespace().await;
    let list = |cpu: &str, memory: &str| json!({"cpu": cpu, "memory": memory});
    let range = |min: Value| {
        json!({"spec": {"limits": [{
            "type": "Container", "min": min, "max": list("500m", "500Mi"),
            "default": list("500m", "500Mi"), "defaultRequest": list("100m", "200Mi"),
        }]}})
    };
    let ranges = Collection::new(&cluster, "v1", "limitranges", Some(NAMESPACE));
    let pods = Collection::new(&cluster, "v1", "pods", Some(NAMESPACE));
    ranges
        .create(&named("range", &range(list("50m", "100Mi"))))
        .await;
    let pod = |name: &str, resources: Value| {
        let container = json!({"name": "c", "image": "i:1", "resources": resources});
        named(name, &json!({"spec": {"containers": [container]}}))
    };
    let partly = json!({"requests": {"memory": "150Mi"}, "limits": {"cpu": "300m"}});
    for (name, given, requests, limits) in [
        (
            "none",
            json!({}),
            list("100m", "200Mi"),
            list("500m", "500Mi"),
        ),
        (
            "partly",
            partly,
            list("300m", "150Mi"),
            list("300m", "500Mi"),
        ),
    ] {
        pods.create(&pod(name, given)).await;
        let found = pods.get(name).await;
        let expected = json!({"requests": requests, "limits": limits});
        assert_contains(&found["spec"]["containers"][0]["resources"], &expected);
        assert_eq!(found["status"]["qosClass"], "Burstable");
    }
    let small = pod("small", json!({"requests": list("10m", "50Mi")}));
    let large = pod(
        "large",
        json!({"requests": list("600m", "600Mi"), "limits": list("600m", "600Mi")}),
    );
    let refused = pods.refused(&small, 403).await;
    assert_eq!(
        refused["message"],
        "pods \"small\" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, \
         minimum memory usage per Container is 100Mi, but request is 50Mi]"
    );
    pods.refused(&large, 403).await;
    ranges.update("range", &range(list("9m", "49Mi"))).await;
    pods.create(&small).await;
    pods.refused(&large, 403).await;
    ranges.delete("range").await;
    pods.create(&large).await;
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
