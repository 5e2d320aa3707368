//! The store: durable objects with revisions, snapshots and replayable watches.
//!
//! ```text
//! commit ──> writer thread: check preconditions against the index plus this batch's own writes
//!              └─> Backend::append, one durable transaction for all waiting commits   (durable)
//!              └─> histories, then the new index, then wake-ups                       (published)
//!              └─> answers                                                           (acknowledged)
//! get, list ─> the published index: a persistent map, read without a lock
//! watch ─────> the history of one resource from any kept revision, then live
//! ```
//!
//! # Promises
//!
//! Every implementation of [`Store`] keeps these; `suite.rs` holds a test for each.
//!
//! 1. A commit is atomic: all of its operations take effect at one revision, or none does.
//! 2. Revisions are one global sequence of integers from 1, one per commit, never reused, also after a
//!    restart or a compaction.
//! 3. An acknowledged commit survives the death of the process.
//! 4. What a commit acknowledged, every later read and watch sees.
//! 5. A failed precondition answers with the current object, and that object is durable.
//! 6. A snapshot never changes; it holds all commits up to its revision and none after.
//! 7. A watch delivers every event of its range after its starting revision, in order, once; an event
//!    carries the labels and fields of the object before and after.
//! 8. A watch whose history is gone says so ([`StoreError::Compacted`]) instead of leaving a gap.
//! 9. A slow watch costs no other watch anything.
//!
//! `redb.rs` and `memory.rs` are the backends; `local.rs` is the index over either.

pub mod backend;
pub mod encryption;
pub mod history;
pub mod index;
pub mod key;
pub mod local;
pub mod memory;
pub mod record;
pub mod redb;
pub mod rewrite;
pub mod snapshots;
#[cfg(test)]
mod suite;
pub mod transform;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

pub use history::{Watch, WatchEvent};
pub use index::Snapshot;
pub use key::{KeyRange, ObjectKey};
pub use record::{Pairs, Record};

/// The number of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stored object at one revision.
#[derive(Debug)]
pub struct Entry {
    /// Where it lives.
    pub key: ObjectKey,
    /// The commit that wrote it.
    pub revision: Revision,
    /// The object as JSON, resourceVersion included: what clients are sent.
    pub bytes: Bytes,
    /// `metadata.labels`.
    pub labels: Pairs,
    /// Selectable fields.
    pub fields: Pairs,
    hole: u32,
    position: Position,
}

/// The place of an operation in the log: its revision and its index within the commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The commit.
    pub revision: Revision,
    /// Index of the operation within the commit.
    pub operation: u32,
}

impl Entry {
    /// An object that is not stored, in the form of those that are: as if written at `revision`.
    #[must_use]
    pub fn computed(key: ObjectKey, revision: Revision, record: Record) -> Self {
        let position = Position {
            revision,
            operation: 0,
        };
        Self::new(key, position, record)
    }

    fn new(key: ObjectKey, position: Position, record: Record) -> Self {
        let bytes = record.splice(position.revision);
        let Record {
            hole,
            labels,
            fields,
            ..
        } = record;
        Self {
            key,
            revision: position.revision,
            bytes,
            labels,
            fields,
            hole,
            position,
        }
    }

    /// The bytes as they were, with the revision at which the object was deleted.
    #[must_use]
    pub fn bytes_at(&self, revision: Revision) -> Bytes {
        let digits = u32::try_from(self.revision.to_string().len()).unwrap_or_default();
        record::splice(&self.bytes, self.hole, self.hole + digits, revision)
    }
}

/// What must hold for an operation to take effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Any,
    /// No object lives under the key.
    Absent,
    /// The object was last written at this revision.
    At(Revision),
}

/// One step of a commit.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The object.
    pub key: ObjectKey,
    /// What must hold.
    pub precondition: Precondition,
    /// What happens to it.
    pub change: Change,
}

/// What an operation does to its object.
#[derive(Clone, Debug)]
pub enum Change {
    /// Writes the object.
    Put(Record),
    /// Removes the object; fails its precondition if there is none.
    Delete,
}

/// An acknowledged commit.
#[derive(Debug)]
pub struct Committed {
    /// The commit's number.
    pub revision: Revision,
    /// What each operation left behind: the object written, or the object removed, with the revision
    /// of the commit in its bytes.
    pub entries: Vec<Arc<Entry>>,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever is at hand.
    Any,
    /// As of this revision or later.
    AtLeast(Revision),
    /// Everything acknowledged before the read began.
    Latest,
}

/// Why the store did not do what was asked.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A precondition did not hold; nothing of the commit took effect.
    #[error("precondition failed for {key}")]
    PreconditionFailed {
        /// The object concerned.
        key: ObjectKey,
        /// What lives there, if anything.
        current: Option<Arc<Entry>>,
    },
    /// History or snapshot of this age is no longer kept.
    #[error("revision {requested} is older than {oldest}, the oldest kept")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision still available.
        oldest: Revision,
    },
    /// The revision lies in the future.
    #[error("revision {requested} is newer than {current}, the newest")]
    TooLarge {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The backend failed; the commit may be retried.
    #[error("write to the data file: {0}")]
    Backend(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// How much history a store keeps.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Events older than this may go.
    pub age: Duration,
    /// At most this many events are kept, whatever their age.
    pub events: usize,
}

impl Default for Retention {
    fn default() -> Self {
        // Five minutes is what clients of etcd-backed servers are used to.
        Self {
            age: Duration::from_secs(300),
            events: 100_000,
        }
    }
}

/// Durable objects with revisions. The promises are in the module's documentation.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits `operations` atomically; returns once the commit is durable and published.
    ///
    /// Dropping the future does not undo the commit: it may or may not take effect.
    ///
    /// # Errors
    /// [`StoreError::PreconditionFailed`] for the first operation whose precondition does not hold.
    async fn commit(&self, operations: Vec<Operation>) -> Result<Committed, StoreError>;

    /// Everything as of now.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when `freshness` asks for a revision that does not exist yet.
    async fn snapshot(&self, freshness: Freshness) -> Result<Snapshot, StoreError>;

    /// A snapshot kept with [`Store::keep`], or the current one if it is of that revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when it is no longer kept, [`StoreError::TooLarge`] for the future.
    async fn snapshot_at(&self, revision: Revision) -> Result<Snapshot, StoreError>;

    /// Keeps `snapshot` for later pages; the store bounds how many and for how long.
    fn keep(&self, snapshot: &Snapshot);

    /// Events of `range` after `from`.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when events after `from` are gone.
    async fn watch(&self, range: KeyRange, from: Revision) -> Result<Watch, StoreError>;

    /// Drops history beyond `retention`; returns the oldest revision a watch may still start from.
    ///
    /// # Errors
    /// When the backend fails.
    async fn compact(&self, retention: Retention) -> Result<Revision, StoreError>;

    /// Carries out what was asked for and closes the data. Commits from then on are [`StoreError::Closed`]; reads
    /// go on.
    async fn close(&self);
}
