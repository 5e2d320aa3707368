//! The kinds of `resource.k8s.io`: devices that drivers offer and pods claim.
//!
//! Expressions of selectors are not compiled yet: their length is checked and nothing else.

mod device_claim;
pub(super) mod device_class;
mod device_rules;
pub(super) mod resource_claim;
pub(super) mod resource_claim_template;
pub(super) mod resource_slice;

/// The group.
const GROUP: &str = "resource.k8s.io";
