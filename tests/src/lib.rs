//! In-process clusters for behaviour tests.
//!
//! Every test owns its cluster, its directory and its ports. [`Cluster::control_plane`] is a control
//! plane alone; [`Cluster::with_node`] has a node that runs wasm. Nothing here sleeps: [`eventually`]
//! waits on a watch, with a bound, and says what it last saw when it gives up.

pub mod load;

use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use kube::api::Api;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::RootCertStore;
use tokio_util::sync::CancellationToken;
use windlass_control::identity::{MASTERS, NODES, UserInfo};
use windlass_control::{Config, ControlPlane};
use windlass_node::images::ApiTransport;
use windlass_node::network::{Network, NetworkConfig, TunnelIdentity};
use windlass_node::runtime::wasm::{EngineConfig, GuestTls, WasmConfig, WasmRuntime};
use windlass_node::server::tls::DaemonTls;
use windlass_node::{HostPaths, NodeAgent, NodeAgentBuilder};
use windlass_oci::push::push_wasm;
use windlass_oci::reference::{CLUSTER_REGISTRY, Reference};
use windlass_oci::registry::client::RegistryClient;

/// The code in the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// How long a test waits for anything; a bound for broken code, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of this process.
pub struct Cluster {
    plane: ControlPlane,
    nodes: Vec<TestNode>,
    dir: TempDir,
}

struct TestNode {
    name: String,
    address: Ipv4Addr,
    dns: SocketAddr,
    ingress: [Option<SocketAddr>; 2],
    stop: CancellationToken,
    running: JoinHandle<()>,
}

/// A loopback address that no other node of the tests uses: every cluster picks its NodePorts from the
/// same range, and a request must not end at another test's node.
fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // Another network than 127.0.0.0/24, where everything else of a machine listens.
    Ipv4Addr::new(127, 1 + high, 1 + low / 250, 1 + low % 250)
}

/// What a raw request answered.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: StatusCode,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body, parsed; a JSON string if it is not JSON.
    pub body: Value,
}

impl Cluster {
    /// A control plane that keeps its objects in memory.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn control_plane() -> anyhow::Result<Self> {
        Self::start(|config| config.in_memory = true).await
    }

    /// A control plane with changes to its configuration.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(change: impl FnOnce(&mut Config)) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut config = Config::new(dir.path().join("server"));
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        change(&mut config);
        let plane = ControlPlane::start(config).await?;
        Ok(Self {
            plane,
            nodes: Vec::new(),
            dir,
        })
    }

    /// A control plane and a node `node-1` that runs wasm.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn with_node() -> anyhow::Result<Self> {
        let mut cluster = Self::control_plane().await?;
        cluster.add_node("node-1").await?;
        Ok(cluster)
    }

    /// Adds a node.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_node(&mut self, name: &str) -> anyhow::Result<()> {
        self.add_node_with(name, |builder| builder).await
    }

    /// Adds a node with changes to its agent.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_node_with(
        &mut self,
        name: &str,
        change: impl FnOnce(NodeAgentBuilder) -> NodeAgentBuilder,
    ) -> anyhow::Result<()> {
        let plane = &self.plane;
        let address = loopback();
        let user = format!("system:node:{name}");
        let names = vec![name.to_owned(), "127.0.0.1".to_owned()];
        let serving = plane.authority().serving(&user, names)?;
        let ca = plane.authority().certificate();
        let ca = ca.as_bytes();
        let tls = DaemonTls::new(
            serving.certificate.as_bytes(),
            serving.key.as_bytes(),
            ca,
            Vec::new(),
        )?;
        let calling = plane.authority().client(&user, &[NODES])?;
        let tunnel =
            TunnelIdentity::new(calling.certificate.as_bytes(), calling.key.as_bytes(), ca)?;
        let directory = self.dir.path().join(name);
        let host = self.host_directory();
        std::fs::create_dir_all(&host)?;
        let engine = EngineConfig {
            instances: 64,
            ..EngineConfig::default()
        };
        let runtime = WasmRuntime::new(WasmConfig {
            cache: directory.join("compiled"),
            engine,
            tls: Some(GuestTls::new(RootCertStore::empty(), ca)?.config()),
            ..WasmConfig::default()
        })?;
        let network = Network::new(NetworkConfig {
            cluster_cidr: Some("10.128.0.0/10".parse()?),
            api_server: Some(plane.address()),
            ..NetworkConfig::default()
        });
        let any = SocketAddr::new(address.into(), 0);
        let builder = NodeAgent::builder()
            .client(plane.client(UserInfo::authenticated(user, &[NODES])))
            .name(name)
            .data_dir(directory)
            .tls(tls)
            .tunnel_identity(tunnel)
            .network(network)
            .host_paths(HostPaths::allow([host])?)
            .node_ports(address.into())
            .dns(any)
            .ingress(Some(any), Some(any))
            .runtime(Arc::new(runtime));
        let agent = change(builder).build().await?;
        if self.nodes.is_empty() {
            // As `windlass up` does; further nodes are reached as those of other machines.
            plane
                .server()
                .nodes()
                .reach_locally(name, agent.local_dialer());
        }
        let ingress = agent.ingress_addresses();
        let dns = agent.dns_address().context("the node answers no DNS")?;
        let mut registered = agent.registered();
        let stop = CancellationToken::new();
        let running = tokio::spawn(agent.run(stop.clone()));
        registered
            .wait_for(|registered| *registered)
            .await
            .context("the agent ended")?;
        self.nodes.push(TestNode {
            name: name.to_owned(),
            address,
            dns,
            ingress,
            stop,
            running,
        });
        Ok(())
    }

    /// Where the first node's NodePorts listen; localhost if there is no node.
    #[must_use]
    pub fn node_address(&self) -> Ipv4Addr {
        let first = self.nodes.first();
        first.map_or(Ipv4Addr::LOCALHOST, |node| node.address)
    }

    /// Where the first node answers DNS.
    ///
    /// # Panics
    /// When there is no node.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn dns_address(&self) -> SocketAddr {
        self.nodes.first().expect("a node").dns
    }

    /// Where the first node serves Ingresses: by HTTP and by HTTPS.
    ///
    /// # Panics
    /// When there is no node.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn ingress_addresses(&self) -> [SocketAddr; 2] {
        let node = self.nodes.first().expect("a node");
        node.ingress.map(|at| at.expect("an Ingress server"))
    }

    /// The control plane.
    #[must_use]
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// The control plane, to add to.
    pub fn plane_mut(&mut self) -> &mut ControlPlane {
        &mut self.plane
    }

    /// A directory of the test's own.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// A directory below which pods may mount hostPath volumes, once there is a node.
    #[must_use]
    pub fn host_directory(&self) -> PathBuf {
        self.dir.path().join("host")
    }

    /// An administrator's client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client_of("admin", &[MASTERS])
    }

    /// Another user's client.
    #[must_use]
    pub fn client_of(&self, user: &str, groups: &[&str]) -> Client {
        self.plane.client(UserInfo::authenticated(user, groups))
    }

    /// An administrator's client that connects over TLS, as others do; upgrades need a connection.
    ///
    /// # Errors
    /// When the kubeconfig cannot be used.
    pub async fn client_over_tls(&self) -> anyhow::Result<Client> {
        let kubeconfig = Kubeconfig::from_yaml(&self.plane.admin_kubeconfig()?)?;
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Client::try_from(config)?)
    }

    /// Writes an administrator's kubeconfig and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join("kubeconfig");
        std::fs::write(&path, self.plane.admin_kubeconfig()?)?;
        Ok(path)
    }

    /// Sends a raw request as an administrator.
    ///
    /// # Errors
    /// When no answer can be read.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> anyhow::Result<Answer> {
        self.request_as(&self.client(), method, path, headers, body)
            .await
    }

    /// Sends a raw request through `client`.
    ///
    /// # Errors
    /// When no answer can be read.
    pub async fn request_as(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> anyhow::Result<Answer> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let bytes = body.into().collect().await?.to_bytes();
        let response = client
            .send(request.body(kube::client::Body::from(bytes))?)
            .await?;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await?.to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// Creates an object from JSON at a collection's path.
    ///
    /// # Errors
    /// When the answer is not 201.
    pub async fn create(&self, path: &str, object: &Value) -> anyhow::Result<Value> {
        let json = [(header::CONTENT_TYPE.as_str(), "application/json")];
        let answer = self
            .request(Method::POST, path, &json, object.to_string())
            .await?;
        anyhow::ensure!(answer.status == StatusCode::CREATED, "{answer:?}");
        Ok(answer.body)
    }

    /// Ends a node at once, as a crash of its machine does: nobody is told.
    pub fn kill_node(&mut self, name: &str) {
        self.nodes.retain(|node| {
            let is_meant = node.name == name;
            if is_meant {
                node.running.abort();
            }
            !is_meant
        });
    }

    /// Stops nodes and control plane in order.
    pub async fn shutdown(mut self) {
        for node in self.nodes.drain(..) {
            node.stop.cancel();
            if let Err(error) = node.running.await {
                tracing::error!(%error, "a test node failed");
            }
        }
        self.plane.shutdown().await;
    }
}

