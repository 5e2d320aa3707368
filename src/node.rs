//! The node agent as this binary runs it: with the wasm runtime, and that of Linux where the machine has what it takes;
//! the same for `up` and `agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::SignedDuration;
use windlass_node::images::ImageCollection;
use windlass_node::network::{
    KernelConfig, KernelNetwork, Network, NetworkConfig, TunnelIdentity, check_kernel,
    install_plugin,
};
use windlass_node::pressure::Thresholds;
use windlass_node::runtime::containerd::{ContainerdConfig, ContainerdRuntime};
use windlass_node::runtime::wasm::{EngineConfig, GuestTls, WasmConfig, WasmRuntime};
use windlass_node::server::tls::DaemonTls;
use windlass_node::{HostPaths, NodeAgent};
use windlass_oci::registry::remote::registries::Registries;

use crate::registries::{RegistryOptions, native_roots};

/// The ranges of addresses of all pods and of Services, as `windlass server` gives them out.
const PODS: &str = "10.128.0.0/10";
const SERVICES: &str = "10.96.0.0/12";

/// What differs between nodes.
pub(crate) struct NodeConfig {
    /// The node, to the API server.
    pub(crate) client: kube::Client,
    /// Name of the Node.
    pub(crate) name: String,
    /// Where images, logs and volumes are kept.
    pub(crate) data_dir: PathBuf,
    /// Certificates of the daemon endpoint.
    pub(crate) tls: DaemonTls,
    /// Whom guests trust.
    pub(crate) guest_tls: GuestTls,
    /// What the node shows to the agents of other nodes.
    pub(crate) tunnel: TunnelIdentity,
    /// Where the daemon endpoint listens.
    pub(crate) listen: SocketAddr,
    /// Where NodePorts are opened, if at all.
    pub(crate) node_ports: Option<IpAddr>,
    /// Where DNS is served to the host, if at all.
    pub(crate) dns: Option<SocketAddr>,
    /// Where Ingresses are served, by HTTP and by HTTPS, if at all.
    pub(crate) ingress: [Option<SocketAddr>; 2],
    /// What pods may mount of this machine.
    pub(crate) host_paths: HostPaths,
    /// What must be left free.
    pub(crate) thresholds: Thresholds,
    /// The API server, for Service `kubernetes`.
    pub(crate) api_server: Option<SocketAddr>,
    /// How images come here.
    pub(crate) registries: Registries,
    /// When they go.
    pub(crate) image_collection: ImageCollection,
    /// Folder of pods that run whatever the API server says.
    pub(crate) static_pods: Option<PathBuf>,
    /// Whether it runs containers of Linux.
    pub(crate) linux: LinuxOptions,
}

/// Whether a node runs containers of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LinuxContainers {
    /// If this machine can.
    Auto,
    /// No: WebAssembly only, with no more rights than that needs.
    Off,
    /// Yes, or the node does not start.
    Required,
}

/// Options of containers of Linux.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LinuxOptions {
    /// Whether to run containers of Linux too; that needs root, containerd and runc, and the rights of root stay with the
    /// process.
    #[arg(long, value_enum, value_name = "WHEN", default_value = "auto")]
    linux_containers: LinuxContainers,
    /// The socket of a containerd that runs already, with CRI and a network of its own; without it the node runs one.
    #[arg(long, value_name = "PATH")]
    containerd_socket: Option<PathBuf>,
}

impl LinuxOptions {
    /// How containers of Linux are run below this directory; or why they are not, in words for the user.
    ///
    /// # Errors
    /// They are required, and can't be.
    pub(crate) fn config(
        &self,
        data_dir: &Path,
    ) -> anyhow::Result<Result<ContainerdConfig, String>> {
        if self.linux_containers == LinuxContainers::Off {
            return Ok(Err("it was started with --linux-containers off".to_owned()));
        }
        let config = ContainerdConfig {
            data_dir: data_dir.to_owned(),
            socket: self.containerd_socket.clone(),
            cluster_domain: NetworkConfig::default().cluster_domain,
        };
        let checked = ContainerdRuntime::check(&config).map_err(|error| error.to_string());
        // A containerd of somebody else's has a network of its own.
        let checked = match config.socket {
            None => checked.and_then(|()| {
                check_kernel().map_err(|error| format!("the network of pods needs more: {error}"))
            }),
            Some(_) => checked,
        };
        match checked {
            Ok(()) => Ok(Ok(config)),
            Err(why) => self.without(why),
        }
    }

