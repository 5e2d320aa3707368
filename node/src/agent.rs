//! The embedding API and the composition root: every long-running part of the agent, named once.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use windlass_api::stream::local::Dialer;
use windlass_oci::content_store::{ContentError, ContentStore};
use windlass_oci::registry::remote::registries::Registries;

use crate::clock::Clock;
use crate::events::EventRecorder;
use crate::handle::NodeHandle;
use crate::images::{self, ImageCollection, Images, InvalidThresholds};
use crate::logs::{LogLimits, Logs};
use crate::network::{
    self, DnsListener, IngressListeners, KernelNetwork, Network, NetworkConfig, TunnelIdentity,
};
use crate::objects::ObjectWatches;
use crate::pods::room::Room;
use crate::pods::{self, Files, KnownPods, NodeContext, RunningContainers};
use crate::pressure::{self, Pressure, Thresholds};
use crate::registration::{self, Machine, Registration};
use crate::runtime::{Runtime, Runtimes};
use crate::server::stats::Looks;
use crate::server::tls::DaemonTls;
use crate::server::{DaemonServer, DaemonState};
use crate::static_pods::{Source, StaticPods, address_range, mirrors};
use crate::status::phase::HostFacts;
use crate::volumes::HostPaths;
use crate::{lease, tasks::OwnedTask};

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Something the agent can't do without was not given.
    #[error("the node agent needs {0}")]
    Missing(&'static str),
    /// The daemon endpoint can't listen.
    #[error("daemon endpoint {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// DNS can't be served where it was asked for.
    #[error("DNS at {address}: {source}")]
    Dns {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Ingresses can't be served where it was asked for.
    #[error("Ingresses at {address}: {source}")]
    Ingress {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder of static pods can't be read or watched.
    #[error("static pods of {folder}: {source}")]
    StaticPods {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The content store can't be opened.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// Images would never be removed, or always.
    #[error(transparent)]
    ImageCollection(#[from] InvalidThresholds),
}

/// Collects what an agent is made of.
pub struct NodeAgentBuilder {
    client: Option<kube::Client>,
    name: Option<String>,
    data_dir: Option<PathBuf>,
    listen: SocketAddr,
    tls: Option<DaemonTls>,
    addresses: Vec<IpAddr>,
    labels: BTreeMap<String, String>,
    runtimes: Vec<Arc<dyn Runtime>>,
    without_linux: Option<String>,
    network: Option<Network>,
    kernel: Option<KernelNetwork>,
    machine: Option<Machine>,
    log_limits: LogLimits,
    host_paths: HostPaths,
    thresholds: Thresholds,
    node_ports: Option<IpAddr>,
    dns: Option<SocketAddr>,
    ingress: [Option<SocketAddr>; 2],
    tunnel_identity: Option<TunnelIdentity>,
    registries: Registries,
    image_collection: ImageCollection,
    static_pods: Option<PathBuf>,
}

/// A node agent that listens but does not run yet.
pub struct NodeAgent {
    context: Arc<NodeContext>,
    registration: Registration,
    daemon: DaemonServer,
    kernel: Option<KernelNetwork>,
    node_ports: Option<IpAddr>,
    dns: Option<DnsListener>,
    ingress: IngressListeners,
    tunnel_identity: Option<TunnelIdentity>,
    image_collection: ImageCollection,
    static_pods: Option<Source>,
    registered: watch::Sender<bool>,
    known: KnownPods,
    pressure: watch::Sender<Pressure>,
    thresholds: Thresholds,
}

impl NodeAgent {
    /// Begins an agent.
    #[must_use]
    pub fn builder() -> NodeAgentBuilder {
        NodeAgentBuilder {
            client: None,
            name: None,
            data_dir: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            runtimes: Vec::new(),
            without_linux: None,
            network: None,
            kernel: None,
            machine: None,
            log_limits: LogLimits::default(),
            host_paths: HostPaths::default(),
            thresholds: Thresholds::default(),
            node_ports: None,
            dns: None,
            ingress: [None; 2],
            tunnel_identity: None,
            registries: Registries::none(),
            image_collection: ImageCollection::default(),
            static_pods: None,
        }
    }

    /// Where the daemon endpoint listens; nowhere without certificates.
    ///
    /// # Errors
    /// The socket does not say.
    pub fn daemon_address(&self) -> std::io::Result<Option<SocketAddr>> {
        self.daemon.local_addr()
    }

    /// Where DNS is served to the host, if it is.
    #[must_use]
    pub fn dns_address(&self) -> Option<SocketAddr> {
        self.dns.as_ref().map(DnsListener::address)
    }

    /// Where Ingresses are served by HTTP and by HTTPS, if they are.
    #[must_use]
    pub fn ingress_addresses(&self) -> [Option<SocketAddr>; 2] {
        [self.ingress.plain(), self.ingress.tls()]
    }

    /// Connects an API server of this process to the daemon endpoint, without a socket. Whoever has it is
    /// taken for the API server.
    #[must_use]
    pub fn local_dialer(&self) -> Dialer {
        self.daemon.dialer()
    }

    /// What a program does with the pods of its agent, also while that runs.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        NodeHandle::new(self.context.clone(), self.known.clone())
    }

    /// Turns true when the Node is registered.
    #[must_use]
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }

    /// Runs until `stop`, then stops the pods with their grace, reports that, and returns.
    ///
    /// Dropping the future ends everything at once, as a crash would.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            context,
            registration,
            daemon,
            kernel,
            node_ports,
            dns,
            ingress,
            tunnel_identity,
            image_collection,
            static_pods,
            registered,
            known,
            pressure,
            thresholds,
        } = self;
        let client = context.client.clone();
        let network = context.network.clone();
        let state = DaemonState {
            node: context.node_name.as_str().into(),
            looks: Looks::default(),
            pods: known.clone(),
            logs: context.logs.clone(),
            containers: context.containers.clone(),
            network: network.host(),
            tunnels: tunnel_identity.is_some().then(|| network.host()),
        };
        let services_ended = CancellationToken::new();
        // Connections are tasks of their own; they end with the agent however it ends.
        let _on_drop = services_ended.clone().drop_guard();

        let _lease = OwnedTask::spawn(lease::run(
            client.clone(),
            context.node_name.clone(),
            registered.subscribe(),
        ));
        let view = watch::Sender::default();
        let _mirrors = OwnedTask::spawn(mirrors::keep(
            client.clone(),
            context.node_name.clone(),
            registered.subscribe(),
            view.subscribe(),
        ));
        let files = Files {
            wanted: static_pods
                .as_ref()
                .map_or_else(|| watch::channel(StaticPods::default()).1, Source::pods),
            view,
        };
        let _address_range = static_pods.as_ref().map(|_| {
            let (data_dir, network) = (context.data_dir.clone(), network.clone());
            OwnedTask::spawn(address_range::remember(data_dir, network))
        });
        let _static_pods = static_pods.map(|source| OwnedTask::spawn(source.follow()));
        let _registration = OwnedTask::spawn(registration::run(
            client.clone(),
            registration,
            network.clone(),
            context.pressure.clone(),
            move || {
                registered.send_replace(true);
            },
        ));
        let _images = OwnedTask::spawn({
            let (images, runtimes) = (context.images.clone(), context.runtimes.clone());
            let events = context.events.for_node(&context.node_name);
            async move {
                images::run_collection(&images, &runtimes, image_collection, events).await;
            }
        });
        let _services = OwnedTask::spawn({
            let (network, client) = (network.clone(), client.clone());
            async move { network.watch_services(client).await }
        });
        let _policies = OwnedTask::spawn(network.watch_policies(client.clone()));
        let _tunnel = tunnel_identity.map(|identity| {
            let (network, client) = (network.clone(), client.clone());
            OwnedTask::spawn(async move { network.tunnel_between_agents(client, identity).await })
        });
        let serves_ingresses = ingress.plain().or(ingress.tls()).is_some();
        let _ingress = serves_ingresses.then(|| {
            let network = network.clone();
            let objects = context.objects.clone();
            OwnedTask::spawn(async move { network.serve_ingresses(ingress, client, objects).await })
        });
        let _dns = dns.map(|listener| {
            let network = network.clone();
            OwnedTask::spawn(async move { network.serve_dns(listener).await })
        });
        let _node_ports = node_ports.map(|bind| {
            OwnedTask::spawn(async move {
                let failed =
                    |failure| tracing::warn!(?failure, "a Service can't be reached from outside");
                network.serve_outside(bind, failed).await;
            })
        });
        let kernel = kernel.map(|kernel| OwnedTask::spawn(kernel.serve()));
        let _daemon = OwnedTask::spawn(daemon.serve(state, services_ended.clone()));

        let (evict, evictions) = mpsc::unbounded_channel();
        let _pressure = OwnedTask::spawn(pressure::run(
            context.clone(),
            known.clone(),
            thresholds,
            pressure,
            evict,
        ));
        let runtimes = context.runtimes.clone();
        pods::run(context, known, evictions, files, stop).await;
        services_ended.cancel();
        for runtime in runtimes.iter() {
            runtime.shut_down().await;
        }
        if let Some(serving) = kernel {
            drop(serving);
            if let Err(error) = network::clean_up_kernel().await {
                tracing::warn!(%error, "something of the pods' network is left in the kernel");
            }
        }
    }
}

