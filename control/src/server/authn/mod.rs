//! Authentication: who makes the request.
//!
//! In order: a client certificate signed by the cluster's authority (checked by TLS; here only its
//! subject is read), then a bearer token, which is a ServiceAccount's or a bootstrap token. Browsers, which
//! cannot set headers on a WebSocket, send the token as one of its subprotocols (`web_socket.rs`). A
//! request with credentials that fail is refused; one without any is anonymous. Components of this process
//! carry their identity as a request extension and never get here.

mod bootstrap;
pub mod impersonation;
mod tokens;
mod web_socket;

use std::sync::Arc;

use http::{HeaderMap, header};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::identity::{AUTHENTICATED, UserInfo};
use crate::pki::service_account::{ISSUER, Tokens};
use crate::registry::error::ApiError;
use crate::store::{Freshness, Snapshot, Store};

/// What the client certificate of a connection says, once TLS has verified it. Read once per connection.
#[derive(Clone, Debug)]
pub struct PeerCertificate {
    /// Its user; `None` if its subject names none.
    user: Option<Arc<UserInfo>>,
    /// Its last second, since 1970: a connection may outlive it.
    expires: i64,
}

impl PeerCertificate {
    /// Reads a certificate. One that cannot be understood is nobody's.
    #[must_use]
    pub fn read(certificate: &CertificateDer<'_>) -> Self {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            return Self {
                user: None,
                expires: 0,
            };
        };
        Self {
            user: user_of(&parsed).map(Arc::new),
            expires: parsed.validity().not_after.timestamp(),
        }
    }

    fn user(&self, now: Timestamp) -> Option<UserInfo> {
        let user = self.user.as_deref()?;
        (now.as_second() <= self.expires).then(|| user.clone())
    }
}

/// Finds out who makes a request.
#[derive(Debug)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
}

impl Authenticator {
    /// Verifies ServiceAccount tokens with `tokens`.
    #[must_use]
    pub fn new(tokens: Arc<Tokens>) -> Self {
        Self { tokens }
    }

    /// The user of a request.
    ///
    /// # Errors
    /// [`ApiError::Unauthorized`] for credentials that are wrong, without saying in what way.
    pub async fn authenticate(
        &self,
        certificate: Option<&PeerCertificate>,
        headers: &HeaderMap,
        store: &dyn Store,
    ) -> Result<UserInfo, ApiError> {
        if let Some(certificate) = certificate {
            let user = certificate.user(Timestamp::now());
            return user.ok_or(ApiError::Unauthorized);
        }
        let from_header = match headers.get(header::AUTHORIZATION) {
            Some(value) => bearer(value.to_str().map_err(|_| ApiError::Unauthorized)?),
            None => None,
        };
        let from_protocol = web_socket::token(headers).map_err(|_| ApiError::Unauthorized)?;
        let Some(token) = from_header.or(from_protocol.as_deref()) else {
            return Ok(UserInfo::anonymous());
        };
        let snapshot = store.snapshot(Freshness::Latest).await?;
        let user = match bootstrap::split(token) {
            Some((id, secret)) => bootstrap::authenticate(&snapshot, id, secret),
            None => {
                let audiences = [ISSUER.to_owned()];
                let found = self.token(&snapshot, token, &audiences);
                found.map(|(user, _)| user)
            }
        };
        user.ok_or(ApiError::Unauthorized)
    }

    /// The user of a ServiceAccount token that is meant for one of `audiences`, and for which of them.
    #[must_use]
    pub fn token(
        &self,
        snapshot: &Snapshot,
        token: &str,
        audiences: &[String],
    ) -> Option<(UserInfo, Vec<String>)> {
        tokens::authenticate(&self.tokens, snapshot, token, audiences)
    }
}

/// Removes what proves who the client is and says whom it acts as, once that is known: nothing behind
/// may send it on.
pub fn forget_credentials(headers: &mut HeaderMap) {
    headers.remove(header::AUTHORIZATION);
    impersonation::forget(headers);
    web_socket::forget_token(headers);
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
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
    fn a_certificate_names_its_user_until_it_expires() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let name = &mut params.distinguished_name;
        name.push(rcgen::DnType::CommonName, "alice");
        name.push(rcgen::DnType::OrganizationName, "team");
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let peer = PeerCertificate::read(certificate.der());
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let user = peer.user(at("2029-12-31T23:59:59Z")).unwrap();
        assert_eq!(user.name, "alice");
        assert_eq!(user.groups, ["team", AUTHENTICATED]);
        assert_eq!(peer.user(at("2030-01-02T00:00:00Z")), None);
        let broken = PeerCertificate::read(&CertificateDer::from(&b"broken"[..]));
        assert_eq!(broken.user(at("1970-01-01T00:00:00Z")), None);
    }
}
