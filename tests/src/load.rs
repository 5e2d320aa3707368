//! Requests without a pause, while something else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinHandle;

use crate::get;

/// Clients that ask again as soon as they have an answer.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Answers>>,
}

#[derive(Default)]
struct Answers {
    answered: usize,
    failed: Vec<String>,
}

impl Load {
    /// Has so many clients request a URL.
    #[must_use]
    pub fn on(url: &str, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |_| {
            let (url, stop) = (url.to_owned(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answers = Answers::default();
                while !stop.load(Ordering::Relaxed) {
                    match get(&url).await {
                        Ok((200, _)) => answers.answered += 1,
                        other => answers.failed.push(format!("{other:?}")),
                    }
                }
                answers
            })
        };
        let tasks = (0..clients).map(one).collect();
        Self { stop, tasks }
    }

    /// Stops, whatever was answered.
    ///
    /// # Panics
    /// When a client did.
    pub async fn stop(self) {
        self.end().await;
    }

    /// Stops.
    ///
    /// # Panics
    /// When a request failed, or a client got no answer at all.
    pub async fn none_failed(self) {
        for Answers { answered, failed } in self.end().await {
            assert!(answered > 0, "nothing was asked: {failed:?}");
            assert!(
                failed.is_empty(),
                "{} failed beside {answered}: {failed:?}",
                failed.len()
            );
        }
    }

    #[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    async fn end(self) -> Vec<Answers> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.push(task.await.unwrap());
        }
        all
    }
}
