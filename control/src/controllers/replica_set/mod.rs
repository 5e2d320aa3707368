//! ReplicaSet: as many pods of a template as are wanted.
//!
//! Per key: claim pods (adopt orphans, release strangers), then create or delete by [`plan::scale`],
//! then write the status if it changed. While the cache does not show what was last done for the set
//! (`Expectations`), pods are neither created nor deleted, so a slow watch cannot make too many.

mod plan;
mod slow_start;

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::runtime::expectations::Expectations;
use super::runtime::informer::{Change, Index};
use super::runtime::key::Key;
use super::runtime::metadata::{Metadata, controller_reference};
use super::runtime::ownership::claim;
use super::runtime::pod::Pod;
use super::runtime::recorder::reference;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{
    Outcome, ReconcileError, is_namespace_terminating, is_not_found, message, work,
};
use plan::{Failure, Scaling};

const NAME: &str = "replicaset-controller";
const WORKERS: usize = 8;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = Arc::new(WorkQueue::default());
    let controller = Arc::new(Controller {
        expectations: Expectations::default(),
        queue: Arc::clone(&queue),
        context,
    });
    let informers = &controller.context.informers;
    informers.pods.synced().await;
    informers.replica_sets.synced().await;
    let of_sets = Arc::clone(&controller);
    let of_pods = Arc::clone(&controller);
    let _sets = informers
        .replica_sets
        .subscribe(move |change| of_sets.set_changed(change));
    let _pods = informers
        .pods
        .subscribe(move |change| of_pods.pod_changed(change));
    let stop = controller.context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| controller.reconcile(key)).await;
}

struct Controller {
    context: Context,
    queue: Arc<WorkQueue<Key>>,
    expectations: Expectations,
}

impl Controller {
    fn set_changed(&self, change: Change<'_, ReplicaSet>) {
        let Some(set) = change.either() else { return };
        let key = Key::of(&set.metadata);
        if change.new.is_none() {
            self.expectations.forget(&key);
        }
        self.queue.add(key);
    }

    fn pod_changed(&self, change: Change<'_, Pod>) {
        self.observe(change);
        let owners = change.both().filter_map(|pod| owner_key(pod));
        owners.for_each(|owner| self.queue.add(owner));
        if let Some(orphan) = change.new.filter(|pod| pod.metadata.controller().is_none()) {
            self.wake_adopters(orphan);
        }
    }

    /// Ticks off what was expected.
    fn observe(&self, change: Change<'_, Pod>) {
        let Some((pod, owner)) = change.either().and_then(|pod| Some((pod, owner_key(pod)?)))
        else {
            return;
        };
        if change.new.is_none() || pod.metadata.is_terminating() {
            self.expectations.deleted(&owner, pod.metadata.uid());
        }
        if change.old.is_none() {
            self.expectations.created(&owner, 1);
        }
    }

