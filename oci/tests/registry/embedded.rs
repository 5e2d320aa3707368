//! Our own registry, over HTTP, as other registries are reached.

use std::sync::Arc;

use windlass_oci::content_store::ContentStore;
use windlass_oci::credentials::Keyring;
use windlass_oci::registry::server::{Access, Authorize, Denied, Limits, router};

use crate::suite::{self, Server};

struct Anybody;

#[async_trait::async_trait]
impl Authorize for Anybody {
    async fn authorize(&self, _: &http::Extensions, _: &str, _: Access) -> Result<(), Denied> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_registry_keeps_its_promises() {
    let directory = tempfile::tempdir().unwrap();
    let store = ContentStore::open(directory.path()).await.unwrap();
    let routes = router(store, Arc::new(Anybody), Limits::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    suite::run(&Server {
        config: format!("registries: {{'{host}': {{plainHttp: true}}}}"),
        host,
        keyring: Keyring::default(),
        is_public: true,
    })
    .await;
    serving.abort();
}
