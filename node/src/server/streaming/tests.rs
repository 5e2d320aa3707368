//! A client of each protocol against the routes, over a pipe.

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::{Request as HttpRequest, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use windlass_api::stream::port_forward::{Half, Request as ForwardRequest};
use windlass_api::stream::spdy::{Headers, Session};
use windlass_wasi_shims::net::{TcpListener, VirtualNetwork};
use windlass_wasi_shims::pipe::{self, Chunk};

use super::*;
use crate::logs::{LogLimits, LogSink, Logs, Output};
use crate::network::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
use crate::pods::{KnownPods, NodeContext, RunningContainers};
use crate::runtime::exec::{ExecStreams, Running};
use crate::runtime::{ExitStatus, ResourceLimits, RunningContainer, Stdin, Usage, fake};
use crate::server::stats::Looks;

/// A node with pod `p`, whose container `c` runs.
struct World {
    routes: Router,
    logs: LogSink,
    network: PodNetwork,
    stdin: pipe::Reader,
    stopped: watch::Receiver<bool>,
    _container: Arc<dyn RunningContainer>,
    _directory: tempfile::TempDir,
}

struct Container {
    stdin: Stdin,
    stopped: watch::Sender<bool>,
}

#[async_trait]
impl RunningContainer for Container {
    async fn wait(&self) -> ExitStatus {
        std::future::pending().await
    }

    async fn stop(&self, _: Duration) {
        self.stopped.send_replace(true);
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn stdin(&self) -> Option<Stdin> {
        Some(self.stdin.clone())
    }

    fn exec(&self, command: Vec<String>, streams: ExecStreams) -> Running {
        fake::exec(command, streams)
    }

    fn resize(&self, _: ResourceLimits) -> Result<(), String> {
        Ok(())
    }
}

fn world() -> World {
    let network = Network::new(NetworkConfig::default());
    network.set_pod_cidr("10.64.0.0/24".parse().unwrap());
    let pod_network = network.set_up(&PodNetworkRequest::default()).unwrap();
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u"},
        "spec": {"containers": [{"name": "c", "stdin": true, "stdinOnce": true}]},
        "status": {"podIP": pod_network.ip().to_string()},
    }))
    .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let logs = Logs::new(directory.path().to_owned(), LogLimits::default());
    let sink = logs.begin(&NodeContext::identity(&pod), "c", 0);
    let pods = KnownPods::default();
    pods.insert("u", Arc::new(pod));
    let (writer, stdin) = pipe::one_way();
    let stopped = watch::Sender::new(false);
    let has_stopped = stopped.subscribe();
    let container: Arc<dyn RunningContainer> = Arc::new(Container {
        stdin: Stdin::new(writer),
        stopped,
    });
    let containers = RunningContainers::default();
    containers.insert("u", "c", &container);
    let state = DaemonState {
        node: "a".into(),
        looks: Looks::default(),
        pods,
        logs,
        containers,
        network: network.host(),
        tunnels: None,
    };
    let carrier = Carrier::new(TaskTracker::new(), CancellationToken::new());
    World {
        routes: routes(state, carrier),
        logs: sink,
        network: pod_network,
        stdin,
        stopped: has_stopped,
        _container: container,
        _directory: directory,
    }
}

const WEB_SOCKET: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];
const SPDY: [(&str, &str); 2] = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];

impl World {
    async fn send(
        &self,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> hyper::Response<hyper::body::Incoming> {
        let (near, far) = tokio::io::duplex(1 << 16);
        let service = TowerToHyperService::new(self.routes.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let io = TokioIo::new(far);
            server.serve_connection_with_upgrades(io, service).await
        });
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(near))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = HttpRequest::get(uri).header("host", "node");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        sender.send_request(request).await.unwrap()
    }

    async fn upgrade(&self, uri: &str, headers: &[(&str, &str)]) -> TokioIo<Upgraded> {
        let response = self.send(uri, headers).await;
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        TokioIo::new(hyper::upgrade::on(response).await.unwrap())
    }

    async fn web_socket(&self, uri: &str, protocol: &str) -> WebSocketStream<TokioIo<Upgraded>> {
        let mut headers = WEB_SOCKET.to_vec();
        headers.push(("sec-websocket-protocol", protocol));
        let io = self.upgrade(uri, &headers).await;
        WebSocketStream::from_raw_socket(io, Role::Client, None).await
    }

    /// A server on a port of the pod that sends back, in capitals, what it reads to the end.
    fn shout(&self, at: (Ipv4Addr, u16)) {
        let binding = self.network.bind_tcp(SocketAddr::from(at)).unwrap();
        let mut listener: Box<dyn TcpListener> = binding.listen(1).unwrap();
        tokio::spawn(async move {
            while let Ok(mut stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
                let mut text = [0; 4];
                stream.read_exact(&mut text).await.unwrap();
                stream.write_all(&text.to_ascii_uppercase()).await.unwrap();
            }
        });
    }
}

