//! The local store: the in-memory index over a durable log on this machine.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use imbl::OrdMap;
use tokio::sync::{mpsc, oneshot};

use super::backend::{Backend, BackendError};
use super::history::Histories;
use super::record::Record;
use super::snapshots::Snapshots;
use super::transform::Transform;
use super::writer::{Request, Shared, Writer, replay};
use super::{
    Change, Committed, Freshness, KeyRange, Operation, Retention, Revision, Snapshot, Store,
    StoreError, Watch,
};

/// Commits that may wait for the writer before `commit` waits too.
const QUEUE: usize = 4096;

/// A store over one [`Backend`].
#[derive(Debug)]
pub struct LocalStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl LocalStore {
    /// Reads the log of `backend` and starts the writer thread. Blocks while it reads.
    ///
    /// # Errors
    /// When the log cannot be read or an entry is damaged.
    pub fn open(
        mut backend: Box<dyn Backend>,
        transform: Box<dyn Transform>,
    ) -> Result<Self, BackendError> {
        let compacted = backend.head()?.compacted;
        let histories = Histories::new(compacted);
        let mut objects = OrdMap::new();
        let mut revision = compacted;
        backend.load(&mut |entry| {
            let damaged = |reason| BackendError::Damaged {
                position: entry.position,
                reason,
            };
            let value = transform
                .open(&entry.key, entry.value)
                .map_err(BackendError::Sealed)?;
            let record = Record::from_durable(&value).map_err(|e| damaged(e.to_string()))?;
            let change = record.map_or(Change::Delete, Change::Put);
            let event = replay(&mut objects, entry.key, change, entry.position);
            revision = revision.max(entry.position.revision);
            if entry.position.revision > compacted {
                histories
                    .of(event.entry.key.resource())
                    .push(Arc::new(event));
            }
            Ok(())
        })?;
        let snapshot = Snapshot {
            revision,
            objects: objects.clone(),
        };
        let published = Arc::new(ArcSwap::from_pointee(snapshot));
        let shared = Arc::new(Shared {
            published,
            histories,
            snapshots: Snapshots::default(),
        });
        let (requests, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            backend,
            transform,
            shared: Arc::clone(&shared),
            working: objects,
            revision,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(receiver))
            .map_err(|error| BackendError::Io(format!("start the writer thread: {error}")))?;
        Ok(Self {
            shared,
            requests,
            thread: Mutex::new(Some(thread)),
        })
    }

    async fn request<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    fn take_thread(&self) -> Option<std::thread::JoinHandle<()>> {
        self.thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn current(&self) -> Snapshot {
        Snapshot::clone(&self.shared.published.load())
    }
}

impl Drop for LocalStore {
    /// Waits for the writer to finish what it was given, so that the data file is closed afterwards.
    fn drop(&mut self) {
        let (closed, _) = mpsc::channel(1);
        self.requests = closed;
        if let Some(thread) = self.take_thread() {
            join(thread);
        }
    }
}

fn join(thread: std::thread::JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the store's writer thread panicked");
    }
}

#[async_trait]
impl Store for LocalStore {
    async fn commit(&self, operations: Vec<Operation>) -> Result<Committed, StoreError> {
        self.request(|reply| Request::Commit(operations, reply))
            .await
    }

    async fn snapshot(&self, freshness: Freshness) -> Result<Snapshot, StoreError> {
        // What is acknowledged is published, so the current index answers every freshness there is.
        let current = self.current();
        match freshness {
            Freshness::AtLeast(requested) if requested > current.revision => {
                Err(StoreError::TooLarge {
                    requested,
                    current: current.revision,
                })
            }
            _ => Ok(current),
        }
    }

    async fn snapshot_at(&self, revision: Revision) -> Result<Snapshot, StoreError> {
        let current = self.current();
        match revision.cmp(&current.revision) {
            std::cmp::Ordering::Equal => Ok(current),
            std::cmp::Ordering::Greater => Err(StoreError::TooLarge {
                requested: revision,
                current: current.revision,
            }),
            std::cmp::Ordering::Less => {
                self.shared
                    .snapshots
                    .get(revision)
                    .ok_or_else(|| StoreError::Compacted {
                        requested: revision,
                        oldest: self.shared.snapshots.oldest().unwrap_or(current.revision),
                    })
            }
        }
    }

    fn keep(&self, snapshot: &Snapshot) {
        self.shared.snapshots.keep(snapshot);
    }

    async fn watch(&self, range: KeyRange, from: Revision) -> Result<Watch, StoreError> {
        let current = self.shared.published.load().revision;
        if from > current {
            return Err(StoreError::TooLarge {
                requested: from,
                current,
            });
        }
        let history = self.shared.histories.of(range.resource_name());
        Watch::open(history, Arc::clone(&self.shared.published), range, from)
    }

    async fn compact(&self, retention: Retention) -> Result<Revision, StoreError> {
        self.request(|reply| Request::Compact(retention, reply))
            .await
    }

    async fn close(&self) {
        let Some(thread) = self.take_thread() else {
            return;
        };
        // A writer that is gone already takes no requests either.
        let _ = self.requests.send(Request::Close).await;
        let joined = tokio::task::spawn_blocking(move || join(thread)).await;
        if let Err(error) = joined {
            tracing::error!(%error, "wait for the store's writer thread");
        }
    }
}
