//! Who pushes to the cluster's registry, and who pulls from it.

use http::{Method, StatusCode};
use serde_json::json;
use windlass_tests::Cluster;

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
    cluster.shutdown().await;
}
