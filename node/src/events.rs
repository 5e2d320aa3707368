//! Records Events for what happens to pods and the node, with upstream's reasons and texts.
//!
//! 1. [`EventRecorder::record`] puts a record in a bounded queue and never waits.
//! 2. One task per shard writes them; events of one object stay in one shard and so in order.
//! 3. A repeat (same object, reason and message) patches `count` and `lastTimestamp` of the first event.
//!
//! Invariant: events are best effort. A full queue or a server that does not answer loses events, never
//! delays a pod.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use crate::status::reason::EventReason;

const SHARDS: usize = 4;
const QUEUE: usize = 4096;
const REMEMBERED: usize = 4096;
/// The name clients look for in the events of a node agent.
const COMPONENT: &str = "kubelet";

/// Whether an event tells of the ordinary or of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Ordinary.
    Normal,
    /// Trouble.
    Warning,
}

impl EventType {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Debug)]
struct Record {
    regarding: Arc<ObjectReference>,
    field_path: Option<String>,
    kind: EventType,
    reason: EventReason,
    message: String,
    time: Timestamp,
}

/// Records events of one node; cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    shards: Arc<[mpsc::Sender<Record>]>,
}

impl EventRecorder {
    /// Starts the tasks that write events; they end when the last recorder is dropped.
    #[must_use]
    pub fn start(client: &kube::Client, node_name: &str) -> Self {
        let shard = |_| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let writer = Writer {
                client: client.clone(),
                node_name: node_name.to_owned(),
                written: HashMap::new(),
            };
            tokio::spawn(writer.run(receiver));
            sender
        };
        Self {
            shards: (0..SHARDS).map(shard).collect(),
        }
    }

    /// The recorder for one pod.
    #[must_use]
    pub fn for_pod(&self, pod: &Pod) -> ObjectEvents {
        let metadata = &pod.metadata;
        self.for_object(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            ..ObjectReference::default()
        })
    }

    /// The recorder for a node, whose uid in events is its name, as kubelet has it.
    #[must_use]
    pub fn for_node(&self, name: &str) -> ObjectEvents {
        self.for_object(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectReference::default()
        })
    }

    /// The recorder for any object.
    #[must_use]
    pub fn for_object(&self, regarding: ObjectReference) -> ObjectEvents {
        let mut hasher = DefaultHasher::new();
        regarding.uid.hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        let sender = self.shards.get(index).cloned();
        ObjectEvents {
            sender,
            regarding: Arc::new(regarding),
        }
    }
}

/// Records events of one object; cheap to clone.
#[derive(Clone, Debug)]
pub struct ObjectEvents {
    sender: Option<mpsc::Sender<Record>>,
    regarding: Arc<ObjectReference>,
}

impl ObjectEvents {
    /// Records what happened to the object as a whole.
    pub fn record(&self, kind: EventType, reason: EventReason, message: impl Into<String>) {
        self.send(None, kind, reason, message.into());
    }

    /// Records what happened to one container of a pod.
    pub fn container(
        &self,
        container: &str,
        kind: EventType,
        reason: EventReason,
        message: impl Into<String>,
    ) {
        let path = format!("spec.containers{{{container}}}");
        self.send(Some(path), kind, reason, message.into());
    }

    fn send(
        &self,
        field_path: Option<String>,
        kind: EventType,
        reason: EventReason,
        message: String,
    ) {
        let regarding = self.regarding.clone();
        let time = Timestamp::now();
        let record = Record {
            regarding,
            field_path,
            kind,
            reason,
            message,
            time,
        };
        let lost = self
            .sender
            .as_ref()
            .and_then(|sender| sender.try_send(record).err());
        if let Some(error) = lost {
            tracing::debug!(%error, "an event is lost");
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Option<String>,
    field_path: Option<String>,
    reason: EventReason,
    message: String,
}

struct Writer {
    client: kube::Client,
    node_name: String,
    /// Name and count of the events written, to find repeats.
    written: HashMap<Key, (String, i32)>,
}

impl Writer {
    async fn run(mut self, mut records: mpsc::Receiver<Record>) {
        while let Some(record) = records.recv().await {
            if let Err(error) = self.write(record).await {
                tracing::debug!(%error, "an event is not accepted");
            }
        }
    }

    async fn write(&mut self, record: Record) -> Result<(), kube::Error> {
        let namespace = record
            .regarding
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let key = Key {
            uid: record.regarding.uid.clone(),
            field_path: record.field_path.clone(),
            reason: record.reason,
            message: record.message.clone(),
        };
        if let Some((name, count)) = self.written.get_mut(&key) {
            let time = Time(windlass_api::time::to_seconds(record.time));
            let patch = json!({ "count": *count + 1, "lastTimestamp": time });
            match api
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
            {
                Ok(_) => {
                    *count += 1;
                    return Ok(());
                }
                // The first one has expired; begin again.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        let event = self.event(record, &namespace);
        let name = event.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &event).await?;
        if self.written.len() >= REMEMBERED {
            self.written.clear();
        }
        self.written.insert(key, (name, 1));
        Ok(())
    }

    fn event(&self, record: Record, namespace: &str) -> Event {
        let mut regarding = (*record.regarding).clone();
        regarding.field_path = record.field_path;
        let time = Time(windlass_api::time::to_seconds(record.time));
        let object = regarding.name.as_deref().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{object}.{:016x}", rand::random::<u64>())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: regarding,
            reason: Some(record.reason.as_str().to_owned()),
            message: Some(record.message),
            type_: Some(record.kind.as_str().to_owned()),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: Some(self.node_name.clone()),
            }),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            count: Some(1),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.node_name.clone()),
            ..Event::default()
        }
    }
}
