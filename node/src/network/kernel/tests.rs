//! On the wire: pods with network namespaces of their own beside pods of the switch, in a machine made for each test.
//!
//! The machine is a network namespace, and so are the pods and the world outside; nothing of the real one is touched.
//! Needs root, `ip`, `nft` and /dev/net/tun; where one of them is missing the tests say so.

use std::future::poll_fn;
use std::io::{self, Cursor};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;
use windlass_wasi_shims::net::{NetError, VirtualNetwork};

use super::super::service_table::tests::{service, slice};
use super::super::switch::Transport;
use super::super::{NetworkConfig, PodNetwork, PodNetworkRequest};
use super::*;
use crate::network::follow::ObjectKey;

const PODS: &str = "10.42.0.0/24";
const SERVICES: &str = "10.96.0.0/16";
const VIP: &str = "10.96.0.9";

/// The machine's address to the world, and the world's.
const MACHINE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const WORLD: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// How long anything may take.
const SOON: Duration = Duration::from_secs(10);

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// A network namespace, which is gone with this value.
struct Namespace(String);

impl Namespace {
    fn new(role: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wltest-{}-{number}-{role}", std::process::id());
        ip(&format!("netns add {name}"));
        ip(&format!("-n {name} link set lo up"));
        Self(name)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }

    fn open(&self) -> NetworkNamespace {
        NetworkNamespace::open(&self.path()).unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip").args(["netns", "del", &self.0]).status();
        if !std::thread::panicking() {
            assert!(removed.unwrap().success(), "{} stays", self.0);
        }
    }
}

/// Why there can't be such a machine here.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    check().err()
}

/// Runs a test on a machine of its own.
fn on_a_machine<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
    if let Some(missing) = missing() {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    let machine = Namespace::new("machine");
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let whole = tokio::time::timeout(6 * SOON, test()).await;
            assert!(whole.is_ok(), "the test takes too long");
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        Ok(())
    };
    machine.open().within(run).unwrap();
}

/// The agent's part of it.
struct Node {
    network: Network,
    directory: PathBuf,
    _serving: AbortOnDropHandle<()>,
}

impl Node {
    async fn start(directory: &Path) -> Self {
        let network = Network::new(NetworkConfig::default());
        network.set_pod_cidr(PODS.parse().unwrap());
        let config = KernelConfig {
            services: Some(SERVICES.parse().unwrap()),
            directory: directory.to_owned(),
        };
        // The agent before may not quite have ended.
        while std::fs::read_to_string(LINKS).unwrap().contains("windlass") {
            tokio::task::yield_now().await;
        }
        let kernel = network.open_kernel(config).await.unwrap();
        Self {
            network,
            directory: directory.to_owned(),
            _serving: AbortOnDropHandle::new(tokio::spawn(kernel.serve())),
        }
    }

    fn pod(&self, name: &str) -> PodNetwork {
        self.pod_at(name, None)
    }

    /// A pod that had an address before.
    fn pod_at(&self, name: &str, address: Option<IpAddr>) -> PodNetwork {
        let labels = [("app".to_owned(), name.to_owned())].into();
        let request = PodNetworkRequest {
            namespace: "a".to_owned(),
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            labels,
            address: address.map(|ip| ip.to_string().parse().unwrap()),
            ..PodNetworkRequest::default()
        };
        self.network.set_up(&request).unwrap()
    }

    /// Does as containerd would for a pod's sandbox.
    async fn plugin(&self, command: &'static str, pod: &str, netns: &Namespace) -> bool {
        let socket = self.directory.join("cni.sock");
        let (pod, netns) = (pod.to_owned(), netns.path());
        let call = move || {
            let variable = |name: &str| match name {
                "CNI_COMMAND" => Some(command.to_owned()),
                "CNI_CONTAINERID" => Some(format!("sandbox-{pod}")),
                "CNI_NETNS" => Some(netns.display().to_string()),
                "CNI_IFNAME" => Some("eth0".to_owned()),
                "CNI_ARGS" => Some(format!("IgnoreUnknown=1;K8S_POD_UID=uid-{pod}")),
                _ => None,
            };
            let input = json!({"cniVersion": "1.0.0", "socket": socket}).to_string();
            let mut output = Vec::new();
            let done = run_plugin(variable, Cursor::new(input), &mut output).unwrap();
            if !done {
                eprintln!("{}", String::from_utf8_lossy(&output));
            }
            done
        };
        tokio::task::spawn_blocking(call).await.unwrap()
    }

