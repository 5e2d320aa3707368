//! Disruption: keeps the status of PodDisruptionBudgets, by which the eviction API decides.
//!
//! Per budget: its pods by selector, how many the controllers of these pods want together, then
//! [`plan::plan`], and the status is written if it changed. The write carries the revision that was read,
//! so an eviction that took from the budget meanwhile is never undone.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::PostParams;
use serde::de::DeserializeOwned;
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::runtime::informer::{Change, Index};
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod::Pod;
use super::runtime::recorder::reference;
use super::runtime::work_queue::WorkQueue;
use super::runtime::worker::{Outcome, ReconcileError, unless_gone, work};

const NAME: &str = "disruption-controller";
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
    informers.disruption_budgets.synced().await;
    let (of_budgets, of_pods) = (Arc::clone(&controller), Arc::clone(&controller));
    let _budgets = informers
        .disruption_budgets
        .subscribe(move |change| of_budgets.budget_changed(change));
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
    fn budget_changed(&self, change: Change<'_, PodDisruptionBudget>) {
        if let Some(budget) = change.new {
            self.queue.add(Key::of(&budget.metadata));
        }
    }

    fn pod_changed(&self, change: Change<'_, Pod>) {
        for pod in change.both() {
            let namespace = Index::Namespace(pod.metadata.namespace().to_owned());
            for budget in self.context.informers.disruption_budgets.by(&namespace) {
                if selector_of(&budget).is_ok_and(|of| of.matches(pod.metadata.labels())) {
                    self.queue.add(Key::of(&budget.metadata));
                }
            }
        }
    }

    async fn reconcile(&self, key: Key) -> Outcome {
        let informers = &self.context.informers;
        let Some(budget) = informers.disruption_budgets.get(&key) else {
            return Ok(None);
        };
        let now = self.context.now();
        let selector = selector_of(&budget)?;
        let mut pods = informers
            .pods
            .by(&Index::Namespace(key.namespace.to_string()));
        pods.retain(|pod| selector.matches(pod.metadata.labels()) && !pod.has_ended());
        if pods.is_empty() {
            self.say(&budget, "NoPods", "No matching pods found".into());
        }
        let wanted = self.wanted(&budget, &pods).await;
        let wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => {
                let text = format!("Failed to calculate the number of expected pods: {error}");
                self.warn(&budget, "CalculateExpectedPodCountFailed", text);
                self.write(&budget, plan::failed(&budget, error.to_string(), now))
                    .await?;
                return Err(error);
            }
        };
        let plan = plan::plan(&budget, &pods, wanted, now);
        for name in &plan.not_deleted {
            let text = format!("Pod {name} was expected by PDB to be deleted but it wasn't");
            self.warn(&budget, "NotDeleted", text);
        }
        self.write(&budget, plan.status).await?;
        Ok(plan.wake)
    }

    async fn wanted(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Pod>],
    ) -> Result<plan::Wanted, ReconcileError> {
        let scale = if plan::needs_scale(budget) {
            self.scale(pods).await?
        } else {
            0
        };
        plan::wanted(budget, pods.len(), scale).map_err(ReconcileError::Object)
    }

    /// How many pods the controllers of `pods` want together. Pods that nobody manages count for
    /// nothing, as upstream has it.
    async fn scale(&self, pods: &[Arc<Pod>]) -> Result<i32, ReconcileError> {
        let mut scales: BTreeMap<String, i32> = BTreeMap::new();
        for pod in pods {
            let Some(owner) = pod.metadata.controller() else {
                continue;
            };
            if scales.contains_key(&owner.uid) {
                continue;
            }
            let (uid, scale) = self.scale_of(pod.metadata.namespace(), owner).await?;
            scales.insert(uid, scale);
            // A ReplicaSet of a Deployment counts with all its siblings, under the Deployment's uid.
            scales.entry(owner.uid.clone()).or_insert(0);
        }
        Ok(scales
            .values()
            .fold(0, |sum: i32, scale| sum.saturating_add(*scale)))
    }

    /// Uid and wanted pods of what manages a pod in the end.
    async fn scale_of(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<(String, i32), ReconcileError> {
        let group = owner
            .api_version
            .split_once('/')
            .map_or("", |(group, _)| group);
        match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => self.scale_of_set(namespace, owner),
            ("apps", "StatefulSet") => self.scale_by_api::<StatefulSet>(namespace, owner).await,
            ("", "ReplicationController") => {
                self.scale_by_api::<ReplicationController>(namespace, owner)
                    .await
            }
            _ => Err(ReconcileError::Object(format!(
                "{} does not implement the scale subresource",
                owner.kind
            ))),
        }
    }

    fn scale_of_set(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<(String, i32), ReconcileError> {
        let informers = &self.context.informers;
        let missing =
            || ReconcileError::Object(format!("found no controller {} {}", owner.kind, owner.name));
        let set = informers
            .replica_sets
            .get(&Key::new(namespace, &owner.name));
        let set = set
            .filter(|set| set.metadata.uid() == owner.uid)
            .ok_or_else(missing)?;
        let deployment = set.metadata.controller().and_then(|above| {
            let deployment = informers
                .deployments
                .get(&Key::new(namespace, &above.name))?;
            (deployment.metadata.uid() == above.uid).then_some(deployment)
        });
        let (uid, replicas) = match &deployment {
            Some(deployment) => (
                deployment.metadata.uid(),
                deployment.spec.as_ref().and_then(|spec| spec.replicas),
            ),
            None => (
                set.metadata.uid(),
                set.spec.as_ref().and_then(|spec| spec.replicas),
            ),
        };
        Ok((uid.to_owned(), replicas.unwrap_or(1)))
    }

    async fn scale_by_api<K>(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<(String, i32), ReconcileError>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope> + Clone + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.context.client.clone(), namespace);
        let scale = api.get_scale(&owner.name).await?;
        let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
        Ok((owner.uid.clone(), replicas))
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut changed = budget.clone();
        changed.status = Some(status);
        let namespace = budget.metadata.namespace();
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.context.client.clone(), namespace);
        let written = api
            .replace_status(budget.metadata.name(), &PostParams::default(), &changed)
            .await;
        unless_gone(written)?;
        Ok(())
    }

    fn say(&self, budget: &PodDisruptionBudget, reason: &'static str, message: String) {
        let about = reference("policy/v1", "PodDisruptionBudget", &budget.metadata);
        self.context.recorder.normal(about, reason, message);
    }

    fn warn(&self, budget: &PodDisruptionBudget, reason: &'static str, message: String) {
        let about = reference("policy/v1", "PodDisruptionBudget", &budget.metadata);
        self.context.recorder.warning(about, reason, message);
    }
}

/// Which pods the budget is about: an absent selector chooses none, an empty one all.
fn selector_of(budget: &PodDisruptionBudget) -> Result<LabelSelector, ReconcileError> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    LabelSelector::from_object(selector)
        .map_err(|error| ReconcileError::Object(format!("spec.selector: {error}")))
}
