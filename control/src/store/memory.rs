//! A backend that forgets everything with the process: for tests and for embedders that want it.

use std::collections::BTreeMap;

use super::backend::{Backend, BackendError, LogEntry, LogHead};
use super::{ObjectKey, Position, Revision};

/// The log as a map.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    log: BTreeMap<Position, (ObjectKey, Vec<u8>)>,
    head: LogHead,
}

impl Backend for MemoryBackend {
    fn load(
        &mut self,
        visit: &mut dyn FnMut(LogEntry) -> Result<(), BackendError>,
    ) -> Result<(), BackendError> {
        self.log.iter().try_for_each(|(position, (key, value))| {
            visit(LogEntry {
                position: *position,
                key: key.clone(),
                value: value.clone(),
            })
        })
    }

    fn head(&mut self) -> Result<LogHead, BackendError> {
        Ok(self.head)
    }

    fn append(&mut self, entries: &[LogEntry]) -> Result<(), BackendError> {
        let entries = entries.iter().cloned();
        self.log
            .extend(entries.map(|entry| (entry.position, (entry.key, entry.value))));
        Ok(())
    }

    fn compact(&mut self, through: Revision, obsolete: &[Position]) -> Result<(), BackendError> {
        for position in obsolete {
            self.log.remove(position);
        }
        self.head.compacted = through;
        Ok(())
    }
}
