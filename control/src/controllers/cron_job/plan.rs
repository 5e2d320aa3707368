//! What a CronJob needs: pure decisions. Source: upstream's CronJob controller.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::controllers::job::is_finished;
use crate::controllers::runtime::clock;
use crate::controllers::runtime::metadata::{Metadata, controller_reference};
use crate::controllers::runtime::recorder::Severity;
use crate::cron::Schedule;

/// Annotation of a Job: the time it was made for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed times that are worth a warning.
const TOO_MANY: i64 = 100;

/// What is to be done, in this order.
#[derive(Debug)]
pub(super) struct Plan {
    /// Jobs to delete, by name.
    pub(super) delete: Vec<String>,
    /// A Job to make, and the time it is made for, which the status gets once it is made.
    pub(super) create: Option<(Job, Timestamp)>,
    pub(super) status: CronJobStatus,
    pub(super) events: Vec<(Severity, &'static str, String)>,
    /// When to look again without anything having happened.
    pub(super) wake: Option<Duration>,
}

/// What the CronJob needs; `jobs` are its own, among them all those that the status lists and that exist.
pub(super) fn plan(cron_job: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let default = CronJobSpec::default();
    let mut planner = Planner {
        cron_job,
        spec: cron_job.spec.as_ref().unwrap_or(&default),
        now,
        plan: Plan {
            delete: Vec::new(),
            create: None,
            status: cron_job.status.clone().unwrap_or_default(),
            events: Vec::new(),
            wake: None,
        },
    };
    planner.observe(jobs);
    if !cron_job.metadata.is_terminating() {
        planner.trim(jobs);
        if planner.spec.suspend != Some(true) {
            planner.start();
        }
    }
    let active = planner.plan.status.active.take();
    planner.plan.status.active = active.filter(|active| !active.is_empty());
    planner.plan
}

struct Planner<'a> {
    cron_job: &'a CronJob,
    spec: &'a CronJobSpec,
    now: Timestamp,
    plan: Plan,
}

