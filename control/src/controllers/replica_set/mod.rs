//! ReplicaSets and ReplicationControllers: as many pods of a template as are wanted.
//!
//! Per key: claim pods (adopt orphans, release strangers), then create or delete by [`plan::scale`],
//! then write the status if it changed. Both kinds are the same thing: the older one is planned for as the
//! ReplicaSet it would be ([`Replicas`]).

mod plan;
mod replication_controller;

use std::borrow::Cow;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::PostParams;
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::runtime::informer::{Index, Informer};
use super::runtime::informers::Informers;
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod::Pod;
use super::runtime::pod_owners::{Failure, PodOwner, PodOwners, selector_of};
use super::runtime::worker::{Outcome, ReconcileError};
use plan::Scaling;

const WORKERS: usize = 8;

/// Starts the controller of ReplicaSets.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run::<ReplicaSet>(context))
}

/// Starts the controller of ReplicationControllers.
pub(super) fn start_replication(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run::<ReplicationController>(context))
}

/// A kind that keeps a number of pods.
trait Replicas: PodOwner + serde::Serialize {
    /// The controller's name.
    const NAME: &'static str;

    /// The objects of the kind.
    fn informer(informers: &Informers) -> &Arc<Informer<Self>>;

    /// The object as a ReplicaSet.
    fn as_set(&self) -> Cow<'_, ReplicaSet>;

    /// The object with this status.
    fn with_status(&self, status: ReplicaSetStatus) -> Self;
}

impl PodOwner for ReplicaSet {
    fn selector(&self) -> Result<LabelSelector, ReconcileError> {
        selector_of(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

impl Replicas for ReplicaSet {
    const NAME: &'static str = "replicaset-controller";

    fn informer(informers: &Informers) -> &Arc<Informer<Self>> {
        &informers.replica_sets
    }

    fn as_set(&self) -> Cow<'_, ReplicaSet> {
        Cow::Borrowed(self)
    }

    fn with_status(&self, status: ReplicaSetStatus) -> Self {
        Self {
            status: Some(status),
            ..self.clone()
        }
    }
}

async fn run<K: Replicas>(context: Context) {
    let informers = &context.informers;
    let owners = PodOwners::new(
        context.client.clone(),
        context.recorder.clone(),
        K::informer(informers),
        &informers.pods,
        context.queue(),
    );
    let controller = Controller {
        context: &context,
        owners: Arc::clone(&owners),
    };
    let stop = context.stop.clone();
    owners
        .run(K::NAME, WORKERS, stop, |key| controller.reconcile(key))
        .await;
}

struct Controller<'c, K: PodOwner> {
    context: &'c Context,
    owners: Arc<PodOwners<K>>,
}

impl<K: Replicas> Controller<'_, K> {
    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(owner) = self.owners.get(&key) else {
            return Ok(None);
        };
        let set = owner.as_set();
        let settled = self.owners.settled(&key);
        let pods = self.owners.claim(&owner, Pod::is_active).await?;
        let scaled = if settled.is_ok() && !set.metadata.is_terminating() {
            self.scale(&owner, &set, &pods).await
        } else {
            Ok(())
        };
        let now = self.context.now();
        let (status, wake) = plan::status(&set, &pods, scaled.as_ref().err(), now);
        if set.status.as_ref() != Some(&status) {
            let changed = owner.with_status(status);
            self.owners
                .api::<K>(&key)
                .replace_status(&key.name, &PostParams::default(), &changed)
                .await?;
        }
        scaled.map_err(|failure| failure.error)?;
        Ok(wake.into_iter().chain(settled.err()).min())
    }

    async fn scale(&self, owner: &K, set: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        match plan::scale(set, pods, || self.related(set)) {
            Scaling::Nothing => Ok(()),
            Scaling::Create(count) => {
                let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
                let pod = PodOwners::pod(owner, template);
                self.owners.change(owner, &vec![pod; count], &[]).await
            }
            Scaling::Delete(victims) => self.owners.change(owner, &[], &victims).await,
        }
    }

    /// Pods of all sets that have the same controller as this one.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let informers = &self.context.informers;
        let Some(controller) = set.metadata.controller() else {
            return informers
                .pods
                .by(&Index::Controller(set.metadata.uid().to_owned()));
        };
        let siblings = informers
            .replica_sets
            .by(&Index::Controller(controller.uid.clone()));
        let siblings = siblings
            .iter()
            .map(|set| Index::Controller(set.metadata.uid().to_owned()));
        siblings
            .flat_map(|index| informers.pods.by(&index))
            .collect()
    }
}
