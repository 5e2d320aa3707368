//! A Deployment's status and its conditions Available, Progressing and ReplicaFailure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::rolling::{Leeway, available, replicas, wanted};
use crate::controllers::runtime::clock;
use crate::controllers::runtime::metadata::Metadata;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const COMPLETE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

/// A deadline of this many seconds stands for none.
const NO_DEADLINE: i32 = i32::MAX;

/// A status in the making.
pub(super) struct Draft<'a> {
    deployment: &'a Deployment,
    now: Timestamp,
    status: DeploymentStatus,
}

impl<'a> Draft<'a> {
    /// Starts from the status there is.
    pub(super) fn new(deployment: &'a Deployment, now: Timestamp) -> Self {
        Self {
            deployment,
            now,
            status: deployment.status.clone().unwrap_or_default(),
        }
    }

    /// The finished status, if it is news.
    pub(super) fn finish(self) -> Option<DeploymentStatus> {
        let known = self.deployment.status.as_ref();
        (known != Some(&self.status)).then_some(self.status)
    }

    /// One more collision of template hashes.
    pub(super) fn count_collision(&mut self) {
        let count = self.status.collision_count.unwrap_or(0);
        self.status.collision_count = Some(count + 1);
    }

    /// Counts the pods of the sets, and says whether enough are available.
    pub(super) fn count(&mut self, all: &[&ReplicaSet], new: Option<&ReplicaSet>) {
        let sum = |field: fn(&ReplicaSet) -> i32| all.iter().map(|set| field(set)).sum::<i32>();
        let of = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
        let total = sum(of);
        let available = sum(available);
        let ready = |set: &ReplicaSet| {
            set.status
                .as_ref()
                .and_then(|status| status.ready_replicas)
                .unwrap_or(0)
        };
        self.status.observed_generation = self.deployment.metadata.generation;
        self.status.replicas = Some(total);
        self.status.updated_replicas = Some(new.map_or(0, of));
        self.status.ready_replicas = Some(sum(ready));
        self.status.available_replicas = Some(available);
        self.status.unavailable_replicas = Some((sum(replicas) - available).max(0));
        let least = wanted(self.deployment) - Leeway::of(self.deployment).unavailable;
        if available >= least {
            let text = "Deployment has minimum availability.";
            self.set(AVAILABLE, "True", "MinimumReplicasAvailable", text.into());
        } else {
            let text = "Deployment does not have minimum availability.";
            self.set(
                AVAILABLE,
                "False",
                "MinimumReplicasUnavailable",
                text.into(),
            );
        }
    }

    /// Says that the rollout has begun.
    pub(super) fn created(&mut self, set: &str) {
        if self.deadline().is_some() {
            let text = format!("Created new replica set {set:?}");
            self.set(PROGRESSING, "True", "NewReplicaSetCreated", text);
        }
    }

    /// Says that the rollout goes back to, or began with, a set there was.
    pub(super) fn found(&mut self, set: &str) {
        if self.deadline().is_some() && self.condition(PROGRESSING).is_none() {
            let text = format!("Found new replica set {set:?}");
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", text);
        }
    }

    /// Says that the new set could not be made.
    pub(super) fn not_created(&mut self, set: &str, why: &str) {
        let text = format!("Failed to create new replica set {set:?}: {why}");
        self.set(PROGRESSING, "False", "ReplicaSetCreateError", text);
    }

    /// Says that the Deployment is paused, or no longer: then the deadline starts anew.
    pub(super) fn pause(&mut self, paused: bool) {
        let reason = self
            .condition(PROGRESSING)
            .and_then(|condition| condition.reason.as_deref());
        // What timed out stays so until there is progress.
        if self.deadline().is_none() || reason == Some(TIMED_OUT) {
            return;
        }
        match (paused, reason == Some(PAUSED)) {
            (true, false) => {
                self.set(
                    PROGRESSING,
                    "Unknown",
                    PAUSED,
                    "Deployment is paused".into(),
                );
            }
            (false, true) => {
                let text = "Deployment is resumed".into();
                self.set(PROGRESSING, "Unknown", "DeploymentResumed", text);
            }
            _ => {}
        }
    }

