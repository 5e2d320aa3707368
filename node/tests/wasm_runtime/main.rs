//! Real components on a real network of pods.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use windlass_oci::digest::Digest;
use windlass_wasi_shims::net::{NetError, VirtualNetwork};
use windlass_wasi_shims::state::TrapListener;

use windlass_api::grants::REQUESTS_PER_INSTANCE;
use windlass_node::logs::{LogLimits, LogSink, Logs};
use windlass_node::network::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
use windlass_node::runtime::suite::{self, Subject};
use windlass_node::runtime::wasm::{WasmConfig, WasmRuntime};
use windlass_node::runtime::{
    ContainerPort, ContainerSpec, ExitStatus, ImageKind, Objects, PodIdentity, Protocol,
    ResolvedImage, ResourceLimits, RunningContainer, Runtime, StartError,
};

#[path = "../../../tests/guests/built.rs"]
mod built;

/// A node with pods, and the one runtime all tests share (compiling takes a while).
struct Node {
    network: Network,
    runtime: &'static WasmRuntime,
    logs: tempfile::TempDir,
}

type Container = Arc<dyn RunningContainer>;

fn runtime() -> &'static WasmRuntime {
    static RUNTIME: OnceLock<(WasmRuntime, tempfile::TempDir)> = OnceLock::new();
    let (runtime, _) = RUNTIME.get_or_init(|| {
        let cache = tempfile::tempdir().unwrap();
        let config = WasmConfig {
            cache: cache.path().to_owned(),
            ..WasmConfig::default()
        };
        (WasmRuntime::new(config).unwrap(), cache)
    });
    runtime
}

impl Node {
    fn new() -> Self {
        let network = Network::new(NetworkConfig::default());
        network.set_pod_cidr("10.42.0.0/24".parse().unwrap());
        Self {
            network,
            runtime: runtime(),
            logs: tempfile::tempdir().unwrap(),
        }
    }

    fn pod(&self) -> PodNetwork {
        self.network.set_up(&PodNetworkRequest::default()).unwrap()
    }

    fn logs(&self, spec: &ContainerSpec) -> LogSink {
        let logs = Logs::new(self.logs.path().to_owned(), LogLimits::default());
        logs.begin(&spec.pod, &spec.name, spec.attempt)
    }

    fn log_directory(&self, spec: &ContainerSpec) -> PathBuf {
        let pod = format!("{}_{}_{}", spec.pod.namespace, spec.pod.name, spec.pod.uid);
        self.logs.path().join(pod).join(&spec.name)
    }

    /// What a container printed: the text of its log's lines.
    fn printed(&self, spec: &ContainerSpec) -> String {
        let file = self.log_directory(spec).join("0.log");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let message = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
        text.lines().map(message).collect::<Vec<_>>().join("\n")
    }

    async fn start(&self, spec: &ContainerSpec, pod: &PodNetwork) -> Result<Container, StartError> {
        let logs = self.logs(spec);
        self.runtime
            .start(spec.clone(), pod.clone(), logs)
            .await
            .map(Arc::from)
    }

    /// Runs the probe in a pod of its own and answers what it said.
    async fn probe(&self, args: &[&str]) -> Option<String> {
        let spec = probe(args)?;
        self.start(&spec, &self.pod()).await.unwrap().wait().await;
        Some(self.printed(&spec))
    }

