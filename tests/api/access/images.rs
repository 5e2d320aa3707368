//! Who pushes to the cluster's registry, who pulls from it and deletes there, and how they say who they are.

use http::{Method, StatusCode};
use kube::config::AuthInfo;
use serde_json::json;
use windlass_control::identity::NODES;
use windlass_tests::{Cluster, push};

use super::over_tls;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

#[tokio::test]
async fn a_role_says_who_pushes_and_pulls_images_of_a_namespace() {
    let cluster = Cluster::control_plane().await.unwrap();
    let ann = cluster.client_of("ann", &[]);
    let status = async |method: Method, path: &str| {
        let answer = cluster.request_as(&ann, method, path, &[], "").await;
        answer.unwrap().status
    };
    let (pull, push) = (
        "/v2/default/app/manifests/1",
        "/v2/default/app/blobs/uploads/",
    );
    assert_eq!(status(Method::GET, pull).await, StatusCode::FORBIDDEN);
    assert_eq!(status(Method::POST, push).await, StatusCode::FORBIDDEN);
    let bind = async |name: &str, verbs: &[&str], names: &[&str]| {
        let rule = json!({"apiGroups": ["registry.windlass.dev"], "resources": ["images"],
            "verbs": verbs, "resourceNames": names});
        let role = json!({"metadata": {"name": name}, "rules": [rule]});
        cluster
            .create(&format!("{RBAC}/roles"), &role)
            .await
            .unwrap();
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}]});
        cluster
            .create(&format!("{RBAC}/rolebindings"), &binding)
            .await
            .unwrap();
    };
    bind("pulls", &["get"], &[]).await;
    // Whoever may pull is told that there is nothing.
    assert_eq!(status(Method::GET, pull).await, StatusCode::NOT_FOUND);
    assert_eq!(status(Method::POST, push).await, StatusCode::FORBIDDEN);
    bind("pushes", &["create"], &["app"]).await;
    assert_eq!(status(Method::POST, push).await, StatusCode::ACCEPTED);
    let others = [
        "/v2/default/other/blobs/uploads/",
        "/v2/kube-system/app/blobs/uploads/",
    ];
    for other in others {
        assert_eq!(
            status(Method::POST, other).await,
            StatusCode::FORBIDDEN,
            "{other}"
        );
    }
    assert_eq!(status(Method::DELETE, pull).await, StatusCode::FORBIDDEN);
    bind("deletes", &["delete"], &[]).await;
    assert_eq!(status(Method::DELETE, pull).await, StatusCode::NOT_FOUND);
    cluster.shutdown().await;
}

/// What `docker login` and its kin do: ask without credentials, then with a token as the password.
#[tokio::test]
async fn a_token_is_the_password_of_basic_authentication() {
    let cluster = Cluster::control_plane().await.unwrap();
    let account = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let issued = cluster.create(account, &json!({"spec": {}})).await.unwrap();
    let token = issued["status"]["token"].as_str().unwrap().to_owned();
    let login = async |user: &str, password: &str| {
        let auth = AuthInfo {
            username: Some(user.to_owned()),
            password: Some(password.to_owned().into()),
            ..AuthInfo::default()
        };
        over_tls(&cluster, Some(auth)).await
    };
    let ask = async |client: &kube::Client, path: &str| {
        let answer = cluster.request_as(client, Method::GET, path, &[], "").await;
        answer.unwrap()
    };
    let stranger = over_tls(&cluster, Some(AuthInfo::default())).await;
    let wrong = login("anybody", "nonsense").await;
    for client in [&stranger, &wrong] {
        let refused = ask(client, "/v2/").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert_eq!(
            refused.headers["www-authenticate"],
            "Basic realm=\"windlass\""
        );
        assert_eq!(refused.body["errors"][0]["code"], "UNAUTHORIZED");
    }
    let robot = login("anybody", &token).await;
    assert_eq!(ask(&robot, "/v2/").await.status, StatusCode::OK);
    let denied = ask(&robot, "/v2/default/app/tags/list").await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    let message = denied.body["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("system:serviceaccount:default:default"),
        "{message}"
    );
    // Elsewhere a password is none.
    assert_ne!(
        ask(&robot, "/api/v1/namespaces").await.status,
        StatusCode::OK
    );
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_node_pulls_what_its_pods_name_and_nothing_else() {
    let cluster = Cluster::control_plane().await.unwrap();
    for node in ["n1", "n2"] {
        let node = json!({"metadata": {"name": node}});
        cluster.create("/api/v1/nodes", &node).await.unwrap();
    }
    let wasm = b"\0asm\x0d\0\x01\0";
    let image = push(&cluster, "app", wasm).await;
    push(&cluster, "other", wasm).await;
    let spec = json!({"nodeName": "n1", "containers": [{"name": "c", "image": image}]});
    let pod = json!({"metadata": {"name": "p"}, "spec": spec});
    let pods = "/api/v1/namespaces/default/pods";
    cluster.create(pods, &pod).await.unwrap();
    let status = async |node: &str, path: &str| {
        let client = cluster.client_of(&format!("system:node:{node}"), &[NODES]);
        let answer = cluster
            .request_as(&client, Method::GET, path, &[], "")
            .await;
        answer.unwrap().status
    };
    let (own, other) = (
        "/v2/default/app/manifests/1",
        "/v2/default/other/manifests/1",
    );
    assert_eq!(status("n1", own).await, StatusCode::OK);
    assert_eq!(status("n1", other).await, StatusCode::FORBIDDEN);
    assert_eq!(status("n2", own).await, StatusCode::FORBIDDEN);
    let path = format!("{pods}/p?gracePeriodSeconds=0");
    let deleted = cluster.request(Method::DELETE, &path, &[], "").await;
    assert_eq!(deleted.unwrap().status, StatusCode::OK);
    assert_eq!(status("n1", own).await, StatusCode::FORBIDDEN);
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_server_without_a_registry_serves_none() {
    let cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.image_registry = false;
    });
    let cluster = cluster.await.unwrap();
    let answer = cluster.request(Method::GET, "/v2/", &[], "").await.unwrap();
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    cluster.shutdown().await;
}
