//! What every runtime promises, kept by that of containerd.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use serde_json::json;
use windlass_node::logs::{LogLimits, Logs};
use windlass_node::network::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
use windlass_node::runtime::containerd::{ContainerdConfig, ContainerdRuntime};
use windlass_node::runtime::suite::{self, Subject};
use windlass_node::runtime::{
    ContainerSpec, ImageKind, LinuxImage, Objects, PodIdentity, ResolvedImage, ResourceLimits,
    RunningContainer, Runtime,
};
use windlass_oci::content_store::{ContentStore, Lease};
use windlass_oci::digest::Digest;
use windlass_oci::manifest::Descriptor;
use windlass_oci::media_type;

use crate::machine::{self, CleanUp};
use crate::{TURN, image};

/// One pod whose containers the suite asks for.
struct Containers {
    runtime: ContainerdRuntime,
    logs: Logs,
    network: PodNetwork,
    pod: PodIdentity,
    image: ResolvedImage,
    number: AtomicU32,
}

impl Containers {
    async fn start(&self, script: &str) -> Arc<dyn RunningContainer> {
        let name = format!("c{}", self.number.fetch_add(1, Ordering::Relaxed));
        let spec = json!({ "hostNetwork": true, "containers": [{ "name": name }] });
        let pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let container = serde_json::from_value(json!({ "name": name })).unwrap();
        let spec = ContainerSpec {
            pod: self.pod.clone(),
            name: name.clone(),
            attempt: 0,
            on_trap: None,
            image: self.image.clone(),
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: Vec::new(),
            mounts: Vec::new(),
            limits: ResourceLimits::default(),
            ports: Vec::new(),
            termination_message: None,
            annotations: Arc::default(),
            stdin: false,
            tty: false,
            handler: String::new(),
            resume: false,
            objects: Objects {
                pod: Arc::new(pod),
                container: Arc::new(container),
            },
        };
        let logs = self.logs.begin(&self.pod, &name, 0);
        let started = self.runtime.start(spec, self.network.clone(), logs).await;
        started.unwrap().into()
    }
}

#[async_trait]
impl Subject for Containers {
    async fn endless(&self) -> Arc<dyn RunningContainer> {
        self.start("trap 'exit 0' TERM; while true; do sleep 0.05; done")
            .await
    }

    async fn exiting(&self, exit_code: i32) -> Arc<dyn RunningContainer> {
        self.start(&format!("exit {exit_code}")).await
    }
}

async fn image(directory: &Path) -> ResolvedImage {
    let store = ContentStore::open(directory).await.unwrap();
    let built = image::build(&json!({}));
    for blob in [&built.layer, &built.config, &built.manifest] {
        store.put(blob).await.unwrap();
    }
    let digest = Digest::sha256(&built.manifest);
    let size = built.manifest.len() as u64;
    ResolvedImage {
        reference: "registry.windlass.local/default/suite:1".to_owned(),
        blob_digest: digest.clone(),
        blob: store.path(&digest),
        lease: Lease::default(),
        kind: ImageKind::Linux,
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        working_dir: None,
        components: Vec::new(),
        linux: Some(LinuxImage {
            descriptor: Descriptor::new(media_type::IMAGE_MANIFEST, digest.clone(), size),
            manifest: serde_json::from_slice(&built.manifest).unwrap(),
            store,
            user: String::new(),
        }),
        digest,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_keeps_what_every_runtime_promises() {
    if let Some(reason) = machine::missing() {
        println!("SKIPPED: {reason}");
        return;
    }
    let _turn = TURN.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let clean_up = CleanUp::new(directory.path().to_owned());
    let config = ContainerdConfig {
        data_dir: directory.path().to_owned(),
        socket: None,
        cluster_domain: "cluster.local".to_owned(),
    };
    let network = Network::new(NetworkConfig::default());
    network.set_pod_cidr("10.64.0.0/24".parse().unwrap());
    let containers = Containers {
        runtime: ContainerdRuntime::new(config).await.unwrap(),
        logs: Logs::new(directory.path().join("logs"), LogLimits::default()),
        network: network.set_up(&PodNetworkRequest::default()).unwrap(),
        pod: PodIdentity {
            namespace: "default".to_owned(),
            name: "suite".to_owned(),
            uid: "suite-uid".to_owned(),
        },
        image: image(&directory.path().join("images")).await,
        number: AtomicU32::new(0),
    };
    suite::run(&containers).await;
    containers.runtime.tear_down(&containers.pod).await;
    containers.runtime.shut_down().await;
    let left = machine::processes_of(directory.path());
    drop(clean_up);
    assert!(left.is_empty(), "processes are left: {left:?}");
}
