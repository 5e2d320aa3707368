//! `emptyDir`: a directory that lives as long as the pod.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;
use windlass_api::quantity::Quantity;

use super::{Mounted, VolumeContext, VolumeType};
use crate::host_mounts;
use crate::runtime::MountSource;

/// Spec: whoever a container runs as may use it; the directories above are the agent's alone.
const MODE: u32 = 0o777;

pub(super) struct EmptyDir;

#[async_trait]
impl VolumeType for EmptyDir {
    fn claims(&self, volume: &Volume) -> bool {
        volume.empty_dir.is_some()
    }

    /// Differs from Kubernetes: on a node without containers of Linux, `medium: Memory` is a directory on disk too.
    /// `sizeLimit` is watched over by the pod's worker (`pods/worker/storage.rs`), and bounds what is in memory.
    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let path = context.directory.join(&volume.name);
        let source = volume.empty_dir.clone().unwrap_or_default();
        let in_memory = context.for_linux && source.medium.as_deref() == Some("Memory");
        let made = if in_memory {
            let limit = source
                .size_limit
                .and_then(|limit| limit.0.parse::<Quantity>().ok());
            let limit = limit.and_then(|limit| u64::try_from(limit.units()).ok());
            let limit = limit.filter(|limit| *limit > 0);
            host_mounts::in_memory(&path, limit, MODE).await
        } else {
            make(&path).await
        };
        made.map_err(|error| format!("make {}: {error}", path.display()))?;
        Ok(Mounted {
            source: MountSource::Host { path, below: None },
            read_only: false,
            _updater: None,
            _image: None,
        })
    }
}

async fn make(path: &Path) -> io::Result<()> {
    tokio::fs::create_dir_all(path).await?;
    let permissions = std::fs::Permissions::from_mode(MODE);
    tokio::fs::set_permissions(path, permissions).await
}
