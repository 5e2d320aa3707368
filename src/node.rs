//! The node agent as this binary runs it: with the wasm runtime, and the same for `up` and `agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::SignedDuration;
use windlass_node::images::ImageCollection;
use windlass_node::network::{Network, NetworkConfig, TunnelIdentity};
use windlass_node::pressure::Thresholds;
use windlass_node::runtime::wasm::{EngineConfig, GuestTls, WasmConfig, WasmRuntime};
use windlass_node::server::tls::DaemonTls;
use windlass_node::{HostPaths, NodeAgent};
use windlass_oci::registry::remote::registries::Registries;

use crate::registries::{RegistryOptions, native_roots};

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
    /// evicted with an empty one [default: memory.available<100Mi,nodefs.available<1Gi].
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
        cluster_cidr: Some("10.128.0.0/10".parse()?),
        api_server: config.api_server,
        ..NetworkConfig::default()
    });
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

/// TLS for requests that guests make, trusting what this machine trusts, and the cluster's authority.
pub(crate) fn guest_tls(cluster_ca: &[u8]) -> anyhow::Result<GuestTls> {
    let roots = native_roots();
    Ok(GuestTls::new(roots, cluster_ca)?)
}

/// Where a node keeps its data when it shares the server's directory.
pub(crate) fn directory_in(data_dir: &Path) -> PathBuf {
    data_dir.join("node")
}
