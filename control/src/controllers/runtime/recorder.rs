//! Events: what a controller tells people about an object.
//!
//! An event is named after a hash of what it says, so that saying the same again counts up instead of
//! making another, also after a restart. Recording never waits: events queue up to a bound, each object
//! has a budget, and what is beyond either is dropped. An event is information, not state.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::worker::{is_already_exists, is_not_found};

/// Events waiting to be written.
const BACKLOG: usize = 4096;
/// Counts kept; beyond, all are forgotten and asked for again.
const KNOWN: usize = 8192;
/// Events an object may have at once, and the seconds in which one more is granted.
const BURST: f64 = 25.0;
const REFILL_SECONDS: f64 = 300.0;

/// Whether people should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Things go their way.
    Normal,
    /// Something is wrong.
    Warning,
}

/// Records events in the name of one component. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder {
    sender: mpsc::Sender<Said>,
}

#[derive(Debug)]
struct Said {
    about: ObjectReference,
    severity: Severity,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

impl Recorder {
    /// A recorder for `component`, which writes through `client` in a task of `tasks`.
    pub fn start(
        client: Client,
        component: &'static str,
        tasks: &mut JoinSet<()>,
        stop: CancellationToken,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        let writer = Writer {
            client,
            component,
            counts: HashMap::new(),
            budgets: HashMap::new(),
        };
        tasks.spawn(async move {
            let write = writer.run(receiver);
            stop.run_until_cancelled(write).await;
        });
        Self { sender }
    }

    /// Says `message` about an object. Never waits.
    pub fn event(
        &self,
        about: ObjectReference,
        severity: Severity,
        reason: &'static str,
        message: String,
    ) {
        let said = Said {
            about,
            severity,
            reason,
            message,
            at: Timestamp::now(),
        };
        if let Err(error) = self.sender.try_send(said) {
            tracing::debug!(%error, reason, "event dropped");
        }
    }

    /// Says that things go their way.
    pub fn normal(&self, about: ObjectReference, reason: &'static str, message: String) {
        self.event(about, Severity::Normal, reason, message);
    }

    /// Says that something is wrong.
    pub fn warning(&self, about: ObjectReference, reason: &'static str, message: String) {
        self.event(about, Severity::Warning, reason, message);
    }
}

/// A reference to the object with this metadata.
#[must_use]
pub fn reference(api_version: &str, kind: &str, metadata: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

struct Writer {
    client: Client,
    component: &'static str,
    /// How often each event was seen, by namespace and name.
    counts: HashMap<(String, String), i32>,
    budgets: HashMap<String, Budget>,
}

struct Budget {
    left: f64,
    at: Timestamp,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Said>) {
        while let Some(said) = receiver.recv().await {
            if !self.grants(&said) {
                tracing::debug!(reason = said.reason, about = ?said.about.name, "event over budget");
                continue;
            }
            if let Err(error) = self.write(&said).await {
                tracing::debug!(%error, reason = said.reason, "event not written");
            }
        }
    }

    fn grants(&mut self, said: &Said) -> bool {
        if self.budgets.len() >= KNOWN {
            self.budgets.clear();
        }
        let uid = said.about.uid.clone().unwrap_or_default();
        let budget = self.budgets.entry(uid).or_insert(Budget {
            left: BURST,
            at: said.at,
        });
        let passed = said.at.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.left = (budget.left + passed / REFILL_SECONDS).min(BURST);
        budget.at = said.at;
        let granted = budget.left >= 1.0;
        if granted {
            budget.left -= 1.0;
        }
        granted
    }

    async fn write(&mut self, said: &Said) -> Result<(), kube::Error> {
        let namespace = match said.about.namespace.as_deref() {
            None | Some("") => "default",
            Some(namespace) => namespace,
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let name = event_name(self.component, said);
        if self.counts.len() >= KNOWN {
            self.counts.clear();
        }
        let count = match self.counts.entry((namespace.to_owned(), name.clone())) {
            Entry::Occupied(mut known) => {
                *known.get_mut() += 1;
                *known.get()
            }
            Entry::Vacant(unknown) => {
                let event = new_event(self.component, namespace, &name, said);
                match api.create(&PostParams::default(), &event).await {
                    Ok(_) => {
                        unknown.insert(1);
                        return Ok(());
                    }
                    Err(error) if is_already_exists(&error) => {}
                    Err(error) => return Err(error),
                }
                let known = api.get(&name).await?;
                *unknown.insert(known.count.unwrap_or(1) + 1)
            }
        };
        let last = windlass_api::time::format_seconds(said.at);
        let patch = json!({"count": count, "lastTimestamp": last});
        let patched = api
            .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        if let Err(error) = &patched
            && is_not_found(error)
        {
            // Somebody removed it: said anew, it starts from one.
            self.counts.remove(&(namespace.to_owned(), name.clone()));
            let event = new_event(self.component, namespace, &name, said);
            return api.create(&PostParams::default(), &event).await.map(drop);
        }
        patched.map(drop)
    }
}

/// `web-abc.` and 16 hexadecimal digits that stand for what is said.
fn event_name(component: &str, said: &Said) -> String {
    let mut hash = Sha256::new();
    let uid = said.about.uid.as_deref().unwrap_or_default();
    for part in [component, uid, said.reason, &said.message] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let digits: String = hash
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let name = said.about.name.as_deref().unwrap_or_default();
    // A name has at most 253 characters.
    let name: String = name.chars().take(236).collect();
    format!("{name}.{digits}")
}

fn new_event(component: &str, namespace: &str, name: &str, said: &Said) -> Event {
    let severity = match said.severity {
        Severity::Normal => "Normal",
        Severity::Warning => "Warning",
    };
    Event {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: said.about.clone(),
        reason: Some(said.reason.to_owned()),
        message: Some(said.message.clone()),
        type_: Some(severity.to_owned()),
        source: Some(EventSource {
            component: Some(component.to_owned()),
            host: None,
        }),
        reporting_component: Some(component.to_owned()),
        first_timestamp: Some(Time(said.at)),
        last_timestamp: Some(Time(said.at)),
        count: Some(1),
        event_time: None::<MicroTime>,
        ..Event::default()
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer({})", self.component)
    }
}
