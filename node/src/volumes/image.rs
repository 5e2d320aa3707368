//! `image`: what an image holds, read-only. Of a wasm image those are its components as files, the program under the image's
//! name and each that has a name of its own under that: a container runs them by their paths
//! (`kubectl exec … -- /tools/NAME.wasm`), or reads them.
//!
//! A file is a second name (a hard link) of the blob in the content store, where nobody writes to it; the lease keeps the
//! image on the node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Volume;
use windlass_oci::reference::Reference;

use super::{Mounted, VolumeContext, VolumeType};
use crate::images::{ImageRequest, PullSecrets};
use crate::runtime::{ImageKind, MountSource, ResolvedImage};

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
        let files = files(&name_of(&reference), &image);
        let linked = tokio::task::spawn_blocking({
            let path = path.clone();
            move || {
                files
                    .iter()
                    .try_for_each(|(name, blob)| link(&path, name, blob))
            }
        });
        let linked = linked.await.map_err(|error| error.to_string())?;
        linked.map_err(|error| format!("make files in {}: {error}", path.display()))?;
        Ok(Mounted {
            source: MountSource::Host { path, below: None },
            read_only: true,
            _updater: None,
            _image: Some(image.lease.clone()),
        })
    }
}

/// What is in the volume: paths and blobs. A component that is called as the image is comes before the program.
fn files(name: &str, image: &ResolvedImage) -> BTreeMap<PathBuf, PathBuf> {
    let program = (format!("{name}.wasm").into(), image.blob.clone());
    let components = image.components.iter();
    // Names are a stranger's: what leads out of the volume is no file of it.
    let components = components.filter_map(|component| {
        let path = Path::new(&component.name);
        let mut parts = path.components();
        parts
            .all(|part| matches!(part, std::path::Component::Normal(_)))
            .then(|| (path.to_owned(), component.blob.clone()))
    });
    std::iter::once(program).chain(components).collect()
}

/// Gives a blob a name in the volume. Of two files of which one's path is a directory of the other's, the second fails.
fn link(volume: &Path, name: &Path, blob: &Path) -> std::io::Result<()> {
    let file = volume.join(name);
    std::fs::create_dir_all(file.parent().unwrap_or(volume))?;
    match std::fs::hard_link(blob, file) {
        // An earlier try may have come this far.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
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
