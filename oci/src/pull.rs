//! Brings an image into a content store.
//!
//! 1. Fetch the manifest by tag or digest; of an index, the manifest for this machine, wasm first.
//! 2. Fetch configuration and wasm layer unless the store has them.
//! 3. Record the reference, so that `IfNotPresent` finds the image without the registry.
//!
//! One pull per repository and reference runs at a time; a second caller waits and then finds the blobs.
//! Dropping a pull mid-way leaves only whole blobs behind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use serde::Deserialize;

use crate::content_store::{ContentError, ContentStore};
use crate::digest::Digest;
use crate::manifest::{Descriptor, ImageManifest, Manifest, ManifestError};
use crate::media_type;
use crate::reference::Reference;
use crate::registry::client::{ClientError, RegistryClient};

const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 4 << 20;

/// Pulls images of one registry into one store.
pub struct Puller {
    client: RegistryClient,
    store: ContentStore,
    running: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
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
    /// Bytes this pull had to fetch.
    pub fetched: u64,
}

/// What an image's configuration says about running it; empty for wasm artifacts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// Program and its first arguments.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or the program where there is no entrypoint.
    pub cmd: Option<Vec<String>>,
    /// Environment as `NAME=VALUE`.
    pub env: Option<Vec<String>>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// User to run as.
    pub user: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    config: Option<ImageConfig>,
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
    /// An index that points at an index.
    #[error("manifest {0} is an index inside an index")]
    NestedIndex(Digest),
    /// The content store failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The configuration is not JSON of the right shape.
    #[error("malformed image configuration: {0}")]
    Config(#[source] serde_json::Error),
}

