//! The claims of an ordinal, and what they go with.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::controllers::runtime::metadata::{Metadata, controller_reference};
use crate::controllers::runtime::pod::Pod;

/// The templates of the set, each with the name of its claim for an ordinal.
pub(super) fn names(
    set: &StatefulSet,
    ordinal: i32,
) -> impl Iterator<Item = (&PersistentVolumeClaim, String)> {
    let spec = set.spec.as_ref().into_iter();
    let templates = spec.flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    templates.map(move |template| {
        let (of, set) = (template.metadata.name(), set.metadata.name());
        (template, format!("{of}-{set}-{ordinal}"))
    })
}

/// The claims of an ordinal, one for each template.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let spec = set.spec.as_ref();
    let selected = spec.and_then(|spec| spec.selector.match_labels.clone());
    let claim = |(template, name): (&PersistentVolumeClaim, String)| {
        let mut claim = template.clone();
        claim.metadata.name = Some(name);
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(selected.clone().into_iter().flatten());
        if policy(set).0 == "Delete" {
            claim.metadata.owner_references = Some(vec![reference_to(set)]);
        }
        claim.status = None;
        claim
    };
    names(set, ordinal).map(claim).collect()
}

/// The owners that a claim is to have by the set's policy; `None` if it has them. `pod` is the one that mounts it, and
/// `is_surplus` if it is beyond the wanted number.
///
/// A claim that somebody else manages gets no owner of ours.
pub(super) fn owners(
    set: &StatefulSet,
    pod: &Pod,
    is_surplus: bool,
    known: &[OwnerReference],
) -> Option<Vec<OwnerReference>> {
    let (deleted, scaled) = policy(set);
    let wanted = if is_surplus && scaled == "Delete" {
        Some(controller_reference("v1", "Pod", &pod.metadata))
    } else {
        (deleted == "Delete").then(|| reference_to(set))
    };
    let ours = [set.metadata.uid(), pod.metadata.uid()];
    let others = known.iter().filter(|of| !ours.contains(&&*of.uid));
    let mut owners: Vec<_> = others.cloned().collect();
    if owners.iter().all(|of| of.controller != Some(true)) {
        owners.extend(wanted);
    }
    (owners != known).then_some(owners)
}

fn reference_to(set: &StatefulSet) -> OwnerReference {
    controller_reference("apps/v1", "StatefulSet", &set.metadata)
}

/// What becomes of claims when the set is deleted, and when it is made smaller.
fn policy(set: &StatefulSet) -> (&str, &str) {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deleted = policy.and_then(|of| of.when_deleted.as_deref());
    let scaled = policy.and_then(|of| of.when_scaled.as_deref());
    (deleted.unwrap_or("Retain"), scaled.unwrap_or("Retain"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_goes_with_whom_the_policy_says() {
        let pod = Pod {
            metadata: serde_json::from_value(json!({"name": "db-2", "uid": "pod"})).unwrap(),
            ..Pod::default()
        };
        let set = |deleted: &str, scaled: &str| -> StatefulSet {
            serde_json::from_value(json!({
                "metadata": {"name": "db", "namespace": "x", "uid": "set"},
                "spec": {"selector": {"matchLabels": {"app": "db"}}, "template": {},
                    "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
                    "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]},
            }))
            .unwrap()
        };
        let uids = |owners: &[OwnerReference]| {
            let uids: Vec<_> = owners.iter().map(|of| of.uid.clone()).collect();
            uids.join(" ")
        };
        let stranger = OwnerReference {
            uid: "stranger".into(),
            ..OwnerReference::default()
        };
        for (deleted, scaled, wanted, surplus) in [
            ("Retain", "Retain", "", ""),
            ("Delete", "Retain", "set", "set"),
            ("Retain", "Delete", "", "pod"),
            ("Delete", "Delete", "set", "pod"),
        ] {
            let set = set(deleted, scaled);
            let claim = claims(&set, 2).remove(0);
            assert_eq!(claim.metadata.name(), "data-db-2");
            assert_eq!(claim.metadata.labels()["app"], "db");
            assert_eq!(uids(claim.metadata.owners()), wanted);
            assert_eq!(owners(&set, &pod, false, claim.metadata.owners()), None);
            for (is_surplus, expected) in [(false, wanted), (true, surplus)] {
                // Whatever it was before.
                for before in [
                    reference_to(&set),
                    controller_reference("v1", "Pod", &pod.metadata),
                ] {
                    let before = [stranger.clone(), before];
                    let after = owners(&set, &pod, is_surplus, &before);
                    let after = after.unwrap_or_else(|| before.to_vec());
                    assert_eq!(uids(&after), format!("stranger {expected}").trim());
                    assert_eq!(owners(&set, &pod, is_surplus, &after), None);
                }
            }
            let manager = OwnerReference {
                controller: Some(true),
                ..stranger.clone()
            };
            assert_eq!(owners(&set, &pod, true, &[manager]), None);
        }
    }
}
