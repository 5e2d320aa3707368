//! HTTP to pods, Services and nodes by way of the API server.
//!
//! ```text
//!   …/pods/[SCHEME:]NAME[:PORT]/proxy/PATH       a port of the pod, the first one declared if none is named
//!   …/services/[SCHEME:]NAME[:PORT]/proxy/PATH   a pod behind that port of the Service, by name or number
//!   …/nodes/[SCHEME:]NAME[:PORT]/proxy/PATH      the node's agent
//! ```
//! 1. The target is found: a pod and its port, or a node.
//! 2. The request goes on as it came, less what concerns one connection only (hop-by-hop headers); a pod
//!    is reached by a port-forward connection to its node, a node by its daemon endpoint.
//! 3. So does the response. A `Location` on the same host is made to lead through the proxy again.
//! 4. An upgrade that the target grants joins the two connections.
//!
//! Differs from Kubernetes: links in HTML are not rewritten; a port of a node other than its agent's
//! cannot be reached; a pod's port is reached from within the pod, so also where it listens on loopback.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rand::seq::IndexedRandom;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use tokio_rustls::TlsConnector;
use windlass_api::stream::websocket;

use super::port_forward::PodConnection;
use super::upgrade::{AGREEMENT, relay, switch};
use super::{Daemon, NodeConnector, exchange};
use crate::registry::error::{ApiError, Target};
use crate::server::Context;
use crate::store::{ObjectKey, Snapshot};

/// Headers that concern one connection only (RFC 9110, section 7.6.1, and what is in use besides).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// What a path names: `[SCHEME:]NAME[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

/// Which kind of object is proxied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxied {
    Pod,
    Service,
    Node,
}

/// Where a request goes.
enum Backend {
    Node(Daemon),
    Pod { pod: Value, port: u16, tls: bool },
}

impl Proxied {
    /// The kind that a resource holds, if it can be proxied to.
    pub(crate) fn of(resource: &str) -> Option<Self> {
        match resource {
            "pods" => Some(Self::Pod),
            "services" => Some(Self::Service),
            "nodes" => Some(Self::Node),
            _ => None,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Node => "node",
        }
    }
}

/// Reads `[SCHEME:]NAME[:PORT]`.
fn split_name(kind: Proxied, id: &str) -> Result<Named<'_>, ApiError> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => ("", "", ""),
    };
    if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
        let text = format!("invalid {} request {id:?}", kind.word());
        return Err(ApiError::BadRequest(text));
    }
    Ok(Named { scheme, name, port })
}