    async fn http(&self, to: SocketAddr, path: &str) -> (u16, String) {
        let answer = self.exchange(to, path).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    async fn exchange(&self, to: SocketAddr, path: &str) -> std::io::Result<String> {
        let mut stream = self.network.host().connect(to).await.unwrap();
        // HTTP/1.0: the body comes as it is and ends with the connection.
        let request = format!("GET {path} HTTP/1.0\r\nhost: web\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }
}

fn spec(file: PathBuf, kind: ImageKind) -> ContainerSpec {
    let digest = Digest::sha256(&std::fs::read(&file).unwrap_or_default());
    let uid = uuid::Uuid::new_v4().to_string();
    ContainerSpec {
        pod: PodIdentity {
            namespace: "a".to_owned(),
            name: "pod".to_owned(),
            uid,
        },
        name: "main".to_owned(),
        attempt: 0,
        on_trap: None,
        image: ResolvedImage {
            reference: "test".to_owned(),
            digest: digest.clone(),
            blob_digest: digest,
            blob: file,
            lease: windlass_oci::content_store::Lease::default(),
            kind,
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            components: Vec::new(),
            linux: None,
        },
        args: Vec::new(),
        env: vec![("COLOUR".to_owned(), "green".to_owned())],
        mounts: Vec::new(),
        limits: ResourceLimits::default(),
        ports: Vec::new(),
        termination_message: None,
        annotations: Arc::default(),
        stdin: false,
        tty: false,
        handler: String::new(),
        resume: false,
        objects: Objects::default(),
    }
}

fn probe(args: &[&str]) -> Option<ContainerSpec> {
    let mut spec = spec(built::guest("probe")?, ImageKind::Component);
    spec.args = std::iter::once(&"probe")
        .chain(args)
        .map(|arg| (*arg).to_owned())
        .collect();
    Some(spec)
}

fn web(port: u16) -> Option<ContainerSpec> {
    let mut spec = spec(built::guest("web")?, ImageKind::Component);
    spec.ports = vec![ContainerPort {
        name: None,
        port,
        protocol: Protocol::Tcp,
    }];
    Some(spec)
}

/// A component given as text; its file lives as long as the directory.
fn wat(dir: &tempfile::TempDir, text: &str) -> ContainerSpec {
    let file = dir.path().join("component.wasm");
    std::fs::write(&file, wat::parse_str(text).unwrap()).unwrap();
    spec(file, ImageKind::Component)
}

macro_rules! some {
    ($found:expr) => {
        match $found {
            Some(found) => found,
            None => return,
        }
    };
}

// After the macro, which it uses.
mod escapes;
mod exec;
mod hostile;
mod sockets;

#[tokio::test]
async fn an_http_component_is_served_on_its_pods_address() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let container = node.start(&spec, &pod).await.unwrap();
    let address = SocketAddr::new(pod.ip(), 80);
    assert_eq!(
        container.usage().memory_bytes,
        0,
        "an idle component holds no instance"
    );
    assert_eq!(node.http(address, "/").await, (200, "hello 1".to_owned()));
    assert_eq!(node.http(address, "/").await, (200, "hello 1".to_owned()));
    assert_eq!(node.http(address, "/env/COLOUR").await.1, "green");
    let (_, lines) = node.http(address, "/many/5000").await;
    assert_eq!(lines.lines().count(), 5000);
    assert!(container.usage().cpu_nanos > 0);
    container.stop(Duration::from_secs(30)).await;
    assert_eq!(container.wait().await, ExitStatus::exited(0));
    let refused = node.network.host().connect(address).await.err();
    assert_eq!(refused, Some(NetError::ConnectionRefused));
}

#[tokio::test]
async fn a_component_of_wasi_0_3_is_served_the_same_way() {
    let node = Node::new();
    let file = some!(built::guest("web3"));
    let (spec, pod) = (spec(file, ImageKind::Component), node.pod());
    let container = node.start(&spec, &pod).await.unwrap();
    let address = SocketAddr::new(pod.ip(), 8080);
    for _ in 0..3 {
        assert_eq!(
            node.http(address, "/").await,
            (200, "hello from 0.3".to_owned())
        );
    }
    container.stop(Duration::from_secs(30)).await;
    assert_eq!(container.wait().await, ExitStatus::exited(0));
    assert_eq!(
        container.usage().memory_bytes,
        0,
        "no instance is left behind"
    );
}

#[tokio::test]
async fn an_http_component_without_ports_listens_on_8080() {
    let node = Node::new();
    let (mut spec, pod) = (some!(web(1)), node.pod());
    spec.ports.clear();
    let _container = node.start(&spec, &pod).await.unwrap();
    assert_eq!(node.http(SocketAddr::new(pod.ip(), 8080), "/").await.0, 200);
}

#[tokio::test]
async fn an_instance_serves_as_many_requests_as_its_pod_says() {
    let node = Node::new();
    let (mut spec, pod) = (some!(web(80)), node.pod());
    let annotations = BTreeMap::from([(REQUESTS_PER_INSTANCE.to_owned(), "2".to_owned())]);
    spec.annotations = Arc::new(annotations);
    let _container = node.start(&spec, &pod).await.unwrap();
    let address = SocketAddr::new(pod.ip(), 80);
    // Requests follow each other closely, but an instance is given back a moment after its
    // answer: the count never passes 2 whichever comes first.
    for _ in 0..6 {
        let (_, text) = node.http(address, "/").await;
        assert!(["hello 1", "hello 2"].contains(&text.as_str()), "{text}");
    }
    spec.annotations = Arc::new(BTreeMap::from([(
        REQUESTS_PER_INSTANCE.to_owned(),
        "0".to_owned(),
    )]));
    let error = node.start(&spec, &node.pod()).await.err().unwrap();
    assert!(error.message.contains(REQUESTS_PER_INSTANCE), "{error}");
}

#[tokio::test]
async fn a_request_that_traps_fails_alone() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let _container = node.start(&spec, &pod).await.unwrap();
    let address = SocketAddr::new(pod.ip(), 80);
    assert_eq!(node.http(address, "/trap").await.0, 500);
    assert_eq!(node.http(address, "/silent").await.0, 500);
    assert_eq!(node.http(address, "/").await.0, 200);
    assert!(
        node.printed(&spec).contains("unreachable"),
        "{}",
        node.printed(&spec)
    );
}

#[tokio::test]
async fn a_port_is_taken_once_per_pod() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let _container = node.start(&spec, &pod).await.unwrap();
    let error = node.start(&spec, &pod).await.err().unwrap();
    assert_eq!(
        error.message,
        "port 80 is used by another container of the pod"
    );
}

