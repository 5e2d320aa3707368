//! CSIStorageCapacity: how much a storage class has left in a part of the cluster.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::resource_names::not_negative;
use crate::registry::kinds::{rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Endpoint, Kind, NAME, Strategy};

struct CsiStorageCapacity;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "CSIStorageCapacity");
    Kind::namespaced(gvk, "csistoragecapacities", &CsiStorageCapacity)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "StorageClassName",
        "string",
        "The class the capacity is of.",
    ),
    Column::new("Capacity", "string", "How much is left."),
];

impl Strategy for CsiStorageCapacity {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let capacity = Field::root(object);
        let mut errors = rules::label_selector(&capacity.at("nodeTopology"));
        let class = capacity.at("storageClassName");
        errors.extend(class.checked(names::dns1123_subdomain));
        errors.extend(not_negative(&capacity.at("capacity")));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let (old, new) = (Field::root(old), Field::root(new));
        let fixed = ["nodeTopology", "storageClassName"].iter();
        fixed
            .filter_map(|field| new.at(field).unchanged(&old.at(field)))
            .collect()
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("CSIStorageCapacity is stored but the scheduler of Windlass does not read it yet")
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Vec<Value> {
        let capacity = match text(object, "/capacity") {
            "" => "<unset>",
            capacity => capacity,
        };
        vec![
            meta::name(object).into(),
            text(object, "/storageClassName").into(),
            capacity.into(),
        ]
    }
}
