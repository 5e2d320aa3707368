//! Garbage collection: what is owned by something that is gone, goes too.
//!
//! 1. One watch of metadata per kind keeps the graph (`graph.rs`) current.
//! 2. A change queues the uids it concerns, nothing else: a cluster at rest costs nothing.
//! 3. Before anything is deleted its metadata and every owner that the graph does not show are read from
//!    the API, because a watch may be late.
//!
//! Owners are found by uid, name and kind, in the dependent's namespace or without one; an owner in
//! another namespace is none. Source: upstream's garbage collector.
//!
//! Differs from Kubernetes: kinds are discovered once, at start.

mod graph;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::runtime::watcher;
use serde_json::json;
use tokio::task::JoinSet;

use super::Context;
use super::runtime::informer::{Cached, Change, Index, Informer};
use super::runtime::metadata::Metadata;
use super::runtime::resources::{AnyMetadata, Resource, discover};
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};
use graph::{Deletion, FOREGROUND, Graph, GroupKind, Identity, Known, Node, ORPHAN};

const NAME: &str = "garbage-collector-controller";
const WORKERS: usize = 16;
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
/// When an owner that exists but that no watch shows is asked for again.
const UNSEEN_RETRY: Duration = Duration::from_secs(30);

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let resources = loop {
        match discover(&context.client).await {
            Ok(resources) => break resources,
            Err(error) => {
                tracing::warn!(%error, "discover what to collect; it is tried again");
                tokio::time::sleep(DISCOVERY_RETRY).await;
            }
        }
    };
    let queue = context.queue();
    let collector = Arc::new(Collector::new(context, resources, Arc::clone(&queue)));
    let mut watches = JoinSet::new();
    let mut informers = Vec::new();
    for (kind, resource) in &collector.resources {
        let api: Api<AnyMetadata> = Api::all_with(collector.context.client.clone(), &resource.api);
        let informer = Informer::<Collected>::new(api, watcher::Config::default());
        watches.spawn(Arc::clone(&informer).run(collector.context.stop.clone()));
        informers.push((kind.clone(), informer));
    }
    // Only with everything in the graph does absence mean anything.
    let mut subscriptions = Vec::new();
    for (kind, informer) in informers {
        informer.synced().await;
        let collector = Arc::clone(&collector);
        subscriptions.push(informer.subscribe(move |change| collector.changed(&kind, change)));
    }
    let stop = collector.context.stop.clone();
    work(NAME, queue, WORKERS, stop, |uid| collector.reconcile(uid)).await;
}

/// What is kept of an object: who it is, who owns it, whether it goes.
#[derive(Debug)]
struct Collected {
    metadata: ObjectMeta,
}

impl Cached for Collected {
    type Object = AnyMetadata;

    fn project(object: AnyMetadata) -> Self {
        let full = object.metadata;
        Self {
            metadata: ObjectMeta {
                name: full.name,
                namespace: full.namespace,
                uid: full.uid,
                resource_version: full.resource_version,
                owner_references: full.owner_references,
                finalizers: full.finalizers,
                deletion_timestamp: full.deletion_timestamp,
                ..ObjectMeta::default()
            },
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        Vec::new()
    }
}

struct Collector {
    context: Context,
    resources: HashMap<GroupKind, Resource>,
    graph: Mutex<Graph>,
    queue: Arc<WorkQueue<String>>,
}

/// An object's owners, by what has become of them.
#[derive(Debug, Default)]
struct Owners {
    there: usize,
    waiting: Vec<String>,
    gone: Vec<String>,
}

impl Collector {
    fn new(context: Context, resources: Vec<Resource>, queue: Arc<WorkQueue<String>>) -> Self {
        let keyed = resources.into_iter().map(|resource| {
            let kind = GroupKind {
                group: resource.api.group.clone(),
                kind: resource.api.kind.clone(),
            };
            (kind, resource)
        });
        // Events own nothing, and there are too many of them.
        let resources = keyed.filter(|(kind, _)| kind.kind != "Event").collect();
        Self {
            context,
            resources,
            graph: Mutex::default(),
            queue,
        }
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, kind: &GroupKind, change: Change<'_, Collected>) {
        let affected = match (change.old, change.new) {
            (_, Some(object)) => {
                let identity = Identity {
                    kind: kind.clone(),
                    namespace: object.metadata.namespace().to_owned(),
                    name: object.metadata.name().to_owned(),
                };
                self.graph().put(identity, &object.metadata)
            }
            (Some(object), None) => self.graph().remove(object.metadata.uid()),
            (None, None) => return,
        };
        affected.into_iter().for_each(|uid| self.queue.add(uid));
    }

