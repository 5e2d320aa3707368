//! Bounds of what a pod keeps on the node's disk: sizes of emptyDirs and limits of `ephemeral-storage`.
//!
//! 1. A pod that has a bound is looked at every ten seconds, as by kubelet; others cost nothing.
//! 2. A container keeps its logs, a pod besides that its emptyDirs.
//! 3. Over a bound the pod is evicted: it fails with reason `Evicted` and a message that names the bound.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc;
use windlass_api::pod_resources::{self, amounts};
use windlass_api::quantity::Quantity;

use super::{Message, PodWorker};
use crate::pods::facts::containers;
use crate::tasks::OwnedTask;
use crate::volumes::PodVolumes;

/// How often a pod is looked at.
const PERIOD: Duration = Duration::from_secs(10);
const RESOURCE: &str = "ephemeral-storage";

/// The bounds of one pod, and where what they bound lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bounds {
    /// Of emptyDirs: name, directory, bound.
    volumes: Vec<(String, PathBuf, Option<Quantity>)>,
    /// Of containers: name, directory of the logs, bound.
    containers: Vec<(String, PathBuf, Option<Quantity>)>,
    /// Of the pod.
    pod: Option<Quantity>,
}

impl PodWorker {
    /// Watches over the pod's storage, if it has bounds.
    pub(super) fn watch_storage(&self, pod: &Pod, volumes: &PodVolumes) -> Option<OwnedTask> {
        let logs = |name: &str| self.context.logs.directory(&self.identity, name);
        let bounds = Bounds::of(pod, volumes, logs);
        let sender = self.sender.clone();
        bounds
            .any()
            .then(|| OwnedTask::spawn(watch(Arc::new(bounds), sender)))
    }
}

async fn watch(bounds: Arc<Bounds>, sender: mpsc::UnboundedSender<Message>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let bounds = bounds.clone();
        match tokio::task::spawn_blocking(move || bounds.exceeded()).await {
            Ok(None) => {}
            Ok(Some(message)) => {
                let _ = sender.send(Message::Evicted(message));
                return;
            }
            Err(error) => tracing::warn!(%error, "looking at a pod's storage failed"),
        }
    }
}

impl Bounds {
    fn of(pod: &Pod, volumes: &PodVolumes, logs: impl Fn(&str) -> PathBuf) -> Self {
        let Some(spec) = &pod.spec else {
            return Self::default();
        };
        let limit_of = |container: &Container| {
            let resources = container.resources.as_ref();
            amounts(resources.and_then(|resources| resources.limits.as_ref()))
                .get(RESOURCE)
                .copied()
        };
        let containers = containers(spec).map(|(_, container)| {
            let name = container.name.clone();
            (name, logs(&container.name), limit_of(container))
        });
        let volumes = spec.volumes.iter().flatten().filter_map(|volume| {
            let source = volume.empty_dir.as_ref()?;
            let limit = source.size_limit.as_ref();
            let limit = limit.and_then(|limit| limit.0.parse::<Quantity>().ok());
            let path = volumes.directory(&volume.name)?.to_owned();
            Some((
                volume.name.clone(),
                path,
                limit.filter(|limit| !limit.is_zero()),
            ))
        });
        Self {
            volumes: volumes.collect(),
            containers: containers.collect(),
            pod: pod_resources::limits(spec).get(RESOURCE).copied(),
        }
    }

    fn any(&self) -> bool {
        let mut all = self.volumes.iter().chain(&self.containers);
        self.pod.is_some() || all.any(|(_, _, bound)| bound.is_some())
    }

    /// Which bound is exceeded, in the words of kubelet.
    fn exceeded(&self) -> Option<String> {
        let mut total = 0;
        for (name, path, bound) in &self.volumes {
            let used = DiskUse::of(path).bytes;
            if let Some(bound) = bound.filter(|bound| used > bytes(*bound)) {
                return Some(format!(
                    "Usage of EmptyDir volume {name:?} exceeds the limit \"{bound}\". "
                ));
            }
            total += used;
        }
        let logs = self
            .containers
            .iter()
            .map(|(_, path, _)| DiskUse::of(path).bytes);
        let logs: Vec<u64> = logs.collect();
        total += logs.iter().sum::<u64>();
        if let Some(bound) = self.pod.filter(|bound| total > bytes(*bound)) {
            return Some(format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {bound}. "
            ));
        }
        let mut containers = self.containers.iter().zip(logs);
        containers.find_map(|((name, _, bound), used)| {
            let bound = bound.filter(|bound| used > bytes(*bound))?;
            Some(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{bound}\". "
            ))
        })
    }
}

fn bytes(bound: Quantity) -> u64 {
    u64::try_from(bound.units()).unwrap_or(0)
}

/// What is below a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskUse {
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// Files, directories and links.
    pub(crate) files: u64,
}

impl DiskUse {
    /// Looks at the disk. What can't be looked at, such as a file removed meanwhile, counts nothing.
    pub(crate) fn of(path: &Path) -> Self {
        let mut found = Self::default();
        let mut left = vec![path.to_owned()];
        while let Some(directory) = left.pop() {
            let Ok(entries) = std::fs::read_dir(directory) else {
                continue;
            };
            for entry in entries.flatten() {
                // Of a symbolic link itself, not of what it leads to.
                let Ok(metadata) = entry.metadata() else {
                    continue;
                };
                found.files += 1;
                match metadata.is_dir() {
                    true => left.push(entry.path()),
                    false => found.bytes += metadata.len(),
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_is_exceeded_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, logs) = (dir.path().join("v"), dir.path().join("a"));
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::create_dir_all(&logs).unwrap();
        std::fs::write(volume.join("sub/file"), vec![0; 2000]).unwrap();
        std::os::unix::fs::symlink("/proc/self/exe", volume.join("link")).unwrap();
        std::fs::write(logs.join("0.log"), vec![0; 1500]).unwrap();
        let bounds = |of_volume: &str, of_container: &str, of_pod: &str| {
            let bound = |text: &str| text.parse().ok();
            Bounds {
                volumes: vec![("v".to_owned(), volume.clone(), bound(of_volume))],
                containers: vec![("a".to_owned(), logs.clone(), bound(of_container))],
                pod: bound(of_pod),
            }
        };
        for (of_volume, of_container, of_pod, wanted) in [
            ("3k", "2k", "4k", None),
            ("", "", "", None),
            (
                "1Ki",
                "",
                "",
                Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". "),
            ),
            (
                "",
                "1Ki",
                "",
                Some("Container a exceeded its local ephemeral storage limit \"1Ki\". "),
            ),
            (
                "",
                "",
                "3k",
                Some(
                    "Pod ephemeral local storage usage exceeds the total limit of containers 3k. ",
                ),
            ),
        ] {
            let bounds = bounds(of_volume, of_container, of_pod);
            assert_eq!(bounds.exceeded().as_deref(), wanted);
            let any = [of_volume, of_container, of_pod]
                .iter()
                .any(|of| !of.is_empty());
            assert_eq!(bounds.any(), any);
        }
    }

    #[test]
    fn files_without_content_count_as_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        for name in ["a", "sub/b", "sub/c"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = DiskUse::of(dir.path());
        assert_eq!(found, DiskUse { bytes: 0, files: 4 });
        assert_eq!(DiskUse::of(&dir.path().join("none")), DiskUse::default());
    }
}
