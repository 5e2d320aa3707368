//! The composition root: every long-running part of the control plane, each named once.

mod renewal;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use windlass_oci::registry::server::ImageRegistry;

use crate::config::Config;
use crate::controllers::{self, ControllersConfig, Signer, Usage};
use crate::identity::{MASTERS, UserInfo};
use crate::pki::service_account::Tokens;
use crate::pki::{Authority, Identity, PkiError, files};
use crate::registry::kinds::KINDS;
use crate::registry::{NotInSchema, Registry};
use crate::server::audit::{AuditOptions, AuditOptionsError};
use crate::server::authn::{AuthenticationError, Authenticator, Incomplete};
use crate::server::connect::NodeConnector;
use crate::server::dashboard::{Dashboard, DashboardConfig};
use crate::server::listener::{self, ListenError};
use crate::server::tls::Tls;
use crate::server::{ApiServer, Parts, in_process};
use crate::store::backend::{Backend, BackendError};
use crate::store::local::LocalStore;
use crate::store::memory::MemoryBackend;
use crate::store::redb::RedbBackend;
use crate::store::{Retention, Store};
use crate::{bootstrap, images, kubeconfig, scheduler};

/// How often history beyond the retention is dropped.
const COMPACT_EVERY: Duration = Duration::from_secs(30);
/// The user name of the API server when it connects to nodes.
pub const NODE_CLIENT: &str = "kube-apiserver-kubelet-client";

const SCHEDULER: &str = "system:kube-scheduler";

