//! Node TTL: how long agents may believe what they remember of Secrets and ConfigMaps.
//!
//! The larger the cluster the longer, so that all agents together do not ask too much: the annotation
//! `node.alpha.kubernetes.io/ttl` of every node holds it in seconds. The sizes at which it changes overlap,
//! so that a cluster on an edge does not rewrite its nodes for ever.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Context;
use super::runtime::informer::Change;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{Outcome, unless_gone, work};

const TTL: &str = "node.alpha.kubernetes.io/ttl";
const WORKERS: usize = 4;

/// Least and most nodes of a step, and the seconds it stands for.
const STEPS: [(usize, usize, u32); 6] = [
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, 10_000, 300),
    (9000, usize::MAX, 600),
];

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let controller = Arc::new(Controller {
        queue: Arc::clone(&queue),
        size: Mutex::default(),
        context,
    });
    let nodes = &controller.context.informers.nodes;
    nodes.synced().await;
    let changed = Arc::clone(&controller);
    let _nodes = nodes.subscribe(move |change| changed.node_changed(change));
    let stop = controller.context.stop.clone();
    work("ttl-controller", queue, WORKERS, stop, |key| {
        controller.reconcile(key)
    })
    .await;
}

/// The number of nodes and the step that holds for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Size {
    nodes: usize,
    step: usize,
}

impl Size {
    /// Counts a node more or less; whether that led to another step.
    fn change(&mut self, more: bool) -> bool {
        self.nodes = if more {
            self.nodes + 1
        } else {
            self.nodes.saturating_sub(1)
        };
        let before = self.step;
        while let Some((least, most, _)) = STEPS.get(self.step) {
            if self.nodes > *most {
                self.step += 1;
            } else if self.nodes < *least {
                self.step -= 1;
            } else {
                break;
            }
        }
        self.step != before
    }

    fn seconds(self) -> u32 {
        STEPS.get(self.step).map_or(0, |(_, _, seconds)| *seconds)
    }
}

struct Controller {
    context: Context,
    queue: Arc<WorkQueue<Key>>,
    size: Mutex<Size>,
}

impl Controller {
    fn size(&self) -> MutexGuard<'_, Size> {
        self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node_changed(&self, change: Change<'_, Node>) {
        let has_stepped = match (change.old, change.new) {
            (None, Some(_)) => self.size().change(true),
            (Some(_), None) => self.size().change(false),
            _ => false,
        };
        if let Some(node) = change.new {
            self.queue.add(Key::of(&node.metadata));
        }
        if has_stepped {
            for node in self.context.informers.nodes.all() {
                self.queue.add(Key::of(&node.metadata));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(node) = self.context.informers.nodes.get(&key) else {
            return Ok(None);
        };
        let seconds = self.size().seconds().to_string();
        if node.metadata.annotations().get(TTL) == Some(&seconds) {
            return Ok(None);
        }
        let api: Api<Node> = Api::all(self.context.client.clone());
        let annotations = json!({ TTL: seconds });
        let patch = json!({"metadata": {"uid": node.metadata.uid(), "annotations": annotations}});
        let params = PatchParams::default();
        let written = api.patch(&key.name, &params, &Patch::Merge(&patch)).await;
        unless_gone(written)?;
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_change_later_on_the_way_back() {
        let mut size = Size::default();
        for _ in 0..100 {
            assert!(!size.change(true));
        }
        assert!(size.change(true));
        assert_eq!(size.seconds(), 15);
        for _ in 0..11 {
            assert!(!size.change(false), "{size:?}");
        }
        assert!(size.change(false));
        assert_eq!((size.nodes, size.seconds()), (89, 0));
    }
}
