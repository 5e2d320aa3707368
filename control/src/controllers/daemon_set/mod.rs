//! DaemonSet: one pod on every node that the template fits.
//!
//! A pod is bound to its node by an affinity that names the node, so the scheduler places it. Per key: claim
//! pods, find the revision of the template (`history.rs`), carry out [`plan::plan`], write the status if it
//! changed. A changed node wakes every set.

mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    self as core, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm,
    PodTemplateSpec,
};
use kube::api::PostParams;
use tokio::time::Instant;
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::history::{HASH, Owner, live};
use super::runtime::informer::Change;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod_owners::{PodOwner, PodOwners, selector_of};
use super::runtime::worker::{Outcome, ReconcileError, unless_gone};
use plan::{plan, tolerations};

const NAME: &str = "daemon-set-controller";
const WORKERS: usize = 2;
/// Revisions kept when the set does not say.
const HISTORY: i32 = 10;

impl PodOwner for DaemonSet {
    fn selector(&self) -> Result<LabelSelector, ReconcileError> {
        selector_of(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let informers = &context.informers;
    informers.controller_revisions.synced().await;
    informers.nodes.synced().await;
    let owners = PodOwners::new(
        context.client.clone(),
        context.recorder.clone(),
        &informers.daemon_sets,
        &informers.pods,
        context.queue(),
    );
    let (sets, queue) = (
        Arc::clone(&informers.daemon_sets),
        Arc::clone(owners.queue()),
    );
    let _nodes = informers.nodes.subscribe(move |change| {
        if matters(change) {
            for set in sets.all() {
                queue.add(Key::of(&set.metadata));
            }
        }
    });
    let controller = Controller {
        context: &context,
        owners: Arc::clone(&owners),
        replaced: Mutex::default(),
    };
    let stop = context.stop.clone();
    owners
        .run(NAME, WORKERS, stop, |key| controller.reconcile(key))
        .await;
}

/// Whether the change of a node can matter to a set: heartbeats do not.
fn matters(change: Change<'_, Node>) -> bool {
    let (Some(old), Some(new)) = (change.old, change.new) else {
        return true;
    };
    let taints = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
    old.metadata.labels() != new.metadata.labels() || taints(old) != taints(new)
}

struct Controller<'c> {
    context: &'c Context,
    owners: Arc<PodOwners<DaemonSet>>,
    /// When pods that ended were last replaced, and how often, by set and node.
    replaced: Mutex<HashMap<(Key, String), (Instant, u32)>>,
}

/// How long a pod that ended is left before it is replaced the second time; doubles up to [`LAST`].
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(15 * 60);

impl Controller<'_> {
    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(set) = self.owners.get(&key) else {
            self.replaced().retain(|(set, _), _| *set != key);
            return Ok(None);
        };
        let settled = self.owners.settled(&key);
        let pods = self.owners.claim(&set, |_| true).await?;
        let default = PodTemplateSpec::default();
        let template = set.spec.as_ref().map_or(&default, |spec| &spec.template);
        let owner = Owner {
            owners: &self.owners,
            revisions: &self.context.informers.controller_revisions,
            object: &*set,
            template,
            label: HASH,
        };
        let known = set
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let history = owner.history(known).await?;
        let labels = history.current.metadata.labels();
        let hash = labels.get(HASH).map(String::as_str).unwrap_or_default();
        let nodes = self.context.informers.nodes.all();
        let mut plan = plan(&set, &nodes, &pods, hash, self.context.now());
        plan.status.collision_count = history.collisions;
        let mut wait = None;
        let changed = if settled.is_ok() {
            for pod in std::mem::take(&mut plan.ended) {
                match self.may_replace(&key, &pod.node) {
                    Ok(()) => self.say_that_it_ended(&set, &pod),
                    Err(left) => {
                        wait = wait.into_iter().chain([left]).min();
                        plan.delete
                            .retain(|other| other.metadata.uid() != pod.metadata.uid());
                    }
                }
            }
            let new: Vec<_> = plan
                .create
                .iter()
                .map(|node| pod(&set, template, hash, node))
                .collect();
            self.owners.change(&set, &new, &plan.delete).await
        } else {
            Ok(())
        };
        if set.status.as_ref() != Some(&plan.status) {
            let mut changed = DaemonSet::clone(&set);
            changed.status = Some(plan.status);
            let api = self.owners.api::<DaemonSet>(&key);
            let params = PostParams::default();
            unless_gone(api.replace_status(&key.name, &params, &changed).await)?;
        }
        changed.map_err(|failure| failure.error)?;
        let kept = live(pods.iter().map(|pod| &pod.metadata));
        let is_live = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
            let hash = revision.metadata.labels().get(HASH);
            hash.is_some_and(|hash| kept.contains(hash))
        };
        let limit = set
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        owner
            .truncate(&history, is_live, limit.unwrap_or(HISTORY))
            .await?;
        Ok(plan.wake.into_iter().chain(settled.err()).chain(wait).min())
    }

    fn replaced(&self) -> MutexGuard<'_, HashMap<(Key, String), (Instant, u32)>> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pod that ended on a node may be replaced now, which then counts.
    ///
    /// # Errors
    /// How long it has to wait.
    fn may_replace(&self, key: &Key, node: &str) -> Result<(), Duration> {
        let mut replaced = self.replaced();
        let now = Instant::now();
        let last = replaced
            .entry((key.clone(), node.to_owned()))
            .or_insert((now, 0));
        let wait = match last.1 {
            0 => Duration::ZERO,
            times => FIRST
                .saturating_mul(2_u32.saturating_pow(times - 1))
                .min(LAST),
        };
        let passed = now.duration_since(last.0);
        if passed < wait {
            return Err(wait - passed);
        }
        // One that ran for long starts anew.
        let times = if passed > LAST * 2 {
            1
        } else {
            last.1.saturating_add(1)
        };
        *last = (now, times);
        Ok(())
    }

    fn say_that_it_ended(&self, set: &DaemonSet, pod: &super::runtime::pod::Pod) {
        let (namespace, name) = (pod.metadata.namespace(), pod.metadata.name());
        let (state, reason) = match &*pod.phase {
            "Succeeded" => ("succeeded", "SucceededDaemonPod"),
            _ => ("failed", "FailedDaemonPod"),
        };
        let node = &pod.node;
        let text = format!(
            "Found {state} daemon pod {namespace}/{name} on node {node}, will try to kill it"
        );
        self.owners.warning(set, reason, text);
    }
}

/// The set's pod for a node.
fn pod(set: &DaemonSet, template: &PodTemplateSpec, hash: &str, node: &str) -> core::Pod {
    let mut pod = PodOwners::pod(set, Some(template));
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(HASH.into(), hash.into());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let term = NodeSelectorTerm {
        match_fields: Some(vec![NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        }]),
        match_expressions: None,
    };
    // What the template requires of nodes was asked when the node was chosen.
    let affinity = spec.affinity.get_or_insert_default();
    affinity.node_affinity = Some(NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector {
            node_selector_terms: vec![term],
        }),
        ..affinity.node_affinity.take().unwrap_or_default()
    });
    pod
}
