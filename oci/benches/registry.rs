//! The cluster's registry against plain hyper: how fast a blob is pulled and pushed over loopback.
//!
//! Plain hyper serves the same bytes from memory and forgets what it is sent; the registry reads from the disk, and
//! hashes, writes and syncs. Both are asked by the same client.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a benchmark fails by panicking"
)]

use std::convert::Infallible;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use windlass_oci::content_store::ContentStore;
use windlass_oci::digest::Digest;
use windlass_oci::registry::server::{Access, Authorize, Denied, Limits, router};

const SIZE: usize = 64 << 20;

struct Anybody;

#[async_trait::async_trait]
impl Authorize for Anybody {
    async fn authorize(&self, _: &http::Extensions, _: &str, _: Access) -> Result<(), Denied> {
        Ok(())
    }
}

type HttpClient = Client<HttpConnector, Full<Bytes>>;

fn blob() -> Bytes {
    let numbers =
        (0_u64..).flat_map(|number| (number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_le_bytes());
    numbers.take(SIZE).collect::<Vec<_>>().into()
}

async fn registry() -> (TempDir, SocketAddr) {
    let directory = tempfile::tempdir().unwrap();
    let store = ContentStore::open(directory.path()).await.unwrap();
    let routes = router(store, Arc::new(Anybody), Limits::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    (directory, address)
}

async fn plain_hyper(blob: Bytes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |request: Request<Incoming>| {
        let blob = blob.clone();
        async move {
            let reads = request.method() == Method::GET;
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                black_box(frame).unwrap();
            }
            let body = if reads { blob } else { Bytes::new() };
            Ok::<_, Infallible>(Response::new(Full::new(body)))
        }
    };
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(answer.clone());
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    address
}

async fn pull(client: &HttpClient, url: &str) {
    let response = client.get(url.parse().unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (mut body, mut length) = (response.into_body(), 0);
    while let Some(frame) = body.frame().await {
        length += frame.unwrap().data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(length, SIZE);
}

async fn push(client: &HttpClient, url: &str, blob: Bytes) {
    let request = Request::post(url).body(Full::new(blob)).unwrap();
    let response = client.request(request).await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    response.into_body().collect().await.unwrap();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    transfer(&mut criterion);
    criterion.final_summary();
}

fn transfer(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let blob = blob();
    let digest = Digest::sha256(&blob);
    let (_directory, own) = runtime.block_on(registry());
    let plain = runtime.block_on(plain_hyper(blob.clone()));
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let places = [("registry", own), ("plain hyper", plain)];
    let mut group = criterion.benchmark_group("64 MiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    for (name, address) in places {
        let url = format!("http://{address}/v2/a/b/blobs/uploads/?digest={digest}");
        group.bench_function(format!("push, {name}"), |bencher| {
            bencher
                .to_async(&runtime)
                .iter(|| push(&client, &url, blob.clone()));
        });
        let url = format!("http://{address}/v2/a/b/blobs/{digest}");
        group.bench_function(format!("pull, {name}"), |bencher| {
            bencher.to_async(&runtime).iter(|| pull(&client, &url));
        });
    }
    group.finish();
}
