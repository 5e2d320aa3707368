//! The loop around a reconcile function.

use std::fmt::Display;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::work_queue::WorkQueue;

/// Why work on a key is to be tried again.
#[derive(Debug, Error)]
pub enum ReconcileError {
    /// The API refused or did not answer.
    #[error("{}", words(.0))]
    Api(#[from] kube::Error),
    /// Something about the object cannot be understood.
    #[error("{0}")]
    Object(String),
}

impl ReconcileError {
    /// Whether a concurrent write explains it, which the next look at the cache will settle.
    #[must_use]
    pub fn is_expected(&self) -> bool {
        let Self::Api(error) = self else { return false };
        is_conflict(error)
            || is_not_found(error)
            || is_already_exists(error)
            || is_namespace_terminating(error)
    }
}

/// What the API said, without the whole Status around it.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// How work on a key ended: nothing more to do, or something at a due time.
pub type Outcome = Result<Option<Duration>, ReconcileError>;

/// Works on the queue's keys, up to `workers` at a time, until `stop`.
pub async fn work<K, F, Fut>(
    name: &'static str,
    queue: Arc<WorkQueue<K>>,
    workers: usize,
    stop: CancellationToken,
    reconcile: F,
) where
    K: Clone + Eq + Hash + Ord + Display,
    F: Fn(K) -> Fut,
    Fut: Future<Output = Outcome>,
{
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            key = queue.take(), if running.len() < workers => {
                let work = reconcile(key.clone());
                running.push(async move { (key, work.await) });
            }
            Some((key, outcome)) = running.next() => {
                settle(name, &queue, &key, outcome);
            }
        }
    }
}

fn settle<K>(name: &str, queue: &WorkQueue<K>, key: &K, outcome: Outcome)
where
    K: Clone + Eq + Hash + Ord + Display,
{
    match outcome {
        Ok(again) => {
            queue.forgive(key);
            if let Some(delay) = again {
                queue.add_after(key.clone(), delay);
            }
        }
        Err(error) => {
            let delay = queue.retry(key.clone());
            if error.is_expected() {
                tracing::debug!(controller = name, %key, %error, ?delay, "try again");
            } else {
                tracing::warn!(controller = name, %key, %error, ?delay, "try again");
            }
        }
    }
    queue.done(key);
}

/// Whether the API says that the object is not there.
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}

/// Whether the API says that the object changed meanwhile.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

/// Whether the API says that there is such an object already.
#[must_use]
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

/// Whether the API refuses because the namespace is going away.
#[must_use]
pub fn is_namespace_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else {
        return false;
    };
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes
        .into_iter()
        .any(|cause| cause.reason == "NamespaceTerminating")
}

/// Takes "it is gone" as success.
///
/// # Errors
/// Every other error.
pub fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What the API said, without the wrapping.
#[must_use]
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
