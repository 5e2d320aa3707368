//! TLS of the daemon endpoint: a serving certificate that can be replaced, and who may connect.
//!
//! Two kinds of clients are told apart by their (verified) certificates: the API server, for everything
//! a kubelet serves, and other nodes, for the tunnel and nothing else.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{AttributeTypeAndValue, FromDer, X509Certificate};

/// Certificate name the API server shows to nodes by convention.
const API_SERVER_CLIENT: &str = "kube-apiserver-kubelet-client";
const ADMIN_GROUP: &str = "system:masters";
const NODE_GROUP: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

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
    config: Arc<ArcSwap<ServerConfig>>,
    allowed: Arc<AllowedClients>,
}

/// Clients that may connect.
#[derive(Debug)]
pub(crate) struct AllowedClients {
    names: Vec<String>,
}

impl DaemonTls {
    /// Serves with this certificate chain and key, to clients of this CA.
    ///
    /// Clients of group `system:masters`, of name `kube-apiserver-kubelet-client` and of the names given
    /// are let in; those of group `system:nodes` for the tunnel between agents only.
    ///
    /// # Errors
    /// The PEM texts can't be used.
    pub fn new(
        certificate_pem: &[u8],
        key_pem: &[u8],
        client_ca_pem: &[u8],
        client_names: Vec<String>,
    ) -> Result<Self, TlsError> {
        let config = server_config(certificate_pem, key_pem, client_ca_pem)?;
        let mut names = client_names;
        names.push(API_SERVER_CLIENT.to_owned());
        let allowed = Arc::new(AllowedClients { names });
        Ok(Self {
            config: Arc::new(ArcSwap::from_pointee(config)),
            allowed,
        })
    }

    /// Serves new connections with another certificate, to clients of another CA.
    ///
    /// # Errors
    /// The PEM texts can't be used; everything stays as it was.
    pub fn replace(
        &self,
        certificate_pem: &[u8],
        key_pem: &[u8],
        client_ca_pem: &[u8],
    ) -> Result<(), TlsError> {
        let config = server_config(certificate_pem, key_pem, client_ca_pem)?;
        self.config.store(Arc::new(config));
        Ok(())
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    pub(super) fn allowed(&self) -> Arc<AllowedClients> {
        self.allowed.clone()
    }
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// The API server or an administrator.
    ApiServer,
    /// The agent of the node with this name.
    Node(String),
}

impl AllowedClients {
    /// Who shows a certificate (already verified), if it is somebody who may connect.
    pub(super) fn identify(&self, certificate: &CertificateDer<'_>) -> Option<Client> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let mut names = texts(certificate.subject().iter_common_name());
        if in_group(&certificate, ADMIN_GROUP)
            || names.any(|name| self.names.iter().any(|allowed| allowed == name))
        {
            return Some(Client::ApiServer);
        }
        let is_node = in_group(&certificate, NODE_GROUP);
        is_node
            .then(|| node_of(&certificate).map(Client::Node))
            .flatten()
    }
}

/// The node that a certificate names.
pub(crate) fn node_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    node_of(&certificate)
}

fn node_of(certificate: &X509Certificate<'_>) -> Option<String> {
    let mut names = texts(certificate.subject().iter_common_name());
    let name = names.next()?.strip_prefix(NODE_PREFIX)?;
    (!name.is_empty()).then(|| name.to_owned())
}

fn in_group(certificate: &X509Certificate<'_>, group: &str) -> bool {
    texts(certificate.subject().iter_organization()).any(|found| found == group)
}

fn texts<'a>(
    attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> impl Iterator<Item = &'a str> {
    attributes.filter_map(|attribute| attribute.as_str().ok())
}

fn server_config(
    certificate_pem: &[u8],
    key_pem: &[u8],
    client_ca_pem: &[u8],
) -> Result<ServerConfig, TlsError> {
    let chain = certificates("serving certificate", certificate_pem)?;
    let key = private_key("serving key", key_pem)?;
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(roots("client CA", client_ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Reads a private key.
pub(crate) fn private_key(
    what: &'static str,
    pem: &[u8],
) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|source| TlsError::Pem { what, source })
}

/// Reads certificates to trust.
pub(crate) fn roots(what: &'static str, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, pem)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// Reads certificates.
pub(crate) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
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
    fn clients_are_told_apart_by_name_and_group() {
        let allowed = AllowedClients {
            names: vec![API_SERVER_CLIENT.to_owned()],
        };
        let node = |name: &str| Some(Client::Node(name.to_owned()));
        for (name, group, want) in [
            (API_SERVER_CLIENT, None, Some(Client::ApiServer)),
            ("admin", Some(ADMIN_GROUP), Some(Client::ApiServer)),
            ("system:node:a", Some(NODE_GROUP), node("a")),
            ("system:node:a", None, None),
            ("system:node:", Some(NODE_GROUP), None),
            ("a", Some(NODE_GROUP), None),
            ("somebody", None, None),
        ] {
            let found = allowed.identify(&certificate(name, group));
            assert_eq!(found, want, "{name} {group:?}");
        }
        let malformed = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(allowed.identify(&malformed), None);
    }
}
