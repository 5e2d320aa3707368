//! Requests that a guest makes, through its own network.
//!
//! One connection per request: inside a node a connection is a pair of in-memory queues, and what is
//! behind a Service should be picked anew for every request.
//!
//! Both versions of `wasi:http` end here, with the same error codes.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::HOST;
use http::uri::Scheme;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode as P2Error;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode as P3Error;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::body::TimedBody;
use crate::net::{NetError, Stream, VirtualNetwork};

/// How to speak TLS: the roots to trust, above all.
pub type TlsConfig = Arc<ClientConfig>;

/// How long a guest waits at most where it sets no limit of its own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// The outgoing side of `wasi:http` for one guest.
pub struct Outgoing {
    network: Arc<dyn VirtualNetwork>,
    tls: Option<TlsConfig>,
}

type IoFuture = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = (http::Response<WasiBody>, IoFuture);

impl Outgoing {
    /// Requests leave by `network`. Without a TLS configuration, `https` is a configuration error.
    pub fn new(network: Arc<dyn VirtualNetwork>, tls: Option<TlsConfig>) -> Self {
        Self { network, tls }
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _answered: IoFuture,
    ) -> Box<dyn Future<Output = Result<Answer, Error>> + Send> {
        let (network, tls) = (self.network.clone(), self.tls.clone());
        Box::new(send(network, tls, request, options.unwrap_or_default()))
    }

    fn default_scheme(&mut self) -> Option<Scheme> {
        // Inside a cluster plain http is what is spoken.
        Some(Scheme::HTTP)
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> P2Error {
        match failure(error) {
            Failure::Incomplete => P2Error::HttpResponseIncomplete,
            Failure::Terminated => P2Error::ConnectionTerminated,
            Failure::Timeout => P2Error::ConnectionReadTimeout,
            Failure::Protocol => P2Error::HttpProtocolError,
        }
    }

    fn p3_error_from_hyper(&mut self, error: &hyper::Error) -> P3Error {
        match failure(error) {
            Failure::Incomplete => P3Error::HttpResponseIncomplete,
            Failure::Terminated => P3Error::ConnectionTerminated,
            Failure::Timeout => P3Error::ConnectionReadTimeout,
            Failure::Protocol => P3Error::HttpProtocolError,
        }
    }
}

/// What went wrong on an open connection.
enum Failure {
    Incomplete,
    Terminated,
    Timeout,
    Protocol,
}

fn failure(error: &hyper::Error) -> Failure {
    if error.is_incomplete_message() {
        Failure::Incomplete
    } else if error.is_timeout() {
        Failure::Timeout
    } else if error.is_closed() || error.is_canceled() || source_is_io(error) {
        Failure::Terminated
    } else {
        Failure::Protocol
    }
}

fn source_is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<io::Error>())
}

