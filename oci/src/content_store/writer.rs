//! Blobs being written: fresh ones, and those that go on where an earlier try ended.
//!
//! A fresh one goes to `ingest/` and is gone with its writer. A resumable one goes to `partial/` under the digest it
//! shall have; what is there when a writer opens it is hashed again, so nothing has to be believed of it, and a digest
//! that does not come out in the end removes it.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{self, File, OpenOptions};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::{ContentError, ContentStore, io_error, sync_directory};
use crate::digest::{Algorithm, Digest, Hasher};

const READ_AGAIN: usize = 256 << 10;

/// A file outside `blobs/` that goes away unless it was renamed or is to be kept.
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    is_kept: bool,
}

impl Partial {
    /// A name in `ingest/` that nobody else has.
    pub(super) fn new(store: &ContentStore) -> Self {
        let name = uuid::Uuid::new_v4().to_string();
        Self {
            path: store.root.join("ingest").join(name),
            is_kept: false,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // After a rename there is nothing of that name.
        if let Err(error) = std::fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "leave a partial blob behind");
        }
    }
}

/// A blob being written. Dropping it discards what was written, unless it is resumable.
#[derive(Debug)]
pub struct BlobWriter {
    store: ContentStore,
    file: File,
    partial: Partial,
    hasher: Hasher,
    algorithm: Algorithm,
    length: u64,
    limit: u64,
}

impl ContentStore {
    /// Begins a blob of at most `limit` bytes.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn writer(
        &self,
        algorithm: Algorithm,
        limit: u64,
    ) -> Result<BlobWriter, ContentError> {
        let partial = Partial::new(self);
        let file = File::create_new(partial.path())
            .await
            .map_err(io_error(format!("make {}", partial.path().display())))?;
        Ok(BlobWriter {
            store: self.clone(),
            file,
            partial,
            hasher: Hasher::new(algorithm),
            algorithm,
            length: 0,
            limit,
        })
    }

    /// Begins the blob with this digest, or goes on where the last writer of it ended. There must be one writer of a
    /// digest at a time.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn resume(&self, digest: &Digest, limit: u64) -> Result<BlobWriter, ContentError> {
        let name = format!("{}-{}", digest.algorithm().as_str(), digest.hex());
        let path = self.root.join("partial").join(name);
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&path)
            .await
            .map_err(io_error(format!("open {}", path.display())))?;
        let mut writer = BlobWriter {
            store: self.clone(),
            file,
            partial: Partial {
                path,
                is_kept: true,
            },
            hasher: Hasher::new(digest.algorithm()),
            algorithm: digest.algorithm(),
            length: 0,
            limit,
        };
        writer.read_again().await?;
        Ok(writer)
    }
}

impl BlobWriter {
    /// Hashes what is in the file already; more than the limit is begun anew.
    async fn read_again(&mut self) -> Result<(), ContentError> {
        let mut buffer = vec![0; READ_AGAIN];
        loop {
            let read = self.file.read(&mut buffer).await;
            let read = read.map_err(io_error("read what was there of a blob"))?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            self.hasher.update(bytes);
            self.length = self.length.saturating_add(bytes.len() as u64);
            if self.length > self.limit {
                return self.restart().await;
            }
        }
    }

    /// Forgets what was written.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn restart(&mut self) -> Result<(), ContentError> {
        let begin_anew = async {
            self.file.flush().await?;
            self.file.set_len(0).await?;
            self.file.rewind().await
        };
        begin_anew.await.map_err(io_error("begin a blob anew"))?;
        self.hasher = Hasher::new(self.algorithm);
        self.length = 0;
        Ok(())
    }

    /// Has the file hold what was counted, after a write that was dropped in its middle.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn settle(&mut self) -> Result<(), ContentError> {
        let settle = async {
            self.file.flush().await?;
            self.file.set_len(self.length).await?;
            self.file.seek(io::SeekFrom::Start(self.length)).await
        };
        settle
            .await
            .map(drop)
            .map_err(io_error("go on with a blob"))
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The limit is exceeded or the file system failed.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), ContentError> {
        let length = self.length.saturating_add(bytes.len() as u64);
        if length > self.limit {
            return Err(ContentError::TooLarge { limit: self.limit });
        }
        self.file
            .write_all(bytes)
            .await
            .map_err(io_error("write blob"))?;
        self.hasher.update(bytes);
        self.length = length;
        Ok(())
    }

    /// Has what was written so far in the file, so that a writer that resumes finds it.
    ///
    /// # Errors
    /// The file system failed.
    pub async fn flush(&mut self) -> Result<(), ContentError> {
        self.file.flush().await.map_err(io_error("write blob"))
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

    /// The digest of what was written so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Makes the blob part of the store if it has the expected digest.
    ///
    /// # Errors
    /// Another digest, or the file system failed; nothing is stored then, and nothing resumed.
    pub async fn commit(mut self, expected: Option<&Digest>) -> Result<Digest, ContentError> {
        let actual = self.digest();
        if let Some(expected) = expected
            && *expected != actual
        {
            self.partial.is_kept = false;
            return Err(ContentError::DigestMismatch {
                expected: expected.clone(),
                actual,
            });
        }
        let target = self.store.path(&actual);
        let finish = async {
            self.file.flush().await?;
            self.file.sync_all().await?;
            fs::rename(self.partial.path(), &target).await?;
            sync_directory(target.parent().unwrap_or(&self.store.root)).await
        };
        finish.await.map_err(io_error(format!("commit {actual}")))?;
        Ok(actual)
    }
}
