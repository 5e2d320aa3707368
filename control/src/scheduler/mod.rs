//! The scheduler: gives every pod a node.
//!
//! ```text
//!   watch ──> queue ──take──> decide over the snapshot ──> assume ──> bind (many at once)
//!        └──> snapshot               │ no node fits                      │ refused
//!                                    └─> unschedulable, told why         └─> forget, back off
//! ```
//!
//! One task decides, one pod after the other, each in one pass over the nodes; bindings are written
//! concurrently, because the snapshot counts a pod as placed from the decision on. Pods that name another
//! scheduler are left alone.
//!
//! Invariant: the queue and the snapshot change together under one lock, which is never held across an
//! await, so that no event falls between a decision and its consequence.

mod bind;
mod decide;
#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod decide_tests;
mod plugins;
mod pod_info;
mod queue;
mod resources;
mod snapshot;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::controllers::runtime::informer::{Change, Informer};
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::recorder::{Recorder, reference};
use crate::controllers::runtime::worker::{is_not_found, message};
use crate::controllers::supervise;
use decide::{Unschedulable, decide};
use pod_info::PodInfo;
use queue::{Queue, Wake};
use snapshot::{NodeFacts, Snapshot};

/// Bindings written at once.
const BINDINGS: usize = 64;

/// Binds pods to nodes until `stop`.
pub async fn run(client: Client, stop: CancellationToken) {
    let until = stop.clone();
    let start =
        move || -> BoxFuture<'static, ()> { Box::pin(run_once(client.clone(), until.clone())) };
    supervise("scheduler", start, stop).await;
}

/// Everything starts from what the API says, so that it can be dropped and started again.
async fn run_once(client: Client, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let pods = Informer::<PodInfo>::new(Api::all(client.clone()), watcher::Config::default());
    let nodes = Informer::<NodeFacts>::new(Api::all(client.clone()), watcher::Config::default());
    tasks.spawn(Arc::clone(&pods).run(stop.clone()));
    tasks.spawn(Arc::clone(&nodes).run(stop.clone()));
    let recorder = Recorder::start(client.clone(), pod_info::DEFAULT, &mut tasks, stop);
    let scheduler = Arc::new(Scheduler {
        client,
        recorder,
        state: Mutex::default(),
        changed: Notify::new(),
        permits: Arc::new(Semaphore::new(BINDINGS)),
    });
    // Decisions before everything is known would crowd the first nodes seen.
    nodes.synced().await;
    pods.synced().await;
    let (of_nodes, of_pods) = (Arc::clone(&scheduler), Arc::clone(&scheduler));
    let _nodes = nodes.subscribe(move |change| of_nodes.node_changed(change));
    let _pods = pods.subscribe(move |change| of_pods.pod_changed(change));
    scheduler.schedule().await;
}

#[derive(Default)]
struct State {
    queue: Queue,
    snapshot: Snapshot,
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    state: Mutex<State>,
    changed: Notify,
    permits: Arc<Semaphore>,
}

/// What is to be written after a decision.
enum Decision {
    Bind(Arc<PodInfo>, String),
    Explain(Arc<PodInfo>, String),
}

impl Scheduler {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_changed(&self, change: Change<'_, NodeFacts>) {
        let mut state = self.state();
        match (change.old, change.new) {
            (Some(old), None) => state.snapshot.remove_node(old.metadata.name()),
            (old, Some(new)) => {
                state.snapshot.put_node(Arc::clone(new));
                if old.is_none_or(|old| new.differs(old)) {
                    state.queue.wake(Wake::Node);
                    self.changed.notify_one();
                }
            }
            (None, None) => {}
        }
    }

    fn pod_changed(&self, change: Change<'_, PodInfo>) {
        let mut state = self.state();
        let Some(pod) = change.new.filter(|pod| !pod.has_ended) else {
            let Some(pod) = change.either() else { return };
            state.queue.remove(pod.metadata.uid());
            if state.snapshot.remove_pod(pod.metadata.uid()) {
                state.queue.wake(Wake::PodGone);
                self.changed.notify_one();
            }
            return;
        };
        if !pod.node.is_empty() {
            state.queue.remove(pod.metadata.uid());
            state.snapshot.place(pod);
        } else if pod.is_waiting() {
            state.queue.put(pod, Instant::now());
            self.changed.notify_one();
        } else {
            state.queue.remove(pod.metadata.uid());
        }
    }

    /// Takes, decides and hands over, for ever. Bindings end with the task set when this is dropped.
    async fn schedule(self: &Arc<Self>) {
        let mut writes = JoinSet::new();
        loop {
            // Reap what has ended, so that the set does not grow.
            while writes.try_join_next().is_some() {}
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
                return;
            };
            let decision = self.next().await;
            let scheduler = Arc::clone(self);
            writes.spawn(async move {
                scheduler.write(decision).await;
                drop(permit);
            });
        }
    }

    /// The next decision, as soon as a pod waits.
    async fn next(&self) -> Decision {
        loop {
            let due = {
                let mut state = self.state();
                match state.decide_next() {
                    Ok(decision) => return decision,
                    Err(due) => due,
                }
            };
            match due {
                Some(due) => tokio::select! {
                    () = self.changed.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => self.changed.notified().await,
            }
        }
    }

    async fn write(&self, decision: Decision) {
        match decision {
            Decision::Bind(pod, node) => self.bind(&pod, &node).await,
            Decision::Explain(pod, why) => self.explain(&pod, why).await,
        }
    }

    async fn bind(&self, pod: &Arc<PodInfo>, node: &str) {
        let about = reference("v1", "Pod", &pod.metadata);
        match bind::bind(self.client.clone(), pod, node).await {
            Ok(()) => {
                let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
                let text = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.normal(about, "Scheduled", text);
            }
            Err(error) => {
                {
                    let mut state = self.state();
                    state.snapshot.forget_assumed(pod.metadata.uid());
                    state.queue.back_off(pod.metadata.uid());
                    state.queue.wake(Wake::PodGone);
                }
                self.changed.notify_one();
                if !is_not_found(&error) {
                    let text = format!("binding rejected: {}", message(&error));
                    self.recorder.warning(about, "FailedScheduling", text);
                }
            }
        }
    }

    async fn explain(&self, pod: &Arc<PodInfo>, why: String) {
        if pod.unschedulable != why {
            let marked = bind::mark_unschedulable(self.client.clone(), pod, &why).await;
            if let Err(error) = marked
                && !is_not_found(&error)
            {
                tracing::warn!(pod = pod.metadata.name(), %error, "say that a pod is unschedulable");
            }
        }
        let about = reference("v1", "Pod", &pod.metadata);
        self.recorder.warning(about, "FailedScheduling", why);
    }
}

impl State {
    /// Decides about the next pod.
    ///
    /// # Errors
    /// When there is none: the time at which there will be one, if it is known.
    fn decide_next(&mut self) -> Result<Decision, Option<Instant>> {
        let Some(pod) = self.queue.take(Instant::now()) else {
            return Err(self.queue.next_due());
        };
        match decide(&pod, &self.snapshot) {
            Ok(node) => {
                let node = node.to_owned();
                self.snapshot.assume(&pod, &node);
                Ok(Decision::Bind(pod, node))
            }
            Err(Unschedulable { message, helped_by }) => {
                self.queue.unschedulable(pod.metadata.uid(), helped_by);
                Ok(Decision::Explain(pod, message))
            }
        }
    }
}
