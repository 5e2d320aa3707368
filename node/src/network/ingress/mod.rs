//! Ingresses: HTTP from outside of the cluster to Services, by host and path.
//!
//! ```text
//!   Ingress, IngressClass ─► rules.rs (pure) ──┐
//!   Secrets that they name ─ certificates.rs ──┴─► Shown, behind one atomic pointer
//!                                                    │
//!   client ─ listener.rs ─ TLS by name, h1, h2 ─ proxy.rs ─ headers.rs (pure) ─ backends.rs ─► an endpoint
//! ```
//!
//! 1. Ingresses of classes whose controller is [`CONTROLLER`] count, wherever they are.
//! 2. Each change makes the rules anew, once for all that came meanwhile. Requests go by what is shown when they come.
//! 3. The endpoints of a Service are looked up for each request. A pod of this node is reached by a pipe in memory, one of
//!    another by the tunnel.
//! 4. A Secret is watched by its name for as long as an Ingress names it. The API server lets a node read it only if an
//!    administrator made it one that serves Ingresses: SECURITY.md.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::{Api, Client, ResourceExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use windlass_api::ingress::{CLASS_ANNOTATION, CONTROLLER};

mod backends;
mod body;
mod certificates;
mod headers;
mod listener;
mod proxy;
mod rules;

pub(super) use rules::PortRef;

use super::HostNetwork;
use super::follow::{Feed, ObjectKey, follow};
use crate::objects::{Known, ObjectWatches, Watch};
use crate::tasks::OwnedTask;
use certificates::{Certificates, Shown};
use proxy::Proxy;
use rules::Rules;

/// The sockets of an Ingress server.
#[derive(Debug)]
pub struct IngressListeners {
    plain: Option<TcpListener>,
    tls: Option<TcpListener>,
}

impl IngressListeners {
    /// Opens what is asked for: one for HTTP, one for HTTPS.
    ///
    /// # Errors
    /// The address that cannot be opened, and why.
    pub async fn bind(
        plain: Option<SocketAddr>,
        tls: Option<SocketAddr>,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let open = async |address: Option<SocketAddr>| match address {
            None => Ok(None),
            Some(at) => TcpListener::bind(at)
                .await
                .map(Some)
                .map_err(|error| (at, error)),
        };
        Ok(Self {
            plain: open(plain).await?,
            tls: open(tls).await?,
        })
    }

    /// Where HTTP is served, if it is.
    #[must_use]
    pub fn plain(&self) -> Option<SocketAddr> {
        self.plain.as_ref()?.local_addr().ok()
    }

    /// Where HTTPS is served, if it is.
    #[must_use]
    pub fn tls(&self) -> Option<SocketAddr> {
        self.tls.as_ref()?.local_addr().ok()
    }
}

/// Serves the cluster's Ingresses until dropped.
pub(super) async fn serve(
    host: HostNetwork,
    listeners: IngressListeners,
    client: Client,
    objects: Arc<ObjectWatches>,
) {
    let shown = Arc::new(ArcSwap::<Shown>::default());
    let acceptor = match certificates::server_config(shown.clone()) {
        Ok(config) => TlsAcceptor::from(Arc::new(config)),
        Err(error) => return tracing::error!(%error, "Ingresses are not served"),
    };
    let proxy = Proxy::new(host, shown.clone());
    let table = Table::default();
    let ingresses = follow(Api::<Ingress>::all(client.clone()), IngressFeed(&table));
    let classes = follow(Api::<IngressClass>::all(client), ClassFeed(&table));
    let plain = listeners
        .plain
        .map(|it| listener::serve(it, None, proxy.clone()));
    let tls = listeners
        .tls
        .map(|it| listener::serve(it, Some(acceptor), proxy));
    tokio::join!(
        ingresses,
        classes,
        keep(&table, &objects, &shown),
        optional(plain),
        optional(tls),
    );
}

async fn optional(part: Option<impl Future<Output = ()>>) {
    if let Some(part) = part {
        part.await;
    }
}

/// The objects that rules are made of.
#[derive(Default)]
struct Table {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    ingresses: BTreeMap<ObjectKey, Arc<Ingress>>,
    /// Those of ours.
    classes: HashSet<String>,
}

impl Table {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
    }

    fn compile(&self) -> Rules {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = state.ingresses.values().map(AsRef::as_ref);
        Rules::compile(
            ours.filter(|ingress| {
                class(ingress).is_some_and(|class| state.classes.contains(class))
            }),
        )
    }
}

