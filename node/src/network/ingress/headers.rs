//! What of a request's and a response's head goes on, and what is added: pure.
//!
//! 1. A request that two servers could read differently is refused: more than one `Host`, a path with dots between slashes,
//!    however they are written. Bodies are framed anew.
//! 2. Headers about one connection end with it; `Upgrade` goes on where the client asked for one.
//! 3. Who the client is, the backend is told in `X-Forwarded-*` and `X-Real-IP`; what the client claims there is dropped.
//!
//! Spec: RFC 9110, 7.6.1; RFC 9113, 8.2.3.

use std::net::SocketAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri, Version, request};

/// Headers about one connection only, besides those that `Connection` names.
const OF_A_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TRANSFER_ENCODING,
    UPGRADE,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("the request names no host")]
    NoHost,
    #[error("the request names several hosts, or none that can be one")]
    Host,
    #[error("the path has dots between slashes")]
    Dots,
    #[error("this is no proxy to elsewhere")]
    Connect,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// As it was sent, with its port; none from clients of HTTP/1.0.
    pub(super) authority: Option<Authority>,
    /// In lower case, without a port and a last dot.
    pub(super) host: Option<String>,
}

impl Asked {
    /// Reads a request's head.
    pub(super) fn read(head: &request::Parts) -> Result<Self, BadRequest> {
        if head.method == Method::CONNECT {
            return Err(BadRequest::Connect);
        }
        let headers = &head.headers;
        if has_dots(head.uri.path()) {
            return Err(BadRequest::Dots);
        }
        let mut hosts = headers.get_all(HOST).iter();
        let (first, second) = (hosts.next(), hosts.next());
        if second.is_some() {
            return Err(BadRequest::Host);
        }
        // Spec: RFC 9112, 3.2.2: the target's own authority goes before the header.
        let authority = match (head.uri.authority(), first) {
            (Some(authority), _) => Some(authority.clone()),
            (None, Some(host)) => {
                let read = Authority::try_from(host.as_bytes());
                Some(read.map_err(|_| BadRequest::Host)?)
            }
            (None, None) if head.version <= Version::HTTP_10 => None,
            (None, None) => return Err(BadRequest::NoHost),
        };
        if authority
            .as_ref()
            .is_some_and(|it| it.as_str().contains('@'))
        {
            return Err(BadRequest::Host);
        }
        let host = authority.as_ref().map(|authority| {
            let host = authority.host().to_ascii_lowercase();
            host.strip_suffix('.').map(str::to_owned).unwrap_or(host)
        });
        Ok(Self { authority, host })
    }
}

/// Whether a server that resolves `.` and `..` would read another path than is compared here.
fn has_dots(path: &str) -> bool {
    let is_dots = |segment: &str| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    };
    // A backend may take an encoded slash for one.
    let path = path.replace("%2f", "/").replace("%2F", "/");
    path.split(['/', '\\']).any(is_dots)
}

/// The protocol that the client asks to go on with, if it may. Not HTTP/2: requests inside of it would pass by no rule.
pub(super) fn upgrade(head: &request::Parts) -> Option<HeaderValue> {
    let asked = head.version == Version::HTTP_11 && names(&head.headers, "upgrade");
    let is_http = |protocol: &HeaderValue| {
        let text = protocol.to_str().unwrap_or("h2c").to_ascii_lowercase();
        text.contains("h2") || text.contains("http")
    };
    let protocol = head.headers.get(UPGRADE).filter(|_| asked)?;
    (!is_http(protocol)).then(|| protocol.clone())
}

/// Whether `Connection` names that header.
fn names(headers: &HeaderMap, header: &str) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    let words = values.filter_map(|value| value.to_str().ok());
    let mut words = words.flat_map(|value| value.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case(header))
}

/// Drops what is about one connection only.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|word| word.trim().parse().ok())
        .collect();
    // Framing and the host are not the client's to take away.
    let of_all = |name: &HeaderName| *name == HOST || *name == CONTENT_LENGTH || *name == TE;
    for name in named
        .iter()
        .filter(|name| !of_all(name))
        .chain(&OF_A_CONNECTION)
    {
        headers.remove(name);
    }
    // Spec: RFC 9110, 10.1.4: of this field only that trailers are understood goes on.
    let trailers = headers.get_all(TE).iter().any(|value| {
        let words = value.to_str().unwrap_or_default().split(',');
        words
            .into_iter()
            .any(|word| word.trim().eq_ignore_ascii_case("trailers"))
    });
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// How the client reached us.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) secure: bool,
}

