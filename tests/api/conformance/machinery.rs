//! sig-api-machinery: flow control, policies, discovery, tables, quota, version.

use http::{Method, StatusCode};
use serde_json::json;
use windlass_tests::Cluster;

use super::collection::{Collection, expect, get, named};
use super::matrix::{Matrix, NAMESPACE, with_namespace};

const ADMISSION: &str = "admissionregistration.k8s.io/v1";
const FLOW_CONTROL: &str = "flowcontrol.apiserver.k8s.io/v1";

/// Conformance: [sig-api-machinery] API priority and fairness should support FlowSchema API operations [Conformance]
#[tokio::test]
async fn flow_schemas_can_be_operated_on() {
    let rule = json!({
        "subjects": [{"kind": "User", "user": {"name": "somebody"}}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}],
    });
    let schema = json!({"spec": {
        "matchingPrecedence": 9000, "priorityLevelConfiguration": {"name": "global-default"},
        "distinguisherMethod": {"type": "ByUser"}, "rules": [rule],
    }});
    Matrix::new(FLOW_CONTROL, "FlowSchema", "flowschemas", schema)
        .change(json!({"spec": {"matchingPrecedence": 9001}}))
        .status(json!({"conditions": [condition("Dangling")]}))
        .walk()
        .await;
}

/// Conformance: [sig-api-machinery] API priority and fairness should support PriorityLevelConfiguration API operations [Conformance]
#[tokio::test]
async fn priority_level_configurations_can_be_operated_on() {
    let level = |shares| {
        json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "limitResponse": {"type": "Reject"},
        }}})
    };
    let (kind, plural) = ("PriorityLevelConfiguration", "prioritylevelconfigurations");
    Matrix::new(FLOW_CONTROL, kind, plural, level(2))
        .change(level(4))
        .status(json!({"conditions": [condition("Patched")]}))
        .walk()
        .await;
}

/// Conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicy API operations [Conformance]
#[tokio::test]
async fn validating_admission_policies_can_be_operated_on() {
    let rule = json!({
        "apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
        "resources": ["deployments"],
    });
    let policy = json!({"spec": {
        "failurePolicy": "Ignore", "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": "object.spec.replicas <= 100"}],
    }});
    let (kind, plural) = ("ValidatingAdmissionPolicy", "validatingadmissionpolicies");
    Matrix::new(ADMISSION, kind, plural, policy)
        .change(json!({"spec": {"failurePolicy": "Fail"}}))
        .status(json!({"conditions": [condition("Patched")]}))
        .walk()
        .await;
}

/// Conformance: [sig-api-machinery] ValidatingAdmissionPolicy [Privileged:ClusterAdmin] should support ValidatingAdmissionPolicyBinding API operations [Conformance]
#[tokio::test]
async fn validating_admission_policy_bindings_can_be_operated_on() {
    let binding = json!({"spec": {"policyName": "none", "validationActions": ["Deny"]}});
    let kind = "ValidatingAdmissionPolicyBinding";
    let plural = "validatingadmissionpolicybindings";
    Matrix::new(ADMISSION, kind, plural, binding).walk().await;
}

fn condition(kind: &str) -> serde_json::Value {
    json!({
        "type": kind, "status": "False", "reason": "Test", "message": "set by a test",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// Conformance: [sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]
#[tokio::test]
async fn every_group_prefers_a_version_it_has() {
    let cluster = Cluster::control_plane().await.unwrap();
    let groups = expect(get(&cluster, "/apis").await, StatusCode::OK);
    for group in groups["groups"].as_array().unwrap() {
        let path = format!("/apis/{}", group["name"].as_str().unwrap());
        let found = expect(get(&cluster, &path).await, StatusCode::OK);
        assert_eq!(found["preferredVersion"], group["preferredVersion"]);
        let versions = found["versions"].as_array().unwrap();
        assert!(versions.contains(&found["preferredVersion"]), "{found}");
    }
}

/// Conformance: [sig-api-machinery] server version should find the server version [Conformance]
#[tokio::test]
async fn the_version_is_of_numbers() {
    let cluster = Cluster::control_plane().await.unwrap();
    let version = expect(get(&cluster, "/version").await, StatusCode::OK);
    for part in ["major", "minor"] {
        let number: u32 = version[part].as_str().unwrap().parse().unwrap();
        assert!(number > 0, "{version}");
    }
}

/// Conformance: [sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does not implement metadata [Conformance]
#[tokio::test]
async fn a_review_has_no_table() {
    let cluster = Cluster::control_plane().await.unwrap();
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods"}},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let headers = [("content-type", "application/json"), ("accept", table)];
    let answer = cluster.request(Method::POST, path, &headers, review.to_string());
    let refused = expect(answer.await.unwrap(), StatusCode::NOT_ACCEPTABLE);
    assert_eq!(refused["reason"], "NotAcceptable");
}

/// Conformance: [sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota. [Conformance]
#[tokio::test]
async fn a_quota_is_updated_and_deleted() {
    let cluster = with_namespace().await;
    let quotas = Collection::new(&cluster, "v1", "resourcequotas", Some(NAMESPACE));
    let quota = |cpu, memory| json!({"spec": {"hard": {"cpu": cpu, "memory": memory}}});
    quotas.create(&named("quota", &quota("1", "500Mi"))).await;
    assert_eq!(quotas.get("quota").await["spec"]["hard"]["cpu"], "1");
    quotas.update("quota", &quota("2", "1Gi")).await;
    let updated = quotas.get("quota").await;
    assert_eq!(
        updated["spec"]["hard"],
        json!({"cpu": "2", "memory": "1Gi"})
    );
    quotas.delete("quota").await;
}