    /// A pod with a namespace of its own.
    async fn linux_pod(&self, name: &str) -> LinuxPod {
        let network = self.pod(name);
        let namespace = Namespace::new(name);
        assert!(self.plugin("ADD", name, &namespace).await);
        LinuxPod { network, namespace }
    }

    /// A Service with these endpoints at port 8080.
    fn serve(&self, transport: Transport, endpoints: &[IpAddr]) {
        let mut facts = service("a", "web", VIP);
        facts.ports[0].transport = transport;
        self.network.0.services.apply_service(facts);
        let addresses: Vec<_> = endpoints.iter().map(IpAddr::to_string).collect();
        let endpoints: Vec<_> = addresses.iter().map(|ip| (ip.as_str(), true)).collect();
        let mut members = slice("a", "web", &endpoints);
        members.ports[0].1 = transport;
        let id = ObjectKey::new("a", "web-1");
        self.network.0.services.apply_slice(&id, members);
    }
}

struct LinuxPod {
    network: PodNetwork,
    namespace: Namespace,
}

impl LinuxPod {
    fn ip(&self) -> IpAddr {
        self.network.ip()
    }

    async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let connecting = self.namespace.open().socket(to)?.connect(to);
        tokio::time::timeout(SOON, connecting).await?
    }

    /// What a server at `to` says to a client in the pod.
    async fn ask(&self, to: SocketAddr) -> io::Result<String> {
        hear(self.connect(to).await?).await
    }

    async fn udp(&self, local: SocketAddr) -> UdpSocket {
        let bind = || std::net::UdpSocket::bind(local);
        let socket = self.namespace.open().within(bind).unwrap();
        socket.set_nonblocking(true).unwrap();
        UdpSocket::from_std(socket).unwrap()
    }
}

/// Sends "hello" and ends; reads to the end.
async fn hear(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) -> io::Result<String> {
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    let mut heard = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut heard)).await??;
    Ok(heard)
}

/// Answers each connection with a name, the client's address and what it said.
async fn serve_stream(
    name: &'static str,
    client: SocketAddr,
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
) {
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    let answer = format!("{name} {} {said}", client.ip());
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

/// A server in a namespace.
fn serve_in(namespace: &Namespace, name: &'static str, local: SocketAddr) -> AbortOnDropHandle<()> {
    let listener = namespace.open().listen(local).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (stream, client) = listener.accept().await.unwrap();
            tokio::spawn(serve_stream(name, client, stream));
        }
    }))
}

/// A server in the switch, as a guest's.
fn serve_wasm(pod: &PodNetwork, name: &'static str, local: SocketAddr) -> AbortOnDropHandle<()> {
    let mut listener = pod.bind_tcp(local).unwrap().listen(16).unwrap();
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok(stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
            tokio::spawn(serve_stream(name, stream.peer(), stream));
        }
    }))
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

fn any(port: u16) -> SocketAddr {
    at(Ipv4Addr::UNSPECIFIED.into(), port)
}

fn vip() -> SocketAddr {
    at(VIP.parse().unwrap(), 80)
}

#[test]
fn every_pod_reaches_every_pod_and_sees_who_it_is() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let wasm = node.pod("wasm");
        let _two = serve_in(&two.namespace, "two", any(8080));
        let _wasm = serve_wasm(&wasm, "wasm", any(8080));
        let expected = |name: &str, client: IpAddr| format!("{name} {client} hello");
        let (to_two, to_wasm) = (at(two.ip(), 8080), at(wasm.ip(), 8080));
        assert_eq!(one.ask(to_two).await.unwrap(), expected("two", one.ip()));
        assert_eq!(one.ask(to_wasm).await.unwrap(), expected("wasm", one.ip()));
        let stream = wasm.connect(None, to_two).await.unwrap();
        assert_eq!(hear(stream).await.unwrap(), expected("two", wasm.ip()));
        // The agent, and a program of the machine.
        let gateway: IpAddr = Ipv4Addr::new(10, 42, 0, 1).into();
        for to in [to_two, to_wasm] {
            let name = if to == to_two { "two" } else { "wasm" };
            let stream = node.network.host().connect(to).await.unwrap();
            assert_eq!(hear(stream).await.unwrap(), expected(name, gateway));
            let stream = TcpStream::connect(to).await.unwrap();
            assert_eq!(hear(stream).await.unwrap(), expected(name, gateway));
        }
        let inside = node.network.host();
        let stream = inside.connect_inside(two.ip(), 8080).await.unwrap();
        assert!(hear(stream).await.unwrap().starts_with("two 127.0.0.1"));
        let told = one.network.0.local.flows.told();
        let connections: Vec<_> = told.iter().map(|flow| flow.connections).collect();
        assert_eq!(connections, [1, 1], "{told:?}");
    });
}

