//! VolumeAttributesClass: attributes of volumes that their driver can change while they are used.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, forbidden_update, parameters, provisioner};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::text;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct VolumeAttributesClass;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "VolumeAttributesClass");
    Kind::cluster(gvk, "volumeattributesclasses", &VolumeAttributesClass).short_names(&["vac"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("DriverName", "string", "The driver of the volumes."),
    AGE,
];

impl Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let class = Field::root(object);
        let mut errors = provisioner(&class.at("driverName"));
        errors.extend(parameters(&class.at("parameters"), false));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let (old, new) = (Field::root(old), Field::root(new));
        let fixed = ["driverName", "parameters"].iter();
        fixed
            .filter_map(|field| forbidden_update(&old.at(field), &new.at(field)))
            .collect()
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("VolumeAttributesClass is stored but not applied to volumes by Windlass yet")
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            text(object, "/driverName").into(),
            age(object, now).into(),
        ]
    }
}