    /// There are none, which is an error where they are required.
    fn without<T>(&self, why: String) -> anyhow::Result<Result<T, String>> {
        if self.linux_containers == LinuxContainers::Required {
            return Err(anyhow::Error::msg(why).context("--linux-containers required"));
        }
        Ok(Err(why))
    }
}

/// Options of a node that `up` and `agent` share.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct NodeOptions {
    /// Name of the node [default: this machine's host name].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Answers DNS at this address, by UDP and TCP: names of the cluster, and for this machine those outside too.
    #[arg(long, value_name = "ADDR:PORT")]
    dns_listen: Option<SocketAddr>,
    /// Serves Ingresses by HTTP at this address.
    #[arg(long, value_name = "ADDR:PORT")]
    ingress_listen: Option<SocketAddr>,
    /// Serves Ingresses by HTTPS at this address.
    #[arg(long, value_name = "ADDR:PORT")]
    ingress_listen_tls: Option<SocketAddr>,
    /// A directory of this machine that pods may mount as hostPath volumes, with all below it; may be given several
    /// times. Without it they may mount nothing.
    #[arg(long = "allow-host-path", value_name = "PATH")]
    host_paths: Vec<PathBuf>,
    /// What must be left free before pods are evicted, such as memory.available<100Mi,nodefs.available<5%; nothing is
    /// evicted with an empty one [default: memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<5%]. There is
    /// pid.available too.
    #[arg(long, value_name = "THRESHOLDS")]
    eviction_hard: Option<Thresholds>,
    /// Folder of files with pods that this node runs whether or not the API server answers: static pods.
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,
    #[command(flatten)]
    registries: RegistryOptions,
    /// Percentage of the disk in use above which images that nothing uses are removed; 100 removes none.
    #[arg(long, value_name = "PERCENT", default_value_t = 85)]
    image_gc_high_threshold: u8,
    /// Percentage of the disk in use that removing images aims at.
    #[arg(long, value_name = "PERCENT", default_value_t = 80)]
    image_gc_low_threshold: u8,
    /// How long an image stays at least, such as `2m`.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    minimum_image_ttl_duration: SignedDuration,
    #[command(flatten)]
    linux: LinuxOptions,
}

impl NodeOptions {
    /// How images come here.
    pub(crate) fn registries(&self) -> anyhow::Result<Registries> {
        self.registries.registries()
    }

    /// When images go.
    pub(crate) fn image_collection(&self) -> anyhow::Result<ImageCollection> {
        let min_age = self.minimum_image_ttl_duration.try_into();
        let policy = ImageCollection {
            high_threshold: self.image_gc_high_threshold,
            low_threshold: self.image_gc_low_threshold,
            min_age: min_age.context("--minimum-image-ttl-duration must not be negative")?,
            ..ImageCollection::default()
        };
        policy.check()?;
        Ok(policy)
    }

    /// Folder of static pods, if there is one.
    pub(crate) fn static_pods(&self) -> Option<PathBuf> {
        self.pod_manifest_path.clone()
    }

    /// Whether it runs containers of Linux.
    pub(crate) fn linux(&self) -> LinuxOptions {
        self.linux.clone()
    }

    /// Where DNS is served to the host, if at all.
    pub(crate) fn dns(&self) -> Option<SocketAddr> {
        self.dns_listen
    }

    /// Where Ingresses are served, by HTTP and by HTTPS, if at all.
    pub(crate) fn ingress(&self) -> [Option<SocketAddr>; 2] {
        [self.ingress_listen, self.ingress_listen_tls]
    }

