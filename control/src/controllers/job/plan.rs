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
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::failure_policy::{Verdict, judge};
use super::indexes::Indexes;
use super::pod::{self, TRACKING, counts_by_index};
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

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct End {
    succeeds: bool,
    reason: String,
    message: String,
}

impl End {
    fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self {
            succeeds: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn success(reason: &str, message: impl Into<String>) -> Self {
        Self {
            succeeds: true,
            reason: reason.into(),
            message: message.into(),
        }
    }
}

/// Whether the Job has ended for good.
pub(in crate::controllers) fn is_finished(job: &Job) -> bool {
    ["Complete", "Failed"].iter().any(|kind| holds(job, kind))
}

fn holds(job: &Job, kind: &str) -> bool {
    condition(job, kind).is_some_and(|condition| condition.status == "True")
}

fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// A Job with what its pods have come to.
struct View<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    now: Timestamp,
    pods: &'a [Arc<Pod>],
    active: Vec<&'a Arc<Pod>>,
    terminating: usize,
    /// Counted for good.
    succeeded: i32,
    failed: i32,
    uncounted: UncountedTerminatedPods,
    completed: Indexes,
    failed_indexes: Indexes,
    /// Why the pod failure policy ends the Job, if it does.
    fatal: Option<String>,
    strip: Vec<Arc<Pod>>,
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
        }
    }

    fn is_indexed(&self) -> bool {
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
                self.count_failure(uid, pod);
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

    fn count_failure(&mut self, uid: &str, pod: &Arc<Pod>) {
        self.strip.push(Arc::clone(pod));
        let verdict = judge(self.spec.pod_failure_policy.as_ref(), pod);
        let limit = self.spec.backoff_limit_per_index;
        let spent = limit.is_some_and(|limit| pod::index_failures(pod) >= limit);
        match verdict {
            Verdict::Ignore => return,
            Verdict::FailJob(why) => self.fatal = Some(why),
            Verdict::FailIndex | Verdict::Count => {
                if (verdict == Verdict::FailIndex || spent)
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
            .push(uid.to_owned());
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
        self.failed + length(self.uncounted.failed.as_ref())
    }

    fn fill(&mut self, mut plan: Plan, settled: bool) -> Plan {
        let suspended = self.spec.suspend == Some(true);
        let goes = self.job.metadata.is_terminating();
        let end = self.end(&mut plan.wake);
        plan.releases = end.is_none();
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
            let failures = own.filter(|pod| self.has_failed(pod) && !self.is_ignored(pod));
            let failures = failures.map(|pod| pod::index_failures(pod) + 1).max();
            plan.create
                .push(pod::pod(self.job, Some((index, failures.unwrap_or(0)))));
        }
    }

    fn is_ignored(&self, pod: &Pod) -> bool {
        judge(self.spec.pod_failure_policy.as_ref(), pod) == Verdict::Ignore
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
        let ended = pods.filter(|pod| pod.has_ended() && !self.is_ignored(pod));
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

    fn write_status(&self, plan: &mut Plan, end: Option<End>, suspended: bool) {
        let status = &mut plan.status;
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let ready = self.active.iter().filter(|pod| pod.ready).count();
        status.active = Some(count(self.active.len())).filter(|count| *count > 0);
        status.ready = Some(count(ready));
        status.terminating = Some(count(self.terminating));
        status.succeeded = Some(self.succeeded).filter(|count| *count > 0);
        status.failed = Some(self.failed).filter(|count| *count > 0);
        status.uncounted_terminated_pods = Some(self.uncounted.clone());
        if self.is_indexed() {
            status.completed_indexes =
                Some(self.completed.to_string()).filter(|text| !text.is_empty());
            if counts_by_index(self.job) {
                status.failed_indexes = Some(self.failed_indexes.to_string());
            }
        }
        let open = !self.active.is_empty()
            || self.terminating > 0
            || !plan.strip.is_empty()
            || length(self.uncounted.succeeded.as_ref()) + length(self.uncounted.failed.as_ref())
                > 0;
        let was_suspended = holds(self.job, "Suspended");
        match end {
            Some(end) => finish(status, &mut plan.events, &end, open, self.now),
            None if suspended => {
                if !was_suspended {
                    set(
                        status,
                        "Suspended",
                        "True",
                        "JobSuspended",
                        "Job suspended",
                        self.now,
                    );
                    plan.events
                        .push((Severity::Normal, "Suspended", "Job suspended".into()));
                }
                status.start_time = None;
            }
            None => {
                if was_suspended {
                    set(
                        status,
                        "Suspended",
                        "False",
                        "JobResumed",
                        "Job resumed",
                        self.now,
                    );
                    plan.events
                        .push((Severity::Normal, "Resumed", "Job resumed".into()));
                }
                if status.start_time.is_none() {
                    status.start_time = Some(time(self.now));
                    // Only now is it known when the deadline is.
                    let deadline = self.spec.active_deadline_seconds;
                    let deadline = deadline.and_then(|seconds| u64::try_from(seconds).ok());
                    plan.wake = plan
                        .wake
                        .into_iter()
                        .chain(deadline.map(Duration::from_secs))
                        .min();
                }
            }
        }
    }
}

/// Says that the Job will end, and once nothing of it is left, that it has.
fn finish(
    status: &mut JobStatus,
    events: &mut Vec<(Severity, &'static str, String)>,
    end: &End,
    open: bool,
    now: Timestamp,
) {
    let (target, last) = if end.succeeds {
        ("SuccessCriteriaMet", "Complete")
    } else {
        ("FailureTarget", "Failed")
    };
    set(status, target, "True", &end.reason, &end.message, now);
    if open {
        return;
    }
    set(status, last, "True", &end.reason, &end.message, now);
    if end.succeeds {
        status.completion_time = Some(time(now));
        events.push((Severity::Normal, "Completed", "Job completed".into()));
        return;
    }
    const REASONS: [&str; 5] = [
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "PodFailurePolicy",
        "MaxFailedIndexesExceeded",
        "FailedIndexes",
    ];
    let reason = REASONS.into_iter().find(|reason| *reason == end.reason);
    events.push((
        Severity::Warning,
        reason.unwrap_or("Failed"),
        end.message.clone(),
    ));
}

fn set(
    status: &mut JobStatus,
    kind: &str,
    value: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions
        .iter()
        .position(|condition| condition.type_ == kind);
    if known
        .and_then(|at| conditions.get(at))
        .is_some_and(|of| of.status == value)
    {
        return;
    }
    let condition = JobCondition {
        last_probe_time: Some(time(now)),
        last_transition_time: Some(time(now)),
        message: Some(message.to_owned()),
        reason: Some(reason.to_owned()),
        status: value.to_owned(),
        type_: kind.to_owned(),
    };
    match known.and_then(|at| conditions.get_mut(at)) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

fn time(now: Timestamp) -> Time {
    Time(windlass_api::time::to_seconds(now))
}

fn length(list: Option<&Vec<String>>) -> i32 {
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
