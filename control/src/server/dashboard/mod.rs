//! The dashboard's server: its files, its sessions, and the API as the session's user.
//!
//! | path | what |
//! |---|---|
//! | `/login?code=…` | a link that works once: opens a session ([`Dashboard::login_link`]) |
//! | `/session` | POST a token to open one, GET who it is, DELETE to end it |
//! | `/kube/…` | the Kubernetes API, upgrades and streams included |
//! | `/registry/v2/…` | the image registry |
//! | `/stream` | many watches over one WebSocket ([`stream`]) |
//! | anything else | the files, or the page that all deep links lead to ([`files`]) |
//!
//! 1. A browser shows its session by a cookie that no script can read and no other site's request carries. The
//!    credentials stay here: a token goes along with each request to the API and is checked by it anew each time, so
//!    that one that was revoked ends nothing later than one that kubectl uses.
//! 2. Where the connection shows a client certificate, that is who asks, with or without a session.
//! 3. What changes something says so by a header that other sites' pages cannot set, and a WebSocket comes from a page
//!    of this very address: neither a cookie nor a certificate lets another site act.
//!
//! A page cannot read why an upgrade was refused: one to the API that is, is accepted here and closed at once, with
//! code 4000 and the reason.
//!
//! Nothing here has rights of its own: whatever is asked passes the API's own authorisation.

mod files;
mod sessions;
mod stream;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use windlass_api::stream::websocket;
use windlass_api::time::format_seconds;

pub use files::{Asset, Files};

use super::ApiServer;
use super::authn::PeerCertificate;
use super::in_process::Identity;
use super::listener::{PeerAddress, Responder};
use super::peers::Peers;
use crate::identity::UserInfo;
use sessions::{Credentials, Session, Sessions};

/// The header of requests that change something.
const INTENT: HeaderName = HeaderName::from_static("x-windlass-request");

/// A token with its JSON around it has no more.
const MAX_SIGN_IN: usize = 64 << 10;

/// How a dashboard is served.
#[derive(Clone, Copy, Debug)]
pub struct DashboardConfig {
    /// What it consists of.
    pub files: Files,
    /// Whether its connections are TLS, with the API's certificate.
    pub secure: bool,
    /// How long a session lasts.
    pub session_life: Duration,
}

/// The dashboard of one API server.
pub struct Dashboard {
    server: Arc<ApiServer>,
    sessions: Sessions,
    files: Files,
    /// Whether its connections are TLS.
    secure: bool,
}

impl Dashboard {
    /// A dashboard for `server` that is served at that port.
    pub(crate) fn new(server: Arc<ApiServer>, config: DashboardConfig, port: u16) -> Arc<Self> {
        Arc::new(Self {
            server,
            sessions: Sessions::of_port(port, config.session_life),
            files: config.files,
            secure: config.secure,
        })
    }

