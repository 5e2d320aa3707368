//! Subresources that connect the client to a container, a pod, a Service or a node.

use async_trait::async_trait;
use axum::body::Body;
use axum::response::Response;
use serde_json::Value;

use super::Request;
use super::subresource::{Subresource, not_allowed};
use crate::registry::error::ApiError;
use crate::registry::parse;
use crate::server::authz;
use crate::server::connect::{Proxied, RemoteCommand};
use crate::store::{Freshness, Snapshot};

/// The pod of a request that streams, and the store as of that moment.
///
/// A WebSocket is opened by GET, but does what POST does: it takes the permission to create.
async fn pod_to_stream(request: &Request<'_>) -> Result<(Value, Snapshot), ApiError> {
    let context = request.context;
    if !matches!(context.info.verb, "get" | "create") {
        return Err(not_allowed(request));
    }
    let registry = request.server.registry();
    let snapshot = registry.store().snapshot(Freshness::Latest).await?;
    let mut info = context.info.clone();
    info.verb = "create";
    let grounds = request.server.grounds(&snapshot).await?;
    authz::authorize(&context.user, &info, grounds, "")?;
    let entry = registry.get(&request.call()).await?;
    Ok((parse(&entry)?, snapshot))
}

/// GET and POST of pods/NAME/attach.
pub(super) struct Attach;

#[async_trait]
impl Subresource for Attach {
    fn name(&self) -> &'static str {
        "attach"
    }

    async fn respond(&self, request: &Request<'_>, _: Body) -> Result<Response, ApiError> {
        remote_command(request, RemoteCommand::Attach).await
    }
}

/// GET and POST of pods/NAME/exec.
pub(super) struct Exec;

#[async_trait]
impl Subresource for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    async fn respond(&self, request: &Request<'_>, _: Body) -> Result<Response, ApiError> {
        remote_command(request, RemoteCommand::Exec).await
    }
}

async fn remote_command(
    request: &Request<'_>,
    command: RemoteCommand,
) -> Result<Response, ApiError> {
    let (pod, snapshot) = pod_to_stream(request).await?;
    let nodes = &request.server.nodes;
    nodes
        .remote_command(command, &pod, request.context, &snapshot)
        .await
}

/// GET and POST of pods/NAME/portforward.
pub(super) struct PortForward;

#[async_trait]
impl Subresource for PortForward {
    fn name(&self) -> &'static str {
        "portforward"
    }

    async fn respond(&self, request: &Request<'_>, _: Body) -> Result<Response, ApiError> {
        let (pod, snapshot) = pod_to_stream(request).await?;
        let nodes = &request.server.nodes;
        nodes.port_forward(&pod, request.context, &snapshot).await
    }
}

/// Every method of NAME/proxy and what is below it.
pub(super) struct Proxy;

#[async_trait]
impl Subresource for Proxy {
    fn name(&self) -> &'static str {
        "proxy"
    }

    async fn respond(&self, request: &Request<'_>, body: Body) -> Result<Response, ApiError> {
        let context = request.context;
        let kind = Proxied::of(&context.info.resource).ok_or(ApiError::NoSuchPath)?;
        let store = request.server.registry().store();
        let snapshot = store.snapshot(Freshness::Latest).await?;
        let nodes = &request.server.nodes;
        nodes.proxy(kind, context, body, &snapshot).await
    }
}
