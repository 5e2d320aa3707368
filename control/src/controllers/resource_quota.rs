//! ResourceQuota: what a new or changed quota is measured by, counted once.
//!
//! From then on the API itself keeps `status.used`, in the commits that write what is counted
//! (`registry/quota.rs`). The status is written only over the quota that was read before counting: each of
//! those commits changes the quota, so a count that has become wrong meanwhile is refused and made again.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, PostParams};
use serde_json::{Value, json};

use super::Context;
use super::runtime::key::Key;
use super::runtime::resources::discover;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};
use crate::quota::{Counted, amounts, counted_resources, total, written};

const NAME: &str = "resourcequota-controller";
const WORKERS: usize = 4;
/// Objects read at once.
const PAGE: u32 = 500;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let quotas = &context.informers.resource_quotas;
    quotas.synced().await;
    let changed = Arc::clone(&queue);
    let _quotas = quotas.subscribe(move |change| {
        if let Some(quota) = change.new {
            changed.add(Key::of(&quota.metadata));
        }
    });
    let stop = context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| count(&context, key)).await;
}

async fn count(context: &Context, key: Key) -> Outcome {
    let Some(quota) = context.informers.resource_quotas.get(&key) else {
        return Ok(None);
    };
    let object = serde_json::to_value(&*quota)
        .map_err(|error| ReconcileError::Object(format!("quota: {error}")))?;
    if is_counted(&object) {
        return Ok(None);
    }
    let objects = counted_objects(context, &key, &object).await?;
    let counted = objects.iter().map(|(api, object)| Counted {
        group: &api.group,
        resource: &api.plural,
        object,
    });
    let used = written(&total(&object, counted));
    let hard = object.pointer("/spec/hard").cloned().unwrap_or_default();
    let status = serde_json::from_value(json!({ "hard": hard, "used": used }))
        .map_err(|error| ReconcileError::Object(format!("status: {error}")))?;
    let mut changed = ResourceQuota::clone(&quota);
    changed.status = Some(status);
    let api: Api<ResourceQuota> = Api::namespaced(context.client.clone(), &key.namespace);
    let params = PostParams::default();
    let answer = api.replace_status(&key.name, &params, &changed).await;
    unless_gone(answer)?;
    Ok(None)
}

/// Whether the status is about what the spec says, and says how much is used of all of it.
fn is_counted(quota: &Value) -> bool {
    let (wanted, known) = (amounts(quota, "/spec/hard"), amounts(quota, "/status/hard"));
    let used = amounts(quota, "/status/used");
    wanted == known && used.keys().eq(wanted.keys())
}

/// Every object of the namespace that something of the quota's may count.
async fn counted_objects(
    context: &Context,
    key: &Key,
    quota: &Value,
) -> Result<Vec<(ApiResource, Value)>, ReconcileError> {
    let hard = amounts(quota, "/spec/hard");
    let wanted: BTreeSet<_> = hard
        .keys()
        .filter_map(|hard| counted_resources(hard))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let served = discover(&context.client).await?;
    let mut objects = Vec::new();
    for (group, plural) in wanted {
        let resource = served
            .iter()
            .find(|resource| resource.api.group == group && resource.api.plural == plural);
        // What is not served has no objects.
        let Some(resource) = resource.filter(|resource| resource.namespaced) else {
            continue;
        };
        let api = Api::namespaced_with(context.client.clone(), &key.namespace, &resource.api);
        for object in list(&api).await? {
            let object = serde_json::to_value(object)
                .map_err(|error| ReconcileError::Object(format!("{plural}: {error}")))?;
            objects.push((resource.api.clone(), object));
        }
    }
    Ok(objects)
}

/// All objects, page by page on one snapshot.
async fn list(api: &Api<DynamicObject>) -> Result<Vec<DynamicObject>, kube::Error> {
    let mut params = ListParams::default().limit(PAGE);
    let mut objects = Vec::new();
    loop {
        let page = api.list(&params).await?;
        objects.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(objects),
        }
    }
}
