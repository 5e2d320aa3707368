//! The certificate authority: what the cluster trusts, and what it issues.
//!
//! All certificates of `ca.crt` are trusted. The first issues, with that key of `ca.key` which is its own; it may be one
//! that another authority has issued, whose certificate then stands in the file too. So another authority is trusted by
//! everybody before it issues anything, and the old one for as long as certificates of it are about.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use x509_parser::certificate::X509Certificate;

use super::{PkiError, certificate, files};

const DAY: Duration = Duration::from_secs(86_400);
/// How long an authority lasts.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
/// How long what it issues lasts at most.
pub const LEAF_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Certificates begin a little in the past, for clocks that are behind.
const SKEW: Duration = Duration::from_secs(300);

/// The file of certificates.
pub(super) const CERTIFICATES: &str = "ca.crt";
/// The file of keys.
pub(super) const KEYS: &str = "ca.key";
/// The common name of authorities that are made here.
pub(super) const OWN_NAME: &str = "windlass-ca";

/// The authority that every part of the cluster trusts.
pub struct Authority {
    state: ArcSwap<State>,
    changed: watch::Sender<()>,
}

/// What the files say.
struct State {
    issuer: Issuer<'static, KeyPair>,
    expires: SystemTime,
    /// All certificates, in PEM.
    bundle: Arc<str>,
    trusted: Vec<CertificateDer<'static>>,
    /// What follows a certificate that is issued, up to one that nobody else has issued.
    chain: Vec<CertificateDer<'static>>,
}

/// A certificate of the bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The beginning of the certificate's SHA-256, in hexadecimal.
    pub id: String,
    /// The common name of its subject.
    pub name: String,
    /// When it expires.
    pub expires: Timestamp,
    /// Whether the key is there.
    pub has_key: bool,
    pub(super) pem: String,
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, and what leads from it to one that is trusted.
    pub certificate: String,
    /// Its PKCS#8 key.
    pub key: String,
    chain: Vec<CertificateDer<'static>>,
    key_der: Vec<u8>,
}

impl Identity {
    /// The certificate and the key as rustls takes them.
    #[must_use]
    pub fn for_rustls(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivatePkcs8KeyDer::from(self.key_der.clone());
        (self.chain.clone(), PrivateKeyDer::Pkcs8(key))
    }
}

impl Authority {
    /// Reads the authority in `directory`, or makes one there.
    ///
    /// # Errors
    /// When a file cannot be read, written or understood.
    pub fn load_or_create(directory: &Path) -> Result<Self, PkiError> {
        files::make_directory(directory)?;
        let keys = files::read_or_create(&directory.join(KEYS), new_key)?;
        let bundle = files::read_or_create(&directory.join(CERTIFICATES), || self_signed(&keys))?;
        Ok(Self {
            state: ArcSwap::from_pointee(State::parse(&bundle, &keys)?),
            changed: watch::Sender::new(()),
        })
    }

    /// Takes over what the files say now, and tells [`Self::changes`] if it is something else. On an error everything
    /// stays as it was.
    ///
    /// # Errors
    /// When a file cannot be read or understood.
    pub fn reload(&self, directory: &Path) -> Result<(), PkiError> {
        let keys = files::read(&directory.join(KEYS))?;
        let bundle = files::read(&directory.join(CERTIFICATES))?;
        if *bundle == *self.state.load().bundle {
            return Ok(());
        }
        self.state.store(Arc::new(State::parse(&bundle, &keys)?));
        self.changed.send_replace(());
        Ok(())
    }

    /// Tells when the authority has become another.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Returns when what was issued has to be issued again: the authority has become another, or two thirds of the
    /// life of a certificate have passed.
    pub async fn due(changes: &mut watch::Receiver<()>) {
        let changed = async {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(LEAF_LIFE * 2 / 3) => {}
        }
    }

