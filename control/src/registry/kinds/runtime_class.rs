//! RuntimeClass: which handler of a node runs a pod, and what that costs.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field::Field as PodField;
use super::field_path::{Field, repeated};
use super::{pod_spec, resource_names, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};
use crate::registry::validation;

struct RuntimeClass;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("node.k8s.io", "v1", "RuntimeClass");
    Kind::cluster(gvk, "runtimeclasses", &RuntimeClass)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Handler", "string", "What runs the containers."),
    AGE,
];

impl Strategy for RuntimeClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let class = Field::root(object);
        let mut errors = class.at("handler").checked(names::dns1123_label);
        for (name, amount) in class.at("overhead").at("podFixed").entries() {
            errors.extend(resource_names::container_resource(&amount, name));
            errors.extend(resource_names::amount(&amount, name));
        }
        let scheduling = class.at("scheduling");
        let selector = scheduling.at("nodeSelector");
        errors.extend(validation::labels(selector.path(), Some(selector.value())));
        let tolerations = scheduling.at("tolerations");
        pod_spec::validate_tolerations(
            &PodField::root(tolerations.path(), tolerations.value()),
            &mut errors,
        );
        // Upstream leaves `tolerations` out of the paths of repeated ones.
        let unnamed = Field::new(scheduling.path(), tolerations.value());
        errors.extend(repeated(&unnamed.items()));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let handler = |object| Field::root(object).at("handler");
        handler(new).unchanged(&handler(old)).into_iter().collect()
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            text(object, "/handler").into(),
            age(object, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_handler_is_a_label_and_stays() {
        let of = |handler: &str| json!({"metadata": {"name": "r"}, "handler": handler});
        assert_eq!(RuntimeClass.validate(&of("wasm")), []);
        assert_eq!(RuntimeClass.validate(&of("")).len(), 1);
        let errors = RuntimeClass.validate_update(&of("a"), &of("b"), Endpoint::Main);
        assert_eq!(errors, [FieldError::immutable("handler", "b")]);
    }
}
