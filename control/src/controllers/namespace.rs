//! Namespace: one that is being deleted is emptied, then let go.
//!
//! Everything in it is deleted, kind by kind as discovery lists them; while something remains (pods that
//! stop gracefully, objects with finalizers) the namespace says so in its conditions and is looked at
//! again; once it is empty its finalizer is removed through `finalize`, and the API removes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};

use super::Context;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::resources::{Resource, discover};
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};

const WORKERS: usize = 4;
const FINALIZER: &str = "kubernetes";
/// When a namespace that is not empty is looked at again; the end of a pod wakes it sooner.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = &context.informers;
    informers.namespaces.synced().await;
    let (of_namespaces, of_pods) = (Arc::clone(&queue), Arc::clone(&queue));
    let _namespaces = informers.namespaces.subscribe(move |change| {
        if let Some(namespace) = change.new.filter(|namespace| is_ending(namespace)) {
            of_namespaces.add(Key::of(&namespace.metadata));
        }
    });
    let namespaces = Arc::clone(&informers.namespaces);
    let _pods = informers.pods.subscribe(move |change| {
        if let (Some(pod), None) = (change.old, change.new) {
            let key = Key::cluster(pod.metadata.namespace());
            if namespaces
                .get(&key)
                .is_some_and(|namespace| is_ending(&namespace))
            {
                of_pods.add(key);
            }
        }
    });
    let stop = context.stop.clone();
    work("namespace-controller", queue, WORKERS, stop, |key| {
        reconcile(&context, key)
    })
    .await;
}

fn is_ending(namespace: &Namespace) -> bool {
    namespace.metadata.is_terminating() && finalizers(namespace).any(|known| known == FINALIZER)
}

fn finalizers(namespace: &Namespace) -> impl Iterator<Item = &String> {
    let spec = namespace.spec.as_ref();
    spec.and_then(|spec| spec.finalizers.as_ref())
        .into_iter()
        .flatten()
}

async fn reconcile(context: &Context, key: Key) -> Outcome {
    let found = context.informers.namespaces.get(&key);
    let Some(namespace) = found.filter(|namespace| is_ending(namespace)) else {
        return Ok(None);
    };
    let resources = discover(&context.client).await?;
    let remains = empty_all(context, &resources, &key.name).await?;
    let api: Api<Namespace> = Api::all(context.client.clone());
    if !remains.kinds.is_empty() {
        if let Some(changed) = with_conditions(&namespace, &remains, Timestamp::now()) {
            unless_gone(
                api.replace_status(&key.name, &PostParams::default(), &changed)
                    .await,
            )?;
        }
        return Ok(Some(LOOK_AGAIN));
    }
    let mut finished = Namespace::clone(&namespace);
    let kept = finalizers(&namespace)
        .filter(|known| *known != FINALIZER)
        .cloned();
    finished.spec.get_or_insert_default().finalizers = Some(kept.collect());
    let params = PostParams::default();
    unless_gone(
        api.replace_subresource("finalize", &key.name, &params, &finished)
            .await,
    )?;
    Ok(None)
}

/// Deletes everything there is; answers what is left. Pods go first, with nothing they may need as they
/// end taken from under them.
async fn empty_all(
    context: &Context,
    resources: &[Resource],
    namespace: &str,
) -> Result<Remains, ReconcileError> {
    let is_pod =
        |resource: &&Resource| resource.api.group.is_empty() && resource.api.plural == "pods";
    let namespaced = || resources.iter().filter(|resource| resource.namespaced);
    let mut remains = Remains::default();
    for resource in namespaced().filter(is_pod) {
        let left = empty(context, resource, namespace).await?;
        remains.add(resource, &left);
    }
    if !remains.kinds.is_empty() {
        return Ok(remains);
    }
    for resource in namespaced().filter(|resource| !is_pod(resource)) {
        let left = empty(context, resource, namespace).await?;
        remains.add(resource, &left);
    }
    Ok(remains)
}

