//! The kinds of `admissionregistration.k8s.io`: policies that judge writes, and their bindings.
//!
//! Expressions are not compiled yet: an object is checked for everything but what its expressions say.

mod match_resources;
pub(super) mod validating_admission_policy;
pub(super) mod validating_admission_policy_binding;

/// The group.
const GROUP: &str = "admissionregistration.k8s.io";