impl NodeConnector {
    /// Sends the client's request on to what its path names.
    pub(crate) async fn proxy(
        &self,
        kind: Proxied,
        context: &Context,
        body: Body,
        snapshot: &Snapshot,
    ) -> Result<Response, ApiError> {
        let backend = Backend::find(kind, context, snapshot)?;
        let path = rest_of_path(context);
        let upgrades = websocket::upgrade(&context.headers).is_some();
        let reads = matches!(context.method, Method::GET | Method::HEAD);
        if path.is_empty() && reads && !upgrades {
            return redirect(&context.uri);
        }
        let upgrade = context.upgrade.clone().filter(|_| upgrades);
        let mut request = outgoing(context, path, body, upgrade.is_some())?;
        let response = match backend {
            Backend::Node(daemon) => self.send(&daemon, request).await?,
            Backend::Pod { pod, port, tls } => {
                name_host(&mut request, &pod, port)?;
                let daemon = Daemon::of_pod(&pod, snapshot)?;
                let (connection, reason) = self.dial_pod(&daemon, &pod, port).await?;
                match talk(connection, request, tls).await {
                    Ok(response) => response,
                    Err(error) => {
                        let why = reason.text().await.unwrap_or_else(|| error.to_string());
                        return Err(unreachable(&why));
                    }
                }
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return join_upgraded(upgrade, response);
        }
        Ok(incoming(context, path, response))
    }
}

/// Joins the client with a backend that granted its upgrade.
fn join_upgraded(client: Option<OnUpgrade>, mut response: Response) -> Result<Response, ApiError> {
    let client = client.ok_or_else(|| unreachable("it switched protocols unasked"))?;
    let headers = std::mem::take(response.headers_mut());
    let backend = hyper::upgrade::on(response);
    Ok(switch(client, headers, async move |client| {
        match backend.await {
            Ok(backend) => relay(client, TokioIo::new(backend)).await,
            Err(error) => tracing::debug!(%error, "a backend went away before its upgrade"),
        }
    }))
}

impl Backend {
    fn find(kind: Proxied, context: &Context, snapshot: &Snapshot) -> Result<Self, ApiError> {
        let named = split_name(kind, &context.info.name)?;
        let namespace = &context.info.namespace;
        match kind {
            Proxied::Node => node(&named, snapshot),
            Proxied::Service => service(&named, namespace, snapshot),
            Proxied::Pod => {
                let pod = find(snapshot, namespace, "pods", "Pod", named.name)?;
                pod_backend(pod, &named)
            }
        }
    }
}

/// Names the pod's address as the host, if the client named none.
fn name_host(request: &mut Request<Body>, pod: &Value, port: u16) -> Result<(), ApiError> {
    let address = pod.pointer("/status/podIP").and_then(Value::as_str);
    let host = format!("{}:{port}", address.unwrap_or("localhost"));
    let host = HeaderValue::try_from(host);
    let host = host.map_err(|error| ApiError::Internal(error.to_string()))?;
    request.headers_mut().entry(header::HOST).or_insert(host);
    Ok(())
}

fn unreachable(why: &str) -> ApiError {
    ApiError::Unreachable(format!("error trying to reach service: {why}"))
}

fn find(
    snapshot: &Snapshot,
    namespace: &str,
    resource: &str,
    kind: &str,
    name: &str,
) -> Result<Value, ApiError> {
    let key = ObjectKey::new("", resource, namespace, name);
    let entry = snapshot.get(&key).ok_or_else(|| {
        ApiError::NotFound(Target {
            group: String::new(),
            resource: resource.into(),
            kind: kind.into(),
            name: name.into(),
        })
    })?;
    crate::registry::parse(entry)
}

fn node(named: &Named<'_>, snapshot: &Snapshot) -> Result<Backend, ApiError> {
    find(snapshot, "", "nodes", "Node", named.name)?;
    let daemon = Daemon::of(named.name, snapshot)?;
    if !named.port.is_empty() && named.port != daemon.port.to_string() {
        let Named { name, port, .. } = named;
        let text =
            format!("port {port} of node {name:?} is not its agent's, and cannot be reached");
        return Err(ApiError::BadRequest(text));
    }
    Ok(Backend::Node(daemon))
}

fn pod_backend(pod: Value, named: &Named<'_>) -> Result<Backend, ApiError> {
    let address = pod.pointer("/status/podIP").and_then(Value::as_str);
    if address.is_none_or(str::is_empty) {
        return Err(ApiError::BadRequest("address not allowed".into()));
    }
    let port = match named.port {
        "" => first_port(&pod).unwrap_or(if named.scheme == "https" { 443 } else { 80 }),
        text => port(text)?,
    };
    let tls = named.scheme == "https";
    Ok(Backend::Pod { pod, port, tls })
}

fn port(text: &str) -> Result<u16, ApiError> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| unreachable(&format!("unknown port {text:?}")))
}

/// The first port that a container of the pod declares.
fn first_port(pod: &Value) -> Option<u16> {
    let containers = pod.pointer("/spec/containers")?.as_array()?;
    let mut ports = containers.iter().filter_map(|container| {
        let port = container.pointer("/ports/0/containerPort")?.as_u64()?;
        u16::try_from(port).ok()
    });
    ports.next()
}

/// A pod behind a Service: any one of those that are ready.
fn service(named: &Named<'_>, namespace: &str, snapshot: &Snapshot) -> Result<Backend, ApiError> {
    let object = find(snapshot, namespace, "services", "Service", named.name)?;
    let port = port_name(&object, named)?;
    let none = || {
        let text = format!("no endpoints available for service {:?}", named.name);
        ApiError::Unreachable(text)
    };
    let key = ObjectKey::new("", "endpoints", namespace, named.name);
    let endpoints = crate::registry::parse(snapshot.get(&key).ok_or_else(none)?)?;
    let mut candidates = candidates(&endpoints, &port);
    while let Some(&(pod, number)) = candidates.choose(&mut rand::rng()) {
        // A pod that has just gone is still listed for a moment.
        if let Ok(pod) = find(snapshot, namespace, "pods", "Pod", pod) {
            let tls = named.scheme == "https";
            return Ok(Backend::Pod {
                pod,
                port: number,
                tls,
            });
        }
        candidates.retain(|(other, _)| *other != pod);
    }
    Err(none())
}

/// The name of the Service's port that is meant; a number stands for the port that has it.
fn port_name(service: &Value, named: &Named<'_>) -> Result<String, ApiError> {
    let Ok(number) = named.port.parse::<u64>() else {
        return Ok(named.port.to_owned());
    };
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let mut ports = ports.into_iter().flatten();
    let found = ports.find(|port| port.get("port").and_then(Value::as_u64) == Some(number));
    let found = found.ok_or_else(|| {
        let text = format!(
            "no service port {number} found for service {:?}",
            named.name
        );
        ApiError::Unreachable(text)
    })?;
    let name = found.get("name").and_then(Value::as_str);
    Ok(name.unwrap_or_default().to_owned())
}

