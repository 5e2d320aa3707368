//! Authentication: who makes the request.
//!
//! In order:
//!
//! 1. a proxy in front of the API, known by its client certificate, says for whom it asks (`front_proxy.rs`);
//! 2. a client certificate of the cluster's authority (checked by TLS; here only its subject is read);
//! 3. a bearer token: a bootstrap token, a ServiceAccount's, or that of another issuer (`oidc/`). Browsers, which cannot
//!    set headers on a WebSocket, send the token as one of its subprotocols (`web_socket.rs`), and clients of image
//!    registries as the password of Basic authentication, below `/v2/` only.
//!
//! A request with credentials that fail is refused; one without any is anonymous, where that is allowed. Components of
//! this process carry their identity as a request extension and never get here.

mod bootstrap;
mod configuration;
mod front_proxy;
pub mod impersonation;
mod oidc;
mod tokens;
mod web_socket;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::identity::{AUTHENTICATED, UserInfo};
use crate::images;
use crate::pki::jwt::Jwt;
use crate::pki::service_account::Tokens;
use crate::registry::error::ApiError;
use crate::store::{Freshness, Snapshot, Store};
pub use configuration::{AuthenticationConfiguration, AuthenticationError, OidcOptions};
pub use front_proxy::{FrontProxy, Incomplete};
use oidc::Provider;

/// Which authority has signed a client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// The cluster's.
    Cluster,
    /// That of the proxy in front of the API.
    FrontProxy,
}

/// What the client certificate of a connection says, once TLS has verified it. Read once per connection.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// Its user; `None` if its subject names none.
    user: Option<Arc<UserInfo>>,
    /// Its last second, since 1970: a connection may outlive it.
    expires: i64,
    signed_by: SignedBy,
}

impl PeerCertificate {
    /// Reads a certificate. One that cannot be understood is nobody's.
    #[must_use]
    pub fn read(certificate: &CertificateDer<'_>, signed_by: SignedBy) -> Self {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            return Self {
                user: None,
                expires: 0,
                signed_by,
            };
        };
        Self {
            user: user_of(&parsed).map(Arc::new),
            expires: parsed.validity().not_after.timestamp(),
            signed_by,
        }
    }

    fn user(&self, now: Timestamp) -> Option<&UserInfo> {
        let user = self.user.as_deref()?;
        (now.as_second() <= self.expires).then_some(user)
    }
}

/// Finds out who makes a request.
pub struct Authenticator {
    tokens: Arc<Tokens>,
    providers: Vec<Provider>,
    anonymous: configuration::Anonymous,
    front_proxy: Option<FrontProxy>,
}

impl Authenticator {
    /// Verifies ServiceAccount tokens with `tokens`, those of other issuers as `configuration` says, and believes
    /// `front_proxy`.
    ///
    /// # Errors
    /// When an issuer is the cluster itself, or its certificates cannot be used.
    pub fn new(
        tokens: Arc<Tokens>,
        configuration: &AuthenticationConfiguration,
        front_proxy: Option<FrontProxy>,
    ) -> Result<Self, AuthenticationError> {
        configuration.check_against(tokens.issuers())?;
        let providers = configuration.jwt.iter().cloned().map(Provider::new);
        let providers = providers.collect::<Result<_, _>>();
        Ok(Self {
            providers: providers.map_err(AuthenticationError::Form)?,
            anonymous: configuration.anonymous.clone(),
            tokens,
            front_proxy,
        })
    }

    /// Fetches the keys of other issuers before the first of their tokens comes.
    pub async fn prepare(&self) {
        futures::future::join_all(self.providers.iter().map(Provider::prepare)).await;
    }