impl Puller {
    /// Pulls through this client into this store.
    #[must_use]
    pub fn new(client: RegistryClient, store: ContentStore) -> Self {
        Self {
            client,
            store,
            running: Mutex::default(),
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
        let found = self
            .store
            .get_ref(&ref_name(reference), &ref_leaf(reference))
            .await?;
        let Some(descriptor) = found else {
            return Ok(None);
        };
        let bytes = match self.store.read(&descriptor.digest, MAX_MANIFEST).await {
            Ok(bytes) => bytes,
            Err(ContentError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Manifest::Image(manifest) = Manifest::parse(&bytes, Some(&descriptor.media_type))?
        else {
            return Ok(None);
        };
        for blob in needed(&manifest) {
            if self.store.size(&blob.digest).await?.is_none() {
                return Ok(None);
            }
        }
        let config = self.read_config(&manifest).await?;
        Ok(Some(PulledImage {
            digest: descriptor.digest,
            manifest,
            config,
            fetched: 0,
        }))
    }

    /// Pulls an image, asking the registry what the reference means now.
    ///
    /// # Errors
    /// The image can't be had; see [`PullError`].
    pub async fn pull(&self, reference: &Reference) -> Result<PulledImage, PullError> {
        let turn = self.turn(&reference.to_string());
        let _turn = turn.lock().await;
        let repository = reference.repository();
        let (digest, manifest, bytes) = self.resolve(reference).await?;
        let mut fetched = 0;
        for blob in needed(&manifest) {
            if self.store.size(&blob.digest).await?.is_none() {
                self.client.pull_blob(repository, blob, &self.store).await?;
                fetched += blob.size;
            }
        }
        self.remember(reference, &digest, &manifest, &bytes).await?;
        let config = self.read_config(&manifest).await?;
        Ok(PulledImage {
            digest,
            manifest,
            config,
            fetched,
        })
    }

    async fn resolve(
        &self,
        reference: &Reference,
    ) -> Result<(Digest, ImageManifest, Bytes), PullError> {
        let repository = reference.repository();
        let served = self
            .client
            .manifest(repository, &reference.manifest_reference())
            .await?;
        match Manifest::parse(&served.bytes, served.media_type.as_deref())? {
            Manifest::Image(manifest) => Ok((served.digest, manifest, served.bytes)),
            Manifest::Index(index) => {
                let architecture = oci_architecture();
                let chosen = index
                    .select(architecture)
                    .ok_or_else(|| PullError::NoPlatform(architecture.to_owned()))?;
                let served = self
                    .client
                    .manifest(repository, &chosen.digest.to_string())
                    .await?;
                match Manifest::parse(&served.bytes, served.media_type.as_deref())? {
                    Manifest::Image(manifest) => Ok((served.digest, manifest, served.bytes)),
                    Manifest::Index(_) => Err(PullError::NestedIndex(served.digest)),
                }
            }
        }
    }

    async fn remember(
        &self,
        reference: &Reference,
        digest: &Digest,
        manifest: &ImageManifest,
        bytes: &[u8],
    ) -> Result<(), PullError> {
        let mut writer = self.store.writer(digest.algorithm(), MAX_MANIFEST).await?;
        writer.write(bytes).await?;
        writer.commit(Some(digest)).await?;
        let descriptor = Descriptor {
            media_type: Manifest::Image(manifest.clone()).media_type().to_owned(),
            digest: digest.clone(),
            size: bytes.len() as u64,
            platform: None,
            annotations: Default::default(),
        };
        self.store
            .set_ref(&ref_name(reference), &ref_leaf(reference), &descriptor)
            .await?;
        Ok(())
    }

    async fn read_config(&self, manifest: &ImageManifest) -> Result<ImageConfig, PullError> {
        if manifest.config.media_type != media_type::IMAGE_CONFIG {
            return Ok(ImageConfig::default());
        }
        let bytes = self.store.read(&manifest.config.digest, MAX_CONFIG).await?;
        let file: ConfigFile = serde_json::from_slice(&bytes).map_err(PullError::Config)?;
        Ok(file.config.unwrap_or_default())
    }

    fn turn(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = running.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        running.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        running.insert(key.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

/// The blobs a node needs to run the image here: the layers of a Linux image are its runtime's to pull.
fn needed(manifest: &ImageManifest) -> Vec<&Descriptor> {
    std::iter::once(&manifest.config)
        .chain(manifest.wasm_layer())
        .collect()
}

fn ref_name(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

fn ref_leaf(reference: &Reference) -> String {
    reference.manifest_reference().replace(':', "-")
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
        let client = RegistryClient::new(Arc::new(transport));
        let local = ContentStore::open(directory.path().join("local"))
            .await
            .unwrap();
        World {
            _directory: directory,
            puller: Puller::new(client.clone(), local),
            client,
            blob_gets,
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
        let pulled = world.puller.pull(&tag).await.unwrap();
        assert_eq!(pulled.digest, digest);
        let by_digest = world.puller.pull(&tag.with_digest(digest)).await.unwrap();
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
        let first = world.puller.pull(&tag).await.unwrap();
        push_wasm(&world.client, &tag, component(b"2"))
            .await
            .unwrap();
        assert_eq!(
            world.puller.local(&tag).await.unwrap().unwrap().digest,
            first.digest
        );
        assert_ne!(world.puller.pull(&tag).await.unwrap().digest, first.digest);
    }

    #[tokio::test]
    async fn concurrent_pulls_fetch_each_blob_once() {
        let world = world().await;
        let tag = reference("default/hello:v1");
        push_wasm(&world.client, &tag, component(b"1"))
            .await
            .unwrap();
        let pulls = (0..8).map(|_| world.puller.pull(&tag));
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
        let missing = world
            .puller
            .pull(&reference("default/none:v1"))
            .await
            .unwrap_err();
        assert_eq!(missing.to_string(), "manifest default/none:v1: not found");
        let denied = world
            .puller
            .pull(&reference("secret/a:v1"))
            .await
            .unwrap_err();
        assert_eq!(denied.to_string(), "manifest secret/a:v1: no");
        let flat = world.puller.pull(&reference("flat:v1")).await.unwrap_err();
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