#[tokio::test]
async fn pods_talk_tcp_and_udp() {
    let node = Node::new();
    let pod = node.pod();
    let (tcp, udp) = (
        some!(probe(&["tcp-echo", "0.0.0.0:7", "1"])),
        some!(probe(&["udp-echo", "0.0.0.0:7", "1"])),
    );
    let tcp = node.start(&tcp, &pod).await.unwrap();
    let udp = node.start(&udp, &pod).await.unwrap();
    let address = format!("{}:7", pod.ip());
    let said = loop {
        let said = some!(node.probe(&["tcp-ask", &address, "ping"]).await);
        if said != "error: ConnectionRefused" {
            break said;
        }
    };
    assert!(said.starts_with("ping for 10.42.0."), "{said}");
    assert_eq!(tcp.wait().await.exit_code, 0);
    let said = loop {
        // A datagram sent before the port is bound is lost, as it may be.
        let spec = some!(probe(&["udp-ask", &address, "ping"]));
        let asking = node.start(&spec, &node.pod()).await.unwrap();
        tokio::select! {
            _ = asking.wait() => break node.printed(&spec),
            () = tokio::time::sleep(Duration::from_secs(1)) => asking.stop(Duration::ZERO).await,
        }
    };
    assert_eq!(said, format!("ping from {address}"));
    assert_eq!(udp.wait().await.exit_code, 0);
}

#[tokio::test]
async fn a_guest_sees_the_networks_errors_as_its_own() {
    let node = Node::new();
    let other = node.pod();
    let nobody = format!("{}:9", other.ip());
    for (args, want) in [
        (&["resolve", "localhost"][..], "127.0.0.1,::1"),
        (
            &["resolve", "nosuch.a.svc.cluster.local."],
            "error: Uncategorized",
        ),
        (&["tcp-ask", &nobody, "x"], "error: ConnectionRefused"),
        (&["tcp-ask", "127.0.0.1:9", "x"], "error: ConnectionRefused"),
        (
            &["tcp-ask", "169.254.169.254:80", "x"],
            "error: PermissionDenied",
        ),
        (
            &["tcp-ask", "10.42.0.250:80", "x"],
            "error: HostUnreachable",
        ),
        (&["tcp-bind", "10.42.0.250:80"], "error: AddrNotAvailable"),
        (&["tcp-bind", "0.0.0.0:80"], "0.0.0.0:80"),
    ] {
        let said = some!(node.probe(args).await);
        assert_eq!(said, want, "{args:?}");
    }
}

#[tokio::test]
async fn requests_between_pods_have_wasi_http_errors() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let _container = node.start(&spec, &pod).await.unwrap();
    let address = SocketAddr::new(pod.ip(), 80);
    let own = format!("/get?http://{}/env/COLOUR", pod.ip());
    assert_eq!(
        node.http(address, &own).await,
        (200, "200 green".to_owned())
    );
    for (url, want) in [
        ("http://127.0.0.1:81/", "ErrorCode::ConnectionRefused"),
        ("http://nosuch.a.svc.cluster.local./", "ErrorCode::DnsError"),
        (
            "http://169.254.169.254/",
            "ErrorCode::DestinationIpProhibited",
        ),
        ("http://10.42.0.250/", "ErrorCode::DestinationUnavailable"),
        ("https://127.0.0.1:80/", "ErrorCode::ConfigurationError"),
    ] {
        let (status, text) = node.http(address, &format!("/get?{url}")).await;
        assert_eq!(status, 502, "{url}");
        assert!(text.starts_with(want), "{url}: {text}");
    }
}

