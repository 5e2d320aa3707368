//! What a Job needs: pure decisions. Source: upstream's job controller.
//!
//! A pod's result is counted in steps, so that none is lost or counted twice whenever the controller is
//! stopped between two writes:
//!
//! 1. The status names the pod among the uncounted (or its index among the completed).
//! 2. The pod loses its finalizer, and may go.
//! 3. An uncounted pod without the finalizer becomes one more in the status' number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1 as core;

use super::failure_policy::{Verdict, judge};
use super::indexes::Indexes;
use super::pod::{self, TRACKING, counts_by_index};
use super::status::{End, condition, is_finished};
use crate::controllers::runtime::clock;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;
use crate::controllers::runtime::recorder::Severity;

/// Pods made, and pods counted, in one go at most.
const BURST: usize = 500;
/// How long a failed pod is waited for to be replaced; doubles with each failure in a row.
const FIRST_BACK_OFF: i64 = 10;
const LAST_BACK_OFF: i64 = 600;

/// What is to be done, in this order: pods, then the status, then the finalizers.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) create: Vec<core::Pod>,
    pub(super) delete: Vec<Arc<Pod>>,
    /// Whether the deleted pods are to lose their finalizer first: they are not wanted, so they have not
    /// failed.
    pub(super) releases: bool,
    pub(super) status: JobStatus,
    /// Pods that the status accounts for.
    pub(super) strip: Vec<Arc<Pod>>,
    pub(super) events: Vec<(Severity, &'static str, String)>,
    /// When to look again without anything having happened.
    pub(super) wake: Option<Duration>,
}

/// A Job with what its pods have come to.
pub(super) struct View<'a> {
    pub(super) job: &'a Job,
    pub(super) spec: &'a JobSpec,
    pub(super) now: Timestamp,
    pub(super) pods: &'a [Arc<Pod>],
    pub(super) active: Vec<&'a Arc<Pod>>,
    pub(super) terminating: usize,
    /// Counted for good.
    pub(super) succeeded: i32,
    pub(super) failed: i32,
    pub(super) uncounted: UncountedTerminatedPods,
    pub(super) completed: Indexes,
    pub(super) failed_indexes: Indexes,
    /// Why the pod failure policy ends the Job, if it does.
    pub(super) fatal: Option<String>,
    pub(super) strip: Vec<Arc<Pod>>,
    /// Failed pods that alone know how often their index has failed: counted when another one knows too.
    held: Vec<&'a Arc<Pod>>,
}

/// What the Job needs. `settled`: whether the pods that were last made and deleted are seen.
pub(super) fn plan(job: &Job, pods: &[Arc<Pod>], settled: bool, now: Timestamp) -> Plan {
    let default = JobSpec::default();
    let spec = job.spec.as_ref().unwrap_or(&default);
    let mut plan = Plan {
        create: Vec::new(),
        delete: Vec::new(),
        releases: false,
        status: job.status.clone().unwrap_or_default(),
        strip: Vec::new(),
        events: Vec::new(),
        wake: None,
    };
    if is_finished(job) {
        plan.strip = pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .map(Arc::clone)
            .collect();
        return plan;
    }
    let mut view = View::new(job, spec, pods, now);
    view.count();
    view.fill(plan, settled)
}

fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.has_finalizer(TRACKING)
}

