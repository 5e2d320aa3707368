//! Brings an image into a content store.
//!
//! 1. `Registries` says where the image may be had and with which credentials; each is tried until one gives it.
//! 2. Fetch the manifest by tag or digest; of an index, the manifest for this machine, wasm first.
//! 3. Fetch the configuration, which tells wasm images from those for Linux (`config.rs`), and the layers. The program of
//!    a wasm image is a layer as it is, or a file in one (`layer`), which becomes a blob of its own (`program.rs`).
//! 4. Remember the reference, so that `IfNotPresent` finds the image without the registry, and who may use it
//!    (`stored.rs`).
//!
//! One pull per reference and one download per blob run at a time; a second caller waits and then finds the blobs.
//! Dropping a pull mid-way leaves whole blobs, and partial ones that the next pull goes on with.

mod config;
mod program;
mod stored;
#[cfg(test)]
mod tests;
mod turns;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::content_store::{ContentError, ContentStore, Lease};
use crate::credentials::Keyring;
use crate::digest::Digest;
use crate::layer::{self, ProgramError};
use crate::manifest::{Descriptor, ImageManifest, Manifest, ManifestError};
use crate::media_type;
use crate::reference::Reference;
use crate::registry::client::{ClientError, RegistryClient};
use crate::registry::remote::registries::{Candidate, Registries};
use config::ConfigFile;
pub use config::ImageConfig;
use program::wanted_layers;
pub use program::{Component, Programs};
pub use stored::{ImageAccess, StoredImage};
use stored::{Remembered, name_of};
use turns::Turns;

const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 4 << 20;
/// Largest layer of a wasm image, as it is transferred.
const MAX_LAYER: u64 = 2 << 30;
/// Largest layer of an image for Linux: models of neural networks are the largest there are.
const MAX_LINUX_LAYER: u64 = 128 << 30;
const MAX_LAYERS: usize = 128;
/// Layers of an image that are fetched at a time.
const AT_ONCE: usize = 3;
/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 4;

/// Pulls images into one store.
pub struct Puller {
    registries: Registries,
    store: ContentStore,
    turns: Turns,
    limits: layer::Limits,
}

/// An image that is whole in the content store.
#[derive(Clone, Debug)]
pub struct PulledImage {
    /// Digest of the image manifest: the identity of the image.
    pub digest: Digest,
    /// Points at the manifest.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: ImageManifest,
    /// The parts of the configuration a runtime reads.
    pub config: ImageConfig,
    /// Its `.wasm` files; `None` if it is an image for Linux.
    pub programs: Option<Programs>,
    /// Who may use it without asking the registry.
    pub access: ImageAccess,
    /// Bytes this pull had to fetch.
    pub fetched: u64,
    /// Keeps it in the store.
    pub lease: Lease,
}

/// Why an image is not on the node.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The registry did not give it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// What it gave is no manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The index has nothing for this machine.
    #[error("no match for platform in manifest: neither wasm nor linux/{0}")]
    NoPlatform(String),
    /// Indexes that point at indexes without end.
    #[error("manifest {0} is an index inside more than {MAX_DEPTH} others")]
    NestedIndex(Digest),
    /// More or larger layers than any program has.
    #[error("{0}")]
    TooLarge(String),
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The configuration is not JSON of the right shape.
    #[error("malformed image configuration: {0}")]
    Config(#[source] serde_json::Error),
    /// JSON of our own could not be written.
    #[error("remember the image: {0}")]
    Remember(#[source] serde_json::Error),
    /// There is no program in it.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// TLS cannot be set up.
    #[error("set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// A task of ours failed.
    #[error("read the image's layers: {0}")]
    Task(String),
    /// Each of several registries, or credentials, failed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<PullError>),
}

impl PullError {
    /// Whether another registry would not help.
    const fn is_ours(&self) -> bool {
        match self {
            Self::Content(error) | Self::Client(ClientError::Content(error)) => {
                // Bytes that are not what they should be came from the registry.
                !matches!(error, ContentError::DigestMismatch { .. })
            }
            error => matches!(error, Self::Task(_) | Self::Tls(_)),
        }
    }

    /// Whether other credentials for the same registry may help.
    const fn is_denial(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_denial())
    }
}

impl Puller {
    /// Pulls from these registries into this store.
    #[must_use]
    pub fn new(registries: Registries, store: ContentStore) -> Self {
        Self {
            registries,
            store,
            turns: Turns::default(),
            limits: layer::Limits::default(),
        }
    }

    /// The store images go to.
    #[must_use]
    pub const fn store(&self) -> &ContentStore {
        &self.store
    }