    /// Says how far the rollout is, and whether pods could not be made. Comes after [`Self::count`].
    pub(super) fn progress(&mut self, all: &[&ReplicaSet], new: Option<&ReplicaSet>) {
        let Some(deadline) = self.deadline() else {
            self.remove(PROGRESSING);
            return self.replica_failure(all, new);
        };
        let subject = match new {
            Some(set) => format!("ReplicaSet {:?}", set.metadata.name()),
            None => format!("Deployment {:?}", self.deployment.metadata.name()),
        };
        let current = self.condition(PROGRESSING).cloned();
        let reason = current
            .as_ref()
            .and_then(|condition| condition.reason.as_deref());
        let settled = self.status.replicas == self.status.updated_replicas;
        if settled && reason == Some(COMPLETE) {
            // A finished rollout stays finished, whatever happens to its pods afterwards.
        } else if is_complete(self.deployment, &self.status) {
            let text = format!("{subject} has successfully progressed.");
            self.set(PROGRESSING, "True", COMPLETE, text);
        } else if self.has_progressed() || reason == Some(COMPLETE) {
            // Also a rollout whose beginning could not be written down: else it would never be overdue.
            self.remove(PROGRESSING);
            let text = format!("{subject} is progressing.");
            self.set(PROGRESSING, "True", "ReplicaSetUpdated", text);
            self.keep_transition(current.as_ref());
        } else if current.is_some_and(|condition| self.is_overdue(&condition, deadline)) {
            let text = format!("{subject} has timed out progressing.");
            self.set(PROGRESSING, "False", TIMED_OUT, text);
        }
        self.replica_failure(all, new);
    }

    /// When the rollout would be overdue.
    pub(super) fn wake(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        let condition = self.condition(PROGRESSING)?;
        let over = matches!(
            condition.reason.as_deref(),
            Some(TIMED_OUT | PAUSED | COMPLETE)
        );
        if over || is_complete(self.deployment, &self.status) {
            return None;
        }
        let since = condition.last_update_time.as_ref()?.0;
        // Times in objects are cut to the second.
        let due = clock::after(since, i64::from(deadline) + 1);
        Some(clock::until(due, self.now).max(Duration::from_secs(1)))
    }

    fn deadline(&self) -> Option<i32> {
        let spec = self.deployment.spec.as_ref()?;
        spec.progress_deadline_seconds
            .filter(|deadline| *deadline != NO_DEADLINE)
    }

    fn has_progressed(&self) -> bool {
        let old = self.deployment.status.clone().unwrap_or_default();
        let updated = |status: &DeploymentStatus| status.updated_replicas.unwrap_or(0);
        let outdated = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - updated(status);
        updated(&self.status) > updated(&old)
            || outdated(&self.status) < outdated(&old)
            || self.status.ready_replicas.unwrap_or(0) > old.ready_replicas.unwrap_or(0)
            || self.status.available_replicas.unwrap_or(0) > old.available_replicas.unwrap_or(0)
    }

    fn is_overdue(&self, condition: &DeploymentCondition, deadline: i32) -> bool {
        match condition.reason.as_deref() {
            Some(COMPLETE | PAUSED) => false,
            Some(TIMED_OUT) => true,
            _ => condition
                .last_update_time
                .as_ref()
                .is_some_and(|since| clock::after(since.0, deadline.into()) < self.now),
        }
    }

    fn replica_failure(&mut self, all: &[&ReplicaSet], new: Option<&ReplicaSet>) {
        let failure = |set: &ReplicaSet| {
            let conditions = set.status.as_ref()?.conditions.as_ref()?;
            conditions
                .iter()
                .find(|condition| condition.type_ == REPLICA_FAILURE)
                .cloned()
        };
        let found = new.and_then(failure);
        match found.or_else(|| all.iter().find_map(|set| failure(set))) {
            Some(failure) => self.set(
                REPLICA_FAILURE,
                "True",
                failure.reason.as_deref().unwrap_or_default(),
                failure.message.unwrap_or_default(),
            ),
            None => self.remove(REPLICA_FAILURE),
        }
    }

    fn condition(&self, kind: &str) -> Option<&DeploymentCondition> {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.find(|condition| condition.type_ == kind)
    }

    fn remove(&mut self, kind: &str) {
        if let Some(conditions) = &mut self.status.conditions {
            conditions.retain(|condition| condition.type_ != kind);
        }
    }

