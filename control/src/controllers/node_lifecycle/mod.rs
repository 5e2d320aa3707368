//! Node lifecycle: nodes that fall silent are marked, and pods leave nodes that are tainted.
//!
//! - A node's sign of life is a renewed lease, or a new heartbeat in its status; when it last came is
//!   kept by this process's own clock, because clocks of nodes differ; it stands still while the machine
//!   sleeps, so that waking up looks like no silence. Renewals wake nobody: each node is looked at when
//!   its silence would be too long.
//! - How fast nodes are given up is decided by zone (`zones.rs`): the taint by which pods leave comes when it
//!   is the node's turn, the one that keeps new pods away at once.
//! - Taints follow the node's conditions. Pods of a node that is not ready are marked not ready, so that
//!   no Service leads to them; whether they leave is decided by `eviction.rs`.

mod eviction;
mod plan;
mod zones;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::Context;
use super::runtime::informer::{Change, Index};
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::recorder::reference;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};

pub(super) use eviction::start as start_eviction;
use plan::Plan;
use zones::{Kept, Zones};

const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let controller = Arc::new(Controller {
        queue: Arc::clone(&queue),
        seen: Mutex::default(),
        zones: Mutex::default(),
        lost: Mutex::default(),
        context,
    });
    let informers = &controller.context.informers;
    informers.nodes.synced().await;
    informers.node_leases.synced().await;
    informers.pods.synced().await;
    let (of_nodes, of_leases) = (Arc::clone(&controller), Arc::clone(&controller));
    let _nodes = informers
        .nodes
        .subscribe(move |change| of_nodes.node_changed(change));
    let _leases = informers
        .node_leases
        .subscribe(move |change| of_leases.lease_changed(change));
    let stop = controller.context.stop.clone();
    work("node-lifecycle-controller", queue, WORKERS, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

struct Controller {
    context: Context,
    queue: Arc<WorkQueue<Key>>,
    /// When each node last gave a sign of life.
    seen: Mutex<HashMap<String, Instant>>,
    zones: Mutex<Zones>,
    /// The nodes that say, or of which is said, that they are not ready.
    lost: Mutex<HashSet<Key>>,
}

impl Controller {
    fn seen(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_changed(&self, change: Change<'_, Node>) {
        let is_ready = |node: &Node| plan::ready(node) == "True";
        let Some(node) = change.new else {
            if let Some(node) = change.old {
                self.seen().remove(node.metadata.name());
                self.lost().remove(&Key::of(&node.metadata));
            }
            return;
        };
        if change
            .old
            .is_none_or(|old| heartbeat(old) != heartbeat(node))
        {
            self.seen()
                .insert(node.metadata.name().to_owned(), Instant::now());
        }
        let key = Key::of(&node.metadata);
        self.queue.add(key.clone());
        if change.old.is_none_or(|old| is_ready(old) != is_ready(node)) {
            let mut lost = self.lost();
            if is_ready(node) {
                lost.remove(&key);
            } else {
                lost.insert(key);
            }
            // Those that were kept with the others, or are no more.
            lost.iter().for_each(|other| self.queue.add(other.clone()));
        }
    }

    fn lease_changed(&self, change: Change<'_, Lease>) {
        let renewed =
            |lease: &Arc<Lease>| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
        let Some(lease) = change.new else { return };
        if change.old.is_none_or(|old| renewed(old) != renewed(lease)) {
            self.seen()
                .insert(lease.metadata.name().to_owned(), Instant::now());
        }
    }

    /// The plan for a node, as far as its zone allows.
    fn plan(&self, node: &Node, left: Duration, now: Timestamp) -> Plan {
        if !left.is_zero() && plan::ready(node) == "True" {
            return plan::plan(node, left, true, now);
        }
        let nodes = self.context.informers.nodes.all();
        let all = || nodes.iter().map(|node| &**node);
        // Looked at before its conditions are written, this node may still count as ready.
        let others = all().filter(|other| other.metadata.uid() != node.metadata.uid());
        if zones::is_cut_off(others) {
            return plan::plan(node, left, false, now);
        }
        let plan = plan::plan(node, left, true, now);
        if !plan.gives_up {
            return plan;
        }
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        match zones.give_up(node, all(), Instant::now()) {
            Ok(()) => plan,
            Err(kept) => {
                let mut plan = plan::plan(node, left, false, now);
                if let Kept::For(turn) = kept {
                    plan.wake = Some(turn);
                }
                plan
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(node) = self.context.informers.nodes.get(&key) else {
            return Ok(None);
        };
        let now = self.context.now();
        let seen = self.seen().get(&*key.name).copied();
        let silence = seen.map_or(Duration::ZERO, |seen| seen.elapsed());
        let left = self.context.config.node_grace.saturating_sub(silence);
        let plan = self.plan(&node, left, now);
        let mut node = Node::clone(&node);
        let api: Api<Node> = Api::all(self.context.client.clone());
        if let Some(conditions) = plan.conditions {
            node.status.get_or_insert_default().conditions = Some(conditions);
            // The cached node has no images; a patch leaves the stored ones alone.
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.version()},
                "status": {"conditions": node.status.as_ref().and_then(|s| s.conditions.as_ref())},
            });
            let patch = Patch::Strategic(&patch);
            let written = api
                .patch_status(&key.name, &PatchParams::default(), &patch)
                .await?;
            node.metadata = written.metadata;
            let about = reference("v1", "Node", &node.metadata);
            let text = format!("Node {} status is now: NodeNotReady", key.name);
            self.context.recorder.normal(about, "NodeNotReady", text);
        }
        if let Some(taints) = plan.taints {
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.version()},
                "spec": {"taints": taints},
            });
            api.patch(&key.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
        }
        if plan::ready(&node) != "True" {
            self.mark_pods(&key.name).await?;
        }
        Ok(plan.wake)
    }

    /// Nobody vouches for the pods of a node that is not ready.
    async fn mark_pods(&self, node: &str) -> Result<(), ReconcileError> {
        for pod in self
            .context
            .informers
            .pods
            .by(&Index::Node(node.to_owned()))
        {
            if !pod.ready {
                continue;
            }
            let now = windlass_api::time::format_seconds(self.context.now());
            let patch = json!({
                "metadata": {"uid": pod.metadata.uid()},
                "status": {"conditions": [
                    {"type": "Ready", "status": "False", "lastTransitionTime": now}]},
            });
            let namespace = pod.metadata.namespace();
            let api: Api<Pod> = Api::namespaced(self.context.client.clone(), namespace);
            let patch = Patch::Strategic(&patch);
            let params = PatchParams::default();
            unless_gone(api.patch_status(pod.metadata.name(), &params, &patch).await)?;
            let about = reference("v1", "Pod", &pod.metadata);
            let text = "Node is not ready".to_owned();
            self.context.recorder.warning(about, "NodeNotReady", text);
        }
        Ok(())
    }
}

/// What changes when the node posts its status.
fn heartbeat(node: &Node) -> Option<Timestamp> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?;
    ready.last_heartbeat_time.as_ref().map(|time| time.0)
}
