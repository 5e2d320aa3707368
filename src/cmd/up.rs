//! `windlass up`: everything in one process.
//!
//! 1. Start the control plane; from then on kubectl works.
//! 2. Start the node, whose client is the server itself, without a socket.
//! 3. Apply the object files, wait until the workloads are ready, print how to reach them.
//! 4. Run until interrupted; stop the pods with their grace, then the control plane.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::SignedDuration;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use windlass_api::ingress::NODE_LABEL;
use windlass_control::ControlPlane;
use windlass_control::identity::{MASTERS, NODES, UserInfo};
use windlass_control::pki::{Authority, Identity, PkiError};
use windlass_node::network::TunnelIdentity;
use windlass_node::runtime::wasm::GuestTls;
use windlass_node::server::tls::DaemonTls;

use crate::apply::{Applied, Applier, Options, in_order};
use crate::cmd::server::{self, ControlPlaneOptions, interrupted};
use crate::data_dir::DataDir;
use crate::node::{self, NodeConfig, NodeOptions};
use crate::{dashboard, object_files, output, readiness};

/// Where Ingresses are served unless told otherwise: by HTTP and by HTTPS.
const INGRESS: [SocketAddr; 2] = [
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080)),
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8443)),
];

/// Arguments of `windlass up`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// File or directory with objects to apply, or `-` for standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE|DIR|-")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
    #[command(flatten)]
    control_plane: ControlPlaneOptions,
    #[command(flatten)]
    node: NodeOptions,
    /// Address of the dashboard, which is of loopback; port 0 picks a port.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:0")]
    dashboard_listen: SocketAddr,
    /// Serve no dashboard.
    #[arg(long)]
    no_dashboard: bool,
    /// Serve no Ingresses; else they are served at 127.0.0.1:8080 and 127.0.0.1:8443, where those are free, unless
    /// --ingress-listen or --ingress-listen-tls say otherwise.
    #[arg(long, conflicts_with_all = ["ingress_listen", "ingress_listen_tls"])]
    no_ingress: bool,
    /// How long to wait for the workloads, such as `30s`; 0s does not wait.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    wait: SignedDuration,
}

impl Args {
    /// Whether the node in this process runs containers of Linux.
    ///
    /// # Errors
    /// They are required, and can't be.
    pub(crate) fn runs_linux(&self) -> anyhow::Result<bool> {
        let directory = node::directory_in(&self.data_dir.path()?);
        Ok(self.node.linux().config(&directory)?.is_ok())
    }
}

/// A node running in this process.
struct Node {
    stop: CancellationToken,
    running: JoinHandle<()>,
    renewal: JoinHandle<()>,
}

impl Node {
    async fn shutdown(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.renewal.abort();
        Ok(self.running.await?)
    }
}

/// Runs until interrupted.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let files = object_files::read(&args.files)?;
    let started = Instant::now();
    let mut plane = server::start(&args.data_dir, &args.control_plane).await?;
    took(
        &format!("the API serves at https://{}", plane.address()),
        started,
    );
    server::print_kubeconfig(&args.data_dir)?;
    if !args.no_dashboard {
        let link = dashboard::serve_locally(&mut plane, args.dashboard_listen).await;
        let link = match link {
            Ok(link) => link,
            Err(error) => {
                plane.shutdown().await;
                return Err(error);
            }
        };
        output::step(&format!("the dashboard, by a link that works once: {link}"));
    }
    let node = match start_node(&args, &plane).await {
        Ok(node) => node,
        Err(error) => {
            plane.shutdown().await;
            return Err(error);
        }
    };
    let outcome = tokio::select! {
        outcome = serve(&args, &plane, files) => outcome,
        interrupt = interrupted() => interrupt,
    };
    output::step("stopping pods");
    node.shutdown().await?;
    plane.shutdown().await;
    outcome
}

/// Applies the files and then waits for the interrupt, which cuts this short at any point.
async fn serve(
    args: &Args,
    plane: &ControlPlane,
    files: Vec<object_files::FileObject>,
) -> anyhow::Result<()> {
    let client = plane.client(UserInfo::authenticated("kubernetes-admin", &[MASTERS]));
    let started = Instant::now();
    let applied = apply(client.clone(), files).await?;
    if !applied.is_empty() {
        took(&format!("applied {} objects", applied.len()), started);
        let limit = Duration::try_from(args.wait).context("--wait must not be negative")?;
        if !limit.is_zero() {
            let started = Instant::now();
            readiness::wait(&client, &applied, limit).await?;
            took("everything is ready", started);
        }
        let host = plane.address().ip().to_string();
        for url in readiness::urls(&client, &applied, &host).await? {
            output::line(&url);
        }
    }
    std::future::pending().await
}

async fn apply(
    client: kube::Client,
    files: Vec<object_files::FileObject>,
) -> anyhow::Result<Vec<Applied>> {
    let options = Options {
        namespace: "default".into(),
        force: false,
        dry_run: false,
    };
    let mut applier = Applier::new(client, options);
    let mut applied = Vec::new();
    for file in in_order(files) {
        let one = applier.apply(file).await?;
        output::step(&format!("{} {}", one.name, one.outcome));
        applied.push(one);
    }
    Ok(applied)
}

/// Where Ingresses are served: as was asked for, or at the defaults that nobody else has.
fn ingress(args: &Args) -> [Option<SocketAddr>; 2] {
    let asked = args.node.ingress();
    if args.no_ingress || asked.iter().any(Option::is_some) {
        return asked;
    }
    INGRESS.map(|at| match TcpListener::bind(at) {
        Ok(_) => Some(at),
        Err(error) => {
            output::step(&format!("Ingresses are not served at {at}: {error}"));
            None
        }
    })
}

