//! What a Deployment needs next: a pure decision over it, its ReplicaSets and whether old pods run.
//!
//! A plan does what can be done now; every step it takes changes a ReplicaSet, which wakes the
//! Deployment again. Steps, as upstream orders them:
//!
//! 1. paused, or resized: scale the sets in proportion, no rollout;
//! 2. Recreate: old sets to 0, wait until their pods are gone, then the new set;
//! 3. RollingUpdate: grow the new set; if it cannot grow, shrink old ones;
//! 4. finished: clean up history.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::revision::{self, REVISION};
use super::rolling::{self, Size, available, replicas, wanted};
use super::status::{Draft, is_complete};
use crate::controllers::runtime::metadata::{Metadata, controller_reference};
use crate::controllers::runtime::template_hash;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Action {
    /// Make the new set.
    Create(Box<ReplicaSet>),
    /// Write a set whose annotations or settings changed.
    Update(Box<ReplicaSet>),
    /// Write a set that changes its size.
    Scale { set: Box<ReplicaSet>, from: i32 },
    /// Remove a set that history no longer needs.
    Delete(Arc<ReplicaSet>),
    /// Note the revision on the Deployment.
    SetRevision(String),
}

/// What to do, what to say about it, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) status: Option<DeploymentStatus>,
    pub(super) wake: Option<Duration>,
}

/// What is known of a Deployment.
pub(super) struct Observed<'a> {
    pub(super) deployment: &'a Deployment,
    /// The sets it manages.
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    pub(super) now: Timestamp,
}

/// The plan. `old_pods_run` tells whether pods of the given old sets have not ended yet.
pub(super) fn plan(
    observed: Observed<'_>,
    old_pods_run: impl FnOnce(&[Arc<ReplicaSet>]) -> bool,
) -> Plan {
    let deployment = observed.deployment;
    let mut planner = Planner::new(observed);
    if deployment.metadata.is_terminating() {
        return planner.finish(false);
    }
    let paused = deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true);
    planner.draft.pause(paused);
    if paused || planner.is_resized() {
        planner.adjust_existing();
        planner.resize();
        if paused {
            planner.clean_up();
        }
        return planner.finish(false);
    }
    if rolling::is_rolling(deployment) {
        planner.roll();
    } else {
        planner.recreate(old_pods_run);
    }
    planner.finish(true)
}

struct Planner<'a> {
    deployment: &'a Deployment,
    draft: Draft<'a>,
    /// The set of the current template.
    new: Option<Arc<ReplicaSet>>,
    /// All others, oldest first.
    old: Vec<Arc<ReplicaSet>>,
    actions: Vec<Action>,
}

impl<'a> Planner<'a> {
    fn new(observed: Observed<'a>) -> Self {
        let Observed {
            deployment,
            mut sets,
            now,
        } = observed;
        sets.sort_by(|a, b| {
            let age = a.metadata.created().cmp(&b.metadata.created());
            age.then_with(|| a.metadata.name().cmp(b.metadata.name()))
        });
        let new = sets.iter().position(|set| is_of_template(deployment, set));
        let new = new.map(|at| sets.remove(at));
        Self {
            deployment,
            draft: Draft::new(deployment, now),
            new,
            old: sets,
            actions: Vec::new(),
        }
    }

    /// Ends with the status. A set made in this plan counts from the next on.
    fn finish(mut self, rolls_out: bool) -> Plan {
        let all: Vec<&ReplicaSet> = self.old.iter().chain(&self.new).map(|set| &**set).collect();
        let new = self.new.as_deref();
        self.draft.count(&all, new);
        if rolls_out {
            self.draft.progress(&all, new);
        }
        let wake = self.draft.wake();
        Plan {
            actions: self.actions,
            status: self.draft.finish(),
            wake,
        }
    }

    /// Whether the Deployment was resized since its sets were.
    fn is_resized(&self) -> bool {
        let wanted = wanted(self.deployment);
        let mut active = self.active();
        active.any(|set| {
            let sized_for = set.metadata.annotation(rolling::DESIRED).parse::<i32>();
            sized_for.is_ok_and(|sized_for| sized_for != wanted)
        })
    }

    fn active(&self) -> impl Iterator<Item = &Arc<ReplicaSet>> {
        self.old
            .iter()
            .chain(&self.new)
            .filter(|set| replicas(set) > 0)
    }

    /// Brings the new set's annotations and settings up to date; `false` if the rollout has to wait.
    fn adjust_existing(&mut self) -> bool {
        let Some(new) = &self.new else { return true };
        let mut set = ReplicaSet::clone(new);
        let annotated = revision::annotate(self.deployment, &mut set, revision::next(&self.old));
        let spec = self.deployment.spec.as_ref();
        let min_ready = spec
            .and_then(|spec| spec.min_ready_seconds)
            .filter(|s| *s != 0);
        let set_spec = set.spec.get_or_insert_default();
        let known = set_spec.min_ready_seconds.filter(|seconds| *seconds != 0);
        set_spec.min_ready_seconds = min_ready;
        if annotated || known != min_ready {
            self.actions.push(Action::Update(Box::new(set)));
            return false;
        }
        self.note_revision(new.metadata.annotation(REVISION).to_owned());
        self.draft.found(&set.metadata.name.unwrap_or_default());
        true
    }

    fn note_revision(&mut self, revision: String) {
        if self.deployment.metadata.annotation(REVISION) != revision {
            self.actions.push(Action::SetRevision(revision));
        }
    }

