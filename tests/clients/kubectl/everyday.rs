//! What everybody does with kubectl, in every version.

use super::{Kubectl, with_each};

/// A ConfigMap and a Deployment that starts nothing.
pub(super) const APP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {colour: blue}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'registry.windlass.local/default/web:1'}]}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_manages_objects_without_flags() {
    with_each(
        |_| true,
        async |kubectl| {
            objects(kubectl).await;
            complaints(kubectl).await;
        },
    )
    .await;
}

async fn objects(kubectl: &Kubectl) {
    let applied = kubectl.ok_with("apply -f -", APP).await;
    let created = "configmap/settings created\ndeployment.apps/web created\n";
    assert_eq!(applied, created);
    let again = kubectl.ok_with("apply -f -", APP).await;
    let unchanged = "configmap/settings unchanged\ndeployment.apps/web unchanged\n";
    assert_eq!(again, unchanged);
    let changed = APP.replace("blue", "red");
    let applied = kubectl.ok_with("apply -f -", &changed).await;
    assert!(
        applied.contains("configmap/settings configured"),
        "{applied}"
    );
    let steps = [
        ("get deployments,configmaps -o wide", "READY"),
        ("get cm settings -o jsonpath={.data.colour}", "red"),
        ("label cm settings tier=front", "labeled"),
        ("annotate cm settings note=x", "annotate"),
        ("get cm -l tier=front -o name", "configmap/settings\n"),
        (
            "set image deployment/web web=registry.windlass.local/default/web:2",
            "image updated",
        ),
        ("scale deployment/web --replicas=0", "scaled"),
        (
            "describe deployment web",
            "registry.windlass.local/default/web:2",
        ),
        ("explain deployment.spec.strategy", "rollingUpdate"),
        (
            r#"patch cm settings -p '{"data": {"size": "9"}}'"#,
            "patched",
        ),
        ("get --raw /openapi/v3", "apis/apps/v1"),
        ("api-resources -o name", "deployments.apps"),
        (
            "create configmap other --from-literal=a=b",
            "configmap/other created",
        ),
    ];
    kubectl.each_prints(&steps).await;
    let deleted = kubectl.ok_with("delete -f -", APP).await;
    assert!(
        deleted.contains(r#"deployment.apps "web" deleted"#),
        "{deleted}"
    );
}

async fn complaints(kubectl: &Kubectl) {
    let missing = [(
        "get cm nothing",
        r#"Error from server (NotFound): configmaps "nothing" not found"#,
    )];
    kubectl.each_complains(&missing).await;
    let typo = APP.replace("replicas", "replica");
    let unknown = kubectl.fails("apply -f -", &typo).await;
    assert!(
        unknown.contains(r#"unknown field "spec.replica""#),
        "{unknown}"
    );
}
