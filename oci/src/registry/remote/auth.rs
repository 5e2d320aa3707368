//! The header `Authorization` for requests to one registry with one credential.
//!
//! 1. The first request goes without, unless an earlier one found out what the registry wants.
//! 2. A 401 brings a [`Challenge`]. To Basic, user name and password are the answer; to Bearer, a token that the
//!    server named in the challenge gives for the credential: by GET with Basic authentication, by POST for a refresh
//!    token, by GET without anything for strangers.
//! 3. What was found is kept by scope, a token until shortly before it expires.
//!
//! Spec: the token authentication of the distribution project, and its OAuth2 variant.
//!
//! Invariant: a credential goes to the registry it is for and to the token server that this registry names; over TLS,
//! unless the registry itself is configured without.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;

use super::challenge::Challenge;
use super::{HttpClient, USER_AGENT};
use crate::credentials::Credential;
use crate::registry::client::{BoxError, Refused};

/// Scopes whose tokens are kept; more than one node pulls from one registry at a time.
const MAX_SCOPES: usize = 256;
const MAX_ANSWER: usize = 256 << 10;
/// How long a token lives that does not say so.
const DEFAULT_LIFE: u64 = 60;
/// A token is not used so shortly before its end.
const MARGIN: Duration = Duration::from_secs(10);
const CLIENT_ID: &str = "windlass";
/// How long a token server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the requests of one credential to one registry have to show.
pub(super) struct Authorizer {
    credential: Option<Credential>,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    value: HeaderValue,
    until: Option<Instant>,
}

/// What came of a challenge.
pub(super) enum Outcome {
    /// The request may be sent again with this.
    Authorized(HeaderValue),
    /// There is nothing to show.
    Nothing,
    /// The token server did not give a token; its answer stands for the registry's.
    Refused(Response<Bytes>),
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authorizer {
    pub(super) fn new(credential: Option<Credential>) -> Self {
        Self {
            credential,
            known: Mutex::default(),
        }
    }

    /// What is known to be wanted for this scope.
    pub(super) fn known(&self, scope: &str) -> Option<HeaderValue> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.get(scope)?;
        let is_valid = found.until.is_none_or(|until| Instant::now() < until);
        is_valid.then(|| found.value.clone())
    }

    /// Takes up a challenge.
    pub(super) async fn take_up(
        &self,
        challenge: Challenge,
        scope: &str,
        over_tls: bool,
        http: &HttpClient,
    ) -> Result<Outcome, BoxError> {
        let credential = self.credential.as_ref();
        let fixed = credential.and_then(|credential| match (&challenge, credential) {
            (Challenge::Bearer { .. }, credential) => credential
                .registry_token
                .as_ref()
                .map(|token| bearer(token)),
            (Challenge::Basic, credential) => basic(credential),
        });
        if let Some(value) = fixed.transpose()? {
            return Ok(Outcome::Authorized(self.keep(scope, value, None)));
        }
        let Challenge::Bearer {
            realm,
            service,
            scope: asked,
        } = challenge
        else {
            return Ok(Outcome::Nothing);
        };
        let asked = asked.as_deref().unwrap_or(scope);
        let request = self.token_request(&realm, service.as_deref(), asked, over_tls)?;
        let answer = tokio::time::timeout(PATIENCE, ask(http, request, &realm)).await;
        match answer.map_err(|_| format!("token server {realm}: no answer"))?? {
            Ok(answer) => {
                let until = answer.until();
                let token = answer.access_token.or(answer.token);
                let token = token.filter(|token| !token.is_empty());
                let token = token.ok_or_else(|| format!("token server {realm}: no token"))?;
                Ok(Outcome::Authorized(self.keep(
                    scope,
                    bearer(&token)?,
                    until,
                )))
            }
            Err(refused) => Ok(Outcome::Refused(refused)),
        }
    }