impl<'a> View<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, pods: &'a [Arc<Pod>], now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let end = spec.completions.unwrap_or(0);
        let indexes = |text: Option<&String>| Indexes::parse(text.map_or("", String::as_str), end);
        let living = pods.iter().filter(|pod| !pod.has_ended());
        Self {
            job,
            spec,
            now,
            pods,
            active: living
                .clone()
                .filter(|pod| !pod.metadata.is_terminating())
                .collect(),
            terminating: living.filter(|pod| pod.metadata.is_terminating()).count(),
            succeeded: status.succeeded.unwrap_or(0),
            failed: status.failed.unwrap_or(0),
            completed: indexes(status.completed_indexes.as_ref()),
            failed_indexes: indexes(status.failed_indexes.as_ref()),
            uncounted: status.uncounted_terminated_pods.unwrap_or_default(),
            fatal: None,
            strip: Vec::new(),
            held: Vec::new(),
        }
    }

    pub(super) fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    /// Whether the pod counts as failed: a deleted one does unless only failed ones are replaced.
    fn has_failed(&self, pod: &Pod) -> bool {
        pod.phase == "Failed"
            || (!self.replaces_only_failed()
                && pod.metadata.is_terminating()
                && pod.phase != "Succeeded")
    }

    /// Takes the three steps as far as they go.
    fn count(&mut self) {
        let tracked: BTreeMap<&str, &Arc<Pod>> = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .map(|pod| (pod.metadata.uid(), pod))
            .collect();
        for (uncounted, counted) in [
            (&mut self.uncounted.succeeded, &mut self.succeeded),
            (&mut self.uncounted.failed, &mut self.failed),
        ] {
            let Some(uids) = uncounted else { continue };
            let before = uids.len();
            uids.retain(|uid| tracked.contains_key(uid.as_str()));
            *counted += i32::try_from(before - uids.len()).unwrap_or(i32::MAX);
        }
        for (uid, pod) in tracked {
            if self.strip.len() >= BURST {
                break;
            }
            let known =
                |uids: &Option<Vec<String>>| uids.iter().flatten().any(|known| known == uid);
            if known(&self.uncounted.succeeded) || known(&self.uncounted.failed) {
                self.strip.push(Arc::clone(pod));
            } else if pod.phase == "Succeeded" {
                self.count_success(uid, pod);
            } else if self.has_failed(pod) {
                match self.is_remembered(pod) {
                    true => self.count_failure(pod),
                    false => self.held.push(pod),
                }
            }
        }
        if self.is_indexed() {
            self.succeeded = self.completed.len();
        }
    }

    fn count_success(&mut self, uid: &str, pod: &Arc<Pod>) {
        self.strip.push(Arc::clone(pod));
        if !self.is_indexed() {
            self.uncounted
                .succeeded
                .get_or_insert_default()
                .push(uid.to_owned());
        } else if let Some(index) = self.index(pod) {
            self.completed.insert(index);
        }
    }

    /// Whether the failures of the pod's index are known without it: the next pod of the index carries them on, or
    /// there will be none.
    fn is_remembered(&self, pod: &Pod) -> bool {
        let Some(index) = self.index(pod).filter(|_| counts_by_index(self.job)) else {
            return true;
        };
        let verdict = self.verdict(pod);
        if matches!(verdict, Verdict::FailJob(_)) || self.fails_index(pod, &verdict) {
            return true;
        }
        let (before, after) = (pod::index_failures(pod), self.failures_after(pod));
        let mut others = self
            .pods
            .iter()
            .filter(|other| pod::index(other) == Some(index));
        self.completed.contains(index)
            || self.failed_indexes.contains(index)
            || others.any(|other| {
                let known = pod::index_failures(other);
                known > before || (known >= after && !other.has_ended() && !self.has_failed(other))
            })
    }

    fn verdict(&self, pod: &Pod) -> Verdict {
        judge(self.spec.pod_failure_policy.as_ref(), pod)
    }

    /// Whether the failure of the pod is the last that its index may have.
    fn fails_index(&self, pod: &Pod, verdict: &Verdict) -> bool {
        let limit = self.spec.backoff_limit_per_index;
        let spent = limit.is_some_and(|limit| pod::index_failures(pod) >= limit);
        *verdict == Verdict::FailIndex || (spent && *verdict == Verdict::Count)
    }

    /// How often the index of a failed pod has failed with it.
    fn failures_after(&self, pod: &Pod) -> i32 {
        pod::index_failures(pod) + i32::from(self.verdict(pod) != Verdict::Ignore)
    }

    fn count_failure(&mut self, pod: &Arc<Pod>) {
        self.strip.push(Arc::clone(pod));
        let verdict = self.verdict(pod);
        let fails_index = self.fails_index(pod, &verdict);
        match verdict {
            Verdict::Ignore => return,
            Verdict::FailJob(why) => self.fatal = Some(why),
            Verdict::FailIndex | Verdict::Count => {
                if fails_index
                    && let Some(index) = self.index(pod)
                    && !self.completed.contains(index)
                {
                    self.failed_indexes.insert(index);
                }
            }
        }
        self.uncounted
            .failed
            .get_or_insert_default()
            .push(pod.metadata.uid().to_owned());
    }

    /// The index of a pod, if the Job has it.
    fn index(&self, pod: &Pod) -> Option<i32> {
        let index = pod::index(pod)?;
        (0..self.spec.completions.unwrap_or(0))
            .contains(&index)
            .then_some(index)
    }

    fn all_succeeded(&self) -> i32 {
        self.succeeded + length(self.uncounted.succeeded.as_ref())
    }

    fn all_failed(&self) -> i32 {
        let held = i32::try_from(self.held.len()).unwrap_or(i32::MAX);
        self.failed + length(self.uncounted.failed.as_ref()) + held
    }

    fn fill(&mut self, mut plan: Plan, settled: bool) -> Plan {
        let suspended = self.spec.suspend == Some(true);
        let goes = self.job.metadata.is_terminating();
        let end = self.end(&mut plan.wake);
        plan.releases = end.is_none();
        if end.is_some() || goes {
            // No pod will carry on.
            for pod in std::mem::take(&mut self.held) {
                self.count_failure(pod);
            }
        }
        if end.is_some() || suspended {
            if settled {
                plan.delete = self.active.iter().map(|pod| Arc::clone(pod)).collect();
            }
        } else if settled && !goes && self.strip.len() < BURST {
            // With more to be counted than fits, it is not known yet what is missing.
            self.manage(&mut plan);
        }
        plan.strip = std::mem::take(&mut self.strip);
        self.write_status(&mut plan, end, suspended);
        plan
    }

    /// How the Job ends, if it does. What was decided before stays so.
    fn end(&self, wake: &mut Option<Duration>) -> Option<End> {
        for (kind, succeeds) in [("FailureTarget", false), ("SuccessCriteriaMet", true)] {
            if let Some(decided) = condition(self.job, kind).filter(|of| of.status == "True") {
                return Some(End {
                    succeeds,
                    reason: decided.reason.clone().unwrap_or_default(),
                    message: decided.message.clone().unwrap_or_default(),
                });
            }
        }
        if let Some(why) = &self.fatal {
            return Some(End::failure("PodFailurePolicy", why.clone()));
        }
        if self.exceeds_back_off_limit() {
            let message = "Job has reached the specified backoff limit";
            return Some(End::failure("BackoffLimitExceeded", message));
        }
        if self.is_past_deadline(wake) {
            let message = "Job was active longer than specified deadline";
            return Some(End::failure("DeadlineExceeded", message));
        }
        self.end_by_indexes().or_else(|| self.completion())
    }

    fn exceeds_back_off_limit(&self) -> bool {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts: i32 = self.active.iter().map(|pod| pod.all_restarts).sum();
        let spec = self.spec.template.spec.as_ref();
        let restarts_in_place =
            spec.and_then(|spec| spec.restart_policy.as_deref()) == Some("OnFailure");
        let restarted = restarts_in_place && restarts > 0 && restarts >= limit;
        self.all_failed() > limit || restarted
    }

    fn is_past_deadline(&self, wake: &mut Option<Duration>) -> bool {
        let start = self
            .job
            .status
            .as_ref()
            .and_then(|status| status.start_time.as_ref());
        let suspended = self.spec.suspend == Some(true);
        let (Some(start), Some(seconds), false) =
            (start, self.spec.active_deadline_seconds, suspended)
        else {
            return false;
        };
        let due = clock::after(start.0, seconds);
        if due > self.now {
            *wake = Some(clock::until(due, self.now));
        }
        due <= self.now
    }

    fn end_by_indexes(&self) -> Option<End> {
        if !self.is_indexed() {
            return None;
        }
        if let Some(most) = self.spec.max_failed_indexes
            && self.failed_indexes.len() > most
        {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(End::failure("MaxFailedIndexesExceeded", message));
        }
        let completions = self.spec.completions.unwrap_or(0);
        let rules = self
            .spec
            .success_policy
            .iter()
            .flat_map(|policy| &policy.rules);
        for (at, rule) in rules.enumerate() {
            let wanted = rule.succeeded_indexes.as_deref();
            let wanted = wanted.map(|text| Indexes::parse(text, completions));
            let reached = match &wanted {
                Some(wanted) => self.completed.common(wanted),
                None => self.completed.len(),
            };
            let all = wanted.as_ref().map_or(completions, Indexes::len);
            if reached >= rule.succeeded_count.unwrap_or(all) {
                let message = format!("Matched rules at index {at}");
                return Some(End::success("SuccessPolicy", message));
            }
        }
        let ended = self.failed_indexes.len() + self.completed.len();
        let message = "Job has failed indexes";
        (self.failed_indexes.len() > 0 && ended >= completions)
            .then(|| End::failure("FailedIndexes", message))
    }

    fn completion(&self) -> Option<End> {
        let succeeded = self.all_succeeded();
        let done = match self.spec.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && self.active.is_empty(),
        };
        let message = "Reached expected number of succeeded pods";
        done.then(|| End::success("CompletionsReached", message))
    }

    /// Makes pods that are missing, deletes those that are too many.
    fn manage(&self, plan: &mut Plan) {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let active = i32::try_from(self.active.len()).unwrap_or(i32::MAX);
        let wanted = match self.spec.completions {
            None if self.all_succeeded() > 0 => active.min(parallelism),
            None => parallelism,
            Some(completions) => {
                let left = completions - self.all_succeeded() - self.failed_indexes.len();
                left.min(parallelism)
            }
        };
        plan.delete = self.surplus(active - wanted);
        let leaving = if self.replaces_only_failed() {
            self.terminating
        } else {
            0
        };
        let kept = self.active.len() - plan.delete.len();
        let missing = usize::try_from(wanted)
            .unwrap_or(0)
            .saturating_sub(kept + leaving);
        let missing = missing.min(BURST);
        if missing == 0 {
            return;
        }
        if self.is_indexed() {
            self.make_indexed(missing, plan);
        } else if let Some(left) = self.back_off(self.pods.iter()) {
            plan.wake = plan.wake.into_iter().chain([left]).min();
        } else {
            plan.create = vec![pod::pod(self.job, None); missing];
        }
    }

    fn make_indexed(&self, missing: usize, plan: &mut Plan) {
        let taken: Indexes = self
            .active
            .iter()
            .filter_map(|pod| pod::index(pod))
            .collect();
        let leaving = self
            .pods
            .iter()
            .filter(|pod| !pod.has_ended() && pod.metadata.is_terminating());
        let leaving: Indexes = leaving.filter_map(|pod| pod::index(pod)).collect();
        let leaving = if self.replaces_only_failed() {
            leaving
        } else {
            Indexes::default()
        };
        let seen_to = [&self.completed, &self.failed_indexes, &taken, &leaving];
        let free = (0..self.spec.completions.unwrap_or(0))
            .filter(|index| !seen_to.iter().any(|of| of.contains(*index)));
        for index in free {
            if plan.create.len() >= missing {
                return;
            }
            let own = self
                .pods
                .iter()
                .filter(|pod| pod::index(pod) == Some(index));
            let waits = if counts_by_index(self.job) {
                self.back_off(own.clone())
            } else {
                self.back_off(self.pods.iter())
            };
            if let Some(left) = waits {
                plan.wake = plan.wake.into_iter().chain([left]).min();
                continue;
            }
            let failed = own.filter(|pod| self.has_failed(pod));
            let failures = failed.map(|pod| self.failures_after(pod)).max();
            plan.create
                .push(pod::pod(self.job, Some((index, failures.unwrap_or(0)))));
        }
    }

    /// The pods that are missed least, and all but the oldest of an index.
    fn surplus(&self, count: i32) -> Vec<Arc<Pod>> {
        let mut sorted = self.active.clone();
        sorted.sort_by_key(|pod| {
            (
                !pod.node.is_empty(),
                pod.phase == "Running",
                pod.ready,
                std::cmp::Reverse(pod.metadata.created()),
            )
        });
        let count = usize::try_from(count).unwrap_or(0);
        let mut surplus: Vec<_> = sorted
            .iter()
            .take(count)
            .map(|pod| Arc::clone(pod))
            .collect();
        if self.is_indexed() {
            let mut seen = Indexes::default();
            for pod in sorted.iter().skip(count).rev() {
                match pod::index(pod) {
                    Some(index) if seen.contains(index) => surplus.push(Arc::clone(pod)),
                    Some(index) => seen.insert(index),
                    None => surplus.push(Arc::clone(pod)),
                }
            }
        }
        surplus
    }

    /// How long to wait after the last failures in a row among `pods`.
    fn back_off(&self, pods: impl Iterator<Item = &'a Arc<Pod>>) -> Option<Duration> {
        let ended = pods.filter(|pod| pod.has_ended() && self.verdict(pod) != Verdict::Ignore);
        let mut ended: Vec<_> = ended
            .map(|pod| (end_of(pod), pod.phase == "Failed"))
            .collect();
        ended.sort_unstable_by(|a, b| b.cmp(a));
        let failures = ended.iter().take_while(|(_, failed)| *failed).count();
        let (last, _) = ended.first().filter(|_| failures > 0)?;
        let doubled = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(16);
        let wait = (FIRST_BACK_OFF << doubled).min(LAST_BACK_OFF);
        let due = clock::after(*last, wait);
        (due > self.now).then(|| clock::until(due, self.now))
    }
}

pub(super) fn length(list: Option<&Vec<String>>) -> i32 {
    list.map_or(0, |list| i32::try_from(list.len()).unwrap_or(i32::MAX))
}

/// When a pod ended, as well as that is known.
fn end_of(pod: &Pod) -> Timestamp {
    let ended = pod.finished.or(pod.ready_since);
    ended.unwrap_or_else(|| pod.metadata.created())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
