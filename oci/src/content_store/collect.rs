//! Leases, and the removal of blobs that nothing needs.
//!
//! 1. Whoever brings blobs in, or uses them, holds a [`Lease`] on their digests, from before it looks whether they are
//!    there until a reference points at them or they are not used any more.
//! 2. [`ContentStore::collect`] begins a collection. Its holder finds out what is to stay, from references, and says so
//!    to [`Collection::sweep`].
//! 3. A blob goes unless it is to stay, is leased, was leased since the collection began, or is young.
//!
//! Invariant: a lease is looked at and the file removed under one lock, so nobody gets a lease on a blob that is going.
//! What was leased while the collection looked at references may be pointed at since: it stays for this time.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::{ContentError, ContentStore, io_error};
use crate::digest::{Algorithm, Digest};

/// How long a download that nobody goes on with is kept.
const PARTIAL_LIFE: Duration = Duration::from_secs(3600);

/// Who leases what.
#[derive(Debug, Default)]
pub(super) struct Leases {
    table: Mutex<Table>,
    /// One collection at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Table {
    held: HashMap<Digest, usize>,
    /// Leased since the collection that runs began.
    since: Option<HashSet<Digest>>,
}

impl Table {
    fn is_held(&self, digest: &Digest) -> bool {
        let since = self.since.as_ref();
        self.held.contains_key(digest) || since.is_some_and(|since| since.contains(digest))
    }
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps blobs from being collected while it or a clone of it lives. The default one keeps nothing.
#[derive(Clone, Debug, Default)]
pub struct Lease(
    #[expect(dead_code, reason = "it is held and dropped, and that is all")] Option<Arc<Held>>,
);

#[derive(Debug)]
struct Held {
    leases: Arc<Leases>,
    digests: Vec<Digest>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut table = self.leases.lock();
        for digest in &self.digests {
            if let Some(count) = table.held.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    table.held.remove(digest);
                }
            }
        }
    }
}

/// What a collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many blobs.
    pub blobs: usize,
    /// Their bytes in all.
    pub bytes: u64,
}

/// A collection that has begun; see the head of the file.
pub struct Collection {
    store: ContentStore,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl Drop for Collection {
    fn drop(&mut self) {
        self.store.leases.lock().since = None;
    }
}

impl ContentStore {
    /// Keeps these blobs, whether they are there yet or not.
    #[must_use]
    pub fn lease(&self, digests: impl IntoIterator<Item = Digest>) -> Lease {
        let digests: Vec<_> = digests.into_iter().collect();
        let mut table = self.leases.lock();
        for digest in &digests {
            *table.held.entry(digest.clone()).or_default() += 1;
            if let Some(since) = &mut table.since {
                since.insert(digest.clone());
            }
        }
        drop(table);
        Lease(Some(Arc::new(Held {
            leases: self.leases.clone(),
            digests,
        })))
    }

    /// Whether somebody keeps this blob.
    #[must_use]
    pub fn is_leased(&self, digest: &Digest) -> bool {
        self.leases.lock().held.contains_key(digest)
    }

    /// Begins a collection, once no other one runs. To be called before references are looked at.
    pub async fn collect(&self) -> Collection {
        let turn = self.leases.turn.clone().lock_owned().await;
        let mut table = self.leases.lock();
        table.since = Some(table.held.keys().cloned().collect());
        drop(table);
        Collection {
            store: self.clone(),
            _turn: turn,
        }
    }

    /// Every blob with its size, in no order.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn blobs(&self) -> Result<Vec<(Digest, u64)>, ContentError> {
        let root = self.root.clone();
        let found = tokio::task::spawn_blocking(move || {
            let blobs = list(&root)?.into_iter();
            Ok(blobs.map(|blob| (blob.digest, blob.size)).collect())
        });
        joined(found.await)
    }
}

