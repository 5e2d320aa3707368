//! Requests, limits and claims, of containers and of whole pods.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::Value;
use windlass_api::names;
use windlass_api::pod_resources;
use windlass_api::quantity::Quantity;

use super::super::field::{Errors, Field};
use crate::registry::field_error::Problem;

const HUGE_PAGES: &str = "hugepages-";
const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
const POD_RESOURCES: &[&str] = &["cpu", "memory"];

/// Names without a domain that mean something somewhere, if not for containers.
const STANDARD: [&str; 13] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "storage",
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

/// The quantity at `value`, if it is one.
pub(in super::super) fn amount(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

/// All that is wrong with a container's resources.
pub(super) fn validate(resources: &Field<'_, '_>, claims: &HashSet<&str>, errors: &mut Errors) {
    validate_requirements(resources, validate_container_name, errors);
    validate_claims(&resources.child("claims"), claims, errors);
}

fn validate_requirements(
    resources: &Field<'_, '_>,
    check_name: fn(&str, &Field<'_, '_>, &mut Errors),
    errors: &mut Errors,
) {
    let (limits, requests) = (resources.child("limits"), resources.child("requests"));
    let mut names = HashSet::new();
    for (name, limit) in limits.entries() {
        check_name(name, &limit, errors);
        validate_amount(name, &limit, errors);
        names.insert(name);
    }
    for (name, request) in requests.entries() {
        check_name(name, &request, errors);
        validate_amount(name, &request, errors);
        compare(name, &request, &requests, &limits, errors);
        names.insert(name);
    }
    let huge = names.iter().any(|name| name.starts_with(HUGE_PAGES));
    if huge && !names.contains("cpu") && !names.contains("memory") {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

/// A request stays within its limit; what cannot be overcommitted equals it.
fn compare(
    name: &str,
    request: &Field<'_, '_>,
    requests: &Field<'_, '_>,
    limits: &Field<'_, '_>,
    errors: &mut Errors,
) {
    let overcommits = is_native(name) && !name.starts_with(HUGE_PAGES);
    let Some(asked) = amount(request.value()) else {
        return;
    };
    let Some(limit) = amount(limits.key(name).value()) else {
        if !overcommits {
            let detail = "Limit must be set for non overcommitable resources";
            errors.push(limits.required(detail));
        }
        return;
    };
    let relation = if asked != limit && !overcommits {
        "equal to"
    } else if asked > limit {
        "less than or equal to"
    } else {
        return;
    };
    let detail = format!("must be {relation} {name} limit of {limit}");
    errors.push(requests.invalid_as(asked.to_string(), detail));
}

fn validate_amount(name: &str, field: &Field<'_, '_>, errors: &mut Errors) {
    let Some(amount) = amount(field.value()) else {
        return;
    };
    let shown = || amount.to_string();
    if amount.is_negative() {
        let detail = "must be greater than or equal to 0";
        errors.push(field.invalid_as(shown(), detail));
    }
    if is_extended(name) && amount != Quantity::from_units(amount.units(), amount.format()) {
        errors.push(field.invalid_as(shown(), "must be an integer"));
    }
    let Some(size) = name.strip_prefix(HUGE_PAGES) else {
        return;
    };
    let divides = size.parse::<Quantity>().is_ok_and(|size| {
        let (size, amount) = (size.units(), amount.units());
        size > 0 && amount % size == 0
    });
    if !divides {
        let detail = format!("{} is not positive integer multiple of {name}", shown());
        errors.push(field.invalid_as(shown(), detail));
    }
}

/// Whether the resource is Kubernetes' own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the resource is somebody else's, with a proper name.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

fn validate_container_name(name: &str, field: &Field<'_, '_>, errors: &mut Errors) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        errors.extend(problems.into_iter().map(|p| field.invalid_as(name, p)));
        return;
    }
    let huge = name.starts_with(HUGE_PAGES);
    if !name.contains('/') {
        if !huge && !STANDARD.contains(&name) {
            let detail = "must be a standard resource type or fully qualified";
            errors.push(field.invalid_as(name, detail));
        }
        if !huge && !CONTAINER_RESOURCES.contains(&name) {
            let detail = "must be a standard resource for containers";
            errors.push(field.invalid_as(name, detail));
        }
    } else if !is_native(name) && !is_extended(name) {
        let detail = "doesn't follow extended resource name standard";
        errors.push(field.invalid_as(name, detail));
    }
}

fn validate_pod_name(name: &str, field: &Field<'_, '_>, errors: &mut Errors) {
    if !POD_RESOURCES.contains(&name) && !name.starts_with(HUGE_PAGES) {
        let path = field.path();
        let name = Value::from(name);
        errors.push(Field::root(&path, &name).not_supported(POD_RESOURCES));
    }
}

/// What a RuntimeClass adds to the pod.
pub(super) fn validate_overhead(overhead: &Field<'_, '_>, errors: &mut Errors) {
    for (name, amount) in overhead.entries() {
        validate_container_name(name, &amount, errors);
        validate_amount(name, &amount, errors);
    }
}

/// Resources of the pod as a whole: no less than its containers ask for together.
pub(super) fn validate_pod_level(spec: &Field<'_, '_>, errors: &mut Errors) {
    let resources = spec.child("resources");
    if !resources.is_set() {
        return;
    }
    if resources.has("claims") {
        let detail = "claims cannot be set for Resources at pod-level";
        errors.push(resources.child("claims").forbidden(detail));
    }
    validate_requirements(&resources, validate_pod_name, errors);
    let requests = resources.child("requests");
    for (name, asked) in container_requests(spec.value()) {
        let own = amount(requests.key(&name).value()).unwrap_or_default();
        if asked > own {
            let detail =
                format!("must be greater than or equal to aggregate container requests of {asked}");
            errors.push(requests.key(&name).invalid_as(own.to_string(), detail));
        }
    }
    let limits = resources.child("limits");
    for (index, container) in spec.child("containers").items().enumerate() {
        let own = container.child("resources");
        for (name, limit) in own.child("limits").entries() {
            let of_pod = amount(limits.key(name).value());
            let (Some(limit), Some(of_pod)) = (amount(limit.value()), of_pod) else {
                continue;
            };
            if limit > of_pod {
                let containers = resources.child("containers");
                let container = containers.index(index);
                let detail = format!("must be less than or equal to pod limits of {of_pod}");
                let of = container.key(name);
                errors.push(of.child("limits").invalid_as(limit.to_string(), detail));
            }
        }
    }
}

/// What the containers ask for together.
fn container_requests(spec: &Value) -> pod_resources::ResourceList {
    let mut spec = spec.clone();
    if let Some(spec) = spec.as_object_mut() {
        for field in ["resources", "overhead"] {
            spec.shift_remove(field);
        }
    }
    pod_resources::requests(&PodSpec::deserialize(spec).unwrap_or_default())
}

/// All that is wrong with the pod's resource claims; returns their names.
pub(super) fn validate_pod_claims<'v>(
    claims: &Field<'_, 'v>,
    errors: &mut Errors,
) -> HashSet<&'v str> {
    let mut seen = HashSet::new();
    for claim in claims.items() {
        let name = claim.child("name");
        match name.present().or_else(|| name.unique(&mut seen)) {
            Some(error) => errors.push(error),
            None => errors.extend(name.follows(names::dns1123_label)),
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        match sources.iter().filter(|source| claim.has(source)).count() {
            0 => {
                let detail =
                    "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(claim.invalid(detail));
            }
            1 => {}
            _ => {
                let detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(claim.invalid(detail));
            }
        }
        for source in sources.into_iter().filter(|source| claim.has(source)) {
            errors.extend(claim.child(source).follows(names::dns1123_subdomain));
        }
    }
    seen.remove("");
    seen
}

/// A container's claims are among the pod's.
fn validate_claims(claims: &Field<'_, '_>, of_pod: &HashSet<&str>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for claim in claims.items() {
        let (name, request) = (claim.text_of("name"), claim.text_of("request"));
        if name.is_empty() {
            errors.push(claim.required(""));
            continue;
        }
        let asked_request = claim.child("request");
        errors.extend(asked_request.follows_if_set(names::dns1123_label));
        let overlaps = seen.iter().any(|(other, part): &(&str, &str)| {
            *other == name && (part.is_empty() || request.is_empty() || *part == request)
        });
        if overlaps {
            let whole = request.is_empty() || seen.contains(&(name, ""));
            let shown = if whole {
                name.to_owned()
            } else {
                format!("{name}/{request}")
            };
            errors.push(claim.error(Problem::Duplicate(shown.into())));
        }
        seen.insert((name, request));
        if !of_pod.contains(name) {
            errors.push(claim.error(Problem::NotFound(name.into())));
        }
    }
}
