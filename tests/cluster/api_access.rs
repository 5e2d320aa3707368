//! A wasm pod that uses the API as its ServiceAccount, by the token that is mounted for it.

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::Api;
use serde_json::{Value, json};
use windlass_tests::{Cluster, PATIENCE, eventually};

use crate::built::guest;
use crate::{apply, get, node_port, push, url};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

#[tokio::test(flavor = "multi_thread")]
async fn a_component_reads_what_the_role_of_its_account_allows() {
    let Some(web) = guest("web") else {
        return;
    };
    let cluster = Cluster::with_node().await.unwrap();
    let create = async |path: &str, object: Value| cluster.create(path, &object).await.unwrap();
    let account = json!({"metadata": {"name": "reader"}, "automountServiceAccountToken": true});
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
        "spec": {"serviceAccountName": "reader", "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "web", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    apply::<Pod>(&cluster, &pod).await;
    apply::<Service>(&cluster, &node_port()).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    eventually(pods, "client", "readiness", |pod| {
        let status = pod.and_then(|pod| pod.status.as_ref());
        let mut conditions = status
            .into_iter()
            .flat_map(|of| of.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
    })
    .await;
    let url = url(&cluster).await;
    let ask = async |path: &str| {
        let url = format!("{url}api?{path}");
        // The node port leads somewhere a moment after the pod is ready.
        let answer = async {
            loop {
                if let Ok((_, text)) = get(&url).await {
                    return text;
                }
            }
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap()
    };
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
    cluster.shutdown().await;
}
