//! The object files of a folder: which there are, what is in them, and when that changes.
//!
//! Those directly in the folder count whose name ends in `.yaml`, `.yml` or `.json` and begins with no dot. The kernel
//! tells of changes: nothing is polled.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

/// Largest object file that is read.
const MAX_FILE: u64 = 3 << 20;

/// The object files directly in a folder.
pub(crate) async fn list(folder: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let extension = path.extension().and_then(|extension| extension.to_str());
        if !hidden && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.insert(path);
        }
    }
    Ok(files)
}

/// The content of an object file; nothing of an empty one, which somebody is about to write.
///
/// # Errors
/// Why not, in words.
pub(crate) async fn read(file: &Path) -> Result<Option<Vec<u8>>, String> {
    let bounded = async {
        // Opening a pipe would wait for who writes into it.
        if !tokio::fs::metadata(file).await?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut content = Vec::new();
        let opened = tokio::fs::File::open(file).await?;
        opened.take(MAX_FILE + 1).read_to_end(&mut content).await?;
        Ok(content)
    };
    let content = bounded.await.map_err(|error| error.to_string())?;
    if content.len() as u64 > MAX_FILE {
        return Err(format!("it has more than {MAX_FILE} bytes"));
    }
    Ok(Some(content).filter(|content| !content.is_empty()))
}

/// Changes in a directory, as the kernel tells them.
pub(crate) struct Changes {
    told: Arc<Notify>,
    _watcher: RecommendedWatcher,
}

impl Changes {
    /// Those from now on.
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let told = Arc::new(Notify::new());
        let tell = told.clone();
        let told_of = move |event: notify::Result<Event>| {
            // What was missed shows at the next look.
            if event.map_or(true, |event| is_whole(event.kind)) {
                tell.notify_one();
            }
        };
        let watch = || {
            let mut watcher = notify::recommended_watcher(told_of)?;
            watcher.watch(directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        };
        let watcher = watch().map_err(|error: notify::Error| match error.kind {
            notify::ErrorKind::Io(error) => error,
            _ => io::Error::other(error),
        })?;
        Ok(Self {
            told,
            _watcher: watcher,
        })
    }

    /// Waits for a change since the last call.
    pub(crate) async fn next(&self) {
        self.told.notified().await;
    }
}

/// Whether the change is one after which a file can be read: it came, went, or whoever wrote it is done.
fn is_whole(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Modify(ModifyKind::Data(_)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_object_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.yaml", "b.yml", "c.json", ".d.yaml", "e.yaml~", "f"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        let found = list(directory.path()).await.unwrap();
        let expected = ["a.yaml", "b.yml", "c.json"].map(|name| directory.path().join(name));
        assert_eq!(found, BTreeSet::from(expected));
    }

    #[tokio::test]
    async fn only_files_of_a_bounded_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        std::fs::write(&path, vec![b'#'; 3 << 20]).unwrap();
        assert_eq!(read(&path).await.unwrap().unwrap().len(), 3 << 20);
        std::fs::write(&path, vec![b'#'; (3 << 20) + 1]).unwrap();
        assert_eq!(
            read(&path).await.unwrap_err(),
            "it has more than 3145728 bytes"
        );
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(&path).await, Ok(None));
        let folder = directory.path().join("b.yaml");
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(read(&folder).await.unwrap_err(), "not a regular file");
    }
}
