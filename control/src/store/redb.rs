//! The default backend: one redb file.
//!
//! Two tables. `log` maps (revision, operation) to `key length u32 | key | value`; `head` maps a name
//! to a number: the format and the compacted revision. An append is one transaction with immediate
//! durability. redb locks the file, so one process at a time has it open.

use std::fs::{File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ::redb::backends::FileBackend;
use ::redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::backend::{Backend, BackendError, LogEntry, LogHead};
use super::{ObjectKey, Position, Revision};

const LOG: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("log");
const HEAD: TableDefinition<'_, &str, u64> = TableDefinition::new("head");
const FORMAT: u64 = 1;

/// A log in a redb file.
#[derive(Debug)]
pub struct RedbBackend {
    database: Database,
    path: PathBuf,
}

impl RedbBackend {
    /// Opens the file at `path`, creating it if there is none.
    ///
    /// # Errors
    /// [`BackendError::InUse`] while another process has it open; [`BackendError::Format`] for a file
    /// of another version; [`BackendError::Open`] for anything else.
    pub fn open(path: &Path) -> Result<Self, BackendError> {
        let shown = path.display().to_string();
        let file = private_file(path).map_err(|error| BackendError::Open {
            path: shown.clone(),
            reason: error.to_string(),
        })?;
        // The cache is small because reads come from the index: redb only sees appends.
        let database = FileBackend::new(file)
            .and_then(|file| {
                Database::builder()
                    .set_cache_size(8 << 20)
                    .create_with_backend(file)
            })
            .map_err(|error| match error {
                DatabaseError::DatabaseAlreadyOpen => BackendError::InUse {
                    path: shown.clone(),
                },
                other => BackendError::Open {
                    path: shown.clone(),
                    reason: other.to_string(),
                },
            })?;
        let backend = Self {
            database,
            path: path.to_owned(),
        };
        backend.check_format()?;
        Ok(backend)
    }

    fn check_format(&self) -> Result<(), BackendError> {
        let transaction = self.database.begin_write().map_err(io)?;
        {
            let _log = transaction.open_table(LOG).map_err(io)?;
            let mut head = transaction.open_table(HEAD).map_err(io)?;
            let found = head.get("format").map_err(io)?.map(|found| found.value());
            match found {
                Some(FORMAT) => {}
                Some(found) => {
                    let path = self.path.display().to_string();
                    return Err(BackendError::Format {
                        path,
                        found,
                        known: FORMAT,
                    });
                }
                None => drop(head.insert("format", FORMAT).map_err(io)?),
            }
        }
        transaction.commit().map_err(io)
    }
}

/// The file, made if it is not there, and its owner's alone.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn io(error: impl std::fmt::Display) -> BackendError {
    BackendError::Io(error.to_string())
}

impl Backend for RedbBackend {
    fn load(
        &mut self,
        visit: &mut dyn FnMut(LogEntry) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        let transaction = self.database.begin_read().map_err(io)?;
        let log = transaction.open_table(LOG).map_err(io)?;
        for row in log.range::<(u64, u32)>(..).map_err(io)? {
            let (position, stored) = row.map_err(io)?;
            let (revision, operation) = position.value();
            let position = Position {
                revision: Revision(revision),
                operation,
            };
            let (key, value) = split(stored.value()).ok_or_else(|| BackendError::Damaged {
                position,
                reason: "bad key".into(),
            })?;
            visit(LogEntry {
                position,
                key,
                value: value.to_vec(),
            })?;
        }
        Ok(())
    }

    fn head(&mut self) -> Result<LogHead, BackendError> {
        let transaction = self.database.begin_read().map_err(io)?;
        let head = transaction.open_table(HEAD).map_err(io)?;
        let compacted = head
            .get("compacted")
            .map_err(io)?
            .map_or(0, |value| value.value());
        Ok(LogHead {
            compacted: Revision(compacted),
        })
    }

    fn append(&mut self, entries: &[LogEntry]) -> Result<(), BackendError> {
        let transaction = self.database.begin_write().map_err(io)?;
        {
            let mut log = transaction.open_table(LOG).map_err(io)?;
            let mut stored = Vec::new();
            for entry in entries {
                join(&mut stored, &entry.key, &entry.value);
                let position = (entry.position.revision.0, entry.position.operation);
                log.insert(position, stored.as_slice()).map_err(io)?;
            }
        }
        transaction.commit().map_err(io)
    }

    fn compact(&mut self, through: Revision, obsolete: &[Position]) -> Result<(), BackendError> {
        let transaction = self.database.begin_write().map_err(io)?;
        {
            let mut log = transaction.open_table(LOG).map_err(io)?;
            for position in obsolete {
                log.remove((position.revision.0, position.operation))
                    .map_err(io)?;
            }
            let mut head = transaction.open_table(HEAD).map_err(io)?;
            head.insert("compacted", through.0).map_err(io)?;
        }
        transaction.commit().map_err(io)
    }
}

fn join(stored: &mut Vec<u8>, key: &ObjectKey, value: &[u8]) {
    let key = key.as_str().as_bytes();
    stored.clear();
    stored.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    stored.extend_from_slice(key);
    stored.extend_from_slice(value);
}

fn split(stored: &[u8]) -> Option<(ObjectKey, &[u8])> {
    let (len, rest) = stored.split_first_chunk::<4>()?;
    let (key, value) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((ObjectKey::parse(std::str::from_utf8(key).ok()?)?, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_open_of_one_file_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        let _first = RedbBackend::open(&path).unwrap();
        let error = RedbBackend::open(&path).unwrap_err();
        assert!(matches!(error, BackendError::InUse { .. }), "{error}");
    }

    #[test]
    fn the_file_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        std::fs::write(&path, []).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        drop(RedbBackend::open(&path).unwrap());
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_database_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.redb");
        std::fs::write(&path, [7; 8192]).unwrap();
        assert!(matches!(
            RedbBackend::open(&path),
            Err(BackendError::Open { .. })
        ));
    }
}
