//! History of events per resource, and the watches that read it.
//!
//! 1. The writer appends a batch's events to the histories of their resources, then publishes the new
//!    index, then wakes the watches of those resources.
//! 2. A watch is a cursor. It reads the events between its cursor and the published revision, so it
//!    never runs ahead of what a snapshot shows, and then moves the cursor to that revision.
//! 3. There is no queue per watch: a slow watch holds nothing but its cursor. When compaction passes
//!    the cursor, and only if that removed events of this resource, the watch ends with
//!    [`StoreError::Compacted`].
//!
//! Invariant: events of a history are in order of position, and those at or before `dropped_through`
//! are gone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use super::{Entry, KeyRange, Revision, Snapshot, StoreError};

/// How many events a watch takes at a time.
const BATCH: usize = 512;

/// One change of one object.
#[derive(Debug)]
pub struct WatchEvent {
    /// The commit.
    pub revision: Revision,
    /// The object after the change; after a deletion, as it last was, with the deletion's revision.
    pub entry: Arc<Entry>,
    /// The object before the change; `None` when it was created.
    pub previous: Option<Arc<Entry>>,
    /// Whether the change removed the object.
    pub deleted: bool,
    pub(super) committed: Instant,
    /// What [`WatchEvent::encoded`] keeps.
    pub(super) encoded: OnceLock<Bytes>,
}

impl WatchEvent {
    /// The object in the one other encoding that watches ask for: made by the first that does, kept with
    /// the event for the others. `encode` must not depend on who asks.
    ///
    /// # Errors
    /// What `encode` says; nothing is kept then.
    pub fn encoded<E>(&self, encode: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        if let Some(bytes) = self.encoded.get() {
            return Ok(bytes.clone());
        }
        let bytes = encode()?;
        Ok(self.encoded.get_or_init(|| bytes).clone())
    }
}

#[derive(Debug, Default)]
struct Events {
    kept: VecDeque<Arc<WatchEvent>>,
    dropped_through: Revision,
}

/// The events of one resource.
#[derive(Debug)]
pub(super) struct ResourceHistory {
    events: RwLock<Events>,
    wake: watch::Sender<()>,
}

/// Histories of all resources.
#[derive(Debug)]
pub(super) struct Histories {
    by_resource: RwLock<HashMap<Box<str>, Arc<ResourceHistory>>>,
    /// What histories of resources without events count as dropped.
    start: Revision,
}

impl Histories {
    pub(super) fn new(start: Revision) -> Self {
        Self {
            by_resource: RwLock::default(),
            start,
        }
    }

    pub(super) fn of(&self, resource: &str) -> Arc<ResourceHistory> {
        let known = self
            .by_resource
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(history) = known.get(resource) {
            return Arc::clone(history);
        }
        drop(known);
        let mut all = self
            .by_resource
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let events = Events {
                dropped_through: self.start,
                ..Events::default()
            };
            Arc::new(ResourceHistory {
                events: RwLock::new(events),
                wake: watch::Sender::new(()),
            })
        };
        Arc::clone(all.entry(resource.into()).or_insert_with(new))
    }

    /// Removes events at or before `through`; calls `dropped` for each.
    pub(super) fn drop_through(&self, through: Revision, mut dropped: impl FnMut(&WatchEvent)) {
        let all = self
            .by_resource
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        for history in all.values() {
            let mut events = history
                .events
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            while let Some(event) = events.kept.pop_front_if(|event| event.revision <= through) {
                events.dropped_through = event.revision;
                dropped(&event);
            }
        }
    }

    /// The events that compaction would remove first, as (revision, commit time), oldest first.
    pub(super) fn timeline(&self) -> Vec<(Revision, Instant)> {
        let all = self
            .by_resource
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut timeline: Vec<_> = all
            .values()
            .flat_map(|history| {
                let events = history
                    .events
                    .read()
                    .unwrap_or_else(PoisonError::into_inner);
                let times = events
                    .kept
                    .iter()
                    .map(|event| (event.revision, event.committed));
                times.collect::<Vec<_>>()
            })
            .collect();
        timeline.sort_unstable();
        timeline
    }
}

impl ResourceHistory {
    pub(super) fn push(&self, event: Arc<WatchEvent>) {
        self.events
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .kept
            .push_back(event);
    }

    pub(super) fn wake(&self) {
        self.wake.send_replace(());
    }

    /// Whole commits after `from` up to `through`, about [`BATCH`] events; and where they end.
    fn read(&self, from: Revision, through: Revision) -> Result<Batch, StoreError> {
        let events = self.events.read().unwrap_or_else(PoisonError::into_inner);
        if events.dropped_through > from {
            let oldest = events.dropped_through;
            return Err(StoreError::Compacted {
                requested: from,
                oldest,
            });
        }
        let start = events.kept.partition_point(|event| event.revision <= from);
        let mut batch = Batch {
            events: Vec::new(),
            end: through,
        };
        for event in events
            .kept
            .range(start..)
            .take_while(|event| event.revision <= through)
        {
            let last = batch
                .events
                .last()
                .map(|last: &Arc<WatchEvent>| last.revision);
            if batch.events.len() >= BATCH && last != Some(event.revision) {
                batch.end = last.unwrap_or(through);
                break;
            }
            batch.events.push(Arc::clone(event));
        }
        Ok(batch)
    }
}

struct Batch {
    events: Vec<Arc<WatchEvent>>,
    end: Revision,
}

/// A reader of the events of one range, from some revision on.
#[derive(Debug)]
pub struct Watch {
    history: Arc<ResourceHistory>,
    published: Arc<ArcSwap<Snapshot>>,
    wake: watch::Receiver<()>,
    range: KeyRange,
    cursor: Revision,
}

impl Watch {
    pub(super) fn open(
        history: Arc<ResourceHistory>,
        published: Arc<ArcSwap<Snapshot>>,
        range: KeyRange,
        from: Revision,
    ) -> Result<Self, StoreError> {
        let wake = history.wake.subscribe();
        history.read(from, from)?;
        Ok(Self {
            history,
            published,
            wake,
            range,
            cursor: from,
        })
    }

    /// The next events, at least one. Cancel-safe: a dropped future loses no event.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when this watch fell behind the kept history; [`StoreError::Closed`]
    /// when the store is gone.
    pub async fn next(&mut self) -> Result<Vec<Arc<WatchEvent>>, StoreError> {
        loop {
            self.wake.borrow_and_update();
            let behind = self.cursor;
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            if self.cursor == behind || self.cursor == self.published.load().revision {
                self.wake.changed().await.map_err(|_| StoreError::Closed)?;
            }
        }
    }

    /// Events that are there already, perhaps none.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when this watch fell behind the kept history.
    pub fn ready(&mut self) -> Result<Vec<Arc<WatchEvent>>, StoreError> {
        let through = self.published.load().revision.max(self.cursor);
        let batch = self.history.read(self.cursor, through)?;
        self.cursor = batch.end;
        let mut events = batch.events;
        events.retain(|event| self.range.contains(&event.entry.key));
        Ok(events)
    }

    /// Goes on from what a snapshot of that revision shows, after [`StoreError::Compacted`].
    pub fn restart(&mut self, revision: Revision) {
        self.cursor = revision;
    }

    /// The revision up to which every event of the range has been handed out: what a bookmark says.
    #[must_use]
    pub fn progress(&self) -> Revision {
        self.cursor
    }
}
