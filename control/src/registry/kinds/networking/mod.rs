//! The kinds of `networking.k8s.io`: ingresses, policies, and the addresses of Services.

pub(super) mod ingress;
pub(super) mod ingress_class;
pub(super) mod ip_address;
pub(super) mod network_policy;
pub(super) mod service_cidr;

use windlass_api::names;

use super::field_path::Field;
use crate::registry::field_error::FieldError;

/// The group.
const GROUP: &str = "networking.k8s.io";

/// A reference by group, kind and name.
fn typed_reference(reference: &Field<'_>) -> Vec<FieldError> {
    let mut errors = reference.at("apiGroup").follows(names::dns1123_subdomain);
    errors.extend(reference.at("kind").must_follow(names::path_segment));
    errors.extend(reference.at("name").must_follow(names::path_segment));
    errors
}
