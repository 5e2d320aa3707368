//! Storage protection: a claim that is being deleted stays as long as a pod on a node uses it, and a volume as long
//! as it is bound to a claim.
//!
//! Admission gives both a finalizer (`admission/storage_in_use.rs`); here it is taken away. Before that the API is
//! asked, as a cache may not have the pod yet that was bound just before the claim was deleted: a node does not start
//! pods whose claim is being deleted.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{self as core, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Context;
use super::runtime::informer::{Cached, Index};
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod::Pod;
use super::runtime::worker::{Outcome, unless_gone, work};
use crate::admission::{CLAIM, VOLUME};

const WORKERS: usize = 2;

/// Starts the controller of claims.
pub(super) fn start_claims(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let queue = context.queue();
        let informers = &context.informers;
        informers.claims.synced().await;
        informers.pods.synced().await;
        let changed = Arc::clone(&queue);
        let _claims = informers.claims.subscribe(move |change| {
            if let Some(claim) = change.new.filter(|claim| is_held(&claim.metadata, CLAIM.1)) {
                changed.add(Key::of(&claim.metadata));
            }
        });
        let released = Arc::clone(&queue);
        let _pods = informers.pods.subscribe(move |change| {
            let Some(gone) = change.old.filter(|_| change.new.is_none()) else {
                return;
            };
            for claim in &gone.claims {
                released.add(Key::new(gone.metadata.namespace(), claim));
            }
        });
        let stop = context.stop.clone();
        work("pvc-protection-controller", queue, WORKERS, stop, |key| {
            release_claim(&context, key)
        })
        .await;
    })
}

async fn release_claim(context: &Context, key: Key) -> Outcome {
    let found = context.informers.claims.get(&key);
    let Some(claim) = found.filter(|claim| is_held(&claim.metadata, CLAIM.1)) else {
        return Ok(None);
    };
    let of_namespace = Index::Namespace(key.namespace.to_string());
    let uses =
        |pod: &Pod| !pod.node.is_empty() && pod.claims.iter().any(|claim| **claim == *key.name);
    let cached = context.informers.pods.by(&of_namespace);
    if cached.iter().any(|pod| uses(pod)) {
        return Ok(None);
    }
    let pods: Api<core::Pod> = Api::namespaced(context.client.clone(), &key.namespace);
    let pods = pods.list(&ListParams::default()).await?;
    if pods.into_iter().map(Pod::project).any(|pod| uses(&pod)) {
        return Ok(None);
    }
    let api: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), &key.namespace);
    release(&api, &claim.metadata, CLAIM.1).await
}

/// Starts the controller of volumes.
pub(super) fn start_volumes(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let queue = context.queue();
        let volumes = &context.informers.volumes;
        volumes.synced().await;
        let changed = Arc::clone(&queue);
        let _volumes = volumes.subscribe(move |change| {
            if let Some(volume) = change.new.filter(|volume| is_free(volume)) {
                changed.add(Key::of(&volume.metadata));
            }
        });
        let stop = context.stop.clone();
        work("pv-protection-controller", queue, WORKERS, stop, |key| {
            release_volume(&context, key)
        })
        .await;
    })
}

async fn release_volume(context: &Context, key: Key) -> Outcome {
    let found = context.informers.volumes.get(&key);
    let Some(volume) = found.filter(|volume| is_free(volume)) else {
        return Ok(None);
    };
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    release(&api, &volume.metadata, VOLUME.1).await
}

fn is_free(volume: &PersistentVolume) -> bool {
    let phase = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    is_held(&volume.metadata, VOLUME.1) && phase != Some("Bound")
}

/// Whether only the finalizer, or it among others, keeps an object that is being deleted.
fn is_held(metadata: &ObjectMeta, finalizer: &str) -> bool {
    let mut finalizers = metadata.finalizers.iter().flatten();
    metadata.is_terminating() && finalizers.any(|known| known == finalizer)
}

/// Takes the finalizer away, at the version that was looked at.
async fn release<K>(api: &Api<K>, metadata: &ObjectMeta, finalizer: &str) -> Outcome
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let kept = metadata.finalizers.iter().flatten();
    let kept: Vec<_> = kept.filter(|known| *known != finalizer).collect();
    let patch = json!({"metadata": {
        "uid": metadata.uid(), "resourceVersion": metadata.version(), "finalizers": kept}});
    let params = PatchParams::default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let written = api.patch(name, &params, &Patch::Merge(&patch)).await;
    unless_gone(written)?;
    Ok(None)
}
