//! What every runtime promises, one function per promise, run against each implementation.
//!
//! The caller gives a way to start containers: a [`Subject`] starts one that runs until stopped, and one
//! that exits by itself.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::RunningContainer;

/// Starts containers of the runtime under test.
#[async_trait]
pub trait Subject: Sync {
    /// A container that runs until it is stopped, and obeys.
    async fn endless(&self) -> Arc<dyn RunningContainer>;

    /// A container that exits with this code: 0 or 1.
    async fn exiting(&self, exit_code: i32) -> Arc<dyn RunningContainer>;
}

/// Checks every promise.
///
/// # Panics
/// A promise is not kept.
pub async fn run(subject: &dyn Subject) {
    wait_answers_the_same_status_every_time(subject).await;
    stop_ends_a_container_and_returns_when_it_has_ended(subject).await;
    stop_without_grace_forces_the_end(subject).await;
    stop_of_an_ended_container_returns_at_once(subject).await;
    a_dropped_wait_loses_nothing(subject).await;
}

async fn wait_answers_the_same_status_every_time(subject: &dyn Subject) {
    for exit_code in [0, 1] {
        let container = subject.exiting(exit_code).await;
        let status = container.wait().await;
        assert_eq!(status.exit_code, exit_code);
        assert_eq!(container.wait().await, status);
    }
}

async fn stop_ends_a_container_and_returns_when_it_has_ended(subject: &dyn Subject) {
    let container = subject.endless().await;
    container.stop(Duration::from_secs(30)).await;
    container.wait().await;
}

async fn stop_without_grace_forces_the_end(subject: &dyn Subject) {
    let container = subject.endless().await;
    container.stop(Duration::ZERO).await;
    container.wait().await;
}

async fn stop_of_an_ended_container_returns_at_once(subject: &dyn Subject) {
    let container = subject.exiting(0).await;
    let status = container.wait().await;
    container.stop(Duration::from_secs(30)).await;
    assert_eq!(container.wait().await, status);
}

async fn a_dropped_wait_loses_nothing(subject: &dyn Subject) {
    let container = subject.endless().await;
    tokio::select! {
        biased;
        status = container.wait() => assert_eq!(status.exit_code, i32::MIN, "ended by itself"),
        () = tokio::task::yield_now() => {}
    }
    container.stop(Duration::ZERO).await;
    container.wait().await;
}
