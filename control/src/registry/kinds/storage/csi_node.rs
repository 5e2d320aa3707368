//! CSINode: the storage drivers of a node.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::{count, rules};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct CsiNode;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "CSINode");
    Kind::cluster(gvk, "csinodes", &CsiNode)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Drivers", "integer", "Number of drivers on the node."),
    AGE,
];

const MAX_NODE_ID: usize = 256;

impl Strategy for CsiNode {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let drivers = Field::root(object).at("spec").at("drivers").items();
        let names: Vec<_> = drivers.iter().map(|driver| driver.at("name")).collect();
        let mut errors: Vec<_> = drivers.iter().flat_map(driver).collect();
        errors.extend(repeated(&names));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let drivers = |object| Field::root(object).at("spec").at("drivers").items();
        let mut errors = Vec::new();
        for driver in drivers(new) {
            let name = driver.at("name");
            let before = drivers(old).into_iter();
            let mut before = before.filter(|old| old.at("name").value() == name.value());
            let changed = before.any(|old| fixed_part(old.value()) != fixed_part(driver.value()));
            if changed {
                let value = fixed_part(driver.value());
                errors.push(FieldError::immutable("spec.drivers", value));
            }
        }
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("CSINode is stored but Windlass calls no CSI drivers yet")
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
            count(object, "/spec/drivers").into(),
            age(object, now).into(),
        ]
    }
}

/// A driver without what it may change: how many volumes the node holds.
fn fixed_part(driver: &Value) -> Value {
    let mut driver = driver.clone();
    if let Some(driver) = driver.as_object_mut() {
        driver.shift_remove("allocatable");
    }
    driver
}

fn driver(driver: &Field<'_>) -> Vec<FieldError> {
    let mut errors = rules::csi_driver_name(&driver.at("name"));
    let id = driver.at("nodeID");
    if id.is_empty() {
        errors.push(id.required(""));
    } else if id.len() > MAX_NODE_ID {
        errors.push(id.invalid(format!("must be {MAX_NODE_ID} characters or less")));
    }
    errors.extend(driver.at("allocatable").at("count").not_negative());
    for (index, key) in driver.at("topologyKeys").texts().into_iter().enumerate() {
        // Upstream names the driver, not the key.
        let value = Value::from(key);
        let at_driver = Field::new(driver.path(), &value);
        if key.is_empty() {
            errors.push(at_driver.required(""));
        }
        let before = driver.at("topologyKeys").texts();
        if before.iter().take(index).any(|other| *other == key) {
            errors.push(at_driver.duplicate());
        }
        errors.extend(at_driver.checked(names::qualified_name));
    }
    errors
}
