//! Blobs on disk, named by their digest, and names that point at them.
//!
//! ```text
//! ROOT/blobs/sha256/<hex>        a blob; written once, never changed
//! ROOT/ingest/<uuid>             a blob being written; swept when the store opens
//! ROOT/refs/<NAME...>/_/<LEAF>   a reference: the JSON of a descriptor
//! ```
//!
//! 1. A [`BlobWriter`] writes to `ingest/` and hashes as it goes.
//! 2. `commit` checks digest, syncs the file, renames it into `blobs/` and syncs the directory.
//! 3. References are written the same way, so a reader sees the old or the new one, never a part.
//!
//! Invariant: a file in `blobs/` has the digest it is named by. Two writers of one blob race harmlessly,
//! since they rename equal content. Blobs are not collected yet, so a path once given stays valid.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::Descriptor;

/// A content store in one directory; cheap to clone.
#[derive(Clone, Debug)]
pub struct ContentStore {
    root: Arc<Path>,
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
        for directory in ["ingest", "blobs/sha256", "blobs/sha512", "refs"] {
            let path = root.join(directory);
            fs::create_dir_all(&path)
                .await
                .map_err(io_error(format!("make {}", path.display())))?;
        }
        Ok(Self { root: root.into() })
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

    /// Begins a blob of at most `limit` bytes.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn writer(
        &self,
        algorithm: Algorithm,
        limit: u64,
    ) -> Result<BlobWriter, ContentError> {
        let path = self
            .root
            .join("ingest")
            .join(uuid::Uuid::new_v4().to_string());
        let file = File::create_new(&path)
            .await
            .map_err(io_error(format!("make {}", path.display())))?;
        let partial = Partial(path);
        Ok(BlobWriter {
            store: self.clone(),
            file,
            partial,
            hasher: Hasher::new(algorithm),
            length: 0,
            limit,
        })
    }

    /// Points a name at a descriptor, replacing what it pointed at.
    ///
    /// # Errors
    /// The name is no path of plain components, or the file system failed.
    pub async fn set_ref(
        &self,
        name: &str,
        leaf: &str,
        target: &Descriptor,
    ) -> Result<(), ContentError> {
        let path = self.ref_path(name, leaf)?;
        let encoded =
            serde_json::to_vec(target).map_err(|source| ContentError::DamagedReference {
                name: format!("{name}:{leaf}"),
                source,
            })?;
        let directory = path.parent().unwrap_or(&self.root).to_owned();
        let partial = Partial(
            self.root
                .join("ingest")
                .join(uuid::Uuid::new_v4().to_string()),
        );
        let write = async {
            fs::create_dir_all(&directory).await?;
            let mut file = File::create_new(&partial.0).await?;
            file.write_all(&encoded).await?;
            file.sync_all().await?;
            fs::rename(&partial.0, &path).await?;
            sync_directory(&directory).await
        };
        write
            .await
            .map_err(io_error(format!("write reference {name}:{leaf}")))
    }

    /// What a name points at.
    ///
    /// # Errors
    /// The name is malformed, its file damaged, or the file system failed.
    pub async fn get_ref(
        &self,
        name: &str,
        leaf: &str,
    ) -> Result<Option<Descriptor>, ContentError> {
        match fs::read(self.ref_path(name, leaf)?).await {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|source| {
                ContentError::DamagedReference {
                    name: format!("{name}:{leaf}"),
                    source,
                }
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(format!("read reference {name}:{leaf}"))(error)),
        }
    }

    /// Removes a name; what it pointed at stays. Answers whether it was there.
    ///
    /// # Errors
    /// The name is malformed or the file system failed.
    pub async fn remove_ref(&self, name: &str, leaf: &str) -> Result<bool, ContentError> {
        match fs::remove_file(self.ref_path(name, leaf)?).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error(format!("remove reference {name}:{leaf}"))(error)),
        }
    }

    /// The leaves below a name in order.
    ///
    /// # Errors
    /// The name is malformed or the file system failed.
    pub async fn list_refs(&self, name: &str) -> Result<Vec<String>, ContentError> {
        let directory = self.ref_directory(name)?;
        let mut entries = match fs::read_dir(&directory).await {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error(format!("list references of {name}"))(error)),
        };
        let mut leaves = Vec::new();
        let failed = || io_error(format!("list references of {name}"));
        while let Some(entry) = entries.next_entry().await.map_err(failed())? {
            if let Ok(leaf) = entry.file_name().into_string() {
                leaves.push(leaf);
            }
        }
        leaves.sort_unstable();
        Ok(leaves)
    }

    fn ref_directory(&self, name: &str) -> Result<PathBuf, ContentError> {
        // `_` can't be a component of a repository name, so `a/_/b` never collides with `a/b/_/c`.
        let plain = |part: &str| is_plain(part) && part != "_";
        if !name.split('/').all(plain) {
            return Err(ContentError::InvalidName(name.to_owned()));
        }
        Ok(self.root.join("refs").join(name).join("_"))
    }

    fn ref_path(&self, name: &str, leaf: &str) -> Result<PathBuf, ContentError> {
        if !is_plain(leaf) {
            return Err(ContentError::InvalidName(leaf.to_owned()));
        }
        Ok(self.ref_directory(name)?.join(leaf))
    }
}

fn is_plain(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:[]".contains(&byte);
    !part.is_empty()
        && part != "."
        && part != ".."
        && part.len() <= 255
        && part.bytes().all(allowed)
}

async fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path).await?.sync_all().await
}

/// A file in `ingest/` that goes away unless it was renamed.
#[derive(Debug)]
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // After a rename the name is free again (it is a fresh uuid), so this finds nothing.
        if let Err(error) = std::fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "leave a partial blob behind");
        }
    }
}

/// A blob being written. Dropping it discards what was written.
#[derive(Debug)]
pub struct BlobWriter {
    store: ContentStore,
    file: File,
    partial: Partial,
    hasher: Hasher,
    length: u64,
    limit: u64,
}

impl BlobWriter {
    /// Appends bytes.
    ///
    /// # Errors
    /// The limit is exceeded or the file system failed.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length > self.limit {
            return Err(ContentError::TooLarge { limit: self.limit });
        }
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .await
            .map_err(io_error("write blob"))
    }

    /// How many bytes were written.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Makes the blob part of the store if it has the expected digest.
    ///
    /// # Errors
    /// Another digest, or the file system failed; nothing is stored then.
    pub async fn commit(mut self, expected: Option<&Digest>) -> Result<Digest, ContentError> {
        let actual = self.hasher.clone().finish();
        if let Some(expected) = expected
            && *expected != actual
        {
            return Err(ContentError::DigestMismatch {
                expected: expected.clone(),
                actual,
            });
        }
        let target = self.store.path(&actual);
        let finish = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            fs::rename(&self.partial.0, &target).await?;
            sync_directory(target.parent().unwrap_or(&self.store.root)).await
        };
        finish.await.map_err(io_error(format!("commit {actual}")))?;
        Ok(actual)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    async fn references_are_replaced_listed_and_removed() {
        let (_directory, store) = store().await;
        let target = |bytes: &[u8]| Descriptor {
            media_type: "x".to_owned(),
            digest: Digest::sha256(bytes),
            size: 1,
            platform: None,
            annotations: Default::default(),
        };
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
