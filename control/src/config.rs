//! What a control plane is started with.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use crate::admission::AdmissionConfiguration;
use crate::controllers::AddressRange;
use crate::controllers::runtime::clock::Clock;
use crate::registry::Pools;
use crate::scheduler::Profiles;
use crate::server::audit::AuditOptions;
use crate::server::authn::{AuthenticationConfiguration, FrontProxy};
use crate::server::peers::PeerLimits;
use crate::store::Retention;
use crate::store::encryption::Encryption;

/// What a control plane is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept; made if it is not there.
    pub data_dir: PathBuf,
    /// Where the API is served; port 0 picks one.
    pub listen: SocketAddr,
    /// Further names and addresses by which clients reach the API.
    pub names: Vec<String>,
    /// What is handed out to Services.
    pub pools: Pools,
    /// Network that nodes' pod networks are cut from.
    pub pod_network: (Ipv4Addr, u8),
    /// Size of a node's pod network.
    pub node_bits: u8,
    /// Where a kubeconfig with which a user may do everything is kept up to date.
    pub admin_kubeconfig: Option<PathBuf>,
    /// Who is taken for whom besides the cluster's own identities.
    pub authentication: AuthenticationConfiguration,
    /// What is audited, and where events are kept; nothing is by default.
    pub audit: Option<AuditOptions>,
    /// A proxy in front of the API that authenticates users.
    pub front_proxy: Option<FrontProxy>,
    /// Who issues ServiceAccount tokens: the first; tokens of the others are accepted too. The cluster's own name
    /// if there is none.
    pub service_account_issuers: Vec<String>,
    /// What is decided about writes beyond their own fields.
    pub admission: AdmissionConfiguration,
    /// What the schedulers of this control plane do.
    pub schedulers: Profiles,
    /// Addresses that load balancers get; the nodes' own if there are none.
    pub load_balancer_pool: Vec<AddressRange>,
    /// Without a sign of life for this long, a node's state is unknown.
    pub node_grace: Duration,
    /// How often an autoscaler looks at what pods use.
    pub autoscaling_period: Duration,
    /// What controllers do by the time is done by this clock; the API stamps with the machine's.
    pub clock: Clock,
    /// What is encrypted in the data file.
    pub encryption: Encryption,
    /// What an address may cost before it is known who is behind it.
    pub peer_limits: PeerLimits,
    /// Whether the server has an image registry.
    pub image_registry: bool,
    /// How much history is kept.
    pub retention: Retention,
    /// Whether the store forgets everything with the process.
    pub in_memory: bool,
    /// What requests of controllers and schedulers pass through.
    pub component_clients: ComponentClients,
}

type Wrap = dyn Fn(Client) -> Client + Send + Sync;

/// Something around the clients of the components of a control plane: a test fails their requests here, an
/// embedding program may count them. Nothing by default.
#[derive(Clone, Default)]
pub struct ComponentClients(Option<Arc<Wrap>>);

impl ComponentClients {
    /// Has every component use what `wrap` makes of its client.
    pub fn through(wrap: impl Fn(Client) -> Client + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(wrap)))
    }

    pub(crate) fn wrap(&self, client: Client) -> Client {
        match &self.0 {
            Some(wrap) => wrap(client),
            None => client,
        }
    }
}

impl std::fmt::Debug for ComponentClients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.0.is_some() { "wrapped" } else { "plain" };
        f.write_str(what)
    }
}

impl Config {
    /// The defaults over `data_dir`.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 6443),
            names: Vec::new(),
            pools: Pools::default(),
            pod_network: (Ipv4Addr::new(10, 128, 0, 0), 10),
            node_bits: 18,
            admin_kubeconfig: None,
            authentication: AuthenticationConfiguration::default(),
            audit: None,
            front_proxy: None,
            service_account_issuers: Vec::new(),
            admission: AdmissionConfiguration::default(),
            schedulers: Profiles::default(),
            load_balancer_pool: Vec::new(),
            node_grace: Duration::from_secs(40),
            autoscaling_period: Duration::from_secs(15),
            clock: Clock::default(),
            encryption: Encryption::default(),
            image_registry: true,
            peer_limits: PeerLimits::default(),
            retention: Retention::default(),
            in_memory: false,
            component_clients: ComponentClients::default(),
        }
    }

    /// The address of Service `kubernetes`: the first of the service network.
    #[must_use]
    pub fn api_service_address(&self) -> Ipv4Addr {
        self.service_address(1)
    }

    /// The address of Service `kube-system/kube-dns`: the tenth of the service network, as usual.
    #[must_use]
    pub fn dns_service_address(&self) -> Ipv4Addr {
        self.service_address(10)
    }

    fn service_address(&self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.pools.service_network.0) + offset)
    }
}
