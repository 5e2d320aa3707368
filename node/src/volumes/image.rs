//! `image`: what an image holds, read-only. Of a wasm artifact, or an image with one program in it, that is the component as a
//! file: a container runs it by its path (`kubectl exec … -- /tools/NAME.wasm`), or reads it.
//!
//! The file is a second name (a hard link) of the blob in the content store, where nobody writes to it; the lease keeps the
//! image on the node.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;
use windlass_oci::reference::Reference;

use super::{Mounted, VolumeContext, VolumeType};
use crate::images::{ImageRequest, PullSecrets};
use crate::runtime::{ImageKind, MountSource};

pub(super) struct ImageVolume;

#[async_trait]
impl VolumeType for ImageVolume {
    fn claims(&self, volume: &Volume) -> bool {
        volume.image.is_some()
    }

    /// Differs from Kubernetes: the files of images for Linux are not mounted, and the mount says so.
    async fn set_up(
        &self,
        context: &Arc<VolumeContext>,
        volume: &Volume,
    ) -> Result<Mounted, String> {
        let source = volume.image.as_ref();
        let reference = source.and_then(|source| source.reference.clone());
        let reference = reference.ok_or("image.reference is missing")?;
        let request = ImageRequest {
            container: None,
            image: reference.clone(),
            pull_policy: source.and_then(|source| source.pull_policy.clone()),
        };
        let pod = context.pod.borrow().clone();
        let secrets = PullSecrets::of(&pod, context.client.clone());
        let image = context
            .images
            .resolve(&request, &secrets, &context.events)
            .await
            .map_err(|error| error.to_string())?;
        if image.kind == ImageKind::Linux {
            return Err(format!(
                "image {reference:?} holds no WebAssembly, and files of other images can't be mounted"
            ));
        }
        let path = context.directory.join(&volume.name);
        let file = path.join(format!("{}.wasm", name_of(&reference)));
        let blob = image.blob.clone();
        let linked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                std::fs::create_dir_all(&path)?;
                // An earlier try may have come this far.
                match std::fs::hard_link(blob, file) {
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                    linked => linked,
                }
            }
        });
        let linked = linked.await.map_err(|error| error.to_string())?;
        linked.map_err(|error| format!("make {}: {error}", path.display()))?;
        Ok(Mounted {
            source: MountSource::Host { path, below: None },
            read_only: true,
            _updater: None,
            _image: Some(image.lease.clone()),
        })
    }
}

/// The last part of an image's name, without tag and digest.
fn name_of(reference: &str) -> String {
    let parsed = reference.parse::<Reference>();
    let repository = parsed.as_ref().map_or(reference, Reference::repository);
    repository.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_called_as_the_image() {
        for (reference, name) in [
            ("registry.windlass.local/default/tools:v1", "tools"),
            ("example.com/a/b/c:1", "c"),
            ("tool", "tool"),
        ] {
            assert_eq!(name_of(reference), name, "{reference}");
        }
    }
}