#[test]
fn who_is_refused_learns_of_it_before_anything_is_open() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let wasm = node.pod("wasm");
        node.serve(Transport::Tcp, &[two.ip()]);
        let metadata = Ipv4Addr::new(169, 254, 169, 254).into();
        let cases = [
            (at(two.ip(), 81), io::ErrorKind::ConnectionRefused),
            (at(wasm.ip(), 81), io::ErrorKind::ConnectionRefused),
            // Its endpoint does not listen; there is no such port; there is no such Service.
            (vip(), io::ErrorKind::ConnectionRefused),
            (at(vip().ip(), 81), io::ErrorKind::ConnectionRefused),
            // What guests may not reach Linux containers may not either.
            (at(metadata, 80), io::ErrorKind::HostUnreachable),
            (at(MACHINE.into(), 22), io::ErrorKind::HostUnreachable),
        ];
        ip(&format!("addr add {MACHINE}/32 dev lo"));
        for (to, kind) in cases {
            let error = one.connect(to).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{to}: {error}");
        }
        let refused = wasm.connect(None, at(two.ip(), 81)).await.err();
        assert_eq!(refused, Some(NetError::ConnectionRefused));
    });
}

#[test]
fn a_service_leads_from_everywhere_to_endpoints_of_both_kinds() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let wasm = node.pod("wasm");
        let _two = serve_in(&two.namespace, "two", any(8080));
        let _wasm = serve_wasm(&wasm, "wasm", any(8080));
        node.serve(Transport::Tcp, &[two.ip(), wasm.ip()]);
        for (client, pod) in [
            ("one", Some(&one)),
            ("itself", Some(&two)),
            ("machine", None),
        ] {
            let mut answered = Vec::new();
            for _ in 0..4 {
                let answer = match pod {
                    Some(pod) => pod.ask(vip()).await,
                    None => hear(TcpStream::connect(vip()).await.unwrap()).await,
                };
                let answer = answer.unwrap_or_else(|error| panic!("{client}: {error}"));
                answered.push(answer.split(' ').next().unwrap().to_owned());
            }
            answered.sort();
            assert_eq!(answered, ["two", "two", "wasm", "wasm"], "{client}");
        }
        let mut answered = Vec::new();
        for _ in 0..2 {
            let stream = wasm.connect(None, vip()).await.unwrap();
            answered.push(hear(stream).await.unwrap());
        }
        answered.sort();
        assert!(answered[0].starts_with("two") && answered[1].starts_with("wasm"));
        // Nobody is left.
        node.serve(Transport::Tcp, &[]);
        let error = one.connect(vip()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn much_goes_both_ways_unharmed() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let listener = two.namespace.open().listen(any(8080)).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let _echo = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let (mut reader, mut writer) = stream.into_split();
                    tokio::io::copy(&mut reader, &mut writer).await.unwrap();
                });
            }
        }));
        node.serve(Transport::Tcp, &[two.ip()]);
        let sent: Vec<u8> = (0..4 << 20).map(|at: u32| (at % 251) as u8).collect();
        for to in [at(two.ip(), 8080), vip()] {
            let (mut reader, mut writer) = one.connect(to).await.unwrap().into_split();
            let data = sent.clone();
            let sending = tokio::spawn(async move { writer.write_all(&data).await });
            let mut got = vec![0; sent.len()];
            tokio::time::timeout(SOON, reader.read_exact(&mut got))
                .await
                .unwrap()
                .unwrap();
            sending.await.unwrap().unwrap();
            assert!(got == sent, "{to}");
        }
    });
}

