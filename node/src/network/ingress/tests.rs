//! Requests through the proxy to servers in pods, over pipes in memory.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use windlass_wasi_shims::net::VirtualNetwork as _;

use super::super::follow::ObjectKey;
use super::super::service_table::tests::{service, slice};
use super::super::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
use super::certificates::Shown;
use super::headers::Origin;
use super::proxy::Proxy;
use super::rules::Rules;
use super::*;

type Sent = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// How many requests asked the servers of the one test that does to break off.
static BROKEN: AtomicUsize = AtomicUsize::new(0);

/// A server in a pod; counts its connections.
struct Server {
    pod: PodNetwork,
    connections: Arc<AtomicUsize>,
}

async fn respond(request: Request<Incoming>) -> Result<Response<Sent>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/head" => {
            let mut lines: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect();
            lines.push(format!("{:?} {}", request.version(), request.uri()));
            lines.sort();
            let body = Full::new(Bytes::from(lines.join("\n"))).boxed_unsync();
            let response = Response::builder()
                .header("connection", "x-private")
                .header("x-private", "1")
                .header("x-public", "1");
            Ok(response.body(body).unwrap())
        }
        "/echo" => {
            let whole = request.into_body().collect().await.unwrap();
            let trailers = whole.trailers().cloned();
            let data = Frame::data(whole.to_bytes());
            let frames = [Some(data), trailers.map(Frame::trailers)];
            let frames = frames.into_iter().flatten().map(Ok);
            let body = StreamBody::new(futures::stream::iter(frames));
            Ok(Response::new(BodyExt::boxed_unsync(body)))
        }
        "/upgrade" => {
            tokio::spawn(async move {
                let mut link = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut text = [0; 4];
                while link.read_exact(&mut text).await.is_ok() {
                    link.write_all(&text).await.unwrap();
                }
            });
            let response = Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket");
            Ok(response.body(Empty::new().boxed_unsync()).unwrap())
        }
        "/silent" => std::future::pending().await,
        // Ends the connection, the first time, without an answer.
        "/break" if BROKEN.fetch_add(1, Ordering::Relaxed) == 0 => panic!("asked to"),
        _ => Ok(Response::new(
            Full::new(Bytes::from("here\n")).boxed_unsync(),
        )),
    }
}

impl Server {
    fn start(network: &Network, h2: bool) -> Self {
        let pod = network.set_up(&PodNetworkRequest::default()).unwrap();
        let local = SocketAddr::new(pod.ip(), 8080);
        let mut listener = pod.bind_tcp(local).unwrap().listen(64).unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok(stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
                counted.fetch_add(1, Ordering::Relaxed);
                let (stream, service) = (TokioIo::new(stream), service_fn(respond));
                tokio::spawn(async move {
                    // A client that goes away is no failure of the server.
                    let _ended = if h2 {
                        let builder =
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        builder.serve_connection(stream, service).await
                    } else {
                        let builder = hyper::server::conn::http1::Builder::new();
                        builder
                            .serve_connection(stream, service)
                            .with_upgrades()
                            .await
                    };
                });
            }
        });
        Self { pod, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn network() -> Network {
    let network = Network::new(NetworkConfig::default());
    network.set_pod_cidr("10.42.0.0/24".parse().unwrap());
    network
}

/// Puts the addresses behind port `http` of Service `a/web`.
fn set_endpoints(network: &Network, h2: bool, pods: &[&str]) {
    let mut web = service("a", "web", "10.96.0.9");
    web.ports[0].name = "http".to_owned();
    web.ports[0].speaks_h2 = h2;
    let endpoints: Vec<_> = pods.iter().map(|ip| (*ip, true)).collect();
    let mut members = slice("a", "web", &endpoints);
    members.ports[0].0 = "http".to_owned();
    network.0.services.apply_service(web);
    let id = ObjectKey::new("a", "web-1");
    network.0.services.apply_slice(&id, members);
}

fn proxy(network: &Network) -> Proxy {
    let backend = |name: &str, port: Value| json!({"service": {"name": name, "port": port}});
    let path = |path: &str, backend: Value| json!({"path": path, "pathType": "Prefix", "backend": backend});
    let ingress: Ingress = serde_json::from_value(json!({
        "metadata": {"namespace": "a", "name": "web"},
        "spec": {"rules": [{"host": "web.example", "http": {"paths": [
            path("/", backend("web", json!({"name": "http"}))),
            path("/number", backend("web", json!({"number": 80}))),
            path("/port", backend("web", json!({"number": 81}))),
            path("/nobody", backend("nosuch", json!({"number": 80}))),
            path("/bucket", json!({"resource": {"kind": "Bucket", "name": "b"}})),
        ]}}]},
    }))
    .unwrap();
    let shown = Shown {
        rules: Arc::new(Rules::compile([&ingress].into_iter())),
        ..Shown::default()
    };
    Proxy::new(network.host(), Arc::new(ArcSwap::from_pointee(shown)))
}

/// A client's connection.
fn dial(proxy: &Proxy, h2: bool) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let origin = Origin {
        client: "192.0.2.7:4000".parse().unwrap(),
        local: "127.0.0.1:8080".parse().unwrap(),
        secure: false,
    };
    let serving = listener::http(far, h2, origin, proxy.clone());
    tokio::spawn(async move {
        let _ended = serving.await;
    });
    near
}

