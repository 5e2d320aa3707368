//! What the status of a Job says: counts, conditions and how the Job ends.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Plan, View, length};
use super::pod::counts_by_index;
use crate::controllers::runtime::recorder::Severity;

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) succeeds: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl End {
    pub(super) fn failure(reason: &str, message: impl Into<String>) -> Self {
        Self {
            succeeds: false,
            reason: reason.into(),
            message: message.into(),
        }
    }

    pub(super) fn success(reason: &str, message: impl Into<String>) -> Self {
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

pub(super) fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

impl View<'_> {
    pub(super) fn write_status(&self, plan: &mut Plan, end: Option<End>, suspended: bool) {
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
        let (time, was_suspended) = (self.now, holds(self.job, "Suspended"));
        let mut says = |value, reason, message: &'static str, event| {
            set(status, "Suspended", value, reason, message, time);
            plan.events.push((Severity::Normal, event, message.into()));
        };
        if end.is_none() && suspended {
            if !was_suspended {
                says("True", "JobSuspended", "Job suspended", "Suspended");
            }
            status.start_time = None;
            return;
        }
        if end.is_none() && was_suspended {
            says("False", "JobResumed", "Job resumed", "Resumed");
        }
        if status.start_time.is_none() {
            // Also of a Job that has ended before anybody looked at it: what has no start has no end.
            status.start_time = Some(seconds(self.now));
            // Only now is it known when the deadline is.
            let deadline = self.spec.active_deadline_seconds;
            let deadline = deadline.and_then(|seconds| u64::try_from(seconds).ok());
            let deadline = deadline.map(Duration::from_secs);
            plan.wake = plan.wake.into_iter().chain(deadline).min();
        }
        if let Some(end) = end {
            finish(status, &mut plan.events, &end, open, self.now);
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
        status.completion_time = Some(seconds(now));
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
        last_probe_time: Some(seconds(now)),
        last_transition_time: Some(seconds(now)),
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

fn seconds(now: Timestamp) -> Time {
    Time(windlass_api::time::to_seconds(now))
}
