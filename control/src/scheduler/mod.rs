//! The scheduler: gives every pod a node.
//!
//! ```text
//!   watch ──> queue ──take──> decide over the snapshot ──> assume ──> bind (many at once)
//!        └──> snapshot               │ no node fits                      │ refused
//!                                    ├─> unschedulable, told why         └─> forget, back off
//!                                    └─> nominate, evict pods that matter less
//! ```
//!
//! One task decides, one pod after the other, each in one pass over the nodes; bindings are written
//! concurrently, because the snapshot counts a pod as placed from the decision on. Pods that name a
//! scheduler which is none of the profiles are left alone.
//!
//! Invariant: the queue and the snapshot change together under one lock, which is never held across an
//! await, so that no event falls between a decision and its consequence.

mod bind;
mod classes;
mod counts;
mod cycle;
mod decide;
#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod decide_tests;
mod event;
mod plugins;
mod pod_affinity;
mod pod_info;
mod preempt;
mod profile;
mod queue;
mod resources;
mod snapshot;
mod state;
#[cfg(test)]
mod state_tests;
mod storage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, join_all};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::controllers::runtime::informer::{Cached, Change, Informer, Subscription};
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::recorder::{Recorder, reference};
use crate::controllers::runtime::worker::{is_not_found, message, unless_gone};
use crate::controllers::supervise;
use pod_info::PodInfo;
use preempt::Preemption;
pub use profile::{ConfigError, Profiles};
use snapshot::NodeFacts;
use state::{Decision, Explanation, State, ToBind};
use storage::{Claim, Class, Volume};

/// Decisions written at once.
const WRITES: usize = 64;

/// Binds pods to nodes until `stop`.
pub async fn run(client: Client, profiles: Profiles, stop: CancellationToken) {
    let until = stop.clone();
    let start = move || -> BoxFuture<'static, ()> {
        Box::pin(run_once(client.clone(), profiles.clone(), until.clone()))
    };
    supervise("scheduler", start, stop).await;
}

/// Everything starts from what the API says, so that it can be dropped and started again.
async fn run_once(client: Client, profiles: Profiles, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let recorder = Recorder::start(client.clone(), pod_info::DEFAULT, &mut tasks, stop.clone());
    let scheduler = Arc::new(Scheduler {
        client: client.clone(),
        recorder,
        state: Mutex::new(State::new(profiles)),
        changed: Notify::new(),
        permits: Arc::new(Semaphore::new(WRITES)),
    });
    let mut watch = Watch {
        scheduler: &scheduler,
        tasks: &mut tasks,
        stop,
    };
    // Decisions before everything is known would crowd the first nodes seen. Pods come last, because
    // all the rest is asked about them.
    let _namespaces = watch
        .follow(
            Api::<Namespace>::all(client.clone()),
            State::namespace_changed,
        )
        .await;
    let _budgets = watch
        .follow(
            Api::<PodDisruptionBudget>::all(client.clone()),
            State::budget_changed,
        )
        .await;
    let _classes = watch
        .follow::<Class>(Api::all(client.clone()), State::class_changed)
        .await;
    let _volumes = watch
        .follow::<Volume>(Api::all(client.clone()), State::volume_changed)
        .await;
    let _claims = watch
        .follow::<Claim>(Api::all(client.clone()), State::claim_changed)
        .await;
    let _nodes = watch
        .follow::<NodeFacts>(Api::all(client.clone()), State::node_changed)
        .await;
    let _pods = watch
        .follow::<PodInfo>(Api::all(client), State::pod_changed)
        .await;
    scheduler.schedule().await;
}

/// What it takes to keep the state current.
struct Watch<'a> {
    scheduler: &'a Arc<Scheduler>,
    tasks: &'a mut JoinSet<()>,
    stop: CancellationToken,
}