impl Collection {
    /// Removes every blob that is not in `keep`, not leased, and was written longer than `min_age` ago; and downloads
    /// that nobody went on with for an hour.
    ///
    /// # Errors
    /// The file system failed; what was removed by then is gone.
    pub async fn sweep(
        self,
        keep: HashSet<Digest>,
        min_age: Duration,
    ) -> Result<Swept, ContentError> {
        let swept = tokio::task::spawn_blocking(move || {
            let store = &self.store;
            let now = SystemTime::now();
            remove_partials(&store.root, now).map_err(io_error("sweep partial/"))?;
            let mut swept = Swept::default();
            for blob in list(&store.root)? {
                let age = now.duration_since(blob.written).unwrap_or_default();
                if keep.contains(&blob.digest) || age < min_age {
                    continue;
                }
                let table = store.leases.lock();
                if table.is_held(&blob.digest) {
                    continue;
                }
                std::fs::remove_file(store.path(&blob.digest))
                    .map_err(io_error(format!("remove {}", blob.digest)))?;
                drop(table);
                swept.blobs += 1;
                swept.bytes += blob.size;
            }
            Ok(swept)
        });
        joined(swept.await)
    }
}

fn joined<T>(
    result: Result<Result<T, ContentError>, tokio::task::JoinError>,
) -> Result<T, ContentError> {
    result.unwrap_or_else(|error| Err(io_error("collect blobs")(std::io::Error::other(error))))
}

struct Blob {
    digest: Digest,
    size: u64,
    written: SystemTime,
}

fn list(root: &Path) -> Result<Vec<Blob>, ContentError> {
    let mut found = Vec::new();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let directory = root.join("blobs").join(algorithm.as_str());
        let failed = || io_error(format!("list {}", directory.display()));
        for entry in std::fs::read_dir(&directory).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = entry.file_name();
            let text = format!("{}:{}", algorithm.as_str(), name.to_string_lossy());
            let Ok(digest) = text.parse::<Digest>() else {
                continue;
            };
            let metadata = entry.metadata().map_err(failed())?;
            found.push(Blob {
                digest,
                size: metadata.len(),
                written: metadata.modified().map_err(failed())?,
            });
        }
    }
    Ok(found)
}

fn remove_partials(root: &Path, now: SystemTime) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join("partial"))? {
        let entry = entry?;
        let touched = entry.metadata()?.modified()?;
        if now.duration_since(touched).unwrap_or_default() > PARTIAL_LIFE {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store() -> (tempfile::TempDir, ContentStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = ContentStore::open(directory.path()).await.unwrap();
        (directory, store)
    }

    async fn sweep(store: &ContentStore, keep: &[&Digest]) -> usize {
        let keep = keep.iter().map(|digest| (*digest).clone()).collect();
        let collection = store.collect().await;
        collection.sweep(keep, Duration::ZERO).await.unwrap().blobs
    }

    #[tokio::test]
    async fn what_nothing_points_at_goes_and_the_rest_stays() {
        let (_directory, store) = store().await;
        let kept = store.put(b"kept").await.unwrap();
        let gone = store.put(b"gone").await.unwrap();
        assert_eq!(sweep(&store, &[&kept]).await, 1);
        assert_eq!(store.size(&gone).await.unwrap(), None);
        assert_eq!(store.blobs().await.unwrap(), [(kept, 4)]);
    }

    #[tokio::test]
    async fn a_leased_blob_stays_until_the_last_lease_is_dropped() {
        let (_directory, store) = store().await;
        let digest = store.put(b"x").await.unwrap();
        let lease = store.lease([digest.clone()]);
        let second = lease.clone();
        drop(lease);
        assert_eq!(sweep(&store, &[]).await, 0);
        drop(second);
        assert_eq!(sweep(&store, &[]).await, 1);
    }

    #[tokio::test]
    async fn what_was_leased_while_references_were_read_stays() {
        let (_directory, store) = store().await;
        let digest = store.put(b"x").await.unwrap();
        let collection = store.collect().await;
        // A pull found the blob and pointed a reference at it, which the collection did not see.
        drop(store.lease([digest.clone()]));
        let swept = collection.sweep(HashSet::new(), Duration::ZERO).await;
        assert_eq!(swept.unwrap().blobs, 0);
        assert_eq!(sweep(&store, &[]).await, 1);
    }

    #[tokio::test]
    async fn young_blobs_stay() {
        let (_directory, store) = store().await;
        store.put(b"x").await.unwrap();
        let collection = store.collect().await;
        let swept = collection
            .sweep(HashSet::new(), Duration::from_secs(60))
            .await;
        assert_eq!(swept.unwrap(), Swept::default());
    }
}
