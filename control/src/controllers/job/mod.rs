//! Job: pods that run to their end, as many as it takes.
//!
//! Per key: claim pods, carry out [`plan::plan`]: pods first, then the status, then the finalizers of the pods
//! that the status accounts for. Only this order keeps every result. A Job is left alone until the status that
//! was last written for it is seen: the pods it counts are no longer there to be counted.

mod failure_policy;
mod indexes;
mod plan;
mod pod;
mod status;

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::runtime::informer::Index;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod::Pod;
use super::runtime::pod_owners::{PodOwner, PodOwners, selector_of};
use super::runtime::recorder::Severity;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone};
use super::runtime::written::Written;
use pod::{JOB_NAME, TRACKING};
pub(super) use status::is_finished;

const NAME: &str = "job-controller";
const WORKERS: usize = 8;
/// Who is in charge of Jobs that do not say so.
const MANAGER: &str = "kubernetes.io/job-controller";

impl PodOwner for Job {
    const FINALIZER: Option<&'static str> = Some(TRACKING);

    fn selector(&self) -> Result<LabelSelector, ReconcileError> {
        selector_of(self.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
    }
}

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let informers = &context.informers;
    let owners = PodOwners::new(
        context.client.clone(),
        context.recorder.clone(),
        &informers.jobs,
        &informers.pods,
        context.queue(),
    );
    let controller = Controller {
        context: &context,
        owners: Arc::clone(&owners),
        written: Written::default(),
    };
    let stop = context.stop.clone();
    owners
        .run(NAME, WORKERS, stop, |key| controller.reconcile(key))
        .await;
}

struct Controller<'c> {
    context: &'c Context,
    owners: Arc<PodOwners<Job>>,
    written: Written,
}

impl Controller<'_> {
    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(job) = self.owners.get(&key) else {
            self.written.forget(&key);
            self.free_orphans(&key).await?;
            return Ok(None);
        };
        let manager = job
            .spec
            .as_ref()
            .and_then(|spec| spec.managed_by.as_deref());
        let is_ours = manager.is_none_or(|manager| manager == MANAGER);
        if !is_ours || !self.written.is_seen(&job.metadata) {
            return Ok(None);
        }
        let settled = self.owners.settled(&key);
        let pods = self.owners.claim(&job, |_| true).await?;
        let plan = plan::plan(&job, &pods, settled.is_ok(), self.context.now());
        if plan.releases {
            for pod in &plan.delete {
                self.free(&key, pod).await?;
            }
        }
        let changed = self.owners.change(&job, &plan.create, &plan.delete).await;
        if job.status.as_ref() != Some(&plan.status) {
            let mut changed = Job::clone(&job);
            changed.status = Some(plan.status);
            let api = self.owners.api::<Job>(&key);
            // At the version that was planned from: what was counted may not be counted over.
            let params = PostParams::default();
            let written = api.replace_status(&key.name, &params, &changed).await?;
            self.written.note(&written.metadata);
            for (severity, reason, message) in plan.events {
                match severity {
                    Severity::Normal => self.owners.normal(&job, reason, message),
                    Severity::Warning => self.owners.warning(&job, reason, message),
                }
            }
        }
        let freed = plan.strip.iter().map(|pod| self.free(&key, pod));
        let freed = futures::future::join_all(freed).await;
        changed.map_err(|failure| failure.error)?;
        freed.into_iter().collect::<Result<(), _>>()?;
        Ok(plan.wake.into_iter().chain(settled.err()).min())
    }

    /// Lets a pod go.
    async fn free(&self, key: &Key, pod: &Pod) -> Result<(), ReconcileError> {
        let patch = json!({
            "metadata": { "uid": pod.metadata.uid(), "$deleteFromPrimitiveList/finalizers": [TRACKING] },
        });
        let api = self.owners.api::<core::Pod>(key);
        let (params, patch) = (PatchParams::default(), Patch::Strategic(&patch));
        unless_gone(api.patch(pod.metadata.name(), &params, &patch).await)?;
        Ok(())
    }

    /// Nobody will count the pods of a Job that is gone.
    async fn free_orphans(&self, key: &Key) -> Result<(), ReconcileError> {
        let label = Index::Label(
            key.namespace.to_string(),
            JOB_NAME.to_owned(),
            key.name.to_string(),
        );
        let pods = self.context.informers.pods.by(&label);
        for pod in pods
            .iter()
            .filter(|pod| pod.metadata.has_finalizer(TRACKING))
        {
            self.free(key, pod).await?;
        }
        Ok(())
    }
}
