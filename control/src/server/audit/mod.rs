//! The audit log: who did what, when, and with which result.
//!
//! 1. A [`Trail`] goes with every request. Once it is known who asks, the policy (`policy.rs`) says how much is kept; of
//!    most requests, and without a policy of all of them, nothing is.
//! 2. At each stage of a request an event, with what is known by then, goes to a queue per place where events are kept
//!    (`queue.rs`): a file (`log_file.rs`), a webhook, or both.
//!
//! Events have the form of `audit.k8s.io/v1`. What is sent and answered is in them as JSON whatever the client speaks.
//! At level Request and above they hold what Secrets hold, as upstream's do: the policy has to keep them out.

mod log_file;
mod options;
mod policy;
mod queue;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use windlass_api::time::format_micros;

use super::listener::PeerAddress;
use super::request_info::RequestInfo;
use super::status;
use crate::identity::UserInfo;
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
pub use log_file::LogFileOptions;
pub use options::{AuditOptions, AuditOptionsError, WebhookOptions};
use policy::{Decision, Level, Stage};
pub use policy::{Policy, PolicyError};
pub use queue::{BatchOptions, Mode};
use queue::{Queue, Writer};

/// The policy, and where events go.
#[derive(Debug)]
pub struct Audit {
    policy: Policy,
    queues: Vec<Queue>,
}

/// What writes the events; has to run.
#[derive(Debug)]
pub struct Writers(Vec<Writer>);

impl Writers {
    /// Writes until `stop`, and then what has come until then.
    pub async fn run(self, stop: CancellationToken) {
        let all = self.0.into_iter();
        futures::future::join_all(all.map(|writer| writer.run(stop.clone()))).await;
    }
}

/// What is kept of one request, if anything is.
#[derive(Clone, Default)]
pub(super) struct Trail(Option<Arc<Record>>);

struct Record {
    audit: Arc<Audit>,
    facts: Mutex<Facts>,
}

/// What is known so far.
#[derive(Default)]
struct Facts {
    decision: Decision,
    event: Map<String, Value>,
    annotations: Map<String, Value>,
}

impl Audit {
    /// How many events came and how many of them were lost, as metrics.
    pub(super) fn metrics(&self) -> String {
        let all = self.queues.iter().map(|queue| (queue.name, queue.counts()));
        let (events, lost): (Vec<_>, Vec<_>) = all
            .map(|(name, (events, lost))| ((name, events), (name, lost)))
            .unzip();
        let metric = |name: &str, help: &str, values: Vec<(&str, u64)>| {
            let lines = values
                .iter()
                .map(|(plugin, value)| format!("{name}{{plugin=\"{plugin}\"}} {value}\n"));
            format!(
                "# HELP {name} {help}\n# TYPE {name} counter\n{}",
                lines.collect::<String>()
            )
        };
        metric("apiserver_audit_event_total", "Audit events.", events)
            + &metric(
                "apiserver_audit_error_total",
                "Audit events that were lost.",
                lost,
            )
    }

    /// The trail of a request that just came.
    pub(super) fn trail(
        self: &Arc<Self>,
        id: &HeaderValue,
        request: &http::request::Parts,
        info: &RequestInfo,
    ) -> Trail {
        let text = |name| {
            let value = request.headers.get(name).map(HeaderValue::to_str);
            value.and_then(Result::ok).unwrap_or_default()
        };
        let peer = request.extensions.get::<PeerAddress>();
        let mut event = Map::new();
        for (key, value) in [
            ("kind", json!("Event")),
            ("apiVersion", json!("audit.k8s.io/v1")),
            ("auditID", json!(id.to_str().unwrap_or_default())),
            ("requestURI", json!(path_and_query(&request.uri))),
            ("verb", json!(info.verb)),
            ("sourceIPs", json!(sources(&request.headers, peer))),
            (
                "requestReceivedTimestamp",
                json!(format_micros(Timestamp::now())),
            ),
        ] {
            event.insert(key.into(), value);
        }
        let agent = text(header::USER_AGENT);
        if !agent.is_empty() {
            event.insert("userAgent".into(), agent.into());
        }
        if info.is_resource {
            event.insert("objectRef".into(), reference(info));
        }
        Trail(Some(Arc::new(Record {
            audit: Arc::clone(self),
            facts: Mutex::new(Facts {
                event,
                ..Facts::default()
            }),
        })))
    }
}