    /// The image as last pulled under this reference, if it is whole in the store.
    ///
    /// # Errors
    /// The store failed or holds a malformed manifest.
    pub async fn local(&self, reference: &Reference) -> Result<Option<PulledImage>, PullError> {
        let Some(found) = self.remembered(reference).await? else {
            return Ok(None);
        };
        let digest = found.descriptor.digest.clone();
        let lease = self.store.lease([digest.clone()]);
        let Some(manifest) = self.stored_manifest(&found.descriptor).await? else {
            return Ok(None);
        };
        let lease = self.lease(&digest, &manifest, found.programs.as_ref(), lease);
        let programs = found.programs.iter().flat_map(Programs::digests);
        let needed = std::iter::once(&manifest.config.digest).chain(programs);
        for blob in needed {
            if self.store.size(blob).await?.is_none() {
                return Ok(None);
            }
        }
        let file = self.read_config(&manifest).await?;
        // An image without its program is one for Linux, or was forgotten in part.
        if found.programs.is_none()
            && (file.is_wasm(&manifest) || !self.has_layers(&manifest).await?)
        {
            return Ok(None);
        }
        Ok(Some(PulledImage {
            descriptor: Descriptor::new(
                found.descriptor.media_type.clone(),
                digest.clone(),
                found.descriptor.size,
            ),
            digest,
            manifest,
            config: file.config.unwrap_or_default(),
            programs: found.programs,
            access: found.access,
            fetched: 0,
            lease,
        }))
    }

