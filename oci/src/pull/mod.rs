//! Brings an image into a content store.
//!
//! 1. `Registries` says where the image may be had and with which credentials; each is tried until one gives it.
//! 2. Fetch the manifest by tag or digest; of an index, the manifest for this machine, wasm first.
//! 3. Fetch the configuration, which tells wasm images from those for Linux (`config.rs`), and the layers of a wasm
//!    image. Its program is a layer as it is, or a file in one (`layer`), which becomes a blob of its own.
//! 4. Remember the reference, so that `IfNotPresent` finds the image without the registry, and who may use it
//!    (`stored.rs`).
//!
//! One pull per reference and one download per blob run at a time; a second caller waits and then finds the blobs.
//! Dropping a pull mid-way leaves whole blobs, and partial ones that the next pull goes on with.

mod config;
mod stored;
mod turns;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::content_store::{ContentError, ContentStore, Lease};
use crate::credentials::Keyring;
use crate::digest::{Algorithm, Digest};
use crate::layer::{self, ProgramError};
use crate::manifest::{Descriptor, ImageManifest, Manifest, ManifestError};
use crate::media_type;
use crate::reference::Reference;
use crate::registry::client::{ClientError, RegistryClient};
use crate::registry::remote::registries::{Candidate, Registries};
use config::ConfigFile;
pub use config::ImageConfig;
pub use stored::{ImageAccess, StoredImage};
use stored::{Remembered, name_of};
use turns::Turns;

