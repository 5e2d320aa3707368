//! StatefulSet.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, objects_mut};
use super::{default, integer, pod_spec, workload};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, NameRule, Strategy};
use crate::registry::validation;

struct StatefulSet;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("apps", "v1", "StatefulSet");
    workload::scaled(Kind::namespaced(gvk, "statefulsets", &StatefulSet))
        .short_names(&["sts"])
        .categories(&["all"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Ready", "string", "Ready pods of wanted pods."),
    AGE,
    workload::CONTAINERS,
    workload::IMAGES,
];

const RETENTION: &[&str] = &["Retain", "Delete"];

const COUNTS: &[&str] = &[
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
];
const PARTS: &[(&str, &str, &str)] = &[
    ("readyReplicas", "replicas", workload::MORE_THAN_ALL),
    ("currentReplicas", "replicas", workload::MORE_THAN_ALL),
    ("updatedReplicas", "replicas", workload::MORE_THAN_ALL),
    ("availableReplicas", "replicas", workload::MORE_THAN_ALL),
    (
        "availableReplicas",
        "readyReplicas",
        "cannot be greater than status.readyReplicas",
    ),
];

/// Fields of the spec that may change.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

impl Strategy for StatefulSet {
    fn set_defaults(&self, object: &mut Value) {
        workload::set_defaults(object);
        let spec = meta::member_mut(object, "spec");
        default(spec, "podManagementPolicy", "OrderedReady");
        default(spec, "revisionHistoryLimit", 10);
        for (field, set) in [
            (
                "updateStrategy",
                set_strategy_defaults as fn(&mut Map<_, _>),
            ),
            (
                "persistentVolumeClaimRetentionPolicy",
                set_retention_defaults,
            ),
        ] {
            default(spec, field, json!({}));
            if let Some(member) = spec.get_mut(field).and_then(Value::as_object_mut) {
                set(member);
            }
        }
        for claim in objects_mut(spec, "volumeClaimTemplates") {
            set_claim_defaults(claim);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        if let Some(object) = object.as_object_mut() {
            let status = json!({"replicas": 0, "availableReplicas": 0});
            object.insert("status".into(), status);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        let policy = spec.child("podManagementPolicy");
        if !["OrderedReady", "Parallel"].contains(&policy.text()) {
            errors.push(policy.invalid("must be 'OrderedReady' or 'Parallel'"));
        }
        validate_strategy(&spec.child("updateStrategy"), &mut errors);
        let retention = spec.child("persistentVolumeClaimRetentionPolicy");
        for when in ["whenDeleted", "whenScaled"] {
            errors.extend(retention.child(when).one_of(RETENTION));
        }
        workload::non_negative(&spec, &["replicas", "minReadySeconds"], &mut errors);
        let ordinals = spec.child("ordinals");
        errors.extend(ordinals.child("start").non_negative());
        let service = spec.child("serviceName");
        errors.extend(service.follows_if_set(names::dns1123_subdomain));
        workload::validate_selector(&spec, "statefulset", &mut errors);
        workload::validate_match(&spec, &mut errors);
        // As upstream: the rest of the template is checked when pods are made from it, for only then
        // are the volumes of the claims there.
        let template = spec.child("template");
        let metadata = template.child("metadata");
        let labels = metadata.child("labels").value();
        let path = "spec.template.labels";
        errors.extend(validation::labels(path, Some(labels)));
        workload::validate_always(&template, "StatefulSet", &mut errors);
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            return workload::validate_status(old, new, COUNTS, PARTS);
        }
        if fixed(old) == fixed(new) {
            return Vec::new();
        }
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        vec![FieldError::forbidden("spec", detail)]
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let root = Field::root("", object);
        let spec = root.child("spec");
        let mut found = pod_spec::warnings(&spec.child("template"));
        let limit = spec.integer_of("revisionHistoryLimit");
        if limit.is_some_and(|limit| limit < 0) {
            let text = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
            found.push(text.into());
        }
        found
    }

    fn has_status(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [containers, images, _] = workload::wide_cells(object);
        let ready = integer(object, "/status/readyReplicas");
        let wanted = integer(object, "/spec/replicas");
        vec![
            meta::name(object).into(),
            format!("{ready}/{wanted}").into(),
            age(object, now).into(),
            containers,
            images,
        ]
    }
}

/// The members of the spec that may not change, by name.
fn fixed(object: &Value) -> std::collections::BTreeMap<&String, &Value> {
    let spec = object.get("spec").and_then(Value::as_object);
    let members = spec.into_iter().flatten();
    members
        .filter(|(name, value)| !MUTABLE.contains(&name.as_str()) && !value.is_null())
        .collect()
}

fn set_strategy_defaults(strategy: &mut Map<String, Value>) {
    default(strategy, "type", "RollingUpdate");
    if strategy.get("type") != Some(&"RollingUpdate".into()) {
        return;
    }
    default(strategy, "rollingUpdate", json!({}));
    let rolling = strategy
        .get_mut("rollingUpdate")
        .and_then(Value::as_object_mut);
    if let Some(rolling) = rolling {
        default(rolling, "partition", 0);
        default(rolling, "maxUnavailable", 1);
    }
}

fn set_retention_defaults(policy: &mut Map<String, Value>) {
    default(policy, "whenDeleted", "Retain");
    default(policy, "whenScaled", "Retain");
}

fn set_claim_defaults(claim: &mut Map<String, Value>) {
    claim.insert("apiVersion".into(), "v1".into());
    claim.insert("kind".into(), "PersistentVolumeClaim".into());
    default(claim, "spec", json!({}));
    default(claim, "status", json!({}));
    for (member, field, value) in [
        ("spec", "volumeMode", "Filesystem"),
        ("status", "phase", "Pending"),
    ] {
        if let Some(member) = claim.get_mut(member).and_then(Value::as_object_mut) {
            default(member, field, value);
        }
    }
}

fn validate_strategy(strategy: &Field<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text_of("type") {
        "" => errors.push(strategy.required("")),
        "OnDelete" => {
            if rolling.is_set() {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(rolling.invalid(detail));
            }
        }
        "RollingUpdate" => {
            errors.extend(rolling.child("partition").non_negative());
            let unavailable = rolling.child("maxUnavailable");
            if !unavailable.is_set() {
                return;
            }
            workload::validate_amount(&unavailable, errors);
            if workload::amount(unavailable.value()) == 0 {
                errors.push(unavailable.invalid("cannot be 0"));
            }
            workload::validate_part(&unavailable, errors);
        }
        _ => {
            let detail = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(strategy.invalid(detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stateful_set() -> Value {
        let mut object = json!({
            "metadata": {"name": "db"},
            "spec": {
                "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "db", "image": "db:1"}]},
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}],
            },
        });
        StatefulSet.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_stateful_set_with_defaults_is_valid() {
        let object = stateful_set();
        assert_eq!(StatefulSet.validate(&object), []);
        let spec = &object["spec"];
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(spec["updateStrategy"]["rollingUpdate"]["partition"], 0);
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(claim["spec"]["volumeMode"], "Filesystem");
    }

    #[test]
    fn only_some_fields_may_change() {
        let old = stateful_set();
        let mut new = old.clone();
        new["spec"]["replicas"] = 5.into();
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "db:2".into();
        assert_eq!(StatefulSet.validate_update(&old, &new, Endpoint::Main), []);
        new["spec"]["serviceName"] = "other".into();
        let found = StatefulSet.validate_update(&old, &new, Endpoint::Main);
        assert_eq!(found[0].path, "spec");
        assert_eq!(found[0].reason(), "FieldValueForbidden");
    }
}
