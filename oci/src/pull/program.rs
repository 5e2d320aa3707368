//! The program of a wasm image: which layers may hold it, and how it becomes a blob of its own.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::{ImageConfig, PullError, Puller};
use crate::content_store::Lease;
use crate::digest::{Algorithm, Digest};
use crate::layer::{self, ProgramError};
use crate::manifest::{Descriptor, ImageManifest};

/// The layers that may hold the program: the one that is wasm by its type, else all.
pub(super) fn wanted_layers(manifest: &ImageManifest) -> Vec<&Descriptor> {
    match manifest.wasm_layer() {
        Some(layer) => vec![layer],
        None => manifest.layers.iter().collect(),
    }
}

impl Puller {
    /// Finds the program in the layers, and makes it a blob if it is not one already; the lease keeps what was made.
    pub(super) async fn program(
        &self,
        layers: &[&Descriptor],
        config: Option<&ImageConfig>,
    ) -> Result<(Digest, Lease), PullError> {
        let program = config.and_then(ImageConfig::program);
        let directory = config.and_then(|config| config.working_dir.as_deref());
        let named: Arc<[String]> = layer::named_paths(program, directory).into();
        let mut listings = Vec::new();
        for layer in layers {
            let (path, named) = (self.store.path(&layer.digest), named.clone());
            let limits = self.limits;
            let listing = blocking(move || layer::list(open(&path)?, &named, limits));
            listings.push(listing.await?);
        }
        let choice = layer::choose(&listings, &named)?;
        let layer = layers.get(choice.layer).ok_or(ProgramError::None)?;
        if choice.path.is_none() && self.is_plain(&layer.digest).await? {
            return Ok((layer.digest.clone(), Lease::default()));
        }
        self.extract(&layer.digest, choice.path).await
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

    async fn extract(
        &self,
        layer: &Digest,
        path: Option<String>,
    ) -> Result<(Digest, Lease), PullError> {
        let source = self.store.path(layer);
        let limits = self.limits;
        let mut writer = self.store.writer(Algorithm::Sha256, limits.program).await?;
        let (sender, mut chunks) = tokio::sync::mpsc::channel::<Bytes>(4);
        let reading = blocking(move || {
            layer::extract(
                open(&source)?,
                path.as_deref(),
                limits,
                ChannelWriter(sender),
            )
        });
        let writing = async {
            while let Some(chunk) = chunks.recv().await {
                writer.write(&chunk).await?;
            }
            Ok(writer)
        };
        let (_, writer) = tokio::try_join!(reading, writing)?;
        let digest = writer.digest();
        let lease = self.store.lease([digest]);
        Ok((writer.commit(None).await?, lease))
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

/// Hands what is written to a task that may wait for the disk.
struct ChannelWriter(tokio::sync::mpsc::Sender<Bytes>);

impl std::io::Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        let gone = |_| std::io::Error::other("the program is not wanted any more");
        sent.map_err(gone).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
