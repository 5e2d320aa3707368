//! The node agent as this binary runs it: with the wasm runtime, and the same for `up` and `agent`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use rustls::RootCertStore;
use windlass_node::network::{Network, NetworkConfig, TunnelIdentity};
use windlass_node::runtime::wasm::{EngineConfig, GuestTls, WasmConfig, WasmRuntime};
use windlass_node::server::tls::DaemonTls;
use windlass_node::{HostPaths, NodeAgent};

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
    /// The API server, for Service `kubernetes`.
    pub(crate) api_server: Option<SocketAddr>,
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
}

impl NodeOptions {
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
        .runtime(Arc::new(runtime));
    if let Some(address) = config.node_ports {
        builder = builder.node_ports(address);
    }
    if let Some(address) = config.dns {
        builder = builder.dns(address);
    }
    Ok(builder.build().await?)
}

/// TLS for requests that guests make, trusting what this machine trusts, and the cluster's authority.
pub(crate) fn guest_tls(cluster_ca: &[u8]) -> anyhow::Result<GuestTls> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "a root certificate of this machine cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    Ok(GuestTls::new(roots, cluster_ca)?)
}

/// Where a node keeps its data when it shares the server's directory.
pub(crate) fn directory_in(data_dir: &Path) -> PathBuf {
    data_dir.join("node")
}
