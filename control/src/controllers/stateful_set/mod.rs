//! StatefulSet: pods with names that stay, made and replaced in order, each with claims of its own.
//!
//! Per key: claim pods, find the two revisions that pods may be of (`history.rs`), have claims go with whom the
//! set's policy says, then carry out [`plan::plan`] and write the status if it changed. A pod's name follows from
//! its ordinal, so a cache that is behind leads to "already exists" and never to one pod too many.

mod claims;
mod plan;
mod pod;

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{self as core, PodTemplateSpec};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use windlass_api::label_selector::LabelSelector;

use super::Context;
use super::history::{Owner, STATEFUL_HASH, live, template_of};
use super::runtime::key::Key;
use super::runtime::metadata::Metadata;
use super::runtime::pod::Pod;
use super::runtime::pod_owners::{PodOwner, PodOwners, selector_of};
use super::runtime::worker::{Outcome, ReconcileError, is_already_exists, message, unless_gone};
use plan::{Action, Revisions, ordinal, plan};

const NAME: &str = "statefulset-controller";
const WORKERS: usize = 4;
/// Revisions kept when the set does not say.
const HISTORY: i32 = 10;

impl PodOwner for StatefulSet {
    fn selector(&self) -> Result<LabelSelector, ReconcileError> {
        selector_of(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

/// Starts the controller.
pub(super) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let informers = &context.informers;
    informers.controller_revisions.synced().await;
    informers.claims.synced().await;
    let owners = PodOwners::new(
        context.client.clone(),
        context.recorder.clone(),
        &informers.stateful_sets,
        &informers.pods,
        context.queue(),
    );
    let controller = Controller {
        context: &context,
        owners: Arc::clone(&owners),
    };
    let stop = context.stop.clone();
    owners
        .run(NAME, WORKERS, stop, |key| controller.reconcile(key))
        .await;
}

struct Controller<'c> {
    context: &'c Context,
    owners: Arc<PodOwners<StatefulSet>>,
}

/// The templates of the two revisions.
struct Templates {
    current: PodTemplateSpec,
    update: PodTemplateSpec,
    names: (String, String),
}

impl Controller<'_> {
    async fn reconcile(&self, key: Key) -> Outcome {
        let Some(set) = self.owners.get(&key) else {
            return Ok(None);
        };
        let name = set.metadata.name();
        let is_own = |pod: &Pod| ordinal(name, pod.metadata.name()).is_some();
        let pods = self.owners.claim(&set, is_own).await?;
        let default = PodTemplateSpec::default();
        let template = set.spec.as_ref().map_or(&default, |spec| &spec.template);
        let owner = Owner {
            owners: &self.owners,
            revisions: &self.context.informers.controller_revisions,
            object: &*set,
            template,
            label: STATEFUL_HASH,
        };
        let status = set.status.clone().unwrap_or_default();
        let history = owner.history(status.collision_count).await?;
        let update = history.current.metadata.name().to_owned();
        let current = status.current_revision.unwrap_or_default();
        let (current, before) = match history.named(&current) {
            Some(revision) => (current, template_of(revision)),
            None => (update.clone(), None),
        };
        let revisions = Revisions {
            current: &current,
            update: &update,
            collisions: history.collisions,
        };
        let plan = plan(&set, &pods, revisions, self.context.now());
        let templates = Templates {
            current: before.unwrap_or_else(|| template.clone()),
            update: template.clone(),
            names: (current.clone(), update.clone()),
        };
        let done = async {
            self.own_claims(&key, &set, &pods).await?;
            self.carry_out(&key, &set, &templates, plan.actions).await
        };
        let done = done.await;
        if set.status.as_ref() != Some(&plan.status) {
            let mut changed = StatefulSet::clone(&set);
            changed.status = Some(plan.status);
            let api = self.owners.api::<StatefulSet>(&key);
            let (params, name) = (PostParams::default(), &key.name);
            unless_gone(api.replace_status(name, &params, &changed).await)?;
        }
        done?;
        let mut kept = live(pods.iter().map(|pod| &pod.metadata));
        kept.extend([current, update]);
        let limit = set
            .spec
            .as_ref()
            .and_then(|spec| spec.revision_history_limit);
        let is_live = |revision: &k8s_openapi::api::apps::v1::ControllerRevision| {
            kept.contains(revision.metadata.name())
        };
        owner
            .truncate(&history, is_live, limit.unwrap_or(HISTORY))
            .await?;
        Ok(plan.wake)
    }

