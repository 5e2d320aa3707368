//! Isolation: how well limits of processor time are kept, and what one hostile pod costs a hundred others.
//!
//! 1. A loop without end runs under each limit; the time that it was charged with is compared with what it was allowed.
//! 2. A hundred http pods are asked in turn, alone and beside a pod that loops, grows its memory, or floods its log. The
//!    reference is the same pods alone, in the same run.
//!
//! Requests go through the pods' own network in memory: what is measured is the runtime, not the kernel's sockets.
//! `--quick` shows that it works, with figures that say little.

#[path = "../guests/built.rs"]
mod built;

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::future::try_join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use windlass_node::logs::{LogLimits, Logs};
use windlass_node::network::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
use windlass_node::runtime::wasm::{EngineConfig, WasmConfig, WasmRuntime};
use windlass_node::runtime::{
    ContainerPort, ContainerSpec, ImageKind, Objects, PodIdentity, Protocol, ResolvedImage,
    ResourceLimits, RunningContainer, Runtime,
};
use windlass_oci::content_store::Lease;
use windlass_oci::digest::Digest;

const HELLO: &[u8] = include_bytes!("../../examples/hello/hello.wasm");
/// Limits under which a loop runs, in thousandths of a core.
const LIMITS: [u64; 5] = [100, 300, 500, 700, 900];
/// Requests at a time.
const CLIENTS: usize = 4;

/// How much is measured.
struct Scale {
    pods: u16,
    time: Duration,
}

fn main() {
    let quick = std::env::args().any(|arg| arg == "--quick");
    let scale = match quick {
        true => Scale {
            pods: 10,
            time: Duration::from_millis(500),
        },
        false => Scale {
            pods: 100,
            time: Duration::from_secs(5),
        },
    };
    let runtime = must(tokio::runtime::Runtime::new());
    must(runtime.block_on(measure(&scale)));
}

/// A benchmark cannot go on from a failure.
#[expect(clippy::panic, reason = "a failed benchmark has no figure to report")]
fn must<T, E: Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error:#}"))
}

async fn measure(scale: &Scale) -> anyhow::Result<()> {
    let node = Node::new()?;
    println!("| limit | charged, of a core | of the limit |");
    println!("| --: | --: | --: |");
    for limit in LIMITS {
        let share = node.share_under(limit, scale.time).await?;
        let of_limit = share * 1000.0 / limit as f64;
        println!("| {limit}m | {share:.3} | {of_limit:.2}× |");
    }
    let mut pods = Vec::new();
    for _ in 0..scale.pods {
        pods.push(node.start(&node.hello, None).await?);
    }
    let alone = node.asked(&pods, scale.time).await?;
    println!("\n| {} http pods | p50 | p99 | p99 alone |", scale.pods);
    println!("| --- | --: | --: | --: |");
    print("alone", &alone, &alone);
    for (what, file) in &node.hostile {
        let hostile = node.start(file, Some(64 << 20)).await?;
        let beside = node.asked(&pods, scale.time).await?;
        hostile.container.stop(Duration::ZERO).await;
        print(&format!("beside one that {what}"), &beside, &alone);
    }
    Ok(())
}

fn print(what: &str, latencies: &[Duration], reference: &[Duration]) {
    let at = |all: &[Duration], percent: usize| {
        let index = (all.len() * percent / 100).min(all.len().saturating_sub(1));
        all.get(index).copied().unwrap_or_default()
    };
    let (p50, p99, alone) = (at(latencies, 50), at(latencies, 99), at(reference, 99));
    let ratio = p99.as_secs_f64() / alone.as_secs_f64().max(f64::MIN_POSITIVE);
    println!("| {what} | {p50:.2?} | {p99:.2?} | {ratio:.2}× |");
}

/// A node, and the programs that run on it.
struct Node {
    network: Network,
    runtime: WasmRuntime,
    logs: Logs,
    hello: PathBuf,
    spin: PathBuf,
    hostile: Vec<(&'static str, PathBuf)>,
    _directory: tempfile::TempDir,
}

/// A container of a pod of its own.
struct Started {
    container: Box<dyn RunningContainer>,
    network: PodNetwork,
}

impl Node {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = |name: &str, wasm: &[u8]| -> anyhow::Result<PathBuf> {
            let path = directory.path().join(name);
            std::fs::write(&path, wasm)?;
            Ok(path)
        };
        let spin = file("spin.wasm", &endlessly("", "")?)?;
        let grow = "(if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (br $again)))";
        let grow = file("grow.wasm", &endlessly("(memory 1)", grow)?)?;
        let mut hostile = vec![("loops", spin.clone()), ("grows its memory", grow)];
        if let Some(probe) = built::guest("probe") {
            hostile.push(("floods its log", probe));
        }
        let network = Network::new(NetworkConfig::default());
        network.set_pod_cidr("10.42.0.0/24".parse()?);
        let runtime = WasmRuntime::new(WasmConfig {
            cache: directory.path().join("compiled"),
            engine: EngineConfig::default(),
            ..WasmConfig::default()
        })?;
        Ok(Self {
            network,
            runtime,
            logs: Logs::new(directory.path().join("logs"), LogLimits::default()),
            hello: file("hello.wasm", HELLO)?,
            spin,
            hostile,
            _directory: directory,
        })
    }

