//! DaemonSet.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::resource::GroupVersionKind;

use super::field::{Errors, Field, pointer};
use super::{default, integer, label_selector, pod_spec, workload};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct DaemonSet;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("apps", "v1", "DaemonSet");
    Kind::namespaced(gvk, "daemonsets", &DaemonSet)
        .short_names(&["ds"])
        .categories(&["all"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Desired", "integer", "Nodes that should run the pod."),
    Column::new(
        "Current",
        "integer",
        "Nodes that should and do run the pod.",
    ),
    Column::new("Ready", "integer", "Nodes whose pod is ready."),
    Column::new(
        "Up-to-date",
        "integer",
        "Nodes with a pod of the current template.",
    ),
    Column::new(
        "Available",
        "integer",
        "Nodes whose pod is ready for long enough.",
    ),
    Column::new("Node Selector", "string", "Labels of the nodes."),
    AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    workload::SELECTOR,
];

const STRATEGIES: &[&str] = &["RollingUpdate", "OnDelete"];

const COUNTS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

/// Counts changes of the template; a field of the spec in older versions, an annotation in this one.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Strategy for DaemonSet {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        workload::set_template_defaults(spec);
        default(spec, "revisionHistoryLimit", 10);
        default(spec, "updateStrategy", json!({}));
        let strategy = spec
            .get_mut("updateStrategy")
            .and_then(Value::as_object_mut);
        if let Some(strategy) = strategy {
            set_strategy_defaults(strategy);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        set_template_generation(object, template_generation(object).max(1));
        if let Some(object) = object.as_object_mut() {
            let status = json!({
                "currentNumberScheduled": 0, "numberMisscheduled": 0,
                "desiredNumberScheduled": 0, "numberReady": 0,
            });
            object.insert("status".into(), status);
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, endpoint: Endpoint) {
        if endpoint == Endpoint::Status {
            return;
        }
        let before = template_generation(old);
        let changed = old.pointer("/spec/template") != new.pointer("/spec/template");
        // A client may count on, as older ones do, but not back.
        let after = if changed && template_generation(new) <= before {
            before + 1
        } else if changed {
            template_generation(new)
        } else {
            before
        };
        set_template_generation(new, after);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        workload::validate_selector(&spec, "daemonset", &mut errors);
        workload::validate_match(&spec, &mut errors);
        let template = spec.child("template");
        pod_spec::validate_template(&template, &mut errors);
        workload::validate_always(&template, "DaemonSet", &mut errors);
        let numbers = ["minReadySeconds", "revisionHistoryLimit"];
        workload::non_negative(&spec, &numbers, &mut errors);
        validate_strategy(&spec.child("updateStrategy"), &mut errors);
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            workload::validate_status(old, new, COUNTS, &[])
        } else {
            workload::validate_update(old, new)
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let root = Field::root("", object);
        let spec = root.child("spec");
        pod_spec::warnings(&spec.child("template"))
    }

    fn has_status(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let [containers, images, selector] = workload::wide_cells(object);
        let status = |field: &str| integer(object, &format!("/status/{field}")).into();
        let nodes = pointer(object, "/spec/template/spec/nodeSelector");
        vec![
            meta::name(object).into(),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            label_selector::shown(nodes),
            age(object, now).into(),
            containers,
            images,
            selector,
        ]
    }
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
        default(rolling, "maxUnavailable", 1);
        default(rolling, "maxSurge", 0);
    }
}

fn template_generation(object: &Value) -> i64 {
    let annotations = meta::get(object, "annotations");
    let annotation = annotations.and_then(|annotations| annotations.get(TEMPLATE_GENERATION));
    let text = annotation.and_then(Value::as_str).unwrap_or_default();
    text.parse().unwrap_or_default()
}

fn set_template_generation(object: &mut Value, generation: i64) {
    let mut annotations = match meta::get(object, "annotations") {
        Some(Value::Object(annotations)) => annotations.clone(),
        _ => Map::new(),
    };
    annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
    meta::set(object, "annotations", annotations);
}

fn validate_strategy(strategy: &Field<'_, '_>, errors: &mut Errors) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.text_of("type") {
        "OnDelete" => return,
        "RollingUpdate" if !rolling.is_set() => errors.push(rolling.required("")),
        "RollingUpdate" => {}
        _ => errors.push(strategy.not_supported(STRATEGIES)),
    }
    if !rolling.is_set() {
        return;
    }
    let (unavailable, surge) = (rolling.child("maxUnavailable"), rolling.child("maxSurge"));
    for amount in [&unavailable, &surge] {
        workload::validate_amount(amount, errors);
    }
    for amount in [&unavailable, &surge] {
        workload::validate_part(amount, errors);
    }
    let set = |amount: &Field<'_, '_>| workload::amount(amount.value()) != 0;
    match (set(&unavailable), set(&surge)) {
        (true, true) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            errors.push(surge.invalid(detail));
        }
        (false, false) => {
            errors.push(unavailable.required("cannot be 0 when maxSurge is 0"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon_set() -> Value {
        let mut object = json!({
            "metadata": {"name": "agent"},
            "spec": {
                "selector": {"matchLabels": {"app": "agent"}},
                "template": {
                    "metadata": {"labels": {"app": "agent"}},
                    "spec": {"containers": [{"name": "agent", "image": "agent:1"}]},
                },
            },
        });
        DaemonSet.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_daemon_set_with_defaults_is_valid() {
        let object = daemon_set();
        assert_eq!(DaemonSet.validate(&object), []);
        let rolling = &object["spec"]["updateStrategy"]["rollingUpdate"];
        assert_eq!(*rolling, json!({"maxUnavailable": 1, "maxSurge": 0}));
    }

    #[test]
    fn exactly_one_bound_of_a_rolling_update_is_set() {
        for (rolling, error) in [
            (
                json!({"maxUnavailable": 0, "maxSurge": 0}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ),
            (
                json!({"maxUnavailable": 1, "maxSurge": "5%"}),
                r#"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "5%": may not be set when maxUnavailable is non-zero"#,
            ),
        ] {
            let mut object = daemon_set();
            object["spec"]["updateStrategy"]["rollingUpdate"] = rolling;
            let found = DaemonSet.validate(&object);
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found, [error]);
        }
    }

    #[test]
    fn only_a_new_template_counts_as_one() {
        let mut old = daemon_set();
        DaemonSet.prepare_for_create(&mut old, &UserInfo::default());
        let mut new = daemon_set();
        DaemonSet.prepare_for_update(&old, &mut new, Endpoint::Main);
        assert_eq!(template_generation(&new), 1);
        new["spec"]["template"]["spec"]["containers"][0]["image"] = "agent:2".into();
        DaemonSet.prepare_for_update(&old, &mut new, Endpoint::Main);
        assert_eq!(template_generation(&new), 2);
    }
}