    async fn carry_out(
        &self,
        key: &Key,
        set: &StatefulSet,
        templates: &Templates,
        actions: Vec<Action>,
    ) -> Result<(), ReconcileError> {
        let actions = actions.into_iter().map(|action| async move {
            match action {
                Action::Create { ordinal, updated } => {
                    let (template, revision) = if updated {
                        (&templates.update, &templates.names.1)
                    } else {
                        (&templates.current, &templates.names.0)
                    };
                    let pod = pod::pod(set, template, revision, ordinal);
                    self.create(key, set, ordinal, &pod).await
                }
                Action::Delete(pod) => self.delete(key, set, &pod).await,
            }
        });
        let results = futures::future::join_all(actions).await;
        results.into_iter().collect()
    }

    /// Makes the claims of an ordinal, then its pod.
    async fn create(
        &self,
        key: &Key,
        set: &StatefulSet,
        ordinal: i32,
        pod: &core::Pod,
    ) -> Result<(), ReconcileError> {
        let (name, of) = (pod.metadata.name(), set.metadata.name());
        let claims = self.owners.api::<core::PersistentVolumeClaim>(key);
        for claim in claims::claims(set, ordinal) {
            let made = claims.create(&PostParams::default(), &claim).await;
            match made {
                Err(error) if !is_already_exists(&error) => {
                    let claim = claim.metadata.name();
                    let text = format!(
                        "create Claim {claim} Pod {name} in StatefulSet {of} failed error: {}",
                        message(&error)
                    );
                    self.owners.warning(set, "FailedCreate", text);
                    return Err(error.into());
                }
                Ok(_) => {
                    let claim = claim.metadata.name();
                    let text =
                        format!("create Claim {claim} Pod {name} in StatefulSet {of} success");
                    self.owners.normal(set, "SuccessfulCreate", text);
                }
                Err(_) => {}
            }
        }
        let api = self.owners.api::<core::Pod>(key);
        match api.create(&PostParams::default(), pod).await {
            Ok(_) => {
                let text = format!("create Pod {name} in StatefulSet {of} successful");
                self.owners.normal(set, "SuccessfulCreate", text);
                Ok(())
            }
            // The cache does not show it yet, or somebody else's pod has the name.
            Err(error) if is_already_exists(&error) => Err(error.into()),
            Err(error) => {
                let text = format!(
                    "create Pod {name} in StatefulSet {of} failed error: {}",
                    message(&error)
                );
                self.owners.warning(set, "FailedCreate", text);
                Err(error.into())
            }
        }
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), ReconcileError> {
        let api = self.owners.api::<core::Pod>(key);
        let name = pod.metadata.name();
        let params = DeleteParams::default().preconditions(Preconditions {
            uid: Some(pod.metadata.uid().to_owned()),
            resource_version: None,
        });
        let of = set.metadata.name();
        match unless_gone(api.delete(name, &params).await) {
            Ok(_) => {
                let text = format!("delete Pod {name} in StatefulSet {of} successful");
                self.owners.normal(set, "SuccessfulDelete", text);
                Ok(())
            }
            Err(error) => {
                let text = format!(
                    "delete Pod {name} in StatefulSet {of} failed error: {}",
                    message(&error)
                );
                self.owners.warning(set, "FailedDelete", text);
                Err(error.into())
            }
        }
    }

    /// Has the claims of each pod go with whom the policy says now, of a set that is there to stay.
    async fn own_claims(
        &self,
        key: &Key,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        if set.metadata.is_terminating() {
            return Ok(());
        }
        let api = self.owners.api::<core::PersistentVolumeClaim>(key);
        for pod in pods {
            let Some(ordinal) = ordinal(set.metadata.name(), pod.metadata.name()) else {
                continue;
            };
            let is_surplus = !plan::ordinals(set).contains(&ordinal);
            for (_, name) in claims::names(set, ordinal) {
                let place = Key::new(&key.namespace, &name);
                let known = match self.context.informers.claims.get(&place) {
                    Some(known) => known.metadata.clone(),
                    // One that was made just now has its owners; but this is the last chance before the pod goes.
                    None if is_surplus => match api.get_opt(&name).await? {
                        Some(found) => found.metadata,
                        None => continue,
                    },
                    None => continue,
                };
                let Some(owners) = claims::owners(set, pod, is_surplus, known.owners()) else {
                    continue;
                };
                let patch = json!({"metadata": {
                    "uid": known.uid, "resourceVersion": known.resource_version, "ownerReferences": owners}});
                let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
                unless_gone(api.patch(&name, &params, &patch).await)?;
            }
        }
        Ok(())
    }
}