    async fn start(&self, file: &Path, memory_bytes: Option<u64>) -> anyhow::Result<Started> {
        let limits = ResourceLimits {
            memory_bytes,
            ..ResourceLimits::default()
        };
        self.start_with(file, limits).await
    }

    async fn start_with(&self, file: &Path, limits: ResourceLimits) -> anyhow::Result<Started> {
        let network = self.network.set_up(&PodNetworkRequest::default())?;
        let spec = spec(file, limits)?;
        let logs = self.logs.begin(&spec.pod, &spec.name, spec.attempt);
        let container = self.runtime.start(spec, network.clone(), logs).await?;
        Ok(Started { container, network })
    }

    /// The share of a core that a loop is charged with under a limit.
    async fn share_under(&self, millis: u64, time: Duration) -> anyhow::Result<f64> {
        let limits = ResourceLimits {
            cpu_millis: Some(millis),
            ..ResourceLimits::default()
        };
        let started = self.start_with(&self.spin, limits).await?;
        // Compiling and the first period are not its steady state.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let (begin, before) = (Instant::now(), started.container.usage().cpu_nanos);
        tokio::time::sleep(time).await;
        let (took, after) = (begin.elapsed(), started.container.usage().cpu_nanos);
        started.container.stop(Duration::ZERO).await;
        let charged = Duration::from_nanos(after.saturating_sub(before));
        Ok(charged.as_secs_f64() / took.as_secs_f64())
    }

    /// Asks the pods in turn, several at a time, and answers how long each took, sorted.
    async fn asked(&self, pods: &[Started], time: Duration) -> anyhow::Result<Vec<Duration>> {
        let until = Instant::now() + time;
        let clients = (0..CLIENTS).map(|client| async move {
            let mut latencies = Vec::new();
            let mut turn = pods.iter().cycle().skip(client * pods.len() / CLIENTS);
            while Instant::now() < until {
                let pod = turn.next().context("there are no pods")?;
                let begin = Instant::now();
                self.ask(SocketAddr::new(pod.network.ip(), 8080)).await?;
                latencies.push(begin.elapsed());
            }
            Ok::<_, anyhow::Error>(latencies)
        });
        let mut latencies = try_join_all(clients).await?.concat();
        latencies.sort_unstable();
        Ok(latencies)
    }

    async fn ask(&self, address: SocketAddr) -> anyhow::Result<()> {
        let stream = self.network.host().connect(address).await;
        let stream = stream.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get("/healthz").header("host", "hello");
        let answer = sender.send_request(request.body(Empty::<Bytes>::new())?);
        let answer = answer.await?;
        anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
        answer.into_body().collect().await?;
        drop(sender);
        Ok(connection.await??)
    }
}

fn spec(file: &Path, limits: ResourceLimits) -> anyhow::Result<ContainerSpec> {
    let digest = Digest::sha256(&std::fs::read(file)?);
    Ok(ContainerSpec {
        pod: PodIdentity {
            namespace: "bench".to_owned(),
            name: "pod".to_owned(),
            uid: format!("{:032x}", rand::random::<u128>()),
        },
        name: "main".to_owned(),
        attempt: 0,
        on_trap: None,
        image: ResolvedImage {
            reference: "bench".to_owned(),
            digest: digest.clone(),
            blob_digest: digest,
            blob: file.to_owned(),
            lease: Lease::default(),
            kind: ImageKind::Component,
            entrypoint: Vec::new(),
            cmd: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            components: Vec::new(),
            linux: None,
        },
        // What only the probe listens to.
        args: ["probe", "print", "1000000000"].map(str::to_owned).to_vec(),
        env: Vec::new(),
        mounts: Vec::new(),
        limits,
        ports: vec![ContainerPort {
            name: None,
            port: 8080,
            protocol: Protocol::Tcp,
        }],
        termination_message: None,
        annotations: Arc::default(),
        stdin: false,
        tty: false,
        handler: String::new(),
        resume: false,
        objects: Objects::default(),
    })
}

/// A command that does one thing again and again.
fn endlessly(definitions: &str, step: &str) -> anyhow::Result<Vec<u8>> {
    Ok(wat::parse_str(format!(
        r#"(component
            (core module $m
                {definitions}
                (func (export "run") (result i32)
                    (loop $again {step} (br $again))
                    (i32.const 0)))
            (core instance $i (instantiate $m))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $cli (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $cli)))"#
    ))?)
}
