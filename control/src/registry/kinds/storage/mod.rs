//! The kinds of `storage.k8s.io`: classes of storage and what CSI drivers say of themselves.

pub(super) mod csi_driver;
pub(super) mod csi_node;
pub(super) mod csi_storage_capacity;
pub(super) mod storage_class;
pub(super) mod volume_attachment;
pub(super) mod volume_attributes_class;

use windlass_api::names;

use super::field_path::Field;
use crate::registry::field_error::FieldError;

/// The group.
const GROUP: &str = "storage.k8s.io";

/// Entries of a class's parameters.
const MAX_PARAMETERS: usize = 512;
/// Keys and values of a class's parameters together.
const MAX_PARAMETERS_SIZE: usize = 256 << 10;

/// The text names a provisioner, in any case.
fn provisioner(field: &Field<'_>) -> Vec<FieldError> {
    if field.is_empty() {
        return vec![field.required("")];
    }
    let name = field.text().to_lowercase();
    let problems = names::qualified_name(&name).into_iter();
    problems
        .map(|problem| FieldError::invalid(field.path(), name.as_str(), problem))
        .collect()
}

/// All that is wrong with the parameters of a class.
fn parameters(field: &Field<'_>, may_be_empty: bool) -> Vec<FieldError> {
    if field.len() > MAX_PARAMETERS {
        return vec![field.too_long(MAX_PARAMETERS)];
    }
    let entries = field.entries();
    let mut errors = Vec::new();
    if entries.iter().any(|(key, _)| key.is_empty()) {
        let detail = "field can not be empty.";
        errors.push(FieldError::invalid(field.path(), "", detail));
    }
    let size: usize = entries
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size > MAX_PARAMETERS_SIZE {
        errors.push(field.too_long(MAX_PARAMETERS_SIZE));
    }
    if !may_be_empty && entries.is_empty() {
        errors.push(field.required("must contain at least one key/value pair"));
    }
    errors
}

/// An objection if `field` is not what it was, in the words of classes.
fn forbidden_update(old: &Field<'_>, new: &Field<'_>) -> Option<FieldError> {
    let changed = old.value() != new.value();
    let detail = format!("updates to {} are forbidden.", new.path());
    changed.then(|| new.forbidden(detail))
}