    /// The user of a request for `path`.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] for credentials that are wrong, without saying in what way.
    pub async fn authenticate(
        &self,
        certificate: Option<&PeerCertificate>,
        path: &str,
        headers: &HeaderMap,
        store: &dyn Store,
    ) -> Result<UserInfo, ApiError> {
        if let Some(certificate) = certificate {
            let user = certificate
                .user(Timestamp::now())
                .ok_or(ApiError::Unauthorized)?;
            match (certificate.signed_by, &self.front_proxy) {
                (SignedBy::Cluster, _) => return Ok(user.clone()),
                (SignedBy::FrontProxy, Some(proxy)) => {
                    if let Some(user) = proxy.user(&user.name, headers) {
                        return Ok(user);
                    }
                }
                (SignedBy::FrontProxy, None) => return Err(ApiError::Unauthorized),
            }
        }
        let from_header = match headers.get(header::AUTHORIZATION) {
            Some(value) => {
                let value = value.to_str().map_err(|_| ApiError::Unauthorized)?;
                match bearer(value) {
                    Some(token) => Some(Cow::Borrowed(token)),
                    None if images::serves(path) => Some(Cow::Owned(password(value)?)),
                    None => None,
                }
            }
            None => None,
        };
        let from_protocol = web_socket::token(headers).map_err(|_| ApiError::Unauthorized)?;
        let token = from_header.or(from_protocol.map(Cow::Owned));
        let Some(token) = token.as_deref() else {
            let anonymous = self.anonymous.allows(path).then(UserInfo::anonymous);
            return anonymous.ok_or(ApiError::Unauthorized);
        };
        let snapshot = store.snapshot(Freshness::Latest).await?;
        let user = match bootstrap::split(token) {
            Some((id, secret)) => bootstrap::authenticate(&snapshot, id, secret),
            None => {
                let found = self.token(&snapshot, token, &[]).await;
                found.map(|(user, _)| user)
            }
        };
        user.ok_or(ApiError::Unauthorized)
    }

    /// The user of a token that is meant for one of `audiences`, and for which of them; for the API if there are none.
    pub async fn token(
        &self,
        snapshot: &Snapshot,
        token: &str,
        audiences: &[String],
    ) -> Option<(UserInfo, Vec<String>)> {
        let own = [self.tokens.issuer().to_owned()];
        let wanted = if audiences.is_empty() {
            &own
        } else {
            audiences
        };
        if let Some(found) = tokens::authenticate(&self.tokens, snapshot, token, wanted) {
            return Some(found);
        }
        let (now, token) = (Timestamp::now(), Jwt::parse(token).ok()?);
        for provider in &self.providers {
            if let Some((user, mut meant)) = provider.authenticate(&token, now).await {
                meant.retain(|audience| audiences.is_empty() || audiences.contains(audience));
                return (!meant.is_empty()).then_some((user, meant));
            }
        }
        None
    }

    /// Removes what proves who the client is and says whom it acts as, once that is known: nothing behind
    /// may send it on.
    pub fn forget_credentials(&self, headers: &mut HeaderMap) {
        headers.remove(header::AUTHORIZATION);
        impersonation::forget(headers);
        web_socket::forget_token(headers);
        if let Some(proxy) = &self.front_proxy {
            proxy.forget(headers);
        }
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticator")
    }
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The password of Basic authentication.
///
/// # Errors
/// [`ApiError::Unauthorized`] for any other scheme, and for what is malformed.
fn password(value: &str) -> Result<String, ApiError> {
    let decoded = value.split_once(' ').and_then(|(scheme, encoded)| {
        let encoded = scheme
            .eq_ignore_ascii_case("basic")
            .then(|| encoded.trim())?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    });
    let password = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (_, password) = password.ok_or(ApiError::Unauthorized)?;
    Ok(password.to_owned())
}

/// Common name is the user, organizations are the groups.
fn user_of(parsed: &X509Certificate<'_>) -> Option<UserInfo> {
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject
        .iter_organization()
        .filter_map(|org| org.as_str().ok());
    let groups = organizations
        .chain([AUTHENTICATED])
        .map(str::to_owned)
        .collect();
    Some(UserInfo {
        name,
        groups,
        ..UserInfo::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_from_basic_authentication_alone() {
        assert_eq!(password("Basic dTpwOnc=").unwrap(), "p:w");
        assert_eq!(password("basic  dTo=").unwrap(), "");
        for wrong in ["Basic", "Basic !", "Basic dQ==", "Digest dTpw", ""] {
            assert!(password(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_certificate_names_its_user_until_it_expires() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "alice");
        name.push(rcgen::DnType::OrganizationName, "team");
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let peer = PeerCertificate::read(certificate.der(), SignedBy::Cluster);
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let user = peer.user(at("2029-12-31T23:59:59Z")).unwrap();
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, ["team", AUTHENTICATED]);
        assert_eq!(peer.user(at("2030-01-02T00:00:00Z")), None);
        let broken =
            PeerCertificate::read(&CertificateDer::from(&b"broken"[..]), SignedBy::Cluster);
        assert_eq!(broken.user(at("1970-01-01T00:00:00Z")), None);
    }
}