impl NodeAgentBuilder {
    /// The API server, as `system:node:NAME`.
    #[must_use]
    pub fn client(mut self, client: kube::Client) -> Self {
        self.client = Some(client);
        self
    }

    /// Name of the Node.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Directory for images, logs and volumes; one agent at a time may use it.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Where the daemon endpoint listens if it has certificates; a free port of loopback by default.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// Certificates of the daemon endpoint. Without them nothing listens: logs and commands are to be had from the
    /// [`NodeHandle`], or by [`NodeAgent::local_dialer`].
    #[must_use]
    pub fn tls(mut self, tls: DaemonTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Addresses of the node (`InternalIP`); the daemon endpoint's own by default.
    #[must_use]
    pub fn addresses(mut self, addresses: Vec<IpAddr>) -> Self {
        self.addresses = addresses;
        self
    }

    /// Labels of the Node besides those every node has.
    #[must_use]
    pub fn labels(mut self, labels: BTreeMap<String, String>) -> Self {
        self.labels = labels;
        self
    }

    /// Adds a runtime; the first that accepts an image runs it.
    #[must_use]
    pub fn runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtimes.push(runtime);
        self
    }

    /// Why there is no runtime for containers of Linux; pods that ask for one are told.
    #[must_use]
    pub fn without_linux(mut self, why: impl Into<String>) -> Self {
        self.without_linux = Some(why.into());
        self
    }

