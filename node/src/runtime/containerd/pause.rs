//! The image of every sandbox: our own program that waits (`node/pause/pause.rs`), and nothing else.
//!
//! Made in memory from the bytes that the build script compiled; the same bytes give the same image.

use std::collections::BTreeMap;

use serde_json::json;
use windlass_oci::content_store::{ContentError, ContentStore};
use windlass_oci::digest::Digest;
use windlass_oci::manifest::{Descriptor, ImageManifest};
use windlass_oci::{media_type, pull};

use crate::runtime::LinuxImage;

mod built {
    include!(concat!(env!("OUT_DIR"), "/pause.rs"));
}

/// Name of the program in the image.
const PROGRAM: &str = "pause";
const BLOCK: usize = 512;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// The program could not be compiled with the agent.
    #[error("this build has no program for sandboxes: {0}")]
    Missing(&'static str),
    /// The image can't be kept.
    #[error("make the image of sandboxes")]
    Content(#[from] ContentError),
    /// The image can't be described.
    #[error("describe the image of sandboxes")]
    Describe(#[from] serde_json::Error),
}

/// The name of the image, by what is in it.
pub(super) fn name() -> String {
    let digest = Digest::sha256(built::PAUSE);
    let short = digest.hex().get(..12).unwrap_or_default().to_owned();
    format!("windlass.local/pause:{short}")
}

/// Makes the image in a store.
pub(super) async fn image(store: &ContentStore) -> Result<LinuxImage, PauseError> {
    if let Some(reason) = built::MISSING {
        return Err(PauseError::Missing(reason));
    }
    let layer = archive(PROGRAM, built::PAUSE);
    let config = json!({
        "architecture": pull::oci_architecture(), "os": "linux",
        "config": { "Entrypoint": [format!("/{PROGRAM}")] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&layer)] },
    });
    let config = serde_json::to_vec(&config)?;
    let describe =
        |kind: &str, bytes: &[u8]| Descriptor::new(kind, Digest::sha256(bytes), bytes.len() as u64);
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: Some(media_type::IMAGE_MANIFEST.to_owned()),
        artifact_type: None,
        config: describe(media_type::IMAGE_CONFIG, &config),
        layers: vec![describe(media_type::IMAGE_LAYER, &layer)],
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest)?;
    for blob in [&layer, &config, &bytes] {
        store.put(blob).await?;
    }
    Ok(LinuxImage {
        descriptor: describe(media_type::IMAGE_MANIFEST, &bytes),
        manifest,
        store: store.clone(),
        user: String::new(),
    })
}

/// A tar archive of one program. Spec: POSIX ustar.
fn archive(name: &str, program: &[u8]) -> Vec<u8> {
    let mut header = Vec::with_capacity(BLOCK);
    let mut field = |text: String, length: usize| {
        let mut bytes = text.into_bytes();
        bytes.resize(length, 0);
        header.extend(bytes);
    };
    field(name.to_owned(), 100);
    // Mode, owner, group, size, time.
    field(format!("{:07o}", 0o755), 8);
    field(format!("{:07o}", 0), 8);
    field(format!("{:07o}", 0), 8);
    field(format!("{:011o}", program.len()), 12);
    field(format!("{:011o}", 0), 12);
    // The checksum counts itself as blanks.
    field(" ".repeat(8), 8);
    field("0".to_owned(), 1);
    field(String::new(), 100);
    field("ustar".to_owned(), 6);
    field("00".to_owned(), 2);
    field(String::new(), BLOCK - 265);
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let checksum = format!("{sum:06o}\0 ");
    header.splice(148..156, checksum.into_bytes());
    let mut archive = header;
    archive.extend_from_slice(program);
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_image_is_whole_and_holds_the_program() {
        let dir = tempfile::tempdir().unwrap();
        let store = ContentStore::open(dir.path()).await.unwrap();
        let image = image(&store).await.unwrap();
        let again = super::image(&store).await.unwrap();
        assert_eq!(image.descriptor, again.descriptor);
        let layer = &image.manifest.layers[0].digest;
        let file = std::fs::File::open(store.path(layer)).unwrap();
        let out = dir.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let tar = std::process::Command::new("tar")
            .arg("-x")
            .arg("-C")
            .arg(&out)
            .stdin(file)
            .status();
        assert!(tar.unwrap().success());
        assert_eq!(std::fs::read(out.join(PROGRAM)).unwrap(), built::PAUSE);
    }
}
