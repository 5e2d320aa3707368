//! Uploads in progress: a bounded table of blob writers.
//!
//! A session belongs to one repository. One request writes to it at a time: it is taken out of the table by a
//! [`Turn`], which puts it back however the request ends, with what it has received. A client whose connection broke
//! asks how far it came and goes on from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::RegistryError;
use crate::content_store::BlobWriter;

const MAX_SESSIONS: usize = 256;
/// A session that nobody goes on with ends after this.
const IDLE: Duration = Duration::from_secs(15 * 60);

struct Session {
    repository: String,
    touched: Instant,
    /// `None` while a request writes.
    writer: Option<BlobWriter>,
}

type Table = HashMap<String, Session>;

/// All uploads; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<Table>>);

/// A session that a request writes to. It goes back to the table when this is dropped, unless it was ended.
pub(super) struct Turn {
    sessions: Sessions,
    id: String,
    writer: Option<BlobWriter>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session; answers its name.
    pub(super) fn begin(
        &self,
        repository: &str,
        writer: BlobWriter,
    ) -> Result<String, RegistryError> {
        self.expire();
        let mut table = self.lock();
        if table.len() >= MAX_SESSIONS {
            return Err(RegistryError::TooManyUploads);
        }
        let id = uuid::Uuid::new_v4().to_string();
        let session = Session {
            repository: repository.to_owned(),
            touched: Instant::now(),
            writer: Some(writer),
        };
        table.insert(id.clone(), session);
        Ok(id)
    }

    /// Takes the session of this repository.
    pub(super) fn take(&self, repository: &str, id: &str) -> Result<Turn, RegistryError> {
        let mut table = self.lock();
        let session = table.get_mut(id);
        let session = session.filter(|session| session.repository == repository);
        let session = session.ok_or(RegistryError::UploadUnknown)?;
        let writer = session.writer.take().ok_or(RegistryError::UploadBusy)?;
        Ok(Turn {
            sessions: self.clone(),
            id: id.to_owned(),
            writer: Some(writer),
        })
    }

    /// Ends the sessions that nobody goes on with.
    pub(super) fn expire(&self) {
        let mut table = self.lock();
        table.retain(|_, session| session.writer.is_none() || session.touched.elapsed() < IDLE);
    }
}

impl Turn {
    /// The blob as far as it came.
    pub(super) fn writer(&mut self) -> Result<&mut BlobWriter, RegistryError> {
        self.writer.as_mut().ok_or(RegistryError::UploadUnknown)
    }

    /// Ends the session and forgets its blob.
    pub(super) fn discard(&mut self) {
        self.writer = None;
    }

    /// Ends the session and hands its blob over.
    pub(super) fn end(mut self) -> Result<BlobWriter, RegistryError> {
        self.writer.take().ok_or(RegistryError::UploadUnknown)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut table = self.sessions.lock();
        match self.writer.take() {
            Some(writer) => {
                if let Some(session) = table.get_mut(&self.id) {
                    session.writer = Some(writer);
                    session.touched = Instant::now();
                }
            }
            None => {
                table.remove(&self.id);
            }
        }
    }
}
