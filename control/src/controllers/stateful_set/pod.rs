//! The pod of an ordinal and the claims that are its own.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    self as core, PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

use crate::controllers::history::HASH;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;
use crate::controllers::runtime::pod_owners::PodOwners;

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The pod of an ordinal, of that revision's template.
pub(super) fn pod(
    set: &StatefulSet,
    template: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> core::Pod {
    let mut pod = PodOwners::pod(set, Some(template));
    let name = format!("{}-{ordinal}", set.metadata.name());
    pod.metadata.generate_name = None;
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(HASH.into(), revision.into());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let claims = claims(set, ordinal);
    let templates = set
        .spec
        .iter()
        .flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let volumes = spec.volumes.get_or_insert_default();
    for (template, claim) in templates.zip(claims) {
        volumes.retain(|volume| volume.name != template.metadata.name());
        volumes.push(Volume {
            name: template.metadata.name().to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.metadata.name().to_owned(),
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    spec.volumes = spec.volumes.take().filter(|volumes| !volumes.is_empty());
    pod.metadata.name = Some(name);
    pod
}

/// The claims of an ordinal, one for each template.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let spec = set.spec.as_ref();
    let templates = spec
        .into_iter()
        .flat_map(|spec| spec.volume_claim_templates.iter().flatten());
    let selected = spec.and_then(|spec| spec.selector.match_labels.clone());
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        let name = format!(
            "{}-{}-{ordinal}",
            template.metadata.name(),
            set.metadata.name()
        );
        claim.metadata.name = Some(name);
        claim.metadata.namespace.clone_from(&set.metadata.namespace);
        let labels = claim.metadata.labels.get_or_insert_default();
        labels.extend(selected.clone().into_iter().flatten());
        if policy(set).0 == "Delete" {
            let owner = reference(
                "apps/v1",
                "StatefulSet",
                set.metadata.name(),
                set.metadata.uid(),
            );
            claim.metadata.owner_references = Some(vec![owner]);
        }
        claim.status = None;
        claim
    };
    templates.map(claim).collect()
}

/// What makes a claim go with a pod that is not wanted any more; `None` if it is to stay.
pub(super) fn scaled_down_patch(set: &StatefulSet, pod: &Pod) -> Option<Value> {
    let owner = reference("v1", "Pod", pod.metadata.name(), pod.metadata.uid());
    (policy(set).1 == "Delete").then(|| json!({ "metadata": { "ownerReferences": [owner] } }))
}

/// What becomes of claims when the set is deleted, and when it is made smaller.
fn policy(set: &StatefulSet) -> (&str, &str) {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let deleted = policy.and_then(|of| of.when_deleted.as_deref());
    let scaled = policy.and_then(|of| of.when_scaled.as_deref());
    (deleted.unwrap_or("Retain"), scaled.unwrap_or("Retain"))
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_a_name_and_claims_of_its_own() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "x", "uid": "u"},
            "spec": {
                "serviceName": "db-svc", "selector": {"matchLabels": {"app": "db"}},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Delete"},
                "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
            },
        }))
        .unwrap();
        let template = &set.spec.as_ref().unwrap().template;
        let made = serde_json::to_value(pod(&set, template, "db-abc", 2)).unwrap();
        assert_eq!(made["metadata"]["name"], "db-2");
        let labels = json!({"app": "db", POD_NAME: "db-2", POD_INDEX: "2", HASH: "db-abc"});
        assert_eq!(made["metadata"]["labels"], labels);
        assert_eq!(
            (&made["spec"]["hostname"], &made["spec"]["subdomain"]),
            (&json!("db-2"), &json!("db-svc"))
        );
        let volumes = json!([{"name": "tmp", "emptyDir": {}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-2"}}]);
        assert_eq!(made["spec"]["volumes"], volumes);
        let claim = &claims(&set, 2)[0];
        assert_eq!(claim.metadata.name(), "data-db-2");
        assert_eq!(claim.metadata.labels()["app"], "db");
        assert_eq!(claim.metadata.owners()[0].name, "db");
        let patch = scaled_down_patch(&set, &Pod::default()).unwrap();
        assert_eq!(patch["metadata"]["ownerReferences"][0]["kind"], "Pod");
    }
}