/// Ready pods, by name, with the number that a port of this name has there.
fn candidates<'a>(endpoints: &'a Value, port: &str) -> Vec<(&'a str, u16)> {
    let array = |value: &'a Value, field: &str| {
        let array = value.get(field).and_then(Value::as_array);
        array.map(Vec::as_slice).unwrap_or_default()
    };
    let mut found = Vec::new();
    for subset in array(endpoints, "subsets") {
        let named =
            |of: &&Value| of.get("name").and_then(Value::as_str).unwrap_or_default() == port;
        let Some(number) = array(subset, "ports")
            .iter()
            .find(named)
            .and_then(|port| u16::try_from(port.get("port")?.as_u64()?).ok())
        else {
            continue;
        };
        let pods = array(subset, "addresses").iter().filter_map(|address| {
            let target = address.get("targetRef")?;
            let is_pod = target.get("kind").and_then(Value::as_str) == Some("Pod");
            target.get("name")?.as_str().filter(|_| is_pod)
        });
        found.extend(pods.map(|pod| (pod, number)));
    }
    found
}

/// What follows `/proxy` in the path, as it came: empty, or with its slash.
fn rest_of_path(context: &Context) -> &str {
    let path = context.uri.path();
    // /api/v1/[namespaces/NAMESPACE/]RESOURCE/NAME/proxy
    let segments = if context.info.namespace.is_empty() {
        5
    } else {
        7
    };
    let mut slashes = path.match_indices('/').map(|(at, _)| at);
    slashes
        .nth(segments)
        .and_then(|at| path.get(at..))
        .unwrap_or_default()
}

/// A target's pages refer to each other; they do so below the target only if its own path ends in `/`.
fn redirect(uri: &Uri) -> Result<Response, ApiError> {
    let query = uri.query().map(|query| format!("?{query}"));
    let location = format!("{}/{}", uri.path(), query.unwrap_or_default());
    let location = HeaderValue::try_from(location);
    let location = location.map_err(|error| ApiError::BadRequest(error.to_string()))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// The request as it goes on.
fn outgoing(
    context: &Context,
    path: &str,
    body: Body,
    upgrades: bool,
) -> Result<Request<Body>, ApiError> {
    let bad = |error: &dyn std::fmt::Display| ApiError::BadRequest(error.to_string());
    let path = if path.is_empty() { "/" } else { path };
    let uri = match context.uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let uri = PathAndQuery::try_from(uri).map_err(|error| bad(&error))?;
    let mut request = Request::new(body);
    *request.method_mut() = context.method.clone();
    *request.uri_mut() = Uri::from(uri);
    let headers = request.headers_mut();
    *headers = end_to_end(&context.headers, upgrades);
    let forwarded = HeaderValue::try_from(context.uri.path()).map_err(|error| bad(&error))?;
    headers.insert(FORWARDED_URI, forwarded);
    // HTTP/2 has no such header; the name is in the address there.
    if let (false, Some(host)) = (headers.contains_key(header::HOST), context.uri.authority()) {
        let host = HeaderValue::try_from(host.as_str()).map_err(|error| bad(&error))?;
        headers.insert(header::HOST, host);
    }
    Ok(request)
}

/// Headers without those that concern one connection only, but for an upgrade's.
fn end_to_end(headers: &HeaderMap, upgrades: bool) -> HeaderMap {
    let named: Vec<_> = websocket::items(headers, header::CONNECTION)
        .map(str::to_ascii_lowercase)
        .collect();
    let goes_on = |name: &HeaderName| {
        if upgrades && AGREEMENT.contains(name) {
            return true;
        }
        !HOP_BY_HOP.contains(name) && !named.iter().any(|of| of == name.as_str())
    };
    let lines = headers.iter().filter(|(name, _)| goes_on(name));
    lines
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The response as it goes back.
fn incoming(context: &Context, path: &str, response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let mut headers = end_to_end(&parts.headers, false);
    let location = headers.get(header::LOCATION);
    if let Some(location) = location.and_then(|location| location.to_str().ok()) {
        let prefix = context.uri.path().strip_suffix(path).unwrap_or_default();
        let host = context.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let host = host.or(context.uri.authority().map(|authority| authority.as_str()));
        let through = through_proxy(location, prefix, host.unwrap_or_default());
        if let Some(through) = through.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(header::LOCATION, through);
        }
    }
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    response
}

/// A location of the target as one of the proxy; `None` if it stays as it is.
fn through_proxy(location: &str, prefix: &str, host: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    // The target knows itself by the client's name for us, since that is the Host it is sent.
    let elsewhere = uri.authority().is_some_and(|of| of.as_str() != host);
    let path = uri.path_and_query()?.as_str();
    if elsewhere || !path.starts_with('/') || uri.path().starts_with(prefix) {
        return None;
    }
    Some(format!("{prefix}{path}"))
}

/// TLS to a pod. Nobody vouches for a pod's certificate; the way to the pod is secured by the node's.
fn trusting() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.signature_verification_algorithms));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One request to a pod, in TLS or plain.
async fn talk(
    connection: PodConnection,
    request: Request<Body>,
    tls: bool,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    if !tls {
        return Ok(exchange(connection, request).await?);
    }
    let name = ServerName::from(std::net::Ipv4Addr::LOCALHOST);
    let connection = trusting()?.connect(name, connection).await?;
    Ok(exchange(connection, request).await?)
}

