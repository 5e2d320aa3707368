//! Deployment: ReplicaSets over time, one per template.
//!
//! Per key: claim ReplicaSets, let [`plan::plan`] decide, do it, write the status. No expectations are
//! needed here: a set's name follows from its template, and every write of a set carries the version it
//! was read at, so acting on a stale cache ends in a conflict and another look.

mod plan;
#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod plan_tests;
mod revision;
mod rolling;
mod status;

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::runtime::informer::{Change, Index};
use super::runtime::key::Key;
use super::runtime::metadata::{Metadata, controller_reference};
use super::runtime::ownership::claim;
use super::runtime::pod::Pod;
use super::runtime::recorder::reference;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{
    Outcome, ReconcileError, is_already_exists, message, unless_gone, work,
};
use plan::{Action, Observed};

const NAME: &str = "deployment-controller";
const WORKERS: usize = 4;

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let controller = Arc::new(Controller {
        queue: Arc::clone(&queue),
        context,
    });
    let informers = &controller.context.informers;
    informers.pods.synced().await;
    informers.replica_sets.synced().await;
    informers.deployments.synced().await;
    let [of_deployments, of_sets, of_pods] = [(); 3].map(|()| Arc::clone(&controller));
    let _deployments = informers.deployments.subscribe(move |change| {
        if let Some(deployment) = change.either() {
            of_deployments.queue.add(Key::of(&deployment.metadata));
        }
    });
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
}

impl Controller {
    fn set_changed(&self, change: Change<'_, ReplicaSet>) {
        let owners = change
            .both()
            .filter_map(|set| owner_key(&set.metadata, "Deployment"));
        owners.for_each(|owner| self.queue.add(owner));
        let Some(orphan) = change.new.filter(|set| set.metadata.controller().is_none()) else {
            return;
        };
        let namespace = Index::Namespace(orphan.metadata.namespace().to_owned());
        for deployment in self.context.informers.deployments.by(&namespace) {
            let selector = selector_of(&deployment);
            if selector.is_ok_and(|selector| selector.matches(orphan.metadata.labels())) {
                self.queue.add(Key::of(&deployment.metadata));
            }
        }
    }

