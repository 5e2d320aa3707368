//! A wasm pod that uses the API as its ServiceAccount, by the token that is mounted for it.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::Api;
use serde_json::{Value, json};
use windlass_tests::{Cluster, eventually};

use crate::built::guest;
use crate::{answered, apply, is_ready, node_port, push, url};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

/// Conformance: [sig-auth] ServiceAccounts should mount an API token into pods [Conformance]
/// Conformance: [sig-auth] ServiceAccounts should mount projected service account token [Conformance]
/// Conformance: [sig-auth] ServiceAccounts ServiceAccountIssuerDiscovery should support OIDC discovery of service account issuer [Conformance]
#[tokio::test(flavor = "multi_thread")]
async fn a_component_reads_what_the_role_of_its_account_allows() {
    let Some(web) = guest("web") else {
        return;
    };
    let cluster = Cluster::with_node().await.unwrap();
    let create = async |path: &str, object: Value| cluster.create(path, &object).await.unwrap();
    let account = json!({"metadata": {"name": "reader"}});
    create("/api/v1/namespaces/default/serviceaccounts", account).await;
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]});
    create(
        &format!("{RBAC}/roles"),
        json!({"metadata": {"name": "maps"}, "rules": [rule]}),
    )
    .await;
    let binding = json!({"metadata": {"name": "maps"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]});
    create(&format!("{RBAC}/rolebindings"), binding).await;
    let map = json!({"metadata": {"name": "notes"}, "data": {"note": "seen by the pod"}});
    create("/api/v1/namespaces/default/configmaps", map).await;

    let image = push(&cluster, "web", &std::fs::read(web).unwrap()).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "client", "labels": {"app": "hello"}},
        "spec": {
            "serviceAccountName": "reader", "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "web", "image": image, "ports": [{"name": "http", "containerPort": 8080}],
                "volumeMounts": [{"name": "vault", "mountPath": "/var/run/secrets/tokens"}],
            }],
            "volumes": [{"name": "vault", "projected": {"sources": [
                {"serviceAccountToken": {"path": "vault-token", "audience": "vault"}}]}}],
        },
    });
    apply::<Pod>(&cluster, &pod).await;
    apply::<Service>(&cluster, &node_port()).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    eventually(pods, "client", "readiness", is_ready).await;
    let url = url(&cluster).await;
    let ask = async |path: &str| answered(&format!("{url}api?{path}")).await.1;
    let read = ask("/api/v1/namespaces/default/configmaps/notes").await;
    assert!(
        read.starts_with("200 ") && read.contains("seen by the pod"),
        "{read}"
    );
    for path in [
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/namespaces/kube-system/configmaps/kube-root-ca.crt",
        "/api/v1/nodes",
    ] {
        let refused = ask(path).await;
        assert!(refused.starts_with("403 "), "{path}: {refused}");
        let who = r#"User \"system:serviceaccount:default:reader\" cannot"#;
        assert!(refused.contains(who), "{path}: {refused}");
    }
    for (path, wanted) in [
        (
            "/.well-known/openid-configuration",
            "https://kubernetes.default.svc",
        ),
        ("/openid/v1/jwks", "\"kty\":\"EC\""),
    ] {
        let document = ask(path).await;
        assert!(
            document.starts_with("200 ") && document.contains(wanted),
            "{document}"
        );
    }

    // What is mounted is the account's, for whom the volume says, and the rest of what clients look for.
    let file = async |path: &str| answered(&format!("{url}file?{path}")).await.1;
    let mounted = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(file(&format!("{mounted}/namespace")).await, "default");
    let ca = file(&format!("{mounted}/ca.crt")).await;
    assert_eq!(ca, *cluster.plane().authority().certificate());
    for (path, audience) in [
        (
            format!("{mounted}/token"),
            "https://kubernetes.default.svc.cluster.local",
        ),
        ("/var/run/secrets/tokens/vault-token".to_owned(), "vault"),
    ] {
        let review = json!({"spec": {"token": file(&path).await, "audiences": [audience]}});
        let reviewed = create("/apis/authentication.k8s.io/v1/tokenreviews", review).await;
        let user = &reviewed["status"]["user"];
        assert_eq!(user["username"], "system:serviceaccount:default:reader");
        let pod = &user["extra"]["authentication.kubernetes.io/pod-name"];
        assert_eq!(*pod, json!(["client"]));
    }
    cluster.shutdown().await;
}
