//! An image made of a static busybox, pushed to the cluster's registry.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};
use windlass_node::images::ApiTransport;
use windlass_oci::digest::Digest;
use windlass_oci::media_type;
use windlass_oci::pull::oci_architecture;
use windlass_oci::reference::CLUSTER_REGISTRY;
use windlass_oci::registry::client::RegistryClient;
use windlass_tests::Cluster;

use crate::machine;

/// An image in memory.
pub(crate) struct Built {
    pub(crate) layer: Bytes,
    pub(crate) config: Bytes,
    pub(crate) manifest: Bytes,
}

/// Makes the image, with this much more in its configuration.
pub(crate) fn build(more: &Value) -> Built {
    let layer = layer();
    let mut config = json!({
        "Cmd": ["/bin/sh"], "Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/work",
    });
    let fields = config.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let config = json!({
        "architecture": oci_architecture(), "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&layer)] },
    });
    let config = Bytes::from(config.to_string());
    let describe = |kind: &str, bytes: &Bytes| json!({ "mediaType": kind, "digest": Digest::sha256(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::IMAGE_MANIFEST,
        "config": describe(media_type::IMAGE_CONFIG, &config),
        "layers": [describe(media_type::IMAGE_LAYER, &layer)],
    });
    let manifest = Bytes::from(manifest.to_string());
    Built {
        layer,
        config,
        manifest,
    }
}

/// Pushes the image; answers its reference by digest.
pub(crate) async fn push(cluster: &Cluster, name: &str, more: &Value) -> String {
    let Built {
        layer,
        config,
        manifest,
    } = build(more);
    let transport = ApiTransport::new(cluster.client());
    let registry = RegistryClient::new(Arc::new(transport), CLUSTER_REGISTRY);
    let repository = format!("default/{name}");
    for blob in [&layer, &config] {
        let digest = Digest::sha256(blob);
        let pushed = registry.push_blob(&repository, &digest, blob.clone());
        pushed.await.unwrap();
    }
    let digest = Digest::sha256(&manifest);
    let pushed = registry.push_manifest(&repository, "1", media_type::IMAGE_MANIFEST, manifest);
    pushed.await.unwrap();
    format!("{CLUSTER_REGISTRY}/{repository}@{digest}")
}

fn layer() -> Bytes {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    for name in ["bin", "etc", "tmp", "work"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let busybox = machine::busybox().unwrap();
    fs::copy(&busybox, root.join("bin/busybox")).unwrap();
    let listed = Command::new(&busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(listed.stdout).unwrap().lines() {
        if applet != "busybox" {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\nsomebody:x:1000:1000::/:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nsomebody:x:1000:\n").unwrap();
    let archive = directory.path().join("layer.tar");
    let made = Command::new("tar")
        .args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&archive)
        .arg(".")
        .status();
    assert!(made.unwrap().success());
    fs::read(archive).unwrap().into()
}
