//! Events on their way to where they are kept.
//!
//! A queue has one writer, which takes what has come meanwhile as one batch. Its [`Mode`] says what happens when that
//! is slower than the requests: whether they wait, or events are dropped, and counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::log_file::LogFile;
use crate::outbound::Outbound;

/// How often a batch is sent to a webhook that does not take it.
const ATTEMPTS: u32 = 5;

/// What happens when events come faster than they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Events wait in a buffer; when it is full they are dropped.
    Batch,
    /// A request waits until its event is kept.
    Blocking,
    /// And is refused if that fails before it was carried out.
    BlockingStrict,
}

/// When a batch is full.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// Events that wait at most.
    pub buffer: usize,
    /// Events of a batch at most.
    pub max_size: usize,
    /// How long a batch that is not full waits for more events.
    pub max_wait: Duration,
}

/// Where events are kept.
#[derive(Debug)]
pub(super) enum Sink {
    /// `None` while it is written to.
    File(Option<LogFile>),
    Webhook(Box<Webhook>),
}

/// A server that is sent events.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) client: Outbound,
    pub(super) url: String,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// The wait before the second attempt; each later one is half as long again.
    pub(super) backoff: Duration,
}

/// An event, and who waits for it.
struct Item {
    event: Bytes,
    kept: Option<oneshot::Sender<Result<(), String>>>,
}

/// The way to one sink.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) name: &'static str,
    pub(super) mode: Mode,
    items: mpsc::Sender<Item>,
    counts: Arc<Counts>,
}

/// What became of events.
#[derive(Debug, Default)]
struct Counts {
    events: AtomicU64,
    lost: AtomicU64,
}

/// The other end of a queue.
#[derive(Debug)]
pub(super) struct Writer {
    name: &'static str,
    items: mpsc::Receiver<Item>,
    sink: Sink,
    batches: BatchOptions,
    counts: Arc<Counts>,
}

/// A queue and its writer, which has to run.
pub(super) fn queue(
    name: &'static str,
    sink: Sink,
    mode: Mode,
    batches: BatchOptions,
) -> (Queue, Writer) {
    let (sender, items) = mpsc::channel(batches.buffer.max(1));
    let counts = Arc::<Counts>::default();
    let queue = Queue {
        name,
        mode,
        items: sender,
        counts: Arc::clone(&counts),
    };
    let writer = Writer {
        name,
        items,
        sink,
        batches,
        counts,
    };
    (queue, writer)
}

impl Queue {
    /// How many events came, and how many of them were lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        (count(&self.counts.events), count(&self.counts.lost))
    }

    /// Sends an event on its way; returns once it is kept if requests wait for that.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) async fn send(&self, event: Bytes) -> Result<(), String> {
        self.counts.events.fetch_add(1, Ordering::Relaxed);
        let sent = match self.mode {
            Mode::Batch => {
                let sent = self.items.try_send(Item { event, kept: None });
                sent.map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => "the buffer is full".to_owned(),
                    mpsc::error::TrySendError::Closed(_) => "the server stops".to_owned(),
                })
            }
            Mode::Blocking | Mode::BlockingStrict => self.send_and_wait(event).await,
        };
        if let Err(error) = &sent {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!(backend = self.name, error, "an audit event is lost");
        }
        sent
    }

    async fn send_and_wait(&self, event: Bytes) -> Result<(), String> {
        let (kept, answer) = oneshot::channel();
        let item = Item {
            event,
            kept: Some(kept),
        };
        let stops = |_| "the server stops".to_owned();
        self.items.send(item).await.map_err(|_| stops(()))?;
        answer.await.map_err(|_| stops(()))?
    }
}

impl Writer {
    /// Writes until `stop`, and then what has come until then.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            let received = tokio::select! {
                received = self.items.recv_many(&mut batch, self.batches.max_size) => received,
                () = stop.cancelled(), if !self.items.is_closed() => {
                    self.items.close();
                    continue;
                }
            };
            if received == 0 {
                return;
            }
            let filled = stop.run_until_cancelled(self.fill(&mut batch)).await;
            if filled.is_none() {
                self.items.close();
            }
            let events: Vec<Bytes> = batch.iter().map(|item| item.event.clone()).collect();
            let kept = self.keep(events).await;
            if let Err(error) = &kept {
                tracing::error!(backend = self.name, error, "audit events are not kept");
            }
            for item in batch.drain(..) {
                match item.kept {
                    // Whoever waits counts it.
                    Some(waiting) => drop(waiting.send(kept.clone())),
                    None if kept.is_err() => {
                        self.counts.lost.fetch_add(1, Ordering::Relaxed);
                    }
                    None => {}
                }
            }
        }
    }

    /// Waits for more events, unless somebody waits for these.
    async fn fill(&mut self, batch: &mut Vec<Item>) {
        let wait = tokio::time::sleep(self.batches.max_wait);
        tokio::pin!(wait);
        while batch.len() < self.batches.max_size && batch.iter().all(|item| item.kept.is_none()) {
            let room = self.batches.max_size - batch.len();
            tokio::select! {
                () = &mut wait => return,
                more = self.items.recv_many(batch, room) => if more == 0 { return },
            }
        }
    }

    async fn keep(&mut self, events: Vec<Bytes>) -> Result<(), String> {
        match &mut self.sink {
            Sink::File(slot) => {
                let Some(mut file) = slot.take() else {
                    return Err("the file was lost by a fault".into());
                };
                let mut lines = Vec::with_capacity(events.iter().map(|of| of.len() + 1).sum());
                for event in events {
                    lines.extend_from_slice(&event);
                    lines.push(b'\n');
                }
                let write = move || {
                    let written = file.write(&lines);
                    (file, written)
                };
                let written = tokio::task::spawn_blocking(write).await;
                let (file, written) = written.map_err(|error| error.to_string())?;
                *slot = Some(file);
                written.map_err(|error| error.to_string())
            }
            Sink::Webhook(webhook) => webhook.post(list(&events)).await,
        }
    }
}

/// An EventList of events.
fn list(events: &[Bytes]) -> Bytes {
    let head: &[u8] =
        br#"{"kind":"EventList","apiVersion":"audit.k8s.io/v1","metadata":{},"items":["#;
    let mut list = head.to_vec();
    for (at, event) in events.iter().enumerate() {
        if at > 0 {
            list.push(b',');
        }
        list.extend_from_slice(event);
    }
    list.extend_from_slice(b"]}");
    list.into()
}

impl Webhook {
    async fn post(&self, body: Bytes) -> Result<(), String> {
        let json = (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let headers: Vec<_> = self.headers.iter().cloned().chain([json]).collect();
        let (mut attempt, mut backoff) = (1, self.backoff);
        loop {
            let sent = self
                .client
                .send(Method::POST, &self.url, &headers, body.clone());
            match sent.await {
                Ok(_) => return Ok(()),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(error) => tracing::debug!(error, attempt, "send audit events again"),
            }
            attempt += 1;
            tokio::time::sleep(backoff).await;
            backoff = backoff * 3 / 2;
        }
    }
}
