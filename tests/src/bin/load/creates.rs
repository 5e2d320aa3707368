//! `load creates`: `kill -9` of the server at a random moment of a stream of creates, many times on
//! one directory.
//!
//! After every round the server is started again and three things are compared with what it had
//! acknowledged before it died: what a list of this round finds, what a watch from before the round
//! reports, and, at the end, what a list of everything finds. The reference is what was acknowledged,
//! so the ratio must be 1; fewer is a lost write, and the run fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;

use crate::process::{self, Windlass, free_port};
use crate::{PATIENCE, table};

/// Between an acknowledgement and the kill, at most: longer than a batch takes.
const LATEST_KILL: Duration = Duration::from_millis(2);

/// Arguments of `load creates`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The windlass binary.
    binary: PathBuf,
    /// Kills.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=200))]
    rounds: u16,
    /// Creates in the stream of a round; the kill comes somewhere within.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    creates: u32,
    /// Clients that create at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    writers: u16,
}

/// The names that the server acknowledged.
type Names = BTreeSet<String>;

/// Runs the rounds and prints what became of them.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let port = free_port()?;
    let mut all = Names::new();
    let mut lost = 0;
    table::line(&[
        "round",
        "acknowledged",
        "listed",
        "watched",
        "lost",
        "ratio",
        "restart",
    ])?;
    table::line(&["--:"; 7])?;
    let mut server = Windlass::start(&args.binary, "server", &data, port).await?;
    for round in 1..=args.rounds {
        let client = process::administrator(&data).await?;
        let version = newest(&client).await?;
        let acknowledged = stream_until_killed(&args, client, server, round).await?;
        server = Windlass::start(&args.binary, "server", &data, port).await?;
        let listed = listed(&process::administrator(&data).await?, Some(round)).await?;
        let watched = watched(&data, round, &version).await?;
        let (kept, seen) = (
            common(&acknowledged, &listed),
            common(&acknowledged, &watched),
        );
        let missing = acknowledged.len() - kept.min(seen);
        lost += missing;
        table::line(&[
            &round.to_string(),
            &acknowledged.len().to_string(),
            &kept.to_string(),
            &seen.to_string(),
            &missing.to_string(),
            &format!("{:.4}", kept as f64 / acknowledged.len().max(1) as f64),
            &table::millis(server.ready_after),
        ])?;
        all.extend(acknowledged);
    }
    let there = listed(&process::administrator(&data).await?, None).await?;
    let kept = common(&all, &there);
    lost += all.len() - kept;
    let ratio = format!("{:.4}", kept as f64 / all.len().max(1) as f64);
    let (total, kept) = (all.len().to_string(), kept.to_string());
    table::line(&["all", &total, &kept, "", &lost.to_string(), &ratio, ""])?;
    server.kill().await?;
    anyhow::ensure!(lost == 0, "{lost} acknowledged writes were lost");
    Ok(())
}

fn common(acknowledged: &Names, found: &Names) -> usize {
    acknowledged.intersection(found).count()
}

/// Creates objects from several tasks and kills the server at a random point of the stream.
async fn stream_until_killed(
    args: &Args,
    client: Client,
    server: Windlass,
    round: u16,
) -> anyhow::Result<Names> {
    let kill_after = rand::random_range(1..args.creates) as usize;
    let stream = Arc::new(Stream {
        api: Api::default_namespaced(client),
        round,
        limit: args.creates,
        next: AtomicU32::new(0),
        acknowledged: Mutex::default(),
    });
    let (progress, mut acknowledged) = tokio::sync::watch::channel(0);
    let writers: Vec<_> = (0..args.writers)
        .map(|_| tokio::spawn(Arc::clone(&stream).write(progress.clone())))
        .collect();
    // The kill must be able to hit while writers wait, so nothing here holds them up.
    drop(progress);
    let enough = acknowledged.wait_for(|count| *count >= kill_after);
    tokio::time::timeout(PATIENCE, enough)
        .await
        .context("the creates take too long")?
        .context("the server refused creates before it was killed")?;
    let delay = rand::random_range(Duration::ZERO..LATEST_KILL);
    tokio::time::sleep(delay).await;
    server.kill().await?;
    for writer in writers {
        tokio::time::timeout(PATIENCE, writer)
            .await
            .context("a create outlived the server")???;
    }
    let names = stream.acknowledged.lock();
    let names = names.unwrap_or_else(PoisonError::into_inner).clone();
    Ok(names)
}

/// The creates of one round.
struct Stream {
    api: Api<ConfigMap>,
    round: u16,
    limit: u32,
    next: AtomicU32,
    acknowledged: Mutex<Names>,
}

impl Stream {
    /// Creates until the stream is over or the connection breaks.
    async fn write(
        self: Arc<Self>,
        progress: tokio::sync::watch::Sender<usize>,
    ) -> anyhow::Result<()> {
        loop {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            if n >= self.limit {
                return Ok(());
            }
            let name = format!("r{}-{n}", self.round);
            let object = object(&name, self.round)?;
            match self.api.create(&PostParams::default(), &object).await {
                Ok(_) => {}
                // An answer is a refusal; anything else is the kill.
                Err(kube::Error::Api(status)) => anyhow::bail!("create {name}: {status:?}"),
                Err(_) => return Ok(()),
            }
            let count = {
                let names = self.acknowledged.lock();
                let mut names = names.unwrap_or_else(PoisonError::into_inner);
                names.insert(name);
                names.len()
            };
            progress.send_replace(count);
        }
    }
}

fn object(name: &str, round: u16) -> serde_json::Result<ConfigMap> {
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"round": round.to_string()}},
        "data": {"name": name},
    }))
}

/// The revision of the newest write.
async fn newest(client: &Client) -> anyhow::Result<String> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let list = api.list_metadata(&ListParams::default().limit(1)).await?;
    list.metadata
        .resource_version
        .context("a list without resourceVersion")
}

/// The names that a list finds, of one round or of all.
async fn listed(client: &Client, round: Option<u16>) -> anyhow::Result<Names> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let mut parameters = ListParams::default();
    if let Some(round) = round {
        parameters = parameters.labels(&format!("round={round}"));
    }
    let list = tokio::time::timeout(PATIENCE, api.list_metadata(&parameters)).await??;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

/// The names that a watch reports which resumes at `version`, from before the kill, up to a write
/// made now.
async fn watched(data: &Path, round: u16, version: &str) -> anyhow::Result<Names> {
    let api: Api<ConfigMap> = Api::default_namespaced(process::administrator(data).await?);
    let last = format!("r{round}-last");
    api.create(&PostParams::default(), &object(&last, round)?)
        .await?;
    let parameters = WatchParams::default().labels(&format!("round={round}"));
    let events = api.watch(&parameters, version).await?;
    futures::pin_mut!(events);
    let mut names = Names::new();
    while !names.contains(&last) {
        let event = tokio::time::timeout(PATIENCE, events.next()).await?;
        match event.context("the watch ended")?? {
            WatchEvent::Added(object) => drop(names.insert(object.name_any())),
            WatchEvent::Error(status) => anyhow::bail!("the watch failed: {status:?}"),
            _ => {}
        }
    }
    Ok(names)
}
