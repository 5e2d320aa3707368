//! The pod of an ordinal.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    self as core, PersistentVolumeClaimVolumeSource, PodTemplateSpec, Volume,
};

use super::claims;
use crate::controllers::history::HASH;
use crate::controllers::runtime::metadata::Metadata;
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
    let volumes = spec.volumes.get_or_insert_default();
    for (template, claim_name) in claims::names(set, ordinal) {
        volumes.retain(|volume| volume.name != template.metadata.name());
        volumes.push(Volume {
            name: template.metadata.name().to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name,
                read_only: None,
            }),
            ..Volume::default()
        });
    }
    spec.volumes = spec.volumes.take().filter(|volumes| !volumes.is_empty());
    pod.metadata.name = Some(name);
    pod
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_has_a_name_and_mounts_claims_of_its_own() {
        let set: StatefulSet = serde_json::from_value(json!({
            "metadata": {"name": "db", "namespace": "x", "uid": "u"},
            "spec": {
                "serviceName": "db-svc", "selector": {"matchLabels": {"app": "db"}},
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
    }
}
