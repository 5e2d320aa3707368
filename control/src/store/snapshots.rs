//! Snapshots kept for the later pages of a list, bounded by count and age.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Revision, Snapshot};

const MAX_COUNT: usize = 64;
const MAX_AGE: Duration = Duration::from_secs(300);

/// Kept snapshots by revision.
#[derive(Debug, Default)]
pub(super) struct Snapshots(Mutex<BTreeMap<Revision, (Instant, Snapshot)>>);

impl Snapshots {
    pub(super) fn keep(&self, snapshot: &Snapshot) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|_, (since, _)| now.duration_since(*since) < MAX_AGE);
        kept.entry(snapshot.revision)
            .or_insert_with(|| (now, snapshot.clone()));
        while kept.len() > MAX_COUNT {
            kept.pop_first();
        }
    }

    pub(super) fn get(&self, revision: Revision) -> Option<Snapshot> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&revision).map(|(_, snapshot)| snapshot.clone())
    }

    /// Forgets snapshots older than the age limit or than `oldest`; history compaction calls this.
    pub(super) fn expire(&self, oldest: Revision) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.retain(|revision, (since, _)| {
            *revision >= oldest && now.duration_since(*since) < MAX_AGE
        });
    }

    pub(super) fn oldest(&self) -> Option<Revision> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keys().next().copied()
    }
}
