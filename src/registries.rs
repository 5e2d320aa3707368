//! How this machine reaches image registries besides the cluster's: options, certificates and logins.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rustls::RootCertStore;
use windlass_oci::credentials::{Keyring, Origin};
use windlass_oci::registry::remote::config::RegistryConfig;
use windlass_oci::registry::remote::registries::Registries;

/// Options of everything that asks registries.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct RegistryOptions {
    /// How image registries are reached: a YAML file with mirrors, plain HTTP, authorities and credentials by host.
    #[arg(long, value_name = "FILE")]
    registry_config: Option<PathBuf>,
}

impl RegistryOptions {
    /// The registries as the file says; over TLS and with the machine's authorities without one.
    pub(crate) fn registries(&self) -> anyhow::Result<Registries> {
        let Some(path) = &self.registry_config else {
            return Ok(Registries::new(RegistryConfig::default(), native_roots())?);
        };
        let place = || format!("--registry-config {}", path.display());
        let text = std::fs::read_to_string(path).with_context(place)?;
        let directory = path.parent().unwrap_or(Path::new(""));
        let config = RegistryConfig::parse(&text, directory).with_context(place)?;
        Registries::new(config, native_roots()).with_context(place)
    }
}

/// The authorities that this machine trusts.
pub(crate) fn native_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "a root certificate of this machine cannot be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

/// What `docker login` and its kin have written for the user of this process.
pub(crate) fn logins() -> anyhow::Result<Keyring> {
    let mut keyring = Keyring::default();
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let directory = directory.or_else(|| Some(std::env::home_dir()?.join(".docker")));
    let Some(path) = directory.map(|directory| directory.join("config.json")) else {
        return Ok(keyring);
    };
    match std::fs::read(&path) {
        Ok(bytes) => keyring
            .add_config_json(&bytes, &Origin::Machine)
            .with_context(|| format!("read {}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    }
    Ok(keyring)
}
