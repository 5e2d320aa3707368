//! Who may do what, over TLS as clients connect.

use http::{Method, StatusCode};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use kube::config::AuthInfo;
use serde_json::json;
use windlass_tests::Cluster;

use crate::access::{bearer, over_tls};

#[tokio::test]
async fn the_admin_kubeconfig_works_over_tls() {
    let cluster = Cluster::control_plane().await.unwrap();
    let client = over_tls(&cluster, None).await;
    assert_eq!(client.apiserver_version().await.unwrap().minor, "35");
    let api: Api<ConfigMap> = Api::namespaced(client, "kube-public");
    assert!(api.get("cluster-info").await.is_ok());
}

#[tokio::test]
async fn without_credentials_only_what_is_public_is_served() {
    let cluster = Cluster::control_plane().await.unwrap();
    let nobody = over_tls(&cluster, Some(AuthInfo::default())).await;
    assert!(nobody.apiserver_version().await.is_ok());
    let api: Api<ConfigMap> = Api::namespaced(nobody.clone(), "kube-public");
    assert!(api.get("cluster-info").await.is_ok());
    let api: Api<ConfigMap> = Api::namespaced(nobody, "default");
    let kube::Error::Api(status) = api.list(&Default::default()).await.unwrap_err() else {
        panic!("not a status")
    };
    assert_eq!(status.code, 403);
    assert_eq!(
        status.message,
        r#"configmaps is forbidden: User "system:anonymous" cannot list resource "configmaps" in API group "" in the namespace "default""#
    );
}

#[tokio::test]
async fn a_wrong_token_is_401() {
    let cluster = Cluster::control_plane().await.unwrap();
    for wrong in ["nonsense", "abcdef.0123456789abcdef"] {
        let client = over_tls(&cluster, bearer(wrong)).await;
        let kube::Error::Api(status) = client.apiserver_version().await.unwrap_err() else {
            panic!("not a status")
        };
        assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"));
    }
}

#[tokio::test]
async fn a_service_account_token_dies_with_its_account() {
    let cluster = Cluster::control_plane().await.unwrap();
    let accounts = "/api/v1/namespaces/kube-public/serviceaccounts";
    cluster
        .create(accounts, &json!({"metadata": {"name": "robot"}}))
        .await
        .unwrap();
    let request = json!({"spec": {"audiences": [], "expirationSeconds": 600}});
    let issued = cluster
        .create(&format!("{accounts}/robot/token"), &request)
        .await
        .unwrap();
    let robot = over_tls(
        &cluster,
        bearer(issued["status"]["token"].as_str().unwrap()),
    )
    .await;
    let api: Api<ConfigMap> = Api::namespaced(robot.clone(), "default");
    let refused = api.list(&Default::default()).await.unwrap_err().to_string();
    assert!(
        refused.contains("system:serviceaccount:kube-public:robot"),
        "{refused}"
    );
    let path = format!("{accounts}/robot");
    let deleted = cluster
        .request(Method::DELETE, &path, &[], "")
        .await
        .unwrap();
    assert_eq!(deleted.status, StatusCode::OK);
    let kube::Error::Api(status) = robot.apiserver_version().await.unwrap_err() else {
        panic!("not a status")
    };
    assert_eq!(status.code, 401);
}

#[tokio::test]
async fn a_token_bound_to_an_object_dies_with_it_and_says_what_it_is_bound_to() {
    let cluster = Cluster::control_plane().await.unwrap();
    let accounts = "/api/v1/namespaces/kube-public/serviceaccounts";
    let robot = json!({"metadata": {"name": "robot"}});
    cluster.create(accounts, &robot).await.unwrap();
    let objects = [
        ("Secret", "/api/v1/namespaces/kube-public/secrets"),
        ("Node", "/api/v1/nodes"),
    ];
    for (kind, collection) in objects {
        let object = json!({"metadata": {"name": "anchor"}});
        let object = cluster.create(collection, &object).await.unwrap();
        let path = format!("{accounts}/robot/token");
        let bound = |uid: &serde_json::Value| {
            json!({"spec": {"audiences": [], "boundObjectRef":
                {"apiVersion": "v1", "kind": kind, "name": "anchor", "uid": uid}}})
        };
        let stranger = cluster.create(&path, &bound(&json!("other"))).await;
        let stranger = stranger.unwrap_err().to_string();
        assert!(
            stranger.contains("the UID in the bound object reference (other) does not match"),
            "{stranger}"
        );
        let request = bound(&object["metadata"]["uid"]);
        let issued = cluster.create(&path, &request).await.unwrap();
        let issued = issued["status"]["token"].as_str().unwrap();
        let holder = over_tls(&cluster, bearer(issued)).await;
        let reviews: Api<SelfSubjectReview> = Api::all(holder.clone());
        let review = SelfSubjectReview::default();
        let review = reviews
            .create(&PostParams::default(), &review)
            .await
            .unwrap();
        let user = review.status.unwrap().user_info.unwrap();
        let extra = user.extra.unwrap();
        let credential = &extra["authentication.kubernetes.io/credential-id"];
        assert!(credential[0].starts_with("JTI="), "{credential:?}");
        let node = extra.get("authentication.kubernetes.io/node-name");
        let node = node.map(|names| names[0].as_str());
        assert_eq!(node, (kind == "Node").then_some("anchor"));
        let path = format!("{collection}/anchor");
        let deleted = cluster.request(Method::DELETE, &path, &[], "").await;
        assert_eq!(deleted.unwrap().status, StatusCode::OK);
        let kube::Error::Api(status) = holder.apiserver_version().await.unwrap_err() else {
            panic!("not a status")
        };
        assert_eq!(status.code, 401, "{kind}");
    }
}

#[tokio::test]
async fn a_token_is_bound_only_to_what_is_there_and_fits_the_account() {
    let cluster = Cluster::control_plane().await.unwrap();
    let namespace = "/api/v1/namespaces/kube-public";
    for name in ["robot", "other"] {
        let account = json!({"metadata": {"name": name}});
        let accounts = format!("{namespace}/serviceaccounts");
        cluster.create(&accounts, &account).await.unwrap();
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "other",
        "containers": [{"name": "c", "image": "i"}]}});
    let pods = format!("{namespace}/pods");
    cluster.create(&pods, &pod).await.unwrap();
    let cases = [
        (
            json!({"apiVersion": "v1", "kind": "Pod", "name": "p"}),
            "cannot bind token for serviceaccount \"robot\" to pod running with different serviceaccount name.",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "name": "gone"}),
            "pods \"gone\" not found",
        ),
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}),
            "cannot bind token to object of type apps/v1, Kind=Deployment",
        ),
    ];
    for (reference, expected) in cases {
        let request = json!({"spec": {"audiences": [], "boundObjectRef": reference}});
        let path = format!("{namespace}/serviceaccounts/robot/token");
        let json = [("content-type", "application/json")];
        let refused = cluster.request(Method::POST, &path, &json, request.to_string());
        assert_eq!(refused.await.unwrap().body["message"], expected);
    }
}

#[tokio::test]
async fn identity_does_not_come_from_headers() {
    let cluster = Cluster::control_plane().await.unwrap();
    let client = cluster.client_of("someone", &[]);
    let headers = [
        ("x-remote-user", "admin"),
        ("x-remote-group", "system:masters"),
    ];
    let path = "/api/v1/namespaces/default/secrets";
    let answer = cluster
        .request_as(&client, Method::GET, path, &headers, "")
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}
