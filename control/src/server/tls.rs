//! TLS towards clients: the certificate that is shown, and whose certificates are believed.
//!
//! A client certificate is optional, but one that is shown must be signed by the cluster's authority, or by that of the
//! proxy in front of the API if there is one. Which of them it was decides what the certificate is worth
//! (`authn/mod.rs`).
//!
//! [`Tls`] holds what connections are accepted with; another is put in its place when certificates are renewed or the
//! authority changes, and counts for the connections after that.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::authn::{PeerCertificate, SignedBy};
use super::listener::ListenError;
use crate::outbound::certificates;
use crate::pki::{Authority, Identity};

/// What connections are accepted with.
#[derive(Debug)]
pub struct Tls {
    current: ArcSwap<Accept>,
}

/// The TLS of one connection.
#[derive(Clone, Debug)]
pub(super) struct Accept {
    pub(super) config: Arc<ServerConfig>,
    trust: Arc<ClientTrust>,
}

impl Tls {
    /// TLS with `identity`, for clients of `authority` and of the authorities, in PEM, of a proxy in front.
    ///
    /// # Errors
    /// [`ListenError::Tls`].
    pub fn new(
        authority: &Authority,
        identity: &Identity,
        front_proxy: Option<&str>,
    ) -> Result<Self, ListenError> {
        let accept = Accept::new(authority, identity, front_proxy)?;
        Ok(Self {
            current: ArcSwap::from_pointee(accept),
        })
    }

    /// Accepts the connections from now on so.
    ///
    /// # Errors
    /// [`ListenError::Tls`]; everything stays as it was then.
    pub fn replace(
        &self,
        authority: &Authority,
        identity: &Identity,
        front_proxy: Option<&str>,
    ) -> Result<(), ListenError> {
        let accept = Accept::new(authority, identity, front_proxy)?;
        self.current.store(Arc::new(accept));
        Ok(())
    }

    pub(super) fn accept(&self) -> Arc<Accept> {
        self.current.load_full()
    }
}

impl Accept {
    fn new(
        authority: &Authority,
        identity: &Identity,
        front_proxy: Option<&str>,
    ) -> Result<Self, ListenError> {
        let tls = |error: String| ListenError::Tls(error);
        let trust = Arc::new(ClientTrust::new(authority, front_proxy).map_err(tls)?);
        let (chain, key) = identity.for_rustls();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(error.to_string()))?
            .with_client_cert_verifier(Arc::clone(&trust) as Arc<dyn ClientCertVerifier>)
            .with_single_cert(chain, key)
            .map_err(|error| tls(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            trust,
        })
    }

    /// What the client's certificates say, which the handshake has verified.
    pub(super) fn read(&self, chain: &[CertificateDer<'_>]) -> Option<PeerCertificate> {
        let (certificate, intermediates) = chain.split_first()?;
        let signed_by = self
            .trust
            .signed_by(certificate, intermediates, UnixTime::now());
        Some(PeerCertificate::read(certificate, signed_by.ok()?))
    }
}

/// Whose certificates are believed.
#[derive(Debug)]
struct ClientTrust {
    cluster: Arc<dyn ClientCertVerifier>,
    front_proxy: Option<Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
}

impl ClientTrust {
    fn new(authority: &Authority, front_proxy: Option<&str>) -> Result<Self, String> {
        let cluster = verifier(authority.trusted())?;
        let front_proxy = front_proxy.map(|pem| verifier(certificates(pem)?));
        let front_proxy = front_proxy.transpose()?;
        let proxies = front_proxy.iter().flat_map(|of| of.root_hint_subjects());
        let hints = cluster.root_hint_subjects().iter().chain(proxies);
        Ok(Self {
            hints: hints.cloned().collect(),
            cluster,
            front_proxy,
        })
    }

    fn signed_by(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<SignedBy, Error> {
        let by_cluster = self
            .cluster
            .verify_client_cert(certificate, intermediates, now);
        let Err(error) = by_cluster else {
            return Ok(SignedBy::Cluster);
        };
        match &self.front_proxy {
            None => Err(error),
            Some(proxy) => {
                proxy.verify_client_cert(certificate, intermediates, now)?;
                Ok(SignedBy::FrontProxy)
            }
        }
    }
}

fn verifier(trusted: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let verifier = builder.allow_unauthenticated().build();
    verifier.map_err(|error| error.to_string())
}

impl ClientCertVerifier for ClientTrust {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.signed_by(certificate, intermediates, now) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(Error::InvalidCertificate(error)) => Err(Error::InvalidCertificate(error)),
            Err(_) => Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.cluster
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.cluster
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.cluster.supported_verify_schemes()
    }
}
