//! Everything the scheduler knows and has decided, and how events and decisions change it.
//!
//! Purely in memory: what has to be written is answered as a [`Decision`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use tokio::time::Instant;

use super::decide::{Unschedulable, decide};
use super::event::Event;
use super::plugins::VOLUME_BINDING;
use super::plugins::volumes::Mounts;
use super::pod_info::PodInfo;
use super::preempt::{Preemption, preempt};
use super::profile::Profiles;
use super::queue::{Filters, Queue};
use super::snapshot::{NodeFacts, Snapshot};
use super::storage::{Claim, Class, Volume};
use crate::controllers::runtime::informer::Change;
use crate::controllers::runtime::key::Key;
use crate::controllers::runtime::metadata::Metadata;

/// What is to be written after a decision.
pub(super) enum Decision {
    /// The pod goes to the node.
    Bind(Arc<PodInfo>, Arc<str>),
    /// The pod waits until its claims have volumes, which the node decides about.
    Provision(Arc<PodInfo>, Arc<str>, Vec<ToBind>),
    /// No node has room.
    Explain(Explanation),
    /// No node has room, but one will once some pods have left it.
    Preempt {
        explanation: Explanation,
        preemption: Preemption,
        /// Pods of lower priority that had been promised the same node.
        displaced: Vec<Arc<PodInfo>>,
    },
}

/// A claim and the volume it should get, if one is made already.
pub(super) type ToBind = (Arc<Claim>, Option<Arc<Volume>>);

/// What a pod that waits is told.
pub(super) struct Explanation {
    pub(super) pod: Arc<PodInfo>,
    pub(super) message: String,
    /// The node it is promised from now on, empty for none; `None` changes nothing.
    pub(super) nominated: Option<String>,
}

/// An answer that holds for all pods alike as long as nothing changes.
struct Remembered {
    version: u64,
    pod: Arc<PodInfo>,
    message: String,
    refused_by: Filters,
}

/// What the scheduler knows and has decided.
pub(super) struct State {
    pub(super) queue: Queue,
    pub(super) snapshot: Snapshot,
    profiles: Profiles,
    /// The node that was asked last.
    last: Arc<str>,
    remembered: Option<Remembered>,
}

/// Keeps what is known of a kind as its cache has it.
fn follow<K: Eq + Hash, C>(known: &mut HashMap<K, Arc<C>>, key: K, change: Change<'_, C>) {
    match change.new {
        Some(new) => {
            known.insert(key, Arc::clone(new));
        }
        None => {
            known.remove(&key);
        }
    }
}

impl State {
    pub(super) fn new(profiles: Profiles) -> Self {
        Self {
            queue: Queue::default(),
            snapshot: Snapshot::default(),
            profiles,
            last: "".into(),
            remembered: None,
        }
    }

    pub(super) fn node_changed(&mut self, change: Change<'_, NodeFacts>) -> bool {
        match (change.old, change.new) {
            (Some(old), None) => {
                self.snapshot.remove_node(old.metadata.name());
                self.queue.wake(Event::NodeGone)
            }
            (old, Some(new)) => {
                self.snapshot.put_node(Arc::clone(new));
                let old = old.map(|old| &**old);
                old.is_none_or(|old| new.differs(old)) && self.queue.wake(Event::Node { old, new })
            }
            (None, None) => false,
        }
    }

