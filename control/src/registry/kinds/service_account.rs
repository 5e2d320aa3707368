//! ServiceAccount.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::count;
use crate::registry::age;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME, Strategy};

struct ServiceAccount;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "ServiceAccount");
    Kind::namespaced(gvk, "serviceaccounts", &ServiceAccount)
        .short_names(&["sa"])
        .subresource(
            "token",
            GroupVersionKind::of("authentication.k8s.io", "v1", "TokenRequest"),
            &["create"],
        )
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "Secrets",
        "string",
        "Number of secrets the account may use.",
    ),
    AGE,
];

impl Strategy for ServiceAccount {
    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let secrets = count(object, "/secrets");
        vec![
            meta::name(object).into(),
            secrets.into(),
            age(object, now).into(),
        ]
    }
}
