//! An API server for an agent that has none: the pods of a program, or of a folder, in memory.
//!
//! ```text
//!   program ── apply, delete ──┐                       ┌── kube::Client ── NodeAgent
//!   folder ── folder.rs ───────┴─► objects (store.rs) ─┴── requests (serve.rs): status, events ──► LocalEvent
//! ```
//!
//! 1. Pods, ConfigMaps and Secrets are given to it; everything else that an agent asks for is not there.
//! 2. The agent reads, watches and reports as with any API server, and doesn't know the difference.
//! 3. What it reports comes back as typed [`LocalEvent`]s.
//!
//! Nothing is kept: after a restart the program, or the folder, says anew what is to run.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use axum::Router;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use windlass_api::resource::GroupVersionKind;
use windlass_api::schema::{Schema, strict_error};
use windlass_oci::content_store::{ContentError, ContentStore};
use windlass_oci::push::push_wasm;
use windlass_oci::reference::Reference;
use windlass_oci::registry::client::{RegistryClient, RouterTransport};
use windlass_oci::registry::server::{Access, Authorize, Denied, Limits, router};

mod folder;
mod serve;
mod store;

pub use folder::Folder;

use store::{Key, Store};

/// Events that wait for a slow reader; more are lost to it.
const EVENTS: usize = 1024;
/// Where images of the program are: the name under which every cluster knows its own registry.
const REGISTRY: &str = "registry.windlass.local";
/// Namespace of what names none.
const NAMESPACE: &str = "default";

const PODS: &str = "v1/pods";

/// The resources that can be given, by kind.
const KINDS: &[(&str, &str)] = &[
    ("ConfigMap", "v1/configmaps"),
    ("Pod", PODS),
    ("Secret", "v1/secrets"),
];

/// How a local API is set up.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Name of the one node there is.
    pub node_name: String,
    /// The addresses of its pods, such as `10.64.0.0/24`.
    pub pod_cidr: String,
}

/// Why something can't be given.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Not an object, or not one that can run here.
    #[error("{0}")]
    Invalid(String),
    /// An image can't be kept.
    #[error("image {image:?}: {message}")]
    Image {
        /// The image, or its file.
        image: String,
        /// Why.
        message: String,
    },
    /// The folder can't be read or watched.
    #[error("{path}: {source}")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What happened to the pods.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LocalEvent {
    /// A pod has another status; the object has it.
    Status(Arc<Pod>),
    /// Something worth telling, as `kubectl describe` shows it.
    Event(Arc<Event>),
    /// A pod has ended and is gone.
    Removed {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A file of the folder is not understood; what came from it before goes on.
    Refused {
        /// The file.
        file: String,
        /// Why.
        message: String,
    },
}

impl LocalEvent {
    fn of_event(object: &Value) -> Option<Self> {
        let event = serde_json::from_value(object.clone()).ok()?;
        Some(Self::Event(Arc::new(event)))
    }

    fn of_status(object: &Value) -> Option<Self> {
        let pod = serde_json::from_value(object.clone()).ok()?;
        Some(Self::Status(Arc::new(pod)))
    }
}

/// Pods of a program, served to an agent. Cheap to clone.
#[derive(Clone)]
pub struct LocalApi(Arc<Inner>);

struct Inner {
    config: LocalConfig,
    objects: Store,
    /// What the program wants there to be, as it gave it. Locked before the objects are.
    given: Mutex<BTreeMap<Key, Value>>,
    registry: Router,
    events: broadcast::Sender<LocalEvent>,
}

/// Whoever has the program's own client may do all.
struct Program;

#[async_trait]
impl Authorize for Program {
    async fn authorize(&self, _: &http::Extensions, _: &str, _: Access) -> Result<(), Denied> {
        Ok(())
    }
}

impl LocalApi {
    /// A local API without pods, which keeps the images it is given in `images`.
    ///
    /// # Errors
    /// That directory can't be used.
    pub async fn open(config: LocalConfig, images: &Path) -> Result<Self, ContentError> {
        let store = ContentStore::open(images.to_owned()).await?;
        Ok(Self(Arc::new(Inner {
            config,
            objects: Store::default(),
            given: Mutex::default(),
            registry: router(store, Arc::new(Program), Limits::default()),
            events: broadcast::Sender::new(EVENTS),
        })))
    }

