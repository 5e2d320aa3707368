//! `TaintNodesByCondition`: a new node takes no pods before it is known to be ready.

use serde_json::{Value, json};

use super::{Admission, Attributes};
use crate::registry::error::ApiError;
use crate::registry::object_meta as meta;
use crate::taints::{NO_SCHEDULE, NOT_READY};

pub(super) struct TaintNodes;

impl Admission for TaintNodes {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        if !attributes.creates("Node") {
            return Ok(());
        }
        let spec = meta::member_mut(object, "spec");
        let taints = spec.entry("taints").or_insert_with(|| json!([]));
        if taints.is_null() {
            *taints = json!([]);
        }
        // What is no list is for validation to refuse.
        let Some(taints) = taints.as_array_mut() else {
            return Ok(());
        };
        let is_there = |taint: &Value| {
            taint.get("key") == Some(&NOT_READY.into())
                && taint.get("effect") == Some(&NO_SCHEDULE.into())
        };
        if !taints.iter().any(is_there) {
            taints.push(json!({"key": NOT_READY, "effect": NO_SCHEDULE}));
        }
        Ok(())
    }
}