/// Makes the head of a backend's request of a client's.
pub(super) fn to_backend(head: &mut request::Parts, asked: &Asked, origin: Origin, h2: bool) {
    let upgrade = upgrade(head).filter(|_| !h2);
    strip(&mut head.headers);
    if let Some(protocol) = upgrade {
        head.headers.insert(UPGRADE, protocol);
        head.headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    forwarded(&mut head.headers, asked, origin);
    join_cookies(&mut head.headers);
    head.headers.remove(HOST);
    let path = head.uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(path);
    if h2 {
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(
            asked
                .authority
                .clone()
                .unwrap_or(Authority::from_static("localhost")),
        );
    } else {
        // Spec: RFC 9112, 3.2: it may be empty, but not absent.
        let host = asked.authority.as_ref().map_or("", Authority::as_str);
        if let Some(host) = text(host) {
            head.headers.insert(HOST, host);
        }
    }
    if let Ok(uri) = Uri::from_parts(uri) {
        head.uri = uri;
    }
    head.version = if h2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
}

fn text(value: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(value).ok()
}

fn forwarded(headers: &mut HeaderMap, asked: &Asked, origin: Origin) {
    headers.remove(FORWARDED);
    headers.remove(X_FORWARDED_HOST);
    let client = origin.client.ip().to_canonical().to_string();
    let port = origin.local.port().to_string();
    let proto = if origin.secure { "https" } else { "http" };
    let host = asked.authority.as_ref().map(Authority::as_str);
    for (name, value) in [
        (X_FORWARDED_FOR, Some(client.as_str())),
        (X_REAL_IP, Some(client.as_str())),
        (X_FORWARDED_PROTO, Some(proto)),
        (X_FORWARDED_PORT, Some(port.as_str())),
        (X_FORWARDED_HOST, host),
    ] {
        if let Some(value) = value.and_then(text) {
            headers.insert(name, value);
        }
    }
}

/// HTTP/2 lets a client send its cookies apart; HTTP/1.1 does not.
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<_> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(uri: &str, version: Version, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::get(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn origin() -> Origin {
        Origin {
            client: "[::ffff:192.0.2.7]:1234".parse().unwrap(),
            local: "127.0.0.1:8443".parse().unwrap(),
            secure: true,
        }
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        use BadRequest::{Dots, Host, NoHost};
        let host = ("host", "a.example");
        for (uri, version, headers, want) in [
            ("/", Version::HTTP_11, &[host][..], Ok(Some("a.example"))),
            (
                "/",
                Version::HTTP_11,
                &[("host", "A.Example.:8080")],
                Ok(Some("a.example")),
            ),
            (
                "http://b.example/",
                Version::HTTP_11,
                &[host],
                Ok(Some("b.example")),
            ),
            (
                "https://b.example/",
                Version::HTTP_2,
                &[],
                Ok(Some("b.example")),
            ),
            ("/", Version::HTTP_10, &[], Ok(None)),
            ("/", Version::HTTP_11, &[], Err(NoHost)),
            (
                "/",
                Version::HTTP_11,
                &[host, ("host", "b.example")],
                Err(Host),
            ),
            ("/", Version::HTTP_11, &[("host", "a b")], Err(Host)),
            (
                "/",
                Version::HTTP_11,
                &[("host", "me@a.example")],
                Err(Host),
            ),
            ("/a/../b", Version::HTTP_11, &[host], Err(Dots)),
            ("/a/%2E./b", Version::HTTP_11, &[host], Err(Dots)),
            ("/a%2f..%2fb", Version::HTTP_11, &[host], Err(Dots)),
            ("/a/.", Version::HTTP_11, &[host], Err(Dots)),
            (
                "/a/..b/.c?d=/../",
                Version::HTTP_11,
                &[host],
                Ok(Some("a.example")),
            ),
        ] {
            let asked = Asked::read(&head(uri, version, headers));
            let got = asked.as_ref().map(|asked| asked.host.as_deref());
            assert_eq!(got, want.as_ref().map(|it| *it), "{uri} {headers:?}");
        }
    }

    #[test]
    fn backends_are_told_who_the_client_is_and_not_what_it_claims() {
        let mut head = head(
            "/p?q=1",
            Version::HTTP_11,
            &[
                ("host", "a.example:8443"),
                ("x-forwarded-for", "10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
                ("x-forwarded-proto", "gopher"),
                ("x-forwarded-host", "evil"),
                ("forwarded", "for=evil"),
                ("connection", "keep-alive, x-secret, host, content-length"),
                ("keep-alive", "1"),
                ("x-secret", "1"),
                ("te", "gzip, trailers"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "x"),
                ("accept", "*/*"),
                ("content-length", "0"),
                ("cookie", "a=1"),
                ("cookie", "b=2"),
            ],
        );
        let asked = Asked::read(&head).unwrap();
        to_backend(&mut head, &asked, origin(), false);
        let mut got: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        got.sort();
        assert_eq!(
            got,
            [
                "accept: */*",
                "content-length: 0",
                "cookie: a=1; b=2",
                "host: a.example:8443",
                "te: trailers",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: a.example:8443",
                "x-forwarded-port: 8443",
                "x-forwarded-proto: https",
                "x-real-ip: 192.0.2.7",
            ]
        );
        assert_eq!(
            (head.uri.to_string().as_str(), head.version),
            ("/p?q=1", Version::HTTP_11)
        );
    }

    #[test]
    fn no_upgrade_leads_past_the_rules() {
        for protocol in ["h2c", "websocket, H2C", "HTTP/2.0"] {
            let fields = [
                ("host", "a.example"),
                ("connection", "upgrade, http2-settings"),
                ("upgrade", protocol),
                ("http2-settings", "x"),
            ];
            let mut head = head("/", Version::HTTP_11, &fields);
            let asked = Asked::read(&head).unwrap();
            to_backend(&mut head, &asked, origin(), false);
            assert!(!head.headers.contains_key(UPGRADE), "{protocol}");
            assert!(!head.headers.contains_key("http2-settings"), "{protocol}");
        }
    }

    #[test]
    fn an_upgrade_goes_on_and_h2_has_its_authority() {
        let fields = [
            ("host", "a.example"),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
        ];
        let mut one = head("/", Version::HTTP_11, &fields);
        let asked = Asked::read(&one).unwrap();
        to_backend(&mut one, &asked, origin(), false);
        assert_eq!(one.headers[UPGRADE], "websocket");
        assert_eq!(one.headers[CONNECTION], "upgrade");
        let mut two = head("/", Version::HTTP_11, &fields);
        to_backend(&mut two, &asked, origin(), true);
        assert_eq!(two.uri, "http://a.example/");
        assert!(!two.headers.contains_key(UPGRADE) && !two.headers.contains_key(HOST));
    }
}