    /// The name given, or the machine's.
    pub(crate) fn name(&self) -> anyhow::Result<String> {
        if let Some(name) = &self.node_name {
            return Ok(name.clone());
        }
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
            .context("find this machine's host name; give a name with --node-name")?;
        Ok(name.trim().to_lowercase())
    }
}

impl NodeOptions {
    /// What must be left free.
    pub(crate) fn thresholds(&self) -> Thresholds {
        self.eviction_hard.unwrap_or_default()
    }

    /// What pods may mount of this machine.
    pub(crate) fn host_paths(&self) -> anyhow::Result<HostPaths> {
        HostPaths::allow(self.host_paths.clone()).context("--allow-host-path")
    }
}

/// Builds the agent.
pub(crate) async fn build(config: NodeConfig) -> anyhow::Result<NodeAgent> {
    windlass_node::raise_open_files_limit();
    let wasm = WasmConfig {
        cache: config.data_dir.join("compiled"),
        engine: EngineConfig::default(),
        tls: Some(config.guest_tls.config()),
        ..WasmConfig::default()
    };
    let runtime = tokio::task::spawn_blocking(move || WasmRuntime::new(wasm)).await??;
    let network = Network::new(NetworkConfig {
        node_name: config.name.clone(),
        cluster_cidr: Some(PODS.parse()?),
        api_server: config.api_server,
        ..NetworkConfig::default()
    });
    let linux = linux(&config, &network).await?;
    let [plain, tls] = config.ingress;
    let mut builder = NodeAgent::builder()
        .client(config.client)
        .name(config.name)
        .data_dir(config.data_dir)
        .listen(config.listen)
        .tls(config.tls)
        .tunnel_identity(config.tunnel)
        .ingress(plain, tls)
        .network(network)
        .host_paths(config.host_paths)
        .eviction_thresholds(config.thresholds)
        .registries(config.registries)
        .image_collection(config.image_collection)
        .runtime(Arc::new(runtime));
    builder = match linux {
        Ok((linux, kernel)) => {
            let builder = builder.runtime(Arc::new(linux));
            match kernel {
                Some(kernel) => builder.kernel(kernel),
                None => builder,
            }
        }
        Err(why) => builder.without_linux(why),
    };
    if let Some(address) = config.node_ports {
        builder = builder.node_ports(address);
    }
    if let Some(folder) = config.static_pods {
        builder = builder.static_pods(folder);
    }
    if let Some(address) = config.dns {
        builder = builder.dns(address);
    }
    Ok(builder.build().await?)
}

/// What containers of Linux need: their runtime and, for a containerd of the node's own, the kernel's side of the pods'
/// network; or why there are none, in words for the user.
async fn linux(
    config: &NodeConfig,
    network: &Network,
) -> anyhow::Result<Result<(ContainerdRuntime, Option<KernelNetwork>), String>> {
    let linux = match config.linux.config(&config.data_dir)? {
        Ok(linux) => linux,
        Err(why) => return Ok(Err(why)),
    };
    if linux.socket.is_some() {
        return Ok(Ok((ContainerdRuntime::new(linux).await?, None)));
    }
    let kernel = KernelConfig {
        services: Some(SERVICES.parse()?),
        directory: std::path::absolute(config.data_dir.join("network"))?,
    };
    let socket = kernel.socket();
    let kernel = match network.open_kernel(kernel).await {
        Ok(kernel) => kernel,
        Err(error) => return config.linux.without(error.to_string()),
    };
    let program = std::env::current_exe().context("find this program")?;
    let [bin, conf] = linux.network_plugins();
    install_plugin(&program, &bin, &conf, &socket).context("install the network plugin")?;
    Ok(Ok((ContainerdRuntime::new(linux).await?, Some(kernel))))
}

/// TLS for requests that guests make, trusting what this machine trusts, and the cluster's authority.
pub(crate) fn guest_tls(cluster_ca: &[u8]) -> anyhow::Result<GuestTls> {
    let roots = native_roots();
    Ok(GuestTls::new(roots, cluster_ca)?)
}

/// Where a node keeps its data when it shares the server's directory.
pub(crate) fn directory_in(data_dir: &Path) -> PathBuf {
    data_dir.join("node")
}
