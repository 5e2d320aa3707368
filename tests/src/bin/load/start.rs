//! `load start`: from the start of `windlass up` on a fresh directory until `/readyz` answers, and
//! the memory of the process when it has nothing to do.
//!
//! The reference is a native hyper server in a process of its own: what starting a process and
//! serving a socket cost at least on this machine.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::process::{Windlass, free_port};
use crate::table::{self, Latencies, millis};
use crate::{PATIENCE, loopback};

/// Between two readings of a process's memory.
const READING: Duration = Duration::from_millis(500);
/// Readings in a row that must agree.
const AGREEING: usize = 6;
/// Readings before a process that never settles is taken as it is.
const READINGS: usize = 120;
/// By how many kilobytes agreeing readings may differ.
const TOLERANCE: u64 = 256;

/// Arguments of `load start`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The windlass binary.
    binary: PathBuf,
    /// Starts, each on a fresh directory.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut references = Vec::new();
    let mut starts = Vec::new();
    let (mut reference_memory, mut memory) = (0, 0);
    for round in 0..args.rounds {
        let last = round + 1 == args.rounds;
        let (reference, took) = start_reference().await?;
        references.push(took);
        let directory = tempfile::tempdir()?;
        let data = directory.path().join("data");
        let windlass = Windlass::start(&args.binary, "up", &data, free_port()?).await?;
        starts.push(windlass.ready_after);
        if last {
            reference_memory = settled(reference.id().context("the reference ended")?).await?;
            memory = settled(windlass.id()?).await?;
        }
        windlass.kill().await?;
    }
    let (references, starts) = (Latencies::new(references), Latencies::new(starts));
    table::head()?;
    for (name, percent) in [("p50", 50), ("slowest", 100)] {
        let (own, reference) = (starts.percentile(percent), references.percentile(percent));
        table::row(
            &format!(
                "start of `windlass up` to `/readyz`, {name} of {}",
                starts.count()
            ),
            &millis(own),
            &format!("native hyper {}", millis(reference)),
            table::ratio(own, reference),
        )?;
    }
    table::row(
        "resident memory of an idle `windlass up`",
        &megabytes(memory),
        &format!("native hyper {}", megabytes(reference_memory)),
        Some(memory as f64 / reference_memory.max(1) as f64),
    )?;
    Ok(())
}

/// Starts the native server and returns it with the time until it answered.
async fn start_reference() -> anyhow::Result<(Child, Duration)> {
    let started = Instant::now();
    let mut process = Command::new(std::env::current_exe()?)
        .arg("hello")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = process
        .stdout
        .take()
        .context("the reference has no output")?;
    let mut lines = BufReader::new(stdout).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await??;
    let uri: Uri = format!("http://{}/", line.context("the reference ended")?).parse()?;
    let stream = TcpStream::connect(loopback(&uri)?).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/").header("host", "reference");
    let answer = sender
        .send_request(request.body(Empty::<bytes::Bytes>::new())?)
        .await?;
    anyhow::ensure!(
        answer.status().is_success(),
        "the reference answered {}",
        answer.status()
    );
    let took = started.elapsed();
    connection.abort();
    Ok((process, took))
}

/// The resident kilobytes of a process once they stay the same.
async fn settled(pid: u32) -> anyhow::Result<u64> {
    let mut readings = Vec::new();
    while readings.len() < READINGS {
        readings.push(resident(pid)?);
        let recent = readings.iter().rev().take(AGREEING);
        let (least, most) = recent.fold((u64::MAX, 0), |(least, most), reading| {
            (least.min(*reading), most.max(*reading))
        });
        if readings.len() >= AGREEING && most - least <= TOLERANCE {
            break;
        }
        tokio::time::sleep(READING).await;
    }
    readings.pop().context("no reading")
}

/// The resident kilobytes of a process, by the kernel's account.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number
        .with_context(|| format!("{path} has no VmRSS"))?
        .parse()?)
}

/// Kilobytes as mebibytes.
pub(crate) fn megabytes(kilobytes: u64) -> String {
    format!("{:.1} MiB", kilobytes as f64 / 1024.0)
}
