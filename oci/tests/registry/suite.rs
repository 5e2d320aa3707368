//! What a client may expect of every registry: the same calls against our own and others.

use windlass_oci::credentials::Keyring;
use windlass_oci::digest::Digest;
use windlass_oci::push::push_wasm;

use crate::{Node, component, puller, reference};
use windlass_oci::registry::remote::config::RegistryConfig;
use windlass_oci::registry::remote::registries::Registries;

/// A registry that runs.
pub(crate) struct Server {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// How to reach it, as a registry configuration.
    pub(crate) config: String,
    /// Who may push and pull.
    pub(crate) keyring: Keyring,
    /// Whether strangers may pull.
    pub(crate) is_public: bool,
}

/// Pushes, pulls by tag and digest, and is refused.
pub(crate) async fn run(server: &Server) {
    let node = Node::new(&server.config).await;
    let image = format!("{}/team/app:v1", server.host);
    let tag = reference(&image);
    let pusher = pusher(server, &node);
    let digest = push_wasm(&pusher, &tag, component().into()).await.unwrap();
    // The same again changes nothing.
    let again = push_wasm(&pusher, &tag, component().into()).await.unwrap();
    assert_eq!(again, digest);

    let pulled = node.pull_with(&image, &server.keyring).await.unwrap();
    assert_eq!(pulled.digest, digest);
    assert_eq!(node.program(&pulled).await, component());
    let pinned = tag.with_digest(digest.clone()).to_string();
    let by_digest = node.pull_with(&pinned, &server.keyring).await.unwrap();
    assert_eq!(by_digest.digest, digest);
    assert_eq!(by_digest.fetched, 0);
    drop((pulled, by_digest));

    let newer = [component(), vec![1]].concat();
    let moved = push_wasm(&pusher, &tag, newer.clone().into())
        .await
        .unwrap();
    assert_ne!(moved, digest);
    let pulled = node.pull_with(&image, &server.keyring).await.unwrap();
    assert_eq!(node.program(&pulled).await, newer);
    let pinned = node.pull_with(&pinned, &server.keyring).await.unwrap();
    assert_eq!(node.program(&pinned).await, component());

    let missing = format!("{}/team/app:none", server.host);
    let missing = node.pull_with(&missing, &server.keyring).await.unwrap_err();
    assert!(
        missing.to_string().ends_with("team/app:none: not found"),
        "{missing}"
    );
    let unknown = reference(&image).with_digest(Digest::sha256(b"nothing"));
    let unknown = node.pull_with(&unknown.to_string(), &server.keyring).await;
    assert!(unknown.unwrap_err().to_string().contains("not found"));
    if !server.is_public {
        let stranger = node.pull(&image).await.unwrap_err().to_string();
        assert!(stranger.contains("team/app:v1: "), "{stranger}");
    }
    drop((pulled, pinned));
    collected(server, node).await;
}

fn pusher(server: &Server, node: &Node) -> windlass_oci::registry::client::RegistryClient {
    let config = RegistryConfig::parse(&server.config, node.directory.path()).unwrap();
    let registries = Registries::new(config, rustls::RootCertStore::empty()).unwrap();
    let tag = reference(&format!("{}/team/app:v1", server.host));
    registries.pusher(&tag, &server.keyring).unwrap()
}

/// What no reference points at goes, what is held stays, and the rest can be had again.
async fn collected(server: &Server, node: Node) {
    let zero = std::time::Duration::ZERO;
    let image = format!("{}/team/app:v1", server.host);
    let held = node.pull_with(&image, &server.keyring).await.unwrap();
    let images = node.puller.images().await.unwrap();
    assert_eq!(images.len(), 2);
    for image in &images {
        let forgotten = node.puller.forget(image).await.unwrap();
        assert_eq!(forgotten, image.digest != held.digest);
    }
    assert!(node.puller.sweep(zero).await.unwrap().blobs >= 2);
    assert_eq!(node.program(&held).await.len(), component().len() + 1);
    drop(held);
    for image in &node.puller.images().await.unwrap() {
        assert!(node.puller.forget(image).await.unwrap());
    }
    node.puller.sweep(zero).await.unwrap();
    assert_eq!(node.puller.store().blobs().await.unwrap(), []);
    node.pull_with(&image, &server.keyring).await.unwrap();
    // A store that is opened anew has what was there.
    let reopened = puller(&server.config, node.directory.path()).await;
    assert!(reopened.local(&reference(&image)).await.unwrap().is_some());
}
