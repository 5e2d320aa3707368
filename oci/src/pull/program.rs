//! The programs of a wasm image: which layers may hold them, and how they become blobs of their own.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ImageConfig, PullError, Puller};
use crate::content_store::{BlobWriter, Lease};
use crate::digest::{Algorithm, Digest};
use crate::layer::{self, Choice, ProgramError};
use crate::manifest::{Descriptor, ImageManifest};
use crate::media_type;

/// The WebAssembly files of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// What a container runs that asks for nothing else.
    pub main: Digest,
    /// What can be asked for by name, the main one first if it has a name.
    pub components: Vec<Component>,
}

/// A WebAssembly file of an image that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Its path from the image's root without a slash before it, or its layer's title.
    pub name: String,
    /// Digest of the file.
    pub digest: Digest,
}

impl Programs {
    /// The digests of all, of which some may be twice.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        let components = self.components.iter().map(|component| &component.digest);
        std::iter::once(&self.main).chain(components)
    }
}

/// The layers that may hold the program: those that are wasm by their type, else all.
pub(super) fn wanted_layers(manifest: &ImageManifest) -> Vec<&Descriptor> {
    let wasm: Vec<_> = manifest.wasm_layers().collect();
    match wasm.is_empty() {
        false => wasm,
        true => manifest.layers.iter().collect(),
    }
}

impl Puller {
    /// Finds the programs in the layers, and makes blobs of those that are none already; the leases keep what was made.
    pub(super) async fn programs(
        &self,
        layers: &[&Descriptor],
        config: Option<&ImageConfig>,
    ) -> Result<(Programs, Vec<Lease>), PullError> {
        let program = config.and_then(ImageConfig::program);
        let directory = config.and_then(|config| config.working_dir.as_deref());
        let named: Arc<[String]> = layer::named_paths(program, directory).into();
        let mut listings = Vec::new();
        for layer in layers {
            let (path, named) = (self.store.path(&layer.digest), named.clone());
            let title = layer.annotations.get(media_type::TITLE).cloned();
            let limits = self.limits;
            let listing =
                blocking(move || layer::list(open(&path)?, title.as_deref(), &named, limits));
            listings.push(listing.await?);
        }
        let chosen = layer::choose(&listings, &named)?;
        let mut leases = Vec::new();
        let mut digests = vec![None; chosen.len()];
        for (at, layer) in layers.iter().enumerate() {
            let here = chosen.iter().enumerate();
            let here = here.filter(|(_, choice)| choice.layer == at);
            let (places, choices): (Vec<usize>, Vec<_>) = here.unzip();
            let blobs = self.blobs(&layer.digest, &choices, &mut leases).await?;
            for (place, digest) in places.into_iter().zip(blobs) {
                if let Some(slot) = digests.get_mut(place) {
                    *slot = digest;
                }
            }
        }
        let main = digests.first().cloned().flatten();
        let components = chosen
            .into_iter()
            .zip(digests)
            .filter_map(|(choice, digest)| {
                Some(Component {
                    name: choice.name?,
                    digest: digest?,
                })
            });
        let programs = Programs {
            // A file without a byte is no program.
            main: main.ok_or(ProgramError::None)?,
            components: components.collect(),
        };
        Ok((programs, leases))
    }

    /// The blobs of what was chosen of a layer; the leases keep those that were made.
    async fn blobs(
        &self,
        layer: &Digest,
        choices: &[&Choice],
        leases: &mut Vec<Lease>,
    ) -> Result<Vec<Option<Digest>>, PullError> {
        let paths = choices.iter().filter(|choice| choice.in_archive);
        let paths: Vec<_> = paths.filter_map(|choice| choice.name.clone()).collect();
        if choices.is_empty() || (paths.is_empty() && self.is_plain(layer).await?) {
            return Ok(vec![Some(layer.clone()); choices.len()]);
        }
        self.extract(layer, paths, leases).await
    }

    /// Whether the layer is the program without compression.
    async fn is_plain(&self, layer: &Digest) -> Result<bool, PullError> {
        let path = self.store.path(layer);
        let start = move || {
            use std::io::Read;
            let mut start = Vec::new();
            open(&path)?.take(4).read_to_end(&mut start)?;
            Ok(start)
        };
        Ok(blocking(start).await? == b"\0asm")
    }

    /// Makes blobs of files of a layer, or of what a layer holds that is compressed.
    async fn extract(
        &self,
        layer: &Digest,
        paths: Vec<String>,
        leases: &mut Vec<Lease>,
    ) -> Result<Vec<Option<Digest>>, PullError> {
        let source = self.store.path(layer);
        let limits = self.limits;
        let mut digests = vec![None; paths.len().max(1)];
        let (sender, mut chunks) = tokio::sync::mpsc::channel::<(usize, Bytes)>(4);
        let reading = blocking(move || {
            layer::extract(open(&source)?, &paths, limits, |at, bytes| {
                let sent = sender.blocking_send((at, Bytes::copy_from_slice(bytes)));
                sent.map_err(|_| std::io::Error::other("the program is not wanted any more"))
            })
        });
        let writing = async {
            let mut files: Vec<(usize, BlobWriter)> = Vec::new();
            while let Some((at, chunk)) = chunks.recv().await {
                // The files come one after the other.
                let writer = match files.last_mut() {
                    Some((place, writer)) if *place == at => writer,
                    _ => {
                        let writer = self.store.writer(Algorithm::Sha256, limits.program).await?;
                        files.push((at, writer));
                        let Some((_, writer)) = files.last_mut() else {
                            continue;
                        };
                        writer
                    }
                };
                writer.write(&chunk).await?;
            }
            Ok(files)
        };
        let (_, files) = tokio::try_join!(reading, writing)?;
        for (at, writer) in files {
            let made = self.store.lease([writer.digest()]);
            let digest = writer.commit(None).await?;
            leases.push(made);
            if let Some(slot) = digests.get_mut(at) {
                *slot = Some(digest);
            }
        }
        Ok(digests)
    }
}

fn open(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// Runs what reads files and decompresses, away from the runtime. A panic of a decoder is an error.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProgramError> + Send + 'static,
) -> Result<T, PullError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| PullError::Task(error.to_string()))??)
}
