//! The pods' network, joined to the kernel's: for Linux containers, and for programs of this machine. Needs root; wasm
//! pods do without.
//!
//! ```text
//!   Linux container ── eth0 ═ wlp… ──┐                      ┌── windlass0 ──► ask.rs ──► Core: Services, policies, DNS
//!   program of this machine ─────────┴─ rules (tables.rs) ──┤        ◄── go on, or why not
//!                                                           └── windlass1 ◄── what the agent carries, to uplink.rs
//! ```
//!
//! 1. A pod's namespace gets its link when containerd asks for it (`cni/`): the address is the one that the switch gave
//!    the pod. There is no bridge: every packet is routed, so that nobody reaches anybody past the rules.
//! 2. The first packet of a connection goes to the switch, which decides about it as it does for a wasm pod: by the same
//!    table of Services, the same policies, the same flows.
//! 3. What stays on this node between Linux containers, or goes outside, the kernel carries from then on. For all else
//!    the agent has made a connection of its own by then, and joins the two. A refusal is told before anything is open.
//! 4. The other way round, whoever connects to a pod that is joined gets a kernel socket bound to the caller's address
//!    (`joined.rs`).
//!
//! Invariants: rules hold no policy and no Service, so there is nothing to keep in step; while the agent is down nothing
//! new is connected, and what the kernel carries goes on; a pod can't send from an address that is not its own.
//!
//! Differs from Kubernetes: there are no ClusterIP rules in the kernel; kube-proxy is not needed and may not run.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;

mod ask;
mod cni;
mod datagrams;
mod fragments;
mod joined;
mod netns;
mod packet;
mod pod_link;
mod tables;
#[cfg(test)]
mod tests;
mod tools;
mod uplink;

pub use cni::install as install_plugin;
pub use cni::plugin::run as run_plugin;
pub(super) use joined::{Joined, Mirror};
pub use tools::ToolError;

use super::local_pod::LocalPod;
use super::{Cidr, Core, Network};
use ask::Answering;
use netns::NetworkNamespace;
use pod_link::PodLink;
use tables::Ranges;
use uplink::Uplink;

/// How long after a failure the tables are set up anew.
const RETRY: Duration = Duration::from_secs(5);

/// Where the kernel's own tables are read and written: those of the network namespace that the thread is in.
const SETTINGS: &str = "/proc/sys/net/ipv4";
const LINKS: &str = "/proc/thread-self/net/dev";
const ROUTES: &str = "/proc/thread-self/net/route";

/// What is put on a link where the machine's own does not say.
const USUAL_MTU: u32 = 1500;

/// How a node's network is joined to its kernel's.
#[derive(Debug, Clone)]
pub struct KernelConfig {
    /// Range of the cluster's Services, if programs of this machine are to reach them.
    pub services: Option<Cidr>,
    /// Directory for the socket that network plugins ask at, and for what has to outlive the agent.
    pub directory: PathBuf,
}

impl KernelConfig {
    /// Where network plugins ask.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.join("cni.sock")
    }
}

/// Why the network can't be joined to the kernel's.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The devices can't be made.
    #[error(
        "make the devices of the pod network: {0}; this needs root, /dev/net/tun, and that no other agent does it"
    )]
    Devices(#[source] io::Error),
    /// A socket, file or setting.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A table.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The pod is not of this node, or not any more.
    #[error("no pod with uid {0} has an address on this node")]
    UnknownPod(String),
}

