//! One request in one instance.
//!
//! 1. A request runs in a task of its own, which owns the instance: the guest may go on after its
//!    response has begun (to stream the body), and after it has ended.
//! 2. Version 0.2 handlers are called with an out-parameter, 0.3 handlers return the response;
//!    both answer through the same channel.
//! 3. An instance that ended well may serve again; one that trapped is dropped.

use std::sync::Arc;

use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::handler::{Proxy, ProxyPre};
use wasmtime_wasi_http::p2::bindings::ProxyPre as P2Pre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::ServicePre as P3Pre;
use wasmtime_wasi_http::{Error, WasiBody, WasiHttpView};

use crate::state::InstanceState;

/// An http component, linked and ready to be instantiated.
pub struct HttpPre(ProxyPre<InstanceState>);

impl HttpPre {
    pub(crate) fn component(&self) -> &Component {
        match &self.0 {
            ProxyPre::P2(pre) => pre.instance_pre().component(),
            ProxyPre::P3(pre) => pre.instance_pre().component(),
        }
    }

    /// A component that exports `wasi:http/incoming-handler` 0.2.
    ///
    /// # Errors
    /// If the export is not there or not of that type.
    pub fn p2(pre: InstancePre<InstanceState>) -> wasmtime::Result<Self> {
        Ok(Self(ProxyPre::P2(P2Pre::new(pre)?)))
    }

    /// A component that exports `wasi:http/handler` 0.3.
    ///
    /// # Errors
    /// If the export is not there or not of that type.
    pub fn p3(pre: InstancePre<InstanceState>) -> wasmtime::Result<Self> {
        Ok(Self(ProxyPre::P3(P3Pre::new(pre)?)))
    }

    /// An instance that has served nothing yet.
    pub(super) async fn instantiate(
        &self,
        mut store: Store<InstanceState>,
    ) -> wasmtime::Result<Instance> {
        let proxy = self.0.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            proxy: Arc::new(proxy),
            served: 0,
        })
    }
}

/// The guest's answer to a request.
pub(super) type Response = http::Response<WasiBody>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The handler answered with an error code instead of a response.
    #[error("the component answered with an error: {0}")]
    Guest(String),
    /// The instance trapped, or could not be made.
    #[error("{0:?}")]
    Trap(wasmtime::Error),
    /// The handler ended without a response.
    #[error("the component ended without a response")]
    NoResponse,
}

pub(super) type Answer = Result<Response, RequestError>;

/// A running http component.
pub(super) struct Instance {
    store: Store<InstanceState>,
    proxy: Arc<Proxy>,
    served: usize,
}

impl Instance {
    /// How many requests it has served.
    pub(super) fn served(&self) -> usize {
        self.served
    }

    /// Serves one request; returns when the guest has nothing more to do for it.
    ///
    /// # Errors
    /// A trap, which may come after the response was given.
    pub(super) async fn serve(
        &mut self,
        request: http::Request<WasiBody>,
        answer: oneshot::Sender<Answer>,
    ) -> wasmtime::Result<()> {
        self.served += 1;
        let proxy = self.proxy.clone();
        match proxy.as_ref() {
            Proxy::P2(proxy) => self.serve_p2(proxy, request, answer).await,
            Proxy::P3(proxy) => self.serve_p3(proxy, request, answer).await,
        }
    }

    async fn serve_p2(
        &mut self,
        proxy: &wasmtime_wasi_http::p2::bindings::Proxy,
        request: http::Request<WasiBody>,
        answer: oneshot::Sender<Answer>,
    ) -> wasmtime::Result<()> {
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let out = http.new_response_outparam_from_callback(move |response| {
            // A client that went away is no error of the guest.
            let _gone = answer.send(response.map_err(|code| RequestError::Guest(code.to_string())));
        })?;
        proxy
            .wasi_http_incoming_handler()
            .call_handle(&mut self.store, request, out)
            .await
    }

    async fn serve_p3(
        &mut self,
        proxy: &wasmtime_wasi_http::p3::bindings::Service,
        request: http::Request<WasiBody>,
        answer: oneshot::Sender<Answer>,
    ) -> wasmtime::Result<()> {
        let http = self.store.data_mut().http();
        let (request, sent) = wasmtime_wasi_http::p3::Request::from_http(http.hooks, request);
        let run = self.store.run_concurrent(async move |accessor| {
            match proxy.handle(accessor, request).await? {
                Ok(response) => {
                    let response = accessor.with(|store| response.into_http(store, sent))?;
                    let _gone = answer.send(Ok(response.map(|body| body.boxed_unsync())));
                }
                Err(code) => {
                    let _gone = answer.send(Err(RequestError::Guest(code.to_string())));
                }
            }
            // The body, and what else the guest started, runs on in this loop.
            std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        });
        run.await?
    }
}

/// The body of a request as the guest reads it.
pub(super) fn guest_body<B>(body: B) -> WasiBody
where
    B: hyper::body::Body<Data = bytes::Bytes, Error = hyper::Error> + Send + 'static,
{
    body.map_err(Error::from).boxed_unsync()
}