    fn keep(&self, scope: &str, value: HeaderValue, until: Option<Instant>) -> HeaderValue {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_SCOPES {
            known.clear();
        }
        let kept = Known {
            value: value.clone(),
            until,
        };
        known.insert(scope.to_owned(), kept);
        value
    }

    fn token_request(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        over_tls: bool,
    ) -> Result<Request<Full<Bytes>>, BoxError> {
        let uri: Uri = realm.parse().map_err(|_| unusable(realm))?;
        let is_safe = uri.scheme_str() == Some("https") || !over_tls;
        if uri.authority().is_none() || !is_safe {
            return Err(unusable(realm).into());
        }
        let mut form = Serializer::new(String::new());
        form.extend_pairs(service.map(|service| ("service", service)));
        form.append_pair("scope", scope);
        let credential = self.credential.as_ref();
        let refresh = credential.and_then(|credential| credential.identity_token.as_deref());
        if let Some(refresh) = refresh {
            form.append_pair("grant_type", "refresh_token");
            form.append_pair("client_id", CLIENT_ID);
            form.append_pair("refresh_token", refresh);
            return Ok(Request::builder()
                .method(Method::POST)
                .uri(uri)
                .header(header::USER_AGENT, USER_AGENT)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::from(form.finish()))?);
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let mut request = Request::builder()
            .uri(format!("{realm}{separator}{}", form.finish()))
            .header(header::USER_AGENT, USER_AGENT);
        if let Some(value) = credential.and_then(basic).transpose()? {
            request = request.header(header::AUTHORIZATION, value);
        }
        Ok(request.body(Full::default())?)
    }
}

impl TokenAnswer {
    fn until(&self) -> Option<Instant> {
        let life = Duration::from_secs(self.expires_in.unwrap_or(DEFAULT_LIFE));
        Instant::now().checked_add(life.saturating_sub(MARGIN))
    }
}

/// Asks a token server. Its words are not handed on: which server that is, a registry says, and it may be one that only
/// this machine reaches.
async fn ask(
    http: &HttpClient,
    request: Request<Full<Bytes>>,
    realm: &str,
) -> Result<Result<TokenAnswer, Response<Bytes>>, BoxError> {
    let response = http.request(request).await?;
    if response.status() != StatusCode::OK {
        return Ok(Err(refusal(&response, realm)?));
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await?;
    let answer = serde_json::from_slice(&body.to_bytes());
    Ok(Ok(answer.map_err(|_| {
        format!("token server {realm}: its answer is malformed")
    })?))
}

/// The token server's status as the registry's: what it won't do is denied, all else may pass.
fn refusal(answer: &Response<Incoming>, realm: &str) -> Result<Response<Bytes>, BoxError> {
    let status = answer.status();
    let passes = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    let stands_for = if passes {
        status
    } else {
        StatusCode::UNAUTHORIZED
    };
    let text = format!("token server {realm}: {status}");
    let body = serde_json::json!({"errors": [{"code": "UNAUTHORIZED", "message": text}]});
    let mut response = Response::builder().status(stands_for);
    if let Some(after) = answer.headers().get(header::RETRY_AFTER) {
        response = response.header(header::RETRY_AFTER, after);
    }
    Ok(response.body(body.to_string().into())?)
}

fn unusable(realm: &str) -> Refused {
    Refused(format!(
        "the registry names the token server {realm:?}, which is no https URL"
    ))
}

fn secret(text: String) -> Result<HeaderValue, BoxError> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| Refused("a credential cannot be sent in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn bearer(token: &str) -> Result<HeaderValue, BoxError> {
    secret(format!("Bearer {token}"))
}

/// `None` where there is neither user nor password.
fn basic(credential: &Credential) -> Option<Result<HeaderValue, BoxError>> {
    let Credential {
        username, password, ..
    } = credential;
    let is_empty = username.is_empty() && password.is_empty();
    let encoded = || STANDARD.encode(format!("{username}:{password}"));
    (!is_empty).then(|| secret(format!("Basic {}", encoded())))
}
