//! `load api`: what requests on the API cost, at a growing number of stored pods.
//!
//! Runs `windlass server` on a fresh directory, fills it to each count of `--objects` in turn and
//! measures: GET of one pod, LIST of a page of pods as JSON, protobuf and Table, creates and patches with
//! one client and with many, and a change on its way to many watchers. The reference of each figure is
//! the same figure at the first count (cost must not grow with what is stored), and at the first count
//! what the row names: the native hyper server, JSON, one client, one watcher.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::Barrier;

use crate::hello::Hello;
use crate::process::{Windlass, administrator, free_port};
use crate::start::{megabytes, resident};
use crate::table::{self, Latencies, millis};
use crate::{PATIENCE, http_load};

/// Clients that fill the server.
const FILLERS: usize = 64;
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Arguments of `load api`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The windlass binary.
    binary: PathBuf,
    /// Pods stored when measuring; several counts, ascending.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000])]
    objects: Vec<usize>,
    /// Pods per list.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    page: u32,
    /// Watchers of one change.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    watchers: u16,
    /// Operations per figure.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    operations: u32,
}

/// Prints figures beside those of the first count.
struct Report {
    /// Durations per operation at the first count, by figure.
    first: BTreeMap<String, Duration>,
    stored: usize,
    is_first: bool,
}

impl Report {
    /// A row: what one operation took, against `reference` at the first count and the first count later.
    fn row(
        &mut self,
        figure: &str,
        took: Duration,
        reference: (&str, Option<Duration>),
    ) -> std::io::Result<()> {
        let name = format!("{figure}, {} pods stored", self.stored);
        let (other, against) = if self.is_first {
            self.first.insert(figure.to_owned(), took);
            (reference.0.to_owned(), reference.1)
        } else {
            (
                "at the first count".to_owned(),
                self.first.get(figure).copied(),
            )
        };
        let shown = against.map_or_else(|| "itself".into(), |d| format!("{other} {}", millis(d)));
        let ratio = against.and_then(|against| table::ratio(took, against));
        table::row(&name, &millis(took), &shown, ratio)
    }
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let windlass = Windlass::start(&args.binary, "server", &data, free_port()?).await?;
    let client = administrator(&data).await?;
    let mut report = Report {
        first: BTreeMap::new(),
        stored: 0,
        is_first: true,
    };
    table::head()?;
    for count in &args.objects {
        fill(&client, report.stored, *count).await?;
        report.stored = *count;
        reads(&client, &args, &mut report).await?;
        writes(&client, &args, &mut report).await?;
        fan_out(&client, &args, &mut report).await?;
        table::row(
            &format!("resident memory, {count} pods stored"),
            &megabytes(resident(windlass.id()?)?),
            "itself",
            None,
        )?;
        report.is_first = false;
    }
    windlass.kill().await
}

/// Creates pods that no scheduler looks at, numbers `from` to `to`.
async fn fill(client: &Client, from: usize, to: usize) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let create = |number: usize| {
        let pods = pods.clone();
        async move {
            pods.create(&PostParams::default(), &pod(number)?)
                .await
                .map_err(Into::into)
        }
    };
    let created = stream::iter(from..to).map(create).buffer_unordered(FILLERS);
    created
        .try_for_each(|_: Pod| async { Ok::<_, anyhow::Error>(()) })
        .await
        .context("fill the server with pods")
}

fn pod(number: usize) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": format!("load-{number:06}"),
            "labels": {"app": format!("app-{}", number % 100), "tier": "load"},
        },
        "spec": {
            "schedulerName": "nobody",
            "containers": [{
                "name": "main", "image": "registry.windlass.local/default/load:1",
                "ports": [{"containerPort": 8080, "name": "http"}],
                "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
                "env": [{"name": "NUMBER", "value": number.to_string()}],
            }],
        },
    }))?)
}

async fn reads(client: &Client, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let hello = Hello::start().await?;
    let native = http_load::one_by_one(hello.address, args.operations).await?;
    drop(hello);
    let get = "/api/v1/namespaces/default/pods/load-000007";
    let mut latencies = Vec::new();
    for _ in 0..args.operations {
        let sent = Instant::now();
        fetch(client, get, "application/json").await?;
        latencies.push(sent.elapsed());
    }
    let latencies = Latencies::new(latencies);
    let native = Some(native.percentile(50));
    report.row(
        "GET of a pod, one client, p50",
        latencies.percentile(50),
        ("native hyper", native),
    )?;
    let page = report.stored.min(args.page as usize);
    let list = format!("/api/v1/pods?limit={page}");
    let mut json = None;
    for (name, accept) in [
        ("JSON", "application/json"),
        ("protobuf", PROTOBUF),
        ("Table", TABLE),
    ] {
        let mut took = Vec::new();
        let mut bytes = 0;
        for _ in 0..5 {
            let sent = Instant::now();
            bytes = fetch(client, &list, accept).await?;
            took.push(sent.elapsed());
        }
        let per_thousand = Latencies::new(took).percentile(50) * 1000 / u32::try_from(page)?;
        let figure = format!("LIST of {} as {name}, per 1,000", list_name(args, page));
        report.row(&figure, per_thousand, ("JSON", json))?;
        tracing::debug!(name, bytes, "list");
        json = json.or(Some(per_thousand));
    }
    Ok(())
}