    /// The certificates of all that is trusted, in PEM.
    #[must_use]
    pub fn certificate(&self) -> Arc<str> {
        Arc::clone(&self.state.load().bundle)
    }

    /// All that is trusted.
    #[must_use]
    pub fn trusted(&self) -> Vec<CertificateDer<'static>> {
        self.state.load().trusted.clone()
    }

    /// A serving certificate for `names`, host names and addresses alike.
    ///
    /// # Errors
    /// When a name is none.
    pub fn serving(&self, common_name: &str, names: Vec<String>) -> Result<Identity, PkiError> {
        let params = CertificateParams::new(names).map_err(certificate("name a certificate"))?;
        self.issue(
            params,
            (common_name, &[]),
            LEAF_LIFE,
            ExtendedKeyUsagePurpose::ServerAuth,
        )
    }

    /// A client certificate for a user in groups.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client(&self, user: &str, groups: &[&str]) -> Result<Identity, PkiError> {
        self.client_for(user, groups, LEAF_LIFE)
    }

    /// A client certificate for a user in groups that lasts so long at most.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client_for(
        &self,
        user: &str,
        groups: &[&str],
        life: Duration,
    ) -> Result<Identity, PkiError> {
        let params = CertificateParams::default();
        self.issue(
            params,
            (user, groups),
            life,
            ExtendedKeyUsagePurpose::ClientAuth,
        )
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        (common_name, organizations): (&str, &[&str]),
        life: Duration,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Identity, PkiError> {
        let state = self.state.load();
        params.distinguished_name = distinguished_name(common_name, organizations);
        state.limit(&mut params, life, usage);
        let key = KeyPair::generate().map_err(certificate("make a key"))?;
        let signed = params
            .signed_by(&key, &state.issuer)
            .map_err(certificate("sign"))?;
        let mut chain = vec![signed.der().clone()];
        chain.extend(state.chain.iter().cloned());
        Ok(Identity {
            certificate: signed.pem() + &pem_of(&state.chain),
            key: key.serialize_pem(),
            chain,
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
        let state = self.state.load();
        let mut request = CertificateSigningRequestParams::from_pem(request)
            .map_err(certificate("parse the certificate request"))?;
        state.limit(&mut request.params, life, usage);
        let signed = request
            .signed_by(&state.issuer)
            .map_err(certificate("sign"))?;
        Ok(signed.pem() + &pem_of(&state.chain))
    }
}

impl State {
    fn parse(bundle: &str, keys: &str) -> Result<Self, PkiError> {
        let trusted = certificates(bundle)?;
        let first = trusted
            .first()
            .ok_or_else(|| PkiError::Key(format!("{CERTIFICATES} holds no certificate")))?;
        let parsed = parse(first)?;
        let expires = check_issues(&parsed)?;
        let key = key_of(&parsed, keys)?.ok_or_else(|| {
            PkiError::Key(format!(
                "{KEYS} does not hold the key of the first certificate of {CERTIFICATES}"
            ))
        })?;
        let issuer =
            Issuer::from_ca_cert_der(first, key).map_err(certificate("read the CA certificate"))?;
        Ok(Self {
            issuer,
            expires,
            bundle: bundle.into(),
            chain: chain(&trusted)?,
            trusted,
        })
    }

    /// What holds for everything that is issued. Nothing outlives its authority.
    fn limit(
        &self,
        params: &mut CertificateParams,
        life: Duration,
        usage: ExtendedKeyUsagePurpose,
    ) {
        let now = SystemTime::now();
        params.not_before = (now - SKEW).into();
        params.not_after = (now + life.min(LEAF_LIFE)).min(self.expires).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
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

/// Everything in a bundle, in its order.
pub(super) fn known(bundle: &str, keys: &str) -> Result<Vec<Known>, PkiError> {
    let found = certificates(bundle)?;
    let known = found.iter().map(|der| {
        let parsed = parse(der)?;
        let mut names = parsed.subject().iter_common_name();
        let name = names.find_map(|name| name.as_str().ok());
        let digest = Sha256::digest(der);
        let expires = parsed.validity().not_after.timestamp();
        Ok(Known {
            id: digest.iter().take(6).map(|b| format!("{b:02x}")).collect(),
            name: name.unwrap_or_default().to_owned(),
            expires: Timestamp::from_second(expires).unwrap_or(Timestamp::MAX),
            has_key: key_of(&parsed, keys)?.is_some(),
            pem: pem_of(std::slice::from_ref(der)),
        })
    });
    known.collect()
}

/// A certificate and a key as the files hold them, checked: the certificate may issue, and the key is its own.
pub(super) fn check(certificate: &str, key: &str) -> Result<(), PkiError> {
    State::parse(certificate, key).map(drop)
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    let parsed = x509_parser::parse_x509_certificate(der);
    let (_, parsed) = parsed
        .map_err(|error| PkiError::Key(format!("{CERTIFICATES} cannot be understood: {error}")))?;
    Ok(parsed)
}

/// When it expires.
fn check_issues(certificate: &X509Certificate<'_>) -> Result<SystemTime, PkiError> {
    let constraints = certificate.basic_constraints().ok().flatten();
    if !constraints.is_some_and(|constraints| constraints.value.ca) {
        return Err(PkiError::Key(format!(
            "the first certificate of {CERTIFICATES} is not one of an authority"
        )));
    }
    let usage = certificate.key_usage().ok().flatten();
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(PkiError::Key(format!(
            "the key of the first certificate of {CERTIFICATES} is not for signing certificates"
        )));
    }
    let seconds = certificate.validity().not_after.timestamp();
    let expires = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let expires = SystemTime::UNIX_EPOCH + expires;
    if expires <= SystemTime::now() {
        return Err(PkiError::Key(format!(
            "the first certificate of {CERTIFICATES} has expired"
        )));
    }
    Ok(expires)
}

/// That one of the keys which is the certificate's own.
fn key_of(certificate: &X509Certificate<'_>, keys: &str) -> Result<Option<KeyPair>, PkiError> {
    for key in PrivatePkcs8KeyDer::pem_slice_iter(keys.as_bytes()) {
        let key = key.map_err(|error| PkiError::Key(format!("{KEYS} is not PEM: {error}")))?;
        let key = KeyPair::try_from(&key).map_err(super::certificate("read the CA key"))?;
        if rcgen::PublicKeyData::subject_public_key_info(&key) == certificate.public_key().raw {
            return Ok(Some(key));
        }
    }
    if keys.contains("BEGIN RSA PRIVATE KEY") || keys.contains("BEGIN EC PRIVATE KEY") {
        return Err(PkiError::Key(format!(
            "{KEYS} holds a key that is not in PKCS#8; convert it with: openssl pkcs8 -topk8 -nocrypt"
        )));
    }
    Ok(None)
}

/// What leads from the first certificate to one that nobody else has issued; nothing if that is the first itself.
fn chain(trusted: &[CertificateDer<'static>]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let parsed: Result<Vec<_>, _> = trusted.iter().map(parse).collect();
    let parsed = parsed?;
    let mut chain = Vec::new();
    let mut next = parsed.first().zip(trusted.first());
    while let Some((certificate, der)) = next {
        let is_root = certificate.issuer() == certificate.subject();
        if is_root || chain.len() == trusted.len() {
            break;
        }
        chain.push(der.clone());
        next = parsed
            .iter()
            .zip(trusted)
            .find(|(other, _)| other.subject() == certificate.issuer());
    }
    Ok(chain)
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| PkiError::Key(format!("{CERTIFICATES} is not PEM: {error}")))
}

fn pem_of(certificates: &[CertificateDer<'_>]) -> String {
    use base64::Engine;
    let one = |der: &CertificateDer<'_>| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines = text.as_bytes().chunks(64).map(String::from_utf8_lossy);
        let lines: Vec<_> = lines.collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    };
    certificates.iter().map(one).collect()
}

fn distinguished_name(common_name: &str, organizations: &[&str]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, *organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// A new key, in PEM.
pub(super) fn new_key() -> Result<String, PkiError> {
    let key = KeyPair::generate().map_err(certificate("make the CA key"))?;
    Ok(key.serialize_pem())
}

/// The certificate, in PEM, of an authority with this key.
pub(super) fn self_signed(key: &str) -> Result<String, PkiError> {
    let key = KeyPair::from_pem(key).map_err(certificate("read the CA key"))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished_name(OWN_NAME, &[]);
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + CA_LIFE).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let signed = params
        .self_signed(&key)
        .map_err(certificate("make the CA certificate"))?;
    Ok(signed.pem())
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
        let file = std::fs::metadata(pki.join(KEYS)).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn certificates_carry_user_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let identity = authority
            .client("system:node:a", &["system:nodes"])
            .unwrap();
        let (chain, _) = identity.for_rustls();
        let parsed = parse(&chain[0]).unwrap();
        let subject = parsed.subject();
        let name = subject.iter_common_name().next().unwrap().as_str();
        assert_eq!(name, Ok("system:node:a"));
        let organization = subject.iter_organization().next().unwrap().as_str();
        assert_eq!(organization, Ok("system:nodes"));
    }

    /// An authority that `root` has issued, its key, and what it needs of certificates.
    fn intermediate() -> (String, String) {
        let ca = |name: &str, path: BasicConstraints| {
            let mut params = CertificateParams::default();
            params.distinguished_name = distinguished_name(name, &[]);
            params.is_ca = IsCa::Ca(path);
            params
        };
        let root_key = KeyPair::generate().unwrap();
        let root = ca("root", BasicConstraints::Unconstrained);
        let root_pem = root.self_signed(&root_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let issued = ca("below", BasicConstraints::Constrained(0));
        let issued = issued.signed_by(&key, &Issuer::from_params(&root, &root_key));
        (issued.unwrap().pem() + &root_pem, key.serialize_pem())
    }

    #[test]
    fn an_authority_below_another_shows_who_it_is_from() {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, key) = intermediate();
        files::write(&dir.path().join(CERTIFICATES), &bundle).unwrap();
        files::write(&dir.path().join(KEYS), &key).unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(authority.trusted().len(), 2);
        let identity = authority.serving("api", vec!["localhost".into()]).unwrap();
        let (chain, _) = identity.for_rustls();
        assert_eq!(chain[1..], authority.trusted()[..1]);
        assert_eq!(certificates(&identity.certificate).unwrap(), chain);
    }

    #[test]
    fn what_cannot_issue_is_refused_by_name() {
        let (bundle, key) = intermediate();
        let refused = |bundle: &str, key: &str| check(bundle, key).unwrap_err().to_string();
        assert!(refused(&bundle, &new_key().unwrap()).contains("does not hold the key"));
        assert!(refused("", &key).contains("no certificate"));
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["a".into()]).unwrap();
        let leaf = leaf.self_signed(&leaf_key).unwrap().pem();
        assert!(refused(&leaf, &leaf_key.serialize_pem()).contains("not one of an authority"));
        let old = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        assert!(refused(&bundle, old).contains("PKCS#8"));
    }

    #[test]
    fn nothing_outlives_its_authority() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = (SystemTime::now() + DAY).into();
        let dir = tempfile::tempdir().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        files::write(&dir.path().join(CERTIFICATES), &pem).unwrap();
        files::write(&dir.path().join(KEYS), &key.serialize_pem()).unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let (chain, _) = authority.client("a", &[]).unwrap().for_rustls();
        let end = |der: &CertificateDer<'_>| parse(der).unwrap().validity().not_after.timestamp();
        assert_eq!(end(&chain[0]), end(&authority.trusted()[0]));
    }
}
