//! ReplicationController: what came before ReplicaSet. Its selector is a plain map of labels.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::field::Field;
use super::{count, integer, pod_spec, workload};
use crate::identity::UserInfo;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Endpoint, Kind, Strategy};

struct ReplicationController;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "ReplicationController");
    let plural = "replicationcontrollers";
    workload::scaled(Kind::namespaced(gvk, plural, &ReplicationController))
        .short_names(&["rc"])
        .categories(&["all"])
}

impl Strategy for ReplicationController {
    fn set_defaults(&self, object: &mut Value) {
        workload::set_defaults(object);
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        let Some(labels) = labels.filter(Value::is_object) else {
            return;
        };
        if count(object, "/spec/selector") == 0 {
            meta::member_mut(object, "spec").insert("selector".into(), labels.clone());
        }
        if count(object, "/metadata/labels") == 0 {
            meta::set(object, "labels", labels);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"replicas": 0}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = Field::root("", object);
        let spec = root.child("spec");
        workload::non_negative(&spec, &["minReadySeconds", "replicas"], &mut errors);
        let (selector, template) = (spec.child("selector"), spec.child("template"));
        if selector.len() == 0 {
            errors.push(selector.required(""));
        }
        if !template.is_set() {
            errors.push(template.required(""));
            return errors;
        }
        let metadata = template.child("metadata");
        let labels = metadata.child("labels");
        let matches = selector
            .entries()
            .all(|(key, value)| labels.key(key).value() == value.value());
        if !matches {
            let detail = "`selector` does not match template `labels`";
            errors.push(labels.invalid(detail));
        }
        pod_spec::validate_template(&template, &mut errors);
        workload::validate_always(&template, "ReplicationController", &mut errors);
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            workload::validate_status(old, new, workload::REPLICA_COUNTS, workload::REPLICA_PARTS)
        } else {
            Vec::new()
        }
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        workload::warnings(object)
    }

    fn has_status(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn selectable_field(&self, object: &Value, _: &str) -> String {
        integer(object, "/status/replicas").to_string()
    }

    fn columns(&self) -> &'static [Column] {
        workload::REPLICA_COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        workload::replica_cells(object, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_template_become_selector_and_labels() {
        let mut object = json!({
            "metadata": {"name": "web"},
            "spec": {"template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "web:1"}]},
            }},
        });
        ReplicationController.set_defaults(&mut object);
        assert_eq!(object["spec"]["selector"], json!({"app": "web"}));
        assert_eq!(object["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(ReplicationController.validate(&object), []);
        let scale = workload::scale_of(&object);
        assert_eq!(scale["status"]["selector"], "app=web");
        object["spec"]["selector"] = json!({"app": "other"});
        let found = ReplicationController.validate(&object);
        assert_eq!(
            found.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                r#"spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`"#
            ]
        );
    }
}
