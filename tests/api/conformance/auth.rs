//! sig-auth: certificate requests, ServiceAccounts, reviews.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::Cluster;

use super::collection::{Collection, PatchType, expect, named, send};
use super::matrix::{Matrix, NAMESPACE, assert_contains, with_namespace};

/// A request for a certificate of `CN=conformance`, in base64.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIUU1IZ0NBUUF3RmpFVU1CSUdBMVVFQXd3TFkyOXVabTl5YldGdVkyVXdXVEFUQmdjcWhrak9QUUlCQmdncQpoa2pPUFFNQkJ3TkNBQVRHVUJMeENiZ1lhaGVkTXgySUhmWnVnWjRuZ0xNbjdOZ24yZlhpdVFCK2ZMQzRjeUw4Cm9vRkVyTEl2d1dLQzZONktSaktISXBsNTE1Z2lra3NRSlVMWW9BQXdDZ1lJS29aSXpqMEVBd0lEU0FBd1JRSWgKQUlUZXA3TzhDWm82ZUQ4aGpDRTlIbU42eTB0S1RaK1lWYkRmU3dtU0lzSXlBaUFKSFBDRms1bFZRblhiWEhuMQp1UXRwNFNMV0ZxZVpBZnhJVkdQKzV5OFJjUT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";

/// Conformance: [sig-auth] Certificates API [Privileged:ClusterAdmin] should support CSR API operations [Conformance]
#[tokio::test]
async fn certificate_signing_requests_can_be_operated_on() {
    let request = json!({"spec": {
        "request": REQUEST, "signerName": "conformance.example.com/signer",
        "usages": ["digital signature", "key encipherment", "client auth"],
        "expirationSeconds": 3600,
    }});
    let kind = "CertificateSigningRequest";
    let group_version = "certificates.k8s.io/v1";
    let plural = "certificatesigningrequests";
    let cluster = with_namespace().await;
    let matrix = Matrix::new(group_version, kind, plural, request.clone())
        .status(json!({"conditions": [condition("StatusUpdate")]}));
    matrix.walk_in(&cluster).await;
    let requests = matrix.collection(&cluster);
    requests.create(&named("approved", &request)).await;
    let approval = json!({"status": {"conditions": [condition("Approved")]}});
    assert!(requests.get("approved/approval").await["status"]["conditions"].is_null());
    let approved = requests.update("approved/approval", &approval).await;
    assert_contains(&approved, &approval);
    let note = json!({"metadata": {"annotations": {"note": "approved"}}});
    let patched = requests.patch(PatchType::Merge, "approved/approval", &note);
    assert_contains(&patched.await, &note);
    assert_contains(&requests.get("approved/approval").await, &approval);
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": "Test", "message": "set by a test"})
}

/// Conformance: [sig-auth] ServiceAccounts should run through the lifecycle of a ServiceAccount [Conformance]
#[tokio::test]
async fn service_accounts_live_and_die() {
    Matrix::new("v1", "ServiceAccount", "serviceaccounts", json!({}))
        .namespaced()
        .change(json!({"automountServiceAccountToken": false}))
        .walk()
        .await;
}

/// Conformance: [sig-auth] ServiceAccounts should update a ServiceAccount [Conformance]
#[tokio::test]
async fn a_service_account_is_updated() {
    let cluster = Cluster::control_plane().await.unwrap();
    let accounts = accounts(&cluster, "default");
    let account = json!({"automountServiceAccountToken": false});
    accounts.create(&named("robot", &account)).await;
    let change = json!({"automountServiceAccountToken": true});
    assert_contains(&accounts.update("robot", &change).await, &change);
    assert_contains(&accounts.get("robot").await, &change);
}

fn accounts<'a>(cluster: &'a Cluster, namespace: &'static str) -> Collection<'a> {
    Collection::new(cluster, "v1", "serviceaccounts", Some(namespace))
}

/// Conformance: [sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview [Conformance]
#[tokio::test]
async fn a_token_of_a_service_account_is_reviewed() {
    let cluster = with_namespace().await;
    let accounts = accounts(&cluster, NAMESPACE);
    accounts.create(&named("robot", &json!({}))).await;
    let path = format!("{}/robot/token", accounts.path());
    let issued = accounts
        .send(Method::POST, &path, &json!({"spec": {}}))
        .await;
    let issued = expect(issued, StatusCode::CREATED);
    assert!(!issued["status"]["expirationTimestamp"].is_null());
    let reviews = Collection::new(&cluster, "authentication.k8s.io/v1", "tokenreviews", None);
    let review = json!({"spec": {"token": issued["status"]["token"]}});
    let status = reviews.create(&review).await["status"].take();
    assert_eq!(status["authenticated"], true);
    assert!(status["error"].is_null());
    let name = format!("system:serviceaccount:{NAMESPACE}:robot");
    assert_eq!(status["user"]["username"], name);
    let mut groups: Vec<String> = serde_json::from_value(status["user"]["groups"].clone()).unwrap();
    groups.sort();
    let of_namespace = format!("system:serviceaccounts:{NAMESPACE}");
    let expected = [
        "system:authenticated",
        "system:serviceaccounts",
        &of_namespace,
    ];
    assert_eq!(groups, expected);
    assert!(!status["audiences"].as_array().unwrap().is_empty());
}

/// Conformance: [sig-auth] SubjectReview should support SubjectReview API operations [Conformance]
#[tokio::test]
async fn reviews_say_what_impersonated_requests_are_answered() {
    let cluster = with_namespace().await;
    let account = format!("system:serviceaccount:{NAMESPACE}:robot");
    let cases = [
        (account.as_str(), "system:authenticated", false),
        ("root", "system:masters", true),
    ];
    for (user, group, allowed) in cases {
        let headers = [("impersonate-user", user), ("impersonate-group", group)];
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
        let answer = cluster.request(Method::GET, &path, &headers, "").await;
        let expected = if allowed {
            StatusCode::OK
        } else {
            StatusCode::FORBIDDEN
        };
        expect(answer.unwrap(), expected);
        let attributes = json!({"namespace": NAMESPACE, "verb": "list", "version": "v1", "resource": "configmaps"});
        let review = json!({
            "metadata": {"namespace": NAMESPACE},
            "spec": {"user": user, "groups": [group], "resourceAttributes": attributes},
        });
        let here = format!("namespaces/{NAMESPACE}/localsubjectaccessreviews");
        for (plural, review) in [
            ("subjectaccessreviews", json!({"spec": review["spec"]})),
            (here.as_str(), review.clone()),
        ] {
            let path = format!("/apis/authorization.k8s.io/v1/{plural}");
            let body = review.to_string();
            let answer = send(&cluster, Method::POST, &path, "application/json", body).await;
            let answer = expect(answer, StatusCode::CREATED);
            assert_eq!(answer["status"]["allowed"], allowed, "{answer}");
        }
    }
}