/// How a list is called whose length is bounded by what is stored.
fn list_name(args: &Args, page: usize) -> String {
    if page == args.page as usize {
        format!("{page} pods")
    } else {
        format!("up to {} pods", args.page)
    }
}

/// Reads an answer to its end and returns its length.
async fn fetch(client: &Client, path: &str, accept: &str) -> anyhow::Result<usize> {
    let request = Request::get(path).header(http::header::ACCEPT, accept);
    let answer = client
        .send(request.body(kube::client::Body::empty())?)
        .await?;
    anyhow::ensure!(answer.status().is_success(), "{path}: {}", answer.status());
    let (mut body, mut length) = (answer.into_body(), 0);
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, bytes::Bytes::len);
    }
    Ok(length)
}

async fn writes(client: &Client, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    for (operation, patches) in [("create", false), ("patch", true)] {
        let mut alone = None;
        for clients in [1, 64] {
            // A client alone waits for each fsync; fewer operations say as much.
            let count = if clients == 1 {
                args.operations / 8
            } else {
                args.operations
            } as usize;
            let base = 900_000;
            let write = |number: usize| {
                let pods = pods.clone();
                async move {
                    if patches {
                        let patch = json!({"metadata": {"labels": {"round": number.to_string()}}});
                        let name = format!("load-{:06}", number % 500);
                        let params = PatchParams::default();
                        pods.patch(&name, &params, &Patch::Merge(&patch)).await?;
                    } else {
                        pods.create(&PostParams::default(), &pod(base + number)?)
                            .await?;
                    }
                    Ok::<_, anyhow::Error>(())
                }
            };
            let began = Instant::now();
            let written = stream::iter(0..count).map(write).buffer_unordered(clients);
            written.try_for_each(|()| async { Ok(()) }).await?;
            let each = began.elapsed() / u32::try_from(count)?;
            let per_second = 1.0 / each.as_secs_f64();
            let figure = format!("{operation} with {clients} client(s), time per operation");
            report.row(&figure, each, ("one client", alone))?;
            tracing::debug!(operation, clients, per_second, "writes");
            alone = alone.or(Some(each));
            if !patches {
                remove(client, base, count).await?;
            }
        }
    }
    Ok(())
}

/// Takes away the pods that were created to measure.
async fn remove(client: &Client, base: usize, count: usize) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let delete = |number: usize| {
        let pods = pods.clone();
        let now = kube::api::DeleteParams::default().grace_period(0);
        async move {
            pods.delete(&format!("load-{:06}", base + number), &now)
                .await
        }
    };
    let deleted = stream::iter(0..count).map(delete).buffer_unordered(FILLERS);
    deleted.try_for_each(|_| async { Ok(()) }).await?;
    Ok(())
}

/// Changes one ConfigMap again and again and times until every watcher has seen the change.
async fn fan_out(client: &Client, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let mut alone = None;
    for watchers in [1, usize::from(args.watchers)] {
        let took = tokio::time::timeout(PATIENCE * 3, changes(client, watchers))
            .await
            .context("watchers did not hear of a change")??;
        let figure = format!("a change until all of {watchers} watcher(s) have it, p50");
        report.row(&figure, took.percentile(50), ("one watcher", alone))?;
        alone = alone.or(Some(took.percentile(50)));
    }
    Ok(())
}

const CHANGES: usize = 50;

async fn changes(client: &Client, watchers: usize) -> anyhow::Result<Latencies> {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "watched"}}))?;
    let written = maps.create(&PostParams::default(), &map).await?;
    let from = written.resource_version().context("a version")?;
    let heard = Arc::new(AtomicUsize::new(0));
    let round = Arc::new(Barrier::new(watchers + 1));
    let open = (0..watchers).map(|_| {
        let (maps, from) = (maps.clone(), from.clone());
        let (heard, round) = (Arc::clone(&heard), Arc::clone(&round));
        async move {
            let params = WatchParams::default().fields("metadata.name=watched");
            let events = maps.watch(&params, &from).await?.boxed();
            anyhow::Ok(tokio::spawn(listen(events, heard, round)))
        }
    });
    let listeners = try_join_all(open).await?;
    let mut took = Vec::new();
    for number in 0..CHANGES {
        let began = Instant::now();
        let patch = json!({"data": {"number": number.to_string()}});
        let params = PatchParams::default();
        maps.patch("watched", &params, &Patch::Merge(&patch))
            .await?;
        round.wait().await;
        took.push(began.elapsed());
    }
    maps.delete("watched", &kube::api::DeleteParams::default())
        .await?;
    for listener in listeners {
        listener.await??;
    }
    anyhow::ensure!(heard.load(Ordering::Relaxed) == watchers * CHANGES);
    Ok(Latencies::new(took))
}

/// Waits with the others after each change, until the object is gone.
async fn listen(
    mut events: stream::BoxStream<'static, kube::Result<WatchEvent<ConfigMap>>>,
    heard: Arc<AtomicUsize>,
    round: Arc<Barrier>,
) -> anyhow::Result<()> {
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Modified(_) => {
                heard.fetch_add(1, Ordering::Relaxed);
                round.wait().await;
            }
            WatchEvent::Deleted(_) => return Ok(()),
            _ => {}
        }
    }
    anyhow::bail!("the watch ended")
}
