//! Who may do what, seen from outside: requests over TLS, with what is written to the audit log about them.

mod attacks;
mod audit;
mod authority;
mod connections;
mod front_proxy;
mod images;
mod issuers;
mod nodes;
mod storage;

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use windlass_control::Config as PlaneConfig;
use windlass_control::pki::Authority;
use windlass_control::server::audit::{AuditOptions, BatchOptions, LogFileOptions, Mode, Policy};
use windlass_tests::{Answer, Cluster};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A client that connects over TLS; as an administrator without `auth`.
pub(crate) async fn over_tls(cluster: &Cluster, auth: Option<AuthInfo>) -> Client {
    let text = cluster.plane().admin_kubeconfig().unwrap();
    let kubeconfig = Kubeconfig::from_yaml(&text).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.unwrap();
    if let Some(auth) = auth {
        config.auth_info = auth;
    }
    Client::try_from(config).unwrap()
}

pub(crate) fn bearer(token: &str) -> Option<AuthInfo> {
    Some(AuthInfo {
        token: Some(token.to_owned().into()),
        ..AuthInfo::default()
    })
}

fn certificate(certificate: &str, key: &str) -> Option<AuthInfo> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    Some(AuthInfo {
        client_certificate_data: Some(STANDARD.encode(certificate)),
        client_key_data: Some(STANDARD.encode(key).into()),
        ..AuthInfo::default()
    })
}

/// Who the API takes the client for.
async fn who_am_i(cluster: &Cluster, client: &Client, headers: &[(&str, &str)]) -> Answer {
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let headers = [&[JSON], headers].concat();
    let asked = cluster.request_as(client, Method::POST, path, &headers, "{}");
    asked.await.unwrap()
}

/// A server of the test's own, with an authority of its own.
struct Server {
    url: String,
    /// The authority's certificate, in PEM.
    ca: String,
    running: JoinHandle<()>,
    _dir: TempDir,
}

impl Server {
    async fn start(router: impl FnOnce(&str) -> Router) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let serving = authority.serving("server", vec!["127.0.0.1".into()]);
        let (chain, key) = serving.unwrap().for_rustls();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let router = router(&url);
        let running = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    // A client that goes away is no concern of this server.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let service = TowerToHyperService::new(router);
                        let builder = Builder::new(TokioExecutor::new());
                        let _ = builder
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    }
                });
            }
        });
        Self {
            url,
            ca: authority.certificate().to_string(),
            running,
            _dir: dir,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// A cluster that audits into a file.
struct Audited {
    cluster: Cluster,
    log: PathBuf,
    _dir: TempDir,
}

const BATCHES: BatchOptions = BatchOptions {
    buffer: 1000,
    max_size: 100,
    max_wait: std::time::Duration::from_millis(10),
};

fn policy(rules: &str) -> Policy {
    let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n";
    Policy::parse(&format!("{head}{rules}")).unwrap()
}

impl Audited {
    /// With these rules of a policy.
    async fn start(rules: &str) -> Self {
        Self::start_with(rules, |_| {}).await
    }

    async fn start_with(rules: &str, change: impl FnOnce(&mut PlaneConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("audit.log");
        let file = LogFileOptions {
            path: log.clone(),
            max_size: 1 << 30,
            max_age: std::time::Duration::ZERO,
            max_backups: 0,
        };
        let audit = AuditOptions {
            policy: policy(rules),
            log: Some((file, Mode::Blocking, BATCHES)),
            webhook: None,
        };
        let cluster = Cluster::start(|config| {
            config.in_memory = true;
            config.audit = Some(audit);
            change(config);
        });
        Self {
            cluster: cluster.await.unwrap(),
            log,
            _dir: dir,
        }
    }

    /// The events of the request that `answer` answers, in their order.
    fn events(&self, answer: &Answer) -> Vec<Value> {
        let id = answer.headers["audit-id"].to_str().unwrap();
        let text = std::fs::read_to_string(&self.log).unwrap();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
        events
            .filter(|event: &Value| event["auditID"] == id)
            .collect()
    }

    /// The event with which the request ended.
    fn event(&self, answer: &Answer) -> Value {
        let events = self.events(answer);
        let event = events
            .last()
            .unwrap_or_else(|| panic!("no event of {answer:?}"));
        assert_eq!(event["stage"], "ResponseComplete");
        event.clone()
    }

    async fn create(&self, path: &str, object: Value) -> Value {
        self.cluster.create(path, &object).await.unwrap()
    }

    async fn send(&self, client: &Client, method: Method, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let sent = self.cluster.request_as(client, method, path, &[JSON], body);
        sent.await.unwrap()
    }

    /// A ServiceAccount of a namespace, and a token for it.
    async fn account(&self, namespace: &str, name: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.create(&path, json!({"metadata": {"name": name}}))
            .await;
        let token = format!("{path}/{name}/token");
        let issued = self.create(&token, json!({"spec": {}}));
        issued.await["status"]["token"].as_str().unwrap().to_owned()
    }
}