    /// Whether whoever has these credentials may use an image of this access.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn may_use(
        &self,
        access: &ImageAccess,
        reference: &Reference,
        keyring: &Keyring,
    ) -> Result<bool, PullError> {
        let candidates = self.registries.candidates(reference, keyring)?;
        let mut origins = candidates.iter().map(|candidate| candidate.origin.as_ref());
        Ok(origins.any(|origin| access.allows(origin)))
    }

    /// Pulls an image, asking the registry what the reference means now.
    ///
    /// # Errors
    /// The image can't be had; see [`PullError`].
    pub async fn pull(
        &self,
        reference: &Reference,
        keyring: &Keyring,
    ) -> Result<PulledImage, PullError> {
        let _turn = self.turns.take(&reference.to_string()).await;
        let candidates = self.registries.candidates(reference, keyring)?;
        let mut failed: Vec<PullError> = Vec::new();
        // A registry that failed in another way than by a denial is not asked again.
        let mut given_up: Option<&str> = None;
        for candidate in &candidates {
            if given_up == Some(candidate.host.as_str()) {
                continue;
            }
            match self.pull_from(candidate, reference).await {
                Ok(image) => return Ok(image),
                Err(error) if error.is_ours() => return Err(error),
                Err(error) => {
                    given_up = (!error.is_denial()).then_some(candidate.host.as_str());
                    failed.push(error);
                }
            }
        }
        failed.dedup_by_key(|error| error.to_string());
        match failed.len() {
            1 => Err(failed.remove(0)),
            _ => Err(PullError::Several(failed)),
        }
    }

    async fn pull_from(
        &self,
        candidate: &Candidate,
        reference: &Reference,
    ) -> Result<PulledImage, PullError> {
        let Candidate {
            client, repository, ..
        } = candidate;
        let (digest, manifest, bytes) = resolve(client, repository, reference).await?;
        check_size(&manifest.config, MAX_CONFIG)?;
        let lease = self.lease(&digest, &manifest, None, Lease::default());
        let mut fetched = self.fetch(candidate, &manifest.config).await?;
        let file = self.read_config(&manifest).await?;
        let programs = if file.is_wasm(&manifest) {
            let layers = wanted_layers(&manifest);
            fetched += self.fetch_layers(candidate, &layers, MAX_LAYER).await?;
            Some(self.programs(&layers, file.config.as_ref()).await?)
        } else {
            let layers: Vec<_> = manifest.layers.iter().collect();
            fetched += self
                .fetch_layers(candidate, &layers, MAX_LINUX_LAYER)
                .await?;
            None
        };
        let (programs, made) = programs.unzip();
        let lease = self.lease(&digest, &manifest, programs.as_ref(), lease);
        drop(made);
        let access = ImageAccess::with(candidate.origin.as_ref());
        let access = self
            .remember(
                reference,
                (&digest, &manifest, &bytes),
                programs.clone(),
                access,
            )
            .await?;
        Ok(PulledImage {
            descriptor: Descriptor::new(
                media_type_of(&manifest),
                digest.clone(),
                bytes.len() as u64,
            ),
            digest,
            manifest,
            config: file.config.unwrap_or_default(),
            programs,
            access,
            fetched,
            lease,
        })
    }

    /// Keeps everything of an image; `earlier` is held until that is so.
    fn lease(
        &self,
        digest: &Digest,
        manifest: &ImageManifest,
        programs: Option<&Programs>,
        earlier: Lease,
    ) -> Lease {
        let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
        let parts = parts.map(|part| part.digest.clone());
        let programs = programs.into_iter().flat_map(Programs::digests).cloned();
        let lease = self
            .store
            .lease(parts.chain([digest.clone()]).chain(programs));
        drop(earlier);
        lease
    }

    /// Has layers in the store; answers the bytes that took.
    async fn fetch_layers(
        &self,
        candidate: &Candidate,
        layers: &[&Descriptor],
        limit: u64,
    ) -> Result<u64, PullError> {
        check_layers(layers, limit)?;
        let fetches = layers.iter().map(|layer| self.fetch(candidate, layer));
        let fetches = stream::iter(fetches.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        fetches
            .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
            .await
    }

    async fn has_layers(&self, manifest: &ImageManifest) -> Result<bool, PullError> {
        for layer in &manifest.layers {
            if self.store.size(&layer.digest).await?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has a blob in the store; answers the bytes that took.
    async fn fetch(&self, candidate: &Candidate, blob: &Descriptor) -> Result<u64, PullError> {
        let _turn = self.turns.take(&blob.digest.to_string()).await;
        if self.store.size(&blob.digest).await?.is_some() {
            return Ok(0);
        }
        let Candidate {
            client, repository, ..
        } = candidate;
        Ok(client.pull_blob(repository, blob, &self.store).await?)
    }

    async fn remember(
        &self,
        reference: &Reference,
        (digest, manifest, bytes): (&Digest, &ImageManifest, &Bytes),
        programs: Option<Programs>,
        access: ImageAccess,
    ) -> Result<ImageAccess, PullError> {
        let mut writer = self.store.writer(digest.algorithm(), MAX_MANIFEST).await?;
        writer.write(bytes).await?;
        writer.commit(Some(digest)).await?;
        let known = self.remembered(reference).await?;
        let known = known.filter(|known| known.descriptor.digest == *digest);
        let access = match known {
            Some(known) => known.access.or(access),
            None => access,
        };
        let remembered = Remembered {
            descriptor: Descriptor::new(
                media_type_of(manifest),
                digest.clone(),
                bytes.len() as u64,
            ),
            programs,
            access: access.clone(),
        };
        let (name, leaf) = (name_of(reference), reference.manifest_reference());
        self.store
            .set_ref(
                &name,
                &leaf,
                &remembered.write().map_err(PullError::Remember)?,
            )
            .await?;
        Ok(access)
    }

    async fn read_config(&self, manifest: &ImageManifest) -> Result<ConfigFile, PullError> {
        if !media_type::is_image_config(&manifest.config.media_type) {
            return Ok(ConfigFile::default());
        }
        let bytes = self.store.read(&manifest.config.digest, MAX_CONFIG).await?;
        serde_json::from_slice(&bytes).map_err(PullError::Config)
    }
}

fn media_type_of(manifest: &ImageManifest) -> &str {
    let media_type = manifest.media_type.as_deref();
    media_type.unwrap_or(media_type::IMAGE_MANIFEST)
}

/// Finds the image manifest that a reference means for this machine.
async fn resolve(
    client: &RegistryClient,
    repository: &str,
    reference: &Reference,
) -> Result<(Digest, ImageManifest, Bytes), PullError> {
    let architecture = oci_architecture();
    let mut wanted = reference.manifest_reference();
    for _ in 0..=MAX_DEPTH {
        let served = client.manifest(repository, &wanted).await?;
        let index = match Manifest::parse(&served.bytes, served.media_type.as_deref())? {
            Manifest::Image(manifest) => return Ok((served.digest, manifest, served.bytes)),
            Manifest::Index(index) => index,
        };
        let chosen = index.select(architecture);
        let chosen = chosen.ok_or_else(|| PullError::NoPlatform(architecture.to_owned()))?;
        wanted = chosen.digest.to_string();
    }
    let digest = wanted.parse().unwrap_or_else(|_| Digest::sha256(b""));
    Err(PullError::NestedIndex(digest))
}

fn check_layers(layers: &[&Descriptor], limit: u64) -> Result<(), PullError> {
    if layers.len() > MAX_LAYERS {
        let text = format!("the image has more than {MAX_LAYERS} layers");
        return Err(PullError::TooLarge(text));
    }
    let mut layers = layers.iter();
    layers.try_for_each(|layer| check_size(layer, limit))
}

fn check_size(blob: &Descriptor, limit: u64) -> Result<(), PullError> {
    if blob.size <= limit {
        return Ok(());
    }
    let Descriptor { digest, size, .. } = blob;
    let text = format!("blob {digest} has {size} bytes, more than {limit}");
    Err(PullError::TooLarge(text))
}

/// This machine's architecture in OCI's (Go's) words.
#[must_use]
pub fn oci_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