impl Watch<'_> {
    /// Has `apply` told of everything of a kind; it answers whether there is something to decide. Returns
    /// once all that there is has been told.
    async fn follow<C: Cached>(
        &mut self,
        api: Api<C::Object>,
        apply: impl Fn(&mut State, Change<'_, C>) -> bool + Send + Sync + 'static,
    ) -> Subscription<C> {
        let informer = Informer::<C>::new(api, watcher::Config::default());
        self.tasks
            .spawn(Arc::clone(&informer).run(self.stop.clone()));
        informer.synced().await;
        let scheduler = Arc::clone(self.scheduler);
        informer.subscribe(move |change| {
            if apply(&mut scheduler.state(), change) {
                scheduler.changed.notify_one();
            }
        })
    }
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    state: Mutex<State>,
    changed: Notify,
    permits: Arc<Semaphore>,
}

impl Scheduler {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes, decides and hands over, for ever. Writes end with the task set when this is dropped.
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
            Decision::Provision(pod, node, claims) => self.provision(&pod, &node, &claims).await,
            Decision::Explain(explanation) => self.explain(&explanation).await,
            Decision::Preempt {
                explanation,
                preemption,
                displaced,
            } => {
                self.explain(&explanation).await;
                self.make_room(&explanation.pod, &preemption, &displaced)
                    .await;
            }
        }
    }

    async fn bind(&self, pod: &PodInfo, node: &str) {
        let about = reference("v1", "Pod", &pod.metadata);
        match bind::bind(self.client.clone(), pod, node).await {
            Ok(()) => {
                let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
                let text = format!("Successfully assigned {namespace}/{name} to {node}");
                self.recorder.normal(about, "Scheduled", text);
            }
            Err(error) => {
                self.state().take_back(pod);
                self.changed.notify_one();
                if !is_not_found(&error) {
                    let text = format!("binding rejected: {}", message(&error));
                    self.recorder.warning(about, "FailedScheduling", text);
                }
            }
        }
    }

    async fn provision(&self, pod: &PodInfo, node: &str, claims: &[ToBind]) {
        if let Err(error) = bind::provision(&self.client, node, claims).await {
            self.state().queue.back_off(pod.metadata.uid());
            self.changed.notify_one();
            let about = reference("v1", "Pod", &pod.metadata);
            let text = format!("binding volumes: {}", message(&error));
            self.recorder.warning(about, "FailedScheduling", text);
        }
    }

    async fn explain(&self, said: &Explanation) {
        let marked = bind::explain(self.client.clone(), said).await;
        if let Err(error) = marked
            && !is_not_found(&error)
        {
            let pod = said.pod.metadata.name();
            tracing::warn!(pod, %error, "say that a pod is unschedulable");
        }
        let about = reference("v1", "Pod", &said.pod.metadata);
        self.recorder
            .warning(about, "FailedScheduling", said.message.clone());
    }

    /// Evicts the victims. The pod comes back when the last of them has left.
    async fn make_room(&self, pod: &PodInfo, preemption: &Preemption, displaced: &[Arc<PodInfo>]) {
        for other in displaced {
            let told = bind::displace(self.client.clone(), other).await;
            if let Err(error) = unless_gone(told) {
                let pod = other.metadata.name();
                tracing::warn!(pod, %error, "take back the promise of a node");
            }
        }
        let evictions = preemption.victims.iter().map(|victim| async move {
            unless_gone(bind::evict(self.client.clone(), victim, &pod.scheduler).await)?;
            let about = reference("v1", "Pod", &victim.metadata);
            let (uid, node) = (pod.metadata.uid(), &preemption.node);
            let text = format!("Preempted by pod {uid} on node {node}");
            self.recorder.normal(about, "Preempted", text);
            Ok::<_, kube::Error>(())
        });
        let failed = join_all(evictions).await.into_iter().find_map(Result::err);
        if let Some(error) = failed {
            self.state().break_promise(pod);
            self.changed.notify_one();
            let about = reference("v1", "Pod", &pod.metadata);
            let text = format!("preemption: {}", message(&error));
            self.recorder.warning(about, "FailedScheduling", text);
        }
    }
}
