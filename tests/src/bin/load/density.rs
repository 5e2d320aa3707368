//! `load density`: how many wasm pods a node holds, what each costs, and how long a command in one takes.
//!
//! Runs `windlass up` on a fresh directory and creates pods of one component in steps. After each step, once all are Ready,
//! it looks at the memory of the process and, over a while in which nobody asks for anything, at its processor time. The
//! reference is the same process without pods. Then commands are run in one of the pods, one after the other: the node's
//! tool `test`, by the API's `exec`; their reference is reading that pod.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::process::Command;

use crate::pods::is_ready;
use crate::process::{Windlass, administrator, free_port};
use crate::start::{megabytes, resident};
use crate::table::{self, Latencies, millis};
use crate::workloads::idle;

/// Requests that are written at once.
const CLIENTS: usize = 32;
/// How long a step may take.
const LIMIT: Duration = Duration::from_secs(1800);
/// What the pods are labelled with.
const LABEL: &str = "windlass-load=density";
/// Where the component is pushed to.
const IMAGE: &str = "registry.windlass.local/default/density:v1";

/// Arguments of `load density`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The windlass binary.
    binary: PathBuf,
    /// The component that the pods run, such as examples/hello/hello.wasm.
    component: PathBuf,
    /// Pods after each step.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 10_000])]
    pods: Vec<usize>,
    /// Seconds over which an idle server is looked at.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    idle: u64,
    /// Commands that are run in a pod.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    commands: u16,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let windlass = Windlass::start(&args.binary, "up", &data, free_port()?).await?;
    let client = administrator(&data).await?;
    let image = push(&args, &data).await?;
    let (pid, window) = (windlass.id()?, Duration::from_secs(args.idle));
    let empty = (resident(pid)?, idle(pid, window).await?);
    table::head()?;
    let mut there = 0;
    for count in &args.pods {
        let begin = Instant::now();
        grow(&client, &image, there, *count).await?;
        let rate = (count - there) as f64 / begin.elapsed().as_secs_f64();
        there = *count;
        let (memory, share) = (resident(pid)?, idle(pid, window).await?);
        print_step(there, rate, (memory, share), empty)?;
    }
    commands(&client, &args).await?;
    windlass.kill().await
}

fn print_step(
    pods: usize,
    rate: f64,
    (memory, share): (u64, f64),
    (memory_before, share_before): (u64, f64),
) -> anyhow::Result<()> {
    let figure = format!("pods made Ready per second, up to {pods}");
    table::row(&figure, &format!("{rate:.0}"), "itself", None)?;
    let each = memory.saturating_sub(memory_before) as f64 / pods.max(1) as f64;
    table::row(
        &format!("memory with {pods} pods, {each:.1} KiB each"),
        &megabytes(memory),
        &format!("without {}", megabytes(memory_before)),
        Some(memory as f64 / memory_before.max(1) as f64),
    )?;
    Ok(table::row(
        &format!("share of a core when idle, {pods} pods"),
        &format!("{:.1} %", share * 100.0),
        &format!("without {:.1} %", share_before * 100.0),
        None,
    )?)
}

/// Pushes the component, and answers the reference that pods name it by.
async fn push(args: &Args, data: &Path) -> anyhow::Result<String> {
    let pushed = Command::new(&args.binary)
        .arg("push")
        .arg(&args.component)
        .arg(IMAGE)
        .env("KUBECONFIG", data.join("kubeconfig"))
        .output()
        .await?;
    let said = String::from_utf8_lossy(&pushed.stderr).into_owned();
    anyhow::ensure!(pushed.status.success(), "push: {said}");
    Ok(String::from_utf8(pushed.stdout)?.trim().to_owned())
}

/// Creates the pods from `first` on until there are `count`, and waits until all are Ready.
async fn grow(client: &Client, image: &str, first: usize, count: usize) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let create = |number: usize| {
        let api = api.clone();
        async move {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": format!("density-{number}"), "labels": {"windlass-load": "density"}},
                "spec": {"containers": [{"name": "app", "image": image}]},
            }))?;
            api.create(&PostParams::default(), &pod).await?;
            Ok::<_, anyhow::Error>(())
        }
    };
    let created = stream::iter(first..count)
        .map(create)
        .buffer_unordered(CLIENTS)
        .try_collect::<()>();
    let all_ready = all_ready(api.clone(), count);
    let both = async { tokio::try_join!(created, all_ready) };
    tokio::time::timeout(LIMIT, both)
        .await
        .with_context(|| format!("{count} pods did not become Ready"))??;
    Ok(())
}

async fn all_ready(api: Api<Pod>, count: usize) -> anyhow::Result<()> {
    let config = watcher::Config::default().labels(LABEL);
    let pods = watcher(api, config).default_backoff().touched_objects();
    let mut pods = pods.boxed();
    let mut ready = HashSet::new();
    while ready.len() < count {
        let pod = pods.next().await.context("the watch ended")?;
        // A watch that broke begins anew.
        let Ok(pod) = pod else { continue };
        let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
        anyhow::ensure!(phase != Some("Failed"), "{:?}", pod.status);
        if is_ready(&pod) {
            ready.insert(pod.name_any());
        }
    }
    Ok(())
}

/// Runs commands in one pod.
async fn commands(client: &Client, args: &Args) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    let (mut own, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..=args.commands {
        let begin = Instant::now();
        let command = ["test", "-d", "/tmp"];
        let mut attached = api
            .exec("density-0", command, &AttachParams::default())
            .await?;
        let status = attached.take_status().context("exec tells no status")?;
        let status = status.await.context("exec ended without a status")?;
        own.push(begin.elapsed());
        // Both answers of `test` are an end of it; a command that was not found is none.
        let known = matches!(status.reason.as_deref(), None | Some("NonZeroExitCode"));
        anyhow::ensure!(known, "{status:?}");
        attached.join().await?;
        let begin = Instant::now();
        api.get("density-0").await?;
        reference.push(begin.elapsed());
    }
    // The first one compiles.
    own.remove(0);
    let (own, reference) = (Latencies::new(own), Latencies::new(reference));
    for percent in [50, 99] {
        let (took, other) = (own.percentile(percent), reference.percentile(percent));
        table::row(
            &format!("exec in a pod, {} commands: p{percent}", own.count()),
            &millis(took),
            &format!("GET of it {}", millis(other)),
            table::ratio(took, other),
        )?;
    }
    Ok(())
}