const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 4 << 20;
/// Largest layer of a wasm image, as it is transferred.
const MAX_LAYER: u64 = 2 << 30;
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
    /// The manifest.
    pub manifest: ImageManifest,
    /// The parts of the configuration a runtime reads.
    pub config: ImageConfig,
    /// The `.wasm` file that is its program; `None` if it is an image for Linux.
    pub program: Option<Digest>,
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
        matches!(
            self,
            Self::Content(_) | Self::Task(_) | Self::Tls(_) | Self::Client(ClientError::Content(_))
        )
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
        let lease = self.lease(&digest, &manifest, found.program.as_ref(), lease);
        let needed = std::iter::once(&manifest.config.digest).chain(&found.program);
        for blob in needed {
            if self.store.size(blob).await?.is_none() {
                return Ok(None);
            }
        }
        let file = self.read_config(&manifest).await?;
        // An image without its program is one for Linux, or was forgotten in part.
        if found.program.is_none() && file.is_wasm(&manifest) {
            return Ok(None);
        }
        Ok(Some(PulledImage {
            digest,
            manifest,
            config: file.config.unwrap_or_default(),
            program: found.program,
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
        check_size(&manifest)?;
        let lease = self.lease(&digest, &manifest, None, Lease::default());
        let mut fetched = self.fetch(candidate, &manifest.config).await?;
        let file = self.read_config(&manifest).await?;
        let program = if file.is_wasm(&manifest) {
            let layers = wanted_layers(&manifest);
            let fetches = layers.iter().map(|layer| self.fetch(candidate, layer));
            let fetches = stream::iter(fetches.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
            fetched += fetches
                .try_fold(0, |sum, bytes| async move { Ok(sum + bytes) })
                .await?;
            Some(self.program(&layers, file.config.as_ref()).await?)
        } else {
            None
        };
        let lease = self.lease(&digest, &manifest, program.as_ref(), lease);
        let access = ImageAccess::with(candidate.origin.as_ref());
        let access = self
            .remember(
                reference,
                (&digest, &manifest, &bytes),
                program.clone(),
                access,
            )
            .await?;
        Ok(PulledImage {
            digest,
            manifest,
            config: file.config.unwrap_or_default(),
            program,
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
        program: Option<&Digest>,
        earlier: Lease,
    ) -> Lease {
        let parts = std::iter::once(&manifest.config).chain(&manifest.layers);
        let parts = parts.map(|part| part.digest.clone());
        let lease = self
            .store
            .lease(parts.chain([digest.clone()]).chain(program.cloned()));
        drop(earlier);
        lease
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

    /// Finds the program in the layers, and makes it a blob if it is not one already.
    async fn program(
        &self,
        layers: &[&Descriptor],
        config: Option<&ImageConfig>,
    ) -> Result<Digest, PullError> {
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
            return Ok(layer.digest.clone());
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

    async fn extract(&self, layer: &Digest, path: Option<String>) -> Result<Digest, PullError> {
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
        // A collection begins before it looks: what it does not know of yet has to be held.
        let digest = writer.digest();
        let lease = self.store.lease([digest]);
        let committed = writer.commit(None).await;
        drop(lease);
        Ok(committed?)
    }

    async fn remember(
        &self,
        reference: &Reference,
        (digest, manifest, bytes): (&Digest, &ImageManifest, &Bytes),
        program: Option<Digest>,
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
        let media_type = manifest.media_type.as_deref();
        let media_type = media_type.unwrap_or(media_type::IMAGE_MANIFEST);
        let remembered = Remembered {
            descriptor: Descriptor::new(media_type, digest.clone(), bytes.len() as u64),
            program,
            access: access.clone(),
        };
        let (name, leaf) = (name_of(reference), reference.manifest_reference());
        self.store
            .set_ref(&name, &leaf, &remembered.write())
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

fn check_size(manifest: &ImageManifest) -> Result<(), PullError> {
    if manifest.layers.len() > MAX_LAYERS {
        let text = format!("the image has more than {MAX_LAYERS} layers");
        return Err(PullError::TooLarge(text));
    }
    let mut sized = manifest.layers.iter().map(|layer| (layer, MAX_LAYER));
    let config = (&manifest.config, MAX_CONFIG);
    match sized
        .find(|(part, limit)| part.size > *limit)
        .or(Some(config))
    {
        Some((part, limit)) if part.size > limit => Err(PullError::TooLarge(format!(
            "blob {} has {} bytes, more than {limit}",
            part.digest, part.size
        ))),
        _ => Ok(()),
    }
}

/// The layers that may hold the program: the one that is wasm by its type, else all.
fn wanted_layers(manifest: &ImageManifest) -> Vec<&Descriptor> {
    match manifest.wasm_layer() {
        Some(layer) => vec![layer],
        None => manifest.layers.iter().collect(),
    }
}

fn open(path: &std::path::Path) -> std::io::Result<std::fs::File> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::artifact::WasmArtifact;
    use crate::push::push_wasm;
    use crate::reference::CLUSTER_REGISTRY;
    use crate::registry::client::{Body, BoxError, RouterTransport, Transport};
    use crate::registry::server::{Access, Authorize, Denied, Limits, router};
    use http::{Request, Response};

    struct Namespaces;

    #[async_trait::async_trait]
    impl Authorize for Namespaces {
        async fn authorize(
            &self,
            _extensions: &http::Extensions,
            repository: &str,
            _access: Access,
        ) -> Result<(), Denied> {
            if repository.starts_with("secret/") {
                return Err(Denied::Forbidden("no".to_owned()));
            }
            Ok(())
        }
    }

    struct Counted(RouterTransport, Arc<AtomicUsize>);

    #[async_trait::async_trait]
    impl Transport for Counted {
        async fn send(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
            if request.uri().path().contains("/blobs/") && request.method() == http::Method::GET {
                self.1.fetch_add(1, Ordering::SeqCst);
            }
            self.0.send(request).await
        }
    }

    struct World {
        _directory: tempfile::TempDir,
        client: RegistryClient,
        puller: Puller,
        blob_gets: Arc<AtomicUsize>,
    }

    async fn world() -> World {
        let directory = tempfile::tempdir().unwrap();
        let served = ContentStore::open(directory.path().join("served"))
            .await
            .unwrap();
        let routes = router(
            served,
            Arc::new(Namespaces),
            Limits {
                blob: 1 << 20,
                manifest: 1 << 20,
            },
        );
        let blob_gets = Arc::new(AtomicUsize::new(0));
        let transport = Counted(RouterTransport::new(routes), blob_gets.clone());
        let client = RegistryClient::new(Arc::new(transport), CLUSTER_REGISTRY);
        let registries = Registries::none().with_client(CLUSTER_REGISTRY, client.clone());
        let local = ContentStore::open(directory.path().join("local"))
            .await
            .unwrap();
        World {
            _directory: directory,
            puller: Puller::new(registries, local),
            client,
            blob_gets,
        }
    }

    impl World {
        async fn pull(&self, reference: &Reference) -> Result<PulledImage, PullError> {
            self.puller.pull(reference, &Keyring::default()).await
        }
    }

    fn component(tail: &[u8]) -> Bytes {
        [b"\0asm\x0d\0\x01\0".as_slice(), tail].concat().into()
    }

    fn reference(text: &str) -> Reference {
        format!("registry.windlass.local/{text}").parse().unwrap()
    }

    #[tokio::test]
    async fn what_was_pushed_is_pulled_by_tag_and_by_digest() {
        let world = world().await;
        let tag = reference("default/hello:v1");
        let digest = push_wasm(&world.client, &tag, component(b"1"))
            .await
            .unwrap();
        let pulled = world.pull(&tag).await.unwrap();
        assert_eq!(pulled.digest, digest);
        let by_digest = world.pull(&tag.with_digest(digest)).await.unwrap();
        assert_eq!(by_digest.manifest, pulled.manifest);
        let layer = pulled.manifest.wasm_layer().unwrap();
        let bytes = world
            .puller
            .store()
            .read(&layer.digest, 1 << 20)
            .await
            .unwrap();
        assert_eq!(bytes, component(b"1"));
        assert!(world.puller.local(&tag).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_moved_tag_is_seen_by_the_next_pull() {
        let world = world().await;
        let tag = reference("default/hello:v1");
        push_wasm(&world.client, &tag, component(b"1"))
            .await
            .unwrap();
        let first = world.pull(&tag).await.unwrap();
        push_wasm(&world.client, &tag, component(b"2"))
            .await
            .unwrap();
        assert_eq!(
            world.puller.local(&tag).await.unwrap().unwrap().digest,
            first.digest
        );
        assert_ne!(world.pull(&tag).await.unwrap().digest, first.digest);
    }

    #[tokio::test]
    async fn concurrent_pulls_fetch_each_blob_once() {
        let world = world().await;
        let tag = reference("default/hello:v1");
        push_wasm(&world.client, &tag, component(b"1"))
            .await
            .unwrap();
        let pulls = (0..8).map(|_| world.pull(&tag));
        for pulled in futures::future::join_all(pulls).await {
            pulled.unwrap();
        }
        assert_eq!(world.blob_gets.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn blobs_of_one_repository_are_unknown_in_another() {
        let world = world().await;
        let wasm = component(b"1");
        push_wasm(&world.client, &reference("default/hello:v1"), wasm.clone())
            .await
            .unwrap();
        let artifact = WasmArtifact::wrap(wasm).unwrap();
        let digest = &artifact.blobs[1].0.digest;
        assert!(
            world
                .client
                .has_blob("default/hello", digest)
                .await
                .unwrap()
        );
        assert!(!world.client.has_blob("other/hello", digest).await.unwrap());
        let error = world
            .client
            .push_manifest(
                "other/hello",
                "v1",
                media_type::IMAGE_MANIFEST,
                artifact.manifest,
            )
            .await
            .unwrap_err();
        assert!(error.to_string().contains("unknown blob"), "{error}");
    }

    #[tokio::test]
    async fn missing_denied_and_malformed_are_clear_errors() {
        let world = world().await;
        let missing = world.pull(&reference("default/none:v1")).await.unwrap_err();
        let want = "manifest registry.windlass.local/default/none:v1: not found";
        assert_eq!(missing.to_string(), want);
        let denied = world.pull(&reference("secret/a:v1")).await.unwrap_err();
        let want = "manifest registry.windlass.local/secret/a:v1: no";
        assert_eq!(denied.to_string(), want);
        let flat = world.pull(&reference("flat:v1")).await.unwrap_err();
        assert!(flat.to_string().contains("NAMESPACE/NAME"), "{flat}");
        let empty = Digest::sha256(b"");
        let large = world
            .client
            .push_blob("a/b", &empty, vec![0; 2 << 20].into());
        assert!(large.await.unwrap_err().to_string().contains("larger than"));
        let wrong = world
            .client
            .push_blob("a/b", &empty, Bytes::from_static(b"x"));
        assert!(
            wrong
                .await
                .unwrap_err()
                .to_string()
                .contains("did not match")
        );
    }
}