    /// A Recreate waits until the last old pod has ended.
    fn pod_changed(&self, change: Change<'_, Pod>) {
        let ended = change.new.is_none_or(|pod| pod.has_ended());
        let Some(pod) = change.either().filter(|_| ended) else {
            return;
        };
        let informers = &self.context.informers;
        let set = owner_key(&pod.metadata, "ReplicaSet");
        let set = set.and_then(|key| informers.replica_sets.get(&key));
        let key = set.and_then(|set| owner_key(&set.metadata, "Deployment"));
        let deployment = key.and_then(|key| informers.deployments.get(&key));
        if let Some(deployment) = deployment.filter(|deployment| !rolling::is_rolling(deployment)) {
            self.queue.add(Key::of(&deployment.metadata));
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(deployment) = self.context.informers.deployments.get(&key) else {
            return Ok(None);
        };
        let sets = self.claim_sets(&key, &deployment).await?;
        let observed = Observed {
            deployment: &deployment,
            sets,
            now: self.context.now(),
        };
        let plan = plan::plan(observed, |old| self.pods_run(old));
        let mut current = Deployment::clone(&deployment);
        for action in plan.actions {
            match action {
                Action::SetRevision(revision) => {
                    if !self.set_revision(&key, &mut current, &revision).await? {
                        return Ok(None);
                    }
                }
                Action::Create(set) => self.create(&key, &current, &set).await?,
                action => self.change_set(&key, &current, action).await?,
            }
        }
        if let Some(status) = plan.status {
            self.write_status(&key, current, status).await?;
        }
        Ok(plan.wake)
    }

    async fn claim_sets(
        &self,
        key: &Key,
        deployment: &Deployment,
    ) -> Result<Vec<Arc<ReplicaSet>>, ReconcileError> {
        let selector = selector_of(deployment)?;
        let sets = &self.context.informers.replica_sets;
        let mut candidates = sets.by(&Index::Controller(deployment.metadata.uid().to_owned()));
        candidates.extend(sets.by(&Index::Orphan(key.namespace.to_string())));
        let claims = claim(&deployment.metadata, &selector, candidates);
        let reference = controller_reference("apps/v1", "Deployment", &deployment.metadata);
        let (sets, deployments) = (self.sets(key), self.deployments(key));
        claims.carry_out(&sets, &deployments, &reference).await
    }

    /// Whether pods of these sets have not ended yet.
    fn pods_run(&self, sets: &[Arc<ReplicaSet>]) -> bool {
        sets.iter().any(|set| {
            let index = Index::Controller(set.metadata.uid().to_owned());
            let pods = self.context.informers.pods.by(&index);
            pods.iter().any(|pod| !pod.has_ended())
        })
    }

    async fn change_set(
        &self,
        key: &Key,
        deployment: &Deployment,
        action: Action,
    ) -> Result<(), ReconcileError> {
        let sets = self.sets(key);
        match action {
            Action::Update(set) => {
                sets.replace(set.metadata.name(), &PostParams::default(), &set)
                    .await?;
            }
            Action::Scale { set, from } => {
                sets.replace(set.metadata.name(), &PostParams::default(), &set)
                    .await?;
                self.say_scaled(deployment, &set, from);
            }
            Action::Delete(set) => {
                let params = DeleteParams::background().preconditions(Preconditions {
                    uid: set.metadata.uid.clone(),
                    resource_version: None,
                });
                unless_gone(sets.delete(set.metadata.name(), &params).await)?;
            }
            Action::Create(_) | Action::SetRevision(_) => {}
        }
        Ok(())
    }

    /// Notes the revision; `false` if the Deployment has changed under the plan, which is made anew when
    /// the cache hears of it.
    async fn set_revision(
        &self,
        key: &Key,
        deployment: &mut Deployment,
        revision: &str,
    ) -> Result<bool, ReconcileError> {
        let patch = json!({"metadata": {"annotations": {revision::REVISION: revision}}});
        let api = self.deployments(key);
        let patch = Patch::Merge(&patch);
        let patched = api
            .patch(&key.name, &PatchParams::default(), &patch)
            .await?;
        let unchanged = patched.metadata.generation == deployment.metadata.generation
            && patched.status == deployment.status;
        deployment.metadata = patched.metadata;
        Ok(unchanged)
    }

    async fn create(
        &self,
        key: &Key,
        deployment: &Deployment,
        set: &ReplicaSet,
    ) -> Result<(), ReconcileError> {
        let sets = self.sets(key);
        match sets.create(&PostParams::default(), set).await {
            Ok(_) => {
                self.say_scaled(deployment, set, 0);
                Ok(())
            }
            Err(error) if is_already_exists(&error) => {
                let known = sets.get(set.metadata.name()).await?;
                self.settle_collision(key, deployment, &known).await
            }
            Err(error) => {
                let mut draft = status::Draft::new(deployment, self.context.now());
                draft.not_created(set.metadata.name(), &message(&error));
                if let Some(status) = draft.finish() {
                    self.write_status(key, deployment.clone(), status).await?;
                }
                let about = reference("apps/v1", "Deployment", &deployment.metadata);
                let text = format!(
                    "Failed to create new replica set {:?}: {}",
                    set.metadata.name(),
                    message(&error)
                );
                self.context
                    .recorder
                    .warning(about, "ReplicaSetCreateError", text);
                Err(error.into())
            }
        }
    }

    /// A set of that name exists. If it is the one that was to be made, the cache is behind and will
    /// say so; otherwise the hash is taken and another is tried.
    async fn settle_collision(
        &self,
        key: &Key,
        deployment: &Deployment,
        known: &ReplicaSet,
    ) -> Result<(), ReconcileError> {
        let owner = known.metadata.controller().map(|owner| &*owner.uid);
        let ours = owner == Some(deployment.metadata.uid());
        if ours && plan::is_of_template(deployment, known) {
            return Ok(());
        }
        let mut draft = status::Draft::new(deployment, self.context.now());
        draft.count_collision();
        if let Some(status) = draft.finish() {
            self.write_status(key, deployment.clone(), status).await?;
        }
        Err(ReconcileError::Object(format!(
            "replica set {} belongs to somebody else; another hash is tried",
            known.metadata.name()
        )))
    }

    async fn write_status(
        &self,
        key: &Key,
        mut deployment: Deployment,
        status: DeploymentStatus,
    ) -> Result<(), ReconcileError> {
        deployment.status = Some(status);
        let api = self.deployments(key);
        api.replace_status(&key.name, &PostParams::default(), &deployment)
            .await?;
        Ok(())
    }

    fn say_scaled(&self, deployment: &Deployment, set: &ReplicaSet, from: i32) {
        let to = rolling::replicas(set);
        let direction = match to.cmp(&from) {
            std::cmp::Ordering::Greater => "up",
            std::cmp::Ordering::Less => "down",
            std::cmp::Ordering::Equal => return,
        };
        let name = set.metadata.name();
        let text = format!("Scaled {direction} replica set {name} from {from} to {to}");
        let about = reference("apps/v1", "Deployment", &deployment.metadata);
        self.context
            .recorder
            .normal(about, "ScalingReplicaSet", text);
    }

    fn sets(&self, key: &Key) -> Api<ReplicaSet> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }

    fn deployments(&self, key: &Key) -> Api<Deployment> {
        Api::namespaced(self.context.client.clone(), &key.namespace)
    }
}

fn selector_of(deployment: &Deployment) -> Result<LabelSelector, ReconcileError> {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_object(selector)
        .map_err(|error| ReconcileError::Object(format!("spec.selector: {error}")))
}

fn owner_key(metadata: &ObjectMeta, kind: &str) -> Option<Key> {
    let owner = metadata.controller()?;
    let is_wanted = owner.kind == kind && owner.api_version.starts_with("apps/");
    is_wanted.then(|| Key::new(metadata.namespace(), &owner.name))
}
