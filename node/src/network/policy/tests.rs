//! The table of cases, by the pure function and on the wire; what is not in the table.
//!
//! On the wire the cast lives on two nodes: namespace a on one, b on the other, joined by a tunnel that hands
//! each call to the other node as its daemon endpoint would.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::json;
use windlass_wasi_shims::net::{NetError, UdpPort, VirtualNetwork};

use super::cases::{Case, Who, cases};
use super::*;
use crate::network::connect::{Attempt, Caller};
use crate::network::switch::Transport;
use crate::network::tunnel::{Call, Tunnel, TunnelStream};
use crate::network::{HostNetwork, Network, NetworkConfig, PodNetwork, PodNetworkRequest};

const PORTS: &[u16] = &[53, 79, 80, 81, 90, 91, 1433, 5432];

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

fn identity(who: Who) -> Option<PodIdentity> {
    let (namespace, name) = who.split_once('/')?;
    let port = |name: &str, protocol: &str, number| NamedPort {
        name: name.to_owned(),
        protocol: protocol.to_owned(),
        number,
    };
    let mut labels = labels(&[("app", name)]);
    let ports = match who {
        "a/web" => vec![port("http", "TCP", 80), port("dns", "UDP", 53)],
        "b/db" => vec![port("sql", "TCP", 5432)],
        "a/client" => {
            labels.insert("role".to_owned(), "front".to_owned());
            Vec::new()
        }
        _ => Vec::new(),
    };
    Some(PodIdentity {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels,
        ports,
    })
}

fn fill(table: &PolicyTable, policies: &[serde_json::Value]) {
    for (name, team) in [("a", "red"), ("b", "blue")] {
        let pairs = [("team", team), ("kubernetes.io/metadata.name", name)];
        table.apply_namespace(name, labels(&pairs));
    }
    let feed = PolicyFeed(table);
    feed.retain(&HashSet::new());
    for policy in policies {
        feed.apply(&serde_json::from_value(policy.clone()).unwrap());
    }
}

#[test]
fn the_table_by_the_pure_function() {
    let address = |who: Who| -> IpAddr {
        let of = [
            ("a/web", 2),
            ("a/client", 3),
            ("a/other", 4),
            ("b/client", 5),
            ("b/db", 6),
        ];
        let pod = of.iter().find(|(name, _)| *name == who);
        pod.map_or_else(|| who.parse().unwrap(), |(_, n)| [10, 128, 0, *n].into())
    };
    let mut count = 0;
    for Case {
        name,
        policies,
        rows,
    } in cases()
    {
        let table = PolicyTable::new();
        fill(&table, &policies);
        for &(from, to, transport, port, allowed) in rows {
            let (source, target) = (identity(from), identity(to));
            let asks = |subject: &PodIdentity, direction, other: Who, pod: &Option<PodIdentity>| {
                table.allows(&Traffic {
                    subject,
                    direction,
                    peer: Peer {
                        ip: address(other),
                        pod: pod.as_ref(),
                        known_as: &|_| false,
                    },
                    transport,
                    port,
                })
            };
            let out = source
                .as_ref()
                .is_none_or(|pod| asks(pod, Direction::Egress, to, &target));
            let into = target
                .as_ref()
                .is_none_or(|pod| asks(pod, Direction::Ingress, from, &source));
            // A pod is never kept from itself, which is not for the policies to say.
            assert_eq!(
                out && into || from == to,
                allowed,
                "{name}: {from} to {to}:{port}"
            );
            count += 1;
        }
    }
    assert!(count >= 60, "{count} cases");
}

/// The tunnel of one node: the only other node there is answers.
struct OtherNode(HostNetwork);

#[async_trait]
impl Tunnel for OtherNode {
    async fn connect(&self, call: Call) -> io::Result<Box<dyn TunnelStream>> {
        match self.0.connect_local(&call).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(NetError::AccessDenied) => Err(io::ErrorKind::PermissionDenied.into()),
            Err(error) => Err(io::Error::new(io::ErrorKind::ConnectionRefused, error)),
        }
    }

    async fn describe(&self, pod: IpAddr) -> io::Result<PodIdentity> {
        let described = self.0.describe(pod);
        let identity = described.ok_or(io::ErrorKind::HostUnreachable)?;
        Ok(PodIdentity::clone(&identity))
    }
}

/// The cast on two nodes, everybody listening at every port.
struct Wire {
    nodes: [Network; 2],
    pods: HashMap<Who, PodNetwork>,
    datagrams: HashMap<(Who, u16), Arc<dyn UdpPort>>,
}

