//! `load pods`: from creating a pod until a watch says that it is Ready.
//!
//! One pod goes before, so that the image is pulled and compiled. Then pods are created one after
//! the other, and again several at a time; each lot is deleted before the next. The reference is the
//! creation of ConfigMaps through the same API: one durable write each, where a pod costs several.
//!
//! The stages of a pod on its way are told by its events, as soon as a watch shows them. Events are written beside the pod's
//! own way, not on it, so a stage is seen a moment after it was reached; readiness is seen by the watch of pods itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::table::{self, Latencies, millis};
use crate::{PATIENCE, process};

/// What every object of the load is labelled with.
const LABEL: &str = "windlass-load=pods";

/// Arguments of `load pods`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kubeconfig of the server.
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// The image of the pods, by tag or digest, as the server's registry has it.
    #[arg(long)]
    image: String,
    /// Where the pods are created.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Pods of each lot.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    count: u16,
    /// Pods that are created at a time in the second lot.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(2..=256))]
    at_once: u16,
}

/// Measures and prints; what it created is deleted whatever happens.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = process::client(&args.kubeconfig).await?;
    let spec = json!({"containers": [{"name": "app", "image": args.image}]});
    let pods = Pods::watch(&args.namespace, spec, client.clone()).await?;
    let outcome = measure(&args, &pods, client.clone()).await;
    let deleted = pods.delete_all().await;
    let (api, parameters) = (
        config_maps(&args, client),
        ListParams::default().labels(LABEL),
    );
    let maps_deleted = api
        .delete_collection(&DeleteParams::default(), &parameters)
        .await;
    outcome?;
    deleted?;
    maps_deleted?;
    Ok(())
}

async fn measure(args: &Args, pods: &Pods, client: Client) -> anyhow::Result<()> {
    pods.lot("warm", 1, 1).await?;
    let reference = durable_writes(&config_maps(args, client), args.count).await?;
    table::head()?;
    for (lot, at_once) in [("one", 1), ("many", usize::from(args.at_once))] {
        let started = Instant::now();
        let latencies = pods.lot(lot, args.count, at_once).await?;
        let took = started.elapsed();
        for percent in [50, 99] {
            let (own, other) = (latencies.percentile(percent), reference.percentile(percent));
            table::row(
                &format!(
                    "pod create→Ready, {} pods, {at_once} at a time: p{percent}",
                    latencies.count()
                ),
                &millis(own),
                &format!("ConfigMap create {}", millis(other)),
                table::ratio(own, other),
            )?;
        }
        pods.print_stages(lot, at_once)?;
        let rate = latencies.count() as f64 / took.as_secs_f64();
        let figure = format!("pods made Ready per second, {at_once} at a time");
        table::row(&figure, &format!("{rate:.0}"), "itself", None)?;
        pods.delete_all().await?;
    }
    Ok(())
}

fn config_maps(args: &Args, client: Client) -> Api<ConfigMap> {
    Api::namespaced(client, &args.namespace)
}

/// Creates ConfigMaps one after the other.
async fn durable_writes(api: &Api<ConfigMap>, count: u16) -> anyhow::Result<Latencies> {
    let mut latencies = Vec::new();
    for n in 0..count {
        let object: ConfigMap = serde_json::from_value(json!({
            "metadata": {
                "name": format!("load-reference-{n}"),
                "labels": {"windlass-load": "pods"},
            },
        }))?;
        let started = Instant::now();
        api.create(&PostParams::default(), &object).await?;
        latencies.push(started.elapsed());
    }
    Ok(Latencies::new(latencies))
}

/// What is waited for of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Milestone {
    Ready,
    Gone,
}

/// Reasons of events that tell how far a pod is, in the order in which they come.
const STAGES: [&str; 4] = ["Scheduled", "Pulled", "Created", "Started"];