/// Says where Ingresses are served, and lets the node have their certificates.
async fn announce_ingress(
    plane: &ControlPlane,
    node: &str,
    [plain, tls]: [Option<SocketAddr>; 2],
) -> anyhow::Result<()> {
    let urls = plain.map(|at| format!("http://{at}"));
    let urls = urls
        .into_iter()
        .chain(tls.map(|at| format!("https://{at}")));
    let urls: Vec<_> = urls.collect();
    if !urls.is_empty() {
        output::step(&format!("Ingresses are served at {}", urls.join(" and ")));
    }
    let label = (!urls.is_empty()).then_some("true");
    let patch = json!({"metadata": {"labels": {NODE_LABEL: label}}});
    let client = plane.client(UserInfo::authenticated("kubernetes-admin", &[MASTERS]));
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client);
    let params = PatchParams::default();
    let labelled = nodes.patch(node, &params, &Patch::Merge(&patch)).await;
    labelled
        .map(drop)
        .context("label the node that serves Ingresses")
}

async fn start_node(args: &Args, plane: &ControlPlane) -> anyhow::Result<Node> {
    let started = Instant::now();
    let ingress = ingress(args);
    let name = args.node.name()?;
    let user = format!("system:node:{name}");
    let address = plane.address().ip();
    let names = vec![name.clone(), address.to_string()];
    let identities = Identities {
        authority: Arc::clone(plane.authority()),
        user: user.clone(),
        names,
    };
    let shown = identities.make()?;
    let renewal = tokio::spawn(renew(identities, shown.clone()));
    let Shown {
        tls,
        guest_tls,
        tunnel,
    } = shown;
    let agent = node::build(NodeConfig {
        client: plane.client(UserInfo::authenticated(user, &[NODES])),
        name: name.clone(),
        data_dir: node::directory_in(&args.data_dir.path()?),
        tls,
        guest_tls,
        tunnel,
        listen: SocketAddr::new(address, 0),
        node_ports: Some(args.control_plane.listen.ip()),
        dns: args.node.dns(),
        ingress,
        host_paths: args.node.host_paths()?,
        thresholds: args.node.thresholds(),
        api_server: Some(plane.address()),
        registries: args.node.registries()?,
        image_collection: args.node.image_collection()?,
        static_pods: args.node.static_pods(),
        linux: args.node.linux(),
    });
    let agent = agent.await?;
    plane
        .server()
        .nodes()
        .reach_locally(&name, agent.local_dialer());
    let mut registered = agent.registered();
    let serves = agent.ingress_addresses();
    let stop = CancellationToken::new();
    let running = tokio::spawn(agent.run(stop.clone()));
    registered
        .wait_for(|registered| *registered)
        .await
        .context("the node agent ended")?;
    took(&format!("node {name} is registered"), started);
    announce_ingress(plane, &name, serves).await?;
    Ok(Node {
        stop,
        running,
        renewal,
    })
}

/// What the node of this process shows to others, issued by the control plane beside it.
struct Identities {
    authority: Arc<Authority>,
    user: String,
    /// Names and addresses of its daemon endpoint.
    names: Vec<String>,
}

/// How the node meets others, and whom it trusts.
#[derive(Clone)]
struct Shown {
    tls: DaemonTls,
    guest_tls: GuestTls,
    tunnel: TunnelIdentity,
}

impl Identities {
    fn issue(&self) -> Result<(Identity, Identity), PkiError> {
        let serving = self.authority.serving(&self.user, self.names.clone())?;
        Ok((serving, self.authority.client(&self.user, &[NODES])?))
    }

    fn make(&self) -> anyhow::Result<Shown> {
        let (serving, calling) = self.issue()?;
        let ca = self.authority.certificate();
        let (certificate, key) = (serving.certificate.as_bytes(), serving.key.as_bytes());
        let tls = DaemonTls::new(certificate, key, ca.as_bytes(), Vec::new())?;
        let (certificate, key) = (calling.certificate.as_bytes(), calling.key.as_bytes());
        let tunnel = TunnelIdentity::new(certificate, key, ca.as_bytes())?;
        Ok(Shown {
            tls,
            guest_tls: node::guest_tls(ca.as_bytes())?,
            tunnel,
        })
    }

    fn replace(&self, shown: &Shown) -> anyhow::Result<()> {
        let (serving, calling) = self.issue()?;
        let ca = self.authority.certificate();
        let (certificate, key) = (serving.certificate.as_bytes(), serving.key.as_bytes());
        shown.tls.replace(certificate, key, ca.as_bytes())?;
        shown.guest_tls.replace(ca.as_bytes())?;
        let (certificate, key) = (calling.certificate.as_bytes(), calling.key.as_bytes());
        Ok(shown.tunnel.replace(certificate, key, ca.as_bytes())?)
    }
}

/// Issues new certificates before they end, and when the authority becomes another.
async fn renew(identities: Identities, shown: Shown) {
    let mut changes = identities.authority.changes();
    loop {
        Authority::due(&mut changes).await;
        if let Err(error) = identities.replace(&shown) {
            tracing::error!(%error, "the node's certificates stay");
        }
    }
}

fn took(what: &str, since: Instant) {
    output::step(&format!("{what} ({} ms)", since.elapsed().as_millis()));
}
