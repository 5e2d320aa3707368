//! TLS of the daemon endpoint: a serving certificate that can be replaced, and who may connect.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Certificate name the API server shows to nodes by convention.
const API_SERVER_CLIENT: &str = "kube-apiserver-kubelet-client";
const ADMIN_GROUP: &str = "system:masters";

/// Why certificates can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// PEM that can't be read.
    #[error("malformed PEM of the {what}: {source}")]
    Pem {
        /// Which of the files.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    /// Key and certificate don't fit, or an algorithm is not supported.
    #[error("unusable certificate: {0}")]
    Rustls(#[from] rustls::Error),
    /// The client CA can't be used.
    #[error("unusable client CA: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What the daemon endpoint needs for TLS; cheap to clone.
#[derive(Clone)]
pub struct DaemonTls {
    config: Arc<ServerConfig>,
    serving: Arc<Serving>,
    allowed: Arc<AllowedClients>,
}

/// Clients that may connect.
#[derive(Debug)]
pub(crate) struct AllowedClients {
    names: Vec<String>,
}

#[derive(Debug)]
struct Serving(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Serving {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl DaemonTls {
    /// Serves with this certificate chain and key, to clients of this CA.
    ///
    /// Clients of group `system:masters`, of name `kube-apiserver-kubelet-client` and of the names given
    /// are let in.
    ///
    /// # Errors
    /// The PEM texts can't be used.
    pub fn new(
        certificate_pem: &[u8],
        key_pem: &[u8],
        client_ca_pem: &[u8],
        client_names: Vec<String>,
    ) -> Result<Self, TlsError> {
        let serving = Arc::new(Serving(ArcSwap::from_pointee(certified(
            certificate_pem,
            key_pem,
        )?)));
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates("client CA", client_ca_pem)? {
            roots.add(certificate)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(serving.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut names = client_names;
        names.push(API_SERVER_CLIENT.to_owned());
        let allowed = Arc::new(AllowedClients { names });
        Ok(Self {
            config: Arc::new(config),
            serving,
            allowed,
        })
    }

    /// Serves new connections with another certificate.
    ///
    /// # Errors
    /// The PEM texts can't be used; the old certificate stays.
    pub fn replace(&self, certificate_pem: &[u8], key_pem: &[u8]) -> Result<(), TlsError> {
        self.serving
            .0
            .store(Arc::new(certified(certificate_pem, key_pem)?));
        Ok(())
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    pub(super) fn allowed(&self) -> Arc<AllowedClients> {
        self.allowed.clone()
    }
}

impl AllowedClients {
    /// Whether a certificate (already verified) is one of the API server's.
    pub(super) fn admits(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        let subject = certificate.subject();
        let mut groups = subject
            .iter_organization()
            .filter_map(|group| group.as_str().ok());
        let mut names = subject
            .iter_common_name()
            .filter_map(|name| name.as_str().ok());
        groups.any(|group| group == ADMIN_GROUP)
            || names.any(|name| self.names.iter().any(|allowed| allowed == name))
    }
}

fn certified(certificate_pem: &[u8], key_pem: &[u8]) -> Result<CertifiedKey, TlsError> {
    let chain = certificates("serving certificate", certificate_pem)?;
    let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|source| TlsError::Pem {
        what: "serving key",
        source,
    })?;
    Ok(CertifiedKey::from_der(
        chain,
        key,
        &ring::default_provider(),
    )?)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: &str, group: Option<&str>) -> CertificateDer<'static> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::default();
        parameters
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        if let Some(group) = group {
            parameters
                .distinguished_name
                .push(rcgen::DnType::OrganizationName, group);
        }
        parameters.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn only_the_api_server_is_let_in() {
        let allowed = AllowedClients {
            names: vec![API_SERVER_CLIENT.to_owned()],
        };
        assert!(allowed.admits(&certificate(API_SERVER_CLIENT, None)));
        assert!(allowed.admits(&certificate("admin", Some(ADMIN_GROUP))));
        assert!(!allowed.admits(&certificate("system:node:a", Some("system:nodes"))));
        assert!(!allowed.admits(&CertificateDer::from(vec![1, 2, 3])));
    }
}