    /// Path and query of a link that opens a session of `user`, once and within the next hour.
    #[must_use]
    pub fn login_link(&self, user: UserInfo) -> String {
        format!("/login?code={}", self.sessions.code(user))
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response, Refusal> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET, "/login") => Ok(self.log_in(&request)),
            (&Method::POST, "/session") => self.sign_in(request).await,
            (&Method::GET, "/session") => who(self.caller(&request)?).await,
            (&Method::DELETE, "/session") => Ok(self.sign_out(&request)),
            (&Method::GET, "/stream") => stream::open(self.caller(&request), request),
            _ if path.starts_with("/kube/") => self.pass(request, "/kube", "").await,
            _ if path.starts_with("/registry/v2/") => {
                self.pass(request, "/registry", "/registry").await
            }
            (&Method::GET | &Method::HEAD, _) => Ok(self.files.answer(&request)),
            _ => Err(Refusal::Method),
        }
    }

    fn log_in(&self, request: &Request<Body>) -> Response {
        let query = super::request_info::Query::of(request.uri());
        let opened = self.sessions.redeem(query.get("code"));
        let target = if opened.is_some() {
            "/"
        } else {
            "/signin?error=link"
        };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SEE_OTHER;
        let headers = response.headers_mut();
        headers.insert(header::LOCATION, HeaderValue::from_static(target));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(id) = opened {
            self.set_cookie(headers, &id);
        }
        response
    }

    async fn sign_in(&self, request: Request<Body>) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        is_own_page(&parts.headers, &parts.uri)?;
        let body = Limited::new(body, MAX_SIGN_IN).collect().await;
        let body = body.map_err(|_| Refusal::Malformed)?.to_bytes();
        let body: Value = serde_json::from_slice(&body).map_err(|_| Refusal::Malformed)?;
        let token = body
            .get("token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut bearer = value.map_err(|_| Refusal::Malformed)?;
        bearer.set_sensitive(true);
        let caller = Caller {
            credentials: Some(Credentials::Token(bearer.clone())),
            ..Caller::of(&parts.extensions, self.server.clone())
        };
        caller.review().await?;
        let id = self.sessions.open(Credentials::Token(bearer));
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        self.set_cookie(response.headers_mut(), &id);
        Ok(response)
    }

    fn sign_out(&self, request: &Request<Body>) -> Response {
        self.sessions.close(request.headers());
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let gone = format!("{}=; Max-Age=0; Path=/", self.sessions.cookie());
        if let Ok(gone) = HeaderValue::from_str(&gone) {
            response.headers_mut().insert(header::SET_COOKIE, gone);
        }
        response
    }

    fn set_cookie(&self, headers: &mut HeaderMap, id: &str) {
        let secure = if self.secure { "; Secure" } else { "" };
        let life = self.sessions.life().as_secs();
        let cookie = format!(
            "{}={id}; HttpOnly; SameSite=Strict; Path=/; Max-Age={life}{secure}",
            self.sessions.cookie()
        );
        if let Ok(mut value) = HeaderValue::from_str(&cookie) {
            value.set_sensitive(true);
            headers.insert(header::SET_COOKIE, value);
        }
    }

    /// Who asks, by session or by client certificate.
    fn caller(&self, request: &Request<Body>) -> Result<Caller, Refusal> {
        let session = self.sessions.of(request.headers());
        let caller = Caller::of(request.extensions(), self.server.clone());
        match session {
            Some(Session {
                credentials,
                expires,
            }) => Ok(Caller {
                credentials: Some(credentials),
                expires: Some(expires),
                ..caller
            }),
            None if caller.certificate.is_some() => Ok(caller),
            None => Err(Refusal::NoSession),
        }
    }

    /// Hands a request to the API, under its path there.
    async fn pass(
        &self,
        mut request: Request<Body>,
        prefix: &'static str,
        of_location: &'static str,
    ) -> Result<Response, Refusal> {
        let caller = self.caller(&request)?;
        let upgrades = websocket::upgrade(request.headers()).is_some();
        if upgrades {
            is_own_page(request.headers(), request.uri())?;
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if !reads
            && request
                .headers()
                .get(&INTENT)
                .is_none_or(|value| value != "1")
        {
            return Err(Refusal::NoIntent);
        }
        let whole = request.uri().path_and_query();
        let rest = whole.and_then(|it| it.as_str().strip_prefix(prefix));
        let uri: Uri = rest
            .unwrap_or("/")
            .parse()
            .map_err(|_| Refusal::Malformed)?;
        *request.uri_mut() = uri;
        let told = upgrades.then(|| stream::Refused::of(&request)).flatten();
        let mut response = caller.send(request).await;
        if let Some(told) = told.filter(|_| response.status() != StatusCode::SWITCHING_PROTOCOLS) {
            return told.tell(response).await;
        }
        // A browser would ask for a password itself.
        response.headers_mut().remove(header::WWW_AUTHENTICATE);
        // Where an upload goes on is told by a path of the registry's own.
        if !of_location.is_empty()
            && let Some(location) = response.headers().get(header::LOCATION)
            && let Ok(path) = location.to_str()
            && path.starts_with('/')
            && let Ok(moved) = HeaderValue::from_str(&format!("{of_location}{path}"))
        {
            response.headers_mut().insert(header::LOCATION, moved);
        }
        Ok(response)
    }
}

impl Responder for Dashboard {
    fn peers(&self) -> &Arc<Peers> {
        self.server.peers()
    }

    async fn respond(self: Arc<Self>, request: Request<Body>) -> Response {
        let address = request.extensions().get::<PeerAddress>();
        let address: Option<IpAddr> = address.map(|peer| peer.0.ip());
        self.answer(request).await.unwrap_or_else(|refusal| {
            tracing::debug!(?address, ?refusal, "the dashboard refused a request");
            refusal.response()
        })
    }
}

/// Somebody with credentials, and the API to use them on.
#[derive(Clone)]
struct Caller {
    server: Arc<ApiServer>,
    credentials: Option<Credentials>,
    expires: Option<jiff::Timestamp>,
    certificate: Option<PeerCertificate>,
    address: Option<PeerAddress>,
}

impl Caller {
    fn of(connection: &http::Extensions, server: Arc<ApiServer>) -> Self {
        Self {
            server,
            credentials: None,
            expires: None,
            certificate: connection.get().cloned(),
            address: connection.get().copied(),
        }
    }