async fn connect_one(proxy: &Proxy) -> http1::SendRequest<Sent> {
    let stream = TokioIo::new(dial(proxy, false));
    let (sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

async fn connect_two(proxy: &Proxy) -> http2::SendRequest<Sent> {
    let stream = TokioIo::new(dial(proxy, true));
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> http::request::Builder {
    Request::get(path).header("host", "web.example")
}

fn empty() -> Sent {
    Empty::new().boxed_unsync()
}

async fn text(response: Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// One request on a connection of its own.
async fn ask(proxy: &Proxy, path: &str) -> (StatusCode, String) {
    let mut sender = connect_one(proxy).await;
    let request = get(path).body(empty()).unwrap();
    text(sender.send_request(request).await.unwrap()).await
}

#[tokio::test]
async fn every_way_to_fail_has_its_status() {
    let network = network();
    let server = Server::start(&network, false);
    let proxy = proxy(&network);
    set_endpoints(&network, false, &[]);
    let (status, told) = ask(&proxy, "/").await;
    assert_eq!(
        (status, told.as_str()),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "503: the backend has nothing ready\n"
        )
    );
    // Nobody is at that address.
    set_endpoints(&network, false, &["10.42.0.200"]);
    assert_eq!(ask(&proxy, "/").await.0, StatusCode::BAD_GATEWAY);
    let ip = server.pod.ip().to_string();
    set_endpoints(&network, false, &[&ip]);
    for (path, status) in [
        ("/", StatusCode::OK),
        ("/number", StatusCode::OK),
        ("/port", StatusCode::SERVICE_UNAVAILABLE),
        ("/nobody", StatusCode::SERVICE_UNAVAILABLE),
        ("/bucket", StatusCode::SERVICE_UNAVAILABLE),
        ("/a/../b", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(ask(&proxy, path).await.0, status, "{path}");
    }
    let mut sender = connect_one(&proxy).await;
    let elsewhere = Request::get("/")
        .header("host", "other.example")
        .body(empty());
    let (status, told) = text(sender.send_request(elsewhere.unwrap()).await.unwrap()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(told, "404: no Ingress has a rule for this host and path\n");
    // Nothing but the clock moves while nobody answers.
    tokio::time::pause();
    assert_eq!(ask(&proxy, "/silent").await.0, StatusCode::GATEWAY_TIMEOUT);
    let counted = network.host().ingress_requests();
    let codes = |service: &str| -> Vec<_> {
        let of_service = counted.answered.iter();
        let of_service = of_service.filter(|((_, name, _), _)| name == service);
        of_service
            .map(|((_, _, code), count)| (*code, *count))
            .collect()
    };
    assert_eq!(codes("web"), [(200, 2), (502, 1), (503, 2), (504, 1)]);
    assert_eq!(codes("nosuch"), [(503, 1)]);
    assert_eq!(codes(""), [(400, 1), (404, 1), (503, 1)]);
    assert_eq!(counted.durations.iter().sum::<u64>(), 10);
}

#[tokio::test]
async fn the_backend_sees_the_client_and_no_more_of_its_connection() {
    let network = network();
    let server = Server::start(&network, false);
    set_endpoints(&network, false, &[&server.pod.ip().to_string()]);
    let proxy = proxy(&network);
    let mut sender = connect_one(&proxy).await;
    let request = get("/head?q=1")
        .header("x-forwarded-for", "10.0.0.1")
        .header("connection", "x-own")
        .header("x-own", "1")
        .body(empty());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert!(response.headers().contains_key("x-public"));
    assert!(!response.headers().contains_key("x-private"));
    let (_, seen) = text(response).await;
    assert_eq!(
        seen,
        "HTTP/1.1 /head?q=1\nhost=web.example\nx-forwarded-for=192.0.2.7\nx-forwarded-host=web.example\n\
         x-forwarded-port=8080\nx-forwarded-proto=http\nx-real-ip=192.0.2.7"
    );
}

#[tokio::test]
async fn connections_to_endpoints_are_used_again_and_replaced_when_they_end() {
    let network = network();
    let server = Server::start(&network, false);
    let ip = server.pod.ip().to_string();
    set_endpoints(&network, false, &[&ip]);
    let proxy = proxy(&network);
    for _ in 0..5 {
        assert_eq!(ask(&proxy, "/").await.0, StatusCode::OK);
    }
    assert_eq!(server.connections(), 1);
    server.pod.tear_down();
    let other = Server::start(&network, false);
    set_endpoints(&network, false, &[&ip, &other.pod.ip().to_string()]);
    for _ in 0..4 {
        assert_eq!(
            ask(&proxy, "/").await.0,
            StatusCode::OK,
            "the one that is gone is passed over"
        );
    }
}

#[tokio::test]
async fn what_may_be_repeated_is_when_an_endpoint_breaks_off() {
    let network = network();
    let servers = [(); 2].map(|()| Server::start(&network, false));
    let ips = servers.each_ref().map(|server| server.pod.ip().to_string());
    set_endpoints(&network, false, &ips.each_ref().map(String::as_str));
    let proxy = proxy(&network);
    let mut sender = connect_one(&proxy).await;
    let post = |body: Sent| {
        let request = Request::post("/break").header("host", "web.example");
        request.body(body).unwrap()
    };
    let broken = sender.send_request(post(empty())).await.unwrap();
    assert_eq!(broken.status(), StatusCode::BAD_GATEWAY);
    BROKEN.store(0, Ordering::Relaxed);
    assert_eq!(ask(&proxy, "/break").await.0, StatusCode::OK);
    assert_eq!(BROKEN.load(Ordering::Relaxed), 2);
    // What may not be repeated has a connection of its own.
    let before: usize = servers.iter().map(Server::connections).sum();
    let mut sender = connect_one(&proxy).await;
    let answered = sender.send_request(post(empty())).await.unwrap();
    assert_eq!(answered.status(), StatusCode::OK);
    let after: usize = servers.iter().map(Server::connections).sum();
    assert_eq!(after, before + 1);
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let network = network();
    let server = Server::start(&network, false);
    set_endpoints(&network, false, &[&server.pod.ip().to_string()]);
    let proxy = proxy(&network);
    tokio::time::pause();
    let mut slow = dial(&proxy, false);
    let head = "POST /echo HTTP/1.1\r\nhost: web.example\r\ncontent-length: 9\r\n\r\nhalf";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    slow.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 400");
}

#[tokio::test]
async fn bodies_and_trailers_go_through_from_h2_to_h2() {
    let network = network();
    let server = Server::start(&network, true);
    set_endpoints(&network, true, &[&server.pod.ip().to_string()]);
    let proxy = proxy(&network);
    let mut sender = connect_two(&proxy).await;
    let (frames, body) = tokio::sync::mpsc::channel::<Frame<Bytes>>(4);
    let body = tokio_stream::wrappers::ReceiverStream::new(body);
    let body = StreamBody::new(futures::StreamExt::map(body, Ok)).boxed_unsync();
    let request = Request::post("http://web.example/echo")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answer = sender.send_request(request);
    let sending = async move {
        for part in ["one ", "two"] {
            frames.send(Frame::data(part.into())).await.unwrap();
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        frames.send(Frame::trailers(trailers)).await.unwrap();
        drop(frames);
    };
    let (answer, ()) = tokio::join!(answer, sending);
    let answer = answer.unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (StatusCode::OK, Version::HTTP_2)
    );
    let whole = answer.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(whole.to_bytes(), "one two");
    // From HTTP/1.1 too, and over the same connection.
    assert_eq!(ask(&proxy, "/").await.0, StatusCode::OK);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let network = network();
    let server = Server::start(&network, false);
    set_endpoints(&network, false, &[&server.pod.ip().to_string()]);
    let proxy = proxy(&network);
    let mut sender = connect_one(&proxy).await;
    let request = get("/upgrade")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(empty());
    let response = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let mut link = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for word in [b"ping", b"pong"] {
        link.write_all(word).await.unwrap();
        let mut back = [0; 4];
        link.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word);
    }
}

/// Sends bytes as they are; the statuses of the answers.
async fn raw(proxy: &Proxy, bytes: &str) -> Vec<String> {
    let (mut reading, mut writing) = tokio::io::split(dial(proxy, false));
    writing.write_all(bytes.as_bytes()).await.unwrap();
    let mut answers = String::new();
    // A connection that is ended in the middle of a request may be broken off.
    let _ended = reading.read_to_string(&mut answers).await;
    let statuses = answers.split("HTTP/1.1 ").skip(1);
    statuses.map(|answer| answer[..3].to_owned()).collect()
}

#[tokio::test]
async fn one_request_is_never_taken_for_two() {
    let network = network();
    let server = Server::start(&network, false);
    set_endpoints(&network, false, &[&server.pod.ip().to_string()]);
    let proxy = proxy(&network);
    let hidden = "GET /head HTTP/1.1\r\nhost: web.example\r\n\r\n";
    let length = hidden.len();
    // Chunks go before a length, which does not go on.
    for (fields, body, want) in [
        (
            format!("content-length: {length}"),
            hidden.to_owned(),
            &["200"][..],
        ),
        (
            format!("transfer-encoding: chunked\r\ncontent-length: {length}"),
            format!("0\r\n\r\n{hidden}"),
            &["200"],
        ),
        (
            format!("content-length: 0\r\ncontent-length: {length}"),
            hidden.to_owned(),
            &["400"],
        ),
        (
            format!("content-length: +{length}"),
            hidden.to_owned(),
            &["400"],
        ),
        (
            "transfer-encoding: xchunked".to_owned(),
            hidden.to_owned(),
            &["400"],
        ),
        (
            "transfer-encoding: chunked, identity".to_owned(),
            hidden.to_owned(),
            &["400"],
        ),
        (
            format!("transfer-encoding : chunked\r\ncontent-length: {length}"),
            hidden.to_owned(),
            &["400"],
        ),
        (
            format!("x: y\r\n content-length: 0\r\ncontent-length: {length}"),
            hidden.to_owned(),
            &["400"],
        ),
        (
            "transfer-encoding: chunked".to_owned(),
            format!("fffffffffffffffff\r\n{hidden}"),
            &["400"],
        ),
    ] {
        let head = format!(
            "POST /echo HTTP/1.1\r\nhost: web.example\r\nconnection: close\r\n{fields}\r\n\r\n"
        );
        let got = raw(&proxy, &format!("{head}{body}")).await;
        assert_eq!(got, want, "{fields}");
    }
}

#[tokio::test]
async fn who_is_slow_is_let_go() {
    let network = network();
    let proxy = proxy(&network);
    tokio::time::pause();
    let mut silent = dial(&proxy, false);
    silent
        .write_all(b"GET / HTTP/1.1\r\nhost: web.example\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    silent.read_to_end(&mut answer).await.unwrap();
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"),
        "{answer:?}"
    );
    let long = dial(&proxy, false);
    let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(70_000));
    let (mut reading, mut writing) = tokio::io::split(long);
    let mut start = [0; 12];
    // The server may stop reading before it has all.
    let (read, _broken) = tokio::join!(
        reading.read_exact(&mut start),
        writing.write_all(head.as_bytes())
    );
    read.unwrap();
    assert_eq!(&start, b"HTTP/1.1 431");
}

#[tokio::test]
async fn policies_speak_of_the_server_of_ingresses() {
    let network = network();
    let server = Server::start(&network, false);
    set_endpoints(&network, false, &[&server.pod.ip().to_string()]);
    let proxy = proxy(&network);
    let policy = |from: Value| {
        let spec = json!({"podSelector": {}, "ingress": from});
        let metadata = json!({"namespace": "", "name": "web"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    };
    let policies = &network.0.policies;
    policies.apply_policy(&policy(json!([])));
    assert_eq!(ask(&proxy, "/").await.0, StatusCode::BAD_GATEWAY);
    let name = [(
        "kubernetes.io/metadata.name".to_owned(),
        "kube-system".to_owned(),
    )];
    policies.apply_namespace("kube-system", name.into());
    policies.apply_policy(&policy(json!([{"from": [{
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "windlass-ingress"}}}]}])));
    assert_eq!(ask(&proxy, "/").await.0, StatusCode::OK);
}
