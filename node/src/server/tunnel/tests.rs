//! Two nodes on loopback, joined by real TLS.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt, Full};
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::sync::DropGuard;
use tokio_util::task::AbortOnDropHandle;
use windlass_wasi_shims::net::VirtualNetwork;

use super::*;
use crate::logs::{LogLimits, Logs};
use crate::network::{Network, NetworkConfig, PodNetwork, PodNetworkRequest, TunnelIdentity};
use crate::pods::{KnownPods, RunningContainers};
use crate::server::stats::Looks;
use crate::server::test_pki::Authority;
use crate::server::{DaemonServer, DaemonState};

const NODES: Option<&str> = Some("system:nodes");

/// A node with a network and a daemon endpoint.
struct TestNode {
    network: Network,
    endpoint: SocketAddr,
    stop: DropGuard,
    _logs: tempfile::TempDir,
}

impl TestNode {
    /// A node that serves with a certificate of `shown`.
    async fn new(ca: &Authority, shown: &str, cidr: &str) -> Self {
        let network = Network::new(NetworkConfig {
            cluster_cidr: Some("10.128.0.0/10".parse().unwrap()),
            ..NetworkConfig::default()
        });
        network.set_pod_cidr(cidr.parse().unwrap());
        let daemon = DaemonServer::bind(([127, 0, 0, 1], 0).into(), &ca.daemon(shown))
            .await
            .unwrap();
        let endpoint = daemon.local_addr().unwrap().unwrap();
        let logs = tempfile::tempdir().unwrap();
        let state = DaemonState {
            node: "a".into(),
            looks: Looks::default(),
            pods: KnownPods::default(),
            logs: Logs::new(logs.path().to_owned(), LogLimits::default()),
            containers: RunningContainers::default(),
            network: network.host(),
            tunnels: Some(network.host()),
        };
        let stop = CancellationToken::new();
        tokio::spawn(daemon.serve(state, stop.clone()));
        Self {
            network,
            endpoint,
            stop: stop.drop_guard(),
            _logs: logs,
        }
    }

    /// What it counted of calls.
    fn calls(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.network.host().tunnel_counts().told()
    }

    fn pod(&self) -> PodNetwork {
        self.network.set_up(&PodNetworkRequest::default()).unwrap()
    }
}

/// Nodes `a` (10.128.0.0/24) and `b` (10.128.1.0/24), which know of each other.
struct World {
    ca: Authority,
    a: TestNode,
    b: TestNode,
    _watches: Vec<AbortOnDropHandle<()>>,
}

async fn world() -> World {
    let ca = Authority::new();
    let identity = ca.identity("system:node:a", NODES);
    joined(ca, identity, "system:node:b").await
}

/// Node `a` calls as `identity`; node `b` shows a certificate of `shown`.
async fn joined(ca: Authority, identity: TunnelIdentity, shown: &str) -> World {
    let a = TestNode::new(&ca, "system:node:a", "10.128.0.0/24").await;
    let b = TestNode::new(&ca, shown, "10.128.1.0/24").await;
    let nodes = json!({ "metadata": { "resourceVersion": "1" }, "items": [
        node("a", "10.128.0.0/24", a.endpoint),
        node("b", "10.128.1.0/24", b.endpoint),
    ]});
    let mut watches = Vec::new();
    let identities = [identity, ca.identity("system:node:b", NODES)];
    for (node, identity) in [&a, &b].into_iter().zip(identities) {
        let (network, client) = (node.network.clone(), api(&nodes));
        watches.push(AbortOnDropHandle::new(tokio::spawn(async move {
            network.tunnel_between_agents(client, identity).await;
        })));
        for ip in ["10.128.0.1", "10.128.1.1"] {
            node.network.host().node_of(ip.parse().unwrap()).await;
        }
    }
    World {
        ca,
        a,
        b,
        _watches: watches,
    }
}

fn node(name: &str, cidr: &str, endpoint: SocketAddr) -> serde_json::Value {
    json!({
        "metadata": { "name": name },
        "spec": { "podCIDR": cidr },
        "status": {
            "addresses": [{ "type": "InternalIP", "address": endpoint.ip() }],
            "daemonEndpoints": { "kubeletEndpoint": { "Port": endpoint.port() } },
        },
    })
}

/// An API server that has these Nodes for ever.
fn api(nodes: &serde_json::Value) -> kube::Client {
    let list = Bytes::from(nodes.to_string());
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let list = list.clone();
        async move {
            if request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch="))
            {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::convert::Infallible>(http::Response::new(Full::new(list)))
        }
    });
    kube::Client::new(service, "default")
}

