//! DeviceClass: a kind of devices that claims can ask for.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use super::device_rules::{MAX_ITEMS, configuration, list, selectors};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::resource_names::is_extended;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME, Strategy};

struct DeviceClass;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "DeviceClass");
    Kind::cluster(gvk, "deviceclasses", &DeviceClass)
}

const COLUMNS: &[Column] = &[NAME, AGE];

impl Strategy for DeviceClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let mut errors = selectors(&spec.at("selectors"));
        errors.extend(list(&spec.at("config"), MAX_ITEMS, configuration));
        let extended = spec.at("extendedResourceName");
        if extended.is_set() && !is_extended(extended.text()) {
            errors.push(extended.invalid("must be a valid extended resource name"));
        }
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("DeviceClass is stored but Windlass allocates no devices yet")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![meta::name(object).into(), age(object, now).into()]
    }
}
