//! Blobs on disk, named by their digest, and names that point at them.
//!
//! ```text
//! ROOT/blobs/sha256/<hex>        a blob; written once, never changed
//! ROOT/ingest/<uuid>             a blob being written; swept when the store opens
//! ROOT/partial/<digest>          a blob being fetched; the next try goes on with it
//! ROOT/refs/<NAME...>/_/<LEAF>   a reference: the JSON of a descriptor
//! ```
//!
//! 1. A [`BlobWriter`] (`writer.rs`) writes outside `blobs/` and hashes as it goes.
//! 2. `commit` checks digest, syncs the file, renames it into `blobs/` and syncs the directory.
//! 3. References (`references.rs`) are written the same way, so a reader sees the old or the new one, never a part.
//! 4. What nothing points at is collected (`collect.rs`), unless somebody has a lease on it.
//!
//! Invariant: a file in `blobs/` has the digest it is named by. Two writers of one blob race harmlessly,
//! since they rename equal content.

mod collect;
mod references;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::fs::{self, File};

use crate::digest::{Algorithm, Digest};
pub use collect::{Collection, Lease, Swept};
pub use writer::BlobWriter;

/// A content store in one directory; cheap to clone.
#[derive(Clone, Debug)]
pub struct ContentStore {
    root: Arc<Path>,
    leases: Arc<collect::Leases>,
}

/// What can go wrong with stored content.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The blob or reference is not there.
    #[error("{0} is not in the content store")]
    NotFound(String),
    /// Bytes do not have the digest they should have.
    #[error("content has digest {actual}, expected {expected}")]
    DigestMismatch {
        /// What was announced.
        expected: Digest,
        /// What the bytes have.
        actual: Digest,
    },
    /// More bytes than allowed.
    #[error("content is larger than {limit} bytes")]
    TooLarge {
        /// The bound that was exceeded.
        limit: u64,
    },
    /// A reference name that can't be a path.
    #[error("invalid reference name {0:?}")]
    InvalidName(String),
    /// A reference file that can't be read.
    #[error("damaged reference {name:?}")]
    DamagedReference {
        /// Name of the reference.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The file system failed.
    #[error("content store: {context}")]
    Io {
        /// What was being done.
        context: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

impl ContentError {
    /// Whether there is no room on the disk.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }
}

fn io_error(context: impl Into<String>) -> impl FnOnce(io::Error) -> ContentError {
    let context = context.into();
    move |source| ContentError::Io { context, source }
}

impl ContentStore {
    /// Opens (and makes) a store below `root`, and sweeps what an earlier process left half written.
    ///
    /// # Errors
    /// The directories can't be made.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, ContentError> {
        let root: PathBuf = root.into();
        let ingest = root.join("ingest");
        match fs::remove_dir_all(&ingest).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error(format!("sweep {}", ingest.display()))(error));
            }
            _ => {}
        }
        for directory in ["ingest", "partial", "blobs/sha256", "blobs/sha512", "refs"] {
            let path = root.join(directory);
            fs::create_dir_all(&path)
                .await
                .map_err(io_error(format!("make {}", path.display())))?;
        }
        Ok(Self {
            root: root.into(),
            leases: Arc::default(),
        })
    }

    /// The directory the store is in.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the blob is (or would be) on disk.
    #[must_use]
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root
            .join("blobs")
            .join(digest.algorithm().as_str())
            .join(digest.hex())
    }

    /// The blob's size, or `None` if it is not here.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn size(&self, digest: &Digest) -> Result<Option<u64>, ContentError> {
        match fs::metadata(self.path(digest)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(format!("look up {digest}"))(error)),
        }
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// It is not here, or the file system failed.
    pub async fn open_blob(&self, digest: &Digest) -> Result<File, ContentError> {
        File::open(self.path(digest))
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => ContentError::NotFound(digest.to_string()),
                _ => io_error(format!("open {digest}"))(error),
            })
    }

    /// Reads a whole blob of at most `limit` bytes.
    ///
    /// # Errors
    /// It is not here, too large, or the file system failed.
    pub async fn read(&self, digest: &Digest, limit: u64) -> Result<Bytes, ContentError> {
        match self.size(digest).await? {
            None => return Err(ContentError::NotFound(digest.to_string())),
            Some(size) if size > limit => return Err(ContentError::TooLarge { limit }),
            Some(_) => {}
        }
        let bytes = fs::read(self.path(digest))
            .await
            .map_err(io_error(format!("read {digest}")))?;
        Ok(bytes.into())
    }

    /// Stores `bytes` and returns their digest.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn put(&self, bytes: &[u8]) -> Result<Digest, ContentError> {
        let mut writer = self.writer(Algorithm::Sha256, u64::MAX).await?;
        writer.write(bytes).await?;
        writer.commit(None).await
    }
}

async fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path).await?.sync_all().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Descriptor;

    async fn store() -> (tempfile::TempDir, ContentStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = ContentStore::open(directory.path()).await.unwrap();
        (directory, store)
    }

    fn entries(root: &Path, directory: &str) -> usize {
        std::fs::read_dir(root.join(directory)).unwrap().count()
    }

    #[tokio::test]
    async fn a_blob_is_read_back_by_its_digest() {
        let (_directory, store) = store().await;
        let digest = store.put(b"hello").await.unwrap();
        assert_eq!(store.read(&digest, 5).await.unwrap(), "hello");
        assert_eq!(store.size(&digest).await.unwrap(), Some(5));
        assert!(matches!(
            store.read(&digest, 4).await,
            Err(ContentError::TooLarge { .. })
        ));
        let other = Digest::sha256(b"other");
        assert!(matches!(
            store.read(&other, 9).await,
            Err(ContentError::NotFound(_))
        ));
    }

    #[tokio::test]
    async fn bytes_of_another_digest_never_enter() {
        let (directory, store) = store().await;
        let mut writer = store.writer(Algorithm::Sha256, 100).await.unwrap();
        writer.write(b"evil").await.unwrap();
        let expected = Digest::sha256(b"good");
        let error = writer.commit(Some(&expected)).await.unwrap_err();
        assert!(matches!(error, ContentError::DigestMismatch { .. }));
        assert_eq!(entries(directory.path(), "ingest"), 0);
        assert_eq!(entries(directory.path(), "blobs/sha256"), 0);
    }

    #[tokio::test]
    async fn a_blob_over_its_limit_is_refused_and_swept() {
        let (directory, store) = store().await;
        let mut writer = store.writer(Algorithm::Sha256, 3).await.unwrap();
        assert!(matches!(
            writer.write(b"1234").await,
            Err(ContentError::TooLarge { limit: 3 })
        ));
        drop(writer);
        assert_eq!(entries(directory.path(), "ingest"), 0);
    }

    #[tokio::test]
    async fn concurrent_writers_of_one_blob_agree() {
        let (_directory, store) = store().await;
        let writes = (0..16).map(|_| store.put(b"same"));
        for digest in futures::future::join_all(writes).await {
            assert_eq!(digest.unwrap(), Digest::sha256(b"same"));
        }
    }

    #[tokio::test]
    async fn an_interrupted_blob_goes_on_and_a_spoilt_one_begins_anew() {
        let (directory, store) = store().await;
        let digest = Digest::sha256(b"hello");
        let mut writer = store.resume(&digest, 5).await.unwrap();
        writer.write(b"hel").await.unwrap();
        writer.flush().await.unwrap();
        drop(writer);
        let reopened = ContentStore::open(directory.path()).await.unwrap();
        let mut writer = reopened.resume(&digest, 5).await.unwrap();
        assert_eq!(writer.len(), 3);
        writer.write(b"p!").await.unwrap();
        let error = writer.commit(Some(&digest)).await.unwrap_err();
        assert!(matches!(error, ContentError::DigestMismatch { .. }));
        let mut writer = store.resume(&digest, 5).await.unwrap();
        assert!(writer.is_empty());
        writer.write(b"help").await.unwrap();
        writer.restart().await.unwrap();
        writer.write(b"hello").await.unwrap();
        writer.commit(Some(&digest)).await.unwrap();
        assert_eq!(store.read(&digest, 5).await.unwrap(), "hello");
        assert_eq!(entries(directory.path(), "partial"), 0);
    }

    #[tokio::test]
    async fn references_are_replaced_listed_and_removed() {
        let (_directory, store) = store().await;
        let target = |bytes: &[u8]| Descriptor::new("x", Digest::sha256(bytes), 1);
        store
            .set_ref("default/hello", "v1", &target(b"1"))
            .await
            .unwrap();
        store
            .set_ref("default/hello", "v1", &target(b"2"))
            .await
            .unwrap();
        store
            .set_ref("default/hello/sub", "v1", &target(b"3"))
            .await
            .unwrap();
        assert_eq!(store.list_refs("default/hello").await.unwrap(), ["v1"]);
        let mut all = store.all_refs("").await.unwrap();
        all.sort_unstable();
        let v1 = |name: &str| (name.to_owned(), "v1".to_owned());
        assert_eq!(all, [v1("default/hello"), v1("default/hello/sub")]);
        assert_eq!(store.all_refs("other").await.unwrap(), []);
        let found = store.get_ref("default/hello", "v1").await.unwrap().unwrap();
        assert_eq!(found.digest, Digest::sha256(b"2"));
        assert!(store.remove_ref("default/hello", "v1").await.unwrap());
        assert!(!store.remove_ref("default/hello", "v1").await.unwrap());
        assert_eq!(store.get_ref("default/hello", "v1").await.unwrap(), None);
    }

    #[tokio::test]
    async fn names_that_leave_the_store_are_refused() {
        let (_directory, store) = store().await;
        for (name, leaf) in [
            ("..", "a"),
            ("a/../b", "c"),
            ("a", ".."),
            ("a", "b/c"),
            ("", "a"),
            ("_", "a"),
        ] {
            assert!(matches!(
                store.get_ref(name, leaf).await,
                Err(ContentError::InvalidName(_))
            ));
        }
    }
}
