//! ControllerRevisions: each template that a StatefulSet or a DaemonSet has had, as the patch that puts it
//! back. `kubectl rollout history` and `undo` read them.
//!
//! The revision of the current template is the one with the highest number: a template that comes back gets
//! its old revision, renumbered. A revision is named after a hash of the template; should another template
//! have the same, the owner's collision count changes the hash.

use std::collections::HashSet;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::runtime::informer::{Cached, Index, Informer};
use super::runtime::key::Key;
use super::runtime::metadata::{Metadata, controller_reference};
use super::runtime::ownership::claim;
use super::runtime::pod_owners::{PodOwner, PodOwners};
use super::runtime::template_hash::hash;
use super::runtime::worker::{ReconcileError, is_already_exists, unless_gone};

/// Label of revisions and of a DaemonSet's pods: the hash.
pub(super) const HASH: &str = "controller-revision-hash";
/// Label of a StatefulSet's revisions: the hash, too.
pub(super) const STATEFUL_HASH: &str = "controller.kubernetes.io/hash";

/// Hashes tried for one template.
const ATTEMPTS: usize = 8;

/// The revisions of an owner.
#[derive(Debug)]
pub(super) struct History {
    /// That of the current template.
    pub(super) current: Arc<ControllerRevision>,
    /// All others, oldest first.
    pub(super) others: Vec<Arc<ControllerRevision>>,
    /// How often another template had the same hash.
    pub(super) collisions: Option<i32>,
}

impl History {
    /// The revision of that name.
    pub(super) fn named(&self, name: &str) -> Option<&Arc<ControllerRevision>> {
        let mut all = self.others.iter().chain([&self.current]);
        all.find(|revision| revision.metadata.name() == name)
    }
}

/// An owner with a history.
pub(super) struct Owner<'a, K: PodOwner> {
    pub(super) owners: &'a PodOwners<K>,
    pub(super) revisions: &'a Informer<ControllerRevision>,
    pub(super) object: &'a K,
    pub(super) template: &'a PodTemplateSpec,
    /// The label under which its revisions carry their hash.
    pub(super) label: &'static str,
}

