//! What is reached from outside of the cluster: kernel listeners of this node, joined to endpoints of Services.
//!
//! | listener | where | leads to |
//! |---|---|---|
//! | node port | the address given, at the port of the Service | its endpoints, by `externalTrafficPolicy` |
//! | external address | an address of `externalIPs` or of the load balancer, at the Service's own port | the same |
//! | health check | the address given, at `healthCheckNodePort` | an answer: how many endpoints are here |
//!
//! 1. Every change of the service table compares the listeners wanted with those there are.
//! 2. A listener accepts for as long as it is wanted. The Service's endpoints are looked up for each connection
//!    anew, so that an update never needs a new listener.
//! 3. Connections outlive their listener: they end when their ends do.
//! 4. The client's own address is what the pod sees, and what policies go by; who comes from this machine itself is
//!    the node.
//!
//! One that can't be opened is reported once and tried again until it can. An external address that this machine
//! does not have is another node's, or nobody's, and no failure; it is looked for again, too.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::task::AbortOnDropHandle;

use super::follow::ObjectKey;
use super::host::HostNetwork;
use super::switch::Transport;
use super::{egress, health_check, udp_sessions};

/// How long after a failure a listener is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A listener for a Service that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{protocol} port {} of service {namespace}/{name} can't be opened on {}", address.port(), address.ip())]
pub struct ListenFailure {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Where it was to be opened.
    pub address: SocketAddr,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    NodePort(u16),
    External(SocketAddr),
    HealthCheck(u16),
}

/// A listener: how, where, what for.
type Door = (Transport, SocketAddr, Purpose);

/// Keeps a listener for everything wanted until dropped.
pub(super) async fn serve(
    host: HostNetwork,
    bind: IpAddr,
    failed: impl Fn(ListenFailure) + Send + Sync,
) {
    let mut changes = host.core().services.changes();
    let mut listeners = Listeners::default();
    loop {
        changes.mark_unchanged();
        let complete = reconcile(&host, bind, &mut listeners, &failed).await;
        let changed = changes.changed();
        if complete {
            if changed.await.is_err() {
                return;
            }
        } else {
            // Either way the next round looks at everything again.
            let _elapsed = tokio::time::timeout(RETRY, changed).await;
        }
    }
}

/// What is open, and what could not be opened and was said so of.
#[derive(Default)]
struct Listeners {
    open: BTreeMap<Door, AbortOnDropHandle<()>>,
    reported: BTreeSet<Door>,
}

/// The listeners that the Services of now want, and for whom.
fn wanted(host: &HostNetwork, bind: IpAddr) -> BTreeMap<Door, ObjectKey> {
    let table = host.core().services.load();
    let node_ports = table.node_ports().map(|(transport, port, key)| {
        let at = SocketAddr::new(bind, port);
        ((transport, at, Purpose::NodePort(port)), key)
    });
    let external = table
        .external_addresses()
        .map(|(transport, at, key)| ((transport, at, Purpose::External(at)), key));
    let checks = table.health_checks().map(|(port, key)| {
        let at = SocketAddr::new(bind, port);
        ((Transport::Tcp, at, Purpose::HealthCheck(port)), key)
    });
    let all = node_ports.chain(external).chain(checks);
    all.map(|(door, key)| (door, key.clone())).collect()
}

/// Opens and closes listeners; answers whether every one wanted is open.
async fn reconcile(
    host: &HostNetwork,
    bind: IpAddr,
    listeners: &mut Listeners,
    failed: &(impl Fn(ListenFailure) + Send + Sync),
) -> bool {
    let wanted = wanted(host, bind);
    listeners.open.retain(|door, _| wanted.contains_key(door));
    listeners.reported.retain(|door| wanted.contains_key(door));
    let mut complete = true;
    for (door, key) in wanted {
        if listeners.open.contains_key(&door) {
            continue;
        }
        match listen(host, door, &key).await {
            Ok(task) => {
                listeners.reported.remove(&door);
                listeners.open.insert(door, task);
            }
            Err(source) => {
                complete = false;
                let (transport, address, purpose) = door;
                let is_elsewhere = source.kind() == io::ErrorKind::AddrNotAvailable
                    && matches!(purpose, Purpose::External(_));
                if !is_elsewhere && listeners.reported.insert(door) {
                    failed(ListenFailure {
                        namespace: key.namespace,
                        name: key.name,
                        protocol: transport.as_str(),
                        address,
                        source,
                    });
                }
            }
        }
    }
    complete
}