#[tokio::test]
async fn an_endless_loop_does_not_keep_others_from_answering() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let _web = node.start(&spec, &pod).await.unwrap();
    let mut spinners = Vec::new();
    for _ in 0..4 {
        spinners.push(
            node.start(&some!(probe(&["spin"])), &node.pod())
                .await
                .unwrap(),
        );
    }
    for _ in 0..20 {
        let answer = node.http(SocketAddr::new(pod.ip(), 80), "/");
        let answer = tokio::time::timeout(Duration::from_secs(30), answer)
            .await
            .unwrap();
        assert_eq!(answer.0, 200);
    }
    for spinner in spinners {
        spinner.stop(Duration::ZERO).await;
        assert!(spinner.usage().cpu_nanos > 0);
    }
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let container = node.start(&spec, &pod).await.unwrap();
    let mut stream = node
        .network
        .host()
        .connect(SocketAddr::new(pod.ip(), 80))
        .await
        .unwrap();
    stream
        .write_all(b"GET /spin HTTP/1.1\r\nhost: web\r\n\r\n")
        .await
        .unwrap();
    while container.usage().memory_bytes == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    while container.usage().memory_bytes > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stop_lets_the_running_request_finish() {
    let node = Node::new();
    let (spec, pod) = (some!(web(80)), node.pod());
    let container = node.start(&spec, &pod).await.unwrap();
    let address = SocketAddr::new(pod.ip(), 80);
    let mut stream = node.network.host().connect(address).await.unwrap();
    stream
        .write_all(b"POST /echo HTTP/1.0\r\nhost: web\r\ncontent-length: 9\r\n\r\nfirst")
        .await
        .unwrap();
    while container.usage().memory_bytes == 0 {
        tokio::task::yield_now().await;
    }
    let stopping = tokio::spawn({
        let container = container.clone();
        async move { container.stop(Duration::from_secs(60)).await }
    });
    while node.network.host().connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"last").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("firstlast"), "{answer}");
    stopping.await.unwrap();
    assert_eq!(container.wait().await, ExitStatus::exited(0));
}

#[tokio::test]
async fn memory_above_the_limit_is_an_oom_kill() {
    let node = Node::new();
    let mut spec = some!(probe(&["eat", "64"]));
    spec.limits.memory_bytes = Some(16 << 20);
    let status = node.start(&spec, &node.pod()).await.unwrap().wait().await;
    assert!(status.oom_killed, "{status:?}");
    assert_eq!(status.exit_code, 137);
}

#[tokio::test]
async fn a_trap_is_told_in_status_and_log_with_lines_of_the_source() {
    let node = Node::new();
    let mut spec = some!(probe(&["trap"]));
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hears = heard.clone();
    let listener = TrapListener::new(move |text| hears.lock().unwrap().push(text.to_owned()));
    spec.on_trap = Some(listener);
    let status = node.start(&spec, &node.pod()).await.unwrap().wait().await;
    assert_eq!(status.exit_code, 134);
    assert!(status.message.contains("unreachable"), "{status:?}");
    assert!(status.message.contains("src/main.rs:"), "{status:?}");
    assert!(node.printed(&spec).contains("unreachable"));
    assert_eq!(*heard.lock().unwrap(), [status.message]);
}

#[tokio::test]
async fn the_end_of_its_input_lets_a_command_finish() {
    let node = Node::new();
    let mut spec = some!(probe(&["cat"]));
    spec.stdin = true;
    let container = node.start(&spec, &node.pod()).await.unwrap();
    container.stop(Duration::from_secs(60)).await;
    assert_eq!(container.wait().await, ExitStatus::exited(0));
}

#[tokio::test]
async fn what_cannot_run_says_why() {
    let node = Node::new();
    let dir = tempfile::tempdir().unwrap();
    let missing = wat(
        &dir,
        r#"(component (import "wasi:keyvalue/store@0.2.0" (instance (export "open" (func)))))"#,
    );
    let error = node.start(&missing, &node.pod()).await.err().unwrap();
    assert!(
        error.message.contains("wasi:keyvalue/store@0.2.0"),
        "{error}"
    );
    let nothing = wat(&dir, "(component)");
    let error = node.start(&nothing, &node.pod()).await.err().unwrap();
    assert!(error.message.contains("exports nothing"), "{error}");
    let text = dir.path().join("text.wasm");
    std::fs::write(&text, "not wasm at all").unwrap();
    let error = node
        .start(&spec(text, ImageKind::Component), &node.pod())
        .await
        .err()
        .unwrap();
    assert!(
        error.message.contains("not a valid WebAssembly component"),
        "{error}"
    );
}

/// The runtime as the suite of all runtimes wants it.
struct Commands(Node);

#[async_trait]
impl Subject for Commands {
    async fn endless(&self) -> Arc<dyn RunningContainer> {
        self.0
            .start(&probe(&["spin"]).unwrap(), &self.0.pod())
            .await
            .unwrap()
    }

    async fn exiting(&self, exit_code: i32) -> Arc<dyn RunningContainer> {
        let spec = probe(&["exit", &exit_code.to_string()]).unwrap();
        self.0.start(&spec, &self.0.pod()).await.unwrap()
    }
}

#[tokio::test]
async fn commands_keep_every_promise_of_a_runtime() {
    some!(built::guest("probe"));
    suite::run(&Commands(Node::new())).await;
}

#[tokio::test]
async fn the_nodes_own_addresses_are_out_of_reach() {
    let node = Node::new();
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let pod = node.pod();
    for ip in ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"] {
        let to = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), port);
        assert!(pod.connect(None, to).await.is_err(), "{ip}");
    }
}
