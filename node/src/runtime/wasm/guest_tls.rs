//! TLS of the requests that guests make.
//!
//! Servers are trusted as the machine trusts them. Those of the cluster (its addresses, and names below `svc`) may also
//! be of the cluster's own authority, so that a guest reaches the API; for `example.com` that authority counts nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::server::VerifierBuilderError;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use windlass_wasi_shims::http::TlsConfig;

use crate::server::tls::{self, TlsError};

/// Ends of the names of the cluster's servers.
const CLUSTER_NAMES: [&str; 2] = [".svc", ".svc.cluster.local"];

/// TLS of guests, whose trust in the cluster's authority can be replaced. Cheap to clone.
#[derive(Clone)]
pub struct GuestTls {
    trust: Arc<Trust>,
    config: TlsConfig,
}

#[derive(Debug)]
struct Trust {
    /// `None` if the machine trusts nobody.
    machine: Option<Arc<WebPkiServerVerifier>>,
    cluster: ArcSwap<WebPkiServerVerifier>,
}

impl GuestTls {
    /// Trusts the roots of the machine, and the cluster's authority, in PEM.
    ///
    /// # Errors
    /// The PEM can't be used.
    pub fn new(machine: RootCertStore, cluster_ca: &[u8]) -> Result<Self, TlsError> {
        let has_roots = !machine.is_empty();
        let machine = has_roots.then(|| verifier(machine)).transpose()?;
        let trust = Arc::new(Trust {
            machine,
            cluster: ArcSwap::new(cluster_verifier(cluster_ca)?),
        });
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&trust) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            trust,
            config: Arc::new(config),
        })
    }

    /// What guests' requests are made with.
    #[must_use]
    pub fn config(&self) -> TlsConfig {
        Arc::clone(&self.config)
    }

    /// Trusts another authority of the cluster from now on.
    ///
    /// # Errors
    /// The PEM can't be used; the old one is trusted then.
    pub fn replace(&self, cluster_ca: &[u8]) -> Result<(), TlsError> {
        self.trust.cluster.store(cluster_verifier(cluster_ca)?);
        Ok(())
    }
}

impl std::fmt::Debug for GuestTls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GuestTls")
    }
}

fn cluster_verifier(ca: &[u8]) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    Ok(verifier(tls::roots("cluster CA", ca)?)?)
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
    let provider = Arc::new(ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()
}

fn is_of_cluster(name: &ServerName<'_>) -> bool {
    match name {
        ServerName::DnsName(name) => {
            let name = name.as_ref();
            matches!(name, "kubernetes" | "kubernetes.default")
                || CLUSTER_NAMES.iter().any(|end| name.ends_with(end))
        }
        ServerName::IpAddress(_) => true,
        _ => false,
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let check = |verifier: &WebPkiServerVerifier| {
            verifier.verify_server_cert(certificate, intermediates, name, ocsp, now)
        };
        let by_cluster = is_of_cluster(name).then(|| check(&self.cluster.load()));
        match (by_cluster, &self.machine) {
            (Some(Ok(verified)), _) => Ok(verified),
            (_, Some(machine)) => check(machine),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Err(Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer,
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let cluster = self.cluster.load();
        cluster.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let cluster = self.cluster.load();
        cluster.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.cluster.load().supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::test_pki::Authority;

    #[test]
    fn the_clusters_authority_counts_for_the_cluster_alone() {
        let ca = Authority::new();
        let guest = GuestTls::new(RootCertStore::empty(), ca.pem().as_bytes()).unwrap();
        let accepts = |guest: &GuestTls, name: &'static str| {
            let certificate = ca.serving(name);
            let name = ServerName::try_from(name).unwrap();
            let now = UnixTime::now();
            let trust = &guest.trust;
            trust
                .verify_server_cert(&certificate, &[], &name, &[], now)
                .is_ok()
        };
        for name in ["10.96.0.1", "kubernetes.default", "web.default.svc"] {
            assert!(accepts(&guest, name), "{name}");
        }
        for name in ["example.com", "kubernetes.example.com", "svc.example.com"] {
            assert!(!accepts(&guest, name), "{name}");
        }
        guest.replace(Authority::new().pem().as_bytes()).unwrap();
        assert!(!accepts(&guest, "10.96.0.1"));
    }
}