/// Serves the pod's port 8080: tells the client its address, takes all it says, says it again.
fn serve(pod: &PodNetwork) -> SocketAddr {
    let address = SocketAddr::new(pod.ip(), 8080);
    let mut listener = pod.bind_tcp(address).unwrap().listen(16).unwrap();
    tokio::spawn(async move {
        while let Ok(mut stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
            tokio::spawn(async move {
                let greeting = format!("{}\n", stream.peer().ip());
                stream.write_all(greeting.as_bytes()).await.unwrap();
                let mut said = Vec::new();
                stream.read_to_end(&mut said).await.unwrap();
                stream.write_all(&said).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn a_pod_reaches_a_pod_of_another_node_and_is_seen_as_itself() {
    let world = world().await;
    let (client, server) = (world.a.pod(), world.b.pod());
    let to = serve(&server);
    let mut stream = client.connect(None, to).await.unwrap();
    assert_eq!((stream.local().ip(), stream.peer()), (client.ip(), to));
    // More than all windows on the way hold, so that only an end that is heard gets an answer.
    let said = vec![7; 4 << 20];
    stream.write_all(&said).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    let greeting = format!("{}\n", client.ip());
    let (first, rest) = heard.split_at(greeting.len());
    assert_eq!(first, greeting.as_bytes());
    assert!(rest == said);
}

#[tokio::test]
async fn a_refusal_and_an_absent_pod_are_told_apart() {
    let world = world().await;
    let (client, server) = (world.a.pod(), world.b.pod());
    let port = |ip: IpAddr| SocketAddr::new(ip, 81);
    for (to, want) in [
        (port(server.ip()), NetError::ConnectionRefused),
        (port([10, 128, 1, 99].into()), NetError::RemoteUnreachable),
        (port([10, 128, 9, 9].into()), NetError::RemoteUnreachable),
    ] {
        assert_eq!(client.connect(None, to).await.err(), Some(want), "{to}");
    }
}

#[tokio::test]
async fn strangers_are_refused() {
    for (name, group) in [
        ("somebody", NODES),
        ("system:node:a", None),
        ("kube-apiserver-kubelet-client", None),
    ] {
        let ca = Authority::new();
        let identity = ca.identity(name, group);
        let world = joined(ca, identity, "system:node:b").await;
        let to = serve(&world.b.pod());
        let refused = world.a.pod().connect(None, to).await.err();
        assert_eq!(refused, Some(NetError::RemoteUnreachable), "{name}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused() {
    let identity = Authority::new().identity("system:node:a", NODES);
    let world = joined(Authority::new(), identity, "system:node:b").await;
    let to = serve(&world.b.pod());
    let refused = world.a.pod().connect(None, to).await.err();
    assert_eq!(refused, Some(NetError::RemoteUnreachable));
    assert_eq!(world.a.calls(), [("called", "certificate", 1)]);
}

#[tokio::test]
async fn a_node_that_stands_in_for_another_is_not_spoken_to() {
    let ca = Authority::new();
    let identity = ca.identity("system:node:a", NODES);
    let world = joined(ca, identity, "system:node:c").await;
    let server = world.b.pod();
    let to = serve(&server);
    let refused = world.a.pod().connect(None, to).await.err();
    assert_eq!(refused, Some(NetError::RemoteUnreachable));
    assert_eq!(world.a.calls(), [("called", "certificate", 1)]);
    assert_eq!(world.b.calls(), []);
}

#[tokio::test]
async fn a_node_calls_its_peers_pods_from_its_own_and_nothing_else() {
    let world = world().await;
    let server = world.b.pod();
    let to = serve(&server).to_string();
    let tunnel = |from: &str, to: &str| format!("/tunnel?from={from}&to={to}");
    let own = "10.128.0.2:40000";
    for (path, want, text) in [
        (tunnel(own, &to), 101, ""),
        (tunnel(own, "10.128.0.3:80"), 403, "10.128.0.3 is not an"),
        (tunnel(own, "127.0.0.1:80"), 403, "127.0.0.1 is not an"),
        (tunnel("10.128.1.9:1", &to), 403, "of node a"),
        (tunnel(own, "web:80"), 400, "to: \"web:80\""),
        ("/containerLogs/default/p/a".to_owned(), 403, "nothing else"),
        ("/pods".to_owned(), 403, "nothing else"),
    ] {
        let (status, body) = world.request(&path, wire::PROTOCOL).await;
        assert_eq!(status, want, "{path}: {body}");
        assert!(body.contains(text), "{path}: {body}");
    }
    let (status, _) = world.request(&tunnel(own, &to), "websocket").await;
    assert_eq!(status, 426);
    let counted = [
        ("answered", "opened", 1),
        ("answered", "malformed", 4),
        ("answered", "foreign_target", 2),
        ("answered", "foreign_source", 1),
    ];
    assert_eq!(world.b.calls(), counted);
}

#[tokio::test]
async fn a_node_that_stops_breaks_its_connections_instead_of_ending_them() {
    let world = world().await;
    let (client, server) = (world.a.pod(), world.b.pod());
    let to = serve(&server);
    let mut stream = client.connect(None, to).await.unwrap();
    let mut greeting = [0; 3];
    stream.read_exact(&mut greeting).await.unwrap();
    drop(world.b.stop);
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn datagrams_do_not_leave_the_node() {
    let world = world().await;
    let (client, server) = (world.a.pod(), world.b.pod());
    let port = client.bind_udp(SocketAddr::new(client.ip(), 0)).unwrap();
    let to = SocketAddr::new(server.ip(), 53);
    let sent = port.send(to, Bytes::from_static(b"?"));
    assert_eq!(sent, Err(NetError::NotSupported));
}

impl World {
    /// Asks node `b` as node `a`; answers status and body.
    async fn request(&self, path: &str, upgrade: &str) -> (u16, String) {
        let identity = self.ca.identity("system:node:a", NODES);
        let link = TcpStream::connect(self.b.endpoint).await.unwrap();
        let name = ServerName::from(self.b.endpoint.ip());
        let link = TlsConnector::from(identity.config())
            .connect(name, link)
            .await
            .unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(link))
            .await
            .unwrap();
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection.with_upgrades()));
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, "b")
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, upgrade)
            .body(Full::<Bytes>::default())
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status().as_u16();
        if status == 101 {
            return (status, String::new());
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }
}
