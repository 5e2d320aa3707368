//! Jobs that have ended and are to live only so long after that.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::Context;
use super::runtime::clock;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::worker::{Outcome, unless_gone, work};

const NAME: &str = "ttl-after-finished-controller";
const WORKERS: usize = 2;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let jobs = &context.informers.jobs;
    jobs.synced().await;
    let changed = Arc::clone(&queue);
    let _jobs = jobs.subscribe(move |change| {
        if let Some(job) = change.new.filter(|job| due(job).is_some()) {
            changed.add(Key::of(&job.metadata));
        }
    });
    let stop = context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| expire(&context, key)).await;
}

async fn expire(context: &Context, key: Key) -> Outcome {
    let Some(job) = context.informers.jobs.get(&key) else {
        return Ok(None);
    };
    let Some(due) = due(&job) else {
        return Ok(None);
    };
    let left = clock::until(due, context.now());
    if left > Duration::ZERO {
        return Ok(Some(left));
    }
    // At the version that was looked at: its time may have been changed.
    let params = DeleteParams::foreground().preconditions(Preconditions {
        uid: Some(job.metadata.uid().to_owned()),
        resource_version: Some(job.metadata.version().to_owned()),
    });
    let api: Api<Job> = Api::namespaced(context.client.clone(), &key.namespace);
    unless_gone(api.delete(&key.name, &params).await)?;
    Ok(None)
}

/// When the Job is to go; `None` while it runs, or if it is to stay.
fn due(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.as_ref()?.ttl_seconds_after_finished?;
    if job.metadata.is_terminating() {
        return None;
    }
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let last = conditions
        .iter()
        .find(|of| matches!(&*of.type_, "Complete" | "Failed") && of.status == "True")?;
    Some(clock::after(
        last.last_transition_time.as_ref()?.0,
        seconds.into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_job_goes_so_long_after_it_ended() {
        let job = |ttl: Option<i32>, kind: &str| -> Job {
            serde_json::from_value(json!({
                "metadata": {"name": "j"},
                "spec": {"ttlSecondsAfterFinished": ttl, "template": {}},
                "status": {"conditions": [
                    {"type": kind, "status": "True", "lastTransitionTime": "1970-01-01T00:00:10Z"}]},
            }))
            .unwrap()
        };
        let at = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        assert_eq!(due(&job(Some(5), "Complete")), at(15));
        assert_eq!(due(&job(Some(0), "Failed")), at(10));
        assert_eq!(due(&job(Some(5), "FailureTarget")), None);
        assert_eq!(due(&job(None, "Complete")), None);
    }
}
