//! Taint eviction: pods leave a node with a NoExecute taint that they do not tolerate (any longer).
//!
//! A pod is looked at when it is bound and when the taints of its node change, and once more when its
//! toleration ends; a taint that is gone by then leaves nothing to do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, Node, Taint};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::plan::{Stay, stay};
use crate::controllers::Context;
use crate::controllers::runtime::clock;
use crate::controllers::runtime::informer::{Change, Index};
use crate::controllers::runtime::key::Key;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;
use crate::controllers::runtime::recorder::reference;
use crate::controllers::runtime::work_queue::WorkQueue;
use crate::controllers::runtime::worker::{Outcome, unless_gone, work};
use crate::taints::NO_EXECUTE;

const WORKERS: usize = 8;

/// Starts the controller.
pub(in crate::controllers) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let controller = Arc::new(Controller {
        queue: Arc::clone(&queue),
        first_seen: Mutex::default(),
        context,
    });
    let informers = &controller.context.informers;
    informers.nodes.synced().await;
    informers.pods.synced().await;
    let (of_nodes, of_pods) = (Arc::clone(&controller), Arc::clone(&controller));
    let _nodes = informers
        .nodes
        .subscribe(move |change| of_nodes.node_changed(change));
    let _pods = informers
        .pods
        .subscribe(move |change| of_pods.pod_changed(change));
    let stop = controller.context.stop.clone();
    work("taint-eviction-controller", queue, WORKERS, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

struct Controller {
    context: Context,
    queue: Arc<WorkQueue<Key>>,
    /// Since when taints are there that do not say so themselves, by node.
    first_seen: Mutex<HashMap<String, Vec<(Taint, Timestamp)>>>,
}

impl Controller {
    fn first_seen(&self) -> MutexGuard<'_, HashMap<String, Vec<(Taint, Timestamp)>>> {
        self.first_seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn node_changed(&self, change: Change<'_, Node>) {
        let before: Vec<&Taint> = change.old.map(|node| evicting(node)).unwrap_or_default();
        let after: Vec<&Taint> = change.new.map(|node| evicting(node)).unwrap_or_default();
        let Some(node) = change.either().filter(|_| before != after) else {
            return;
        };
        let name = node.metadata.name();
        {
            let mut all = self.first_seen();
            let known = all.remove(name).unwrap_or_default();
            let now = self.context.now();
            let since = |taint: &Taint| {
                known
                    .iter()
                    .find(|(old, _)| old == taint)
                    .map_or(now, |(_, since)| *since)
            };
            let seen: Vec<_> = after
                .iter()
                .map(|taint| ((*taint).clone(), since(taint)))
                .collect();
            if !seen.is_empty() {
                all.insert(name.to_owned(), seen);
            }
        }
        for pod in self
            .context
            .informers
            .pods
            .by(&Index::Node(name.to_owned()))
        {
            self.queue.add(Key::of(&pod.metadata));
        }
    }

    fn pod_changed(&self, change: Change<'_, Pod>) {
        let Some(pod) = change.new.filter(|pod| !pod.node.is_empty()) else {
            return;
        };
        let seen = |pod: &Pod| (pod.node.clone(), pod.tolerations.clone());
        if change.old.is_none_or(|old| seen(old) != seen(pod)) {
            self.queue.add(Key::of(&pod.metadata));
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let informers = &self.context.informers;
        let Some(pod) = informers.pods.get(&key).filter(|pod| pod.is_active()) else {
            return Ok(None);
        };
        let Some(node) = informers.nodes.get(&Key::cluster(&pod.node)) else {
            return Ok(None);
        };
        let now = self.context.now();
        let taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default();
        let since = |taint: &Taint| self.since(&pod.node, taint).unwrap_or(now);
        match stay(taints, &pod.tolerations, since) {
            Stay::Stays => Ok(None),
            Stay::Until(end) if end > now => Ok(Some(clock::until(end, now))),
            Stay::Until(_) => self.evict(&key, &pod).await,
        }
    }

    fn since(&self, node: &str, taint: &Taint) -> Option<Timestamp> {
        let all = self.first_seen();
        let seen = all.get(node)?.iter().find(|(known, _)| known == taint);
        seen.map(|(_, since)| *since)
    }

    async fn evict(&self, key: &Key, pod: &Pod) -> Outcome {
        let about = reference("v1", "Pod", &pod.metadata);
        let text = format!("Marking for deletion Pod {key}");
        self.context
            .recorder
            .normal(about, "TaintManagerEviction", text);
        let api: Api<core::Pod> = Api::namespaced(self.context.client.clone(), &key.namespace);
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
        unless_gone(api.delete(&key.name, &params).await)?;
        Ok(None)
    }
}

/// The node's taints that make pods leave.
fn evicting(node: &Node) -> Vec<&Taint> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    taints
        .iter()
        .filter(|taint| taint.effect == NO_EXECUTE)
        .collect()
}