/// Why a control plane did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: PkiError,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] BackendError),
    /// Certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The image registry's directory cannot be used.
    #[error("image registry: {0}")]
    Images(#[from] windlass_oci::content_store::ContentError),
    /// The API cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Who is taken for whom does not make sense.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditOptionsError),
    /// A proxy in front of the API is not described whole.
    #[error(transparent)]
    FrontProxy(#[from] Incomplete),
    /// TLS to node agents cannot be set up.
    #[error("set up TLS to nodes: {0}")]
    NodeTls(#[from] rustls::Error),
    /// The table of kinds and the schema disagree; a bug.
    #[error(transparent)]
    Kinds(#[from] NotInSchema),
    /// Two metrics have one name; a bug.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The first objects cannot be made.
    #[error("make the cluster's first objects: {0}")]
    Bootstrap(#[source] Box<kube::Error>),
}

/// A running control plane.
pub struct ControlPlane {
    config: Config,
    server: Arc<ApiServer>,
    endpoint: Endpoint,
    stop: CancellationToken,
    parts: JoinSet<()>,
    /// Writes audit events.
    writers: Option<JoinHandle<()>>,
    /// They go on until everything else has stopped.
    stop_writers: CancellationToken,
}

/// Where and as whom the control plane is reached and reaches others.
#[derive(Clone)]
struct Endpoint {
    authority: Arc<Authority>,
    address: SocketAddr,
    /// Names and addresses of the serving certificate.
    names: Vec<String>,
    tls: Arc<Tls>,
    nodes: NodeConnector,
    front_proxy: Option<String>,
    kubeconfig: Option<PathBuf>,
}

impl Endpoint {
    /// A certificate for the socket.
    fn serving(authority: &Authority, names: &[String]) -> Result<Identity, PkiError> {
        authority.serving("kube-apiserver", names.to_vec())
    }

    /// A certificate for connections to nodes.
    fn node_client(authority: &Authority) -> Result<Identity, PkiError> {
        authority.client(NODE_CLIENT, &[MASTERS])
    }

    /// Puts new certificates in the place of those in use.
    fn renew(&self) -> Result<(), StartError> {
        let serving = Self::serving(&self.authority, &self.names)?;
        let front_proxy = self.front_proxy.as_deref();
        self.tls.replace(&self.authority, &serving, front_proxy)?;
        let identity = Self::node_client(&self.authority)?;
        Ok(self.nodes.replace(&self.authority, &identity)?)
    }

    /// Says to nodes that join, and to the administrator, who is to be trusted.
    async fn publish(&self, client: &kube::Client) -> Result<(), StartError> {
        self.write_kubeconfig()?;
        let ca = self.authority.certificate();
        let published = bootstrap::publish(client, self.address, &ca).await;
        published.map_err(|error| StartError::Bootstrap(Box::new(error)))
    }

    fn write_kubeconfig(&self) -> Result<(), PkiError> {
        match &self.kubeconfig {
            Some(path) => files::write(path, &self.admin_kubeconfig()?),
            None => Ok(()),
        }
    }

    fn admin_kubeconfig(&self) -> Result<String, PkiError> {
        let identity = self.authority.client("kubernetes-admin", &[MASTERS])?;
        let server = format!("https://{}", self.address);
        let ca = self.authority.certificate();
        Ok(kubeconfig::for_identity(
            &server,
            &ca,
            "kubernetes-admin",
            &identity,
        ))
    }
}

impl ControlPlane {
    /// Starts everything; returns once the API serves and the cluster's first objects are there.
    ///
    /// # Errors
    /// What the user has to mend: a directory in use, a port taken.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        files::make_directory(&config.data_dir).map_err(|source| StartError::DataDir {
            path: config.data_dir.clone(),
            source,
        })?;
        let store = open_store(&config).await?;
        let pki = config.data_dir.join("pki");
        let authority = Arc::new(Authority::load_or_create(&pki)?);
        let tokens = Arc::new(Tokens::load_or_create(
            &pki,
            &config.service_account_issuers,
        )?);
        let kinds = KINDS.iter().map(|kind| kind());
        let registry = Arc::new(Registry::new(
            Arc::clone(&store),
            kinds,
            config.pools.clone(),
            config.admission.clone(),
        )?);
        let (audit, writers) = config
            .audit
            .clone()
            .map(AuditOptions::open)
            .transpose()?
            .unzip();
        let nodes = NodeConnector::new(&authority, &Endpoint::node_client(&authority)?)?;
        let images = if config.image_registry {
            let directory = config.data_dir.join("registry");
            Some(images::open(&directory, Arc::clone(&registry)).await?)
        } else {
            None
        };
        let server = ApiServer::new(Parts {
            registry,
            authenticator: Authenticator::new(
                Arc::clone(&tokens),
                &config.authentication,
                config.front_proxy.clone(),
            )?,
            tokens: Arc::clone(&tokens),
            nodes: nodes.clone(),
            images: images.as_ref().map(ImageRegistry::router),
            audit,
            peers: config.peer_limits,
        })?;
        let listener = listener::bind(config.listen).await?;
        let bind_error = |source| ListenError::Bind {
            address: config.listen,
            source,
        };
        let address = listener.local_addr().map_err(bind_error)?;
        let names = serving_names(&config, address);
        let serving = Endpoint::serving(&authority, &names)?;
        let front_proxy = config.front_proxy.as_ref();
        let front_proxy = front_proxy.map(|proxy| proxy.certificate_authority.clone());
        let endpoint = Endpoint {
            tls: Arc::new(Tls::new(&authority, &serving, front_proxy.as_deref())?),
            address: reachable(address),
            kubeconfig: config.admin_kubeconfig.clone(),
            authority,
            names,
            nodes,
            front_proxy,
        };
        let mut plane = Self {
            config,
            server,
            endpoint,
            stop: CancellationToken::new(),
            parts: JoinSet::new(),
            writers: None,
            stop_writers: CancellationToken::new(),
        };
        let tls = Some(Arc::clone(&plane.endpoint.tls));
        let serve = listener::serve(listener, tls, Arc::clone(&plane.server), plane.stop.clone());
        plane.parts.spawn(serve);
        if let Some(writers) = writers {
            let stop = plane.stop_writers.clone();
            plane.writers = Some(tokio::spawn(writers.run(stop)));
        }
        let files = renewal::Files {
            authority: Arc::clone(&plane.endpoint.authority),
            pki,
            tokens,
        };
        let follow = renewal::follow_files(files, plane.stop.clone());
        plane.parts.spawn(follow);
        plane
            .parts
            .spawn(compact(store, plane.config.retention, plane.stop.clone()));
        if let Some(images) = images {
            let stop = plane.stop.clone();
            plane.parts.spawn(async move {
                stop.run_until_cancelled(images.collect_forever()).await;
            });
        }
        let client = plane.client(UserInfo::authenticated("system:apiserver", &[MASTERS]));
        plane.bootstrap(&client).await?;
        let issue = renewal::issue(plane.endpoint.clone(), client.clone(), plane.stop.clone());
        plane.parts.spawn(issue);
        let prepare = Arc::clone(&plane.server);
        plane
            .parts
            .spawn(async move { prepare.authenticator().prepare().await });
        plane.start_controllers();
        bootstrap::settle(&client).await;
        plane.server.set_ready();
        Ok(plane)
    }

    async fn bootstrap(&self, client: &kube::Client) -> Result<(), StartError> {
        bootstrap::ensure(client, &self.config, self.endpoint.address)
            .await
            .map_err(|error| StartError::Bootstrap(Box::new(error)))?;
        self.endpoint.publish(client).await
    }

    fn start_controllers(&mut self) {
        let config = ControllersConfig {
            pod_network: self.config.pod_network,
            node_cidr_bits: self.config.node_bits,
            service_network: self.config.pools.service_network,
            load_balancer_pool: self.config.load_balancer_pool.clone(),
            node_grace: self.config.node_grace,
            autoscaling_period: self.config.autoscaling_period,
            clock: self.config.clock.clone(),
            signer: Arc::clone(&self.endpoint.authority) as Arc<dyn Signer>,
        };
        let server = Arc::clone(&self.server);
        let wrap = self.config.component_clients.clone();
        let clients = move |user: &str| {
            let user = UserInfo::authenticated(user, &[]);
            wrap.wrap(in_process::client(&server, user))
        };
        let scheduler = clients(SCHEDULER);
        self.parts
            .spawn(controllers::run(clients, config, self.stop.clone()));
        let profiles = self.config.schedulers.clone();
        self.parts
            .spawn(scheduler::run(scheduler, profiles, self.stop.clone()));
    }

    /// Where clients on this machine reach the API.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.endpoint.address
    }

    /// The authority everything in the cluster trusts.
    #[must_use]
    pub fn authority(&self) -> &Arc<Authority> {
        &self.endpoint.authority
    }

    /// The API server, for requests that need no socket.
    #[must_use]
    pub fn server(&self) -> &Arc<ApiServer> {
        &self.server
    }

    /// A client of this process that acts for `user`.
    #[must_use]
    pub fn client(&self, user: UserInfo) -> kube::Client {
        in_process::client(&self.server, user)
    }

    /// A kubeconfig with which a user may do everything.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn admin_kubeconfig(&self) -> Result<String, PkiError> {
        self.endpoint.admin_kubeconfig()
    }

    /// Serves the dashboard at `address`; answers it, and where it is.
    ///
    /// # Errors
    /// [`ListenError`]: the address cannot be listened on.
    pub async fn serve_dashboard(
        &mut self,
        address: SocketAddr,
        config: DashboardConfig,
    ) -> Result<(Arc<Dashboard>, SocketAddr), ListenError> {
        let listener = listener::bind(address).await?;
        let bind_error = |source| ListenError::Bind { address, source };
        let local = listener.local_addr().map_err(bind_error)?;
        let dashboard = Dashboard::new(Arc::clone(&self.server), config, local.port());
        let tls = config.secure.then(|| Arc::clone(&self.endpoint.tls));
        let serve = listener::serve(listener, tls, Arc::clone(&dashboard), self.stop.clone());
        self.parts.spawn(serve);
        Ok((dashboard, local))
    }

    /// Stops everything in order and returns once the data file is closed, whoever still holds a client: its writes
    /// are refused from then on.
    pub async fn shutdown(mut self) {
        self.server.set_stopping();
        self.stop.cancel();
        while let Some(ended) = self.parts.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the control plane failed");
            }
        }
        self.stop_writers.cancel();
        if let Some(writers) = self.writers.take()
            && let Err(error) = writers.await
        {
            tracing::error!(%error, "audit events were not written");
        }
        self.server.registry().store().close().await;
    }
}

