//! Requests to a registry somewhere: HTTP or HTTPS, with redirects and credentials.
//!
//! ```text
//! config.rs      what the machine's file says: mirrors, plain HTTP, authorities, credentials
//! registries.rs  from a reference to the clients to try, in order
//! mod.rs         one registry's connections; follows redirects
//! auth.rs        what a request has to show; challenge.rs reads what is wanted
//! ```
//!
//! Invariant: what a request shows goes to the registry's own host and nowhere a redirect leads.

mod auth;
mod challenge;
pub mod config;
pub mod registries;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};

use super::client::{Body, BoxError, Refused, Transport};
use crate::credentials::Credential;
use auth::{Authorizer, Outcome};
use challenge::Challenge;

type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("windlass/", env!("CARGO_PKG_VERSION")));
const CONNECT: Duration = Duration::from_secs(10);
/// Connections that nobody uses are closed after this.
const IDLE: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 5;
/// Credentials of one registry whose tokens are kept.
const MAX_AUTHORIZERS: usize = 64;

/// Connections to one registry, and what is known of the credentials for it.
pub struct Endpoint {
    /// `https://HOST:PORT`.
    base: String,
    over_tls: bool,
    http: HttpClient,
    authorizers: Mutex<HashMap<Option<Credential>, Arc<Authorizer>>>,
}

impl Endpoint {
    /// The registry at `host`, whose certificate one of `roots` has signed.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new(host: &str, plain_http: bool, roots: RootCertStore) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .build(connector);
        let scheme = if plain_http { "http" } else { "https" };
        Ok(Self {
            base: format!("{scheme}://{host}"),
            over_tls: !plain_http,
            http,
            authorizers: Mutex::default(),
        })
    }

    fn authorizer(&self, credential: Option<Credential>) -> Arc<Authorizer> {
        let mut known = self
            .authorizers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_AUTHORIZERS {
            known.clear();
        }
        let authorizer = known.entry(credential.clone());
        authorizer
            .or_insert_with(|| Arc::new(Authorizer::new(credential)))
            .clone()
    }

    /// A transport to this registry that shows this credential.
    #[must_use]
    pub fn transport(self: &Arc<Self>, credential: Option<Credential>) -> RemoteTransport {
        RemoteTransport {
            authorizer: self.authorizer(credential),
            endpoint: self.clone(),
        }
    }
}

/// Sends requests to one registry with one credential, or none.
pub struct RemoteTransport {
    endpoint: Arc<Endpoint>,
    authorizer: Arc<Authorizer>,
}

/// A request that can be sent several times.
struct Replay {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Replay {
    fn to(
        &self,
        uri: &Uri,
        authorization: Option<HeaderValue>,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let body = Full::new(self.body.clone());
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(uri.clone())
            .body(body)?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        headers.insert(header::USER_AGENT, USER_AGENT);
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value);
        }
        Ok(request)
    }
}

#[async_trait]
impl Transport for RemoteTransport {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let request = Replay {
            method: parts.method,
            headers: parts.headers,
            body: body.collect().await?.to_bytes(),
        };
        let mut target = self.absolute(&parts.uri)?;
        for _ in 0..=MAX_REDIRECTS {
            let is_own = self.is_own(&target);
            let response = if is_own {
                self.send_authorized(&request, &target).await?
            } else {
                let sent = self.endpoint.http.request(request.to(&target, None)?);
                boxed(sent.await?)
            };
            let Some(next) = redirect(&request.method, &target, &response)? else {
                return Ok(if is_own { response } else { silenced(response) });
            };
            if target.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                let text = format!(
                    "{} redirects to {next}, which is not https",
                    self.endpoint.base
                );
                return Err(Refused(text).into());
            }
            target = next;
        }
        let text = format!(
            "{}: more than {MAX_REDIRECTS} redirects",
            self.endpoint.base
        );
        Err(Refused(text).into())
    }
}

impl RemoteTransport {
    fn absolute(&self, uri: &Uri) -> Result<Uri, BoxError> {
        if uri.authority().is_some() {
            return Ok(uri.clone());
        }
        Ok(format!("{}{uri}", self.endpoint.base).parse()?)
    }