    /// The network of the pods; one of its own by default.
    #[must_use]
    pub fn network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Joins the network of the pods to the kernel's, which pods with Linux containers need; it is of
    /// [`NodeAgentBuilder::network`]. Removed again when the agent ends of itself.
    #[must_use]
    pub fn kernel(mut self, kernel: KernelNetwork) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// What the machine offers; this machine by default.
    #[must_use]
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = Some(machine);
        self
    }

    /// Bounds of the containers' logs.
    #[must_use]
    pub fn log_limits(mut self, limits: LogLimits) -> Self {
        self.log_limits = limits;
        self
    }

    /// What of the machine's own files pods may mount; nothing by default.
    #[must_use]
    pub fn host_paths(mut self, paths: HostPaths) -> Self {
        self.host_paths = paths;
        self
    }

    /// What must be left free of memory and disk before pods are evicted.
    #[must_use]
    pub fn eviction_thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// Opens the NodePorts of Services on this address, and their external addresses where this machine has them;
    /// nothing is opened by default.
    #[must_use]
    pub fn node_ports(mut self, bind: IpAddr) -> Self {
        self.node_ports = Some(bind);
        self
    }

    /// Answers DNS at this address of the host, by UDP and TCP; port 0 picks one. Nowhere by default. Names outside
    /// of the cluster are told to this machine only.
    #[must_use]
    pub fn dns(mut self, listen: SocketAddr) -> Self {
        self.dns = Some(listen);
        self
    }

    /// Serves Ingresses at these addresses of the host, by HTTP and by HTTPS; port 0 picks one. Nowhere by default.
    /// Certificates are to be had only by a node with the label `node-restriction.kubernetes.io/ingress: "true"`.
    #[must_use]
    pub fn ingress(mut self, plain: Option<SocketAddr>, tls: Option<SocketAddr>) -> Self {
        self.ingress = [plain, tls];
        self
    }

    /// Joins the pods' network with that of other nodes: the agents carry connections for each other, and
    /// show this certificate of the node. Without it every node's pods are among themselves.
    #[must_use]
    pub fn tunnel_identity(mut self, identity: TunnelIdentity) -> Self {
        self.tunnel_identity = Some(identity);
        self
    }

    /// How registries besides the cluster's are reached; without, over TLS, trusting nobody.
    #[must_use]
    pub fn registries(mut self, registries: Registries) -> Self {
        self.registries = registries;
        self
    }

    /// When images that nothing uses are removed.
    #[must_use]
    pub fn image_collection(mut self, policy: ImageCollection) -> Self {
        self.image_collection = policy;
        self
    }

    /// Runs the pods of this folder's files too, whether or not the API server answers; the API shows them by mirrors.
    #[must_use]
    pub fn static_pods(mut self, folder: impl Into<PathBuf>) -> Self {
        self.static_pods = Some(folder.into());
        self
    }

    /// Opens the data directory and the daemon endpoint.
    ///
    /// Nothing of the process is touched: no signals, no logger, no limits (see [`crate::raise_open_files_limit`]).
    ///
    /// # Errors
    /// Something is missing, or can't be opened.
    pub async fn build(self) -> Result<NodeAgent, AgentError> {
        self.image_collection.check()?;
        let client = self.client.ok_or(AgentError::Missing("a client"))?;
        let name = self.name.ok_or(AgentError::Missing("a node name"))?;
        let data_dir = self
            .data_dir
            .ok_or(AgentError::Missing("a data directory"))?;
        let listen_error = |source| AgentError::Listen {
            address: self.listen,
            source,
        };
        let daemon = match &self.tls {
            Some(tls) => DaemonServer::bind(self.listen, tls).await,
            None => Ok(DaemonServer::in_process()),
        };
        let daemon = daemon.map_err(listen_error)?;
        let local = daemon.local_addr().map_err(listen_error)?;
        let dns = match self.dns {
            Some(address) => Some(
                DnsListener::bind(address)
                    .await
                    .map_err(|source| AgentError::Dns { address, source })?,
            ),
            None => None,
        };
        let [plain, tls_ingress] = self.ingress;
        let ingress = IngressListeners::bind(plain, tls_ingress).await;
        let ingress =
            ingress.map_err(|(address, source)| AgentError::Ingress { address, source })?;
        let store = ContentStore::open(data_dir.join("images")).await?;
        let images = Arc::new(Images::new(client.clone(), self.registries, store));
        let addresses = if self.addresses.is_empty() {
            vec![local.map_or(self.listen.ip(), |local| local.ip())]
        } else {
            self.addresses
        };
        let machine = self.machine.unwrap_or_else(Machine::inspect);
        let runtimes = Runtimes::new(self.runtimes).explained(self.without_linux);
        let host_ip = addresses.first().map(IpAddr::to_string).unwrap_or_default();
        let registration = Registration {
            name: name.clone(),
            addresses,
            daemon_port: local.map(|local| local.port()),
            labels: self.labels,
            machine: machine.clone(),
            runtimes: runtimes.clone(),
            images: images.clone(),
        };
        let pressure = watch::Sender::new(Pressure::default());
        let context = Arc::new(NodeContext {
            host: HostFacts { host_ip },
            images,
            logs: Logs::new(data_dir.join("logs"), self.log_limits),
            events: EventRecorder::start(&client, &name),
            runtimes,
            containers: RunningContainers::default(),
            room: Room::of(&machine),
            pressure: pressure.subscribe(),
            machine,
            network: self
                .network
                .unwrap_or_else(|| Network::new(NetworkConfig::default())),
            objects: Arc::new(ObjectWatches::new(&client)),
            node_name: name,
            client,
            host_paths: self.host_paths,
            data_dir,
            clock: Clock::System,
        });
        let static_pods = match self.static_pods {
            Some(folder) => Some(open_static_pods(folder, &context).await?),
            None => None,
        };
        let registered = watch::Sender::new(false);
        Ok(NodeAgent {
            context,
            registration,
            daemon,
            kernel: self.kernel,
            node_ports: self.node_ports,
            dns,
            ingress,
            tunnel_identity: self.tunnel_identity,
            image_collection: self.image_collection,
            static_pods,
            registered,
            known: KnownPods::default(),
            pressure,
            thresholds: self.thresholds,
        })
    }
}

async fn open_static_pods(folder: PathBuf, context: &NodeContext) -> Result<Source, AgentError> {
    let node = context.node_name.clone();
    let events = context.events.for_node(&node);
    let failed = |source| AgentError::StaticPods {
        folder: folder.display().to_string(),
        source,
    };
    let recalled = address_range::recall(&context.data_dir, &context.network).await;
    recalled.map_err(failed)?;
    let opened = Source::open(folder.clone(), node, events).await;
    opened.map_err(failed)
}