#[test]
fn policies_hold_for_linux_containers_on_either_side() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let wasm = node.pod("wasm");
        let _two = serve_in(&two.namespace, "two", any(8080));
        let _wasm = serve_wasm(&wasm, "wasm", any(8080));
        let policies = &node.network.0.policies;
        let apply = |name: &str, spec: serde_json::Value| {
            let object = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec});
            policies.apply_policy(&serde_json::from_value(object).unwrap());
        };
        let app = |name: &str| json!({"matchLabels": {"app": name}});
        apply(
            "into-two",
            json!({"podSelector": app("two"), "ingress": [{"from": [{"podSelector": app("wasm")}]}]}),
        );
        let error = one.connect(at(two.ip(), 8080)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
        assert!(wasm.connect(None, at(two.ip(), 8080)).await.is_ok());
        // The node is let in, as probes have to be.
        assert!(TcpStream::connect(at(two.ip(), 8080)).await.is_ok());
        assert!(one.connect(at(wasm.ip(), 8080)).await.is_ok());
        apply(
            "out-of-one",
            json!({"podSelector": app("one"), "policyTypes": ["Egress"]}),
        );
        let error = one.connect(at(wasm.ip(), 8080)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::HostUnreachable);
        let denied: u64 = one
            .network
            .0
            .local
            .flows
            .told()
            .iter()
            .map(|it| it.denied)
            .sum();
        assert_eq!(denied, 1);
    });
}

async fn echo(socket: UdpSocket) {
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        socket.send_to(&buffer[..length], from).await.unwrap();
    }
}

/// Sends a datagram until it comes back: any may be lost.
async fn echoed(socket: &UdpSocket, to: SocketAddr, text: &[u8]) {
    let mut buffer = [0; 2048];
    for _ in 0..20 {
        socket.send_to(text, to).await.unwrap();
        let received = socket.recv_from(&mut buffer);
        if let Ok(received) = tokio::time::timeout(SOON / 20, received).await {
            let (length, from) = received.unwrap();
            assert_eq!((from, &buffer[..length]), (to, text));
            return;
        }
    }
    panic!("{to} does not answer");
}

#[test]
fn datagrams_go_wherever_connections_do() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let wasm = node.pod("wasm");
        let _two = AbortOnDropHandle::new(tokio::spawn(echo(two.udp(any(8080)).await)));
        let port = wasm.bind_udp(at(wasm.ip(), 8080)).unwrap();
        let answering = port.clone();
        let _wasm = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Ok(datagram) = poll_fn(|cx| answering.poll_receive(cx)).await {
                answering.send(datagram.from, datagram.data).unwrap();
            }
        }));
        let client = one.udp(any(0)).await;
        echoed(&client, at(two.ip(), 8080), b"to a Linux pod").await;
        echoed(&client, at(wasm.ip(), 8080), b"to a wasm pod").await;
        for endpoint in [two.ip(), wasm.ip()] {
            node.serve(Transport::Udp, &[endpoint]);
            echoed(&client, vip(), b"to a Service").await;
        }
        // Two links' length: it is cut up on the way, and whole when it arrives.
        echoed(&client, at(two.ip(), 8080), &[7; 2000]).await;
        let other = wasm.bind_udp(at(wasm.ip(), 0)).unwrap();
        other
            .send(at(two.ip(), 8080), bytes::Bytes::from_static(b"from wasm"))
            .unwrap();
        let heard = tokio::time::timeout(SOON, poll_fn(|cx| other.poll_receive(cx)));
        let heard = heard.await.unwrap().unwrap();
        assert_eq!(
            (heard.from, &heard.data[..]),
            (at(two.ip(), 8080), &b"from wasm"[..])
        );
    });
}