    /// The client that an agent is built with.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let inner = self.0.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let inner = inner.clone();
            async move { Ok::<_, Infallible>(serve::answer(inner, request).await) }
        });
        kube::Client::new(service, NAMESPACE)
    }

    /// What happens from now on. A reader that falls behind by more than a thousand events loses the oldest.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<LocalEvent> {
        self.0.events.subscribe()
    }

    /// Keeps a component as an image and answers the reference that pods name it by.
    ///
    /// # Errors
    /// It is no WebAssembly, or can't be kept.
    pub async fn push(&self, name: &str, wasm: Bytes) -> Result<String, LocalError> {
        let failed = |message: String| LocalError::Image {
            image: name.to_owned(),
            message,
        };
        let reference = format!("{REGISTRY}/{NAMESPACE}/{name}");
        let reference: Reference = reference
            .parse()
            .map_err(|error| failed(format!("{error}")))?;
        let client = RegistryClient::new(
            Arc::new(RouterTransport::new(self.0.registry.clone())),
            REGISTRY,
        );
        let digest = push_wasm(&client, &reference, wasm).await;
        let digest = digest.map_err(|error| failed(error.to_string()))?;
        Ok(reference.with_digest(digest).to_string())
    }

    /// Runs a pod, or keeps a ConfigMap or Secret that pods use. One of the same name is replaced: a pod ends first, unless
    /// only its labels or annotations changed.
    ///
    /// # Errors
    /// It is neither, or has fields that there are not.
    pub fn apply(&self, object: Value) -> Result<(), LocalError> {
        let (key, object) = self.0.complete(object)?;
        let mut given = self.0.given();
        let before = given.insert(key.clone(), object.clone());
        let same_spec = before.is_some_and(|before| before.get("spec") == object.get("spec"));
        self.0.put(&key, |found| match found {
            None => Some(new(object)),
            Some(found) if key.resource == PODS && !same_spec => Some(ending(found)),
            Some(found) => Some(renewed(found, &object)),
        });
        Ok(())
    }

    /// Ends a pod with its grace period, or removes a ConfigMap or Secret. `false` if there is none.
    #[must_use]
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let Some((_, resource)) = KINDS.iter().find(|(known, _)| *known == kind) else {
            return false;
        };
        let key = Key {
            resource: (*resource).to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let mut given = self.0.given();
        given.remove(&key);
        let found = self.0.put(&key, |found| match found {
            Some(found) if key.resource == PODS => Some(ending(found)),
            _ => None,
        });
        found.is_some()
    }

    /// The pods there are, with their statuses.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        let (pods, _) = self.0.objects.list(PODS, None);
        let read = |pod: &Arc<Value>| serde_json::from_value((**pod).clone()).ok();
        pods.iter().filter_map(read).collect()
    }
}

