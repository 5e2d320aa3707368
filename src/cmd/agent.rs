//! `windlass agent`: a node that joins a server.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use windlass_node::network::{TunnelIdentity, clean_up_kernel};
use windlass_node::registration::bootstrap::{
    self, JoinRequest, JoinToken, NodeCertificates, RenewableClient,
};
use windlass_node::runtime::wasm::GuestTls;
use windlass_node::server::tls::DaemonTls;

use crate::cmd::server::interrupted;
use crate::data_dir::DataDir;
use crate::node::{self, NodeConfig, NodeOptions};
use crate::output;

/// Arguments of `windlass agent`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The API server to join, such as https://10.0.0.1:6443.
    #[arg(long, value_name = "URL", required_unless_present = "cleanup")]
    server: Option<String>,
    /// File with the token that `windlass token create` printed; read until the node has joined.
    #[arg(long, value_name = "FILE", required_unless_present = "cleanup")]
    token_file: Option<PathBuf>,
    /// Removes from the kernel what an agent that was killed left of its pods' network, and ends. None may be running.
    #[arg(long, exclusive = true)]
    cleanup: bool,
    /// Address at which the server and other nodes reach this node; its daemon endpoint listens there.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Port of the daemon endpoint; 0 picks one.
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    port: u16,
    /// Address on which NodePorts are opened; none are opened by default, so that several agents may
    /// share a machine.
    #[arg(long, value_name = "ADDR")]
    node_port_address: Option<IpAddr>,
    #[command(flatten)]
    node: NodeOptions,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Args {
    /// Whether root's rights are needed: to run containers of Linux, and to clean up after them.
    ///
    /// # Errors
    /// They are required, and can't be.
    pub(crate) fn needs_root(&self) -> anyhow::Result<bool> {
        if self.cleanup {
            return Ok(true);
        }
        let directory = self.data_dir.path()?;
        Ok(self.node.linux().config(&directory)?.is_ok())
    }
}

/// Joins and runs until interrupted.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    if args.cleanup {
        return Ok(clean_up_kernel().await?);
    }
    let (Some(server), Some(token_file)) = (&args.server, &args.token_file) else {
        anyhow::bail!("--server and --token-file are needed");
    };
    let name = args.node.name()?;
    let data_dir = args.data_dir.path()?;
    let request = JoinRequest {
        server: server.clone(),
        node_name: name.clone(),
        addresses: vec![args.address],
        directory: data_dir.join("pki"),
    };
    let certificates = join(&request, token_file).await?;
    let tls = DaemonTls::new(
        certificates.serving.certificate_pem.as_bytes(),
        certificates.serving.key_pem.as_bytes(),
        certificates.ca_pem.as_bytes(),
        Vec::new(),
    )?;
    let tunnel = TunnelIdentity::new(
        certificates.client.certificate_pem.as_bytes(),
        certificates.client.key_pem.as_bytes(),
        certificates.ca_pem.as_bytes(),
    )?;
    let guest_tls = node::guest_tls(certificates.ca_pem.as_bytes())?;
    let client = RenewableClient::new(certificates.client(&request)?);
    let agent = node::build(NodeConfig {
        client: client.client(),
        name: name.clone(),
        data_dir,
        tls: tls.clone(),
        guest_tls: guest_tls.clone(),
        tunnel: tunnel.clone(),
        listen: SocketAddr::new(args.address, args.port),
        node_ports: args.node_port_address,
        dns: args.node.dns(),
        ingress: args.node.ingress(),
        host_paths: args.node.host_paths()?,
        thresholds: args.node.thresholds(),
        api_server: api_address(server).await?,
        registries: args.node.registries()?,
        image_collection: args.node.image_collection()?,
        static_pods: args.node.static_pods(),
        linux: args.node.linux(),
    });
    let agent = agent.await?;
    let stop = CancellationToken::new();
    let mut registered = agent.registered();
    let users = Users {
        client,
        tls,
        guest_tls,
        tunnel,
    };
    let renewal = tokio::spawn(renew(request, certificates, users));
    let running = tokio::spawn(agent.run(stop.clone()));
    registered.wait_for(|registered| *registered).await?;
    output::step(&format!("node {name} has joined {server}"));
    interrupted().await?;
    output::step("stopping pods");
    stop.cancel();
    running.await?;
    renewal.abort();
    Ok(())
}

/// Takes the certificates of an earlier start, or asks for new ones with the token.
async fn join(request: &JoinRequest, token_file: &PathBuf) -> anyhow::Result<NodeCertificates> {
    if let Some(found) = bootstrap::load(&request.directory)? {
        return Ok(bootstrap::refresh_ca(request, found).await);
    }
    let text = std::fs::read_to_string(token_file)
        .with_context(|| format!("read the token file {}", token_file.display()))?;
    let token: JoinToken = text.parse()?;
    let joined = bootstrap::bootstrap(request, &token).await;
    joined.with_context(|| format!("join {}", request.server))
}

/// Who uses a node's certificates.
struct Users {
    client: RenewableClient,
    tls: DaemonTls,
    guest_tls: GuestTls,
    tunnel: TunnelIdentity,
}

impl Users {
    /// Goes on with other certificates.
    fn replace(&self, request: &JoinRequest, new: &NodeCertificates) -> anyhow::Result<()> {
        let (serving, client) = (&new.serving, &new.client);
        let ca = new.ca_pem.as_bytes();
        self.client.replace(new.client(request)?);
        self.guest_tls.replace(ca)?;
        self.tls.replace(
            serving.certificate_pem.as_bytes(),
            serving.key_pem.as_bytes(),
            ca,
        )?;
        Ok(self.tunnel.replace(
            client.certificate_pem.as_bytes(),
            client.key_pem.as_bytes(),
            ca,
        )?)
    }
}

/// Replaces certificates before they end, and takes over whom the cluster trusts by then.
async fn renew(request: JoinRequest, mut current: NodeCertificates, users: Users) {
    const RETRY: std::time::Duration = std::time::Duration::from_secs(3600);
    loop {
        let due = current
            .renew_at()
            .map(|at| at.duration_since(Timestamp::now()));
        let wait = due
            .ok()
            .and_then(|due| due.try_into().ok())
            .unwrap_or_default();
        tokio::time::sleep(wait).await;
        match bootstrap::renew(&request, &current).await {
            Ok(renewed) => {
                if let Err(error) = users.replace(&request, &renewed) {
                    tracing::error!(%error, "a renewed certificate cannot be used");
                }
                current = renewed;
            }
            Err(error) => {
                tracing::warn!(%error, "renew the node's certificates");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// The address behind the server's URL, for the Service `kubernetes` of this node's pods.
async fn api_address(server: &str) -> anyhow::Result<Option<SocketAddr>> {
    let uri: http::Uri = server
        .parse()
        .with_context(|| format!("server URL {server:?}"))?;
    let host = uri
        .host()
        .with_context(|| format!("server URL {server:?} has no host"))?;
    let port = uri.port_u16().unwrap_or(443);
    let mut found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await?;
    Ok(found.next())
}
