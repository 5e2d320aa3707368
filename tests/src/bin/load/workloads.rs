//! `load workloads`: what controllers and scheduler do per second, and what they cost when nothing happens.
//!
//! Runs `windlass server` on a fresh directory with nodes that only pretend: one task keeps their leases and
//! says of every pod bound to one of them that it runs, and lets it go when it is deleted. Measured are:
//!
//! 1. pods created until all are bound, against pods that no scheduler looks at, at each count of `--pods`;
//! 2. a Deployment scaled up until all replicas are available, and down until all are gone, against the
//!    same reference;
//! 3. the share of a core that the server takes when nobody asks for anything, against an empty cluster.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::process::{Windlass, administrator, free_port};
use crate::table;

/// Requests that are written at once.
const CLIENTS: usize = 64;
/// Between two renewals of a node's lease; it is silent after 40 s.
const RENEW: Duration = Duration::from_secs(20);
/// The unit of times in /proc, on every architecture of Linux.
const TICK: Duration = Duration::from_millis(10);
/// How long the largest step may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Arguments of `load workloads`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The windlass binary.
    binary: PathBuf,
    /// Nodes that pretend.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=5_000))]
    nodes: u16,
    /// Pods that are created and bound; several counts.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    pods: Vec<u32>,
    /// Replicas that a Deployment is scaled to.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    replicas: u32,
    /// Seconds over which an idle server is looked at.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=35))]
    idle: u64,
}

/// Measures and prints.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let data = directory.path().join("data");
    let windlass = Windlass::start(&args.binary, "server", &data, free_port()?).await?;
    let client = administrator(&data).await?;
    let window = Duration::from_secs(args.idle);
    let empty = idle(windlass.id()?, window).await?;
    nodes(&client, args.nodes).await?;
    let nodes = Nodes::pretend(&client, args.nodes);
    table::head()?;
    let mut alone = None;
    for count in &args.pods {
        let unseen = created(&client, "unseen", *count, "nobody").await?;
        remove(&client, "unseen").await?;
        let bound = bound(&client, "bound", *count).await?;
        rate(
            "pods bound",
            &args,
            *count,
            bound,
            ("creates alone", unseen),
        )?;
        if count != args.pods.last().unwrap_or(count) {
            remove(&client, "bound").await?;
        }
        alone = Some(unseen / *count);
    }
    let per_create = alone.context("--pods is empty")?;
    settle(windlass.id()?).await?;
    nodes.stop();
    let resting = idle(windlass.id()?, window).await?;
    let stored = args.pods.last().copied().unwrap_or(0);
    table::row(
        &format!(
            "share of a core when idle, {} nodes, {stored} pods",
            args.nodes
        ),
        &format!("{:.2} %", resting * 100.0),
        &format!("an empty cluster {:.2} %", empty * 100.0),
        (empty > 0.0).then(|| resting / empty),
    )?;
    let nodes = Nodes::pretend(&client, args.nodes);
    remove(&client, "bound").await?;
    let (up, down) = scaled(&client, args.replicas).await?;
    let reference = per_create * args.replicas;
    let named = |what| format!("a Deployment {what} {}", args.replicas);
    rate_of(
        &named("from 0 to"),
        args.replicas,
        up,
        ("creates alone", reference),
    )?;
    rate_of(
        &named("to 0 from"),
        args.replicas,
        down,
        ("creates alone", reference),
    )?;
    nodes.stop();
    windlass.kill().await
}

fn rate(
    what: &str,
    args: &Args,
    count: u32,
    took: Duration,
    reference: (&str, Duration),
) -> std::io::Result<()> {
    let figure = format!("{what}, {count} pods, {} nodes", args.nodes);
    rate_of(&figure, count, took, reference)
}

fn rate_of(
    figure: &str,
    count: u32,
    took: Duration,
    (name, reference): (&str, Duration),
) -> std::io::Result<()> {
    let per_second = |took: Duration| format!("{:.0}/s", f64::from(count) / took.as_secs_f64());
    let measured = format!("{} ({:.2} s)", per_second(took), took.as_secs_f64());
    table::row(
        figure,
        &measured,
        &format!("{name} {}", per_second(reference)),
        // Of rates, so that less than one is slower.
        table::ratio(reference, took),
    )
}

fn pod(namespace: &str, number: u32, scheduler: &str) -> anyhow::Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("load-{number:06}"), "namespace": namespace, "labels": {"app": "load"}},
        "spec": {
            "schedulerName": scheduler, "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": "registry.windlass.local/default/load:1",
                "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}},
            }],
        },
    }))?)
}