    /// Whether there is something to decide.
    pub(super) fn pod_changed(&mut self, change: Change<'_, PodInfo>) -> bool {
        let Some(pod) = change.new.filter(|pod| !pod.has_ended) else {
            let Some(pod) = change.either() else {
                return false;
            };
            self.queue.remove(pod.metadata.uid());
            let gone = self.snapshot.remove_pod(pod.metadata.uid());
            return gone.is_some_and(|gone| self.queue.wake(Event::PodGone(&gone)));
        };
        let uid = pod.metadata.uid();
        if !pod.node.is_empty() {
            self.queue.remove(uid);
            self.snapshot.place(pod);
            let old = change.old.filter(|old| !old.node.is_empty());
            let is_news = old.is_none_or(|old| old.class != pod.class);
            return is_news && self.queue.wake(Event::PodPlaced);
        }
        if !pod.is_waiting() || self.profiles.get(&pod.scheduler).is_none() {
            self.queue.remove(uid);
            self.snapshot.forget_nomination(uid);
            return false;
        }
        // What was decided here and is not written yet stays, unless somebody took it back.
        if !pod.nominated.is_empty() {
            self.snapshot.nominate(pod, &pod.nominated);
        } else if change.old.is_some_and(|old| !old.nominated.is_empty()) {
            self.snapshot.forget_nomination(uid);
        }
        self.queue.put(pod, Instant::now());
        true
    }

    pub(super) fn namespace_changed(&mut self, change: Change<'_, Namespace>) -> bool {
        self.snapshot.touch();
        match (change.old, change.new) {
            (_, Some(new)) => {
                let labels = new.metadata.labels().clone();
                let name = new.metadata.name().to_owned();
                let old = self.snapshot.namespaces.insert(name, labels);
                old.as_ref() != Some(new.metadata.labels()) && self.queue.wake(Event::Namespace)
            }
            (Some(old), None) => {
                self.snapshot.namespaces.remove(old.metadata.name());
                false
            }
            (None, None) => false,
        }
    }

    pub(super) fn claim_changed(&mut self, change: Change<'_, Claim>) -> bool {
        let Some(claim) = change.either() else {
            return false;
        };
        let (namespace, name) = (claim.metadata.namespace(), claim.metadata.name());
        self.snapshot.touch();
        follow(
            &mut self.snapshot.storage.claims,
            Key::new(namespace, name),
            change,
        );
        self.queue.wake(Event::Claim { namespace, name })
    }

    pub(super) fn volume_changed(&mut self, change: Change<'_, Volume>) -> bool {
        let Some(volume) = change.either() else {
            return false;
        };
        let name = volume.metadata.name().to_owned();
        self.snapshot.touch();
        follow(&mut self.snapshot.storage.volumes, name, change);
        self.queue.wake(Event::Storage)
    }

    pub(super) fn class_changed(&mut self, change: Change<'_, Class>) -> bool {
        let Some(class) = change.either() else {
            return false;
        };
        let name = class.metadata.name().to_owned();
        self.snapshot.touch();
        follow(&mut self.snapshot.storage.classes, name, change);
        self.queue.wake(Event::Storage)
    }

    /// Nobody waits for a budget: it only decides whom to take.
    pub(super) fn budget_changed(&mut self, change: Change<'_, PodDisruptionBudget>) -> bool {
        if let Some(budget) = change.either() {
            self.snapshot.touch();
            follow(
                &mut self.snapshot.budgets,
                Key::of(&budget.metadata),
                change,
            );
        }
        false
    }

    /// The pod was not bound after all.
    pub(super) fn take_back(&mut self, pod: &PodInfo) {
        let uid = pod.metadata.uid();
        self.snapshot.forget_assumed(uid);
        self.queue.back_off(uid);
        self.queue.wake(Event::PodGone(pod));
    }

    /// No room was made after all.
    pub(super) fn break_promise(&mut self, pod: &PodInfo) {
        self.snapshot.forget_nomination(pod.metadata.uid());
        self.queue.back_off(pod.metadata.uid());
    }

    /// Decides about the next pod.
    ///
    /// # Errors
    /// When there is none: the time at which there will be one, if it is known.
    pub(super) fn decide_next(&mut self) -> Result<Decision, Option<Instant>> {
        loop {
            let Some(pod) = self.queue.take(Instant::now()) else {
                return Err(self.queue.next_due());
            };
            if let Some(decision) = self.decide(&pod) {
                return Ok(decision);
            }
            self.queue.remove(pod.metadata.uid());
        }
    }