    async fn reconcile(&self, uid: String) -> Outcome {
        let Some(node) = self.graph().get(&uid).cloned() else {
            return Ok(None);
        };
        if node.is_virtual {
            return self.verify(&uid, &node.identity).await;
        }
        match node.deletion {
            Deletion::Orphan => self.orphan(&uid, &node).await?,
            Deletion::Foreground => self.finish_foreground(&uid, &node).await?,
            Deletion::Background => {}
            Deletion::No if node.owners.is_empty() => {}
            Deletion::No => self.collect(&uid, &node).await?,
        }
        Ok(None)
    }

    /// Asks the API about an owner that no watch has shown.
    async fn verify(&self, uid: &str, identity: &Identity) -> Outcome {
        if !self.resources.contains_key(&identity.kind) {
            // Nothing can be known about kinds that are not served: what they own stays.
            return Ok(None);
        }
        match self.live(identity).await? {
            Some(found) if found.uid() == uid => Ok(Some(UNSEEN_RETRY)),
            _ => {
                let dependents = self.graph().remove(uid);
                dependents.into_iter().for_each(|uid| self.queue.add(uid));
                Ok(None)
            }
        }
    }

    /// Deletes an object all of whose owners are gone; frees one that has others of those that are.
    async fn collect(&self, uid: &str, node: &Node) -> Result<(), ReconcileError> {
        let Some(found) = self.live(&node.identity).await? else {
            return Ok(());
        };
        if found.uid() != uid || found.is_terminating() {
            return Ok(());
        }
        let Some(owners) = self.classify(&node.identity, found.owners()).await? else {
            return Ok(());
        };
        if owners.waiting.is_empty() && owners.gone.is_empty() {
            return Ok(());
        }
        if owners.there > 0 {
            let lost = [owners.waiting, owners.gone].concat();
            return self.disown(&node.identity, &found, &lost).await;
        }
        let policy = if !owners.waiting.is_empty() && !node.dependents.is_empty() {
            if self.graph().waits_for_its_owner(uid) {
                // A circle: somebody in it has to stop holding the others back.
                return self.unblock(&node.identity, &found).await;
            }
            PropagationPolicy::Foreground
        } else if found.has_finalizer(ORPHAN) {
            PropagationPolicy::Orphan
        } else if found.has_finalizer(FOREGROUND) {
            PropagationPolicy::Foreground
        } else {
            PropagationPolicy::Background
        };
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                // Somebody may be giving it another owner right now.
                resource_version: found.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        let api = self.api(&node.identity)?;
        unless_gone(api.delete(&node.identity.name, &params).await)?;
        Ok(())
    }

    /// What has become of the owners; `None` if that cannot be known.
    async fn classify(
        &self,
        dependent: &Identity,
        references: &[OwnerReference],
    ) -> Result<Option<Owners>, ReconcileError> {
        let mut owners = Owners::default();
        for reference in references {
            let known = self.graph().owner(dependent, reference);
            match known {
                Known::There => owners.there += 1,
                Known::Waiting => owners.waiting.push(reference.uid.clone()),
                Known::Unseen => match self.ask(dependent, reference).await? {
                    None => return Ok(None),
                    Some(true) => owners.there += 1,
                    Some(false) => owners.gone.push(reference.uid.clone()),
                },
            }
        }
        Ok(Some(owners))
    }

    /// Whether the API has the owner; `None` if it cannot be asked.
    async fn ask(
        &self,
        dependent: &Identity,
        reference: &OwnerReference,
    ) -> Result<Option<bool>, ReconcileError> {
        let kind = GroupKind::of(reference);
        let Some(resource) = self.resources.get(&kind) else {
            return Ok(None);
        };
        if resource.namespaced && dependent.namespace.is_empty() {
            tracing::warn!(
                dependent = dependent.name,
                owner = reference.name,
                "an object without a namespace names an owner that lives in one"
            );
            return Ok(None);
        }
        let owner = Identity {
            kind,
            namespace: dependent.namespace.clone(),
            name: reference.name.clone(),
        };
        let found = self.live(&owner).await?;
        Ok(Some(
            found.is_some_and(|found| found.uid() == reference.uid),
        ))
    }

