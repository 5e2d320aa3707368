//! sig-node: resource.k8s.io, whose rows upstream tests by the matrix too.

use serde_json::{Value, json};

use super::matrix::Matrix;

const GROUP_VERSION: &str = "resource.k8s.io/v1";
const DRIVER: &str = "gpu.example.com";

fn claim() -> Value {
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": "gpu"}});
    json!({"devices": {"requests": [request]}})
}

/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 DeviceClass [Conformance]
#[tokio::test]
async fn device_classes_walk_the_matrix() {
    let class =
        |expression: &str| json!({"spec": {"selectors": [{"cel": {"expression": expression}}]}});
    Matrix::new(GROUP_VERSION, "DeviceClass", "deviceclasses", class("true"))
        .change(class("false"))
        .walk()
        .await;
}

/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaim [Conformance]
#[tokio::test]
async fn resource_claims_walk_the_matrix() {
    let result = json!({"request": "gpu", "driver": DRIVER, "pool": "pool", "device": "one"});
    let (kind, plural) = ("ResourceClaim", "resourceclaims");
    Matrix::new(GROUP_VERSION, kind, plural, json!({"spec": claim()}))
        .namespaced()
        .status(json!({"allocation": {"devices": {"results": [result]}}}))
        .walk()
        .await;
}

/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceClaimTemplate [Conformance]
#[tokio::test]
async fn resource_claim_templates_walk_the_matrix() {
    let template = json!({"spec": {"spec": claim()}});
    let (kind, plural) = ("ResourceClaimTemplate", "resourceclaimtemplates");
    Matrix::new(GROUP_VERSION, kind, plural, template)
        .namespaced()
        .walk()
        .await;
}

/// Conformance: [sig-node] [DRA] CRUD Tests resource.k8s.io/v1 ResourceSlice [Conformance]
#[tokio::test]
async fn resource_slices_walk_the_matrix() {
    let slice = json!({"spec": {
        "driver": DRIVER, "nodeName": "node", "devices": [{"name": "one"}],
        "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1},
    }});
    Matrix::new(GROUP_VERSION, "ResourceSlice", "resourceslices", slice)
        .change(json!({"spec": {"devices": [{"name": "one"}, {"name": "two"}]}}))
        .walk()
        .await;
}