/// When each pod was created, and when each stage of it was seen.
type Seen = HashMap<String, (Instant, HashMap<&'static str, Instant>)>;
type Stages = Arc<Mutex<Seen>>;

type Waiting = Arc<Mutex<HashMap<(String, Milestone), oneshot::Sender<Instant>>>>;

/// The pods of the load and the one watch that follows them.
pub(crate) struct Pods {
    api: Api<Pod>,
    spec: Value,
    waiting: Waiting,
    stages: Stages,
    watches: [JoinHandle<()>; 2],
}

impl Drop for Pods {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

impl Pods {
    /// Pods of this specification.
    pub(crate) async fn watch(
        namespace: &str,
        spec: Value,
        client: Client,
    ) -> anyhow::Result<Self> {
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let events: Api<Event> = Api::namespaced(client, namespace);
        let list = api.list(&ListParams::default().labels(LABEL)).await?;
        anyhow::ensure!(
            list.items.is_empty(),
            "there are pods with label {LABEL}, perhaps of a run that was killed: delete them first"
        );
        let version = list.metadata.resource_version.unwrap_or_default();
        let waiting = Waiting::default();
        let stages = Stages::default();
        let watches = [
            tokio::spawn(follow(api.clone(), version, Arc::clone(&waiting))),
            tokio::spawn(follow_events(events, Arc::clone(&stages))),
        ];
        Ok(Self {
            api,
            spec,
            waiting,
            stages,
            watches,
        })
    }

    /// Creates pods, `at_once` at a time, and returns how long each took to be Ready.
    pub(crate) async fn lot(
        &self,
        lot: &str,
        count: u16,
        at_once: usize,
    ) -> anyhow::Result<Latencies> {
        let latencies = stream::iter(0..count)
            .map(|n| self.create(format!("load-{lot}-{n}")))
            .buffer_unordered(at_once);
        Ok(Latencies::new(latencies.try_collect().await?))
    }

    async fn create(&self, name: String) -> anyhow::Result<Duration> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"windlass-load": "pods"}},
            "spec": self.spec,
        }))?;
        let ready = self.milestone(&name, Milestone::Ready);
        let started = Instant::now();
        self.stages()
            .insert(name.clone(), (started, HashMap::new()));
        self.api.create(&PostParams::default(), &pod).await?;
        let at = reached(ready).await;
        let at = at.with_context(|| format!("pod {name} did not become Ready"))?;
        Ok(at.duration_since(started))
    }

    fn stages(&self) -> MutexGuard<'_, Seen> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prints how long the pods of a lot took to each stage, and forgets them. Events are best effort: a stage counts the
    /// pods it was seen of.
    fn print_stages(&self, lot: &str, at_once: usize) -> anyhow::Result<()> {
        let pods = std::mem::take(&mut *self.stages());
        let of_lot = format!("load-{lot}-");
        for stage in STAGES {
            let seen = pods.iter().filter_map(|(name, (created, stages))| {
                let at = stages.get(stage).filter(|_| name.starts_with(&of_lot))?;
                Some(at.duration_since(*created))
            });
            let latencies = Latencies::new(seen.collect());
            for percent in [50, 99] {
                table::row(
                    &format!(
                        "until {stage} was seen, of {} pods, {at_once} at a time: p{percent}",
                        latencies.count()
                    ),
                    &millis(latencies.percentile(percent)),
                    "itself",
                    None,
                )?;
            }
        }
        Ok(())
    }

    /// Deletes them, without grace.
    pub(crate) async fn delete_all(&self) -> anyhow::Result<()> {
        let list = self
            .api
            .list_metadata(&ListParams::default().labels(LABEL))
            .await?;
        let names = list.items.iter().map(ResourceExt::name_any);
        stream::iter(names)
            .map(|name| async move {
                let gone = self.milestone(&name, Milestone::Gone);
                let now = DeleteParams::default().grace_period(0);
                match self.api.delete(&name, &now).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                    outcome => outcome?,
                };
                let gone = reached(gone).await;
                gone.with_context(|| format!("pod {name} is still there"))
                    .map(drop)
            })
            .buffer_unordered(16)
            .try_collect()
            .await
    }

    fn milestone(&self, name: &str, milestone: Milestone) -> oneshot::Receiver<Instant> {
        let (sender, receiver) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert((name.to_owned(), milestone), sender);
        receiver
    }
}

async fn reached(milestone: oneshot::Receiver<Instant>) -> anyhow::Result<Instant> {
    tokio::time::timeout(PATIENCE, milestone)
        .await?
        .context("the watch ended")
}

/// Tells who waits, until the watch fails; then the senders go and every waiter hears of it.
async fn follow(api: Api<Pod>, mut version: String, waiting: Waiting) {
    let parameters = WatchParams::default().labels(LABEL).timeout(290);
    // The server ends a watch when its time is over; the next goes on where it ended.
    'watches: while let Ok(events) = api.watch(&parameters, &version).await {
        futures::pin_mut!(events);
        while let Some(event) = events.next().await {
            let (pod, milestone) = match event {
                Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => (pod, Milestone::Ready),
                Ok(WatchEvent::Deleted(pod)) => (pod, Milestone::Gone),
                Ok(WatchEvent::Bookmark(bookmark)) => {
                    version = bookmark.metadata.resource_version;
                    continue;
                }
                Ok(WatchEvent::Error(_)) | Err(_) => break 'watches,
            };
            version = pod.resource_version().unwrap_or_default();
            if milestone == Milestone::Gone || is_ready(&pod) {
                tell(&waiting, pod.name_any(), milestone);
            }
        }
    }
    waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clear();
}

/// Notes the stages that events tell of, until the watch fails for good.
async fn follow_events(api: Api<Event>, stages: Stages) {
    let config = watcher::Config::default().fields("involvedObject.kind=Pod");
    let mut events = watcher(api, config)
        .default_backoff()
        .touched_objects()
        .boxed();
    while let Some(event) = events.next().await {
        let Ok(event) = event else { continue };
        let reason = event.reason.unwrap_or_default();
        let stage = STAGES.into_iter().find(|stage| *stage == reason);
        let (Some(stage), Some(pod)) = (stage, event.involved_object.name) else {
            continue;
        };
        let mut stages = stages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, seen)) = stages.get_mut(&pod) {
            seen.entry(stage).or_insert_with(Instant::now);
        }
    }
}

fn tell(waiting: &Waiting, name: String, milestone: Milestone) {
    let now = Instant::now();
    let waiter = waiting
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(&(name, milestone));
    if let Some(waiter) = waiter {
        // A waiter that ran out of patience is gone.
        let _ = waiter.send(now);
    }
}

pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .filter_map(|status| status.conditions.as_ref());
    let mut conditions = conditions.flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
