//! Names and amounts of resources, as LimitRanges, ResourceQuotas and claims may hold them.

use windlass_api::names;
use windlass_api::quantity::Quantity;

use super::field_path::Field;
use crate::registry::field_error::FieldError;

/// Resources of a container without a domain.
const CONTAINER: &[&str] = &["cpu", "memory", "ephemeral-storage"];

/// Objects a quota counts.
const OBJECTS: &[&str] = &[
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// What else a quota bounds without a domain.
const QUOTA: &[&str] = &[
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

fn has_domain(name: &str) -> bool {
    name.contains('/')
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether a quota can be set for a name without a domain.
pub(super) fn is_quota(name: &str) -> bool {
    CONTAINER.contains(&name)
        || OBJECTS.contains(&name)
        || QUOTA.contains(&name)
        || is_huge_page(name)
        || name.starts_with("requests.hugepages-")
}

fn is_standard(name: &str) -> bool {
    name == "storage" || is_quota(name)
}

/// Whether the name is one of Kubernetes' own, not of a vendor.
fn is_native(name: &str) -> bool {
    !has_domain(name) || name.contains("kubernetes.io/")
}

/// Whether the name is a vendor's, `example.com/gpu`.
pub(super) fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether requests may be less than limits.
pub(super) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

fn named(field: &Field<'_>, name: &str) -> Vec<FieldError> {
    let problems = names::qualified_name(name).into_iter();
    problems
        .map(|problem| FieldError::invalid(field.path(), name, problem))
        .collect()
}

fn refuse(field: &Field<'_>, name: &str, detail: &str) -> Vec<FieldError> {
    vec![FieldError::invalid(field.path(), name, detail)]
}

/// `name`, the key at which `field` stands, is a resource.
pub(super) fn resource(field: &Field<'_>, name: &str) -> Vec<FieldError> {
    let errors = named(field, name);
    if errors.is_empty() && !has_domain(name) && !is_standard(name) {
        let detail = "must be a standard resource type or fully qualified";
        return refuse(field, name, detail);
    }
    errors
}

/// `name`, the key at which `field` stands, is a resource of a container.
pub(super) fn container_resource(field: &Field<'_>, name: &str) -> Vec<FieldError> {
    let errors = named(field, name);
    if !errors.is_empty() {
        return errors;
    }
    if !has_domain(name) && !CONTAINER.contains(&name) && !is_huge_page(name) {
        return refuse(field, name, "must be a standard resource for containers");
    }
    if !is_native(name) && !is_extended(name) {
        let detail = "doesn't follow extended resource name standard";
        return refuse(field, name, detail);
    }
    errors
}

/// `name`, the key at which `field` stands, is a resource a quota can bound.
pub(super) fn quota_resource(field: &Field<'_>, name: &str) -> Vec<FieldError> {
    let mut errors = resource(field, name);
    if !has_domain(name) && !is_quota(name) {
        let detail = "must be a standard resource for quota";
        errors.extend(refuse(field, name, detail));
    }
    errors
}

/// The amount is not below zero.
pub(super) fn not_negative(field: &Field<'_>) -> Option<FieldError> {
    let negative = field.quantity().is_some_and(Quantity::is_negative);
    negative.then(|| field.invalid("must be greater than or equal to 0"))
}

/// The amount is above zero.
pub(super) fn positive(field: &Field<'_>) -> Option<FieldError> {
    let amount = field.quantity();
    let positive = amount.is_some_and(|amount| amount > Quantity::ZERO);
    (!positive).then(|| field.invalid("must be greater than zero"))
}

/// The amount is one that the resource `name` can have: whole, if objects or devices are counted.
pub(super) fn amount(field: &Field<'_>, name: &str) -> Vec<FieldError> {
    let mut errors: Vec<_> = not_negative(field).into_iter().collect();
    let whole = |amount: Quantity| amount.millis() % 1000 == 0;
    let counted = OBJECTS.contains(&name) || is_extended(name);
    if counted && !field.quantity().is_none_or(whole) {
        errors.push(field.invalid("must be an integer"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_without_a_domain_are_known_ones() {
        let value = json!("1");
        let field = Field::new("spec.hard[x]", &value);
        for (name, quota, container) in [
            ("cpu", true, true),
            ("pods", true, false),
            ("storage", false, false),
            ("limits.memory", true, false),
            ("hugepages-2Mi", true, true),
            ("example.com/gpu", true, true),
            ("count/deployments.apps", true, true),
            ("requests.example.com/gpu", true, false),
            ("gpu", false, false),
        ] {
            assert_eq!(quota_resource(&field, name).is_empty(), quota, "{name}");
            let found = container_resource(&field, name);
            assert_eq!(found.is_empty(), container, "{name}: {found:?}");
        }
    }

    #[test]
    fn what_is_counted_is_whole() {
        let half = json!("500m");
        let field = Field::new("x", &half);
        assert_eq!(amount(&field, "cpu"), []);
        assert_eq!(
            amount(&field, "pods"),
            [field.invalid("must be an integer")]
        );
    }
}