impl Inner {
    fn given(&self) -> MutexGuard<'_, BTreeMap<Key, Value>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(
        &self,
        key: &Key,
        change: impl FnOnce(Option<&Value>) -> Option<Value>,
    ) -> Option<Arc<Value>> {
        let changed = self
            .objects
            .update(key, |found| Ok::<_, Infallible>(change(found)));
        match changed {
            Ok(changed) => changed,
            Err(never) => match never {},
        }
    }

    /// Tells the program, if it listens.
    fn tell(&self, event: Option<LocalEvent>) {
        if let Some(event) = event {
            // An error means that nobody does.
            let _unheard = self.events.send(event);
        }
    }

    /// Checks what the program gives and adds what an API server would have.
    fn complete(&self, mut object: Value) -> Result<(Key, Value), LocalError> {
        let text = |at: &str| {
            object
                .pointer(at)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let known = KINDS
            .iter()
            .find(|(known, _)| *known == kind && version == "v1");
        let (kind, resource) = known.ok_or_else(|| {
            LocalError::Invalid(format!(
                "{version} {kind}: a local API takes Pods, ConfigMaps and Secrets of v1"
            ))
        })?;
        let name = text("/metadata/name").to_owned();
        let invalid = |message: String| LocalError::Invalid(format!("{kind} {name:?}: {message}"));
        if name.is_empty() {
            return Err(invalid("metadata.name: Required value".to_owned()));
        }
        let namespace = Some(text("/metadata/namespace")).filter(|found| !found.is_empty());
        let namespace = namespace.unwrap_or(NAMESPACE).to_owned();
        let schema = Schema::builtin();
        let gvk = GroupVersionKind::of("", "v1", kind);
        if let Some(of_kind) = schema.kind(&gvk) {
            let report = schema.check(of_kind, &mut object);
            if let Some(error) = report.type_errors.first() {
                return Err(invalid(error.to_string()));
            }
            if let Some(error) = strict_error(&[], &report.unknown) {
                return Err(invalid(error));
            }
        }
        set(&mut object, &["metadata", "namespace"], namespace.clone());
        match *kind {
            "Pod" => {
                let node = self.config.node_name.clone();
                set(&mut object, &["spec", "nodeName"], node);
                // There are no Services to tell of.
                set(&mut object, &["spec", "enableServiceLinks"], false);
                let checked = serde_json::from_value::<Pod>(object.clone());
                checked.map_err(|error| invalid(error.to_string()))?;
            }
            "Secret" => encode_texts(&mut object),
            _ => {}
        }
        let key = Key {
            resource: (*resource).to_owned(),
            namespace,
            name,
        };
        Ok((key, object))
    }

    /// A node gets its addresses as from the node IPAM of a cluster.
    fn complete_node(&self, node: &mut Value) {
        let cidr = &self.config.pod_cidr;
        set(node, &["spec", "podCIDR"], cidr.clone());
        set(node, &["spec", "podCIDRs"], json!([cidr]));
    }

    /// The agent is done with an object: it is gone, or what was given meanwhile takes its place.
    fn remove(&self, key: &Key, uid: Option<&Value>) -> Option<Arc<Value>> {
        let given = self.given();
        let found = self.objects.get(key)?;
        if uid.is_some_and(|uid| Some(uid) != found.pointer("/metadata/uid")) {
            return None;
        }
        let removed = self.put(key, |_| None);
        if key.resource == PODS {
            self.tell(Some(LocalEvent::Removed {
                namespace: key.namespace.clone(),
                name: key.name.clone(),
            }));
        }
        if let Some(next) = given.get(key) {
            self.put(key, |_| Some(new(next.clone())));
        }
        removed
    }
}

fn new(mut object: Value) -> Value {
    serve::stamp(&mut object);
    object
}

/// The pod, told to end.
fn ending(pod: &Value) -> Value {
    let mut pod = pod.clone();
    if pod.pointer("/metadata/deletionTimestamp").is_none() {
        let grace = pod.pointer("/spec/terminationGracePeriodSeconds");
        let grace = grace.and_then(Value::as_i64).unwrap_or(30);
        let at = Timestamp::now() + SignedDuration::from_secs(grace);
        let at = windlass_api::time::to_seconds(at).to_string();
        set(&mut pod, &["metadata", "deletionTimestamp"], at);
        let path = ["metadata", "deletionGracePeriodSeconds"];
        set(&mut pod, &path, grace);
    }
    pod
}

/// The object with what may change while it is used.
fn renewed(found: &Value, given: &Value) -> Value {
    let mut renewed = found.clone();
    for field in ["labels", "annotations"] {
        let said = given.pointer(&format!("/metadata/{field}"));
        let said = said.cloned().unwrap_or_default();
        set(&mut renewed, &["metadata", field], said);
    }
    for field in ["data", "binaryData"] {
        if let Some(content) = given.get(field) {
            set(&mut renewed, &[field], content.clone());
        }
    }
    renewed
}

/// Puts a value at a path of members, which are made where they are missing.
fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    let Some((first, rest)) = path.split_first() else {
        *object = value.into();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    if let Some(members) = object.as_object_mut() {
        let member = members.entry(*first).or_insert(Value::Null);
        set(member, rest, value);
    }
}

/// `stringData` of a Secret becomes `data`.
fn encode_texts(secret: &mut Value) {
    let Some(secret) = secret.as_object_mut() else {
        return;
    };
    let Some(Value::Object(texts)) = secret.remove("stringData") else {
        return;
    };
    let data = secret.entry("data").or_insert_with(|| json!({}));
    for (name, text) in texts {
        let text = text.as_str().unwrap_or_default();
        set(data, &[&name], BASE64.encode(text));
    }
}