async fn next(socket: &mut WebSocketStream<TokioIo<Upgraded>>) -> Message {
    socket.next().await.unwrap().unwrap()
}

#[tokio::test]
async fn a_web_socket_attaches_to_all_streams_of_a_container() {
    let mut world = world();
    let uri = "/attach/n/p/c?input=1&output=1&error=1";
    let mut socket = world.web_socket(uri, "v5.channel.k8s.io").await;
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01"[..]));
    world.logs.write(Output::Stdout, b"out");
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01out"[..]));
    world.logs.write(Output::Stderr, b"err");
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x02err"[..]));
    for message in [&b"\x00in"[..], b"\xff\x00"] {
        socket.send(Message::binary(message)).await.unwrap();
    }
    let mut stdin = async || poll_fn(|cx| world.stdin.poll_chunk(cx, 64)).await;
    assert_eq!(stdin().await, Chunk::Data(Bytes::from_static(b"in")));
    assert_eq!(stdin().await, Chunk::End, "stdinOnce");
    world.logs.close();
    let end = Message::binary(&b"\x03{\"metadata\":{},\"status\":\"Success\"}"[..]);
    assert_eq!(next(&mut socket).await, end);
    assert!(next(&mut socket).await.is_close());
}

#[tokio::test]
async fn a_terminal_edits_lines_for_the_container_it_is_attached_to() {
    let mut world = world();
    let uri = "/attach/n/p/c?input=1&output=1&tty=1";
    let mut socket = world.web_socket(uri, "v5.channel.k8s.io").await;
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01"[..]));
    world.logs.write(Output::Stdout, b"name?\n");
    assert_eq!(
        next(&mut socket).await,
        Message::binary(&b"\x01name?\r\n"[..])
    );
    socket
        .send(Message::binary(&b"\x00hx\x7fi\r"[..]))
        .await
        .unwrap();
    assert_eq!(
        next(&mut socket).await,
        Message::binary(&b"\x01hx\x08 \x08i\r\n"[..])
    );
    let typed = poll_fn(|cx| world.stdin.poll_chunk(cx, 64)).await;
    assert_eq!(typed, Chunk::Data(Bytes::from_static(b"hi\n")));
    socket
        .send(Message::binary(&b"\x00\x03"[..]))
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01^C\r\n"[..]));
    world.stopped.wait_for(|stopped| *stopped).await.unwrap();
}

#[tokio::test]
async fn a_spdy_session_attaches_with_a_stream_of_each_type() {
    let world = world();
    let mut headers = SPDY.to_vec();
    headers.push(("x-stream-protocol-version", "v5.channel.k8s.io"));
    headers.push(("x-stream-protocol-version", "v4.channel.k8s.io"));
    let io = world.upgrade("/attach/n/p/c?output=1", &headers).await;
    let (session, driver) = Session::new(io, spdy::Role::Client);
    tokio::spawn(driver);
    let open = |kind| session.open(Headers::new(&[("streamtype", kind)])).unwrap();
    let (mut error, mut stdout) = (open("error"), open("stdout"));
    world.logs.write(Output::Stdout, b"out");
    world.logs.close();
    let (mut said, mut ended) = (String::new(), String::new());
    stdout.read_to_string(&mut said).await.unwrap();
    error.read_to_string(&mut ended).await.unwrap();
    let success = r#"{"metadata":{},"status":"Success"}"#;
    assert_eq!((said.as_str(), ended.as_str()), ("out", success));
}

#[tokio::test]
async fn a_command_is_run_with_the_clients_streams() {
    let world = world();
    let uri = "/exec/n/p/c?input=1&output=1&error=1&command=cat";
    let mut socket = world.web_socket(uri, "v5.channel.k8s.io").await;
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01"[..]));
    for message in [&b"\x00typed"[..], b"\xff\x00"] {
        socket.send(Message::binary(message)).await.unwrap();
    }
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01typed"[..]));
    let end = Message::binary(&b"\x03{\"metadata\":{},\"status\":\"Success\"}"[..]);
    assert_eq!(next(&mut socket).await, end);
    assert!(next(&mut socket).await.is_close());
}

#[tokio::test]
async fn how_a_command_ended_is_told() {
    let world = world();
    for (command, output, wanted) in [
        ("exit&command=7", &b"exit with 7\n"[..], "exit status 7"),
        ("ls", b"", "exec: \\\"ls\\\": executable file not found"),
    ] {
        let uri = format!("/exec/n/p/u/c?output=1&command={command}");
        let mut socket = world.web_socket(&uri, "v4.channel.k8s.io").await;
        assert_eq!(next(&mut socket).await, Message::binary(&b"\x01"[..]));
        if !output.is_empty() {
            let data = next(&mut socket).await.into_data();
            assert_eq!(data.get(1..), Some(output));
        }
        let data = next(&mut socket).await.into_data();
        let status = String::from_utf8_lossy(&data);
        assert!(status.contains(wanted), "{status}");
    }
}

