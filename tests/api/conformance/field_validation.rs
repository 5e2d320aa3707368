//! sig-api-machinery: what `fieldValidation=Strict` says of typed objects.

use http::StatusCode;
use windlass_tests::Cluster;

use super::collection::{expect, send};
use http::Method;

const PATH: &str = "/apis/apps/v1/namespaces/default/deployments";

/// The complaint about a Deployment with further members in metadata and spec.
async fn complaint(metadata: &str, spec: &str) -> String {
    let cluster = Cluster::control_plane().await.unwrap();
    let body = format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"web","labels":{{"app":"web"}}{metadata}}},
        "spec":{{{spec}"replicas":2,"selector":{{"matchLabels":{{"app":"web"}}}},
        "template":{{"metadata":{{"labels":{{"app":"web"}}}},
        "spec":{{"containers":[{{"name":"web","image":"web:1"}}]}}}}}}}}"#
    );
    let path = format!("{PATH}?fieldValidation=Strict");
    let answer = send(&cluster, Method::POST, &path, "application/json", body).await;
    let status = expect(answer, StatusCode::BAD_REQUEST);
    assert_eq!(status["reason"], "BadRequest");
    status["message"].as_str().unwrap().to_owned()
}

/// Conformance: [sig-api-machinery] FieldValidation should detect unknown and duplicate fields of a typed object [Conformance]
#[tokio::test]
async fn unknown_and_duplicate_fields_of_a_typed_object_are_named() {
    let message = complaint("", r#""unknownField":"foo","replicas":1,"#).await;
    let expected = r#"strict decoding error: unknown field "spec.unknownField", duplicate field "spec.replicas""#;
    assert!(message.contains(expected), "{message}");
}

/// Conformance: [sig-api-machinery] FieldValidation should detect unknown metadata fields of a typed object [Conformance]
#[tokio::test]
async fn unknown_metadata_fields_of_a_typed_object_are_named() {
    let message = complaint(r#","unknownMeta":"foo""#, "").await;
    let expected = r#"strict decoding error: unknown field "metadata.unknownMeta""#;
    assert!(message.contains(expected), "{message}");
}