    fn wake_adopters(&self, orphan: &Pod) {
        let namespace = Index::Namespace(orphan.metadata.namespace().to_owned());
        for set in self.context.informers.replica_sets.by(&namespace) {
            if selector_of(&set).is_ok_and(|selector| selector.matches(orphan.metadata.labels())) {
                self.queue.add(Key::of(&set.metadata));
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(set) = self.context.informers.replica_sets.get(&key) else {
            return Ok(None);
        };
        let expectations = self.expectations.check(&key);
        let pods = self.claim_pods(&set).await?;
        let scaled = if expectations.is_ok() && !set.metadata.is_terminating() {
            self.scale(&key, &set, &pods).await
        } else {
            Ok(())
        };
        let now = Timestamp::now();
        let (status, wake) = plan::status(&set, &pods, scaled.as_ref().err(), now);
        if set.status.as_ref() != Some(&status) {
            let mut changed = ReplicaSet::clone(&set);
            changed.status = Some(status);
            let api: Api<ReplicaSet> = self.api(&key);
            api.replace_status(&key.name, &PostParams::default(), &changed)
                .await?;
        }
        scaled.map_err(|failure| failure.error)?;
        Ok(wake.into_iter().chain(expectations.err()).min())
    }

    async fn claim_pods(&self, set: &ReplicaSet) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let selector = selector_of(set)?;
        let key = Key::of(&set.metadata);
        let pods = &self.context.informers.pods;
        let mut candidates = pods.by(&Index::Controller(set.metadata.uid().to_owned()));
        candidates.extend(pods.by(&Index::Orphan(key.namespace.to_string())));
        candidates.retain(|pod| pod.is_active());
        let claims = claim(&set.metadata, &selector, candidates);
        let reference = controller_reference("apps/v1", "ReplicaSet", &set.metadata);
        let (pods, sets) = (self.api::<core::Pod>(&key), self.api::<ReplicaSet>(&key));
        claims.carry_out(&pods, &sets, &reference).await
    }

    async fn scale(&self, key: &Key, set: &ReplicaSet, pods: &[Arc<Pod>]) -> Result<(), Failure> {
        match plan::scale(set, pods, || self.related(set)) {
            Scaling::Nothing => Ok(()),
            Scaling::Create(count) => self.create(key, set, count).await,
            Scaling::Delete(victims) => self.delete(key, set, victims).await,
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

    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> Result<(), Failure> {
        let pod = pod_of(set);
        let api: Api<core::Pod> = self.api(key);
        self.expectations.expect(key, count, HashSet::new());
        let created = slow_start::repeat(count, || async {
            let created = api.create(&PostParams::default(), &pod).await?;
            self.say(
                set,
                "SuccessfulCreate",
                format!("Created pod: {}", created.metadata.name()),
            );
            Ok::<_, kube::Error>(())
        });
        let (successes, error) = created.await;
        self.expectations.created(key, count - successes);
        let Some(error) = error else { return Ok(()) };
        if !is_namespace_terminating(&error) {
            let about = reference("apps/v1", "ReplicaSet", &set.metadata);
            let text = format!("Error creating: {}", message(&error));
            self.context.recorder.warning(about, "FailedCreate", text);
        }
        Err(Failure::new("FailedCreate", error))
    }

    async fn delete(
        &self,
        key: &Key,
        set: &ReplicaSet,
        victims: Vec<Arc<Pod>>,
    ) -> Result<(), Failure> {
        let uids = victims.iter().map(|pod| pod.metadata.uid().to_owned());
        self.expectations.expect(key, 0, uids.collect());
        let deletions = victims.iter().map(|pod| self.delete_one(key, set, pod));
        let results = futures::future::join_all(deletions).await;
        match results.into_iter().find_map(Result::err) {
            Some(error) => Err(Failure::new("FailedDelete", error)),
            None => Ok(()),
        }
    }

    async fn delete_one(&self, key: &Key, set: &ReplicaSet, pod: &Pod) -> Result<(), kube::Error> {
        let api: Api<core::Pod> = self.api(key);
        let (name, uid) = (pod.metadata.name(), pod.metadata.uid());
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        });
        match api.delete(name, &params).await {
            Ok(_) => {
                self.say(set, "SuccessfulDelete", format!("Deleted pod: {name}"));
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(key, uid);
                if is_not_found(&error) {
                    return Ok(());
                }
                let about = reference("apps/v1", "ReplicaSet", &set.metadata);
                let text = format!("Error deleting: {}", message(&error));
                self.context.recorder.warning(about, "FailedDelete", text);
                Err(error)
            }
        }
    }

    fn say(&self, set: &ReplicaSet, reason: &'static str, message: String) {
        let about = reference("apps/v1", "ReplicaSet", &set.metadata);
        self.context.recorder.normal(about, reason, message);
    }

    fn api<K>(&self, key: &Key) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }
}

fn selector_of(set: &ReplicaSet) -> Result<LabelSelector, ReconcileError> {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_object(selector)
        .map_err(|error| ReconcileError::Object(format!("spec.selector: {error}")))
}

fn owner_key(pod: &Pod) -> Option<Key> {
    let owner = pod.metadata.controller()?;
    let is_set = owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/");
    is_set.then(|| Key::new(pod.metadata.namespace(), &owner.name))
}

/// A pod of the set's template; the API completes its name.
fn pod_of(set: &ReplicaSet) -> core::Pod {
    let template = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.clone())
        .unwrap_or_default();
    let metadata = template.metadata.unwrap_or_default();
    let owner = controller_reference("apps/v1", "ReplicaSet", &set.metadata);
    core::Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", set.metadata.name())),
            namespace: set.metadata.namespace.clone(),
            labels: metadata.labels,
            annotations: metadata.annotations,
            finalizers: metadata.finalizers,
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    }
}
