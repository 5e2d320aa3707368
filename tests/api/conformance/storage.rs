//! sig-storage: classes, drivers, attachments, and volumes' sources, as objects.

use http::StatusCode;
use serde_json::json;
use windlass_tests::Cluster;

use super::collection::{Collection, expect, merged, named};
use super::matrix::{Matrix, assert_contains};

const STORAGE: &str = "storage.k8s.io/v1";
const DRIVER: &str = "driver.example.com";

/// Conformance: [sig-storage] StorageClasses CSI Conformance should run through the lifecycle of a StorageClass [Conformance]
#[tokio::test]
async fn storage_classes_live_and_die() {
    let class = json!({
        "provisioner": DRIVER, "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate",
    });
    Matrix::new(STORAGE, "StorageClass", "storageclasses", class)
        .change(json!({"allowVolumeExpansion": true}))
        .walk()
        .await;
}

/// Conformance: [sig-storage] VolumeAttributesClass [FeatureGate:VolumeAttributesClass] should run through the lifecycle of a VolumeAttributesClass [Conformance]
#[tokio::test]
async fn volume_attributes_classes_live_and_die() {
    let (kind, plural) = ("VolumeAttributesClass", "volumeattributesclasses");
    let class = json!({"driverName": DRIVER, "parameters": {"iops": "100"}});
    Matrix::new(STORAGE, kind, plural, class).walk().await;
}

/// Conformance: [sig-storage] VolumeAttachment Conformance should run through the lifecycle of a VolumeAttachment [Conformance]
/// Conformance: [sig-storage] VolumeAttachment Conformance should apply changes to a volumeattachment status [Conformance]
#[tokio::test]
async fn volume_attachments_live_change_their_status_and_die() {
    let attachment = json!({"spec": {
        "attacher": DRIVER, "nodeName": "node", "source": {"persistentVolumeName": "volume"},
    }});
    Matrix::new(STORAGE, "VolumeAttachment", "volumeattachments", attachment)
        .status(json!({"attached": true}))
        .walk()
        .await;
}

/// Conformance: [sig-storage] CSIInlineVolumes should run through the lifecycle of a CSIDriver [Conformance]
#[tokio::test]
async fn csi_drivers_live_and_die() {
    let driver = json!({"spec": {"attachRequired": false, "volumeLifecycleModes": ["Ephemeral"]}});
    Matrix::new(STORAGE, "CSIDriver", "csidrivers", driver)
        .walk()
        .await;
}

/// Conformance: [sig-storage] CSINodes CSI Conformance should run through the lifecycle of a csinode [Conformance]
#[tokio::test]
async fn csi_nodes_live_and_die() {
    let driver = json!({"name": DRIVER, "nodeID": "id", "topologyKeys": ["example.com/zone"]});
    let node = json!({"spec": {"drivers": [driver]}});
    Matrix::new(STORAGE, "CSINode", "csinodes", node)
        .walk()
        .await;
}

/// Conformance: [sig-storage] CSIStorageCapacity should support CSIStorageCapacities API operations [Conformance]
#[tokio::test]
async fn csi_storage_capacities_can_be_operated_on() {
    let (kind, plural) = ("CSIStorageCapacity", "csistoragecapacities");
    let capacity = json!({"storageClassName": "class", "capacity": "1Gi", "nodeTopology": {}});
    Matrix::new(STORAGE, kind, plural, capacity)
        .namespaced()
        .change(json!({"capacity": "2Gi"}))
        .walk()
        .await;
}

/// Conformance: [sig-storage] CSIInlineVolumes should support CSIVolumeSource in Pod API [Conformance]
#[tokio::test]
async fn pods_with_inline_volumes_can_be_operated_on() {
    let pod = json!({"spec": {
        "nodeSelector": {"conformance": "no-such-node"},
        // Nothing besides the volume itself, so that the lists are compared.
        "automountServiceAccountToken": false,
        "containers": [{
            "name": "c", "image": "i:1",
            "volumeMounts": [{"name": "v", "mountPath": "/mnt", "readOnly": true}],
        }],
        "volumes": [{"name": "v", "csi": {"driver": DRIVER, "readOnly": true}}],
    }});
    Matrix::new("v1", "Pod", "pods", pod)
        .namespaced()
        .walk()
        .await;
}

/// Conformance: [sig-storage] ConfigMap should be immutable if `immutable` field is set [Conformance]
/// Conformance: [sig-storage] Secrets should be immutable if `immutable` field is set [Conformance]
#[tokio::test]
async fn what_is_immutable_stays_as_it_is() {
    let cluster = Cluster::control_plane().await.unwrap();
    for plural in ["configmaps", "secrets"] {
        let collection = Collection::new(&cluster, "v1", plural, Some("default"));
        let data = |value: &str| json!({"data": {"key": value}});
        collection.create(&named("i", &data("dmFsdWU="))).await;
        collection.update("i", &data("dmFsdWUx")).await;
        let fixed = collection.update("i", &json!({"immutable": true})).await;
        for (change, field) in [
            (json!({"immutable": false}), "immutable"),
            (data("dmFsdWUy"), "data"),
        ] {
            let answer = collection.put("i", &merged(&fixed, &change)).await;
            let refused = expect(answer, StatusCode::UNPROCESSABLE_ENTITY);
            let complaint =
                format!("{field}: Forbidden: field is immutable when `immutable` is set");
            let message = refused["message"].as_str().unwrap();
            assert!(message.contains(&complaint), "{message}");
        }
        let labels = json!({"metadata": {"labels": {"still": "mine"}}});
        assert_contains(&collection.update("i", &labels).await, &labels);
        collection.delete("i").await;
    }
}
