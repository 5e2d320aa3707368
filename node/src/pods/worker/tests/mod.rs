//! A pod worker with a fake runtime against a fake API server, on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use windlass_oci::content_store::ContentStore;
use windlass_oci::push::push_wasm;
use windlass_oci::registry::client::{RegistryClient, RouterTransport};
use windlass_oci::registry::remote::registries::Registries;
use windlass_oci::registry::server::{Access, Authorize, Denied, Limits, router};

use super::fake_api::FakeApi;
use super::{Desired, PodWorker};
use crate::clock::Clock;
use crate::events::EventRecorder;
use crate::images::Images;
use crate::logs::{LogLimits, LogQuery, Logs};
use crate::network::{Network, NetworkConfig};
use crate::objects::ObjectWatches;
use crate::pods::room::{Refusal, Room};
use crate::pods::{NodeContext, RunningContainers};
use crate::pressure::Pressure;
use crate::registration::Machine;
use crate::runtime::fake::FakeRuntime;
use crate::runtime::{ExitStatus, PodIdentity, Runtimes, StartError};
use crate::status::phase::HostFacts;
use crate::volumes::HostPaths;

mod lifecycle;

const IMAGE: &str = "registry.windlass.local/default/app:v1";

struct Anybody;

#[async_trait::async_trait]
impl Authorize for Anybody {
    async fn authorize(&self, _: &http::Extensions, _: &str, _: Access) -> Result<(), Denied> {
        Ok(())
    }
}

struct World {
    directory: tempfile::TempDir,
    api: FakeApi,
    runtime: FakeRuntime,
    context: Arc<NodeContext>,
    desired: watch::Sender<Desired>,
    worker: JoinHandle<()>,
}

fn pod(spec: &Value) -> Pod {
    let metadata = json!({ "name": "p", "namespace": "default", "uid": "uid-1", "generation": 1 });
    serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
}

fn one(policy: &str) -> Value {
    json!({ "restartPolicy": policy, "containers": [{ "name": "a", "image": IMAGE }] })
}

impl World {
    /// A worker for this pod, whose image is in the registry.
    async fn new(spec: &Value) -> Self {
        Self::with(pod(spec), FakeRuntime::new(), FakeApi::new()).await
    }

    /// A worker for a pod that the node has no room for.
    async fn refused(spec: &Value, refusal: Refusal) -> Self {
        let (runtime, api) = (FakeRuntime::new(), FakeApi::new());
        Self::begin(pod(spec), runtime, api, Some(refusal)).await
    }

    async fn with(pod: Pod, runtime: FakeRuntime, api: FakeApi) -> Self {
        Self::begin(pod, runtime, api, None).await
    }

    async fn begin(pod: Pod, runtime: FakeRuntime, api: FakeApi, refused: Option<Refusal>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let served = ContentStore::open(directory.path().join("served"))
            .await
            .unwrap();
        let routes = router(served, Arc::new(Anybody), Limits::default());
        let transport = Arc::new(RouterTransport::new(routes));
        let registry = RegistryClient::new(transport.clone(), "cluster");
        let wasm = Bytes::from_static(b"\0asm\x0d\0\x01\0");
        push_wasm(&registry, &IMAGE.parse().unwrap(), wasm)
            .await
            .unwrap();
        let store = ContentStore::open(directory.path().join("images"))
            .await
            .unwrap();
        let network = Network::new(NetworkConfig::default());
        network.set_pod_cidr("10.64.0.0/24".parse().unwrap());
        let client = api.client();
        let context = Arc::new(NodeContext {
            node_name: "node".to_owned(),
            host: HostFacts {
                host_ip: "127.0.0.1".to_owned(),
            },
            machine: Machine::inspect(),
            images: Arc::new(Images::with_transport(transport, Registries::none(), store)),
            logs: Logs::new(directory.path().join("logs"), LogLimits::default()),
            events: EventRecorder::start(&client, "node"),
            runtimes: Runtimes::new(vec![Arc::new(runtime.clone())]),
            containers: RunningContainers::default(),
            room: Room::of(&Machine::inspect()),
            pressure: watch::channel(Pressure::default()).1,
            network,
            objects: Arc::new(ObjectWatches::new(&client)),
            host_paths: HostPaths::default(),
            data_dir: directory.path().to_owned(),
            clock: Clock::tokio(),
            client: client.clone(),
        });
        tokio::spawn({
            let context = context.clone();
            async move { context.network.watch_services(client).await }
        });
        let wanted = Desired {
            pod: Arc::new(pod),
            mirror: None,
            gone: false,
            shutdown: false,
            evicted: None,
        };
        let (desired, receiver) = watch::channel(wanted);
        let worker = tokio::spawn(PodWorker::new(context.clone(), receiver, refused, &[]).run());
        Self {
            directory,
            api,
            runtime,
            context,
            desired,
            worker,
        }
    }