/// Creates the pods in a namespace of their own.
async fn created(
    client: &Client,
    namespace: &str,
    count: u32,
    scheduler: &str,
) -> anyhow::Result<Duration> {
    prepare(client, namespace).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let begun = Instant::now();
    let create = |number| {
        let pods = pods.clone();
        async move {
            let pod = pod(namespace, number, scheduler)?;
            pods.create(&PostParams::default(), &pod).await?;
            anyhow::Ok(())
        }
    };
    let creates = stream::iter((0..count).map(create));
    creates
        .buffer_unordered(CLIENTS)
        .try_for_each(async |()| Ok(()))
        .await?;
    Ok(begun.elapsed())
}

/// From the first create until every pod has a node.
async fn bound(client: &Client, namespace: &str, count: u32) -> anyhow::Result<Duration> {
    prepare(client, namespace).await?;
    let begun = Instant::now();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let wait = tokio::spawn(async move {
        let config = watcher::Config::default().fields("spec.nodeName!=");
        let seen = watcher(pods, config).default_backoff().applied_objects();
        let mut seen = std::pin::pin!(seen);
        let mut names = HashSet::new();
        while names.len() < count as usize {
            let Some(pod) = seen.next().await else { break };
            names.insert(pod?.name_any());
        }
        anyhow::Ok(Instant::now())
    });
    created(client, namespace, count, "default-scheduler").await?;
    let last = tokio::time::timeout(LIMIT, wait)
        .await
        .with_context(|| format!("not all of {count} pods were bound"))???;
    Ok(last - begun)
}

/// The namespace, with the account that pods need.
async fn prepare(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let params = PatchParams::apply("load");
    namespaces
        .patch(namespace, &params, &Patch::Apply(&object))
        .await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    until(accounts, "metadata.name=default", |there| there == 1).await
}

/// Waits until `enough` of so many objects.
async fn until<K>(api: Api<K>, fields: &str, enough: impl Fn(usize) -> bool) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let wait = async {
        let config = watcher::Config::default().fields(fields);
        let mut seen = std::pin::pin!(watcher(api, config).default_backoff());
        let mut names = HashSet::new();
        while let Some(event) = seen.try_next().await? {
            let is_settled = match event {
                watcher::Event::Init => {
                    names.clear();
                    false
                }
                watcher::Event::InitApply(object) => {
                    names.insert(object.name_any());
                    false
                }
                watcher::Event::InitDone => true,
                watcher::Event::Apply(object) => {
                    names.insert(object.name_any());
                    true
                }
                watcher::Event::Delete(object) => {
                    names.remove(&object.name_any());
                    true
                }
            };
            if is_settled && enough(names.len()) {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, wait).await.context("gave up")?
}

/// Deletes the pods of a namespace and waits until they are gone.
async fn remove(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = DeleteParams::default().grace_period(0);
    pods.delete_collection(&params, &ListParams::default())
        .await?;
    until(pods, "", |left| left == 0).await
}

/// How long a Deployment takes from nothing to all replicas available, and back until all are gone.
async fn scaled(client: &Client, replicas: u32) -> anyhow::Result<(Duration, Duration)> {
    prepare(client, "scaled").await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "scaled");
    let template = pod("scaled", 0, "default-scheduler")?;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "load"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "load"}},
            "template": {"metadata": {"labels": {"app": "load"}}, "spec": template.spec},
        },
    });
    let params = PatchParams::apply("load");
    deployments
        .patch("load", &params, &Patch::Apply(&deployment))
        .await?;
    let scale = async |to: u32| -> anyhow::Result<()> {
        let patch: Value = json!({"spec": {"replicas": to}});
        let params = PatchParams::default();
        deployments
            .patch("load", &params, &Patch::Merge(&patch))
            .await?;
        Ok(())
    };
    let begun = Instant::now();
    scale(replicas).await?;
    let wait = async {
        let config = watcher::Config::default().fields("metadata.name=load");
        let seen = watcher(deployments.clone(), config).default_backoff();
        let mut seen = std::pin::pin!(seen.applied_objects());
        while let Some(deployment) = seen.try_next().await? {
            let status = deployment.status.unwrap_or_default();
            if status
                .available_replicas
                .and_then(|count| u32::try_from(count).ok())
                == Some(replicas)
            {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LIMIT, wait)
        .await
        .context("not all replicas came up")??;
    let up = begun.elapsed();
    let begun = Instant::now();
    scale(0).await?;
    until(
        Api::<Pod>::namespaced(client.clone(), "scaled"),
        "",
        |left| left == 0,
    )
    .await?;
    Ok((up, begun.elapsed()))
}

/// Waits until what was begun has ended, such as events, which are written one after the other. Leases go on
/// meanwhile.
async fn settle(pid: u32) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < LIMIT {
        let before = cpu_time(pid)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if cpu_time(pid)?.saturating_sub(before) < Duration::from_millis(200) {
            return Ok(());
        }
    }
    anyhow::bail!("the server does not come to rest")
}

