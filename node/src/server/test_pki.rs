//! Certificates for tests of the daemon endpoint.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;

use super::tls::DaemonTls;
use crate::network::TunnelIdentity;

/// A certificate authority of a test's own.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "ca");
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn der(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// Certificate and key, as PEM, for client and server at loopback.
    pub(super) fn issue(&self, name: &str, group: Option<&str>) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        if let Some(group) = group {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, group);
        }
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate for a server of this name or address.
    pub(crate) fn serving(&self, name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.signed_by(&key, &self.0).unwrap().der().clone()
    }

    /// TLS of the daemon endpoint of a node.
    pub(super) fn daemon(&self, name: &str) -> DaemonTls {
        let (certificate, key) = self.issue(name, None);
        let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
        DaemonTls::new(certificate, key, self.pem().as_bytes(), Vec::new()).unwrap()
    }

    /// What an agent calls others with.
    pub(super) fn identity(&self, name: &str, group: Option<&str>) -> TunnelIdentity {
        let (certificate, key) = self.issue(name, group);
        let (certificate, key) = (certificate.as_bytes(), key.as_bytes());
        TunnelIdentity::new(certificate, key, self.pem().as_bytes()).unwrap()
    }
}