impl<K: PodOwner> Owner<'_, K> {
    fn metadata(&self) -> &ObjectMeta {
        Cached::metadata(self.object)
    }

    fn api(&self) -> Api<ControllerRevision> {
        self.owners.api(&Key::of(self.metadata()))
    }

    /// The history, with a revision for the current template.
    ///
    /// # Errors
    /// When the API refuses.
    pub(super) async fn history(&self, collisions: Option<i32>) -> Result<History, ReconcileError> {
        let mut all = self.claim().await?;
        all.sort_by_key(|revision| (revision.revision, revision.metadata.created()));
        let data = data_of(self.template);
        let next = all.last().map_or(1, |last| last.revision + 1);
        let known = all.iter().rposition(|revision| is_of(revision, &data));
        let mut collisions = collisions;
        let current = match known {
            Some(at) => {
                let found = all.remove(at);
                if found.revision + 1 == next {
                    found
                } else {
                    self.renumber(&found, next).await?
                }
            }
            None => self.create(&data, next, &mut collisions).await?,
        };
        Ok(History {
            current,
            others: all,
            collisions,
        })
    }

    async fn claim(&self) -> Result<Vec<Arc<ControllerRevision>>, ReconcileError> {
        let metadata = self.metadata();
        let namespace = metadata.namespace().to_owned();
        let mut candidates = self
            .revisions
            .by(&Index::Controller(metadata.uid().to_owned()));
        candidates.extend(self.revisions.by(&Index::Orphan(namespace)));
        let claims = claim(metadata, &self.object.selector()?, candidates);
        let owners = self.owners.api::<K>(&Key::of(metadata));
        let reference = controller_reference(&K::api_version(&()), &K::kind(&()), metadata);
        claims.carry_out(&self.api(), &owners, &reference).await
    }

    async fn renumber(
        &self,
        found: &ControllerRevision,
        number: i64,
    ) -> Result<Arc<ControllerRevision>, ReconcileError> {
        let mut changed = found.clone();
        changed.revision = number;
        let name = changed.metadata.name().to_owned();
        let (api, params) = (self.api(), PostParams::default());
        Ok(Arc::new(api.replace(&name, &params, &changed).await?))
    }

    async fn create(
        &self,
        data: &Value,
        number: i64,
        collisions: &mut Option<i32>,
    ) -> Result<Arc<ControllerRevision>, ReconcileError> {
        for _ in 0..ATTEMPTS {
            let revision = self.revision(data, number, *collisions);
            let created = self.api().create(&PostParams::default(), &revision).await;
            match created {
                Ok(created) => return Ok(Arc::new(created)),
                Err(error) if is_already_exists(&error) => {}
                Err(error) => return Err(error.into()),
            }
            let found = self.api().get(revision.metadata.name()).await?;
            // The cache is behind, or another template has the same hash.
            if is_of(&found, data) {
                return Ok(Arc::new(found));
            }
            *collisions = Some(collisions.unwrap_or(0).saturating_add(1));
        }
        Err(ReconcileError::Object("no free name for a revision".into()))
    }

    fn revision(&self, data: &Value, number: i64, collisions: Option<i32>) -> ControllerRevision {
        let owner = self.metadata();
        let hash = hash(self.template, collisions);
        let of_template = self.template.metadata.as_ref();
        let mut labels = of_template
            .and_then(|of| of.labels.clone())
            .unwrap_or_default();
        labels.insert(self.label.to_owned(), hash.clone());
        let reference = controller_reference(&K::api_version(&()), &K::kind(&()), owner);
        ControllerRevision {
            metadata: ObjectMeta {
                name: Some(format!("{}-{hash}", owner.name())),
                namespace: owner.namespace.clone(),
                labels: Some(labels),
                annotations: owner.annotations.clone(),
                owner_references: Some(vec![reference]),
                ..ObjectMeta::default()
            },
            data: Some(RawExtension(data.clone())),
            revision: number,
        }
    }

    /// Deletes the oldest revisions beyond `limit` that no pod is of.
    ///
    /// # Errors
    /// When the API refuses.
    pub(super) async fn truncate(
        &self,
        history: &History,
        live: impl Fn(&ControllerRevision) -> bool,
        limit: i32,
    ) -> Result<(), ReconcileError> {
        let dead: Vec<_> = history
            .others
            .iter()
            .filter(|revision| !live(revision))
            .collect();
        let limit = usize::try_from(limit).unwrap_or(0);
        let surplus = dead.len().saturating_sub(limit);
        for revision in dead.into_iter().take(surplus) {
            let params = DeleteParams::default();
            unless_gone(self.api().delete(revision.metadata.name(), &params).await)?;
        }
        Ok(())
    }
}

/// The revisions that pods are of, by the value of their label.
pub(super) fn live<'a>(pods: impl Iterator<Item = &'a ObjectMeta>) -> HashSet<String> {
    pods.filter_map(|pod| pod.labels().get(HASH).cloned())
        .collect()
}

/// The patch that puts a template back.
fn data_of(template: &PodTemplateSpec) -> Value {
    // Serializing a value of this type cannot fail: all its keys are text.
    let mut template = serde_json::to_value(template).unwrap_or_default();
    if let Some(template) = template.as_object_mut() {
        template.insert("$patch".into(), "replace".into());
    }
    json!({ "spec": { "template": template } })
}

fn is_of(revision: &ControllerRevision, data: &Value) -> bool {
    revision.data.as_ref().is_some_and(|of| of.0 == *data)
}

/// The template that a revision holds; `None` when it holds none.
pub(super) fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    if let Some(template) = template.as_object_mut() {
        template.remove("$patch");
    }
    serde_json::from_value(template).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_gives_back_the_template_it_was_made_of() {
        let template: PodTemplateSpec = serde_json::from_value(json!({
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
        }))
        .unwrap();
        let data = data_of(&template);
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        let revision = ControllerRevision {
            data: Some(RawExtension(data.clone())),
            ..ControllerRevision::default()
        };
        assert!(is_of(&revision, &data));
        assert_eq!(template_of(&revision), Some(template));
        assert_eq!(template_of(&ControllerRevision::default()), None);
    }
}
