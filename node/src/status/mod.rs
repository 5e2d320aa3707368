//! The only writer of pod status.
//!
//! 1. A worker computes the whole status from its facts (`phase`) and hands it to its publisher.
//! 2. The publisher has at most one PATCH in flight and always sends the newest status; what came
//!    meanwhile is merged by being replaced.
//! 3. A failed PATCH is tried again with growing delay until the server has the status, or says that the
//!    pod is gone.
//!
//! Invariant: conditions of other writers (PodScheduled, readiness gates) are left alone, since the patch
//! is a strategic merge that names only ours; the uid in it makes it fail on a pod of the same name.

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

pub(crate) mod phase;
pub mod reason;

const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// A pod that is Running a moment later is not worth a commit that says Pending.
const PENDING_SETTLES: Duration = Duration::from_millis(50);

/// What became of a patch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    /// The server has it.
    Accepted,
    /// There is no such pod any more.
    Gone,
    /// Not accepted; it will be tried again.
    Retrying,
}

/// Publishes the status of one pod.
pub(crate) struct StatusPublisher {
    api: Api<Pod>,
    name: String,
    /// The uid under which the API has the pod; there may be nothing to report to.
    uid: Option<String>,
    wanted: Option<PodStatus>,
    /// `wanted` was not handed to a patch yet.
    dirty: bool,
    not_before: Option<Instant>,
    retry: Duration,
    in_flight: Option<BoxFuture<'static, Result<(), kube::Error>>>,
}

impl StatusPublisher {
    pub(crate) fn new(api: Api<Pod>, name: String, uid: Option<String>) -> Self {
        Self {
            api,
            name,
            uid,
            wanted: None,
            dirty: false,
            not_before: None,
            retry: FIRST_RETRY,
            in_flight: None,
        }
    }

    /// The status reported last, whether or not the server has it yet.
    pub(crate) fn reported(&self) -> Option<&PodStatus> {
        self.wanted.as_ref()
    }

    /// Reports to another object from now on, or to none.
    pub(crate) fn report_to(&mut self, uid: Option<String>) {
        if self.uid == uid {
            return;
        }
        self.uid = uid;
        self.in_flight = None;
        self.dirty = self.wanted.is_some();
    }

    /// Takes the newest status.
    pub(crate) fn publish(&mut self, status: PodStatus) {
        if self.wanted.as_ref() == Some(&status) {
            return;
        }
        let pending = status.phase.as_deref() == Some("Pending");
        if self.wanted.is_none() && pending {
            self.not_before = Some(Instant::now() + PENDING_SETTLES);
        } else if !pending && self.retry == FIRST_RETRY {
            self.not_before = None;
        }
        self.wanted = Some(status);
        self.dirty = true;
    }

    /// Whether the server has (or has refused for good) everything published.
    pub(crate) fn is_settled(&self) -> bool {
        self.uid.is_none() || (!self.dirty && self.in_flight.is_none())
    }

    /// Sends what is to be sent; returns when a patch was answered, never if there is nothing to send.
    ///
    /// Cancel-safe: a patch in flight goes on with the next call.
    pub(crate) async fn progress(&mut self) -> Published {
        if self.in_flight.is_none() {
            let (Some(uid), true) = (self.uid.clone(), self.dirty) else {
                return std::future::pending().await;
            };
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
            }
            self.not_before = None;
            self.dirty = false;
            self.in_flight = self.wanted.as_ref().map(|status| self.patch(&uid, status));
        }
        let Some(in_flight) = &mut self.in_flight else {
            return std::future::pending().await;
        };
        let result = in_flight.await;
        self.in_flight = None;
        self.answered(result)
    }

    fn answered(&mut self, result: Result<(), kube::Error>) -> Published {
        match result {
            Ok(()) => {
                self.retry = FIRST_RETRY;
                Published::Accepted
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.dirty = false;
                self.uid = None;
                Published::Gone
            }
            Err(error) => {
                tracing::warn!(pod = self.name, %error, "pod status not accepted, will retry");
                self.dirty = true;
                let jitter = rand::random_range(0.8..1.2);
                self.not_before = Some(Instant::now() + self.retry.mul_f64(jitter));
                self.retry = (self.retry * 2).min(LAST_RETRY);
                Published::Retrying
            }
        }
    }

    fn patch(&self, uid: &str, status: &PodStatus) -> BoxFuture<'static, Result<(), kube::Error>> {
        let (api, name) = (self.api.clone(), self.name.clone());
        let body = patch_body(uid, status);
        Box::pin(async move {
            let params = PatchParams {
                field_manager: Some("kubelet".to_owned()),
                ..PatchParams::default()
            };
            api.patch_status(&name, &params, &Patch::Strategic(body?))
                .await
                .map(drop)
        })
    }
}

fn patch_body(uid: &str, status: &PodStatus) -> Result<Value, kube::Error> {
    let mut status = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    // These lists merge by address; a pod that got another address keeps only that one.
    for list in ["podIPs", "hostIPs"] {
        if let Some(items) = status.get_mut(list).and_then(Value::as_array_mut) {
            items.insert(0, json!({ "$patch": "replace" }));
        }
    }
    Ok(json!({ "metadata": { "uid": uid }, "status": status }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_patch_names_the_uid_and_replaces_addresses() {
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Running", "podIP": "10.1.0.2", "podIPs": [{ "ip": "10.1.0.2" }],
        }))
        .unwrap();
        let body = patch_body("u", &status).unwrap();
        assert_eq!(body["metadata"]["uid"], "u");
        assert_eq!(
            body["status"]["podIPs"],
            json!([{ "$patch": "replace" }, { "ip": "10.1.0.2" }])
        );
    }
}
