//! The load tool: figures of running servers as rows of Markdown tables, each with its ratio to a
//! reference measured in the same run.
//!
//! `pods`, `linux` and `http` measure a server that runs already; `start`, `creates`, `api`, `density` and `workloads` run a given binary on
//! a directory of their own. Only loopback addresses are accepted, and every run is bounded in count
//! and time, so that the tool cannot be turned on somebody else's machine.

mod api;
mod creates;
mod density;
mod hello;
mod http_load;
mod linux;
mod pods;
mod process;
mod start;
mod table;
mod workloads;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use http::Uri;

/// How long anything is waited for before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures a Windlass server on this machine.
#[derive(Debug, Parser)]
#[command(name = "load", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Latency from creating a pod until it is Ready, against a running server.
    Pods(pods::Args),
    /// Latency from creating a pod of Linux until it is Ready, against `ctr run` and a wasm pod.
    Linux(linux::Args),
    /// Requests per second and latencies of a URL over kept-alive connections.
    Http(http_load::Args),
    /// Time from the start of `windlass up` to a served API, and its memory when idle.
    Start(start::Args),
    /// Kills `windlass server` during a stream of creates and counts what was lost.
    Creates(creates::Args),
    /// What reads, writes and watches cost at a growing number of stored objects.
    Api(api::Args),
    /// How many wasm pods a node holds, what each costs, and how long a command in one takes.
    Density(density::Args),
    /// What controllers and scheduler do per second, and what they cost when nothing happens.
    Workloads(workloads::Args),
    /// The native server that others are compared with.
    #[command(hide = true)]
    Hello,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Pods(args) => pods::run(args).await,
        Command::Linux(args) => linux::run(args).await,
        Command::Http(args) => http_load::run(args).await,
        Command::Start(args) => start::run(args).await,
        Command::Creates(args) => creates::run(args).await,
        Command::Api(args) => api::run(args).await,
        Command::Density(args) => density::run(args).await,
        Command::Workloads(args) => workloads::run(args).await,
        Command::Hello => hello::run().await,
    }
}

/// The address that `uri` names, which must be on this machine.
fn loopback(uri: &Uri) -> anyhow::Result<SocketAddr> {
    let host = uri.host().with_context(|| format!("{uri} names no host"))?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = match bare {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        other => other
            .parse()
            .with_context(|| format!("{other} is not an address"))?,
    };
    anyhow::ensure!(
        ip.is_loopback(),
        "{ip} is not a loopback address; this tool loads its own machine only"
    );
    let standard = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    Ok(SocketAddr::new(ip, uri.port_u16().unwrap_or(standard)))
}
