//! Containers of Linux on a containerd of the node's own, with images that the tests make.
//!
//! They need root, containerd, runc and a static busybox; where something is missing each says so and passes. They run one
//! after another: the machine has one kernel, whose limits they share. No test leaves a process, a mount or a control
//! group behind, also when it fails.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod image;
mod machine;
mod network;
mod pods;
mod recovery;
mod suite;
mod volumes;

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Api, DeleteParams, LogParams, PostParams};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard};
use windlass_node::runtime::containerd::{ContainerdConfig, ContainerdRuntime};
use windlass_tests::{Cluster, eventually};

use machine::CleanUp;

/// Lets one test at a time have the machine.
static TURN: Mutex<()> = Mutex::const_new(());

const NODE: &str = "node-1";

/// A cluster whose node runs containers of Linux.
struct World {
    cluster: Cluster,
    /// Reference of an image with busybox.
    image: String,
    directory: PathBuf,
    clean_up: CleanUp,
    /// Whether pods have a network, which the machine must be the test's own for.
    joins_kernel: bool,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    /// The cluster, where the machine has what it takes.
    async fn new() -> Option<Self> {
        Self::with(false).await
    }

    /// The same with a network for the pods. The machine has to be the test's own.
    async fn with_network() -> Option<Self> {
        Self::with(true).await
    }

    async fn with(joins_kernel: bool) -> Option<Self> {
        if let Some(reason) = machine::missing() {
            println!("SKIPPED: {reason}");
            return None;
        }
        let turn = TURN.lock().await;
        let cluster = Cluster::control_plane().await.unwrap();
        let directory = cluster.directory().join(NODE);
        let image = image::push(&cluster, "busybox", &json!({})).await;
        let mut world = Self {
            cluster,
            image,
            clean_up: CleanUp::new(directory.clone()),
            directory,
            joins_kernel,
            _turn: turn,
        };
        world.start_node().await;
        Some(world)
    }

    /// Starts the node's agent, for the first time or again.
    async fn start_node(&mut self) {
        let config = ContainerdConfig {
            data_dir: self.directory.clone(),
            socket: None,
            cluster_domain: "cluster.local".to_owned(),
        };
        let plugins = config.network_plugins();
        let runtime = Arc::new(ContainerdRuntime::new(config).await.unwrap());
        let joined = if self.joins_kernel {
            Some(network::join(&self.cluster, &self.directory, plugins).await)
        } else {
            None
        };
        let added = self.cluster.add_node_with(NODE, |builder| {
            let builder = builder.runtime(runtime);
            match joined {
                Some((network, kernel)) => builder.network(network).kernel(kernel),
                None => builder,
            }
        });
        added.await.unwrap();
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client(), "default")
    }

    /// A pod in the host's network with one container that runs a script.
    fn script(&self, name: &str, script: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
            "spec": {
                "hostNetwork": true, "restartPolicy": "Never", "terminationGracePeriodSeconds": 2,
                "containers": [{ "name": "c", "image": self.image, "command": ["/bin/sh", "-c", script] }],
            },
        })
    }

    async fn create(&self, pod: &Value) {
        let pod: Pod = serde_json::from_value(pod.clone()).unwrap();
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
    }

    /// Waits until the pod is as wanted.
    async fn until(&self, name: &str, what: &str, accept: impl Fn(&Pod) -> bool) -> Pod {
        let found = eventually(self.pods(), name, what, |pod| pod.is_some_and(&accept)).await;
        found.unwrap()
    }

    async fn until_running(&self, name: &str) -> Pod {
        self.until(name, "running", is_running).await
    }

    /// Runs a pod to its end; answers how its container ended, and what it printed.
    async fn run(&self, pod: &Value) -> (ContainerStatus, String) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        self.create(pod).await;
        let ended = |pod: &Pod| matches!(phase(pod), "Succeeded" | "Failed");
        let pod = self.until(name, "the end", ended).await;
        let logs = self.pods().logs(name, &LogParams::default()).await.unwrap();
        (container(&pod), logs)
    }

    async fn delete(&self, name: &str) {
        self.pods()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
        eventually(self.pods(), name, "the end", |pod| pod.is_none()).await;
    }

    /// Runs a command in a container: its exit code, and what it printed.
    async fn exec(&self, pod: &str, command: &[&str], input: &str) -> (i32, String) {
        self.try_exec(pod, command, input)
            .await
            .expect("a connection")
    }

    async fn try_exec(&self, pod: &str, command: &[&str], input: &str) -> Option<(i32, String)> {
        use kube::api::AttachParams;
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let client = self.cluster.client_over_tls().await.unwrap();
        let pods: Api<Pod> = Api::namespaced(client, "default");
        let params = AttachParams::default()
            .stdin(!input.is_empty())
            .stderr(false);
        let mut running = pods
            .exec(pod, command.iter().copied(), &params)
            .await
            .ok()?;
        let status = running.take_status().unwrap();
        let mut output = running.stdout().unwrap();
        if let Some(mut stdin) = running.stdin() {
            stdin.write_all(input.as_bytes()).await.unwrap();
            stdin.shutdown().await.unwrap();
        }
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        let status = status.await.unwrap();
        let causes = status
            .details
            .and_then(|details| details.causes)
            .unwrap_or_default();
        let code = causes
            .iter()
            .find(|cause| cause.reason.as_deref() == Some("ExitCode"));
        let code = code.and_then(|cause| cause.message.as_ref()?.parse().ok());
        let failed = if status.status.as_deref() == Some("Success") {
            0
        } else {
            -1
        };
        Some((code.unwrap_or(failed), text))
    }

    /// The same, tried again while the container is not known to the agent yet.
    async fn exec_eventually(&self, pod: &str, command: &[&str]) -> (i32, String) {
        let tries = async {
            loop {
                if let Some(done) = self.try_exec(pod, command, "").await {
                    return done;
                }
                tokio::task::yield_now().await;
            }
        };
        let done = tokio::time::timeout(windlass_tests::PATIENCE, tries).await;
        done.unwrap_or_else(|_| panic!("no command runs in {pod}"))
    }

    /// Stops everything and checks that nothing is left.
    async fn end(self) {
        let Self {
            cluster,
            directory,
            clean_up,
            ..
        } = self;
        // Kept until it was looked at; the temporary directory goes with the cluster.
        cluster.shutdown().await;
        let processes = machine::processes_of(&directory);
        let mounts = machine::mounts_below(&directory);
        drop(clean_up);
        assert!(processes.is_empty(), "processes are left: {processes:?}");
        assert!(mounts.is_empty(), "mounts are left: {mounts:?}");
    }
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running"
}

/// The status of the first container.
fn container(pod: &Pod) -> ContainerStatus {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.clone());
    statuses
        .and_then(|statuses| statuses.into_iter().next())
        .unwrap_or_default()
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    let state = status.state.as_ref()?.terminated.as_ref()?;
    Some(state.exit_code)
}

fn reason(status: &ContainerStatus) -> Option<String> {
    status.state.as_ref()?.terminated.as_ref()?.reason.clone()
}