async fn send(
    network: Arc<dyn VirtualNetwork>,
    tls: Option<TlsConfig>,
    request: http::Request<WasiBody>,
    options: RequestOptions,
) -> Result<Answer, Error> {
    let authority = request
        .uri()
        .authority()
        .ok_or(Error::HttpRequestUriInvalid)?;
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let secure = request.uri().scheme() == Some(&Scheme::HTTPS);
    let port = authority
        .port_u16()
        .unwrap_or(if secure { 443 } else { 80 });
    let limit = options.connect_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let connecting = async {
        let stream = connect(network.as_ref(), &host, port).await?;
        Ok::<Box<dyn Transport>, Error>(if secure {
            Box::new(secured(tls, &host, stream).await?)
        } else {
            Box::new(stream)
        })
    };
    let stream = timeout(limit, connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    exchange(stream, origin_form(request)?, &options).await
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

/// Connects to the first of the name's addresses that answers.
async fn connect(network: &dyn VirtualNetwork, host: &str, port: u16) -> Result<Stream, Error> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => network.resolve(host).await.map_err(http_error)?,
    };
    let mut failure = NetError::NameUnresolvable;
    for address in addresses {
        match network.connect(None, SocketAddr::new(address, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(http_error(failure))
}

fn http_error(error: NetError) -> Error {
    match error {
        NetError::AccessDenied => Error::DestinationIpProhibited,
        NetError::ConnectionRefused => Error::ConnectionRefused,
        NetError::ConnectionReset => Error::ConnectionTerminated,
        NetError::RemoteUnreachable => Error::DestinationUnavailable,
        NetError::Timeout => Error::ConnectionTimeout,
        NetError::NameUnresolvable => Error::DnsError {
            rcode: Some("NXDOMAIN".to_owned()),
            info_code: None,
        },
        NetError::TemporaryResolverFailure => Error::DnsError {
            rcode: Some("SERVFAIL".to_owned()),
            info_code: None,
        },
        NetError::AddressInUse | NetError::TooManySockets => Error::ConnectionLimitReached,
        NetError::AddressNotBindable
        | NetError::InvalidArgument
        | NetError::DatagramTooLarge
        | NetError::NotSupported => Error::InternalError(Some(error.to_string())),
    }
}

async fn secured(
    tls: Option<TlsConfig>,
    host: &str,
    stream: Stream,
) -> Result<tokio_rustls::client::TlsStream<Stream>, Error> {
    let config = tls.ok_or(Error::ConfigurationError)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
    let connecting = TlsConnector::from(config).connect(name, stream);
    connecting.await.map_err(|error| match error.get_ref() {
        Some(inner) if inner.to_string().contains("certificate") => Error::TlsCertificateError,
        _ => Error::TlsProtocolError,
    })
}

/// The request as it goes to the server itself: a path as its target, the host in a header.
fn origin_form(mut request: http::Request<WasiBody>) -> Result<http::Request<WasiBody>, Error> {
    if !request.headers().contains_key(HOST) {
        let authority = request
            .uri()
            .authority()
            .map_or("", |authority| authority.as_str());
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host)
            .parse();
        request
            .headers_mut()
            .insert(HOST, host.map_err(|_| Error::HttpRequestUriInvalid)?);
    }
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str());
    *request.uri_mut() = target.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request)
}

async fn exchange(
    stream: Box<dyn Transport>,
    request: http::Request<WasiBody>,
    options: &RequestOptions,
) -> Result<Answer, Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The connection has to be driven while the head is awaited and while the body streams; the
    // task ends with the future handed back, or with the guest.
    let connection = wasmtime_wasi::runtime::spawn(async move { Ok(connection.await?) });
    let limit = options.first_byte_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let response = timeout(limit, sender.send_request(request))
        .await
        .map_err(|_| Error::ConnectionReadTimeout)??;
    let pause = options.between_bytes_timeout.unwrap_or(DEFAULT_TIMEOUT);
    let response = response.map(|body| TimedBody::new(body, pause).boxed_unsync());
    Ok((response, Box::new(connection)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> WasiBody {
        http_body_util::Empty::new()
            .map_err(|never| match never {})
            .boxed_unsync()
    }

    #[test]
    fn requests_are_sent_in_origin_form() {
        for (uri, target, host) in [
            ("http://web:8080/a?b=c", "/a?b=c", "web:8080"),
            ("http://web", "/", "web"),
            ("http://user@web/", "/", "web"),
            ("http://[::1]:80/", "/", "[::1]:80"),
        ] {
            let request = http::Request::get(uri).body(body()).unwrap();
            let request = origin_form(request).unwrap();
            assert_eq!(request.uri().to_string(), target, "{uri}");
            assert_eq!(request.headers()[HOST], host, "{uri}");
        }
    }

    #[test]
    fn a_host_header_of_the_guest_is_kept() {
        let request = http::Request::get("http://web/")
            .header(HOST, "other")
            .body(body())
            .unwrap();
        assert_eq!(origin_form(request).unwrap().headers()[HOST], "other");
    }
}
