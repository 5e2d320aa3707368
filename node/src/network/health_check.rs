//! The answer to a load balancer that asks whether this node has endpoints of a Service whose outside traffic
//! stays on its node: 200 if there are some, else 503, on any path.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::follow::ObjectKey;
use super::host::HostNetwork;

/// Connections answered at a time; more wait.
const AT_ONCE: usize = 64;
/// How long one may take in all.
const LIMIT: Duration = Duration::from_secs(10);

/// Answers for the Service until dropped.
pub(super) async fn serve(host: HostNetwork, listener: TcpListener, service: ObjectKey) {
    let mut connections = JoinSet::new();
    loop {
        while connections.len() >= AT_ONCE {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((connection, _)) => {
                let answered = answer(host.clone(), connection, service.clone());
                connections.spawn(tokio::time::timeout(LIMIT, answered));
            }
            Err(error) => {
                tracing::warn!(?service, %error, "a health check was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(host: HostNetwork, connection: TcpStream, service: ObjectKey) {
    let respond = |_: Request<Incoming>| {
        let response = response(&host, &service);
        async move { Ok::<_, Infallible>(response) }
    };
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(connection), service_fn(respond))
        .await;
    if let Err(error) = served {
        tracing::debug!(?service, %error, "a health check ended early");
    }
}

fn response(host: &HostNetwork, service: &ObjectKey) -> Response<Full<Bytes>> {
    let table = host.core().services.load();
    let check = table.by_name(service).and_then(|entry| entry.health_check);
    let count = check.map_or(0, |check| check.local_endpoints);
    let body = json!({
        "service": {"namespace": service.namespace, "name": service.name},
        "localEndpoints": count,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::from(body.to_string()));
    if count == 0 {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
