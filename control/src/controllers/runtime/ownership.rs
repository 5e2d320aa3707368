//! Which objects an owner manages: those that say so and match its selector, and orphans that match.
//!
//! An object has one controller at most. An owner adopts matching orphans and releases what no longer
//! matches, unless it is being deleted. Source: upstream's controller reference manager.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;
use windlass_api::label_selector::LabelSelector;

use super::informer::Cached;
use super::metadata::Metadata;
use super::worker::{ReconcileError, unless_gone};

/// What belongs to an owner, and what is to be done so that it does.
#[derive(Debug)]
pub struct Claims<C> {
    /// Belongs to it already.
    pub owned: Vec<Arc<C>>,
    /// Orphans that it should take.
    pub adopt: Vec<Arc<C>>,
    /// Its own that no longer match.
    pub release: Vec<Arc<C>>,
    /// What those that are taken get, and those let go lose.
    pub finalizer: Option<&'static str>,
}

/// Sorts `candidates` into what `owner` has, should take and should let go.
#[must_use]
pub fn claim<C: Cached>(
    owner: &ObjectMeta,
    selector: &LabelSelector,
    candidates: Vec<Arc<C>>,
) -> Claims<C> {
    let mut claims = Claims {
        owned: Vec::new(),
        adopt: Vec::new(),
        release: Vec::new(),
        finalizer: None,
    };
    for candidate in candidates {
        let metadata = candidate.metadata();
        let matches = selector.matches(metadata.labels());
        match metadata.controller() {
            Some(controller) if controller.uid != owner.uid() => {}
            Some(_) if matches => claims.owned.push(candidate),
            Some(_) if owner.is_terminating() => {}
            Some(_) => claims.release.push(candidate),
            None if !matches || owner.is_terminating() || metadata.is_terminating() => {}
            None => claims.adopt.push(candidate),
        }
    }
    claims
}

impl<C: Cached> Claims<C> {
    /// Carries the claims out; answers everything that belongs to the owner afterwards. `api` gives the
    /// objects, `owners` the owners: before anything is adopted the owner is read anew, because the
    /// cache may not know yet that it is gone.
    ///
    /// # Errors
    /// When the API refuses, or the owner is not what the cache says.
    pub async fn carry_out<K, O>(
        self,
        api: &Api<K>,
        owners: &Api<O>,
        reference: &OwnerReference,
    ) -> Result<Vec<Arc<C>>, ReconcileError>
    where
        K: Clone + std::fmt::Debug + DeserializeOwned,
        O: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let mut owned = self.owned;
        if !self.adopt.is_empty() {
            may_adopt(owners, reference).await?;
        }
        for object in self.adopt {
            let finalizers: Vec<_> = self.finalizer.into_iter().collect();
            let patch = json!({"metadata": {
                "ownerReferences": [reference], "finalizers": finalizers,
                "uid": object.metadata().uid(),
            }});
            if patch_metadata(api, &object, &patch).await? {
                owned.push(object);
            }
        }
        for object in self.release {
            let finalizers: Vec<_> = self.finalizer.into_iter().collect();
            let patch = json!({"metadata": {
                "ownerReferences": [{"$patch": "delete", "uid": reference.uid}],
                "$deleteFromPrimitiveList/finalizers": finalizers,
                "uid": object.metadata().uid(),
            }});
            patch_metadata(api, &object, &patch).await?;
        }
        Ok(owned)
    }
}

async fn may_adopt<O>(owners: &Api<O>, reference: &OwnerReference) -> Result<(), ReconcileError>
where
    O: kube::Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    let owner = owners.get(&reference.name).await?;
    let found = owner.meta();
    if found.uid() != reference.uid || found.is_terminating() {
        return Err(ReconcileError::Object(format!(
            "{} {} is gone or being deleted and adopts nothing",
            reference.kind, reference.name
        )));
    }
    Ok(())
}

/// Whether the object was there to be patched.
async fn patch_metadata<C: Cached, K>(
    api: &Api<K>,
    object: &Arc<C>,
    patch: &serde_json::Value,
) -> Result<bool, kube::Error>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let name = object.metadata().name();
    let patched = api
        .patch(name, &PatchParams::default(), &Patch::Strategic(patch))
        .await;
    Ok(unless_gone(patched)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::runtime::pod::Pod;

    fn pod(name: &str, label: &str, owner: Option<&str>, deleting: bool) -> Arc<Pod> {
        let owners = owner.map(|uid| {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": uid, "controller": true}])
        });
        let metadata = json!({
            "name": name, "labels": {"app": label}, "ownerReferences": owners.unwrap_or(json!([])),
            "deletionTimestamp": deleting.then_some("2026-01-01T00:00:00Z"),
        });
        Arc::new(Pod {
            metadata: serde_json::from_value(metadata).unwrap(),
            ..Pod::default()
        })
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().map(|pod| pod.metadata.name()).collect()
    }

    #[test]
    fn an_owner_takes_matching_orphans_and_lets_go_of_strangers() {
        let selector = LabelSelector::parse("app=a").unwrap();
        let candidates = || {
            vec![
                pod("mine", "a", Some("1"), false),
                pod("mine-going", "a", Some("1"), true),
                pod("mine-relabelled", "b", Some("1"), false),
                pod("others", "a", Some("2"), false),
                pod("orphan", "a", None, false),
                pod("orphan-going", "a", None, true),
                pod("orphan-other", "b", None, false),
            ]
        };
        let mut owner: ObjectMeta = serde_json::from_value(json!({"uid": "1"})).unwrap();
        let claims = claim(&owner, &selector, candidates());
        assert_eq!(names(&claims.owned), ["mine", "mine-going"]);
        assert_eq!(names(&claims.adopt), ["orphan"]);
        assert_eq!(names(&claims.release), ["mine-relabelled"]);
        owner = serde_json::from_value(
            json!({"uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        )
        .unwrap();
        let claims = claim(&owner, &selector, candidates());
        assert!(claims.adopt.is_empty() && claims.release.is_empty());
    }
}
