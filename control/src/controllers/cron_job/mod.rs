//! CronJob: Jobs by the clock.
//!
//! Per key: carry out [`plan::plan`], then wait until the next time that the schedule names. A Job's name follows
//! from its time, so a time is never served twice, whatever was not written in between.

mod plan;

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::Context;
use super::runtime::informer::Index;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::recorder::{Severity, reference};
use super::runtime::worker::{
    Outcome, ReconcileError, is_already_exists, is_namespace_terminating, message, unless_gone,
    work,
};
use super::runtime::written::Written;

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let controller = Controller {
        context: &context,
        written: Written::default(),
    };
    let informers = &context.informers;
    informers.cron_jobs.synced().await;
    informers.jobs.synced().await;
    let (of_cron_jobs, of_jobs) = (Arc::clone(&queue), Arc::clone(&queue));
    let _cron_jobs = informers.cron_jobs.subscribe(move |change| {
        if let Some(cron_job) = change.new {
            of_cron_jobs.add(Key::of(&cron_job.metadata));
        }
    });
    let _jobs = informers.jobs.subscribe(move |change| {
        let Some(job) = change.either() else { return };
        let owner = job
            .metadata
            .controller()
            .filter(|owner| owner.kind == "CronJob");
        if let Some(owner) = owner {
            of_jobs.add(Key::new(job.metadata.namespace(), &owner.name));
        }
    });
    let stop = context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| controller.reconcile(key)).await;
}

struct Controller<'c> {
    context: &'c Context,
    written: Written,
}

impl Controller<'_> {
    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(cron_job) = self.context.informers.cron_jobs.get(&key) else {
            self.written.forget(&key);
            return Ok(None);
        };
        // An older status would not list the Job that was just made.
        if !self.written.is_seen(&cron_job.metadata) {
            return Ok(None);
        }
        let jobs = self.jobs(&cron_job).await?;
        let mut plan = plan::plan(&cron_job, &jobs, self.context.now());
        for name in &plan.delete {
            self.delete(&cron_job, name).await?;
        }
        let created = match plan.create.take() {
            Some((job, due)) => self.create(&cron_job, &job, due, &mut plan.status).await,
            None => Ok(()),
        };
        self.write_status(&cron_job, plan.status).await?;
        for (severity, reason, text) in plan.events {
            self.say(&cron_job, severity, reason, text);
        }
        created?;
        Ok(plan.wake)
    }

    /// The CronJob's Jobs in the cache, and those of its list that the cache does not show yet.
    async fn jobs(&self, cron_job: &CronJob) -> Result<Vec<Arc<Job>>, ReconcileError> {
        let own = Index::Controller(cron_job.metadata.uid().to_owned());
        let mut jobs = self.context.informers.jobs.by(&own);
        let listed = cron_job
            .status
            .iter()
            .flat_map(|status| status.active.iter().flatten());
        for listed in listed {
            let is_listed = |job: &Job| job.metadata.uid == listed.uid;
            if jobs.iter().any(|job| is_listed(job)) {
                continue;
            }
            let name = listed.name.as_deref().unwrap_or_default();
            let found = self.api(cron_job).get_opt(name).await?;
            jobs.extend(found.filter(is_listed).map(Arc::new));
        }
        Ok(jobs)
    }

    async fn delete(&self, cron_job: &CronJob, name: &str) -> Result<(), ReconcileError> {
        let api = self.api(cron_job);
        match unless_gone(api.delete(name, &DeleteParams::background()).await) {
            Ok(_) => {
                let text = format!("Deleted job {name}");
                self.say(cron_job, Severity::Normal, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) => {
                let text = format!("Deleted job: {}", message(&error));
                self.say(cron_job, Severity::Warning, "FailedDelete", text);
                Err(error.into())
            }
        }
    }

    /// Makes the Job, or finds the one that was made for that time before, and lists it in the status.
    async fn create(
        &self,
        cron_job: &CronJob,
        job: &Job,
        due: Timestamp,
        status: &mut CronJobStatus,
    ) -> Result<(), ReconcileError> {
        let (api, name) = (self.api(cron_job), job.metadata.name());
        let made = match api.create(&PostParams::default(), job).await {
            Ok(made) => {
                let text = format!("Created job {name}");
                self.say(cron_job, Severity::Normal, "SuccessfulCreate", text);
                made
            }
            Err(error) if is_already_exists(&error) => {
                let found = api.get(name).await?;
                let owner = found.metadata.controller();
                if owner.is_none_or(|owner| owner.uid != cron_job.metadata.uid()) {
                    // Whoever made it sees to it.
                    return Ok(());
                }
                found
            }
            Err(error) => {
                if !is_namespace_terminating(&error) {
                    let text = format!("Error creating job: {}", message(&error));
                    self.say(cron_job, Severity::Warning, "FailedCreate", text);
                }
                return Err(error.into());
            }
        };
        let active = status.active.get_or_insert_default();
        active.push(reference("batch/v1", "Job", &made.metadata));
        status.last_schedule_time = Some(Time(due));
        Ok(())
    }

    async fn write_status(
        &self,
        cron_job: &CronJob,
        status: CronJobStatus,
    ) -> Result<(), ReconcileError> {
        if cron_job.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = cron_job.clone();
        changed.status = Some(status);
        let api: Api<CronJob> =
            Api::namespaced(self.context.client.clone(), cron_job.metadata.namespace());
        let (name, params) = (cron_job.metadata.name(), PostParams::default());
        if let Some(written) = unless_gone(api.replace_status(name, &params, &changed).await)? {
            self.written.note(&written.metadata);
        }
        Ok(())
    }

    fn api(&self, cron_job: &CronJob) -> Api<Job> {
        Api::namespaced(self.context.client.clone(), cron_job.metadata.namespace())
    }

    fn say(&self, cron_job: &CronJob, severity: Severity, reason: &'static str, text: String) {
        let about = reference("batch/v1", "CronJob", &cron_job.metadata);
        self.context.recorder.event(about, severity, reason, text);
    }
}
