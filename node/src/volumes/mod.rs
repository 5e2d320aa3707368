//! A pod's volumes: one table of types, set up before the first container starts.
//!
//! 1. [`set_up`] finds the type of each volume in [`VOLUMES`] and lets it make a mount source.
//! 2. Types whose content comes from the API keep a task that replaces the content when it changes.
//! 3. Dropping [`PodVolumes`] ends those tasks; [`remove`] deletes what was on disk.
//!
//! To add a type: a file with a [`VolumeType`] and a line in [`VOLUMES`].

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::sync::watch;
use windlass_oci::content_store::Lease;

use crate::downward::NodeView;
use crate::events::ObjectEvents;
use crate::host_mounts;
use crate::images::Images;
use crate::objects::ObjectWatches;
use crate::runtime::MountSource;
use crate::tasks::OwnedTask;

pub use host_path::HostPaths;

mod empty_dir;
mod host_path;
mod image;
mod projection;

/// Every volume type this node offers.
static VOLUMES: &[&dyn VolumeType] = &[
    &empty_dir::EmptyDir,
    &host_path::HostPath,
    &image::ImageVolume,
    &projection::ConfigMapVolume,
    &projection::SecretVolume,
    &projection::DownwardApiVolume,
    &projection::ProjectedVolume,
];

/// What a volume is set up from.
pub(crate) struct VolumeContext {
    pub(crate) client: kube::Client,
    pub(crate) objects: Arc<ObjectWatches>,
    /// The pod, and its changes.
    pub(crate) pod: watch::Receiver<Arc<Pod>>,
    pub(crate) node: NodeView,
    /// Directory of this pod's volumes on disk.
    pub(crate) directory: PathBuf,
    /// What of the node's own files pods may have.
    pub(crate) host_paths: HostPaths,
    /// The agent's own directory.
    pub(crate) data_dir: PathBuf,
    /// Whether the node runs containers of Linux, which can use all that the kernel has.
    pub(crate) for_linux: bool,
    pub(crate) images: Arc<Images>,
    pub(crate) events: ObjectEvents,
}

/// One type of volume.
#[async_trait]
trait VolumeType: Sync {
    /// Whether the volume is of this type.
    fn claims(&self, volume: &Volume) -> bool;

    /// Makes the volume's content available.
    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String>;
}

/// A volume that is set up.
struct Mounted {
    source: MountSource,
    /// Whether nobody may write to it, whatever a mount says.
    read_only: bool,
    /// Keeps the content current.
    _updater: Option<OwnedTask>,
    /// Keeps the image of an image volume on the node.
    _image: Option<Lease>,
}

/// All volumes of one pod.
pub(crate) struct PodVolumes(BTreeMap<String, Mounted>);

/// A volume that can't be set up, in the words of the event `FailedMount`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume {volume:?} : {message}")]
pub(crate) struct VolumeError {
    volume: String,
    message: String,
}

impl PodVolumes {
    /// Where a volume's files are.
    pub(crate) fn source(&self, name: &str) -> Option<&MountSource> {
        self.0.get(name).map(|mounted| &mounted.source)
    }

    /// Whether nobody may write to a volume, whatever a mount says.
    pub(crate) fn is_read_only(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|mounted| mounted.read_only)
    }

    /// The volume's directory, if it has one.
    pub(crate) fn directory(&self, name: &str) -> Option<&Path> {
        match self.source(name)? {
            MountSource::Host { path, .. } => Some(path),
            MountSource::Memory(_) => None,
        }
    }
}

/// Sets up all volumes of the pod.
///
/// Dropping it mid-way leaves at most empty directories behind.
pub(crate) async fn set_up(context: VolumeContext) -> Result<PodVolumes, VolumeError> {
    let context = Arc::new(context);
    let pod = context.pod.borrow().clone();
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    let mut mounted = BTreeMap::new();
    for volume in volumes.into_iter().flatten() {
        let failed = |message| VolumeError {
            volume: volume.name.clone(),
            message,
        };
        let kind = VOLUMES.iter().find(|kind| kind.claims(volume));
        let kind = kind.ok_or_else(|| failed(unsupported(volume)))?;
        let set_up = kind.set_up(&context, volume).await.map_err(failed)?;
        mounted.insert(volume.name.clone(), set_up);
    }
    Ok(PodVolumes(mounted))
}

/// Names the type of a volume this node does not offer, as the API writes it.
fn unsupported(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let fields = value.as_object();
    let kind = fields.and_then(|fields| fields.keys().find(|key| *key != "name"));
    let kind = kind.map_or("(none)", String::as_str);
    format!("volumes of type {kind} are not supported yet by this node")
}

/// Deletes what a pod had on disk.
pub(crate) async fn remove(directory: &Path) -> io::Result<()> {
    host_mounts::remove_all(directory).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_not_offered_is_named() {
        let volume: Volume = serde_json::from_value(
            serde_json::json!({ "name": "v", "nfs": { "path": "/", "server": "s" } }),
        )
        .unwrap();
        assert!(VOLUMES.iter().all(|kind| !kind.claims(&volume)));
        assert!(unsupported(&volume).contains("type nfs"));
    }
}