/// One request on a connection of its own: status and text.
///
/// # Errors
/// There is no whole answer.
pub async fn get(url: &str) -> Result<(u16, String), String> {
    let client: HttpClient<_, Empty<Bytes>> = HttpClient::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    let request = client.get(url.parse().map_err(|error| format!("{error}"))?);
    let response = tokio::time::timeout(Duration::from_secs(20), request);
    let response = response.await.map_err(|_| "no answer".to_owned())?;
    let response = response.map_err(|error| format!("{error:?}"))?;
    let status = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| format!("{error:?}"))?;
    Ok((
        status,
        String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    ))
}

/// Pushes a component to the cluster's registry and returns its reference by digest.
///
/// # Panics
/// When the registry does not take it.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
pub async fn push(cluster: &Cluster, name: &str, wasm: &[u8]) -> String {
    let transport = ApiTransport::new(cluster.client());
    let registry = RegistryClient::new(Arc::new(transport), CLUSTER_REGISTRY);
    let reference: Reference = format!("{CLUSTER_REGISTRY}/default/{name}:1")
        .parse()
        .unwrap();
    let digest = push_wasm(&registry, &reference, Bytes::copy_from_slice(wasm))
        .await
        .unwrap();
    reference.with_digest(digest).to_string()
}

/// Waits until `accept` holds of the object called `name` (`None`: it is not there).
///
/// # Panics
/// After [`PATIENCE`], with the object as last seen.
pub async fn eventually<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    mut accept: impl FnMut(Option<&K>) -> bool,
) -> Option<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut seen: Option<K> = None;
    let mut stream = watcher::watch_object(api, name).default_backoff().boxed();
    let wait = async {
        while let Some(event) = stream.next().await {
            if let Ok(object) = event {
                seen = object;
                if accept(seen.as_ref()) {
                    return;
                }
            }
        }
    };
    let outcome = tokio::time::timeout(PATIENCE, wait).await;
    assert!(
        outcome.is_ok(),
        "{what} of {name} did not come true; last seen: {seen:#?}"
    );
    seen
}
