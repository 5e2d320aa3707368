//! Clients' connections: plain or TLS, HTTP/1.1 or HTTP/2.
//!
//! 1. A bounded number of connections is open at once; beyond it clients wait in the kernel's queue.
//! 2. A handshake, the first bytes and each head have to come in time ([`PROMPT`], [`HEAD`]). A connection that is asked for
//!    nothing ends after [`HEAD`], one of HTTP/2 when it no longer answers pings.
//! 3. Over TLS the client chooses its protocol by ALPN; a plain connection that begins with HTTP/2's preface is one.
//! 4. Dropping [`serve`]'s future ends every connection but those that were upgraded, which end with their backends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::headers::Origin;
use super::proxy::Proxy;

/// Connections of one listener.
const MAX_CONNECTIONS: usize = 4096;

/// How long a handshake and the first bytes may take.
const PROMPT: Duration = Duration::from_secs(10);

/// How long a request's head may take, and a connection may wait for the next.
const HEAD: Duration = Duration::from_secs(30);

/// Bytes of a request's head.
const MAX_HEAD: usize = 64 * 1024;

/// Headers of a request.
const MAX_HEADERS: usize = 128;

/// Requests of one HTTP/2 connection at once.
const MAX_STREAMS: u32 = 128;

/// What a connection of HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves clients until dropped.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, proxy: Proxy) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut open = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        while open.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, client)) => {
                let (tls, proxy) = (tls.clone(), proxy.clone());
                open.spawn(async move {
                    if let Err(error) = connection(stream, client, tls, proxy).await {
                        tracing::debug!(%client, %error, "a client's connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Most likely out of descriptors: pause rather than spin.
                tracing::warn!(%error, "a connection to an Ingress was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
    proxy: Proxy,
) -> io::Result<()> {
    // Small answers must not wait for the client's delayed acknowledgement.
    let _best_effort = stream.set_nodelay(true);
    let origin = Origin {
        client,
        local: stream.local_addr()?,
        secure: tls.is_some(),
    };
    let Some(tls) = tls else {
        let (start, is_h2) = in_time(preface(stream)).await?;
        return http(start, is_h2, origin, proxy).await;
    };
    let stream = in_time(tls.accept(stream)).await?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    http(stream, is_h2, origin, proxy).await
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(PROMPT, step).await;
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Reads as much as it takes to tell HTTP/2 from HTTP/1.1; what was read comes first again.
async fn preface(
    mut stream: TcpStream,
) -> io::Result<(impl AsyncRead + AsyncWrite + Send + Unpin + 'static, bool)> {
    let mut start = Vec::with_capacity(PREFACE.len());
    while start.len() < PREFACE.len() && PREFACE.starts_with(&start) {
        let mut rest = (&mut stream).take((PREFACE.len() - start.len()) as u64);
        if rest.read_buf(&mut start).await? == 0 {
            break;
        }
    }
    let is_h2 = start == PREFACE;
    let (read, write) = stream.into_split();
    let again = io::Cursor::new(start).chain(read);
    Ok((tokio::io::join(again, write), is_h2))
}

pub(super) async fn http<S>(stream: S, is_h2: bool, origin: Origin, proxy: Proxy) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = TokioIo::new(stream);
    let service = service_fn(move |request| proxy.clone().answer(origin, request));
    let served = if is_h2 {
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(HEAD)
            .keep_alive_timeout(PROMPT)
            .serve_connection(stream, service)
            .await
    } else {
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(stream, service)
            .with_upgrades()
            .await
    };
    served.map_err(io::Error::other)
}
