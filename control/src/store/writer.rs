//! The writer thread: group commit.
//!
//! 1. Take every waiting request, up to a bound.
//! 2. Stage each commit in turn: check its preconditions against the working index, which holds the
//!    batch's earlier commits too, then apply it there.
//! 3. Append everything staged in one durable transaction. If that fails, the working index goes back
//!    to what is published and every request of the batch gets the error.
//! 4. Publish: histories, then the index, then wake-ups.
//! 5. Answer, failed preconditions included: what they tell about is durable by now.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use imbl::OrdMap;
use tokio::sync::{mpsc, oneshot};

use super::backend::{Backend, LogEntry};
use super::history::{Histories, WatchEvent};
use super::record::DURABLE_DELETE;
use super::snapshots::Snapshots;
use super::transform::Transform;
use super::{
    Change, Committed, Entry, ObjectKey, Operation, Position, Precondition, Retention, Revision,
    Snapshot, StoreError,
};

/// Commits of one transaction at the most; more would only delay the first of them.
const MAX_BATCH: usize = 1024;

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked to do.
pub(super) enum Request {
    Commit(Vec<Operation>, Reply<Committed>),
    Compact(Retention, Reply<Revision>),
    /// Take no more requests than those that wait already.
    Close,
}

/// What the writer shares with readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) published: Arc<ArcSwap<Snapshot>>,
    pub(super) histories: Histories,
    pub(super) snapshots: Snapshots,
}

pub(super) struct Writer {
    pub(super) backend: Box<dyn Backend>,
    pub(super) transform: Box<dyn Transform>,
    pub(super) shared: Arc<Shared>,
    pub(super) working: OrdMap<ObjectKey, Arc<Entry>>,
    pub(super) revision: Revision,
}

/// A batch between staging and answering.
#[derive(Default)]
struct Batch {
    log: Vec<LogEntry>,
    events: Vec<Arc<WatchEvent>>,
    answers: Vec<(Reply<Committed>, Result<Committed, StoreError>)>,
    compactions: Vec<(Retention, Reply<Revision>)>,
    closes: bool,
}

impl Writer {
    /// Serves requests until it is closed or every sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut batch = Batch::default();
            self.stage(first, &mut batch);
            while batch.answers.len() < MAX_BATCH {
                let Ok(next) = requests.try_recv() else { break };
                self.stage(next, &mut batch);
            }
            if batch.closes {
                requests.close();
            }
            self.finish(batch);
        }
    }

    fn stage(&mut self, request: Request, batch: &mut Batch) {
        match request {
            Request::Commit(operations, reply) => {
                let answer = self.stage_commit(operations, batch);
                batch.answers.push((reply, answer));
            }
            Request::Compact(retention, reply) => batch.compactions.push((retention, reply)),
            Request::Close => batch.closes = true,
        }
    }

    fn stage_commit(
        &mut self,
        operations: Vec<Operation>,
        batch: &mut Batch,
    ) -> Result<Committed, StoreError> {
        for operation in &operations {
            check(operation, self.working.get(&operation.key))?;
        }
        // Before anything is applied, as this may fail.
        let values: Result<Vec<_>, _> = operations.iter().map(|of| self.seal(of)).collect();
        let values = values.map_err(StoreError::Backend)?;
        let revision = Revision(self.revision.0 + 1);
        let mut entries = Vec::with_capacity(operations.len());
        for ((operation, value), index) in operations.into_iter().zip(values).zip(0..) {
            let position = Position {
                revision,
                operation: index,
            };
            batch.log.push(LogEntry {
                position,
                key: operation.key.clone(),
                value,
            });
            let event = replay(&mut self.working, operation.key, operation.change, position);
            let event = Arc::new(event);
            entries.push(Arc::clone(&event.entry));
            batch.events.push(event);
        }
        self.revision = revision;
        Ok(Committed { revision, entries })
    }

    /// The durable form of what the operation leaves behind.
    fn seal(&self, operation: &Operation) -> Result<Vec<u8>, String> {
        let value = match &operation.change {
            Change::Put(record) => record.to_durable(),
            Change::Delete => DURABLE_DELETE.to_vec(),
        };
        self.transform.seal(&operation.key, value)
    }

    fn finish(&mut self, batch: Batch) {
        let Batch {
            log,
            events,
            answers,
            compactions,
            ..
        } = batch;
        let written = if log.is_empty() {
            Ok(())
        } else {
            self.backend.append(&log)
        };
        if let Err(error) = written {
            let published = self.shared.published.load();
            self.working = published.objects.clone();
            self.revision = published.revision;
            let reason = error.to_string();
            for (reply, _) in answers {
                // A requester that is gone needs no answer, here and below.
                let _ = reply.send(Err(StoreError::Backend(reason.clone())));
            }
        } else {
            self.publish(events);
            for (reply, answer) in answers {
                let _ = reply.send(answer);
            }
        }
        for (retention, reply) in compactions {
            let _ = reply.send(self.compact(retention));
        }
    }

    fn publish(&self, events: Vec<Arc<WatchEvent>>) {
        if events.is_empty() {
            return;
        }
        let mut touched: Vec<(String, Arc<super::history::ResourceHistory>)> = Vec::new();
        for event in events {
            let resource = event.entry.key.resource();
            let known = touched.iter().find(|(name, _)| name == resource);
            if let Some((_, history)) = known {
                history.push(event);
            } else {
                let history = self.shared.histories.of(resource);
                let name = resource.to_owned();
                history.push(event);
                touched.push((name, history));
            }
        }
        let snapshot = Snapshot {
            revision: self.revision,
            objects: self.working.clone(),
        };
        self.shared.published.store(Arc::new(snapshot));
        for (_, history) in touched {
            history.wake();
        }
    }

    fn compact(&mut self, retention: Retention) -> Result<Revision, StoreError> {
        let timeline = self.shared.histories.timeline();
        let excess = timeline.len().saturating_sub(retention.events);
        let now = Instant::now();
        let through = timeline
            .iter()
            .enumerate()
            .take_while(|(at, (_, time))| {
                *at < excess || now.duration_since(*time) >= retention.age
            })
            .last()
            .map(|(_, (revision, _))| *revision);
        let Some(through) = through else {
            let oldest = self.backend.head().map(|head| head.compacted);
            return oldest.map_err(|error| StoreError::Backend(error.to_string()));
        };
        let mut obsolete = Vec::new();
        self.shared.histories.drop_through(through, |event| {
            obsolete.extend(event.previous.as_ref().map(|previous| previous.position));
            obsolete.extend(event.deleted.then_some(event.entry.position));
        });
        self.shared.snapshots.expire(through);
        let compacted = self.backend.compact(through, &obsolete);
        compacted.map_err(|error| StoreError::Backend(error.to_string()))?;
        Ok(through)
    }
}