    /// Sets a condition unless it says so already.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = Time(windlass_api::time::to_seconds(self.now));
        let mut since = Some(now.clone());
        if let Some(old) = self.condition(kind)
            && old.status == status
        {
            if old.reason.as_deref() == Some(reason) {
                return;
            }
            since.clone_from(&old.last_transition_time);
        }
        self.remove(kind);
        self.status
            .conditions
            .get_or_insert_default()
            .push(DeploymentCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_update_time: Some(now),
                last_transition_time: since,
            });
    }

    fn keep_transition(&mut self, old: Option<&DeploymentCondition>) {
        let Some(old) = old.filter(|old| old.status == "True") else {
            return;
        };
        let conditions = self.status.conditions.iter_mut().flatten();
        for condition in conditions.filter(|condition| condition.type_ == PROGRESSING) {
            condition
                .last_transition_time
                .clone_from(&old.last_transition_time);
        }
    }
}

/// Whether all pods are of the new template and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = Some(wanted(deployment));
    status.updated_replicas.or(Some(0)) == wanted
        && status.replicas.or(Some(0)) == wanted
        && status.available_replicas.or(Some(0)) == wanted
        && status.observed_generation >= deployment.metadata.generation
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn deployment(status: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "generation": 2}, "status": status,
            "spec": {"replicas": 2, "progressDeadlineSeconds": 60, "strategy": {"type": "RollingUpdate"}},
        }))
        .unwrap()
    }

    fn set(replicas: i32, available: i32) -> ReplicaSet {
        serde_json::from_value(json!({"metadata": {"name": "web-1"}, "spec": {"replicas": replicas},
            "status": {"replicas": replicas, "readyReplicas": available, "availableReplicas": available}}))
        .unwrap()
    }

    fn progressing(reason: &str, since: i64) -> Value {
        let time = windlass_api::time::format_seconds(at(since));
        json!([{"type": "Progressing", "status": "True", "reason": reason,
            "lastUpdateTime": time, "lastTransitionTime": time}])
    }

    fn reason(before: Value, set: &ReplicaSet, now: i64) -> (String, Option<Duration>) {
        let deployment = deployment(before);
        let mut draft = Draft::new(&deployment, at(now));
        draft.count(&[set], Some(set));
        draft.progress(&[set], Some(set));
        let condition = draft.condition(PROGRESSING).cloned();
        (
            condition
                .and_then(|condition| condition.reason)
                .unwrap_or_default(),
            draft.wake(),
        )
    }

    #[test]
    fn a_rollout_progresses_completes_or_times_out() {
        let (starting, done) = (set(2, 0), set(2, 2));
        let begun =
            |conditions| json!({"replicas": 2, "updatedReplicas": 2, "conditions": conditions});
        let seconds = |n| Some(Duration::from_secs(n));
        for (before, set, now, expected) in [
            (json!({}), &starting, 0, ("ReplicaSetUpdated", seconds(61))),
            (
                begun(progressing("NewReplicaSetCreated", 10)),
                &starting,
                20,
                ("NewReplicaSetCreated", seconds(51)),
            ),
            (
                begun(progressing("NewReplicaSetCreated", 10)),
                &starting,
                71,
                ("ProgressDeadlineExceeded", None),
            ),
            (
                begun(progressing("ReplicaSetUpdated", 10)),
                &done,
                20,
                ("NewReplicaSetAvailable", None),
            ),
            (
                begun(progressing("NewReplicaSetAvailable", 10)),
                &starting,
                500,
                ("NewReplicaSetAvailable", None),
            ),
        ] {
            let (reason, wake) = reason(before.clone(), set, now);
            assert_eq!((&*reason, wake), expected, "{before} at {now}");
        }
    }

    #[test]
    fn a_rollout_whose_beginning_was_not_written_down_begins_when_it_is_seen() {
        let (old, new) = (set(2, 2), set(2, 0));
        let finished = progressing("NewReplicaSetAvailable", 10);
        let before = json!({"replicas": 2, "updatedReplicas": 2, "conditions": finished});
        let deployment = deployment(before);
        let mut draft = Draft::new(&deployment, at(500));
        draft.count(&[&old, &new], Some(&new));
        draft.progress(&[&old, &new], Some(&new));
        assert_eq!(draft.wake(), Some(Duration::from_secs(61)));
    }

    #[test]
    fn a_status_without_news_is_not_written() {
        let set = set(2, 2);
        let first = deployment(json!({}));
        let mut draft = Draft::new(&first, at(0));
        draft.count(&[&set], Some(&set));
        draft.progress(&[&set], Some(&set));
        let status = draft.finish().unwrap();
        let again = deployment(serde_json::to_value(&status).unwrap());
        let mut draft = Draft::new(&again, at(99));
        draft.count(&[&set], Some(&set));
        draft.progress(&[&set], Some(&set));
        assert_eq!(draft.finish(), None);
    }
}
