//! The kinds of `rbac.authorization.k8s.io`: roles and their bindings.
//!
//! They may be created by an update, and their names are whatever fits a path segment: `system:node`.

pub(super) mod binding;
pub(super) mod role;

/// The group, which is also what references name.
const GROUP: &str = "rbac.authorization.k8s.io";