async fn listen(
    host: &HostNetwork,
    (transport, at, purpose): Door,
    key: &ObjectKey,
) -> io::Result<AbortOnDropHandle<()>> {
    let host = host.clone();
    let task = match (transport, purpose) {
        (Transport::Tcp, Purpose::HealthCheck(_)) => {
            let listener = TcpListener::bind(at).await?;
            tokio::spawn(health_check::serve(host, listener, key.clone()))
        }
        (Transport::Tcp, _) => {
            let listener = TcpListener::bind(at).await?;
            tokio::spawn(accept(host, listener, purpose))
        }
        (Transport::Udp, _) => {
            let socket = UdpSocket::bind(at).await?;
            tokio::spawn(udp_sessions::receive(host, socket, purpose))
        }
    };
    Ok(AbortOnDropHandle::new(task))
}

async fn accept(host: HostNetwork, listener: TcpListener, purpose: Purpose) {
    loop {
        match listener.accept().await {
            Ok((connection, client)) => {
                tokio::spawn(proxy(host.clone(), connection, client, purpose));
            }
            Err(error) => {
                // Most likely out of descriptors: pause rather than spin.
                tracing::warn!(?purpose, %error, "a connection from outside was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn proxy(host: HostNetwork, connection: TcpStream, client: SocketAddr, purpose: Purpose) {
    let Some(service) = host.service_behind(Transport::Tcp, purpose) else {
        return;
    };
    // Small answers must not wait for the client's delayed acknowledgement.
    let _best_effort = connection.set_nodelay(true);
    match host.connect_service(&service, client).await {
        Ok(stream) => egress::join(connection, stream).await,
        Err(error) => {
            tracing::debug!(?purpose, %client, %error, "no endpoint answers a client outside");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::service_table::tests::{service, slice};
    use super::super::service_table::{ServiceFacts, SliceFacts};
    use super::super::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
    use super::*;
    use std::future::poll_fn;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use windlass_wasi_shims::net::VirtualNetwork;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn network() -> Network {
        let network = Network::new(NetworkConfig::default());
        network.set_pod_cidr("10.42.0.0/24".parse().unwrap());
        network
    }

    /// A pod that answers each connection with its name and then echoes.
    fn pod(network: &Network, name: &'static str) -> PodNetwork {
        let pod = network.set_up(&PodNetworkRequest::default()).unwrap();
        let local = SocketAddr::new(pod.ip(), 8080);
        let mut listener = pod.bind_tcp(local).unwrap().listen(16).unwrap();
        tokio::spawn(async move {
            while let Ok(mut stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
                stream.write_all(name.as_bytes()).await.unwrap();
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await.unwrap();
                stream.write_all(&text).await.unwrap();
            }
        });
        pod
    }

    fn facts(port: u16, pods: &[&PodNetwork]) -> (ServiceFacts, SliceFacts) {
        let mut web = service("a", "web", "10.96.0.9");
        web.ports[0].node_port = Some(port);
        let addresses: Vec<_> = pods.iter().map(|pod| pod.ip().to_string()).collect();
        let endpoints: Vec<_> = addresses.iter().map(|ip| (ip.as_str(), true)).collect();
        (web, slice("a", "web", &endpoints))
    }

    fn apply(network: &Network, port: u16, pods: &[&PodNetwork]) {
        let (web, members) = facts(port, pods);
        network.0.services.apply_service(web);
        network
            .0
            .services
            .apply_slice(&ObjectKey::new("a", "web-1"), members);
    }

    async fn free_port() -> u16 {
        TcpListener::bind((LOOPBACK, 0))
            .await
            .unwrap()
            .local_addr()
            .unwrap()
            .port()
    }

    /// Connects as soon as the port is open.
    async fn dial(port: u16) -> TcpStream {
        loop {
            match TcpStream::connect((LOOPBACK, port)).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }

    async fn ask(port: u16, text: &str) -> String {
        let mut stream = dial(port).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_node_port_leads_to_every_endpoint_in_turn() {
        let network = network();
        let (one, two) = (pod(&network, "one "), pod(&network, "two "));
        let port = free_port().await;
        apply(&network, port, &[&one, &two]);
        let _serving = AbortOnDropHandle::new(tokio::spawn({
            let network = network.clone();
            async move { network.serve_outside(LOOPBACK, |_| {}).await }
        }));
        let mut answers = vec![ask(port, "ping").await, ask(port, "ping").await];
        answers.sort();
        assert_eq!(answers, ["one ping", "two ping"]);
        let ip = one.ip();
        one.tear_down();
        for _ in 0..4 {
            assert_eq!(
                ask(port, "still").await,
                "two still",
                "{ip} is gone and is skipped"
            );
        }
    }

    /// A pod that sends each datagram back.
    fn echo(network: &Network) -> PodNetwork {
        let pod = network.set_up(&PodNetworkRequest::default()).unwrap();
        let port = pod.bind_udp(SocketAddr::new(pod.ip(), 8080)).unwrap();
        tokio::spawn(async move {
            while let Ok(datagram) = poll_fn(|cx| port.poll_receive(cx)).await {
                port.send(datagram.from, datagram.data).unwrap();
            }
        });
        pod
    }

    #[tokio::test]
    async fn datagrams_come_in_by_a_node_port_and_answers_leave_by_it() {
        let network = network();
        let (one, two) = (echo(&network), echo(&network));
        let port = free_port().await;
        let (mut web, mut members) = facts(port, &[&one, &two]);
        web.ports[0].transport = Transport::Udp;
        members.ports[0].1 = Transport::Udp;
        network.0.services.apply_service(web);
        let id = ObjectKey::new("a", "web-1");
        network.0.services.apply_slice(&id, members);
        let _serving = serving(&network);
        let client = UdpSocket::bind((LOOPBACK, 0)).await.unwrap();
        client.connect((LOOPBACK, port)).await.unwrap();
        let mut buffer = [0; 16];
        for text in [&b"first"[..], b"second", b"third"] {
            // Before the port is open, what is sent to it is refused or lost.
            let answer = async {
                loop {
                    let _refused = client.send(text).await;
                    let received = client.recv(&mut buffer);
                    let soon = tokio::time::timeout(Duration::from_millis(50), received);
                    if let Ok(Ok(length)) = soon.await
                        && &buffer[..length] == text
                    {
                        return;
                    }
                }
            };
            answer.await;
        }
        let seen = [&one, &two].map(|pod| pod.0.local.flows.told().len());
        assert_eq!(
            seen.iter().sum::<usize>(),
            1,
            "a client stays with its endpoint: {seen:?}"
        );
    }

    fn serving(network: &Network) -> AbortOnDropHandle<()> {
        let network = network.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            network
                .serve_outside(LOOPBACK, |failure| panic!("{failure}"))
                .await;
        }))
    }

    #[tokio::test]
    async fn an_external_address_of_this_machine_leads_to_the_service_and_others_are_left_alone() {
        let network = network();
        let web = pod(&network, "web ");
        let port = free_port().await;
        let (mut service, members) = facts(port, &[&web]);
        service.ports[0].node_port = None;
        service.ports[0].port = port;
        // The first is documentation's and nobody's.
        service.external_ips = vec!["192.0.2.1".parse().unwrap(), LOOPBACK];
        network.0.services.apply_service(service);
        let id = ObjectKey::new("a", "web-1");
        network.0.services.apply_slice(&id, members);
        let _serving = serving(&network);
        assert_eq!(ask(port, "ping").await, "web ping");
    }

    #[tokio::test]
    async fn traffic_that_stays_on_its_node_is_answered_for_by_a_health_check() {
        let network = network();
        network
            .0
            .services
            .set_place(super::super::endpoints::Place {
                node: "here".to_owned(),
                zone: None,
            });
        let web = pod(&network, "web ");
        let (port, check) = (free_port().await, free_port().await);
        let (mut service, mut members) = facts(port, &[&web]);
        service.outside = super::super::endpoints::TrafficPolicy::Local;
        service.health_check_port = Some(check);
        members.endpoints[0].node = Some("there".to_owned());
        network.0.services.apply_service(service);
        let id = ObjectKey::new("a", "web-1");
        network.0.services.apply_slice(&id, members.clone());
        let _serving = serving(&network);
        let request = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
        let answer = ask(check, request).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let mut nobody = dial(port).await;
        let closed = nobody.read(&mut [0; 8]).await;
        assert!(closed.is_err() || closed.is_ok_and(|length| length == 0));
        members.endpoints[0].node = Some("here".to_owned());
        network.0.services.apply_slice(&id, members);
        let answer = ask(check, request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(r#""localEndpoints":1"#), "{answer}");
        assert_eq!(ask(port, "ping").await, "web ping");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_reported_and_others_open() {
        let network = network();
        let web = pod(&network, "web ");
        let taken = TcpListener::bind((LOOPBACK, 0)).await.unwrap();
        let taken_port = taken.local_addr().unwrap().port();
        apply(&network, taken_port, &[&web]);
        let failures = Arc::new(Mutex::new(Vec::new()));
        let (report, mut reported) = tokio::sync::mpsc::unbounded_channel();
        let _serving = AbortOnDropHandle::new(tokio::spawn({
            let (network, failures) = (network.clone(), failures.clone());
            async move {
                let failed = move |failure: ListenFailure| {
                    failures.lock().unwrap().push(failure.to_string());
                    report.send(()).unwrap();
                };
                network.serve_outside(LOOPBACK, failed).await;
            }
        }));
        reported.recv().await.unwrap();
        let text = failures.lock().unwrap()[0].clone();
        let want = format!("TCP port {taken_port} of service a/web can't be opened on 127.0.0.1");
        assert_eq!(text, want);
        let other = free_port().await;
        apply(&network, other, &[&web]);
        assert_eq!(ask(other, "hi").await, "web hi");
    }

    #[tokio::test]
    async fn a_pod_reaches_a_service_by_name_and_address() {
        let network = network();
        let (server, client) = (pod(&network, "server "), pod(&network, "client "));
        apply(&network, 30_080, &[&server]);
        let found = client.resolve("web.a.svc.cluster.local").await.unwrap();
        assert_eq!(found, ["10.96.0.9".parse::<IpAddr>().unwrap()]);
        let to = SocketAddr::new(found[0], 80);
        let mut stream = client.connect(None, to).await.unwrap();
        assert_eq!((stream.peer(), stream.local().ip()), (to, client.ip()));
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "server ");
        let closed = client.connect(None, SocketAddr::new(found[0], 81)).await;
        assert_eq!(
            closed.err(),
            Some(windlass_wasi_shims::net::NetError::ConnectionRefused)
        );
    }

    #[tokio::test]
    async fn addresses_are_freed_with_the_last_clone() {
        let network = Network::new(NetworkConfig::default());
        let request = PodNetworkRequest::default();
        assert!(network.set_up(&request).is_err());
        network.set_pod_cidr("10.42.0.0/30".parse().unwrap());
        let only = network.set_up(&request).unwrap();
        let clone = only.clone();
        drop(only);
        assert!(network.set_up(&request).is_err());
        drop(clone);
        let again = network.set_up(&request).unwrap();
        again.tear_down();
        let _other = network.set_up(&request).unwrap();
        drop(again);
        assert!(
            network.set_up(&request).is_err(),
            "a stale clone must not free the new owner's"
        );
    }
}
