//! Requests a second to one wasm http pod: through a NodePort, with an instance for each request and with reused ones, and
//! through an Ingress.
//!
//! The references are plain hyper on loopback, and the same component under a plain wasmtime server
//! (`wasmtime_server.rs`), asked in the same way in the same run. A NodePort copies bytes; what an Ingress costs beyond it is
//! reading them as HTTP twice more. Criterion judges each figure against its own past; the table at the
//! end compares them.

mod wasmtime_server;

use std::cell::RefCell;
use std::convert::Infallible;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Service;
use kube::api::Api;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use windlass_tests::{Cluster, push};

const HELLO: &[u8] = include_bytes!("../../../examples/hello/hello.wasm");
const HOST: &str = "hello.example";
/// Connections, each with one request at a time.
const CONNECTIONS: usize = 32;
/// Requests of one connection in one measurement.
const BATCH: usize = 20;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = must(Runtime::new());
    let (cluster, servers) = must(runtime.block_on(servers()));
    let rates = RefCell::new(Vec::new());
    let mut group = criterion.benchmark_group("ingress");
    group.throughput(Throughput::Elements((BATCH * CONNECTIONS) as u64));
    for (what, server) in servers {
        let spent = RefCell::new((Duration::ZERO, 0_u64));
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|rounds| {
                let took = must(runtime.block_on(drive(server, rounds)));
                let mut spent = spent.borrow_mut();
                *spent = (spent.0 + took, spent.1 + rounds);
                took
            });
        });
        let (time, rounds) = spent.into_inner();
        let count = rounds as f64 * (BATCH * CONNECTIONS) as f64;
        let rate = count / time.as_secs_f64().max(f64::MIN_POSITIVE);
        rates.borrow_mut().push((what, rate));
    }
    group.finish();
    criterion.final_summary();
    print(&rates.into_inner());
    runtime.block_on(cluster.shutdown());
}

/// A benchmark cannot go on from a failure.
#[expect(clippy::panic, reason = "a failed benchmark has no figure to report")]
fn must<T, E: Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error:#}"))
}

fn print(rates: &[(&str, f64)]) {
    let of = |index: usize| rates.get(index).map_or(f64::NAN, |(_, rate)| *rate);
    let (hyper, wasmtime) = (of(0), of(1));
    println!("\n| through | requests a second | of plain hyper | of plain wasmtime |");
    println!("| --- | --: | --: | --: |");
    for (what, rate) in rates {
        let (of_hyper, of_wasmtime) = (rate / hyper, rate / wasmtime);
        println!("| {what} | {rate:.0} | {of_hyper:.2}× | {of_wasmtime:.2}× |");
    }
}

/// A cluster with a pod behind both, and plain hyper; each with what it is called.
async fn servers() -> anyhow::Result<(Cluster, [(&'static str, SocketAddr); 5])> {
    let cluster = Cluster::with_node().await?;
    let image = push(&cluster, "hello", HELLO).await;
    let create = async |path: &str, object: &serde_json::Value| cluster.create(path, object).await;
    for (name, requests_per_instance) in [("hello", "1"), ("reused", "1000")] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name},
                "annotations": {"wasm.windlass.dev/requests-per-instance": requests_per_instance}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "hello", "image": image,
                "ports": [{"name": "http", "containerPort": 8080}]}]}});
        create("/api/v1/namespaces/default/pods", &pod).await?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "NodePort", "selector": {"app": name},
                "ports": [{"port": 80, "targetPort": "http"}]}});
        create("/api/v1/namespaces/default/services", &service).await?;
    }
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "hello"},
        "spec": {"rules": [{"host": HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": "hello", "port": {"number": 80}}}}]}}]}});
    create(
        "/apis/networking.k8s.io/v1/namespaces/default/ingresses",
        &ingress,
    )
    .await?;
    let fresh = node_port(&cluster, "hello").await?;
    let reused = node_port(&cluster, "reused").await?;
    let [ingress, _] = cluster.ingress_addresses();
    for server in [fresh, reused, ingress] {
        while !is_served(server).await {}
    }
    let plain = plain().await?;
    let wasmtime = wasmtime_server::serve(HELLO).await;
    let wasmtime = wasmtime.map_err(|error| anyhow::anyhow!("{error:#}"))?;
    Ok((
        cluster,
        [
            ("plain hyper", plain),
            ("plain wasmtime", wasmtime),
            ("NodePort", fresh),
            ("NodePort, instances reused", reused),
            ("Ingress", ingress),
        ],
    ))
}

/// Where a Service is reached on the node.
async fn node_port(cluster: &Cluster, name: &str) -> anyhow::Result<SocketAddr> {
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    let spec = services.get(name).await?.spec;
    let ports = spec.and_then(|spec| spec.ports);
    let port = ports.and_then(|ports| ports.first()?.node_port);
    let port = u16::try_from(port.context("the Service has no node port")?)?;
    Ok(SocketAddr::new(cluster.node_address().into(), port))
}

/// Whether the pod answers already.
async fn is_served(server: SocketAddr) -> bool {
    let asked = async {
        let mut sender = connect(server).await?;
        let answer = sender.send_request(request()?).await?;
        Ok::<_, anyhow::Error>(answer.status().is_success())
    };
    asked.await.unwrap_or(false)
}

/// The reference: it answers as many bytes as the pod.
async fn plain() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _best_effort = stream.set_nodelay(true);
            let answer = |_| async {
                let text = Bytes::from_static(b"Hello from a pod without a name\n");
                Ok::<_, Infallible>(Response::new(Full::new(text)))
            };
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(serving);
        }
    });
    Ok(address)
}

fn request() -> anyhow::Result<Request<Empty<Bytes>>> {
    Ok(Request::get("/").header("host", HOST).body(Empty::new())?)
}

async fn connect(server: SocketAddr) -> anyhow::Result<http1::SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Sends [`BATCH`] requests on each connection, `rounds` times; how long it took.
async fn drive(server: SocketAddr, rounds: u64) -> anyhow::Result<Duration> {
    let each = usize::try_from(rounds)? * BATCH;
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        senders.push(connect(server).await?);
    }
    let start = Instant::now();
    let tasks: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            tokio::spawn(async move {
                for _ in 0..each {
                    sender.ready().await?;
                    let answer = sender.send_request(request()?).await?;
                    anyhow::ensure!(answer.status().is_success(), "{}", answer.status());
                    answer.into_body().collect().await?;
                }
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(start.elapsed())
}
