//! Discovery, OpenAPI, health.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::{Answer, Cluster};

async fn get(cluster: &Cluster, path: &str, headers: &[(&str, &str)]) -> Answer {
    cluster
        .request(Method::GET, path, headers, "")
        .await
        .unwrap()
}

#[tokio::test]
async fn plain_discovery_lists_groups_and_resources() {
    let cluster = Cluster::control_plane().await.unwrap();
    assert_eq!(
        get(&cluster, "/api", &[]).await.body["versions"],
        json!(["v1"])
    );
    let groups = get(&cluster, "/apis", &[]).await.body;
    let names: Vec<_> = groups["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["name"])
        .collect();
    assert_eq!(
        names,
        [
            "apps",
            "events.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "autoscaling",
            "batch",
            "certificates.k8s.io",
            "networking.k8s.io",
            "policy",
            "rbac.authorization.k8s.io",
            "storage.k8s.io",
            "admissionregistration.k8s.io",
            "scheduling.k8s.io",
            "coordination.k8s.io",
            "node.k8s.io",
            "discovery.k8s.io",
            "resource.k8s.io",
            "flowcontrol.apiserver.k8s.io",
            "metrics.k8s.io",
            "node.windlass.dev",
        ]
    );
    let core = get(&cluster, "/api/v1", &[]).await.body;
    let find = |name: &str| -> Value {
        let all = core["resources"].as_array().unwrap();
        all.iter()
            .find(|r| r["name"] == name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(find("pods")["shortNames"], json!(["po"]));
    assert_eq!(find("pods")["storageVersionHash"], "xPOwRZ+Yhw8=");
    assert_eq!(find("namespaces")["namespaced"], false);
    for subresource in [
        "pods/log",
        "pods/status",
        "pods/binding",
        "namespaces/finalize",
    ] {
        assert_eq!(find(subresource)["name"], subresource);
    }
    assert_eq!(
        get(&cluster, "/apis/none", &[]).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn aggregated_discovery_comes_in_the_version_asked_for_and_is_cached() {
    let cluster = Cluster::control_plane().await.unwrap();
    for version in ["v2", "v2beta1"] {
        let accept = format!(
            "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json"
        );
        let answer = get(&cluster, "/apis", &[("accept", &accept)]).await;
        assert_eq!(
            answer.body["apiVersion"],
            format!("apidiscovery.k8s.io/{version}")
        );
        let etag = answer.headers["etag"].to_str().unwrap().to_owned();
        let again = get(
            &cluster,
            "/apis",
            &[("accept", &accept), ("if-none-match", &etag)],
        )
        .await;
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    }
}

#[tokio::test]
async fn openapi_documents_are_cached_by_their_hash() {
    let cluster = Cluster::control_plane().await.unwrap();
    let index = get(&cluster, "/openapi/v3", &[]).await.body;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document = get(&cluster, url, &[]).await;
    assert!(
        document.headers["cache-control"]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    let deployment = &document.body["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"][0]["kind"],
        "Deployment"
    );
    let v2 = get(&cluster, "/openapi/v2", &[]).await;
    assert_eq!(v2.body["swagger"], "2.0");
    let list = &v2.body["paths"]["/apis/apps/v1/deployments"]["get"];
    assert!(
        list["produces"]
            .as_array()
            .unwrap()
            .contains(&json!("application/json;stream=watch"))
    );
}

#[tokio::test]
async fn openapi_documents_come_in_a_form_that_is_accepted_or_not_at_all() {
    let cluster = Cluster::control_plane().await.unwrap();
    let protobuf = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let cases = [
        ("/openapi/v2", "*/*", Some("application/json")),
        ("/openapi/v2", protobuf, Some(protobuf)),
        ("/openapi/v2", old, Some(protobuf)),
        (
            "/openapi/v2",
            "text/html, application/*;q=0.1",
            Some("application/json"),
        ),
        ("/openapi/v2", "text/html", None),
        ("/openapi/v3", "application/json", Some("application/json")),
        ("/openapi/v3/apis/apps/v1", protobuf, None),
    ];
    for (path, accept, expected) in cases {
        let answer = get(&cluster, path, &[("accept", accept)]).await;
        let content_type = answer.headers["content-type"].to_str().unwrap();
        match expected {
            Some(expected) => assert_eq!(content_type, expected, "{path} {accept}"),
            None => assert_eq!(answer.body["reason"], "NotAcceptable", "{path} {accept}"),
        }
    }
}

#[tokio::test]
async fn the_classes_of_system_pods_are_there_from_the_start() {
    let cluster = Cluster::control_plane().await.unwrap();
    let classes = get(&cluster, "/apis/scheduling.k8s.io/v1/priorityclasses", &[]).await;
    let items = classes.body["items"].as_array().unwrap();
    let values: Vec<_> = items
        .iter()
        .map(|class| {
            (
                class["metadata"]["name"].as_str().unwrap(),
                class["value"].as_i64().unwrap(),
            )
        })
        .collect();
    let expected = [
        ("system-cluster-critical", 2_000_000_000),
        ("system-node-critical", 2_000_001_000),
    ];
    assert_eq!(values, expected);
}

#[tokio::test]
async fn paths_outside_resources_answer() {
    let cluster = Cluster::control_plane().await.unwrap();
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(get(&cluster, path, &[]).await.body, json!("ok"), "{path}");
    }
    let verbose = get(&cluster, "/readyz?verbose", &[]).await.body;
    assert!(
        verbose.as_str().unwrap().contains("[+]ping ok"),
        "{verbose}"
    );
    let version = get(&cluster, "/version", &[]).await.body;
    assert_eq!(
        (&version["major"], &version["minor"]),
        (&json!("1"), &json!("35"))
    );
    let unknown = get(&cluster, "/nothing", &[]).await;
    assert_eq!(
        unknown.body["message"],
        "the server could not find the requested resource"
    );
}