/// Whether this machine has what it takes to join the pods' network to the kernel's, but for rights.
///
/// # Errors
/// What is missing, in words for the user.
pub fn check() -> Result<(), String> {
    let device = "/dev/net/tun";
    if !Path::new(device).exists() {
        return Err(format!("there is no {device}"));
    }
    tools::missing().map_or(Ok(()), |(program, package)| {
        Err(format!(
            "{program} is not installed; it comes with the package {package}"
        ))
    })
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> KernelError {
    let what = what.into();
    move |source| KernelError::System { what, source }
}

/// A network that has its devices, and answers once it is served.
pub struct KernelNetwork {
    network: Network,
    config: KernelConfig,
    joining: Arc<Joining>,
    listener: TcpListener,
    plugins: UnixListener,
}

impl Network {
    /// Makes the devices and rules by which this node's pods are joined to the kernel's network.
    ///
    /// # Errors
    /// [`KernelError`]: mostly, that this process may not.
    pub async fn open_kernel(&self, config: KernelConfig) -> Result<KernelNetwork, KernelError> {
        let uplink = Arc::new(Uplink::open().map_err(KernelError::Devices)?);
        let listener = transparent_listener().map_err(system("listen for pods' connections"))?;
        let proxy = listener.local_addr().map_err(system("listen"))?.port();
        tools::nft(&tables::ruleset(proxy)).await?;
        for script in tables::remove_rules() {
            // There are none on the first start.
            let _absent = tools::ip(&script).await;
        }
        tools::ip(&tables::add_rules()).await?;
        std::fs::create_dir_all(&config.directory)
            .map_err(system(format!("make {}", config.directory.display())))?;
        let socket = config.socket();
        let plugins = cni::server::listen(&socket)
            .map_err(system(format!("listen at {}", socket.display())))?;
        let joining = Arc::new(Joining {
            core: Arc::downgrade(&self.0),
            uplink,
            mtu: mtu(),
            records: Records::read(config.directory.join("links")),
            system: Handle::current(),
        });
        self.0.kernel.store(Some(joining.clone()));
        Ok(KernelNetwork {
            network: self.clone(),
            config,
            joining,
            listener,
            plugins,
        })
    }
}

impl KernelNetwork {
    /// Answers the kernel and network plugins, until dropped. Begins when the node has its range of addresses.
    pub async fn serve(self) {
        let pods = self.network.pod_cidr().await;
        let ranges = Ranges {
            pods,
            cluster: self.network.0.config.cluster_cidr,
            services: self.config.services,
        };
        while let Err(error) = set_up(&ranges).await {
            tracing::warn!(%error, "the pod network is not joined to the kernel's yet");
            tokio::time::sleep(RETRY).await;
        }
        self.joining.sweep().await;
        let core = self.network.0.clone();
        let uplink = self.joining.uplink.clone();
        let answering = Arc::new(Answering::new(core, uplink.clone()));
        tokio::join!(
            answering.run(),
            uplink.serve(self.listener),
            cni::server::serve(self.plugins, self.joining),
        );
    }
}

async fn set_up(ranges: &Ranges) -> Result<(), KernelError> {
    tools::ip(&tables::routes(ranges)).await?;
    for (name, value) in tables::settings() {
        let path = Path::new(SETTINGS).join(&name);
        std::fs::write(&path, value).map_err(system(format!("set {}", path.display())))?;
    }
    Ok(())
}

/// A socket of loopback that takes connections to any address.
fn transparent_listener() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_ip_transparent_v4(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// The longest packet of the link by which this machine reaches the world.
fn mtu() -> u32 {
    let routes = std::fs::read_to_string(ROUTES).unwrap_or_default();
    let mut routes = routes.lines().map(str::split_ascii_whitespace);
    let device = routes.find_map(|mut fields| {
        let device = fields.next()?;
        (fields.next()? == "00000000").then_some(device)
    });
    let read = |device| std::fs::read_to_string(format!("/sys/class/net/{device}/mtu")).ok();
    let mtu = device.and_then(read);
    mtu.and_then(|mtu| mtu.trim().parse().ok())
        .unwrap_or(USUAL_MTU)
}

/// Removes all that was ever made, but for namespaces of others: no agent may be running.
///
/// # Errors
/// The first table that can't be changed.
pub async fn clean_up() -> Result<(), KernelError> {
    tools::nft(tables::no_ruleset()).await?;
    for script in tables::remove_rules().chain(tables::remove_routes()) {
        // What is gone already.
        let _absent = tools::ip(&script).await;
    }
    for name in pod_links().map_err(system(format!("read {LINKS}")))? {
        tools::ip(&tables::remove_link(&name)).await?;
    }
    Ok(())
}

/// The names of the links of pods.
fn pod_links() -> io::Result<Vec<String>> {
    let links = std::fs::read_to_string(LINKS)?;
    let names = links.lines().filter_map(|line| line.split_once(':'));
    let names = names.map(|(name, _)| name.trim());
    let of_pods = names.filter(|name| name.starts_with(tables::LINK_PREFIX));
    Ok(of_pods.map(str::to_owned).collect())
}

fn link_exists(name: &str) -> bool {
    pod_links().is_ok_and(|links| links.iter().any(|link| link == name))
}

/// Gives pods their links.
pub(super) struct Joining {
    core: std::sync::Weak<Core>,
    uplink: Arc<Uplink>,
    mtu: u32,
    records: Records,
    system: Handle,
}

impl Joining {
    /// Joins a pod's network namespace to the switch; answers the link it has now.
    async fn join(&self, uid: &str, netns: &Path, interface: &str) -> Result<PodLink, KernelError> {
        let unknown = || KernelError::UnknownPod(uid.to_owned());
        let core = self.core.upgrade().ok_or_else(unknown)?;
        let pod = core.pod_with_uid(uid).ok_or_else(unknown)?;
        let link = PodLink::new(uid, pod.ports.address());
        // Of an attempt before this one, or a sandbox before.
        remove_link(&link.name).await?;
        let made = self.make(&link, netns, interface).await;
        let made = match made {
            Ok(()) => self.attach(&pod, netns),
            Err(error) => Err(error),
        };
        if let Err(error) = made {
            remove_link(&link.name).await?;
            return Err(error);
        }
        let record = Record {
            uid: uid.to_owned(),
            address: link.address,
            netns: netns.to_owned(),
        };
        self.records.keep(&link.name, record)?;
        Ok(link)
    }

    async fn make(&self, link: &PodLink, netns: &Path, interface: &str) -> Result<(), KernelError> {
        let script = tables::in_pod(link, interface, self.mtu, rustix::thread::gettid());
        tools::ip_within(netns, &script).await?;
        tools::ip(&tables::of_pod(link, self.gateway())).await?;
        Ok(())
    }

    /// Tells the switch where the pod's kernel sockets are.
    fn attach(&self, pod: &LocalPod, netns: &Path) -> Result<(), KernelError> {
        let namespace = NetworkNamespace::open(netns);
        let namespace = namespace.map_err(system(format!("open {}", netns.display())))?;
        self.tell(pod, Some(namespace));
        Ok(())
    }

    /// The pod uses this machine's network: what others say to its address is for a program here.
    pub(super) fn join_machine(&self, pod: &LocalPod) {
        self.tell(pod, None);
    }

    fn tell(&self, pod: &LocalPod, namespace: Option<NetworkNamespace>) {
        let (uplink, system) = (self.uplink.clone(), self.system.clone());
        let joined = Joined::new(namespace, uplink, self.gateway(), system);
        pod.ports.join(&Arc::new(joined));
    }

    /// The node, as its pods see it.
    fn gateway(&self) -> Ipv4Addr {
        match self.core.upgrade().map(|core| core.host_address()) {
            Some(std::net::IpAddr::V4(gateway)) => gateway,
            _ => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Takes the pod's link away, unless it is in another namespace by now.
    async fn leave(&self, uid: &str, netns: &Path) -> Result<(), KernelError> {
        let name = PodLink::new(uid, Ipv4Addr::UNSPECIFIED).name;
        let is_another = |record: &Record| !netns.as_os_str().is_empty() && record.netns != netns;
        if self.records.find(&name).as_ref().is_some_and(is_another) {
            return Ok(());
        }
        let pod = self.core.upgrade().and_then(|core| core.pod_with_uid(uid));
        if let Some(pod) = pod {
            pod.ports.leave();
        }
        remove_link(&name).await?;
        self.records.forget(&name)
    }

    fn is_joined(&self, uid: &str) -> bool {
        let pod = self.core.upgrade().and_then(|core| core.pod_with_uid(uid));
        pod.is_some_and(|pod| pod.ports.is_joined())
    }

    /// Joins a pod again whose namespace outlived the agent before, if it has its address back.
    pub(super) fn rejoin(&self, pod: &LocalPod) {
        let address = pod.ports.address();
        let name = PodLink::new(&pod.uid, address).name;
        let Some(record) = self.records.find(&name) else {
            return;
        };
        let lives = record.address == address && record.netns.exists() && link_exists(&name);
        if lives && let Err(error) = self.attach(pod, &record.netns) {
            tracing::warn!(pod = pod.uid, %error, "a pod's link is not taken over");
        }
    }

    /// Forgets what is gone: namespaces that ended while no agent was there.
    async fn sweep(&self) {
        for (name, record) in self.records.all() {
            if record.netns.exists() {
                continue;
            }
            let swept = match remove_link(&name).await {
                Ok(()) => self.records.forget(&name),
                Err(error) => Err(error),
            };
            if let Err(error) = swept {
                tracing::warn!(link = name, %error, "a link of a pod that is gone stays");
            }
        }
    }
}

async fn remove_link(name: &str) -> Result<(), KernelError> {
    if link_exists(name) {
        tools::ip(&tables::remove_link(name)).await?;
    }
    Ok(())
}

/// A link that has to be found again by the next agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    uid: String,
    address: Ipv4Addr,
    netns: PathBuf,
}

/// The links there are, a file each, by name of the link.
struct Records {
    directory: PathBuf,
    known: Mutex<HashMap<String, Record>>,
}

impl Records {
    /// Those that an agent before this one left. What can't be read is of a pod that will have to be started anew.
    fn read(directory: PathBuf) -> Self {
        let mut known = HashMap::new();
        for file in std::fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
        {
            let read = std::fs::read(file.path())
                .and_then(|bytes| Ok(serde_json::from_slice::<Record>(&bytes)?));
            match read {
                Ok(record) => {
                    known.insert(file.file_name().to_string_lossy().into_owned(), record);
                }
                Err(error) => {
                    let path = file.path();
                    tracing::warn!(path = %path.display(), %error, "a pod's link is not known any more");
                }
            }
        }
        Self {
            directory,
            known: Mutex::new(known),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Record>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, name: &str) -> Option<Record> {
        self.known().get(name).cloned()
    }

    fn all(&self) -> Vec<(String, Record)> {
        let known = self.known();
        let each = known.iter();
        each.map(|(name, record)| (name.clone(), record.clone()))
            .collect()
    }

    fn keep(&self, name: &str, record: Record) -> Result<(), KernelError> {
        let path = self.directory.join(name);
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(&self.directory)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
            serde_json::to_writer(&mut file, &record)?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(system(format!("write {}", path.display())))?;
        self.known().insert(name.to_owned(), record);
        Ok(())
    }

    fn forget(&self, name: &str) -> Result<(), KernelError> {
        self.known().remove(name);
        let path = self.directory.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(system(format!("remove {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }
}