impl Record {
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event of a stage; `None` if it is not kept.
    fn event(&self, stage: Stage) -> Option<Bytes> {
        let facts = self.facts();
        let decision = &facts.decision;
        if decision.level == Level::None || decision.omit_stages.contains(&stage) {
            return None;
        }
        let mut event = facts.event.clone();
        event.insert("level".into(), decision.level.name().into());
        event.insert("stage".into(), stage.name().into());
        event.insert(
            "stageTimestamp".into(),
            format_micros(Timestamp::now()).into(),
        );
        if !facts.annotations.is_empty() {
            event.insert("annotations".into(), facts.annotations.clone().into());
        }
        drop(facts);
        Some(Value::Object(event).to_string().into())
    }

    /// Sends the event of a stage everywhere.
    async fn emit(&self, stage: Stage) -> Result<(), String> {
        let Some(event) = self.event(stage) else {
            return Ok(());
        };
        let mut outcome = Ok(());
        for queue in &self.audit.queues {
            let sent = queue.send(event.clone()).await;
            if sent.is_err() && queue.mode == Mode::BlockingStrict {
                outcome = sent;
            }
        }
        outcome
    }

    fn keeps(&self, level: Level) -> bool {
        self.facts().decision.level >= level
    }

    fn body(&self, field: &str, mut object: Value) {
        let mut facts = self.facts();
        if facts.decision.omit_managed_fields {
            forget_managers(&mut object);
        }
        facts.event.insert(field.to_owned(), object);
    }
}

impl Trail {
    /// Who asks is known, so that it is decided how much is kept.
    ///
    /// # Errors
    /// When the event has to be kept before the request is carried out, and is not.
    pub(super) async fn begin(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), ApiError> {
        let Some(record) = &self.0 else {
            return Ok(());
        };
        {
            let mut facts = record.facts();
            facts.decision = record.audit.policy.decide(user, info);
            facts.event.insert("user".into(), user_of(user));
        }
        let kept = record.emit(Stage::RequestReceived).await;
        kept.map_err(|error| ApiError::Internal(format!("audit failure: {error}")))
    }

    /// Nobody knows who asks: the credentials are wrong.
    pub(super) fn unknown(&self, info: &RequestInfo, headers: &HeaderMap) {
        let Some(record) = &self.0 else {
            return;
        };
        let tried = match headers.get(header::AUTHORIZATION).map(HeaderValue::to_str) {
            Some(Ok(value)) => value
                .split_once(' ')
                .map_or("unknown", |(scheme, _)| scheme)
                .to_lowercase(),
            _ => "x509".to_owned(),
        };
        let mut facts = record.facts();
        facts.decision = record.audit.policy.decide(&UserInfo::default(), info);
        facts.event.insert("user".into(), json!({}));
        let text = format!("Authentication failed, attempted: {tried}");
        facts.annotations.insert(
            "authentication.k8s.io/failed".to_owned(),
            Value::String(text),
        );
    }

    /// The request acts as somebody else.
    pub(super) fn impersonated(&self, user: &UserInfo) {
        if let Some(record) = &self.0 {
            let mut facts = record.facts();
            let user = user_of(user);
            facts.event.insert("impersonatedUser".into(), user);
        }
    }

