//! Pulls from a registry in this process, into a store of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::artifact::WasmArtifact;
use crate::push::{push_components, push_wasm};
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
    let layer = pulled.manifest.wasm_layers().next().unwrap();
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
async fn several_components_are_kept_by_their_names() {
    let world = world().await;
    let tag = reference("default/hello:v1");
    let file = |name: &str, text: &[u8]| (name.to_owned(), component(text));
    let files = vec![file("app.wasm", b"1"), file("tool.wasm", b"2")];
    push_components(&world.client, &tag, files).await.unwrap();
    let pulled = world.pull(&tag).await.unwrap();
    let programs = pulled.programs.unwrap();
    assert_eq!(programs.main, Digest::sha256(&component(b"1")));
    let names: Vec<_> = programs.components.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["app.wasm", "tool.wasm"]);
    let tool = &programs.components[1].digest;
    assert_eq!(*tool, Digest::sha256(&component(b"2")));

    drop(pulled.lease);
    world.puller.sweep(Duration::ZERO).await.unwrap();
    let found = world.puller.local(&tag).await.unwrap().unwrap();
    assert_eq!(found.programs, Some(programs));
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
