//! Waiting until applied workloads are ready, and saying what holds them up when they are not.

use std::time::Duration;

use anyhow::bail;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Service};
use kube::Client;
use kube::api::{Api, ListParams};
use kube::runtime::conditions::is_pod_running;
use kube::runtime::wait::{Condition, await_condition};

use crate::apply::Applied;

/// Waits for every workload among `applied`, within `limit` together.
pub(crate) async fn wait(
    client: &Client,
    applied: &[Applied],
    limit: Duration,
) -> anyhow::Result<()> {
    let all = async {
        for one in applied {
            workload(client, one).await?;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(limit, all).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let why = complaints(client).await?;
            bail!("not ready after {limit:?}\n{}", why.join("\n"))
        }
    }
}

async fn workload(client: &Client, applied: &Applied) -> anyhow::Result<()> {
    let metadata = &applied.object.metadata;
    let name = metadata.name.as_deref().unwrap_or_default();
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let kind = applied
        .object
        .types
        .as_ref()
        .map(|types| types.kind.as_str())
        .unwrap_or_default();
    match kind {
        "Deployment" => {
            let api = Api::namespaced(client.clone(), namespace);
            await_condition(api, name, IsRolledOut).await?;
        }
        "ReplicaSet" => {
            let api = Api::namespaced(client.clone(), namespace);
            await_condition(api, name, IsFull).await?;
        }
        "Pod" => {
            let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
            await_condition(api, name, is_pod_running().or(is_done)).await?;
        }
        _ => {}
    }
    Ok(())
}

/// A Deployment whose newest template is what runs, in full.
struct IsRolledOut;

impl Condition<Deployment> for IsRolledOut {
    fn matches_object(&self, object: Option<&Deployment>) -> bool {
        let Some((Some(spec), Some(status), generation)) =
            object.map(|d| (d.spec.as_ref(), d.status.as_ref(), d.metadata.generation))
        else {
            return false;
        };
        let wanted = spec.replicas.unwrap_or(1);
        status.observed_generation >= generation
            && status.updated_replicas.unwrap_or(0) >= wanted
            && status.available_replicas.unwrap_or(0) >= wanted
            && status.replicas.unwrap_or(0) <= wanted
    }
}

/// A ReplicaSet all of whose pods are ready.
struct IsFull;

impl Condition<ReplicaSet> for IsFull {
    fn matches_object(&self, object: Option<&ReplicaSet>) -> bool {
        let wanted = object
            .and_then(|set| set.spec.as_ref()?.replicas)
            .unwrap_or(1);
        let ready = object
            .and_then(|set| set.status.as_ref()?.ready_replicas)
            .unwrap_or(0);
        object.is_some() && ready >= wanted
    }
}

fn is_done(pod: Option<&Pod>) -> bool {
    let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// A line for each pod that is not ready: what it waits for.
async fn complaints(client: &Client) -> anyhow::Result<Vec<String>> {
    let pods: Api<Pod> = Api::all(client.clone());
    let pods = pods.list(&ListParams::default()).await?;
    Ok(pods.items.iter().filter_map(complaint).collect())
}

fn complaint(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let name = format!(
        "pod {}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        pod.metadata.name.as_deref().unwrap_or_default()
    );
    let mut containers = status.container_statuses.iter().flatten();
    if let Some(container) = containers.find(|container| !container.ready) {
        return Some(format!("{name}: {}: {}", container.name, state(container)));
    }
    let mut conditions = status.conditions.iter().flatten();
    let unscheduled = conditions.find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    Some(format!(
        "{name}: {}",
        unscheduled.message.as_deref().unwrap_or("not scheduled")
    ))
}

/// Why a container is not ready, in the words of its status.
fn state(container: &ContainerStatus) -> String {
    let state = container.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    let (reason, message) = match (waiting, ended) {
        (Some(waiting), _) => (waiting.reason.as_deref(), waiting.message.as_deref()),
        (_, Some(ended)) => (ended.reason.as_deref(), ended.message.as_deref()),
        _ => (None, None),
    };
    let parts = [reason.or(Some("not ready")), message];
    parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
}

/// URLs of the applied Services that have ports on the node at `host`.
pub(crate) async fn urls(
    client: &Client,
    applied: &[Applied],
    host: &str,
) -> anyhow::Result<Vec<String>> {
    let mut urls = Vec::new();
    for one in applied
        .iter()
        .filter(|one| one.name.starts_with("service/"))
    {
        let metadata = &one.object.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or("default");
        let api: Api<Service> = Api::namespaced(client.clone(), namespace);
        let name = metadata.name.as_deref().unwrap_or_default();
        let spec = api.get(name).await?.spec.unwrap_or_default();
        let ports = spec.ports.into_iter().flatten();
        let tcp = ports.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == "TCP");
        urls.extend(
            tcp.filter_map(|port| port.node_port)
                .map(|port| format!("http://{host}:{port}")),
        );
    }
    Ok(urls)
}
