//! CertificateSigningRequests: those of nodes are approved when they are what a node may ask for; what is approved is
//! signed; and old requests of every kind are removed.
//!
//! Three signers are served, `kubernetes.io/kube-apiserver-client-kubelet`, `kubernetes.io/kubelet-serving` and
//! `kubernetes.io/kube-apiserver-client`; requests for others are left alone. What may be asked is in `request.rs`.
//! Also a request that somebody approved by hand is signed only if it is well-formed for its signer.

mod request;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::Context;
use super::runtime::clock;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};
use request::Kind;

const WORKERS: usize = 2;
/// How long a request waits for a decision, and how long a decided one is kept, in seconds.
const PENDING_LIFE: i64 = 24 * 3600;
const DECIDED_LIFE: i64 = 3600;
/// How long a certificate lasts if nobody asks for less.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = &context.informers;
    informers.signing_requests.synced().await;
    let of_requests = Arc::clone(&queue);
    let _requests = informers.signing_requests.subscribe(move |change| {
        if let Some(request) = change.new {
            of_requests.add(Key::of(&request.metadata));
        }
    });
    let stop = context.stop.clone();
    work("certificate-controller", queue, WORKERS, stop, |key| {
        reconcile(&context, key)
    })
    .await;
}

async fn reconcile(context: &Context, key: Key) -> Outcome {
    let Some(csr) = context.informers.signing_requests.get(&key) else {
        return Ok(None);
    };
    let now = context.now();
    let due = expiry(&csr);
    if due <= now {
        let api: Api<CertificateSigningRequest> = Api::all(context.client.clone());
        unless_gone(api.delete(&key.name, &DeleteParams::default()).await)?;
        return Ok(None);
    }
    let Some(kind) = Kind::of(&csr.spec.signer_name) else {
        return Ok(Some(clock::until(due, now)));
    };
    match State::of(&csr) {
        State::Pending => {
            if let Some(text) = request::approval(kind, &csr.spec) {
                approve(context, &csr, text, now).await?;
            }
        }
        State::Approved => sign(context, &csr, kind, now).await?,
        State::Decided => {}
    }
    Ok(Some(clock::until(due, now)))
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has decided.
    Pending,
    /// It is to be signed.
    Approved,
    /// Signed, denied or failed.
    Decided,
}

impl State {
    fn of(csr: &CertificateSigningRequest) -> Self {
        let status = csr.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref());
        let has = |kind: &str| {
            conditions
                .unwrap_or_default()
                .iter()
                .any(|condition| condition.type_ == kind)
        };
        let certificate = status.and_then(|status| status.certificate.as_ref());
        let signed = certificate.is_some_and(|certificate| !certificate.0.is_empty());
        if signed || has("Denied") || has("Failed") {
            Self::Decided
        } else if has("Approved") {
            Self::Approved
        } else {
            Self::Pending
        }
    }
}

/// When the request is of no more use.
fn expiry(csr: &CertificateSigningRequest) -> Timestamp {
    let created = csr.metadata.created();
    if State::of(csr) == State::Pending {
        return clock::after(created, PENDING_LIFE);
    }
    let conditions = csr
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    let times = conditions.unwrap_or_default().iter();
    let decided = times
        .filter_map(|c| c.last_update_time.as_ref().map(|time| time.0))
        .max();
    clock::after(decided.unwrap_or(created), DECIDED_LIFE)
}

async fn approve(
    context: &Context,
    csr: &CertificateSigningRequest,
    text: &str,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let mut csr = csr.clone();
    add_condition(&mut csr, "Approved", "AutoApproved", text.into(), now);
    let api: Api<CertificateSigningRequest> = Api::all(context.client.clone());
    let params = PostParams::default();
    api.replace_subresource("approval", csr.metadata.name(), &params, &csr)
        .await?;
    Ok(())
}

async fn sign(
    context: &Context,
    csr: &CertificateSigningRequest,
    kind: Kind,
    now: Timestamp,
) -> Result<(), ReconcileError> {
    let mut csr = csr.clone();
    let seconds = csr
        .spec
        .expiration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok());
    let life = seconds.map_or(LIFE, Duration::from_secs);
    let signed = request::check(kind, &csr.spec)
        .and_then(|pem| context.config.signer.sign(&pem, life, kind.usage()));
    match signed {
        Ok(certificate) => {
            let status = csr.status.get_or_insert_default();
            status.certificate = Some(ByteString(certificate.into_bytes()));
        }
        Err(why) => add_condition(&mut csr, "Failed", "SignerValidationFailure", why, now),
    }
    let api: Api<CertificateSigningRequest> = Api::all(context.client.clone());
    api.replace_status(csr.metadata.name(), &PostParams::default(), &csr)
        .await?;
    Ok(())
}

fn add_condition(
    csr: &mut CertificateSigningRequest,
    kind: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) {
    let now = Time(windlass_api::time::to_seconds(now));
    let conditions = csr
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: kind.into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn requests_expire_by_what_became_of_them() {
        let at = "2026-01-01T01:00:00Z";
        let condition = |kind: &str| json!({"conditions": [{"type": kind, "status": "True", "lastUpdateTime": at}]});
        for (status, state, expected) in [
            (json!({}), State::Pending, "2026-01-02T00:00:00Z"),
            (
                condition("Approved"),
                State::Approved,
                "2026-01-01T02:00:00Z",
            ),
            (condition("Denied"), State::Decided, "2026-01-01T02:00:00Z"),
            (
                json!({"certificate": "eA=="}),
                State::Decided,
                "2026-01-01T01:00:00Z",
            ),
        ] {
            let object: Value = json!({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"request": "", "signerName": "a/b"}, "status": status});
            let csr: CertificateSigningRequest = serde_json::from_value(object).unwrap();
            assert_eq!(
                (State::of(&csr), expiry(&csr).to_string()),
                (state, expected.to_owned())
            );
        }
    }
}