    /// Makes the new set if there is none; `false` if the rollout has to wait for it.
    fn ensure_new(&mut self) -> bool {
        if self.new.is_some() {
            return self.adjust_existing();
        }
        let collisions = self
            .deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let total = self.old.iter().map(|set| replicas(set)).sum();
        let mut set = new_set(self.deployment, collisions);
        let size = rolling::next_size(self.deployment, 0, total);
        set.spec.get_or_insert_default().replicas = Some(size);
        let revision = revision::next(&self.old);
        revision::annotate(self.deployment, &mut set, revision);
        revision::note_size(self.deployment, &mut set);
        self.draft.created(set.metadata.name());
        self.actions.push(Action::Create(Box::new(set)));
        self.note_revision(revision.to_string());
        false
    }

    fn scale(&mut self, set: &Arc<ReplicaSet>, size: i32) -> bool {
        let from = replicas(set);
        let mut changed = ReplicaSet::clone(set);
        let noted = revision::note_size(self.deployment, &mut changed);
        if from == size && !noted {
            return false;
        }
        changed.spec.get_or_insert_default().replicas = Some(size);
        let set = Box::new(changed);
        self.actions.push(Action::Scale { set, from });
        true
    }

    fn roll(&mut self) {
        if !self.ensure_new() {
            return;
        }
        let Some(new) = self.new.clone() else { return };
        let total = self.old.iter().map(|set| replicas(set)).sum::<i32>() + replicas(&new);
        let size = rolling::next_size(self.deployment, replicas(&new), total);
        if size != replicas(&new) {
            self.scale(&new, size);
            return;
        }
        let sizes: Vec<Size> = self.old.iter().map(|set| Size::of(set)).collect();
        let next = rolling::shrink_old(self.deployment, Size::of(&new), &sizes);
        let mut shrunk = false;
        for (set, size) in self.old.clone().iter().zip(next) {
            if size != replicas(set) {
                shrunk |= self.scale(set, size);
            }
        }
        if !shrunk {
            self.clean_up_if_complete();
        }
    }

    fn recreate(&mut self, old_pods_run: impl FnOnce(&[Arc<ReplicaSet>]) -> bool) {
        if !self.adjust_existing() {
            return;
        }
        let mut stopped = false;
        for set in self.old.clone() {
            if replicas(&set) > 0 {
                stopped |= self.scale(&set, 0);
            }
        }
        if stopped || old_pods_run(&self.old) {
            return;
        }
        let Some(new) = self.new.clone() else {
            self.ensure_new();
            return;
        };
        if !self.scale(&new, wanted(self.deployment)) {
            self.clean_up_if_complete();
        }
    }

    /// Scales the sets of a Deployment that is paused or was resized.
    fn resize(&mut self) {
        let wanted = wanted(self.deployment);
        let mut active: Vec<_> = self.active().cloned().collect();
        if active.len() <= 1 {
            let only = active.pop().or_else(|| self.new.clone());
            if let Some(set) = only.or_else(|| self.old.last().cloned()) {
                self.scale(&set, wanted);
            }
            return;
        }
        if self
            .new
            .as_ref()
            .is_some_and(|new| is_saturated(self.deployment, new))
        {
            for set in self.old.clone() {
                if replicas(&set) > 0 {
                    self.scale(&set, 0);
                }
            }
            return;
        }
        if !rolling::is_rolling(self.deployment) {
            return;
        }
        let leeway = rolling::Leeway::of(self.deployment);
        let allowed = if wanted > 0 { wanted + leeway.surge } else { 0 };
        let grows = allowed > active.iter().map(|set| replicas(set)).sum::<i32>();
        // Largest first; of equal ones the younger grow and the older shrink first.
        active.sort_by(|a, b| {
            let age = a.metadata.created().cmp(&b.metadata.created());
            let size = replicas(b).cmp(&replicas(a));
            size.then(if grows { age.reverse() } else { age })
        });
        let sets: Vec<&ReplicaSet> = active.iter().map(|set| &**set).collect();
        let sizes = rolling::proportional(self.deployment, &sets);
        for (set, size) in active.iter().zip(sizes) {
            self.scale(set, size);
        }
    }

    fn clean_up_if_complete(&mut self) {
        let status = self.deployment.status.as_ref();
        if status.is_some_and(|status| is_complete(self.deployment, status)) {
            self.clean_up();
        }
    }

    fn clean_up(&mut self) {
        let surplus = revision::surplus(self.deployment, &self.old);
        self.actions
            .extend(surplus.into_iter().cloned().map(Action::Delete));
    }
}

/// Whether a set is of the Deployment's current template.
pub(super) fn is_of_template(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    template
        .zip(wanted)
        .is_some_and(|(template, wanted)| template_hash::same(template, wanted))
}

/// Whether the new set alone is all that is wanted.
fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let wanted = wanted(deployment);
    let sized_for = new.metadata.annotation(rolling::DESIRED).parse::<i32>();
    replicas(new) == wanted && sized_for == Ok(wanted) && available(new) == wanted
}

/// A set of the Deployment's template, not sized yet.
fn new_set(deployment: &Deployment, collisions: Option<i32>) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = template_hash::hash(&spec.template, collisions);
    let mut template = spec.template;
    let metadata = template.metadata.get_or_insert_default();
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(template_hash::LABEL.into(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector;
    let matched = selector.match_labels.get_or_insert_default();
    matched.insert(template_hash::LABEL.into(), hash.clone());
    let owner = controller_reference("apps/v1", "Deployment", &deployment.metadata);
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", deployment.metadata.name())),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            min_ready_seconds: spec.min_ready_seconds,
            replicas: Some(0),
            selector,
            template: Some(template),
        }),
        status: None,
    }
}