#[tokio::test]
async fn a_terminal_echoes_edits_and_interrupts() {
    let world = world();
    let uri = "/exec/n/p/c?input=1&output=1&tty=1&command=cat";
    let mut socket = world.web_socket(uri, "v4.channel.k8s.io").await;
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01"[..]));
    let keys = Message::binary(&b"\x00hex\x7fy\r"[..]);
    socket.send(keys).await.unwrap();
    let mut seen = String::new();
    while seen.matches("\r\n").count() < 2 {
        let data = next(&mut socket).await.into_data();
        seen.push_str(std::str::from_utf8(&data[1..]).unwrap());
    }
    assert_eq!(seen, "hex\x08 \x08y\r\nhey\r\n");
    socket
        .send(Message::binary(&b"\x00\x03"[..]))
        .await
        .unwrap();
    assert_eq!(next(&mut socket).await, Message::binary(&b"\x01^C\r\n"[..]));
    let data = next(&mut socket).await.into_data();
    let status = String::from_utf8_lossy(&data);
    assert!(status.contains("exit status 130"), "{status}");
}

#[tokio::test]
async fn a_web_socket_forwards_ports_and_says_which_first() {
    let world = world();
    world.shout((Ipv4Addr::LOCALHOST, 80));
    let mut socket = world
        .web_socket("/portForward/n/p?port=80&port=81", "v4.channel.k8s.io")
        .await;
    socket
        .send(Message::binary(&b"\x00ping"[..]))
        .await
        .unwrap();
    let mut heard = Vec::new();
    while heard.len() < 6 {
        heard.push(next(&mut socket).await.into_data());
    }
    for first in [
        &b"\x00\x50\x00"[..],
        b"\x01\x50\x00",
        b"\x02\x51\x00",
        b"\x03\x51\x00",
    ] {
        assert!(heard.iter().any(|message| message == first), "{heard:?}");
    }
    assert!(
        heard.iter().any(|message| message == &b"\x00PING"[..]),
        "{heard:?}"
    );
    let refused = b"\x03error forwarding port 81 to pod p, uid u: ";
    assert!(
        heard.iter().any(|message| message.starts_with(refused)),
        "{heard:?}"
    );
}

#[tokio::test]
async fn a_spdy_session_forwards_as_many_connections_as_it_likes() {
    let world = world();
    world.shout((Ipv4Addr::UNSPECIFIED, 80));
    let io = world.upgrade("/portForward/n/p", &SPDY).await;
    let (session, driver) = Session::new(io, spdy::Role::Client);
    tokio::spawn(driver);
    for id in ["0", "1"] {
        let open = |half| {
            let id = id.to_owned();
            let request = ForwardRequest { half, port: 80, id };
            session.open(request.headers()).unwrap()
        };
        let (mut error, mut data) = (open(Half::Error), open(Half::Data));
        data.write_all(b"ping").await.unwrap();
        let (mut got, mut failure) = (String::new(), String::new());
        data.read_to_string(&mut got).await.unwrap();
        drop(data);
        error.read_to_string(&mut failure).await.unwrap();
        assert_eq!((got.as_str(), failure.as_str()), ("PING", ""));
    }
}

#[tokio::test]
async fn what_cannot_be_streamed_is_an_ordinary_answer() {
    let world = world();
    let mut other = WEB_SOCKET.to_vec();
    other.push(("sec-websocket-protocol", "v9.channel.k8s.io"));
    let cases = [
        (
            "/attach/n/p/c",
            &WEB_SOCKET[..],
            400,
            "at least 1 of stdin, stdout, stderr",
        ),
        (
            "/attach/n/no/c?output=1",
            &WEB_SOCKET,
            404,
            "pod \"n/no\" not found",
        ),
        (
            "/attach/n/p/no?output=1",
            &WEB_SOCKET,
            404,
            "container no not found in pod p_n",
        ),
        (
            "/attach/n/p/c?output=1",
            &[],
            400,
            "Upgrade request required",
        ),
        (
            "/attach/n/p/c?output=1",
            &other,
            403,
            "unable to negotiate protocol",
        ),
        (
            "/portForward/n/p",
            &WEB_SOCKET,
            400,
            "query parameter \"port\" is required",
        ),
        (
            "/portForward/n/p?port=0",
            &WEB_SOCKET,
            400,
            "port \"0\" must be > 0",
        ),
    ];
    for (uri, headers, status, part) in cases {
        let response = world.send(uri, headers).await;
        assert_eq!(response.status().as_u16(), status, "{uri}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(part), "{uri}: {body}");
    }
}
