//! The kinds of `flowcontrol.apiserver.k8s.io`: which requests wait when the server is busy.

pub(super) mod flow_schema;
pub(super) mod priority_level_configuration;

use super::field_path::{Field, repeated};
use crate::registry::field_error::FieldError;

/// The group.
const GROUP: &str = "flowcontrol.apiserver.k8s.io";

/// All that is wrong with the conditions of a status.
fn conditions(conditions: &Field<'_>) -> Vec<FieldError> {
    let items = conditions.items();
    let types: Vec<_> = items.iter().map(|condition| condition.at("type")).collect();
    let mut errors = repeated(&types);
    let missing = types.iter().filter(|kind| kind.is_empty());
    errors.extend(missing.map(|kind| kind.required("must not be empty")));
    errors
}
