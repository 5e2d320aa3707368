//! Container logs: files in the CRI's format, their rotation, and readers that follow them.
//!
//! ```text
//! DATA/logs/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log      being written
//! DATA/logs/NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log.1    rotated, newest first
//! ```
//!
//! 1. A runtime writes a guest's bytes to a [`LogSink`] (or has another process write the file, `written.rs`); whole lines become `TIME STREAM F text`, a line
//!    longer than 16 KiB is split into parts tagged `P`.
//! 2. After every write the sink's *mark* moves (generation of the file, bytes in it); a reader that
//!    follows waits for the mark, never for a clock.
//! 3. At 10 MiB the file is renamed and a new generation begins; five files are kept per attempt, and the
//!    attempts before the last one are removed when a new one starts (`kubectl logs --previous`).
//!
//! Invariant: the mark moves after the bytes are in the file, so a reader that saw the mark finds them.
//! A guest never waits for a reader.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::leftovers;
use crate::runtime::PodIdentity;

mod line;
mod read;
mod sink;
#[cfg(feature = "containerd")]
mod written;

pub use read::{LogQuery, LogStream, ReadError};
pub use sink::{LiveOutput, LogSink, Output};
#[cfg(feature = "containerd")]
pub(crate) use written::WrittenLog;

/// Bounds of one container's logs.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Size at which a file is rotated, in bytes.
    pub file_bytes: u64,
    /// Files kept per attempt, the current one included.
    pub files: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            files: 5,
        }
    }
}

/// All logs of a node; cheap to clone.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    limits: LogLimits,
    /// The sinks of containers that run, by directory; what a reader follows.
    live: Mutex<HashMap<PathBuf, LogSink>>,
}

impl Logs {
    /// Logs below `root`; made when first written.
    #[must_use]
    pub fn new(root: PathBuf, limits: LogLimits) -> Self {
        Self(Arc::new(Inner {
            root,
            limits,
            live: Mutex::default(),
        }))
    }

    /// Begins the log of one attempt of a container and removes all but the attempt before it.
    #[must_use]
    pub fn begin(&self, pod: &PodIdentity, container: &str, attempt: u32) -> LogSink {
        let directory = self.directory(pod, container);
        forget_old_attempts(&directory, attempt);
        let sink = LogSink::new(directory.join(format!("{attempt}.log")), self.0.limits);
        self.live().insert(directory, sink.clone());
        sink
    }

    /// Removes the logs of a pod that is gone.
    ///
    /// # Errors
    /// The files can't be removed.
    pub async fn remove(&self, pod: &PodIdentity) -> io::Result<()> {
        let directory = self.pod_directory(pod);
        self.live().retain(|path, _| !path.starts_with(&directory));
        match tokio::fs::remove_dir_all(&directory).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The directories of pods that `keep` does not know by their uid.
    ///
    /// # Errors
    /// The directory can't be read.
    pub async fn left_behind(&self, keep: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
        let of_uid = |name: &str| name.rsplit('_').next().is_some_and(&keep);
        leftovers::entries_but(&self.0.root, of_uid).await
    }

    /// Reads (and follows) one attempt of a container's log.
    ///
    /// # Errors
    /// There is no such attempt, or its files can't be read.
    pub async fn read(
        &self,
        pod: &PodIdentity,
        container: &str,
        query: LogQuery,
    ) -> Result<LogStream, ReadError> {
        let directory = self.directory(pod, container);
        let live = self.live().get(&directory).cloned();
        read::open(directory, live, query).await
    }

    /// What a container prints from now on; `None` if it does not run.
    #[must_use]
    pub fn attach(&self, pod: &PodIdentity, container: &str) -> Option<LiveOutput> {
        let directory = self.directory(pod, container);
        let live = self.live().get(&directory).cloned();
        live.and_then(|sink| sink.live())
    }

    /// The attempts whose files are kept, oldest first.
    #[must_use]
    pub fn attempts(&self, pod: &PodIdentity, container: &str) -> Vec<u32> {
        attempts(&self.directory(pod, container))
    }

    fn live(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, LogSink>> {
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pod_directory(&self, pod: &PodIdentity) -> PathBuf {
        // Names come from the API, which allows neither `/` nor `_` in them; a uid is checked there too.
        self.0
            .root
            .join(format!("{}_{}_{}", pod.namespace, pod.name, pod.uid))
    }

    /// Where the files of a container are.
    pub(crate) fn directory(&self, pod: &PodIdentity, container: &str) -> PathBuf {
        self.pod_directory(pod).join(container)
    }
}

fn attempts(directory: &Path) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let numbers = entries.filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.strip_suffix(".log")?.parse().ok()
    });
    let mut numbers: Vec<u32> = numbers.collect();
    numbers.sort_unstable();
    numbers
}

/// Keeps `attempt` and the newest before it.
fn forget_old_attempts(directory: &Path, attempt: u32) {
    let mut older = attempts(directory);
    older.retain(|number| *number < attempt);
    older.pop();
    for number in older {
        for path in read::files_of(&directory.join(format!("{number}.log"))) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "remove an old log");
            }
        }
    }
}
