//! `emptyDir`: a directory that lives as long as the pod.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;

use super::{Mounted, VolumeContext, VolumeType};
use crate::runtime::MountSource;

pub(super) struct EmptyDir;

#[async_trait]
impl VolumeType for EmptyDir {
    fn claims(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    /// Differs from Kubernetes: `medium: Memory` is a directory on disk too. `sizeLimit` is watched over by the pod's
    /// worker (`pods/worker/storage.rs`).
    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let path = context.directory.join(&volume.name);
        tokio::fs::create_dir_all(&path)
            .await
            .map_err(|error| format!("make {}: {error}", path.display()))?;
        Ok(Mounted {
            source: MountSource::Host { path, below: None },
            read_only: false,
            _updater: None,
            _image: None,
        })
    }
}
