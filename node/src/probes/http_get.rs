//! `httpGet`: succeeds when the answer's status is 200 to 399.
//!
//! With scheme HTTPS the pod's certificate is not verified, as with kubelet: a probe asks whether the pod
//! answers, not who it is.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::tcp_socket::address_of;
use super::{Outcome, Prober, Target};
use crate::tasks::OwnedTask;

pub(super) struct HttpGet;

#[async_trait]
impl Prober for HttpGet {
    fn claims(&self, probe: &Probe) -> bool {
        probe.http_get.is_some()
    }

    async fn probe(&self, target: &Target, probe: &Probe) -> Outcome {
        let Some(action) = &probe.http_get else {
            return Outcome::Failure("no httpGet action".to_owned());
        };
        match get(target, action).await {
            Ok(status) if status.is_success() || status.is_redirection() => Outcome::Success,
            Ok(status) => Outcome::Failure(format!(
                "HTTP probe failed with statuscode: {}",
                status.as_u16()
            )),
            Err(message) => Outcome::Failure(message),
        }
    }
}

/// Asks what an action names and answers the status, whatever it is.
pub(crate) async fn get(target: &Target, action: &HTTPGetAction) -> Result<StatusCode, String> {
    let address = address_of(target, action.host.as_deref(), &action.port)?;
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let secure = action.scheme.as_deref() == Some("HTTPS");
    let scheme = if secure { "https" } else { "http" };
    let failed = |error: String| format!("Get \"{scheme}://{address}{path}\": {error}");
    let request = request(action, address, &path).map_err(|error| failed(error.to_string()))?;
    let stream = target.network.connect(address).await;
    let stream = stream.map_err(|error| failed(format!("dial tcp: {error}")))?;
    let status = if secure {
        let tls = connector().map_err(|error| failed(error.to_string()))?;
        let connected = tls.connect(address.ip().into(), stream).await;
        let stream = connected.map_err(|error| failed(format!("tls: {error}")))?;
        ask(stream, request).await
    } else {
        ask(stream, request).await
    };
    status.map_err(|error| failed(error.to_string()))
}

/// Sends one request over a new connection.
async fn ask<S>(stream: S, request: Request<Empty<Bytes>>) -> hyper::Result<StatusCode>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let _connection = OwnedTask::spawn(async move {
        // A broken connection shows as the request's error.
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?.status())
}

fn request(
    action: &HTTPGetAction,
    address: SocketAddr,
    path: &str,
) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut builder = Request::get(path);
    let headers = action.http_headers.iter().flatten();
    let names: Vec<String> = headers
        .clone()
        .map(|found| found.name.to_lowercase())
        .collect();
    if !names.iter().any(|name| name == "host") {
        builder = builder.header(header::HOST, address.to_string());
    }
    if !names.iter().any(|name| name == "user-agent") {
        builder = builder.header(header::USER_AGENT, "kube-probe/1.35");
    }
    for found in headers {
        builder = builder.header(&found.name, &found.value);
    }
    builder.body(Empty::new())
}

/// TLS to whoever answers.
fn connector() -> Result<TlsConnector, rustls::Error> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, rustls::Error>> = LazyLock::new(|| {
        let provider = Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    });
    CONFIG.clone().map(TlsConnector::from)
}

/// Takes any certificate, as long as its key was used.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
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
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use http::Response;
    use hyper::service::service_fn;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use rustls::ServerConfig;
    use rustls_pki_types::PrivateKeyDer;
    use tokio_rustls::TlsAcceptor;
    use windlass_wasi_shims::net::{Stream, VirtualNetwork};

    use super::*;
    use crate::network::PodNetwork;
    use crate::probes::tests::target;

    const PORT: u16 = 8443;

    /// TLS with a certificate that nobody vouches for, of a name that nobody asked for.
    fn acceptor() -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["elsewhere".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }

    /// Answers every request over TLS: `/ok` with 200, the rest with 503.
    async fn answer(tls: TlsAcceptor, stream: Stream) {
        let Ok(stream) = tls.accept(stream).await else {
            return;
        };
        let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
            let status = match request.uri().path() {
                "/ok" => StatusCode::OK,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = status;
            Ok::<_, Infallible>(response)
        });
        let http = hyper::server::conn::http1::Builder::new();
        // The probe closes as soon as it has its answer.
        let _ = http.serve_connection(TokioIo::new(stream), service).await;
    }

    fn serve(pod: &PodNetwork) {
        let address = SocketAddr::new(pod.ip(), PORT);
        let mut listener = pod.bind_tcp(address).unwrap().listen(4).unwrap();
        let tls = acceptor();
        tokio::spawn(async move {
            while let Ok(stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
                tokio::spawn(answer(tls.clone(), stream));
            }
        });
    }

    #[tokio::test]
    async fn https_is_asked_without_looking_at_the_certificate() {
        let (target, pod) = target();
        serve(&pod);
        let unavailable = "HTTP probe failed with statuscode: 503".to_owned();
        for (path, want) in [
            ("/ok", Outcome::Success),
            ("/no", Outcome::Failure(unavailable)),
        ] {
            let action = HTTPGetAction {
                path: Some(path.to_owned()),
                port: IntOrString::Int(PORT.into()),
                scheme: Some("HTTPS".to_owned()),
                ..HTTPGetAction::default()
            };
            let probe = Probe {
                http_get: Some(action),
                ..Probe::default()
            };
            assert_eq!(HttpGet.probe(&target, &probe).await, want, "{path}");
        }
    }
}