/// Takes any certificate, but checks that its owner signs.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_may_have_a_scheme_and_a_port() {
        let named = |scheme, name, port| Some(Named { scheme, name, port });
        for (id, expected) in [
            ("web", named("", "web", "")),
            ("web:80", named("", "web", "80")),
            ("https:web:tls", named("https", "web", "tls")),
            (":web:80", named("", "web", "80")),
            ("http:web:", named("http", "web", "")),
            ("ftp:web:80", None),
            (":80", None),
            ("a:b:c:d", None),
        ] {
            assert_eq!(split_name(Proxied::Service, id).ok(), expected, "{id}");
        }
        let error = split_name(Proxied::Pod, "ftp:web:80").unwrap_err();
        assert_eq!(error.to_string(), "invalid pod request \"ftp:web:80\"");
    }

    #[test]
    fn a_port_of_a_service_is_found_by_name_or_number() {
        let service = json!({"spec": {"ports": [{"name": "http", "port": 80}]}});
        let name = |port| {
            let named = Named {
                scheme: "",
                name: "web",
                port,
            };
            port_name(&service, &named).map_err(|error| error.to_string())
        };
        assert_eq!(name("80").unwrap(), "http");
        assert_eq!(name("http").unwrap(), "http");
        assert_eq!(name("").unwrap(), "");
        let none = "no service port 81 found for service \"web\"";
        assert_eq!(name("81").unwrap_err(), none);
    }

    #[test]
    fn only_ready_pods_that_have_the_port_are_candidates() {
        let address = |pod| json!({"ip": "10.0.0.1", "targetRef": {"kind": "Pod", "name": pod}});
        let endpoints = json!({"subsets": [
            {"addresses": [address("a"), {"ip": "192.0.2.1"}], "notReadyAddresses": [address("b")],
             "ports": [{"name": "http", "port": 8080}, {"name": "admin", "port": 9}]},
            {"addresses": [address("c")], "ports": [{"name": "http", "port": 8081}]},
        ]});
        assert_eq!(candidates(&endpoints, "http"), [("a", 8080), ("c", 8081)]);
        assert_eq!(candidates(&endpoints, "admin"), [("a", 9)]);
        assert_eq!(candidates(&endpoints, ""), []);
    }

    #[test]
    fn headers_of_one_connection_stay_behind_unless_it_is_upgraded() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "Upgrade, X-Private"),
            ("upgrade", "websocket"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("accept", "text/html"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let names = |upgrades| {
            let headers = end_to_end(&headers, upgrades);
            let mut names: Vec<_> = headers.keys().map(|name| name.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(names(false), ["accept"]);
        assert_eq!(names(true), ["accept", "connection", "upgrade"]);
    }

    #[test]
    fn a_location_on_the_same_host_leads_through_the_proxy() {
        let prefix = "/api/v1/namespaces/n/pods/p/proxy";
        for (location, expected) in [
            (
                "/login?x=1",
                Some("/api/v1/namespaces/n/pods/p/proxy/login?x=1"),
            ),
            (
                "https://api:6443/a/",
                Some("/api/v1/namespaces/n/pods/p/proxy/a/"),
            ),
            ("https://elsewhere/a", None),
            ("/api/v1/namespaces/n/pods/p/proxy/x", None),
            ("a/b", None),
        ] {
            let found = through_proxy(location, prefix, "api:6443");
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn without_a_port_the_first_declared_one_is_meant() {
        let pod = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]},
        ]}});
        assert_eq!(first_port(&pod), Some(8080));
        assert_eq!(first_port(&json!({"spec": {"containers": []}})), None);
    }
}