    /// The API's answer to a request of theirs. Credentials that the request itself brings are not theirs.
    async fn send(&self, mut request: Request<Body>) -> Response {
        let headers = request.headers_mut();
        headers.remove(header::COOKIE);
        headers.remove(header::AUTHORIZATION);
        if let Some(Credentials::Token(bearer)) = &self.credentials {
            headers.insert(header::AUTHORIZATION, bearer.clone());
        }
        let extensions = request.extensions_mut();
        match &self.credentials {
            Some(Credentials::User(user)) => {
                extensions.insert(Identity::new(user.as_ref().clone()));
            }
            // A session stands before what the connection shows.
            Some(Credentials::Token(_)) => {
                extensions.remove::<PeerCertificate>();
            }
            None => {
                self.certificate.clone().map(|it| extensions.insert(it));
            }
        }
        self.address.map(|it| extensions.insert(it));
        self.server.clone().respond(request).await
    }

    /// Who they are, to the API.
    async fn review(&self) -> Result<Value, Refusal> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(review.to_string()))
            .map_err(|_| Refusal::Malformed)?;
        let response = self.send(request).await;
        let (status, body) = (response.status(), response.into_body().collect().await);
        let body = body
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let mut body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Err(Refusal::TooMany);
        }
        let user = body.pointer_mut("/status/userInfo").map(Value::take);
        // Somebody whom the API does not know is anonymous to it.
        let user = user.filter(|user| {
            user.get("username")
                .is_some_and(|name| name != "system:anonymous")
        });
        user.ok_or(Refusal::NoSession)
    }
}

async fn who(caller: Caller) -> Result<Response, Refusal> {
    let user = caller.review().await?;
    let told = json!({
        "user": {"username": user.get("username"), "groups": user.get("groups")},
        "expires": caller.expires.map(format_seconds),
        "version": crate::VERSION,
    });
    Ok(json_response(StatusCode::OK, &told))
}

/// Why the dashboard itself refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NoSession,
    NoIntent,
    OtherSite,
    Malformed,
    Method,
    TooMany,
}

impl Refusal {
    /// Status, reason and text.
    const fn words(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::NoSession => (
                StatusCode::UNAUTHORIZED,
                "Unauthorized",
                "sign in first: there is no session, it has ended, or its token is not accepted any more",
            ),
            Self::NoIntent => (
                StatusCode::FORBIDDEN,
                "Forbidden",
                "what changes something needs the header X-Windlass-Request: 1",
            ),
            Self::OtherSite => (
                StatusCode::FORBIDDEN,
                "Forbidden",
                "the request comes from a page of another site",
            ),
            Self::Malformed => (
                StatusCode::BAD_REQUEST,
                "BadRequest",
                "the request cannot be understood",
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "this path takes no such method",
            ),
            Self::TooMany => (
                StatusCode::TOO_MANY_REQUESTS,
                "TooManyRequests",
                "too many wrong tokens, try again later",
            ),
        }
    }

    fn response(self) -> Response {
        let (code, reason, message) = self.words();
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code.as_u16(),
        });
        json_response(code, &status)
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether a page of this very address asks, where the browser says which does.
fn is_own_page(headers: &HeaderMap, uri: &Uri) -> Result<(), Refusal> {
    let Some(origin) = headers.get(header::ORIGIN) else {
        // No browser: it sends one with everything that is asked of it here.
        return Ok(());
    };
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    // HTTP/2 has it in the address that is asked for.
    let host = match headers.get(header::HOST) {
        Some(host) => host.to_str().ok(),
        None => uri.authority().map(http::uri::Authority::as_str),
    };
    match (origin, host) {
        (Some((_, origin)), Some(host)) if origin == host => Ok(()),
        _ => Err(Refusal::OtherSite),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_known_by_the_address_it_came_from() {
        for (origin, host, uri, own) in [
            (None, Some("a:1"), "/session", true),
            (Some("http://a:1"), Some("a:1"), "/session", true),
            (Some("http://b:1"), Some("a:1"), "/session", false),
            (Some("null"), Some("a:1"), "/session", false),
            // HTTP/2: no such header.
            (Some("https://a:1"), None, "https://a:1/session", true),
            (Some("https://b:1"), None, "https://a:1/session", false),
            (Some("https://a:1"), None, "/session", false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::ORIGIN, origin), (header::HOST, host)] {
                value.map(|value| headers.insert(name, value.parse().unwrap()));
            }
            let found = is_own_page(&headers, &uri.parse().unwrap());
            assert_eq!(found.is_ok(), own, "{origin:?} {host:?} {uri}");
        }
    }
}
