//! Follows the logs that containerd writes: one watch of the kernel's for all containers, and rotation.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::Parts;
use crate::logs::WrittenLog;
use crate::runtime::ExitStatus;

/// How often a log is looked at in any case, where the kernel tells nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Tells when files in directories change.
#[derive(Default)]
pub(super) struct LogWatches {
    waiting: Arc<Mutex<HashMap<PathBuf, Arc<Notify>>>>,
    watcher: Mutex<Option<RecommendedWatcher>>,
}

impl LogWatches {
    /// Begins to watch a directory until what is returned is dropped.
    fn watch(&self, directory: &Path) -> DirectoryWatch<'_> {
        let changed = Arc::new(Notify::new());
        let waiting = self.waiting.clone();
        lock(&waiting).insert(directory.to_owned(), changed.clone());
        let mut watcher = lock(&self.watcher);
        if watcher.is_none() {
            let told = move |event: notify::Result<notify::Event>| {
                let paths = event.map(|event| event.paths).unwrap_or_default();
                for path in paths {
                    let directory = path.parent().unwrap_or(&path);
                    if let Some(changed) = lock(&waiting).get(directory) {
                        changed.notify_one();
                    }
                }
            };
            match notify::recommended_watcher(told) {
                Ok(made) => *watcher = Some(made),
                Err(error) => {
                    tracing::warn!(%error, "logs of containers are looked at from time to time only");
                }
            }
        }
        if let Some(watcher) = watcher.as_mut()
            && let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive)
        {
            tracing::warn!(path = %directory.display(), %error, "a log is looked at from time to time only");
        }
        DirectoryWatch {
            watches: self,
            directory: directory.to_owned(),
            changed,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory that is watched.
struct DirectoryWatch<'a> {
    watches: &'a LogWatches,
    directory: PathBuf,
    changed: Arc<Notify>,
}

impl Drop for DirectoryWatch<'_> {
    fn drop(&mut self) {
        let mut waiting = lock(&self.watches.waiting);
        // Another start of the same container may watch it by now.
        if waiting
            .get(&self.directory)
            .is_some_and(|known| !Arc::ptr_eq(known, &self.changed))
        {
            return;
        }
        waiting.remove(&self.directory);
        drop(waiting);
        if let Some(watcher) = lock(&self.watches.watcher).as_mut() {
            // A directory that was removed is not watched any more.
            let _gone = watcher.unwatch(&self.directory);
        }
    }
}

/// Follows a container's log until its end is known, and all it printed.
pub(super) async fn until(
    parts: &Parts,
    id: &str,
    mut log: WrittenLog,
    ended: impl Future<Output = ExitStatus>,
) -> ExitStatus {
    let directory = log.directory();
    let watch = directory
        .as_deref()
        .map(|directory| parts.logs.watch(directory));
    let mut ended = std::pin::pin!(ended);
    loop {
        look(parts, id, &mut log).await;
        let changed = async {
            match &watch {
                Some(watch) => watch.changed.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            exit = &mut ended => {
                look(parts, id, &mut log).await;
                return exit;
            }
            () = changed => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn look(parts: &Parts, id: &str, log: &mut WrittenLog) {
    let rotated = match log.catch_up() {
        Ok(true) => rotate(parts, id, log).await,
        Ok(false) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = rotated {
        tracing::warn!(id, error, "follow a container's log");
    }
}

async fn rotate(parts: &Parts, id: &str, log: &mut WrittenLog) -> Result<(), String> {
    log.rename().map_err(|error| error.to_string())?;
    let reopened = parts.cri.reopen_container_log(id).await;
    // Also where it failed: the writer goes on with the file it has, or begins one when it can.
    log.begin().map_err(|error| error.to_string())?;
    reopened.map_err(|error| error.to_string())
}