fn class(ingress: &Ingress) -> Option<&str> {
    let named = ingress.spec.as_ref()?.ingress_class_name.as_deref();
    let annotated = || ingress.annotations().get(CLASS_ANNOTATION);
    named.or_else(|| annotated().map(String::as_str))
}

struct IngressFeed<'a>(&'a Table);

impl Feed<Ingress> for IngressFeed<'_> {
    fn apply(&self, object: &Ingress) {
        let mut kept = object.clone();
        kept.metadata.managed_fields = None;
        kept.status = None;
        let key = ObjectKey::of(object);
        self.0.change(|state| {
            state.ingresses.insert(key, Arc::new(kept));
        });
    }

    fn delete(&self, key: &ObjectKey) {
        self.0.change(|state| {
            state.ingresses.remove(key);
        });
    }

    fn retain(&self, present: &HashSet<ObjectKey>) {
        self.0
            .change(|state| state.ingresses.retain(|key, _| present.contains(key)));
    }
}

struct ClassFeed<'a>(&'a Table);

impl Feed<IngressClass> for ClassFeed<'_> {
    fn apply(&self, object: &IngressClass) {
        let controller = object
            .spec
            .as_ref()
            .and_then(|spec| spec.controller.as_deref());
        let (name, is_ours) = (object.name_any(), controller == Some(CONTROLLER));
        self.0.change(|state| {
            if is_ours {
                state.classes.insert(name);
            } else {
                state.classes.remove(&name);
            }
        });
    }

    fn delete(&self, key: &ObjectKey) {
        self.0.change(|state| {
            state.classes.remove(&key.name);
        });
    }

    fn retain(&self, present: &HashSet<ObjectKey>) {
        self.0.change(|state| {
            let is_present = |name: &String| present.contains(&ObjectKey::new("", name));
            state.classes.retain(is_present);
        });
    }
}

/// A Secret that is watched.
struct Watched {
    value: watch::Receiver<Known<Secret>>,
    _watch: Arc<Watch<Secret>>,
    /// Tells that it changed.
    _telling: OwnedTask,
}

/// Keeps what is shown in step with the objects.
async fn keep(table: &Table, objects: &ObjectWatches, shown: &ArcSwap<Shown>) {
    let mut changes = table.changed.subscribe();
    let mut watched: HashMap<ObjectKey, Watched> = HashMap::new();
    loop {
        changes.mark_unchanged();
        let rules = Arc::new(table.compile());
        let wanted: HashSet<ObjectKey> = rules.secrets().cloned().collect();
        watched.retain(|key, _| wanted.contains(key));
        for key in wanted {
            let begin = || follow_secret(objects, &key, &table.changed);
            watched.entry(key.clone()).or_insert_with(begin);
        }
        let certificates = usable(&watched, &shown.load().certificates);
        shown.store(Arc::new(Shown {
            rules,
            certificates,
        }));
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn follow_secret(objects: &ObjectWatches, key: &ObjectKey, changed: &watch::Sender<()>) -> Watched {
    let watch = objects.secrets.subscribe(&key.namespace, &key.name);
    let value = watch.changes();
    let (mut changes, changed) = (watch.changes(), changed.clone());
    let telling = OwnedTask::spawn(async move {
        while changes.changed().await.is_ok() {
            changed.send_replace(());
        }
    });
    Watched {
        value,
        _watch: watch,
        _telling: telling,
    }
}

/// The certificates of the Secrets; what was usable `before` stays where a Secret no longer is.
fn usable(watched: &HashMap<ObjectKey, Watched>, before: &Certificates) -> Certificates {
    let certificate = |key: &ObjectKey, watched: &Watched| {
        let secret = match &*watched.value.borrow() {
            Some(Some(secret)) => secret.clone(),
            Some(None) => return None,
            None => return before.get(key).cloned(),
        };
        certificates::read(&secret).map_or_else(
            |error| {
                let ObjectKey { namespace, name } = key;
                let reason: &dyn std::error::Error = &error;
                tracing::warn!(
                    namespace,
                    name,
                    reason,
                    "a Secret holds no certificate for its Ingress"
                );
                before.get(key).cloned()
            },
            Some,
        )
    };
    let all = watched.iter();
    all.filter_map(|(key, watched)| Some((key.clone(), certificate(key, watched)?)))
        .collect()
}

#[cfg(test)]
mod tests;