    async fn until(&self, what: &str, holds: impl Fn(&PodStatus) -> bool) -> PodStatus {
        let state = self
            .api
            .until(what, |state| state.status.as_ref().is_some_and(&holds))
            .await;
        state.status.unwrap()
    }

    async fn until_running(&self) -> PodStatus {
        self.until("running", |status| {
            is(status, "Ready") && phase(status) == "Running"
        })
        .await
    }

    fn delete(&self, grace: i64) {
        self.desired.send_modify(|desired| {
            let mut pod = (*desired.pod).clone();
            let now = jiff::Timestamp::now();
            pod.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now));
            pod.metadata.deletion_grace_period_seconds = Some(grace);
            desired.pod = Arc::new(pod);
        });
    }

    fn vanish(&self) {
        self.desired.send_modify(|desired| desired.gone = true);
    }

    fn saw_event(&self, reason: &str, part: &str) -> bool {
        self.api
            .events()
            .iter()
            .any(|(found, text)| found == reason && text.contains(part))
    }
}

fn phase(status: &PodStatus) -> &str {
    status.phase.as_deref().unwrap_or_default()
}

fn is(status: &PodStatus, condition: &str) -> bool {
    let mut all = status.conditions.iter().flatten();
    all.any(|found| found.type_ == condition && found.status == "True")
}

