//! Writes a data file anew, so that every value in it is sealed as new ones are.
//!
//! Into a second file, which takes the first one's name at the end: killed at any point, one whole file is there; and
//! what was written in the clear is not left in freed pages.

use std::path::Path;

use super::backend::{Backend, BackendError, LogEntry};
use super::encryption::Encryption;
use super::redb::RedbBackend;
use super::transform::Transform;

/// Entries appended in one transaction.
const BATCH: usize = 1024;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewritten {
    /// Values in the file, history included.
    pub all: usize,
    /// Those that were sealed anew.
    pub changed: usize,
}

/// Seals the values of the data file at `path` as `encryption` seals new ones. Blocks.
///
/// # Errors
/// When the file is in use, or a value cannot be read with the keys there are; then nothing has changed.
pub fn rewrite(path: &Path, encryption: &Encryption) -> Result<Rewritten, BackendError> {
    let mut old = RedbBackend::open(path)?;
    let io = |what: &str, error: std::io::Error| {
        BackendError::Io(format!("{what} {}: {error}", path.display()))
    };
    let next = path.with_extension("redb.new");
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(io("remove what is left of an earlier attempt at", error));
        }
        _ => {}
    }
    let written = copy(&mut old, &next, encryption);
    if written.is_err() {
        // The reason is worth more than whether this works.
        let _ = std::fs::remove_file(&next);
    }
    let written = written?;
    std::fs::rename(&next, path).map_err(|error| io("replace", error))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let synced = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| io("sync the directory of", error))?;
    Ok(written)
}

fn copy(
    old: &mut RedbBackend,
    next: &Path,
    encryption: &Encryption,
) -> Result<Rewritten, BackendError> {
    let mut new = RedbBackend::open(next)?;
    let (mut written, mut batch) = (Rewritten::default(), Vec::with_capacity(BATCH));
    old.load(&mut |entry| {
        written.all += 1;
        let mut value = entry.value;
        if encryption.is_stale(&entry.key, &value) {
            written.changed += 1;
            let plain = encryption.open(&entry.key, value);
            let sealed = plain.and_then(|plain| encryption.seal(&entry.key, plain));
            value = sealed.map_err(BackendError::Sealed)?;
        }
        batch.push(LogEntry { value, ..entry });
        if batch.len() < BATCH {
            return Ok(());
        }
        new.append(&std::mem::take(&mut batch))
    })?;
    new.append(&batch)?;
    new.compact(old.head()?.compacted, &[])?;
    Ok(written)
}
