//! NodePorts: a kernel listener per node port, joined to an endpoint of its Service.
//!
//! 1. Every change of the service table compares the ports wanted with the listeners there are.
//! 2. A listener accepts for as long as its port is wanted. The Service's endpoints are looked up
//!    for each connection anew, so that an update never needs a new listener.
//! 3. Connections outlive their listener: they end when their ends do.
//!
//! A port that can't be opened is reported once per attempt and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::egress;
use super::host::HostNetwork;
use super::switch::Transport;

/// How long after a failure a port is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// A node port that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("node port {port} of service {namespace}/{name} can't be opened on {bind}")]
pub struct NodePortFailure {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// The node port.
    pub port: u16,
    /// The host address it was to be opened on.
    pub bind: IpAddr,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Keeps a listener for every node port until dropped.
pub(super) async fn serve(
    host: HostNetwork,
    bind: IpAddr,
    failed: impl Fn(NodePortFailure) + Send + Sync,
) {
    let mut changes = host.core().services.changes();
    let mut listeners = BTreeMap::new();
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

/// Opens and closes listeners; answers whether every port wanted is open.
async fn reconcile(
    host: &HostNetwork,
    bind: IpAddr,
    listeners: &mut BTreeMap<u16, AbortOnDropHandle<()>>,
    failed: &(impl Fn(NodePortFailure) + Send + Sync),
) -> bool {
    let table = host.core().services.load();
    let tcp = |(transport, port, key)| (transport == Transport::Tcp).then_some((port, key));
    let wanted: BTreeMap<u16, _> = table.node_ports().filter_map(tcp).collect();
    listeners.retain(|port, _| wanted.contains_key(port));
    let open: BTreeSet<u16> = listeners.keys().copied().collect();
    let mut complete = true;
    for (port, key) in wanted {
        if open.contains(&port) {
            continue;
        }
        match TcpListener::bind((bind, port)).await {
            Ok(listener) => {
                let task = tokio::spawn(accept(host.clone(), listener, port));
                listeners.insert(port, AbortOnDropHandle::new(task));
            }
            Err(source) => {
                complete = false;
                let (namespace, name) = (key.namespace.clone(), key.name.clone());
                failed(NodePortFailure {
                    namespace,
                    name,
                    port,
                    bind,
                    source,
                });
            }
        }
    }
    complete
}

async fn accept(host: HostNetwork, listener: TcpListener, port: u16) {
    loop {
        match listener.accept().await {
            Ok((connection, client)) => {
                tokio::spawn(proxy(host.clone(), connection, client, port));
            }
            Err(error) => {
                // Most likely out of descriptors: pause rather than spin.
                tracing::warn!(port, %error, "a connection to a node port was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn proxy(host: HostNetwork, connection: TcpStream, client: SocketAddr, port: u16) {
    let service = host
        .core()
        .services
        .load()
        .by_node_port(Transport::Tcp, port);
    let Some(service) = service else { return };
    // Small answers must not wait for the client's delayed acknowledgement.
    let _best_effort = connection.set_nodelay(true);
    match host.connect_service(&service, client).await {
        Ok(stream) => egress::join(connection, stream).await,
        Err(error) => {
            tracing::debug!(port, %client, %error, "no endpoint answers behind a node port");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::follow::ObjectKey;
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
            async move { network.serve_node_ports(LOOPBACK, |_| {}).await }
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
                let failed = move |failure: NodePortFailure| {
                    failures.lock().unwrap().push(failure.to_string());
                    report.send(()).unwrap();
                };
                network.serve_node_ports(LOOPBACK, failed).await;
            }
        }));
        reported.recv().await.unwrap();
        let text = failures.lock().unwrap()[0].clone();
        let want = format!("node port {taken_port} of service a/web can't be opened on 127.0.0.1");
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