impl Planner<'_> {
    fn say(&mut self, severity: Severity, reason: &'static str, message: impl Into<String>) {
        self.plan.events.push((severity, reason, message.into()));
    }

    fn active(&mut self) -> &mut Vec<ObjectReference> {
        self.plan.status.active.get_or_insert_default()
    }

    /// Brings the list of running Jobs up to date.
    fn observe(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            let uid = job.metadata.uid().to_owned();
            let listed = self
                .active()
                .iter()
                .position(|of| of.uid.as_deref() == Some(&uid));
            match (listed, end(job)) {
                (Some(at), Some((kind, _))) => {
                    self.active().remove(at);
                    let name = job.metadata.name();
                    let text = format!("Saw completed job: {name}, condition: {kind}");
                    self.say(Severity::Normal, "SawCompletedJob", text);
                }
                // One that somebody made by hand, or that was made just before the controller was stopped:
                // that one is listed when its time is seen to again.
                (None, None) => {
                    let text = format!(
                        "Saw a job that the controller did not create or forgot: {}",
                        job.metadata.name()
                    );
                    self.say(Severity::Warning, "UnexpectedJob", text);
                }
                _ => {}
            }
            let ended = job
                .status
                .as_ref()
                .and_then(|status| status.completion_time.clone());
            let last = &mut self.plan.status.last_successful_time;
            if let Some(ended) = ended
                && last.as_ref().is_none_or(|last| last.0 < ended.0)
            {
                *last = Some(ended);
            }
        }
        let known: Vec<_> = jobs.iter().map(|job| job.metadata.uid()).collect();
        let listed = std::mem::take(self.active());
        let (there, missing): (Vec<_>, Vec<_>) = listed
            .into_iter()
            .partition(|of| of.uid.as_deref().is_some_and(|uid| known.contains(&uid)));
        *self.active() = there;
        for job in missing {
            let name = job.name.unwrap_or_default();
            self.say(
                Severity::Normal,
                "MissingJob",
                format!("Active job went missing: {name}"),
            );
        }
    }

    /// Deletes finished Jobs beyond what is to be kept.
    fn trim(&mut self, jobs: &[Arc<Job>]) {
        let limits = [
            (
                "Complete",
                self.spec.successful_jobs_history_limit.unwrap_or(3),
            ),
            ("Failed", self.spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (kind, limit) in limits {
            let finished = jobs
                .iter()
                .filter(|job| end(job).is_some_and(|(of, _)| of == kind));
            let mut finished: Vec<_> = finished.collect();
            let start = |job: &Job| {
                job.status
                    .as_ref()
                    .and_then(|of| of.start_time.as_ref())
                    .map(|of| of.0)
            };
            finished.sort_by_key(|job| Reverse((start(job), job.metadata.name().to_owned())));
            for job in finished
                .into_iter()
                .skip(usize::try_from(limit).unwrap_or(0))
                .filter(|job| !job.metadata.is_terminating())
            {
                self.delete(job.metadata.name().to_owned());
            }
        }
    }

    fn delete(&mut self, name: String) {
        self.plan.delete.push(name);
    }

    /// Makes the Job that is due, and says when the next one is.
    fn start(&mut self) {
        let zone = match self.spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(error) => {
                    let text = format!("invalid timeZone: {name:?}: {error}");
                    return self.say(Severity::Warning, "UnknownTimeZone", text);
                }
            },
        };
        let schedule = match Schedule::parse(&self.spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                let text = format!("unparseable schedule: {:?} : {error}", self.spec.schedule);
                return self.say(Severity::Warning, "UnparseableSchedule", text);
            }
        };
        self.plan.wake = self.until_next(&schedule, &zone);
        let Some(due) = self.due(&schedule, &zone) else {
            return;
        };
        if self.is_seen_to(due) {
            return;
        }
        let deadline = self.spec.starting_deadline_seconds;
        if deadline.is_some_and(|deadline| clock::after(due, deadline) < self.now) {
            let text = format!("Missed scheduled time to start a job: {}", rfc1123(due));
            return self.say(Severity::Warning, "MissSchedule", text);
        }
        let running: Vec<_> = self
            .active()
            .iter()
            .filter_map(|of| of.name.clone())
            .collect();
        match self.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !running.is_empty() => {
                let text = "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.say(Severity::Normal, "JobAlreadyActive", text);
            }
            Some("Replace") => {
                self.active().clear();
                running.into_iter().for_each(|name| self.delete(name));
            }
            _ => {}
        }
        self.plan.create = Some((self.job(due, &zone), due));
    }

    /// Whether the Job for that time was made.
    fn is_seen_to(&mut self, due: Timestamp) -> bool {
        let name = self.job_name(due);
        let last = self.plan.status.last_schedule_time.as_ref();
        last.is_some_and(|last| last.0 >= due)
            || self
                .active()
                .iter()
                .any(|job| job.name.as_deref() == Some(&name))
    }

    fn job_name(&self, due: Timestamp) -> String {
        format!("{}-{}", self.cron_job.metadata.name(), due.as_second() / 60)
    }

    /// When a Job was last made, or the CronJob itself.
    fn last(&self) -> Timestamp {
        let last = self.plan.status.last_schedule_time.as_ref();
        last.map_or_else(|| self.cron_job.metadata.created(), |last| last.0)
    }

    /// How long until the next time, counted from the last one: `@every` goes by that.
    fn until_next(&self, schedule: &Schedule, zone: &TimeZone) -> Option<Duration> {
        let last = self.last();
        let missed = Missed::of(schedule, zone, last, self.now);
        let next = schedule.next(missed.map_or(last, |missed| missed.last), zone);
        next.map(|next| clock::until(next, self.now))
    }

    /// The latest time that has come and was not seen to.
    fn due(&mut self, schedule: &Schedule, zone: &TimeZone) -> Option<Timestamp> {
        let mut earliest = self.last();
        if let Some(deadline) = self.spec.starting_deadline_seconds {
            earliest = earliest.max(clock::after(self.now, -deadline));
        }
        let missed = Missed::of(schedule, zone, earliest, self.now)?;
        if missed.count > TOO_MANY && !self.is_seen_to(missed.last) {
            let text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.say(Severity::Warning, "TooManyMissedTimes", text);
        }
        Some(missed.last)
    }

    /// The Job for a time. Its name follows from the time, so that it is made once.
    fn job(&self, due: Timestamp, zone: &TimeZone) -> Job {
        let owner = &self.cron_job.metadata;
        let template = &self.spec.job_template;
        let of_template = template.metadata.clone().unwrap_or_default();
        let mut annotations = of_template.annotations.unwrap_or_default();
        let zoned = due.to_zoned(zone.clone());
        annotations.insert(
            SCHEDULED.into(),
            zoned
                .strftime("%Y-%m-%dT%H:%M:%S%:z")
                .to_string()
                .replace("+00:00", "Z"),
        );
        Job {
            metadata: ObjectMeta {
                name: Some(self.job_name(due)),
                namespace: owner.namespace.clone(),
                labels: of_template.labels,
                annotations: Some(annotations),
                owner_references: Some(vec![controller_reference("batch/v1", "CronJob", owner)]),
                ..ObjectMeta::default()
            },
            spec: template.spec.clone(),
            status: None,
        }
    }
}