fn container(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

fn waiting(status: &PodStatus) -> &str {
    let statuses = status.container_statuses.iter().flatten();
    let mut states = statuses.filter_map(|found| found.state.as_ref()?.waiting.as_ref());
    states
        .next()
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_with_an_address_and_is_ready() {
    let world = World::new(&one("Always")).await;
    let status = world.until_running().await;
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.1"));
    assert!(status.pod_ip.as_deref().unwrap().starts_with("10.64.0."));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    let found = container(&status);
    assert!(
        found.ready
            && found
                .container_id
                .as_deref()
                .unwrap()
                .starts_with("fake://")
    );
    assert!(found.image_id.contains("@sha256:"));
    for condition in [
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
    ] {
        assert!(is(&status, condition), "{condition}");
    }
    assert_eq!(world.runtime.starts()[0].args, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off_and_counts() {
    let world = World::new(&one("Always")).await;
    world.until_running().await;
    world.runtime.exit_at_once("a", 3);
    world.runtime.exit("a", ExitStatus::exited(3));
    let crashed = world
        .until("back-off", |status| waiting(status) == "CrashLoopBackOff")
        .await;
    assert_eq!(phase(&crashed), "Running");
    assert!(!is(&crashed, "Ready"));
    let last = container(&crashed)
        .last_state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    world
        .until("third restart", |status| {
            container(status).restart_count >= 3
        })
        .await;
    assert!(world.saw_event(
        "BackOff",
        "Back-off restarting failed container a in pod p_default(uid-1)"
    ));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_restarts_ends_with_its_container() {
    for (exit_code, want) in [(0, "Succeeded"), (1, "Failed")] {
        let world = World::new(&one("Never")).await;
        world.until_running().await;
        world.runtime.exit("a", ExitStatus::exited(exit_code));
        let ended = world.until(want, |status| phase(status) == want).await;
        assert!(!is(&ended, "Ready"));
        assert_eq!(world.runtime.starts().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn init_containers_end_before_the_others_start() {
    let spec = json!({
        "initContainers": [{ "name": "i", "image": IMAGE }],
        "containers": [{ "name": "a", "image": IMAGE }],
    });
    let runtime = FakeRuntime::new();
    runtime.exit_at_once("i", 0);
    let world = World::with(pod(&spec), runtime, FakeApi::new()).await;
    let status = world.until_running().await;
    let names: Vec<_> = world
        .runtime
        .starts()
        .into_iter()
        .map(|start| start.name)
        .collect();
    assert_eq!(names, ["i", "a"]);
    let init = &status.init_container_statuses.unwrap()[0];
    assert_eq!(
        init.state
            .as_ref()
            .unwrap()
            .terminated
            .as_ref()
            .unwrap()
            .exit_code,
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_is_stopped_reported_and_removed() {
    let world = World::new(&one("Always")).await;
    world.until_running().await;
    world.delete(30);
    let state = world.api.until("deleted", |state| state.deleted).await;
    let status = state.status.unwrap();
    assert_eq!(phase(&status), "Succeeded");
    assert!(
        container(&status)
            .state
            .as_ref()
            .unwrap()
            .terminated
            .is_some()
    );
    world.vanish();
    let World {
        worker,
        directory,
        api,
        ..
    } = world;
    worker.await.unwrap();
    assert!(!directory.path().join("pods/uid-1").exists());
    assert!(!directory.path().join("logs/default_p_uid-1").exists());
    assert!(api.events().iter().any(|(reason, _)| reason == "Killing"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_vanished_is_given_back_at_once() {
    let world = World::new(&one("Always")).await;
    world.until_running().await;
    world.vanish();
    world.worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn statuses_are_sent_until_the_server_takes_them() {
    let api = FakeApi::new();
    api.refuse_statuses(5);
    let world = World::with(pod(&one("Always")), FakeRuntime::new(), api).await;
    world.until_running().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_an_image_is_said_in_kubernetes_words() {
    let cases = [
        ("./app.wasm", "InvalidImageName", "windlass push"),
        (
            "registry.windlass.local/default/none:v1",
            "ErrImagePull",
            "not found",
        ),
        (
            "127.0.0.1:1/app:v1",
            "ErrImagePull",
            "manifest 127.0.0.1:1/app:v1: ",
        ),
    ];
    for (image, reason, part) in cases {
        let spec = json!({ "containers": [{ "name": "a", "image": image }] });
        let world = World::new(&spec).await;
        let status = world
            .until(reason, |status| waiting(status) == reason)
            .await;
        assert_eq!(phase(&status), "Pending");
        let state = container(&status).state.as_ref().unwrap();
        let message = state.waiting.as_ref().unwrap().message.clone().unwrap();
        assert!(message.contains(part), "{message}");
        if reason == "ErrImagePull" {
            world
                .until("back-off", |status| waiting(status) == "ImagePullBackOff")
                .await;
            assert!(world.saw_event("Failed", "Error: ErrImagePull"));
            assert!(world.saw_event("BackOff", "Back-off pulling image"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_waits_for_its_config_map() {
    let spec = json!({ "containers": [{
        "name": "a", "image": IMAGE,
        "env": [{ "name": "A", "valueFrom": { "configMapKeyRef": { "name": "cm", "key": "k" } } }],
    }] });
    let world = World::new(&spec).await;
    let status = world
        .until("config error", |status| {
            waiting(status) == "CreateContainerConfigError"
        })
        .await;
    let state = container(&status).state.as_ref().unwrap();
    let message = state.waiting.as_ref().unwrap().message.clone().unwrap();
    assert_eq!(message, "configmap \"cm\" not found");
    let object = json!({ "metadata": { "name": "cm" }, "data": { "k": "v" } });
    world
        .api
        .put("/api/v1/namespaces/default/configmaps/cm", object);
    world.until_running().await;
    let starts = world.runtime.starts();
    assert!(starts[0].env.contains(&("A".to_owned(), "v".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn an_import_that_is_not_offered_is_named() {
    let runtime = FakeRuntime::new();
    runtime.fail_start("a", StartError::create("import `x:y/z` is not offered"));
    let world = World::with(pod(&one("Always")), runtime, FakeApi::new()).await;
    world
        .until("error", |status| waiting(status) == "CreateContainerError")
        .await;
    assert!(world.saw_event("Failed", "Error: import `x:y/z` is not offered"));
    world.runtime.allow_start("a");
    world.until_running().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_kills_and_restarts() {
    let spec = json!({ "containers": [{
        "name": "a", "image": IMAGE,
        "livenessProbe": { "tcpSocket": { "port": 9 }, "periodSeconds": 1, "failureThreshold": 2 },
        "readinessProbe": { "tcpSocket": { "port": 9 } },
    }] });
    let world = World::new(&spec).await;
    let status = world
        .until("restart", |status| container(status).restart_count >= 1)
        .await;
    assert!(!is(&status, "Ready"));
    assert!(world.saw_event("Unhealthy", "Liveness probe failed: dial tcp"));
    assert!(world.saw_event(
        "Killing",
        "Container a failed liveness probe, will be restarted"
    ));
}

#[tokio::test(start_paused = true)]
async fn a_volume_type_that_is_not_offered_is_named_in_an_event() {
    let mut spec = one("Always");
    spec["volumes"] = json!([{ "name": "v", "nfs": { "path": "/", "server": "s" } }]);
    let world = World::new(&spec).await;
    world
        .until("pending", |status| phase(status) == "Pending")
        .await;
    for _ in 0..100 {
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert!(world.saw_event("FailedMount", "volumes of type nfs are not supported yet"));
    assert!(world.runtime.starts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_fails_the_pod() {
    let mut spec = one("Always");
    spec["activeDeadlineSeconds"] = json!(60);
    let world = World::new(&spec).await;
    world.until_running().await;
    let status = world
        .until("failed", |status| phase(status) == "Failed")
        .await;
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
}

#[tokio::test(start_paused = true)]
async fn logs_are_kept_and_the_agent_stops_its_pods() {
    let world = World::new(&one("Always")).await;
    world.until_running().await;
    let identity = PodIdentity {
        namespace: "default".into(),
        name: "p".into(),
        uid: "uid-1".into(),
    };
    let stream = world
        .context
        .logs
        .read(&identity, "a", LogQuery::default())
        .await
        .unwrap();
    let pieces: Vec<Bytes> = stream.map(Result::unwrap).collect().await;
    assert_eq!(pieces.concat(), b"a started\n");
    world.desired.send_modify(|desired| desired.shutdown = true);
    let status = world
        .until("stopped", |status| {
            container(status)
                .state
                .as_ref()
                .unwrap()
                .terminated
                .is_some()
        })
        .await;
    assert_eq!(phase(&status), "Running");
    let state = container(&status)
        .state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!(state.exit_code, 143);
    world.worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_termination_message_is_the_files_or_the_end_of_the_log() {
    let mut spec = one("Never");
    spec["containers"][0]["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    let message = |status: &PodStatus| {
        let state = container(status).state.clone().unwrap();
        state.terminated.unwrap().message.unwrap()
    };
    let world = World::new(&spec).await;
    world.until_running().await;
    world.runtime.exit("a", ExitStatus::exited(1));
    let ended = world
        .until("failed", |status| phase(status) == "Failed")
        .await;
    assert_eq!(message(&ended), "a started\n");

    let world = World::new(&spec).await;
    world.until_running().await;
    let started = world.runtime.starts();
    let file = &started[0].termination_message.as_ref().unwrap().host;
    std::fs::write(file, "x".repeat(9999)).unwrap();
    world.runtime.exit("a", ExitStatus::exited(1));
    let ended = world
        .until("failed", |status| phase(status) == "Failed")
        .await;
    assert_eq!(message(&ended), "x".repeat(4096));
}
