//! The reference: a native hyper server that answers every request with a constant.

use std::convert::Infallible;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The native server on threads of its own, as a server in another process has them.
pub(crate) struct Hello {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Hello {
    /// Starts it on a free port.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let listening = runtime.spawn(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listening.await??;
        let address = listener.local_addr()?;
        runtime.spawn(serve(listener));
        let runtime = Some(runtime);
        Ok(Self { address, runtime })
    }
}

impl Drop for Hello {
    fn drop(&mut self) {
        // A runtime must not be waited for on another one's thread.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Prints the address and serves until it is killed.
pub(crate) async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", listener.local_addr()?)?;
    stdout.flush()?;
    drop(stdout);
    serve(listener).await;
    Ok(())
}

/// Serves until accepting fails.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a client of the reference went away");
            }
        });
    }
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::new(Bytes::from_static(b"hello\n"))))
}
