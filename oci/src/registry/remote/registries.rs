//! From a reference to the registries that may have the image, and the credentials to try there.
//!
//! 1. The mirrors of the reference's registry come first, in their order, then the registry itself.
//! 2. For each, its credentials: those of whoever asks, then the machine's. Where there are none, strangers are tried.
//! 3. A registry that this program reaches in a way of its own, such as the cluster's, has one client and no mirrors.
//!
//! Credentials are looked up by the host that is asked, so a mirror never sees those of the registry it mirrors.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::Endpoint;
use super::config::{ConfigError, RegistryConfig, field, split_mirror};
use crate::credentials::{Credential, Keyring, Origin};
use crate::reference::Reference;
use crate::registry::client::{Patience, RegistryClient};

/// Where Docker Hub's API is.
const DOCKER_HUB_API: &str = "registry-1.docker.io";
/// Hosts whose connections are kept; pods name what they like.
const MAX_ENDPOINTS: usize = 256;

/// All registries, as this machine reaches them.
pub struct Registries {
    config: RegistryConfig,
    roots: RootCertStore,
    /// By host, for those that trust more than the machine does.
    own_roots: HashMap<String, RootCertStore>,
    machine: Keyring,
    endpoints: Mutex<HashMap<String, Arc<Endpoint>>>,
    fixed: HashMap<String, RegistryClient>,
    patience: Patience,
}

/// One way to get an image.
#[derive(Clone)]
pub struct Candidate {
    /// The registry asked: several candidates of one differ in their credentials.
    pub host: String,
    /// Asks it.
    pub client: RegistryClient,
    /// What it calls the repository.
    pub repository: String,
    /// Who else may have what is found: whoever has the source of the credential, or everybody.
    pub origin: Option<Origin>,
}

impl Registries {
    /// Registries as `config` says, trusting `roots`.
    ///
    /// # Errors
    /// A file that the configuration names can't be used.
    pub fn new(config: RegistryConfig, roots: RootCertStore) -> Result<Self, ConfigError> {
        let (mut own_roots, mut machine) = (HashMap::new(), Keyring::default());
        for (host, entry) in &config.registries {
            if let Some(path) = &entry.ca_file {
                let mut all = roots.clone();
                let added = add_roots(path, &mut all);
                added.map_err(|reason| file_error(host, "caFile", path, &reason))?;
                own_roots.insert(host.clone(), all);
            }
            if let Some(path) = &entry.credentials_file {
                let added = add_credentials(path, &mut machine);
                added.map_err(|reason| file_error(host, "credentialsFile", path, &reason))?;
            }
        }
        Ok(Self {
            config,
            roots,
            own_roots,
            machine,
            ..Self::none()
        })
    }

    /// Registries that are reached over TLS, trusting nobody: only those with a client of their own give anything.
    #[must_use]
    pub fn none() -> Self {
        Self {
            config: RegistryConfig::default(),
            roots: RootCertStore::empty(),
            own_roots: HashMap::new(),
            machine: Keyring::default(),
            endpoints: Mutex::default(),
            fixed: HashMap::new(),
            patience: Patience::default(),
        }
    }

    /// Has requests to one registry go through a client of its own, without credentials.
    #[must_use]
    pub fn with_client(mut self, registry: &str, client: RegistryClient) -> Self {
        self.fixed.insert(registry.to_owned(), client);
        self
    }