impl std::fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ControlPlane({})", self.endpoint.address)
    }
}

/// The listening address, with one that can be connected to in place of "any".
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Signer for Authority {
    fn trusted(&self) -> Arc<str> {
        self.certificate()
    }

    fn changes(&self) -> watch::Receiver<()> {
        Self::changes(self)
    }

    fn sign(&self, request: &str, life: Duration, usage: Usage) -> Result<String, String> {
        let usage = match usage {
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        };
        Self::sign(self, request, life, usage).map_err(|error| error.to_string())
    }
}

/// The file in which a control plane keeps its objects.
#[must_use]
pub fn data_file(data_dir: &Path) -> PathBuf {
    data_dir.join("store.redb")
}

async fn open_store(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    let (path, in_memory) = (data_file(&config.data_dir), config.in_memory);
    let encryption = config.encryption.clone();
    let open = move || {
        let backend: Box<dyn Backend> = if in_memory {
            Box::new(MemoryBackend::default())
        } else {
            Box::new(RedbBackend::open(&path)?)
        };
        LocalStore::open(backend, Box::new(encryption))
    };
    let opened = tokio::task::spawn_blocking(open).await;
    let store = opened.map_err(|error| BackendError::Io(error.to_string()))??;
    Ok(Arc::new(store))
}

fn serving_names(config: &Config, address: SocketAddr) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "127.0.0.1",
        "::1",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .into();
    names.push(config.api_service_address().to_string());
    names.push(address.ip().to_string());
    names.extend(config.names.iter().cloned());
    names.sort_unstable();
    names.dedup();
    names
}

async fn compact(store: Arc<dyn Store>, retention: Retention, stop: CancellationToken) {
    let mut every = tokio::time::interval(COMPACT_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        if let Err(error) = store.compact(retention).await {
            tracing::warn!(%error, "compact history");
        }
    }
}