impl Wire {
    fn new() -> Self {
        let node = |range: &str| {
            let network = Network::new(NetworkConfig {
                cluster_cidr: Some("10.128.0.0/10".parse().unwrap()),
                ..NetworkConfig::default()
            });
            network.set_pod_cidr(range.parse().unwrap());
            network
        };
        let nodes = [node("10.128.0.0/24"), node("10.128.1.0/24")];
        let [one, two] = &nodes;
        one.set_tunnel(Arc::new(OtherNode(two.host())));
        two.set_tunnel(Arc::new(OtherNode(one.host())));
        let mut wire = Self {
            pods: HashMap::new(),
            datagrams: HashMap::new(),
            nodes,
        };
        for who in ["a/web", "a/client", "a/other", "b/client", "b/db"] {
            wire.add(who);
        }
        wire
    }

    fn node(&self, who: Who) -> &Network {
        &self.nodes[usize::from(who.starts_with("b/"))]
    }

    fn add(&mut self, who: Who) {
        let identity = identity(who).unwrap();
        let request = PodNetworkRequest {
            namespace: identity.namespace,
            name: identity.name,
            labels: identity.labels,
            ports: identity.ports,
            ..PodNetworkRequest::default()
        };
        let pod = self.node(who).set_up(&request).unwrap();
        for port in PORTS {
            let local = SocketAddr::new(pod.ip(), *port);
            let mut listener = pod.bind_tcp(local).unwrap().listen(64).unwrap();
            tokio::spawn(
                async move { while poll_fn(|cx| listener.poll_accept(cx)).await.is_ok() {} },
            );
            let datagrams = pod.bind_udp(local).unwrap();
            self.datagrams.insert((who, *port), datagrams);
        }
        self.pods.insert(who, pod);
    }

    fn set_policies(&self, policies: &[serde_json::Value]) {
        for node in &self.nodes {
            fill(&node.0.policies, policies);
        }
    }

    /// Whether a connection or a datagram arrives; nothing where this wire does not carry it.
    async fn passes(&self, from: Who, to: Who, transport: Transport, port: u16) -> Option<bool> {
        let target = SocketAddr::new(self.pods.get(to)?.ip(), port);
        let Some(source) = self.pods.get(from) else {
            let attempt = Attempt {
                from: SocketAddr::new(from.parse().unwrap(), 40_000),
                to: target,
                seen_as: target,
                service: None,
            };
            // By a port of the node that does not have the pod, so that the tunnel carries it.
            let far = &self.nodes[usize::from(to.starts_with("a/"))];
            let by_tunnel = far.0.connect_endpoint(attempt, Caller::Outside).await;
            let near = self.node(to).0.connect_endpoint(attempt, Caller::Outside);
            let outcome = near.await.map(drop);
            assert_eq!(by_tunnel.map(drop), outcome, "{from} to {to}");
            return Some(verdict(outcome));
        };
        if transport == Transport::Tcp {
            return Some(verdict(source.connect(None, target).await.map(drop)));
        }
        if !std::ptr::eq(self.node(from), self.node(to)) {
            return None;
        }
        let sender = source.bind_udp(SocketAddr::new(source.ip(), 0)).unwrap();
        let refused = sender.send(target, "x".into()).is_err();
        let receiver = &self.datagrams[&(to, port)];
        let arrived = futures::poll!(poll_fn(|cx| receiver.poll_receive(cx))).is_ready();
        assert!(!(refused && arrived));
        Some(arrived)
    }
}

fn verdict(outcome: Result<(), NetError>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(NetError::AccessDenied) => false,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_table_on_the_wire() {
    let wire = Wire::new();
    let mut count = 0;
    for Case {
        name,
        policies,
        rows,
    } in cases()
    {
        wire.set_policies(&policies);
        for &(from, to, transport, port, allowed) in rows {
            if let Some(passes) = wire.passes(from, to, transport, port).await {
                assert_eq!(passes, allowed, "{name}: {from} to {to}:{port}");
                count += 1;
            }
        }
    }
    assert!(count >= 60, "{count} cases");
}

#[tokio::test]
async fn nothing_passes_before_the_policies_are_known() {
    let wire = Wire::new();
    let table = &wire.nodes[0].0.policies;
    table.await_policies();
    let (client, web) = (&wire.pods["a/client"], wire.pods["a/web"].ip());
    let mut connecting = client.connect(None, SocketAddr::new(web, 80));
    assert!(futures::poll!(&mut connecting).is_pending());
    let datagram = wire.passes("a/client", "a/web", Transport::Udp, 53).await;
    assert_eq!(datagram, Some(false));
    fill(
        table,
        &[json!({"metadata": {"namespace": "a", "name": "deny"}, "spec": {"podSelector": {}}})],
    );
    assert_eq!(connecting.await.map(drop), Err(NetError::AccessDenied));
}

#[tokio::test]
async fn labels_count_as_they_are_and_connections_that_are_there_go_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let wire = Wire::new();
    let from_front = json!({"metadata": {"namespace": "a", "name": "front"}, "spec": {"podSelector": {},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "front"}}}]}]}});
    let (client, web) = (&wire.pods["a/client"], &wire.pods["a/web"]);
    let local = SocketAddr::new(web.ip(), 7000);
    let mut listener = web.bind_tcp(local).unwrap().listen(8).unwrap();
    let mut there = client.connect(None, local).await.unwrap();
    let mut server = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
    wire.set_policies(&[from_front]);
    client.set_labels(&labels(&[("app", "client")]));
    let refused = client.connect(None, local).await.map(drop);
    assert_eq!(refused, Err(NetError::AccessDenied));
    client.set_labels(&labels(&[("role", "front")]));
    assert!(client.connect(None, local).await.is_ok());
    there.write_all(b"still").await.unwrap();
    there.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "still");
}