#[test]
fn names_are_answered_at_the_dns_service() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let one = node.linux_pod("one").await;
        let mut dns = service("kube-system", "kube-dns", "10.96.0.10");
        dns.ports[0].transport = Transport::Udp;
        dns.ports[0].port = 53;
        node.network.0.services.apply_service(dns);
        node.serve(Transport::Tcp, &[one.ip()]);
        let mut question = hickory_proto::op::Message::query();
        let name = "web.a.svc.cluster.local.".parse().unwrap();
        question.add_query(hickory_proto::op::Query::query(
            name,
            hickory_proto::rr::RecordType::A,
        ));
        let server: SocketAddr = "10.96.0.10:53".parse().unwrap();
        for client in [
            one.udp(any(0)).await,
            UdpSocket::bind(any(0)).await.unwrap(),
        ] {
            client
                .send_to(&question.to_vec().unwrap(), server)
                .await
                .unwrap();
            let mut buffer = [0; 512];
            let received = tokio::time::timeout(SOON, client.recv_from(&mut buffer)).await;
            let (length, from) = received.unwrap().unwrap();
            assert_eq!(from, server);
            let answer = hickory_proto::op::Message::from_vec(&buffer[..length]).unwrap();
            let told: Vec<_> = answer.answers.iter().map(|it| it.data.ip_addr()).collect();
            assert_eq!(told, [Some(vip().ip())]);
        }
    });
}

#[test]
fn outside_a_pod_has_the_machines_address() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let world = Namespace::new("world");
        ip(&format!(
            "link add wan type veth peer name wan netns {}",
            world.0
        ));
        ip(&format!("addr add {MACHINE}/24 dev wan"));
        ip("link set wan up");
        ip(&format!("-n {} addr add {WORLD}/24 dev wan", world.0));
        ip(&format!("-n {} link set wan up", world.0));
        let node = Node::start(directory.path()).await;
        let one = node.linux_pod("one").await;
        let _world = serve_in(&world, "world", any(80));
        let to = at(WORLD.into(), 80);
        assert_eq!(one.ask(to).await.unwrap(), format!("world {MACHINE} hello"));
        let bind = || std::net::UdpSocket::bind(any(53));
        let socket = world.open().within(bind).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _echo =
            AbortOnDropHandle::new(tokio::spawn(echo(UdpSocket::from_std(socket).unwrap())));
        echoed(
            &one.udp(any(0)).await,
            at(WORLD.into(), 53),
            b"out and back",
        )
        .await;
        // Nobody outside reaches a pod by a route of its own.
        let _one = serve_in(&one.namespace, "one", any(8080));
        ip(&format!("-n {} route add {PODS} via {MACHINE}", world.0));
        let to = at(one.ip(), 8080);
        let connecting = world.open().socket(to).unwrap().connect(to);
        let waited = tokio::time::timeout(Duration::from_millis(500), connecting).await;
        assert!(!matches!(waited, Ok(Ok(_))), "{waited:?}");
    });
}

#[test]
fn a_pod_cannot_send_as_another() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let port = node.pod("wasm");
        let receiver = port.bind_udp(at(port.ip(), 8080)).unwrap();
        ip(&format!(
            "-n {} addr add {}/32 dev eth0",
            one.namespace.0,
            two.ip()
        ));
        let forged = one.udp(at(two.ip(), 0)).await;
        forged
            .send_to(b"forged", at(port.ip(), 8080))
            .await
            .unwrap();
        let honest = two.udp(at(two.ip(), 0)).await;
        honest
            .send_to(b"honest", at(port.ip(), 8080))
            .await
            .unwrap();
        let heard = tokio::time::timeout(SOON, poll_fn(|cx| receiver.poll_receive(cx)));
        assert_eq!(&heard.await.unwrap().unwrap().data[..], b"honest");
    });
}

#[test]
fn wasm_and_linux_containers_of_one_pod_share_its_loopback() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        // One listens before the namespace is there, one after.
        let network = node.pod("mixed");
        let _early = serve_wasm(&network, "early", any(9001));
        let namespace = Namespace::new("mixed");
        assert!(node.plugin("ADD", "mixed", &namespace).await);
        let _late = serve_wasm(&network, "late", at(Ipv4Addr::LOCALHOST.into(), 9002));
        let _linux = serve_in(&namespace, "linux", at(Ipv4Addr::LOCALHOST.into(), 9003));
        let mixed = LinuxPod { network, namespace };
        let local = |port| at(Ipv4Addr::LOCALHOST.into(), port);
        assert!(
            mixed
                .ask(local(9001))
                .await
                .unwrap()
                .starts_with("early 127.0.0.1")
        );
        assert!(
            mixed
                .ask(local(9002))
                .await
                .unwrap()
                .starts_with("late 127.0.0.1")
        );
        let stream = mixed.network.connect(None, local(9003)).await.unwrap();
        assert!(hear(stream).await.unwrap().starts_with("linux 127.0.0.1"));
        let taken = mixed.network.bind_tcp(local(9003)).unwrap().listen(1).err();
        assert_eq!(taken, Some(NetError::AddressInUse));
        let other = node.linux_pod("other").await;
        let to = at(mixed.ip(), 9001);
        assert!(other.ask(to).await.unwrap().starts_with("early"));
    });
}

