//! Claims and volumes that are in use stay.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::json;
use windlass_tests::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_goes_once_no_pod_uses_it_and_a_volume_once_it_is_not_bound() {
    let cluster = Cluster::control_plane().await.unwrap();
    let base = "/api/v1/namespaces/kube-public";
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client(), "kube-public");
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}});
    for name in ["used", "free"] {
        let claim = json!({"metadata": {"name": name}, "spec": spec});
        let path = format!("{base}/persistentvolumeclaims");
        let made = cluster.create(&path, &claim).await.unwrap();
        let expected = json!(["kubernetes.io/pvc-protection"]);
        assert_eq!(made["metadata"]["finalizers"], expected);
    }
    let account = json!({"metadata": {"name": "own"}});
    let accounts = format!("{base}/serviceaccounts");
    cluster.create(&accounts, &account).await.unwrap();
    let node = json!({"metadata": {"name": "n"}});
    cluster.create("/api/v1/nodes", &node).await.unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "n", "serviceAccountName": "own",
        "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "used"}}]}});
    cluster.create(&format!("{base}/pods"), &pod).await.unwrap();
    let now = DeleteParams::default();
    for name in ["used", "free"] {
        claims.delete(name, &now).await.unwrap();
    }
    eventually(claims.clone(), "free", "its end", |claim| claim.is_none()).await;
    let used = claims.get("used").await.unwrap();
    assert!(used.metadata.deletion_timestamp.is_some());
    let pods: Api<k8s_openapi::api::core::v1::Pod> =
        Api::namespaced(cluster.client(), "kube-public");
    pods.delete("p", &now.clone().grace_period(0))
        .await
        .unwrap();
    eventually(claims, "used", "its end", |claim| claim.is_none()).await;

    let volumes: Api<PersistentVolume> = Api::all(cluster.client());
    let volume = json!({"metadata": {"name": "v"}, "spec": {
        "capacity": {"storage": "1"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/tmp/v"}}});
    cluster
        .create("/api/v1/persistentvolumes", &volume)
        .await
        .unwrap();
    let phase = async |phase: &str| {
        let patch = Patch::Merge(json!({"status": {"phase": phase}}));
        let params = PatchParams::default();
        volumes.patch_status("v", &params, &patch).await.unwrap();
    };
    phase("Bound").await;
    volumes.delete("v", &now).await.unwrap();
    let bound = volumes.get("v").await.unwrap();
    assert!(bound.metadata.deletion_timestamp.is_some());
    phase("Released").await;
    eventually(volumes, "v", "its end", |volume| volume.is_none()).await;
    cluster.shutdown().await;
}