    /// Ends a foreground deletion once nothing blocks it.
    async fn finish_foreground(&self, uid: &str, node: &Node) -> Result<(), ReconcileError> {
        let (blocking, idle) = {
            let graph = self.graph();
            let blocking = graph.blocking(uid);
            let idle = blocking.iter().filter(|uid| !graph.is_in_foreground(uid));
            (blocking.len(), idle.cloned().collect::<Vec<_>>())
        };
        if blocking == 0 {
            return self.remove_finalizer(uid, &node.identity, FOREGROUND).await;
        }
        // Those that wait themselves have been looked at, and say so when they are done.
        idle.into_iter()
            .for_each(|dependent| self.queue.add(dependent));
        Ok(())
    }

    /// Keeps an object from holding back the foreground deletion of its owners.
    async fn unblock(&self, identity: &Identity, found: &ObjectMeta) -> Result<(), ReconcileError> {
        let free = found.owners().iter().cloned().map(|owner| OwnerReference {
            block_owner_deletion: owner.block_owner_deletion.map(|_| false),
            ..owner
        });
        let free: Vec<_> = free.collect();
        let patch = json!({ "ownerReferences": free });
        self.patch(identity, found, patch).await
    }

    /// Lets all dependents go, then the object.
    async fn orphan(&self, uid: &str, node: &Node) -> Result<(), ReconcileError> {
        for dependent in &node.dependents {
            let Some(dependent) = self.graph().get(dependent).cloned() else {
                continue;
            };
            if let Some(found) = self.live(&dependent.identity).await? {
                self.disown(&dependent.identity, &found, &[uid.to_owned()])
                    .await?;
            }
        }
        self.remove_finalizer(uid, &node.identity, ORPHAN).await
    }

    /// Removes the references to owners with these uids.
    async fn disown(
        &self,
        identity: &Identity,
        found: &ObjectMeta,
        lost: &[String],
    ) -> Result<(), ReconcileError> {
        let kept: Vec<_> = found
            .owners()
            .iter()
            .filter(|owner| !lost.contains(&owner.uid))
            .collect();
        if kept.len() == found.owners().len() {
            return Ok(());
        }
        // An empty list is no list.
        let kept = (!kept.is_empty()).then_some(kept);
        let patch = json!({"ownerReferences": kept});
        self.patch(identity, found, patch).await
    }

    async fn remove_finalizer(
        &self,
        uid: &str,
        identity: &Identity,
        finalizer: &str,
    ) -> Result<(), ReconcileError> {
        let Some(found) = self.live(identity).await? else {
            return Ok(());
        };
        if found.uid() != uid || !found.has_finalizer(finalizer) {
            return Ok(());
        }
        let known = found.finalizers.iter().flatten();
        let kept: Vec<_> = known.filter(|known| *known != finalizer).collect();
        let kept = (!kept.is_empty()).then_some(kept);
        let patch = json!({"finalizers": kept});
        self.patch(identity, &found, patch).await
    }

    /// Merges into the metadata, unless it changed since it was read.
    async fn patch(
        &self,
        identity: &Identity,
        found: &ObjectMeta,
        mut metadata: serde_json::Value,
    ) -> Result<(), ReconcileError> {
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.insert("uid".into(), found.uid().into());
            metadata.insert("resourceVersion".into(), found.version().into());
        }
        let api = self.api(identity)?;
        let patch = Patch::Merge(json!({"metadata": metadata}));
        unless_gone(
            api.patch(&identity.name, &PatchParams::default(), &patch)
                .await,
        )?;
        Ok(())
    }

    /// The metadata the API has.
    async fn live(&self, identity: &Identity) -> Result<Option<ObjectMeta>, ReconcileError> {
        let found = self.api(identity)?.get_opt(&identity.name).await?;
        Ok(found.map(|found| found.metadata))
    }

    fn api(&self, identity: &Identity) -> Result<Api<AnyMetadata>, ReconcileError> {
        let resource = self.resources.get(&identity.kind).ok_or_else(|| {
            ReconcileError::Object(format!("kind {:?} is not served", identity.kind))
        })?;
        Ok(resource.metadata(&self.context.client, &identity.namespace))
    }
}