/// The share of a core that a process takes, over some time.
pub(crate) async fn idle(pid: u32, window: Duration) -> anyhow::Result<f64> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, begun) = (cpu_time(pid)?, Instant::now());
    tokio::time::sleep(window).await;
    let used = cpu_time(pid)?.saturating_sub(before);
    Ok(used.as_secs_f64() / begun.elapsed().as_secs_f64())
}

/// What a process has used of cores so far.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name of the program, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no program's name")?;
    let ticks = |at: usize| -> anyhow::Result<u64> {
        let field = fields.split_whitespace().nth(at).context("too short")?;
        Ok(field.parse()?)
    };
    Ok(TICK * u32::try_from(ticks(11)? + ticks(12)?)?)
}

async fn nodes(client: &Client, count: u16) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    let create = |number: u16| {
        let api = api.clone();
        async move {
            let name = format!("node-{number:04}");
            let now = windlass_api::time::format_seconds(Timestamp::now());
            let node: Node = serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {
                    "kubernetes.io/hostname": name,
                    "topology.kubernetes.io/zone": format!("zone-{}", number % 3),
                }},
                "status": {
                    "allocatable": {"cpu": "32", "memory": "128Gi", "pods": "500"},
                    "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                        "lastHeartbeatTime": now, "lastTransitionTime": now}],
                },
            }))?;
            api.create(&PostParams::default(), &node).await?;
            anyhow::Ok(())
        }
    };
    let creates = stream::iter((0..count).map(create));
    creates
        .buffer_unordered(CLIENTS)
        .try_for_each(async |()| Ok(()))
        .await
}

/// The nodes' side of the cluster.
struct Nodes {
    tasks: Vec<JoinHandle<()>>,
}

impl Nodes {
    fn pretend(client: &Client, count: u16) -> Self {
        let leases = tokio::spawn(renew(client.clone(), count));
        let pods = tokio::spawn(run_pods(client.clone()));
        Self {
            tasks: vec![leases, pods],
        }
    }

    fn stop(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Keeps the leases of all nodes, each in its turn.
async fn renew(client: Client, count: u16) {
    let api: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let params = PatchParams::apply("load").force();
    let mut turn = tokio::time::interval(RENEW / u32::from(count));
    for number in (0..count).cycle() {
        turn.tick().await;
        let name = format!("node-{number:04}");
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": 40,
                "renewTime": format!("{:.6}", Timestamp::now())},
        });
        if let Err(error) = api.patch(&name, &params, &Patch::Apply(&lease)).await {
            tracing::warn!(%error, name, "renew a lease");
        }
    }
}

/// Says of every pod on a node that it runs, and lets those go that are deleted.
async fn run_pods(client: Client) {
    let config = watcher::Config::default().fields("spec.nodeName!=");
    let seen = watcher(Api::<Pod>::all(client.clone()), config).default_backoff();
    let mut seen = std::pin::pin!(seen.applied_objects());
    let permits = Arc::new(Semaphore::new(CLIENTS));
    let mut writes = JoinSet::new();
    while let Some(pod) = seen.next().await {
        while writes.try_join_next().is_some() {}
        let Ok(pod) = pod else { continue };
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let client = client.clone();
        writes.spawn(async move {
            if let Err(error) = answer(client, &pod).await {
                tracing::debug!(%error, "a pod is gone");
            }
            drop(permit);
        });
    }
}

async fn answer(client: Client, pod: &Pod) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        let params = DeleteParams::default().grace_period(0);
        api.delete(&name, &params).await?;
    } else if pod
        .status
        .as_ref()
        .is_some_and(|status| status.pod_ip.is_none())
    {
        let now = windlass_api::time::format_seconds(Timestamp::now());
        let status = json!({"status": {
            "phase": "Running", "podIP": "10.128.0.1", "podIPs": [{"ip": "10.128.0.1"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": now}],
        }});
        let params = PatchParams::default();
        api.patch_status(&name, &params, &Patch::Strategic(&status))
            .await?;
    }
    Ok(())
}
