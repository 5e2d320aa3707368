//! Requests to servers outside the cluster: issuers of identities and receivers of audit events.
//!
//! Whom the server's certificate has to be signed by is said for each; by default those that the machine trusts. No
//! redirect is followed, an answer has a size and a time limit, and no address is reached that was not configured.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Largest answer.
const MAX_ANSWER: usize = 1 << 20;
/// Longest that a request may take, its answer included.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// A client with a trust of its own.
#[derive(Clone)]
pub(crate) struct Outbound {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Whom a server has to be signed by, and who we are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Certificates in PEM; those that the machine trusts without them.
    pub(crate) authorities: Option<String>,
    /// Certificate chain and key in PEM that we show.
    pub(crate) identity: Option<(String, String)>,
}

impl Outbound {
    /// A client that trusts as `trust` says.
    ///
    /// # Errors
    /// What is wrong with a certificate or a key.
    pub(crate) fn new(trust: &Trust) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots(trust.authorities.as_deref())?);
        let config = match &trust.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain)?;
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
                    .map_err(|error| format!("the client key is not PEM: {error}"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| error.to_string())?
            }
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client })
    }

    /// The body behind a URL.
    ///
    /// # Errors
    /// Why there is none, the answer's status included.
    pub(crate) async fn get(&self, url: &str) -> Result<Bytes, String> {
        self.send(Method::GET, url, &[], Bytes::new()).await
    }

    /// Sends a body; answers the one that comes back.
    ///
    /// # Errors
    /// Why it did not arrive, the answer's status included.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, http::HeaderValue)],
        body: Bytes,
    ) -> Result<Bytes, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().extend(headers.iter().cloned());
        let exchange = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| full_text(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            match status {
                StatusCode::OK | StatusCode::CREATED | StatusCode::ACCEPTED => Ok(body.to_bytes()),
                other => Err(format!("the server answered {other}")),
            }
        };
        let answer = tokio::time::timeout(TIME_LIMIT, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        answer.map_err(|error| format!("{url}: {error}"))
    }
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// When it is none or holds none.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(|error| format!("the certificates are not PEM: {error}"))?;
    if found.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(found)
}

fn roots(authorities: Option<&str>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(pem) => {
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| error.to_string())?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    Ok(roots)
}

/// The error with what caused it.
fn full_text(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
