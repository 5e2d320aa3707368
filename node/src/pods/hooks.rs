//! Lifecycle hooks: what a container is told after its start, and before its end.
//!
//! - `postStart` runs before the container counts as started; if it fails, the container is ended.
//! - `preStop` takes its time from the grace period; if it fails or takes too long, the container is ended all the same.
//!
//! An `httpGet` hook has been called once the pod answers, whatever it answers, as with kubelet.

use std::time::Duration;

use k8s_openapi::api::core::v1::LifecycleHandler;
use tokio::time::Instant;

use crate::events::{EventType, ObjectEvents};
use crate::probes::{self, Target};
use crate::runtime::exec;
use crate::status::reason::EventReason;

/// What a container has at least after its hook, whatever the hook took of the grace period.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// A container's `preStop`, not called yet.
pub(super) struct PreStop {
    pub(super) handler: LifecycleHandler,
    pub(super) target: Target,
    pub(super) events: ObjectEvents,
}

impl PreStop {
    /// Calls the hook and answers what is left of the grace period.
    pub(super) async fn call(self, grace: Duration) -> Duration {
        let begin = Instant::now();
        let called = tokio::time::timeout(grace, call(&self.handler, &self.target)).await;
        let failure = match called {
            Ok(Ok(())) => None,
            Ok(Err(message)) => Some(message),
            Err(_) => Some(format!("not done after {}s", grace.as_secs())),
        };
        if let Some(message) = failure {
            let name = &self.target.container.name;
            failed(&self.events, name, EventReason::FailedPreStopHook, &message);
        }
        grace.saturating_sub(begin.elapsed()).max(LEAST_GRACE)
    }
}

/// Calls a container's `postStart`. An error has been told to the user.
pub(super) async fn post_start(
    handler: &LifecycleHandler,
    target: &Target,
    events: &ObjectEvents,
) -> Result<(), ()> {
    call(handler, target).await.map_err(|message| {
        let name = &target.container.name;
        failed(events, name, EventReason::FailedPostStartHook, &message);
    })
}

/// The event says that a hook failed; why may hold secrets of the pod, and goes to the agent's own log.
fn failed(events: &ObjectEvents, container: &str, reason: EventReason, message: &str) {
    let hook = match reason {
        EventReason::FailedPostStartHook => "PostStartHook",
        _ => "PreStopHook",
    };
    tracing::info!(container, message, "{hook} failed");
    events.container(
        container,
        EventType::Warning,
        reason,
        format!("{hook} failed"),
    );
}

async fn call(handler: &LifecycleHandler, target: &Target) -> Result<(), String> {
    if let Some(action) = &handler.exec {
        let command = action.command.as_deref().unwrap_or_default();
        let ended = exec::collect(target.instance.as_ref(), command).await;
        let ended = ended.map_err(|error| error.to_string())?;
        return match ended.exit.exit_code {
            0 => Ok(()),
            code => Err(format!("exit code {code}: {}", ended.output)),
        };
    }
    if let Some(action) = &handler.http_get {
        return probes::http_get(target, action).await.map(|_status| ());
    }
    if let Some(action) = &handler.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    Err("it has no exec, httpGet or sleep".to_owned())
}