    /// `None` if the pod is not one to decide about.
    fn decide(&mut self, pod: &Arc<PodInfo>) -> Option<Decision> {
        let profile = self.profiles.get(&pod.scheduler)?;
        let uid = pod.metadata.uid();
        let is_promised = self.snapshot.nomination_of(uid).is_some();
        let version = self.snapshot.version();
        let known = self
            .remembered
            .as_ref()
            .filter(|known| !is_promised && known.version == version && known.pod.is_alike(pod));
        if let Some(known) = known {
            let (message, refused_by) = (known.message.clone(), known.refused_by);
            return Some(self.refuse(pod, message, refused_by, None));
        }
        let mut refused = match decide(pod, &self.snapshot, profile, &mut self.last) {
            Ok(node) => {
                let node = Arc::clone(node);
                return Some(self.place(pod, node));
            }
            Err(refused) => refused,
        };
        if !profile.preempts || self.snapshot.node_count() == 0 {
            return Some(self.refuse(pod, refused.message, refused.refused_by, None));
        }
        match preempt(pod, &self.snapshot, profile, &refused) {
            Ok(preemption) => Some(self.make_room(pod, refused, preemption)),
            Err(no_room) => {
                refused.message.push_str(" preemption: ");
                refused.message.push_str(&no_room.message);
                if !is_promised {
                    self.remembered = Some(Remembered {
                        version,
                        pod: Arc::clone(pod),
                        message: refused.message.clone(),
                        refused_by: refused.refused_by,
                    });
                }
                let clear = (is_promised && no_room.ends_promise).then(String::new);
                Some(self.refuse(pod, refused.message, refused.refused_by, clear))
            }
        }
    }

    fn place(&mut self, pod: &Arc<PodInfo>, node: Arc<str>) -> Decision {
        let waiting = self.to_bind(pod, &node);
        if !waiting.is_empty() {
            let uid = pod.metadata.uid();
            self.queue.unschedulable(uid, Filters::of(VOLUME_BINDING));
            return Decision::Provision(Arc::clone(pod), node, waiting);
        }
        self.snapshot.assume(pod, &node);
        Decision::Bind(Arc::clone(pod), node)
    }

    /// The claims of the pod that have no volume yet.
    fn to_bind(&self, pod: &PodInfo, node: &str) -> Vec<ToBind> {
        let storage = &self.snapshot.storage;
        let mounts = Mounts::of(pod, storage).ok().zip(self.snapshot.node(node));
        mounts.map_or_else(Vec::new, |(mounts, node)| mounts.to_bind(node, storage))
    }

    fn refuse(
        &mut self,
        pod: &Arc<PodInfo>,
        message: String,
        refused_by: Filters,
        nominated: Option<String>,
    ) -> Decision {
        let uid = pod.metadata.uid();
        if nominated.is_some() {
            self.snapshot.forget_nomination(uid);
        }
        self.queue.unschedulable(uid, refused_by);
        Decision::Explain(Explanation {
            pod: Arc::clone(pod),
            message,
            nominated,
        })
    }

    fn make_room(
        &mut self,
        pod: &Arc<PodInfo>,
        refused: Unschedulable,
        preemption: Preemption,
    ) -> Decision {
        let node = &preemption.node;
        let promised = self.snapshot.nominated_on(node);
        let displaced = promised.filter(|other| other.wants.priority < pod.wants.priority);
        let displaced: Vec<_> = displaced.cloned().collect();
        for other in &displaced {
            self.break_promise(other);
        }
        self.snapshot.nominate(pod, node);
        self.queue
            .unschedulable(pod.metadata.uid(), refused.refused_by);
        Decision::Preempt {
            explanation: Explanation {
                pod: Arc::clone(pod),
                message: refused.message,
                nominated: Some(node.to_string()),
            },
            preemption,
            displaced,
        }
    }
}
