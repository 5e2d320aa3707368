//! An API server for worker tests: keeps what it is sent and answers what it was given.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What tests look at and change.
#[derive(Clone)]
pub(super) struct FakeApi(Arc<Inner>);

struct Inner {
    /// By path.
    objects: Mutex<BTreeMap<String, Value>>,
    events: watch::Sender<Vec<(String, String)>>,
    /// Statuses refused before one is accepted.
    refuse: Mutex<u32>,
    state: watch::Sender<State>,
}

/// What the worker has reported.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) status: Option<PodStatus>,
    pub(super) deleted: bool,
}

impl FakeApi {
    pub(super) fn new() -> Self {
        Self(Arc::new(Inner {
            objects: Mutex::default(),
            events: watch::Sender::default(),
            refuse: Mutex::default(),
            state: watch::Sender::default(),
        }))
    }

    pub(super) fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    pub(super) fn put(&self, path: &str, object: Value) {
        self.0
            .objects
            .lock()
            .unwrap()
            .insert(path.to_owned(), object);
    }

    pub(super) fn refuse_statuses(&self, count: u32) {
        *self.0.refuse.lock().unwrap() = count;
    }

    /// Reasons and messages of the events recorded so far.
    pub(super) fn events(&self) -> Vec<(String, String)> {
        self.0.events.borrow().clone()
    }

    /// Waits for an event whose message has this in it.
    pub(super) async fn until_event(&self, reason: &str, part: &str) {
        let mut events = self.0.events.subscribe();
        let seen = events.wait_for(|events| {
            let mut events = events.iter();
            events.any(|(found, text)| found == reason && text.contains(part))
        });
        let bound = std::time::Duration::from_secs(3600);
        match tokio::time::timeout(bound, seen).await {
            Ok(seen) => drop(seen.unwrap()),
            Err(_) => panic!("{reason} {part:?}: {:#?}", self.events()),
        }
    }

    /// Waits for a state, and prints the last one seen when it does not come.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) -> State {
        let mut states = self.0.state.subscribe();
        let found = states.wait_for(|state| holds(state));
        let bound = std::time::Duration::from_secs(3600);
        match tokio::time::timeout(bound, found).await {
            Ok(state) => state.unwrap().clone(),
            Err(_) => panic!("{what}: last seen {:#?}", self.0.state.borrow()),
        }
    }

    async fn answer(&self, request: Request<Body>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        match parts.method {
            Method::GET
                if parts
                    .uri
                    .query()
                    .is_some_and(|query| query.contains("watch=")) =>
            {
                std::future::pending().await
            }
            Method::GET if path.ends_with("/services") || path.ends_with("/endpointslices") => {
                let metadata = json!({ "resourceVersion": "1" });
                reply(200, &json!({ "metadata": metadata, "items": [] }))
            }
            Method::GET => match self.0.objects.lock().unwrap().get(&path) {
                Some(object) => reply(200, object),
                None => failure(404, "NotFound"),
            },
            Method::POST => {
                let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
                let event = (text("reason"), text("message"));
                self.0.events.send_modify(|events| events.push(event));
                reply(201, &body)
            }
            Method::PATCH if path.ends_with("/status") => self.take_status(&body),
            Method::DELETE => {
                assert_eq!(body["gracePeriodSeconds"], 0);
                assert_eq!(body["preconditions"]["uid"], "uid-1");
                self.0.state.send_modify(|state| state.deleted = true);
                reply(
                    200,
                    &json!({ "metadata": { "name": "p" }, "spec": { "containers": [] } }),
                )
            }
            _ => reply(200, &body),
        }
    }

    fn take_status(&self, body: &Value) -> Response<Full<Bytes>> {
        {
            let mut refuse = self.0.refuse.lock().unwrap();
            if *refuse > 0 {
                *refuse -= 1;
                return failure(500, "InternalError");
            }
        }
        let mut status = body["status"].clone();
        for list in ["podIPs", "hostIPs"] {
            if let Some(items) = status[list].as_array_mut() {
                items.retain(|item| item.get("$patch").is_none());
            }
        }
        let status: PodStatus = serde_json::from_value(status).unwrap();
        self.0
            .state
            .send_modify(|state| state.status = Some(status));
        reply(200, &serde_json::to_value(Pod::default()).unwrap())
    }
}

fn reply(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap();
    Response::builder()
        .status(status)
        .body(Full::from(body.to_string()))
        .unwrap()
}

fn failure(code: u16, reason: &str) -> Response<Full<Bytes>> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": reason, "metadata": {},
    });
    reply(code, &status)
}
