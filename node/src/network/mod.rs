//! The network of a node's pods, in user space.
//!
//! ```text
//!   guest ─ wasi:sockets, wasi:http ─► PodNetwork (pod.rs)
//!                                        │ name     dns/: the cluster's names, then the host's servers
//!                                        │ VIP      service_table.rs: Service address → endpoints
//!                                        ▼
//!            own or other pod here   switch.rs: an in-memory pipe to the listener
//!            pod on another node     tunnel/: a stream from that node's agent (node_table.rs)
//!            anything else           egress.rs: a kernel socket, if the rules allow it
//! ```
//!
//! 1. [`Network`] is made once per node. The node's pod CIDR arrives later
//!    ([`Network::set_pod_cidr`]); until then pods can't be set up.
//! 2. [`Network::set_up`] gives a pod its address; the pod's containers share the [`PodNetwork`].
//! 3. [`Network::watch_services`] keeps the service table; [`Network::serve_outside`] opens NodePorts and
//!    external addresses.
//! 4. The agent itself (probes, port-forward, proxies) reaches pods through [`Network::host`], and so do clients of
//!    Ingresses (`ingress/`).
//!
//! Invariants: no packet leaves the process but by egress, tunnel or a NodePort; rules are checked
//! on the address actually dialled, after names and Services were resolved; no lock is held over
//! an await.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;
use windlass_api::grants;

use crate::objects::ObjectWatches;

mod address_pool;
mod connect;
mod counts;
mod dns;
mod egress;
mod endpoints;
mod flows;
mod follow;
mod health_check;
mod host;
mod ingress;
mod kernel;
mod local_pod;
mod node_table;
mod outside;
mod pod;
pub(crate) mod policy;
mod service_table;
mod service_watch;
mod switch;
pub(crate) mod tunnel;
mod udp;
mod udp_egress;
mod udp_sessions;

pub use address_pool::{Cidr, CidrError};
pub use dns::{DnsListener, PodDns, PodResolvConf, Resolvers};
pub(crate) use egress::join;
pub use host::HostNetwork;
pub use ingress::IngressListeners;
pub use kernel::{
    KernelConfig, KernelError, KernelNetwork, ToolError, check as check_kernel,
    clean_up as clean_up_kernel, install_plugin, run_plugin,
};
pub use outside::ListenFailure;
pub use pod::PodNetwork;
pub use policy::{NamedPort, PodIdentity};
pub(crate) use service_table::{LinkedPort, ServiceAddress};
pub use tunnel::{Call, Tunnel, TunnelIdentity, TunnelStream};

use address_pool::AddressPool;
pub(crate) use counts::{BUCKETS, Requests};
use counts::{DnsCounts, IngressCounts};
use dns::Dns;
use egress::Egress;
use endpoints::Place;
use follow::ObjectKey;
use kernel::Joining;
use local_pod::LocalPod;
use node_table::NodeTable;
use policy::PolicyTable;
use service_table::ServiceTable;
use udp_sessions::UdpSessions;

/// What a node's network is told once.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Name of the node: what a Service may keep its traffic on.
    pub node_name: String,
    /// Domain of the cluster's names.
    pub cluster_domain: String,
    /// Range of all pods of the cluster: addresses in it never leave by egress.
    pub cluster_cidr: Option<Cidr>,
    /// Addresses of the node that pods may not reach. Addresses of this machine's interfaces are
    /// recognised without being listed.
    pub node_addresses: Vec<IpAddr>,
    /// Where Service `default/kubernetes` leads: the API server as this agent reaches it.
    pub api_server: Option<SocketAddr>,
    /// Who is asked for names outside of the cluster.
    pub resolvers: Resolvers,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_cidr: None,
            node_addresses: Vec::new(),
            api_server: None,
            resolvers: Resolvers::default(),
        }
    }
}

/// A pod that needs a network.
#[derive(Debug, Clone, Default)]
pub struct PodNetworkRequest {
    /// Namespace of the pod: where its short names are looked up first.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Host name of the pod, which resolves to its own address.
    pub hostname: String,
    /// How the pod resolves names.
    pub dns: PodDns,
    /// Where the pod may connect to.
    pub egress: grants::Egress,
    /// Labels of the pod, by which policies select it.
    pub labels: BTreeMap<String, String>,
    /// The address to give to it, if that is free.
    pub address: Option<Ipv4Addr>,
    /// Whether its Linux containers use this machine's network (`hostNetwork`).
    pub host_network: bool,
    /// The ports of its containers that have a name, by which policies may speak of them.
    pub ports: Vec<NamedPort>,
}

/// Why a pod got no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The node has no pod CIDR yet; trying again later helps.
    #[error("the node has no pod CIDR yet")]
    NoPodCidr,
    /// Every address of the pod CIDR is in use.
    #[error("no free address is left in pod CIDR {0}")]
    Exhausted(Cidr),
}

