//! `grpc`: succeeds when the service `grpc.health.v1.Health` of the pod says `SERVING`.
//!
//! The two messages are written down here: `health.proto` has not changed since it was published.

use std::net::SocketAddr;

use async_trait::async_trait;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{GRPCAction, Probe};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tower::service_fn;

use super::{Outcome, Prober, Target};

/// The method's path: service and name.
const CHECK: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");

pub(super) struct Grpc;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(enumeration = "ServingStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ServingStatus {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl ServingStatus {
    /// Its name in `health.proto`.
    const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
        }
    }
}

#[async_trait]
impl Prober for Grpc {
    fn claims(&self, probe: &Probe) -> bool {
        probe.grpc.is_some()
    }

    async fn probe(&self, target: &Target, probe: &Probe) -> Outcome {
        let Some(action) = &probe.grpc else {
            return Outcome::Failure("no grpc action".to_owned());
        };
        let Ok(port) = u16::try_from(action.port) else {
            return Outcome::Failure(format!("port {} is not a port", action.port));
        };
        let address = SocketAddr::new(target.pod_ip, port);
        match check(target, address, action).await {
            Ok(ServingStatus::Serving) => Outcome::Success,
            Ok(status) => Outcome::Failure(format!(
                "service unhealthy (responded with {:?})",
                status.name()
            )),
            Err(message) => Outcome::Failure(message),
        }
    }
}

async fn check(
    target: &Target,
    address: SocketAddr,
    action: &GRPCAction,
) -> Result<ServingStatus, String> {
    let service = action.service.clone().unwrap_or_default();
    let network = target.network.clone();
    let connector = service_fn(move |_| {
        let network = network.clone();
        async move { network.connect(address).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .and_then(|endpoint| endpoint.user_agent("kube-probe/1.35"))
        .map_err(|error| error.to_string())?;
    let channel = endpoint.connect_with_connector(connector).await;
    let channel = channel.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!(
            "failed to connect service {address:?}: {}",
            cause.unwrap_or_else(|| error.to_string())
        )
    })?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| error.to_string())?;
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let request = Request::new(HealthCheckRequest { service });
    let answer = client.unary(request, CHECK, codec).await;
    let answer = answer.map_err(|status| refused(&status))?;
    Ok(answer.get_ref().status())
}

fn refused(status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::Unimplemented => format!(
            "error: this server does not implement the grpc health protocol \
             (grpc.health.v1.Health): {message}"
        ),
        Code::NotFound => format!("error: the server does not know the service: {message}"),
        code => format!("error: health rpc failed with {code:?}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::poll_fn;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::service::service_fn;
    use hyper_util::rt::TokioExecutor;
    use prost::Message;
    use windlass_wasi_shims::net::VirtualNetwork;

    use super::*;
    use crate::probes::tests::target;

    const PORT: u16 = 50051;

    /// Answers as a health service does: by the name of the service that is asked for.
    async fn answer(
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible>
    {
        assert_eq!(request.uri().path(), CHECK.path());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        // A message in gRPC: not compressed, its length, itself.
        let asked = HealthCheckRequest::decode(body.slice(5..)).unwrap();
        let (code, status) = match asked.service.as_str() {
            "" => ("0", ServingStatus::Serving),
            "down" => ("0", ServingStatus::NotServing),
            "other" => ("5", ServingStatus::Unknown),
            _ => ("12", ServingStatus::Unknown),
        };
        let message = HealthCheckResponse {
            status: status.into(),
        };
        let message = message.encode_to_vec();
        let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        frame.extend(message);
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static(code),
        )]);
        let body = Full::new(Bytes::from(frame)).with_trailers(async move { Some(Ok(trailers)) });
        let response = Response::builder().header("content-type", "application/grpc");
        Ok(response.body(body).unwrap())
    }

    #[tokio::test]
    async fn the_health_service_decides() {
        let (target, pod) = target();
        let address = SocketAddr::new(pod.ip(), PORT);
        let mut listener = pod.bind_tcp(address).unwrap().listen(4).unwrap();
        tokio::spawn(async move {
            while let Ok(stream) = poll_fn(|cx| listener.poll_accept(cx)).await {
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let served = http.serve_connection(TokioIo::new(stream), service_fn(answer));
                tokio::spawn(async move {
                    // The probe closes when it has its answer.
                    let _ = served.await;
                });
            }
        });
        for (service, port, wanted) in [
            (None, PORT, ""),
            (
                Some("down"),
                PORT,
                "service unhealthy (responded with \"NOT_SERVING\")",
            ),
            (
                Some("other"),
                PORT,
                "error: the server does not know the service",
            ),
            (Some("none"), PORT, "error: this server does not implement"),
            (None, PORT + 1, "failed to connect service"),
        ] {
            let probe = Probe {
                grpc: Some(GRPCAction {
                    port: port.into(),
                    service: service.map(str::to_owned),
                }),
                ..Probe::default()
            };
            match Grpc.probe(&target, &probe).await {
                Outcome::Success => assert_eq!(wanted, "", "{service:?}"),
                Outcome::Failure(message) => {
                    assert!(
                        !wanted.is_empty() && message.starts_with(wanted),
                        "{message}"
                    );
                }
            }
        }
    }
}
