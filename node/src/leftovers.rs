//! What pods that went while no agent ran left behind: sandboxes with containers, and directories.
//!
//! 1. When the agent first knows its pods, it looks for directories of others: logs and volumes.
//! 2. What runtimes still have of others ends first, since it uses those directories; then they are removed. All of it
//!    in the background: no pod waits for that. No pod comes to own any of it either, since each carries the uid of a
//!    pod that is gone.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use crate::host_mounts;
use crate::pods::NodeContext;
use crate::runtime::Runtimes;

/// What belongs to no pod of the node.
pub(crate) struct Leftovers {
    paths: Vec<PathBuf>,
    runtimes: Runtimes,
    /// The pods that may have something that runs.
    alive: HashSet<String>,
}

impl Leftovers {
    /// Looks for what is of none of these pods.
    pub(crate) async fn find(context: &NodeContext, pods: &[&Pod]) -> Self {
        let uids: HashSet<&str> = pods.iter().copied().filter_map(uid).collect();
        let of_logs = context.logs.left_behind(|uid| uids.contains(uid)).await;
        let volumes = context.data_dir.join("pods");
        let of_volumes = entries_but(&volumes, |uid| uids.contains(uid)).await;
        let mut paths = Vec::new();
        for outcome in [of_logs, of_volumes] {
            match outcome {
                Ok(found) => paths.extend(found),
                Err(error) => tracing::warn!(%error, "what earlier pods left behind stays"),
            }
        }
        let alive = pods.iter().copied().filter(|pod| !has_ended(pod));
        Self {
            paths,
            runtimes: context.runtimes.clone(),
            alive: alive.filter_map(uid).map(str::to_owned).collect(),
        }
    }

    /// Removes it.
    pub(crate) async fn remove(self) {
        for runtime in self.runtimes.iter() {
            runtime.keep_pods(&self.alive).await;
        }
        remove_all(self.paths).await;
    }
}

fn uid(pod: &Pod) -> Option<&str> {
    pod.metadata.uid.as_deref()
}

/// Whether nothing of the pod runs any more, nor ever will.
fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

async fn remove_all(paths: Vec<PathBuf>) {
    for path in paths {
        match host_mounts::remove_all(&path).await {
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "an earlier pod's directory stays");
            }
            Ok(()) => {
                tracing::debug!(path = %path.display(), "removed what an earlier pod left behind");
            }
        }
    }
}

/// The entries of a directory whose names `keep` does not know; none if it is not there.
pub(crate) async fn entries_but(
    directory: &Path,
    keep: impl Fn(&str) -> bool,
) -> io::Result<Vec<PathBuf>> {
    let mut entries = match tokio::fs::read_dir(directory).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        if !entry.file_name().to_str().is_some_and(&keep) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::{LogLimits, Logs};

    #[tokio::test]
    async fn what_is_of_no_pod_is_found_and_the_rest_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (logs, volumes) = (directory.path().join("logs"), directory.path().join("pods"));
        for name in [
            "logs/ns_p_uid-1/c",
            "logs/ns_p_uid-2/c",
            "pods/uid-1/v",
            "pods/uid-2/v",
        ] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let keep = |uid: &str| uid == "uid-1";
        let of_logs = Logs::new(logs.clone(), LogLimits::default());
        let mut found = of_logs.left_behind(keep).await.unwrap();
        found.extend(entries_but(&volumes, keep).await.unwrap());
        assert_eq!(found, [logs.join("ns_p_uid-2"), volumes.join("uid-2")]);
        remove_all(found).await;
        assert!(logs.join("ns_p_uid-1/c").exists() && volumes.join("uid-1/v").exists());
        assert!(!logs.join("ns_p_uid-2").exists() && !volumes.join("uid-2").exists());
    }

    #[tokio::test]
    async fn a_directory_that_was_never_made_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let none = entries_but(&directory.path().join("pods"), |_| false).await;
        assert!(none.unwrap().is_empty());
    }
}
