//! Pods of nodes that no longer exist: nobody will ever stop them, so they are removed at once.
//!
//! The cache of nodes may be behind a pod that was just bound, so the API is asked for the node before
//! anything is deleted.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::Context;
use super::runtime::informer::Index;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::worker::{Outcome, unless_gone, work};

const WORKERS: usize = 8;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = Arc::clone(&context.informers);
    informers.nodes.synced().await;
    informers.pods.synced().await;
    let (of_nodes, of_pods) = (Arc::clone(&queue), Arc::clone(&queue));
    let pods = Arc::clone(&informers.pods);
    let _nodes = informers.nodes.subscribe(move |change| {
        if let (Some(node), None) = (change.old, change.new) {
            let on_node = pods.by(&Index::Node(node.metadata.name().to_owned()));
            on_node
                .iter()
                .for_each(|pod| of_nodes.add(Key::of(&pod.metadata)));
        }
    });
    let nodes = Arc::clone(&informers.nodes);
    let _pods = informers.pods.subscribe(move |change| {
        let bound = change.new.filter(|pod| !pod.node.is_empty());
        if let Some(pod) = bound.filter(|pod| nodes.get(&Key::cluster(&pod.node)).is_none()) {
            of_pods.add(Key::of(&pod.metadata));
        }
    });
    let stop = context.stop.clone();
    work("pod-garbage-collector", queue, WORKERS, stop, |key| {
        collect(&context, key)
    })
    .await;
}

async fn collect(context: &Context, key: Key) -> Outcome {
    let informers = &context.informers;
    let Some(pod) = informers.pods.get(&key).filter(|pod| !pod.node.is_empty()) else {
        return Ok(None);
    };
    if informers.nodes.get(&Key::cluster(&pod.node)).is_some() {
        return Ok(None);
    }
    let nodes: Api<Node> = Api::all(context.client.clone());
    if nodes.get_opt(&pod.node).await?.is_some() {
        return Ok(None);
    }
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
    unless_gone(api.delete(&key.name, &params).await)?;
    tracing::info!(pod = %key, node = pod.node, "removed the pod of a node that is gone");
    Ok(None)
}