#[tokio::test]
async fn the_node_reaches_its_pods_whatever_policies_say() {
    let wire = Wire::new();
    wire.set_policies(&[
        json!({"metadata": {"namespace": "a", "name": "deny"}, "spec": {"podSelector": {}}}),
    ]);
    let web = SocketAddr::new(wire.pods["a/web"].ip(), 80);
    let [own, other] = &wire.nodes;
    assert!(own.host().connect(web).await.is_ok());
    // Another node is a stranger like any other.
    let far = other.host().connect(web).await.map(drop);
    assert_eq!(far, Err(NetError::AccessDenied));
}

#[tokio::test]
async fn names_open_the_addresses_that_were_told_for_them() {
    let wire = Wire::new();
    wire.set_policies(&[json!({
        "metadata": {"namespace": "a", "name": "names", "annotations": {
            names::ANNOTATION: "api.example.com, *.example.org"}},
        "spec": {"podSelector": {}, "policyTypes": ["Egress"]}})]);
    let pod = &wire.pods["a/client"].0;
    let address: SocketAddr = "192.0.2.10:443".parse().unwrap();
    let passes = |to| wire.nodes[0].0.lets_out(pod, None, Transport::Tcp, to);
    assert!(!passes(address));
    pod.known.remember("www.example.net", &[address.ip()]);
    assert!(!passes(address));
    pod.known.remember("api.example.com", &[address.ip()]);
    assert!(passes(address));
    assert!(!passes("192.0.2.11:443".parse().unwrap()));
    for (name, want) in [
        ("api.example.com", true),
        ("a.example.org.", true),
        ("example.net", false),
    ] {
        assert_eq!(pod.may_look_up(name), want, "{name}");
    }
}

#[tokio::test]
async fn who_may_ask_the_clusters_dns_may_ask_for_any_name() {
    let wire = Wire::new();
    let pod = &wire.pods["a/client"].0;
    for (to, want) in [
        (json!([]), false),
        (json!([{"to": [{"podSelector": {}}]}]), false),
        (json!([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]), true),
        (
            json!([{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                "ports": [{"port": 53, "protocol": "UDP"}]}]),
            true,
        ),
    ] {
        wire.set_policies(&[json!({"metadata": {"namespace": "a", "name": "p"},
            "spec": {"podSelector": {}, "policyTypes": ["Egress"], "egress": to}})]);
        let name = labels(&[("kubernetes.io/metadata.name", "kube-system")]);
        wire.nodes[0]
            .0
            .policies
            .apply_namespace("kube-system", name);
        assert_eq!(pod.may_look_up("example.com"), want, "{to}");
    }
}

#[tokio::test]
async fn flows_tell_who_spoke_with_whom_and_who_was_refused() {
    let wire = Wire::new();
    let (client, web) = (&wire.pods["a/client"], &wire.pods["a/web"]);
    let to = SocketAddr::new(web.ip(), 80);
    let mut stream = client.connect(None, to).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"12345")
        .await
        .unwrap();
    wire.set_policies(&[
        json!({"metadata": {"namespace": "a", "name": "deny"}, "spec": {"podSelector": {}}}),
    ]);
    assert!(client.connect(None, to).await.is_err());
    let records = |pod: &PodNetwork| serde_json::to_value(pod.0.local.flows.told()).unwrap();
    assert_eq!(
        records(client),
        json!([{"direction": "Egress", "peer": {"kind": "Pod", "namespace": "a", "name": "web"},
            "protocol": "TCP", "port": 80, "connections": 1, "denied": 0, "bytesSent": 5, "bytesReceived": 0}])
    );
    assert_eq!(
        records(web),
        json!([{"direction": "Ingress", "peer": {"kind": "Pod", "namespace": "a", "name": "client"},
            "protocol": "TCP", "port": 80, "connections": 1, "denied": 1, "bytesSent": 0, "bytesReceived": 5}])
    );
}
