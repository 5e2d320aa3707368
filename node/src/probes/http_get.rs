//! `httpGet`: succeeds when the answer's status is 200 to 399.

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{HTTPGetAction, Probe};

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

async fn get(target: &Target, action: &HTTPGetAction) -> Result<StatusCode, String> {
    if action.scheme.as_deref() == Some("HTTPS") {
        return Err("httpGet probes with scheme HTTPS are not supported yet".to_owned());
    }
    let address = address_of(target, action.host.as_deref(), &action.port)?;
    let path = action.path.as_deref().unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        format!("Get \"http://{address}{path}\": {what}: {error}")
    };
    let stream = target.network.connect(address).await;
    let stream = stream.map_err(|error| failed("dial tcp", &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed("handshake", &error))?;
    let _connection = OwnedTask::spawn(async move {
        // A broken connection shows as the request's error.
        let _ = connection.await;
    });
    let request = request(action, address, &path).map_err(|error| failed("request", &error))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| failed("read", &error))?;
    Ok(response.status())
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
