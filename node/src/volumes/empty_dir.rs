//! `emptyDir`: a directory that lives as long as the pod.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;
use windlass_api::quantity::Quantity;

use super::{Mounted, VolumeContext, VolumeType};
use crate::runtime::MountSource;

pub(super) struct EmptyDir;

#[async_trait]
impl VolumeType for EmptyDir {
    fn claims(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    /// Differs from Kubernetes: `medium: Memory` is a directory on disk too, with the same size limit.
    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let path = context.directory.join(&volume.name);
        tokio::fs::create_dir_all(&path)
            .await
            .map_err(|error| format!("make {}: {error}", path.display()))?;
        let limit = volume
            .empty_dir
            .as_ref()
            .and_then(|source| source.size_limit.as_ref());
        let size_limit = limit
            .map(|limit| {
                limit
                    .0
                    .parse::<Quantity>()
                    .map_err(|error| error.to_string())
            })
            .transpose()?
            .and_then(|limit| u64::try_from(limit.units()).ok())
            .filter(|limit| *limit > 0);
        Ok(Mounted {
            source: MountSource::Host {
                path,
                below: None,
                size_limit,
            },
            read_only: false,
            _updater: None,
            _image: None,
        })
    }
}