    /// How patient the clients are.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The ways to get an image, in the order to try them.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn candidates(
        &self,
        reference: &Reference,
        keyring: &Keyring,
    ) -> Result<Vec<Candidate>, rustls::Error> {
        let (registry, repository) = (reference.registry(), reference.repository());
        if let Some(client) = self.fixed.get(registry) {
            return Ok(vec![Candidate {
                host: registry.to_owned(),
                client: client.clone(),
                repository: repository.to_owned(),
                origin: None,
            }]);
        }
        let mirrors = self.config.host(registry).mirrors;
        let mirrors = mirrors.iter().map(|mirror| match split_mirror(mirror) {
            (host, Some(prefix)) => (host, format!("{prefix}/{repository}")),
            (host, None) => (host, repository.to_owned()),
        });
        let mut found = Vec::new();
        for (host, repository) in mirrors.chain([(registry, repository.to_owned())]) {
            let endpoint = self.endpoint(host)?;
            let credentials = self.credentials(host, &repository, keyring);
            found.extend(credentials.into_iter().map(|credential| {
                Candidate {
                    host: host.to_owned(),
                    origin: credential
                        .as_ref()
                        .map(|credential| credential.origin.clone()),
                    client: self.client(&endpoint, host, credential),
                    repository: repository.clone(),
                }
            }));
        }
        Ok(found)
    }

    /// The client to push with: to the registry itself, with the first credential.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn pusher(
        &self,
        reference: &Reference,
        keyring: &Keyring,
    ) -> Result<RegistryClient, rustls::Error> {
        let registry = reference.registry();
        if let Some(client) = self.fixed.get(registry) {
            return Ok(client.clone());
        }
        let credentials = self.credentials(registry, reference.repository(), keyring);
        let first = credentials.into_iter().next().flatten();
        Ok(self.client(&self.endpoint(registry)?, registry, first))
    }

    fn client(
        &self,
        endpoint: &Arc<Endpoint>,
        host: &str,
        credential: Option<Credential>,
    ) -> RegistryClient {
        let transport = Arc::new(endpoint.transport(credential));
        RegistryClient::new(transport, host).with_patience(self.patience)
    }

    fn credentials(
        &self,
        host: &str,
        repository: &str,
        keyring: &Keyring,
    ) -> Vec<Option<Credential>> {
        let mut found = keyring.lookup(host, repository);
        found.extend(self.machine.lookup(host, repository));
        if found.is_empty() {
            return vec![None];
        }
        found.into_iter().map(Some).collect()
    }

    fn endpoint(&self, host: &str) -> Result<Arc<Endpoint>, rustls::Error> {
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = endpoints.get(host) {
            return Ok(known.clone());
        }
        if endpoints.len() >= MAX_ENDPOINTS {
            endpoints.clear();
        }
        let address = if host == "docker.io" {
            DOCKER_HUB_API
        } else {
            host
        };
        let roots = self.own_roots.get(host).unwrap_or(&self.roots).clone();
        let plain_http = self.config.host(host).plain_http;
        let endpoint = Arc::new(Endpoint::new(address, plain_http, roots)?);
        endpoints.insert(host.to_owned(), endpoint.clone());
        Ok(endpoint)
    }
}

fn file_error(host: &str, name: &str, path: &Path, reason: &str) -> ConfigError {
    ConfigError::Field {
        path: field(host, name),
        reason: format!("{}: {reason}", path.display()),
    }
}

fn add_roots(path: &Path, roots: &mut RootCertStore) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        count += 1;
    }
    if count == 0 {
        return Err("no certificate in PEM".to_owned());
    }
    Ok(())
}

fn add_credentials(path: &Path, keyring: &mut Keyring) -> Result<(), String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let added = keyring.add_config_json(&bytes, &Origin::Machine);
    added.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(registries: &Registries, image: &str, keyring: &Keyring) -> Vec<String> {
        let reference: Reference = image.parse().unwrap();
        let found = registries.candidates(&reference, keyring).unwrap();
        let shown = found.into_iter().map(|candidate| {
            let Candidate {
                host,
                repository,
                origin,
                ..
            } = candidate;
            let origin = match origin {
                None => "-".to_owned(),
                Some(Origin::Machine) => "machine".to_owned(),
                Some(Origin::Source(name)) => name,
            };
            format!("{host}/{repository} {origin}")
        });
        shown.collect()
    }

    fn keyring(host: &str, source: &str) -> Keyring {
        let mut keyring = Keyring::default();
        let file = format!(r#"{{"{host}":{{"username":"u","password":"p"}}}}"#);
        let origin = Origin::Source(source.to_owned());
        keyring.add_dockercfg(file.as_bytes(), &origin).unwrap();
        keyring
    }

    #[test]
    fn mirrors_come_first_and_see_only_their_own_credentials() {
        let directory = tempfile::tempdir().unwrap();
        let auth = r#"{"auths":{"m.io":{"username":"u","password":"p"}}}"#;
        std::fs::write(directory.path().join("auth.json"), auth).unwrap();
        let text =
            "registries: {docker.io: {mirrors: [m.io/hub]}, m.io: {credentialsFile: auth.json}}";
        let config = RegistryConfig::parse(text, directory.path()).unwrap();
        let registries = Registries::new(config, RootCertStore::empty()).unwrap();
        let none = Keyring::default();
        let hub = "docker.io/library/nginx";
        let mirror = "m.io/hub/library/nginx";
        assert_eq!(
            candidates(&registries, "nginx", &none),
            [format!("{mirror} machine"), format!("{hub} -")]
        );
        assert_eq!(
            candidates(&registries, "nginx", &keyring("docker.io", "s")),
            [format!("{mirror} machine"), format!("{hub} s")]
        );
        assert_eq!(
            candidates(&registries, "nginx", &keyring("m.io", "s")),
            [
                format!("{mirror} s"),
                format!("{mirror} machine"),
                format!("{hub} -")
            ]
        );
    }

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("empty"), "").unwrap();
        for (entry, want) in [
            ("caFile: none", "registries[\"r.io\"].caFile: "),
            ("caFile: empty", "no certificate"),
            ("credentialsFile: empty", "credentialsFile: "),
        ] {
            let text = format!("registries: {{r.io: {{{entry}}}}}");
            let config = RegistryConfig::parse(&text, directory.path()).unwrap();
            let error = Registries::new(config, RootCertStore::empty())
                .err()
                .unwrap();
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
