//! CronJob: Jobs by the clock.
//!
//! Per key: carry out [`plan::plan`], then wait until the next time that the schedule names. A Job's name follows
//! from its time, so a time is never served twice, whatever was not written in between.

mod plan;

use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::Api;
use kube::api::{DeleteParams, PostParams};

use super::Context;
use super::runtime::informer::Index;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::recorder::{Severity, reference};
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{
    Outcome, ReconcileError, is_already_exists, message, unless_gone, work,
};

const NAME: &str = "cronjob-controller";
const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = Arc::new(WorkQueue::default());
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
    work(NAME, queue, WORKERS, stop, |key| reconcile(&context, key)).await;
}

async fn reconcile(context: &Context, key: Key) -> Outcome {
    let Some(cron_job) = context.informers.cron_jobs.get(&key) else {
        return Ok(None);
    };
    let own = Index::Controller(cron_job.metadata.uid().to_owned());
    let jobs = context.informers.jobs.by(&own);
    let mut plan = plan::plan(&cron_job, &jobs, Timestamp::now());
    let about = reference("batch/v1", "CronJob", &cron_job.metadata);
    let say = |severity, reason, text| {
        context
            .recorder
            .event(about.clone(), severity, reason, text);
    };
    let api: Api<Job> = Api::namespaced(context.client.clone(), &key.namespace);
    for name in &plan.delete {
        unless_gone(api.delete(name, &DeleteParams::background()).await)?;
    }
    if let Some(job) = &plan.create {
        let made = create(&api, job).await;
        let name = job.metadata.name();
        match made {
            Ok(made) => {
                let active = plan.status.active.get_or_insert_default();
                active.push(reference("batch/v1", "Job", &made.metadata));
                say(
                    Severity::Normal,
                    "SuccessfulCreate",
                    format!("Created job {name}"),
                );
            }
            Err(error) => {
                let text = format!("Error creating job: {}", message(&error));
                say(Severity::Warning, "FailedCreate", text);
                return Err(error.into());
            }
        }
    }
    for (severity, reason, text) in plan.events {
        say(severity, reason, text);
    }
    if cron_job.status.as_ref() != Some(&plan.status) {
        let mut changed = CronJob::clone(&cron_job);
        changed.status = Some(plan.status);
        let api: Api<CronJob> = Api::namespaced(context.client.clone(), &key.namespace);
        let params = PostParams::default();
        let written = api.replace_status(&key.name, &params, &changed).await;
        unless_gone(written).map_err(ReconcileError::from)?;
    }
    Ok(plan.wake)
}

/// Makes the Job, or finds the one that was made for that time already.
async fn create(api: &Api<Job>, job: &Job) -> Result<Job, kube::Error> {
    match api.create(&PostParams::default(), job).await {
        Err(error) if is_already_exists(&error) => {
            let found = api.get(job.metadata.name()).await?;
            let owner = |job: &Job| job.metadata.controller().map(|owner| owner.uid.clone());
            if owner(&found) == owner(job) {
                Ok(found)
            } else {
                Err(error)
            }
        }
        other => other,
    }
}
