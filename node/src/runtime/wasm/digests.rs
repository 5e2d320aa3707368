//! Digests of components in volumes, so that a probe that runs one every second does not read and hash it every time.
//!
//! Invariant: a digest is remembered for one content of a file only. A file that changed while it was looked at, or so short
//! ago that another change might not show, is looked at again.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use windlass_oci::digest::Digest;
use windlass_wasi_shims::fs::{FileStamp, OpenFile};

/// Files remembered; then it begins anew.
const REMEMBERED: usize = 1024;

/// The digests of files.
#[derive(Default)]
pub(super) struct Digests(Mutex<HashMap<FileStamp, Digest>>);

impl Digests {
    /// The digest of a file of at most `limit` bytes. Blocks.
    ///
    /// # Errors
    /// It is larger, or can't be read.
    pub(super) fn of(&self, file: &OpenFile, limit: u64) -> io::Result<Digest> {
        let before = file.stamp()?;
        let known = before.and_then(|stamp| {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&stamp).cloned()
        });
        if let Some(digest) = known {
            return Ok(digest);
        }
        let digest = Digest::sha256(&file.read(limit)?);
        if let Some(stamp) = before
            && file.stamp()? == before
            && stamp.is_settled(SystemTime::now())
        {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(stamp, digest.clone());
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_changed_file_has_another_digest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.wasm");
        let digests = Digests::default();
        for text in ["one", "two", "six"] {
            std::fs::write(&path, text).unwrap();
            let file = OpenFile::Host(Arc::new(std::fs::File::open(&path).unwrap()));
            let digest = digests.of(&file, 100).unwrap();
            assert_eq!(digest, Digest::sha256(text.as_bytes()));
            assert_eq!(
                digests.0.lock().unwrap().len(),
                0,
                "it was written just now"
            );
            let stamp = file.stamp().unwrap().unwrap();
            assert!(!stamp.is_settled(SystemTime::now()));
            assert!(stamp.is_settled(SystemTime::now() + Duration::from_secs(5)));
        }
        let memory = OpenFile::Memory(bytes::Bytes::from_static(b"one"));
        assert_eq!(digests.of(&memory, 3).unwrap(), Digest::sha256(b"one"));
        assert!(digests.of(&memory, 2).is_err());
    }

    #[test]
    fn a_file_that_rests_is_hashed_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.wasm");
        std::fs::write(&path, "content").unwrap();
        let file = OpenFile::Host(Arc::new(std::fs::File::open(&path).unwrap()));
        let digests = Digests::default();
        let known = Digest::sha256(b"as if hashed before");
        let stamp = file.stamp().unwrap().unwrap();
        digests.0.lock().unwrap().insert(stamp, known.clone());
        assert_eq!(digests.of(&file, 100).unwrap(), known);
    }
}