fn check(operation: &Operation, current: Option<&Arc<Entry>>) -> Result<(), StoreError> {
    let holds = match (&operation.precondition, current) {
        (Precondition::Any, None) => !matches!(operation.change, Change::Delete),
        (Precondition::Any, Some(_)) | (Precondition::Absent, None) => true,
        (Precondition::Absent, Some(_)) | (Precondition::At(_), None) => false,
        (Precondition::At(revision), Some(entry)) => entry.revision == *revision,
    };
    if holds {
        return Ok(());
    }
    Err(StoreError::PreconditionFailed {
        key: operation.key.clone(),
        current: current.map(Arc::clone),
    })
}

/// Applies a change to the index and says what happened; used by commits and by recovery alike.
pub(super) fn replay(
    objects: &mut OrdMap<ObjectKey, Arc<Entry>>,
    key: ObjectKey,
    change: Change,
    position: Position,
) -> WatchEvent {
    let revision = position.revision;
    let committed = Instant::now();
    match change {
        Change::Put(record) => {
            let entry = Arc::new(Entry::new(key.clone(), position, record));
            let previous = objects.insert(key, Arc::clone(&entry));
            WatchEvent {
                revision,
                entry,
                previous,
                deleted: false,
                committed,
                encoded: OnceLock::new(),
            }
        }
        Change::Delete => {
            let previous = objects.remove(&key);
            let entry = Arc::new(tombstone(key, position, previous.as_deref()));
            WatchEvent {
                revision,
                entry,
                previous,
                deleted: true,
                committed,
                encoded: OnceLock::new(),
            }
        }
    }
}

/// The entry a DELETED event carries: the last object with the revision of its deletion.
fn tombstone(key: ObjectKey, position: Position, last: Option<&Entry>) -> Entry {
    let revision = position.revision;
    match last {
        Some(last) => Entry {
            key,
            revision,
            bytes: last.bytes_at(revision),
            labels: last.labels.clone(),
            fields: last.fields.clone(),
            hole: last.hole,
            position,
        },
        // Preconditions forbid deleting what is not there.
        None => Entry {
            key,
            revision,
            bytes: bytes::Bytes::new(),
            labels: super::Pairs::default(),
            fields: super::Pairs::default(),
            hole: 0,
            position,
        },
    }
}
