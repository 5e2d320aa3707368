//! Endpoints.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::{abbreviate, integer, items, text};
use crate::registry::age;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME, Strategy};

struct Endpoints;

/// The row of the table.
pub(super) fn kind() -> Kind {
    Kind::namespaced(
        GroupVersionKind::of("", "v1", "Endpoints"),
        "endpoints",
        &Endpoints,
    )
    .short_names(&["ep"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Endpoints", "string", "Addresses and ports that are ready."),
    AGE,
];

impl Strategy for Endpoints {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut shown = Vec::new();
        for subset in items(object, "/subsets") {
            for port in items(subset, "/ports") {
                let addresses = items(subset, "/addresses").iter();
                let port = integer(port, "/port");
                shown.extend(addresses.map(|address| format!("{}:{port}", text(address, "/ip"))));
            }
        }
        vec![
            meta::name(object).into(),
            abbreviate(&shown, 3).into(),
            age(object, now).into(),
        ]
    }
}
