//! Lease.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
use super::text;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME, Strategy};

struct Lease;

/// The row of the table.
pub(super) fn kind() -> Kind {
    Kind::namespaced(
        GroupVersionKind::of("coordination.k8s.io", "v1", "Lease"),
        "leases",
        &Lease,
    )
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Holder", "string", "Who holds the lease."),
    AGE,
];

/// Ways of choosing a holder that have no domain.
const STRATEGIES: &[&str] = &["OldestEmulationVersion"];

impl Strategy for Lease {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let (strategy, preferred) = (spec.at("strategy"), spec.at("preferredHolder"));
        let mut errors = Vec::new();
        if strategy.text().contains('/') {
            errors.extend(strategy.checked(names::qualified_name));
        } else if !strategy.is_empty() {
            errors.extend(strategy.one_of(STRATEGIES));
        }
        if !preferred.is_empty() && strategy.is_empty() {
            let detail = "may only be specified if `strategy` is defined";
            errors.push(preferred.forbidden(detail));
        }
        for (field, least) in [("leaseDurationSeconds", 1), ("leaseTransitions", 0)] {
            let value = object
                .pointer(&format!("/spec/{field}"))
                .and_then(Value::as_i64);
            if let Some(value) = value
                && value < least
            {
                let detail = if least == 1 {
                    "must be greater than 0"
                } else {
                    "must be greater than or equal to 0"
                };
                errors.push(FieldError::invalid(format!("spec.{field}"), value, detail));
            }
        }
        errors
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let holder = text(object, "/spec/holderIdentity");
        vec![
            meta::name(object).into(),
            holder.into(),
            age(object, now).into(),
        ]
    }
}
