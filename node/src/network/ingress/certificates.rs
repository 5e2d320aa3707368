//! The certificates that are shown, chosen by the name that the client asks for.
//!
//! They are those of the Secrets that Ingresses name. A Secret that becomes unusable leaves what it held before; one that is
//! gone, or is named no more, takes its certificate with it. A name without a certificate gets no connection: there is no
//! certificate to be had that a client could trust.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Secret;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::rules::Rules;
use crate::network::follow::ObjectKey;

/// Why a Secret holds no certificate.
#[derive(Debug, thiserror::Error)]
pub(super) enum CertificateError {
    #[error("it has no {0:?}")]
    Missing(&'static str),
    #[error("its {0:?} is no PEM of the kind")]
    Pem(&'static str, #[source] rustls_pki_types::pem::Error),
    #[error("its key cannot be used with its certificate")]
    Key(#[source] rustls::Error),
}

/// Reads a Secret of type `kubernetes.io/tls`.
pub(super) fn read(secret: &Secret) -> Result<Arc<CertifiedKey>, CertificateError> {
    let part = |name: &'static str| {
        let data = secret.data.as_ref().and_then(|data| data.get(name));
        data.map(|bytes| bytes.0.as_slice())
            .ok_or(CertificateError::Missing(name))
    };
    let (certificate, key) = (part("tls.crt")?, part("tls.key")?);
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|error| CertificateError::Pem("tls.crt", error))?;
    if chain.is_empty() {
        return Err(CertificateError::Missing("tls.crt"));
    }
    let key = PrivateKeyDer::from_pem_slice(key);
    let key = key.map_err(|error| CertificateError::Pem("tls.key", error))?;
    let provider = ring::default_provider();
    let certified = CertifiedKey::from_der(chain, key, &provider);
    Ok(Arc::new(certified.map_err(CertificateError::Key)?))
}

/// By Secret.
pub(super) type Certificates = HashMap<ObjectKey, Arc<CertifiedKey>>;

/// What is shown now: which Secrets for which name, and their certificates.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) rules: Arc<Rules>,
    pub(super) certificates: Certificates,
}

impl Shown {
    fn certificate(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.map(str::to_ascii_lowercase);
        let secrets = self.rules.certificates.fitting(name.as_deref());
        let mut usable = secrets
            .flatten()
            .filter_map(|key| self.certificates.get(key));
        usable.next().cloned()
    }
}

/// Chooses among what is shown at the moment.
#[derive(Debug)]
struct ByName(Arc<ArcSwap<Shown>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificate(hello.server_name())
    }
}

/// TLS for clients, with whatever is shown at the moment.
pub(super) fn server_config(shown: Arc<ArcSwap<Shown>>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(shown)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    fn secret(name: &str) -> Secret {
        let signed = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let data = [
            ("tls.crt", signed.cert.pem()),
            ("tls.key", signed.signing_key.serialize_pem()),
        ];
        let data = data.map(|(part, pem)| (part.to_owned(), ByteString(pem.into_bytes())));
        Secret {
            data: Some(data.into()),
            ..Secret::default()
        }
    }

    #[test]
    fn a_secret_has_to_hold_a_pair_that_fits() {
        let good = secret("a.example");
        assert!(read(&good).is_ok());
        let with = |change: &dyn Fn(&mut std::collections::BTreeMap<String, ByteString>)| {
            let mut secret = good.clone();
            change(secret.data.as_mut().unwrap());
            read(&secret).unwrap_err().to_string()
        };
        assert_eq!(
            with(&|data| drop(data.remove("tls.key"))),
            r#"it has no "tls.key""#
        );
        let junk = ByteString(b"junk".to_vec());
        assert_eq!(
            with(&|data| drop(data.insert("tls.crt".to_owned(), junk.clone()))),
            r#"it has no "tls.crt""#
        );
        assert_eq!(
            with(&|data| drop(data.insert("tls.key".to_owned(), junk.clone()))),
            r#"its "tls.key" is no PEM of the kind"#
        );
        let other = secret("b.example").data.unwrap()["tls.key"].clone();
        assert_eq!(
            with(&|data| drop(data.insert("tls.key".to_owned(), other.clone()))),
            "its key cannot be used with its certificate"
        );
    }

    #[test]
    fn the_first_usable_certificate_of_the_most_particular_name_is_shown() {
        let spec = json!({"tls": [
            {"hosts": ["a.example"], "secretName": "broken"}, {"hosts": ["a.example"], "secretName": "own"},
            {"hosts": ["*.example"], "secretName": "wild"}], "rules": [{"host": "a.example"}]});
        let ingress = json!({"metadata": {"namespace": "n", "name": "i"}, "spec": spec});
        let ingress = serde_json::from_value(ingress).unwrap();
        let certificates = ["own", "wild"].map(|name| {
            let certificate = read(&secret(name)).unwrap();
            (ObjectKey::new("n", name), certificate)
        });
        let shown = Shown {
            rules: Arc::new(Rules::compile([&ingress].into_iter())),
            certificates: certificates.clone().into(),
        };
        let [(_, own), (_, wild)] = &certificates;
        for (name, want) in [
            (Some("A.example"), Some(own)),
            (Some("b.example"), Some(wild)),
            (Some("a.b.example"), None),
            (None, None),
        ] {
            let found = shown.certificate(name);
            assert_eq!(found.is_some(), want.is_some(), "{name:?}");
            assert!(
                found
                    .iter()
                    .zip(want)
                    .all(|(one, other)| Arc::ptr_eq(one, other)),
                "{name:?}"
            );
        }
    }
}
