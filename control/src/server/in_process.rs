//! Clients of this process: the server itself as their service, no socket in between.
//!
//! The identity travels as a request extension of a type that only this crate can make. A request that
//! came over the network never has one, whatever its headers say.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::Request;

use super::ApiServer;
use crate::identity::UserInfo;

/// Who a request of this process comes from.
#[derive(Clone, Debug)]
pub struct Identity(Arc<UserInfo>);

impl Identity {
    pub(crate) fn new(user: UserInfo) -> Self {
        Self(Arc::new(user))
    }

    pub(super) fn user(&self) -> &UserInfo {
        &self.0
    }
}

/// The server as a service that acts for one identity.
#[derive(Clone, Debug)]
pub struct InProcess {
    server: Arc<ApiServer>,
    identity: Identity,
}

impl InProcess {
    /// Requests sent through it are `user`'s.
    pub(crate) fn new(server: Arc<ApiServer>, user: UserInfo) -> Self {
        Self {
            server,
            identity: Identity::new(user),
        }
    }
}

impl<B> tower::Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let server = Arc::clone(&self.server);
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.identity.clone());
        Box::pin(async move { Ok(server.respond(request).await) })
    }
}

/// A kube client over the server, for `user`.
pub(crate) fn client(server: &Arc<ApiServer>, user: UserInfo) -> kube::Client {
    kube::Client::new(InProcess::new(Arc::clone(server), user), "default")
}
