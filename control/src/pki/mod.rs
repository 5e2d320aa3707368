//! The cluster's certificate authority and the keys of ServiceAccount tokens.
//!
//! `DATA-DIR/pki` holds `ca.crt`, `ca.key` and `sa.key`, made on first start, readable by their owner
//! only. Everything else (serving and client certificates) is issued from them when needed and need not
//! be kept.

pub mod files;
pub(crate) mod request;
pub mod service_account;

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority lasts.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long what it issues lasts at most.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Certificates begin a little in the past, for clocks that are behind.
const SKEW: Duration = Duration::from_secs(300);

/// Why keys or certificates could not be made or read.
#[derive(Debug, Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key or certificate cannot be made or parsed.
    #[error("{what}: {source}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// What the library said.
        source: rcgen::Error,
    },
    /// A key cannot be used.
    #[error("{0}")]
    Key(String),
}

fn certificate(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { what, source }
}

/// The authority that every part of the cluster trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    der: CertificateDer<'static>,
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// Its PKCS#8 key.
    pub key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Identity {
    /// The certificate and the key as rustls takes them.
    #[must_use]
    pub fn for_rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key_der.clone());
        (vec![self.der.clone()], PrivateKeyDer::Pkcs8(key))
    }
}

impl Authority {
    /// Reads the authority in `directory`, or makes one there.
    ///
    /// # Errors
    /// When a file cannot be read, written or understood.
    pub fn load_or_create(directory: &Path) -> Result<Self, PkiError> {
        files::make_directory(directory)?;
        let (certificate_path, key_path) = (directory.join("ca.crt"), directory.join("ca.key"));
        let key = files::read_or_create(&key_path, || {
            Ok(KeyPair::generate()
                .map_err(certificate("make the CA key"))?
                .serialize_pem())
        })?;
        let pem = files::read_or_create(&certificate_path, || self_signed(&key))?;
        let key = KeyPair::from_pem(&key).map_err(certificate("read the CA key"))?;
        let issuer =
            Issuer::from_ca_cert_pem(&pem, key).map_err(certificate("read the CA certificate"))?;
        let der = der_of(&pem)?;
        Ok(Self {
            issuer,
            certificate: pem,
            der,
        })
    }

    /// The authority's certificate in PEM: what clients trust.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The authority's certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// A serving certificate for `names`, host names and addresses alike.
    ///
    /// # Errors
    /// When a name is none.
    pub fn serving(&self, common_name: &str, names: Vec<String>) -> Result<Identity, PkiError> {
        let params = CertificateParams::new(names).map_err(certificate("name a certificate"))?;
        self.issue(
            params,
            common_name,
            &[],
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A client certificate for a user in groups.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        let params = CertificateParams::default();
        self.issue(params, user, groups, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        common_name: &str,
        organizations: &[&str],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, PkiError> {
        params.distinguished_name = distinguished_name(common_name, organizations);
        limit(&mut params, LEAF_LIFE, usage);
        let key = KeyPair::generate().map_err(certificate("make a key"))?;
        let signed = params
            .signed_by(&key, &self.issuer)
            .map_err(certificate("sign"))?;
        Ok(Identity {
            certificate: signed.pem(),
            key: key.serialize_pem(),
            der: signed.der().clone(),
            key_der: key.serialize_der(),
        })
    }

    /// Signs a request, in PEM, whose subject and names the caller has checked, for `life` at most.
    ///
    /// # Errors
    /// When the request cannot be parsed or its signature is wrong.
    pub fn sign(
        &self,
        request: &str,
        life: Duration,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<String, PkiError> {
        let mut request = CertificateSigningRequestParams::from_pem(request)
            .map_err(certificate("parse the certificate request"))?;
        limit(&mut request.params, life.min(LEAF_LIFE), usage);
        let signed = request
            .signed_by(&self.issuer)
            .map_err(certificate("sign"))?;
        Ok(signed.pem())
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity")
    }
}

fn limit(params: &mut CertificateParams, life: Duration, usage: ExtendedKeyUsagePurpose) {
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + life).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
}

fn distinguished_name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn self_signed(key: &str) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(key).map_err(certificate("read the CA key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name("windlass-ca", &[]);
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + CA_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let certificate_ = params
        .self_signed(&key)
        .map_err(certificate("make the CA certificate"))?;
    Ok(certificate_.pem())
}

fn der_of(pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| PkiError::Key(format!("the CA certificate is not PEM: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        let first = Authority::load_or_create(&pki).unwrap();
        let again = Authority::load_or_create(&pki).unwrap();
        assert_eq!(first.certificate(), again.certificate());
        let mode = std::fs::metadata(pki.join("ca.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn certificates_carry_user_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let identity = authority
            .client("system:node:a", &["system:nodes"])
            .unwrap();
        let (chain, _) = identity.for_rustls();
        let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
        let subject = parsed.subject();
        assert_eq!(
            subject.iter_common_name().next().unwrap().as_str(),
            Ok("system:node:a")
        );
        assert_eq!(
            subject.iter_organization().next().unwrap().as_str(),
            Ok("system:nodes")
        );
    }
}
