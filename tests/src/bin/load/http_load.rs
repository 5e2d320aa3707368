//! `load http`: requests per second and latencies of a URL, over connections that are kept alive.
//!
//! Each connection sends a request when the last is answered; a second of warming up goes uncounted.
//! The references, measured in the same run one after the other: the native hyper server, and the
//! same component under `wasmtime serve` where that is installed. The generator shares the machine
//! with what it measures, so the ratios carry over to other machines and the numbers do not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use futures::future::try_join_all;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::hello::Hello;
use crate::process::free_port;
use crate::table::{self, Latencies, millis};
use crate::{PATIENCE, loopback};

const WARM_UP: Duration = Duration::from_secs(1);

/// Arguments of `load http`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to request, such as `http://127.0.0.1:30080/`.
    url: Uri,
    /// Connections.
    #[arg(short, long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    connections: u16,
    /// Seconds for each server.
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=120))]
    seconds: u16,
    /// Also measure a native hyper server and print the ratio to it.
    #[arg(long)]
    reference: bool,
    /// Also measure this component under `wasmtime serve` and print the ratio to it.
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
}

/// What one server did.
struct Outcome {
    latencies: Latencies,
    failed: usize,
    per_second: f64,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.url.scheme_str() == Some("http"),
        "{} is not an http URL",
        args.url
    );
    let own = measure(loopback(&args.url)?, &args).await?;
    table::head()?;
    print(&args, "measured URL", &own, None)?;
    if args.reference {
        let hello = Hello::start().await?;
        let reference = measure(hello.address, &args).await?;
        print(&args, "native hyper", &reference, None)?;
        print(
            &args,
            "measured URL",
            &own,
            Some(("native hyper", &reference)),
        )?;
    }
    if let Some(component) = &args.component {
        match serve_with_wasmtime(component).await? {
            Some((mut server, address)) => {
                let reference = measure(address, &args).await?;
                server.kill().await?;
                print(&args, "`wasmtime serve`", &reference, None)?;
                let reference = Some(("`wasmtime serve`", &reference));
                print(&args, "measured URL", &own, reference)?;
            }
            None => table::line(&["`wasmtime serve`", "not installed", "", ""])?,
        }
    }
    anyhow::ensure!(own.failed == 0, "{} requests failed", own.failed);
    Ok(())
}

/// Prints the figures of one server, or their ratios to another's.
fn print(
    args: &Args,
    name: &str,
    own: &Outcome,
    reference: Option<(&str, &Outcome)>,
) -> std::io::Result<()> {
    let figure = format!("{name}, {} connections", args.connections);
    let shown = |value: String| {
        reference.map_or_else(
            || "itself".to_owned(),
            |(other, _)| format!("{other} {value}"),
        )
    };
    let other = reference.map_or(own, |(_, other)| other);
    table::row(
        &format!("{figure}: requests/s ({} failed)", own.failed),
        &format!("{:.0}", own.per_second),
        &shown(format!("{:.0}", other.per_second)),
        reference.map(|_| own.per_second / other.per_second.max(f64::EPSILON)),
    )?;
    for percent in [50, 99] {
        let (latency, against) = (
            own.latencies.percentile(percent),
            other.latencies.percentile(percent),
        );
        table::row(
            &format!("{figure}: p{percent}"),
            &millis(latency),
            &shown(millis(against)),
            reference.and_then(|_| table::ratio(latency, against)),
        )?;
    }
    Ok(())
}

/// Loads the server at `address` with the URL's path.
async fn measure(address: SocketAddr, args: &Args) -> anyhow::Result<Outcome> {
    let from = Instant::now() + WARM_UP;
    let measured = Duration::from_secs(args.seconds.into());
    let connections = (0..args.connections).map(|_| {
        let connection = Connection::open(address, args.url.clone());
        async move { tokio::spawn(connection.await?.load(from, from + measured)).await? }
    });
    // A server that hangs must not hang the tool.
    let limit = WARM_UP + measured + PATIENCE;
    let outcomes = tokio::time::timeout(limit, try_join_all(connections))
        .await
        .with_context(|| format!("{address} stopped answering"))??;
    let failed = outcomes.iter().map(|(_, failed)| failed).sum();
    let latencies = outcomes.into_iter().flat_map(|(latencies, _)| latencies);
    let latencies = Latencies::new(latencies.collect());
    let per_second = latencies.count() as f64 / measured.as_secs_f64();
    Ok(Outcome {
        latencies,
        failed,
        per_second,
    })
}

/// Latencies of `count` requests to a server, one after the other on one connection.
pub(crate) async fn one_by_one(address: SocketAddr, count: u32) -> anyhow::Result<Latencies> {
    let url = format!("http://{address}/").parse()?;
    let mut connection = Connection::open(address, url).await?;
    let mut latencies = Vec::new();
    for _ in 0..count {
        let sent = Instant::now();
        connection
            .sender
            .ready()
            .await
            .context("connection closed")?;
        let request = connection.request.clone();
        let answer = connection.sender.send_request(request).await?;
        answer.into_body().collect().await?;
        latencies.push(sent.elapsed());
    }
    Ok(Latencies::new(latencies))
}

/// A kept-alive connection.
struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
}

impl Connection {
    async fn open(address: SocketAddr, url: Uri) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of the load ended");
            }
        });
        let host = url.authority().context("the URL names no host")?.as_str();
        let path = url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, HeaderValue::from_str(host)?)
            .body(Empty::new())?;
        Ok(Self { sender, request })
    }

    /// Sends requests one after the other; returns the latencies and failures after `from`.
    async fn load(
        mut self,
        from: Instant,
        until: Instant,
    ) -> anyhow::Result<(Vec<Duration>, usize)> {
        let (mut latencies, mut failed) = (Vec::new(), 0);
        loop {
            let sent = Instant::now();
            if sent >= until {
                return Ok((latencies, failed));
            }
            self.sender.ready().await.context("connection closed")?;
            let answer = self.sender.send_request(self.request.clone()).await?;
            let succeeded = answer.status().is_success();
            let mut body = answer.into_body();
            while let Some(frame) = body.frame().await {
                frame?;
            }
            if sent >= from && succeeded {
                latencies.push(sent.elapsed());
            } else if sent >= from {
                failed += 1;
            }
        }
    }
}

/// Starts `wasmtime serve`; `None` if it is not installed.
async fn serve_with_wasmtime(component: &Path) -> anyhow::Result<Option<(Child, SocketAddr)>> {
    anyhow::ensure!(component.is_file(), "{} is not a file", component.display());
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
    let spawned = Command::new("wasmtime")
        .args(["serve", "-Scli", "--addr", &address.to_string()])
        .arg(component)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut process = match spawned {
        Ok(process) => process,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("run wasmtime"),
    };
    let listening = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        listening = tokio::time::timeout(PATIENCE, listening) => listening?,
        ended = process.wait() => anyhow::bail!("`wasmtime serve` ended: {}", ended?),
    }
    Ok(Some((process, address)))
}
