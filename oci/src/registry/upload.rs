//! Uploads in progress: a bounded table of blob writers.
//!
//! A session belongs to one repository. It is taken out of the table while a request writes to it, so
//! two requests never write to one session, and a request that is dropped mid-way drops the session:
//! the client has to begin again, and no half chunk is ever kept.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::content_store::BlobWriter;

const MAX_SESSIONS: usize = 256;
const IDLE: Duration = Duration::from_secs(15 * 60);

/// An upload between two requests.
pub(super) struct Upload {
    pub(super) repository: String,
    pub(super) writer: BlobWriter,
}

/// All uploads between two requests.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<String, (Instant, Upload)>>);

impl Uploads {
    /// Keeps an upload under `id`; `false` when there are too many.
    ///
    /// Uploads nobody continued for a quarter of an hour make room.
    #[must_use]
    pub(super) fn keep(&self, id: String, upload: Upload) -> bool {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MAX_SESSIONS {
            sessions.retain(|_, (touched, _)| touched.elapsed() < IDLE);
        }
        if sessions.len() >= MAX_SESSIONS {
            return false;
        }
        sessions.insert(id, (Instant::now(), upload));
        true
    }

    /// Takes an upload of this repository.
    pub(super) fn take(&self, repository: &str, id: &str) -> Option<Upload> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(id)?.1.repository != repository {
            return None;
        }
        sessions.remove(id).map(|(_, upload)| upload)
    }
}
