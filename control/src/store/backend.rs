//! What the local store needs from a durable log.
//!
//! The log is the only durable form: an ordered map from [`Position`] to a change of one object.
//! Objects are not stored a second time; the index is rebuilt by reading the log in order. Compaction
//! removes entries that no reader can ask for any more: those superseded, and deletions, at or before
//! the compacted revision.

use thiserror::Error;

use super::{ObjectKey, Position, Revision};

/// One operation of one commit, as the log holds it.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its place.
    pub position: Position,
    /// The object.
    pub key: ObjectKey,
    /// The durable form of the record, or of a deletion, after the value transformers.
    pub value: Vec<u8>,
}

/// What a log knows besides its entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogHead {
    /// History up to and including this revision is gone.
    pub compacted: Revision,
}

/// Why a backend failed.
#[derive(Debug, Error)]
pub enum BackendError {
    /// Another process has the data directory open.
    #[error("{path} is in use by another windlass process")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file was written by a version of Windlass this one does not know.
    #[error("{path} has format {found}; this version reads format {known}")]
    Format {
        /// The file.
        path: String,
        /// Format number found.
        found: u64,
        /// Format number known.
        known: u64,
    },
    /// The file cannot be opened or read.
    #[error("open {path}: {reason}")]
    Open {
        /// The file.
        path: String,
        /// What the database said.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("{0}")]
    Io(String),
    /// A value cannot be opened or sealed: what the transformer said.
    #[error("{0}")]
    Sealed(String),
    /// An entry cannot be understood.
    #[error("entry {revision}.{operation} of the log is damaged: {reason}", revision = position.revision, operation = position.operation)]
    Damaged {
        /// The entry.
        position: Position,
        /// What is wrong with it.
        reason: String,
    },
}

/// A durable log. Called from the writer thread only, so it may block.
pub trait Backend: Send + 'static {
    /// Calls `visit` for every entry in order of position.
    ///
    /// # Errors
    /// When the log cannot be read, or `visit` fails.
    fn load(
        &mut self,
        visit: &mut dyn FnMut(LogEntry) -> Result<(), BackendError>,
    ) -> Result<(), BackendError>;

    /// What the log knows besides its entries.
    ///
    /// # Errors
    /// When the log cannot be read.
    fn head(&mut self) -> Result<LogHead, BackendError>;

    /// Appends `entries` in one transaction; durable when it returns.
    ///
    /// # Errors
    /// When nothing was written.
    fn append(&mut self, entries: &[LogEntry]) -> Result<(), BackendError>;

    /// Removes the entries at `obsolete` and notes that history through `through` is gone.
    ///
    /// # Errors
    /// When nothing was removed.
    fn compact(&mut self, through: Revision, obsolete: &[Position]) -> Result<(), BackendError>;
}