/// The times of a schedule between two moments.
#[derive(Debug, PartialEq, Eq)]
struct Missed {
    last: Timestamp,
    /// Their number, if they all were as far apart as the first two.
    count: i64,
}

impl Missed {
    /// The times after `after` up to `now`, if there are any.
    ///
    /// In a long time there are many: from as far back as a few times would take they are followed one by one,
    /// from further back if that was too late.
    fn of(schedule: &Schedule, zone: &TimeZone, after: Timestamp, now: Timestamp) -> Option<Self> {
        let next = |time| schedule.next(time, zone).filter(|next| *next <= now);
        let first = next(after)?;
        let Some(second) = next(first) else {
            return Some(Self {
                last: first,
                count: 1,
            });
        };
        let step = (second.as_second() - first.as_second()).max(1);
        let steps = (now.as_second() - first.as_second()) / step;
        let mut back = 1;
        let mut last = None;
        while last.is_none() {
            // Whole steps from the first time: `@every` goes on from wherever it is asked about.
            let from = clock::after(first, (steps - back).max(0) * step);
            last = std::iter::successors(next(from), |time| next(*time)).last();
            back *= 2;
        }
        Some(Self {
            last: last.unwrap_or(second),
            count: steps + 1,
        })
    }
}

/// How a Job ended: the condition that says so.
fn end(job: &Job) -> Option<(&str, &str)> {
    if !is_finished(job) {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let last = conditions
        .iter()
        .find(|of| matches!(&*of.type_, "Complete" | "Failed") && of.status == "True")?;
    Some((&last.type_, last.reason.as_deref().unwrap_or_default()))
}

fn rfc1123(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::{Value, json};

    fn at(text: &str) -> Timestamp {
        format!("2026-01-01T{text}Z").parse().unwrap()
    }

    fn cron_job(spec: Value, status: Value) -> CronJob {
        let mut spec = spec;
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {"containers": []}}}});
        spec["jobTemplate"] = template;
        if spec["schedule"].is_null() {
            spec["schedule"] = json!("*/10 * * * *");
        }
        let object = json!({
            "metadata": {"name": "c", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": spec, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn job(name: &str, condition: Option<&str>, started: &str) -> Arc<Job> {
        let conditions = condition.map(|kind| json!([{"type": kind, "status": "True"}]));
        let done = (condition == Some("Complete")).then_some("2026-01-01T00:59:00Z");
        let job = json!({"metadata": {"name": name, "uid": name}, "status": {
            "conditions": conditions.unwrap_or(json!([])), "startTime": started, "completionTime": done}});
        Arc::new(serde_json::from_value(job).unwrap())
    }

    /// What is made and deleted, the reasons of events, and the seconds to the next look.
    fn told(plan: &Plan) -> String {
        let made = plan
            .create
            .iter()
            .map(|(job, _)| format!("+{}", job.metadata.name()));
        let deleted = plan.delete.iter().map(|name| format!("-{name}"));
        let events = plan
            .events
            .iter()
            .map(|(_, reason, _)| (*reason).to_owned());
        let wake = plan.wake.map(|wake| wake.as_secs().to_string());
        made.chain(deleted)
            .chain(events)
            .chain(wake)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_job_is_made_when_its_time_has_come_and_no_more_than_once() {
        let last = |text: &str| json!({"lastScheduleTime": format!("2026-01-01T{text}Z")});
        let minutes = at("00:10:00").as_second() / 60;
        let cases = [
            (json!({}), json!({}), "00:09:00", "60".to_owned()),
            (
                json!({}),
                json!({}),
                "00:10:00",
                format!("+c-{minutes} 600"),
            ),
            (json!({}), json!({}), "00:19:59", format!("+c-{minutes} 1")),
            (json!({}), last("00:10:00"), "00:19:59", "1".to_owned()),
            // Of several that were missed the last is made up for.
            (
                json!({}),
                json!({}),
                "00:45:00",
                format!("+c-{} 300", minutes + 30),
            ),
            (
                json!({}),
                last("00:20:00"),
                "00:45:00",
                format!("+c-{} 300", minutes + 30),
            ),
            (
                json!({"startingDeadlineSeconds": 60}),
                last("00:00:00"),
                "00:15:00",
                "300".to_owned(),
            ),
            (
                json!({"suspend": true}),
                json!({}),
                "00:45:00",
                String::new(),
            ),
            (
                json!({"schedule": "0 0 1 2 *"}),
                json!({}),
                "00:45:00",
                "2675700".to_owned(),
            ),
            (
                json!({"timeZone": "No/Where"}),
                json!({}),
                "00:45:00",
                "UnknownTimeZone".to_owned(),
            ),
            (
                json!({"schedule": "* * * * *"}),
                json!({}),
                "23:00:00",
                format!("+c-{} TooManyMissedTimes 60", minutes + 1370),
            ),
        ];
        for (spec, status, now, expected) in cases {
            let plan = plan(&cron_job(spec.clone(), status), &[], at(now));
            assert_eq!(told(&plan), expected, "{spec} {now}");
        }
    }

    #[test]
    fn a_job_carries_the_time_it_was_made_for() {
        let spec = json!({"schedule": "0 9 * * *", "timeZone": "Asia/Tokyo"});
        let plan = plan(
            &cron_job(spec, json!({"lastScheduleTime": "2025-12-31T00:00:00Z"})),
            &[],
            at("00:00:30"),
        );
        let (made, due) = plan.create.unwrap();
        let made = serde_json::to_value(made).unwrap();
        assert_eq!(
            made["metadata"]["annotations"][SCHEDULED],
            "2026-01-01T09:00:00+09:00"
        );
        assert_eq!(made["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(made["metadata"]["ownerReferences"][0]["kind"], "CronJob");
        assert_eq!(due, at("00:00:00"));
    }

    #[test]
    fn what_still_runs_is_left_waited_for_or_replaced() {
        let status = json!({"active": [{"name": "old", "uid": "old"}], "lastScheduleTime": "2026-01-01T00:00:00Z"});
        let jobs = [job("old", None, "2026-01-01T00:00:00Z")];
        let minutes = at("00:10:00").as_second() / 60;
        let cases = [
            ("Allow", format!("+c-{minutes} 600")),
            ("Forbid", "JobAlreadyActive 600".to_owned()),
            ("Replace", format!("+c-{minutes} -old 600")),
        ];
        for (policy, expected) in cases {
            let spec = json!({"concurrencyPolicy": policy});
            let plan = plan(&cron_job(spec, status.clone()), &jobs, at("00:10:00"));
            assert_eq!(told(&plan), expected, "{policy}");
        }
    }

    #[test]
    fn finished_jobs_are_noted_and_the_oldest_go() {
        let status =
            json!({"active": [{"name": "a", "uid": "a"}, {"name": "gone", "uid": "gone"}]});
        let jobs = [
            job("a", Some("Complete"), "2026-01-01T00:03:00Z"),
            job("b", Some("Complete"), "2026-01-01T00:01:00Z"),
            job("c", Some("Failed"), "2026-01-01T00:01:00Z"),
            job("d", Some("Failed"), "2026-01-01T00:02:00Z"),
            job("e", None, "2026-01-01T00:02:00Z"),
        ];
        let spec =
            json!({"successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1, "suspend": true});
        let plan = plan(&cron_job(spec, status), &jobs, at("00:05:00"));
        let events = "SawCompletedJob UnexpectedJob MissingJob";
        assert_eq!(told(&plan), format!("-b -c {events}"));
        assert_eq!(plan.status.active, None);
        assert_eq!(plan.status.last_successful_time, Some(Time(at("00:59:00"))));
    }

    #[test]
    fn the_last_missed_time_is_found_whatever_the_schedule() {
        let cases = [
            (
                "*/10 * * * *",
                "2026-01-02T00:00:00Z",
                144,
                "2026-01-02T00:00:00Z",
            ),
            (
                "@every 7m",
                "2026-01-02T00:00:00Z",
                205,
                "2026-01-01T23:55:00Z",
            ),
            // The first two are a year apart, the others a minute and a year in turn.
            (
                "0,1 0 1 1 *",
                "2029-06-01T00:00:00Z",
                4,
                "2029-01-01T00:01:00Z",
            ),
            // The first two are four days apart, most others one.
            (
                "0 9 * * 1-4",
                "2026-01-16T00:00:00Z",
                4,
                "2026-01-15T09:00:00Z",
            ),
            (
                "0 9 * * *",
                "2026-01-01T10:00:00Z",
                1,
                "2026-01-01T09:00:00Z",
            ),
        ];
        for (text, now, count, last) in cases {
            let schedule = Schedule::parse(text).unwrap();
            let missed = Missed::of(
                &schedule,
                &TimeZone::UTC,
                at("00:00:00"),
                now.parse().unwrap(),
            );
            let expected = Missed {
                last: last.parse().unwrap(),
                count,
            };
            assert_eq!(missed, Some(expected), "{text}");
        }
        let daily = Schedule::parse("0 9 * * *").unwrap();
        let none = Missed::of(&daily, &TimeZone::UTC, at("00:00:00"), at("08:59:59"));
        assert_eq!(none, None);
    }

    #[test]
    fn intervals_are_counted_from_the_last_time_not_from_now() {
        let spec = json!({"schedule": "@every 1h"});
        let status = json!({"lastScheduleTime": "2026-01-01T10:00:00Z"});
        let plan = plan(&cron_job(spec, status), &[], at("10:20:00"));
        assert_eq!(told(&plan), "2400");
    }

    #[test]
    fn a_job_that_is_listed_is_not_made_again() {
        let minutes = at("00:10:00").as_second() / 60;
        let name = format!("c-{minutes}");
        let status = json!({"active": [{"name": name, "uid": name}]});
        let jobs = [job(&name, None, "2026-01-01T00:10:00Z")];
        let plan = plan(&cron_job(json!({}), status), &jobs, at("00:10:30"));
        assert_eq!(told(&plan), "570");
    }
}
