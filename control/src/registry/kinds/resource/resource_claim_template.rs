//! ResourceClaimTemplate: what each pod that names it claims. It never changes.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, device_claim};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};
use crate::registry::validation;

struct ResourceClaimTemplate;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ResourceClaimTemplate");
    Kind::namespaced(gvk, "resourceclaimtemplates", &ResourceClaimTemplate)
}

const COLUMNS: &[Column] = &[NAME, AGE];

impl Strategy for ResourceClaimTemplate {
    fn set_defaults(&self, object: &mut Value) {
        let spec = object.pointer_mut("/spec/spec");
        if let Some(spec) = spec.and_then(Value::as_object_mut) {
            device_claim::set_defaults(spec);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let labels = spec.at("metadata").at("labels");
        let mut errors = validation::labels(labels.path(), Some(labels.value()));
        errors.extend(device_claim::validate(&spec.at("spec")));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let spec = |object| Field::root(object).at("spec");
        spec(new).unchanged(&spec(old)).into_iter().collect()
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("ResourceClaimTemplate is stored but Windlass allocates no devices yet")
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![meta::name(object).into(), age(object, now).into()]
    }
}