/// The network of one node. Cheap to clone.
#[derive(Clone)]
pub struct Network(Arc<Core>);

/// What all pods of the node share.
struct Core {
    config: NetworkConfig,
    pool: Mutex<Option<AddressPool>>,
    pod_cidr: watch::Sender<Option<Cidr>>,
    pods: RwLock<HashMap<Ipv4Addr, Arc<LocalPod>>>,
    services: ServiceTable,
    policies: PolicyTable,
    udp_sessions: UdpSessions,
    nodes: Arc<NodeTable>,
    dns: Dns,
    egress: Egress,
    dns_counts: DnsCounts,
    ingress_counts: IngressCounts,
    tunnel_counts: Arc<tunnel::TunnelCounts>,
    tunnel: arc_swap::ArcSwapOption<Arc<dyn Tunnel>>,
    kernel: arc_swap::ArcSwapOption<Joining>,
}

impl Network {
    /// A network with no pods. Kernel sockets (egress, NodePorts) live on the tokio runtime this is
    /// called in.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(config: NetworkConfig) -> Self {
        let services = ServiceTable::new();
        services.set_place(Place {
            node: config.node_name.clone(),
            zone: None,
        });
        Self(Arc::new(Core {
            dns: Dns::new(&config),
            egress: Egress::new(config.node_addresses.iter().copied()),
            config,
            pool: Mutex::new(None),
            pod_cidr: watch::channel(None).0,
            pods: RwLock::default(),
            services,
            policies: PolicyTable::new(),
            udp_sessions: UdpSessions::default(),
            nodes: Arc::new(NodeTable::new()),
            dns_counts: DnsCounts::default(),
            ingress_counts: IngressCounts::default(),
            tunnel_counts: Arc::default(),
            tunnel: arc_swap::ArcSwapOption::empty(),
            kernel: arc_swap::ArcSwapOption::empty(),
        }))
    }

    /// Gives the node its range of pod addresses. The same range again changes nothing; another one
    /// serves new pods while the present ones keep their addresses.
    pub fn set_pod_cidr(&self, cidr: Cidr) {
        let mut pool = self.0.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.as_ref().is_none_or(|pool| pool.cidr() != cidr) {
            *pool = Some(AddressPool::new(cidr));
            self.0.pod_cidr.send_replace(Some(cidr));
        }
    }

    /// The node's pod CIDR, now and as it changes.
    pub(crate) fn pod_cidrs(&self) -> watch::Receiver<Option<Cidr>> {
        self.0.pod_cidr.subscribe()
    }

    /// Waits until the node has a pod CIDR. Cancel-safe.
    pub async fn pod_cidr(&self) -> Cidr {
        let mut changes = self.pod_cidrs();
        loop {
            if let Some(cidr) = *changes.borrow_and_update() {
                return cidr;
            }
            if changes.changed().await.is_err() {
                // The sender lives as long as `self`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Gives a pod its address and its own loopback.
    ///
    /// # Errors
    /// [`NetworkError`] if there is no address to give.
    pub fn set_up(&self, request: &PodNetworkRequest) -> Result<PodNetwork, NetworkError> {
        let address = self.0.take_address(request.address)?;
        let identity = PodIdentity {
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            labels: request.labels.clone(),
            ports: request.ports.clone(),
        };
        let pod = Arc::new(LocalPod::new(address, request.uid.clone(), identity));
        self.0
            .pods
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(address, pod.clone());
        if let Some(kernel) = self.0.kernel.load_full() {
            if request.host_network {
                kernel.join_machine(&pod);
            } else {
                kernel.rejoin(&pod);
            }
        }
        Ok(PodNetwork::new(self.0.clone(), pod, request))
    }

    /// Gives pods of other nodes a way: without a tunnel they are unreachable.
    pub fn set_tunnel(&self, tunnel: Arc<dyn Tunnel>) {
        self.0.tunnel.store(Some(Arc::new(tunnel)));
    }

    /// Gives pods of other nodes a way through those nodes' agents, until the future is dropped: the
    /// client is for learning of the cluster's Nodes, the identity for calling their agents.
    pub async fn tunnel_between_agents(&self, client: kube::Client, identity: TunnelIdentity) {
        let (nodes, counts) = (self.0.nodes.clone(), self.0.tunnel_counts.clone());
        let tunnel = tunnel::AgentTunnel::new(nodes, identity, counts);
        self.set_tunnel(Arc::new(tunnel));
        let node = self.0.config.node_name.clone();
        let placed = |zone| {
            let node = node.clone();
            self.0.services.set_place(Place { node, zone });
        };
        let zone = self.0.nodes.follow_zone(&node, placed);
        tokio::join!(self.0.nodes.watch(client), zone);
    }

    /// The agent's own way to the pods.
    pub fn host(&self) -> HostNetwork {
        HostNetwork::new(self.0.clone())
    }

    /// Keeps the service table in step with the cluster's Services and EndpointSlices, until dropped.
    pub async fn watch_services(&self, client: kube::Client) {
        service_watch::run(&self.0.services, client).await;
    }

    /// Keeps the NetworkPolicies that are enforced in step with the cluster's, until dropped. From the call on
    /// nothing is connected before they are known.
    pub fn watch_policies(
        &self,
        client: kube::Client,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.0.policies.await_policies();
        let core = self.0.clone();
        async move { core.policies.watch(client).await }
    }

    /// Waits until [`Self::watch_services`] has seen the Services that there are. Cancel-safe.
    pub(crate) async fn services_listed(&self) {
        self.0.services.listed().await;
    }

    /// Takes one Service in, as the watch would.
    #[cfg(test)]
    pub(crate) fn learn_service(&self, service: &k8s_openapi::api::core::v1::Service) {
        let facts = service_watch::service_facts(service);
        self.0.services.apply_service(facts);
    }

    /// A Service, if it has an address of its own.
    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<ServiceAddress> {
        let key = ObjectKey::new(namespace, name);
        self.0.services.load().address(&key)
    }

    /// The Services of a namespace that have an address of their own, by name.
    pub(crate) fn services(&self, namespace: &str) -> Vec<ServiceAddress> {
        self.0.services.load().addresses_in(namespace).collect()
    }

    /// Opens what the cluster's Services are reached by from outside, until dropped: node ports and health checks
    /// on `bind`, and those external addresses that this machine has.
    ///
    /// `failed` is told when a port can't be opened; opening is tried again.
    pub async fn serve_outside(&self, bind: IpAddr, failed: impl Fn(ListenFailure) + Send + Sync) {
        outside::serve(self.host(), bind, failed).await;
    }

    /// Serves the cluster's Ingresses to clients outside, until dropped.
    pub(crate) async fn serve_ingresses(
        &self,
        listeners: IngressListeners,
        client: kube::Client,
        objects: Arc<ObjectWatches>,
    ) {
        ingress::serve(self.host(), listeners, client, objects).await;
    }

    /// Answers what is asked at the host's sockets, until dropped: names of the cluster, and for this machine those
    /// outside.
    pub async fn serve_dns(&self, listener: DnsListener) {
        listener.serve(self.0.clone()).await;
    }
}

impl Core {
    /// An address for a pod: the one that is wanted, if that is free.
    fn take_address(&self, wanted: Option<Ipv4Addr>) -> Result<Ipv4Addr, NetworkError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pool.as_mut().ok_or(NetworkError::NoPodCidr)?;
        let wanted = wanted.filter(|wanted| pool.take_this(*wanted));
        let address = wanted.or_else(|| pool.take());
        address.ok_or(NetworkError::Exhausted(pool.cidr()))
    }

    /// Takes a pod off the network; its address may be given to another.
    fn release(&self, pod: &LocalPod) {
        let address = pod.ports.address();
        let mut pods = self.pods.write().unwrap_or_else(PoisonError::into_inner);
        // The address may belong to another pod by now if this one was released before.
        if pods
            .get(&address)
            .is_some_and(|current| std::ptr::eq(Arc::as_ptr(current), pod))
        {
            pods.remove(&address);
            drop(pods);
            if let Some(pool) = self
                .pool
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
                && pool.cidr().contains(address.into())
            {
                pool.give_back(address);
            }
        }
    }

    /// The pod of this node with that address.
    fn pod(&self, address: IpAddr) -> Option<Arc<LocalPod>> {
        let IpAddr::V4(address) = address else {
            return None;
        };
        self.pods
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&address)
            .cloned()
    }

    /// The pod of this node with that `metadata.uid`.
    fn pod_with_uid(&self, uid: &str) -> Option<Arc<LocalPod>> {
        let pods = self.pods.read().unwrap_or_else(PoisonError::into_inner);
        pods.values().find(|pod| pod.uid == uid).cloned()
    }

    /// Whether an address of a pod, here or elsewhere, is meant.
    fn is_pod_address(&self, address: IpAddr) -> bool {
        self.config
            .cluster_cidr
            .is_some_and(|cidr| cidr.contains(address))
            || self.is_of_this_node(address)
            || self.nodes.owner(address).is_some()
    }

    /// Whether the address is of this node's range, in use or not.
    fn is_of_this_node(&self, address: IpAddr) -> bool {
        self.pod_cidr
            .borrow()
            .is_some_and(|cidr| cidr.contains(address))
    }
}