    fn is_own(&self, uri: &Uri) -> bool {
        let rest = uri.to_string();
        let rest = rest.strip_prefix(&self.endpoint.base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    }

    /// Sends to the registry itself; takes up one challenge, and takes the second refusal for an answer.
    async fn send_authorized(
        &self,
        request: &Replay,
        target: &Uri,
    ) -> Result<Response<Body>, BoxError> {
        let http = &self.endpoint.http;
        let scope = scope(&request.method, target.path());
        let shown = self.authorizer.known(&scope);
        let response = http.request(request.to(target, shown)?).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(boxed(response));
        }
        let Some(challenge) = Challenge::of(response.headers()) else {
            return Ok(boxed(response));
        };
        let over_tls = self.endpoint.over_tls;
        let outcome = self.authorizer.take_up(challenge, &scope, over_tls, http);
        match outcome.await? {
            Outcome::Nothing => Ok(boxed(response)),
            Outcome::Refused(answer) => Ok(answer.map(full)),
            Outcome::Authorized(value) => {
                let again = http.request(request.to(target, Some(value))?);
                Ok(boxed(again.await?))
            }
        }
    }
}

fn boxed(response: Response<hyper::body::Incoming>) -> Response<Body> {
    response.map(|body| body.map_err(BoxError::from).boxed_unsync())
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An error from where a redirect led, without its words: the registry chose the place, and it may be one that only
/// this machine reaches.
fn silenced(response: Response<Body>) -> Response<Body> {
    if response.status().is_success() {
        return response;
    }
    response.map(|_| full(Bytes::new()))
}

/// Where a response leads instead, for requests that change nothing.
fn redirect(
    method: &Method,
    from: &Uri,
    response: &Response<Body>,
) -> Result<Option<Uri>, BoxError> {
    let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    if !leads_on || !matches!(*method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let location = response.headers().get(header::LOCATION);
    let location = location.and_then(|value| value.to_str().ok());
    let unusable = || Refused(format!("{from}: a redirect to {location:?}"));
    let text = location.ok_or_else(unusable)?;
    let absolute = if text.starts_with('/') && !text.starts_with("//") {
        let authority = from.authority().map(http::uri::Authority::as_str);
        let scheme = from.scheme_str().unwrap_or("https");
        format!("{scheme}://{}{text}", authority.unwrap_or_default())
    } else {
        text.to_owned()
    };
    let uri: Uri = absolute.parse().map_err(|_| unusable())?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if !is_http || uri.authority().is_none() {
        return Err(unusable().into());
    }
    Ok(Some(uri))
}

/// What a token has to be good for.
fn scope(method: &Method, path: &str) -> String {
    const ACTIONS: [&str; 4] = ["/manifests/", "/blobs/", "/tags/", "/referrers/"];
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    let repository = ACTIONS.iter().find_map(|action| rest.find(action));
    let repository = repository.and_then(|end| rest.get(..end));
    let access = match *method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "delete",
        _ => "pull,push",
    };
    repository.map_or_else(String::new, |name| format!("repository:{name}:{access}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transport(host: &str) -> RemoteTransport {
        let endpoint = Endpoint::new(host, false, RootCertStore::empty()).unwrap();
        Arc::new(endpoint).transport(None)
    }

    #[test]
    fn only_the_registrys_own_host_is_its_own() {
        let transport = transport("r.io");
        for (uri, own) in [
            ("https://r.io/v2/", true),
            ("https://r.io", true),
            ("https://r.io.evil.com/v2/", false),
            ("https://r.io:5000/v2/", false),
            ("https://r.io@evil.com/v2/", false),
            ("http://r.io/v2/", false),
            ("https://cdn.r.io/", false),
        ] {
            assert_eq!(transport.is_own(&uri.parse().unwrap()), own, "{uri}");
        }
    }

    #[test]
    fn a_redirect_leads_where_it_says_and_to_http_only() {
        let from: Uri = "https://r.io/v2/a/blobs/x".parse().unwrap();
        let to = |method: Method, location: &str| {
            let response = Response::builder()
                .status(307)
                .header(header::LOCATION, location)
                .body(full(Bytes::new()))
                .unwrap();
            redirect(&method, &from, &response).map(|uri| uri.map(|uri| uri.to_string()))
        };
        let get = |location| to(Method::GET, location);
        assert_eq!(get("/x?y=1").unwrap().unwrap(), "https://r.io/x?y=1");
        assert_eq!(get("https://c.io/x").unwrap().unwrap(), "https://c.io/x");
        assert_eq!(to(Method::PUT, "/x").unwrap(), None);
        for bad in ["file:///etc/passwd", "//c.io/x", "x", ""] {
            assert!(get(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_name_the_repository_and_what_is_done() {
        let of = |method, path| scope(&method, path);
        let pull = "repository:a/b/c:pull";
        assert_eq!(of(Method::GET, "/v2/a/b/c/manifests/v1"), pull);
        assert_eq!(of(Method::HEAD, "/v2/a/b/c/blobs/x"), pull);
        let push = "repository:a/b/c:pull,push";
        assert_eq!(of(Method::POST, "/v2/a/b/c/blobs/uploads/"), push);
        assert_eq!(of(Method::GET, "/v2/"), "");
    }
}