/// Deletes everything of a kind; answers what is still there.
async fn empty(
    context: &Context,
    resource: &Resource,
    namespace: &str,
) -> Result<Vec<ObjectMeta>, ReconcileError> {
    let api = resource.metadata(&context.client, namespace);
    let before = api.list(&ListParams::default()).await?.items;
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let params = DeleteParams::background();
    for object in before
        .iter()
        .filter(|object| !object.metadata.is_terminating())
    {
        unless_gone(api.delete(object.metadata.name(), &params).await)?;
    }
    let after = api.list(&ListParams::default()).await?.items;
    Ok(after.into_iter().map(|object| object.metadata).collect())
}

/// What is left in a namespace.
#[derive(Debug, Default)]
struct Remains {
    /// Objects by resource.
    kinds: BTreeMap<String, usize>,
    finalizers: BTreeMap<String, usize>,
}

impl Remains {
    fn add(&mut self, resource: &Resource, left: &[ObjectMeta]) {
        if left.is_empty() {
            return;
        }
        let name = match &*resource.api.group {
            "" => resource.api.plural.clone(),
            group => format!("{}.{group}", resource.api.plural),
        };
        self.kinds.insert(name, left.len());
        for finalizer in left
            .iter()
            .flat_map(|object| object.finalizers.iter().flatten())
        {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }

    /// Type, status, reason and message of the conditions.
    fn conditions(&self) -> [(&'static str, &'static str, &'static str, String); 2] {
        let join = |counts: &BTreeMap<String, usize>, link: &str| {
            let parts = counts
                .iter()
                .map(|(name, n)| format!("{name} {link} {n} resource instances"));
            parts.collect::<Vec<_>>().join(", ")
        };
        let kinds = self
            .kinds
            .iter()
            .map(|(name, n)| format!("{name} has {n} resource instances"));
        let content = format!(
            "Some resources are remaining: {}",
            kinds.collect::<Vec<_>>().join(", ")
        );
        let finalizers = if self.finalizers.is_empty() {
            let text = "All content-preserving finalizers finished".to_owned();
            (
                "NamespaceFinalizersRemaining",
                "False",
                "ContentHasNoFinalizers",
                text,
            )
        } else {
            let text = format!(
                "Some content in the namespace has finalizers remaining: {}",
                join(&self.finalizers, "in")
            );
            (
                "NamespaceFinalizersRemaining",
                "True",
                "SomeFinalizersRemain",
                text,
            )
        };
        [
            (
                "NamespaceContentRemaining",
                "True",
                "SomeResourcesRemain",
                content,
            ),
            finalizers,
        ]
    }
}

/// The namespace saying what remains, if it does not say so already.
fn with_conditions(namespace: &Namespace, remains: &Remains, now: Timestamp) -> Option<Namespace> {
    let mut changed = namespace.clone();
    let conditions = changed
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    for (kind, status, reason, message) in remains.conditions() {
        let known = conditions
            .iter()
            .position(|condition| condition.type_ == kind);
        let known = known.map(|at| conditions.remove(at));
        let same = known.as_ref().filter(|known| known.status == status);
        let since = same.and_then(|known| known.last_transition_time.clone());
        conditions.push(NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: since.or(Some(Time(windlass_api::time::to_seconds(now)))),
        });
    }
    (changed.status != namespace.status).then_some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_said_once() {
        let mut remains = Remains::default();
        remains.kinds.insert("pods".into(), 2);
        remains.finalizers.insert("example.com/wait".into(), 1);
        let namespace = Namespace::default();
        let changed = with_conditions(&namespace, &remains, Timestamp::UNIX_EPOCH).unwrap();
        let conditions = changed
            .status
            .as_ref()
            .unwrap()
            .conditions
            .as_ref()
            .unwrap();
        let messages: Vec<_> = conditions
            .iter()
            .filter_map(|c| c.message.as_deref())
            .collect();
        assert_eq!(
            messages,
            [
                "Some resources are remaining: pods has 2 resource instances",
                "Some content in the namespace has finalizers remaining: example.com/wait in 1 resource instances",
            ]
        );
        assert_eq!(with_conditions(&changed, &remains, Timestamp::now()), None);
    }
}