    /// Whether the request is allowed.
    pub(super) fn decided(&self, allowed: bool) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.annotate("authorization.k8s.io/decision", decision);
        self.annotate("authorization.k8s.io/reason", "");
    }

    /// Adds to the events that follow.
    pub(super) fn annotate(&self, key: &str, value: &str) {
        if let Some(record) = &self.0 {
            let mut facts = record.facts();
            facts.annotations.insert(key.to_owned(), value.into());
        }
    }

    /// The object, the patch or the options that were sent.
    pub(super) fn sent(&self, object: &Value) {
        let Some(record) = &self.0 else {
            return;
        };
        name_reference(&mut record.facts().event, object);
        if record.keeps(Level::Request) {
            record.body("requestObject", object.clone());
        }
    }

    /// What is answered; it is made only if it is kept.
    pub(super) fn answered(&self, object: impl FnOnce() -> Option<Value>) {
        let Some(record) = &self.0 else {
            return;
        };
        if record.keeps(Level::RequestResponse)
            && let Some(object) = object()
        {
            record.body("responseObject", object);
        }
    }

    /// There is a response. If it `lasts` by nature, its end is told when it comes.
    pub(super) async fn end(
        self,
        response: Response,
        error: Option<&ApiError>,
        lasts: bool,
    ) -> Response {
        let Some(record) = self.0 else {
            return response;
        };
        let code = response.status().as_u16();
        let status = match error {
            None => json!({"metadata": {}, "code": code}),
            Some(error) => {
                let mut status = status::of(error);
                if let Some(status) = status.as_object_mut() {
                    status.shift_remove("kind");
                    status.shift_remove("apiVersion");
                    status.shift_remove("details");
                }
                status
            }
        };
        record.facts().event.insert("responseStatus".into(), status);
        if error.is_some() || !lasts {
            // Lost events are counted; the request has been carried out.
            let _counted = record.emit(Stage::ResponseComplete).await;
            return response;
        }
        let _counted = record.emit(Stage::ResponseStarted).await;
        let end = AtEnd(record);
        response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                let _until_the_end = &end;
                frame
            }))
        })
    }

    /// A fault in the server ended the request.
    pub(super) async fn panicked(self, error: &ApiError) {
        if let Some(record) = self.0 {
            let status = status::of(error);
            record.facts().event.insert("responseStatus".into(), status);
            let _counted = record.emit(Stage::Panic).await;
        }
    }
}

/// Tells that a response has ended when it is dropped.
struct AtEnd(Arc<Record>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        let record = Arc::clone(&self.0);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { record.emit(Stage::ResponseComplete).await });
        }
    }
}

fn path_and_query(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", |text| text.as_str())
}

/// The client, behind those that sent the request on, as they say.
fn sources(headers: &HeaderMap, peer: Option<&PeerAddress>) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    let mut add = |text: &str| {
        let parsed: Result<std::net::IpAddr, _> = text.trim().parse();
        if let Ok(address) = parsed {
            let address = address.to_string();
            if !sources.contains(&address) {
                sources.push(address);
            }
        }
    };
    for name in ["x-forwarded-for", "x-real-ip"] {
        let text = headers.get(name).and_then(|value| value.to_str().ok());
        text.unwrap_or_default().split(',').for_each(&mut add);
    }
    if let Some(peer) = peer {
        add(&peer.0.ip().to_string());
    }
    sources
}

fn reference(info: &RequestInfo) -> Value {
    let mut reference = Map::new();
    for (key, text) in [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.group),
        ("apiVersion", &info.version),
        ("subresource", &info.subresource),
    ] {
        if !text.is_empty() {
            reference.insert(key.into(), text.as_str().into());
        }
    }
    reference.into()
}

/// Takes from a sent object what the path does not say.
fn name_reference(event: &mut Map<String, Value>, object: &Value) {
    let reference = event.get_mut("objectRef").and_then(Value::as_object_mut);
    let Some(reference) = reference else {
        return;
    };
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        let text = meta::text(object, field);
        if !text.is_empty() && !reference.contains_key(field) {
            reference.insert(field.into(), text.into());
        }
    }
}

fn user_of(user: &UserInfo) -> Value {
    let mut value = json!({"username": user.name, "groups": user.groups});
    if let Some(fields) = value.as_object_mut() {
        if !user.uid.is_empty() {
            fields.insert("uid".into(), user.uid.as_str().into());
        }
        if !user.extra.is_empty() {
            fields.insert("extra".into(), json!(user.extra));
        }
    }
    value
}

/// Removes managed fields from an object, and from the objects of a list.
fn forget_managers(object: &mut Value) {
    if object.get("metadata").is_some() {
        meta::remove(object, "managedFields");
    }
    let items = object.get_mut("items").and_then(Value::as_array_mut);
    items.into_iter().flatten().for_each(forget_managers);
}
