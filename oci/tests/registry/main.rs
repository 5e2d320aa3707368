//! The registry client against registries: a hostile one in this process, our own, and Debian's.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod auth;
mod crash;
mod debian;
mod embedded;
mod fake;
mod faults;
mod layouts;
mod suite;
mod tls;

use std::path::Path;
use std::time::Duration;

use rustls::RootCertStore;
use windlass_oci::content_store::ContentStore;
use windlass_oci::credentials::{Keyring, Origin};
use windlass_oci::pull::{PullError, PulledImage, Puller};
use windlass_oci::reference::Reference;
use windlass_oci::registry::client::Patience;
use windlass_oci::registry::remote::config::RegistryConfig;
use windlass_oci::registry::remote::registries::Registries;

/// A wasm file that is large enough to be cut into pieces.
fn component() -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.resize(300_000, 7);
    bytes
}

/// Failures come at once in tests.
const IMPATIENT: Patience = Patience {
    attempts: 3,
    first_wait: Duration::from_millis(1),
    longest_wait: Duration::from_secs(2),
    silence: Duration::from_millis(500),
    upload: Duration::from_secs(20),
};

/// A node's side: registries as a file says, and a store.
struct Node {
    directory: tempfile::TempDir,
    puller: Puller,
}

impl Node {
    async fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let puller = puller(config, directory.path()).await;
        Self { directory, puller }
    }

    /// The same node after a crash.
    async fn restarted(self, config: &str) -> Self {
        let puller = puller(config, self.directory.path()).await;
        Self { puller, ..self }
    }

    async fn pull(&self, image: &str) -> Result<PulledImage, PullError> {
        self.pull_with(image, &Keyring::default()).await
    }

    async fn pull_with(&self, image: &str, keyring: &Keyring) -> Result<PulledImage, PullError> {
        self.puller.pull(&image.parse().unwrap(), keyring).await
    }

    /// What the image's program is.
    async fn program(&self, image: &PulledImage) -> Vec<u8> {
        let programs = image.programs.as_ref().unwrap();
        self.puller
            .store()
            .read(&programs.main, 1 << 30)
            .await
            .unwrap()
            .into()
    }

    fn partials(&self) -> usize {
        let directory = self.directory.path().join("partial");
        std::fs::read_dir(directory).unwrap().count()
    }
}

async fn puller(config: &str, directory: &Path) -> Puller {
    puller_with(config, directory, IMPATIENT).await
}

async fn puller_with(config: &str, directory: &Path, patience: Patience) -> Puller {
    let config = RegistryConfig::parse(config, directory).unwrap();
    let registries = Registries::new(config, RootCertStore::empty()).unwrap();
    let store = ContentStore::open(directory).await.unwrap();
    Puller::new(registries.with_patience(patience), store)
}

/// The configuration for hosts without TLS.
fn plain(hosts: &[std::net::SocketAddr]) -> String {
    let entries = hosts
        .iter()
        .map(|host| format!("'{host}': {{plainHttp: true}}"));
    format!("registries: {{{}}}", entries.collect::<Vec<_>>().join(", "))
}

fn keyring(entries: &[(&str, &str, &str)]) -> Keyring {
    let mut keyring = Keyring::default();
    for (at, (key, username, password)) in entries.iter().enumerate() {
        let file = serde_json::json!({*key: {"username": username, "password": password}});
        let origin = Origin::Source(format!("source-{at}"));
        keyring
            .add_dockercfg(file.to_string().as_bytes(), &origin)
            .unwrap();
    }
    keyring
}

fn reference(text: &str) -> Reference {
    text.parse().unwrap()
}