#[test]
fn pods_keep_their_addresses_and_connections_over_a_restart_of_the_agent() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let _other = node.pod("before");
        let (one, two) = (node.linux_pod("one").await, node.linux_pod("two").await);
        let listener = two.namespace.open().listen(any(8080)).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let mut near = one.connect(at(two.ip(), 8080)).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let addresses = [one.ip(), two.ip()];
        let [one, two] = [one, two].map(|pod| pod.namespace);
        drop((node, _other));
        // Nobody answers: nothing new comes about, and what there is goes on.
        let to = at(addresses[1], 8080);
        let connecting = one.open().socket(to).unwrap().connect(to);
        let waited = tokio::time::timeout(Duration::from_millis(300), connecting).await;
        assert!(!matches!(waited, Ok(Ok(_))), "{waited:?}");
        near.write_all(b"still").await.unwrap();
        let mut got = [0; 5];
        let reading = tokio::time::timeout(SOON, far.read_exact(&mut got));
        reading.await.unwrap().unwrap();
        let node = Node::start(directory.path()).await;
        let pods = [("two", addresses[1]), ("one", addresses[0])];
        let pods = pods.map(|(name, ip)| node.pod_at(name, Some(ip)));
        assert_eq!(
            pods.each_ref().map(PodNetwork::ip),
            [addresses[1], addresses[0]]
        );
        // Unreachable until the new agent has its routes.
        let connecting = async {
            while one.open().socket(to).unwrap().connect(to).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, connecting).await.unwrap();
        far.write_all(b"there").await.unwrap();
        let reading = tokio::time::timeout(SOON, near.read_exact(&mut got));
        reading.await.unwrap().unwrap();
        assert_eq!(&got, b"there");
        // A sandbox that ends takes its link along; one that replaced it keeps its own.
        assert!(node.plugin("DEL", "two", &one).await);
        assert!(node.plugin("CHECK", "two", &two).await);
        assert!(node.plugin("DEL", "two", &two).await);
        assert!(!node.plugin("CHECK", "two", &two).await);
        let refused = pods[1].connect(None, to).await.err();
        assert_eq!(refused, Some(NetError::ConnectionRefused));
    });
}

#[test]
fn a_pod_in_the_machines_network_is_behind_its_address_too() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let request = PodNetworkRequest {
            uid: "uid-host".to_owned(),
            host_network: true,
            ..PodNetworkRequest::default()
        };
        let host = node.network.set_up(&request).unwrap();
        let listener = TcpListener::bind(any(8080)).await.unwrap();
        let _host = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                let (stream, client) = listener.accept().await.unwrap();
                tokio::spawn(serve_stream("host", client, stream));
            }
        }));
        let one = node.linux_pod("one").await;
        let to = at(host.ip(), 8080);
        assert!(one.ask(to).await.unwrap().starts_with("host"));
        let probe = node.network.host().connect(to).await.unwrap();
        assert!(hear(probe).await.unwrap().starts_with("host"));
        let error = one.connect(at(host.ip(), 8081)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn everything_made_can_be_removed() {
    on_a_machine(|| async {
        let directory = tempfile::tempdir().unwrap();
        let node = Node::start(directory.path()).await;
        let _one = node.linux_pod("one").await;
        drop(node);
        clean_up().await.unwrap();
        let show = |arguments: &[&str]| {
            let output = Command::new(arguments[0]).args(&arguments[1..]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert_eq!(show(&["nft", "list", "ruleset"]), "");
        for table in ["5749", "5750"] {
            assert!(!show(&["ip", "rule"]).contains(table));
            assert_eq!(show(&["ip", "route", "show", "table", table]), "");
        }
        assert!(!show(&["ip", "link"]).contains("wlp"));
        assert!(!show(&["ip", "addr"]).contains("10.42.0.1"));
        // Nothing is there: nothing to do.
        clean_up().await.unwrap();
    });
}
