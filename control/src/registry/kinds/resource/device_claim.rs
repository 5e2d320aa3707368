//! The spec of a ResourceClaim and of a template of them: requests, constraints and settings.

use serde_json::{Map, Value};
use windlass_api::names;

use super::device_rules::{
    MAX_ITEMS, configuration, fully_qualified_name, list, selectors, set, toleration,
};
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{default_number, default_text};

const MAX_ALTERNATIVES: usize = 8;
const MODES: &[&str] = &["All", "ExactCount"];
const BAD_REFERENCE: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Fills in what upstream fills in, in the spec of a claim.
pub(super) fn set_defaults(spec: &mut Map<String, Value>) {
    let requests = spec
        .get_mut("devices")
        .and_then(|devices| devices.get_mut("requests"))
        .and_then(Value::as_array_mut);
    for request in requests.into_iter().flatten() {
        if let Some(exactly) = request.get_mut("exactly").and_then(Value::as_object_mut) {
            set_request_defaults(exactly);
        }
        let alternatives = request
            .get_mut("firstAvailable")
            .and_then(Value::as_array_mut);
        let alternatives = alternatives.into_iter().flatten();
        for alternative in alternatives.filter_map(Value::as_object_mut) {
            set_request_defaults(alternative);
        }
    }
}

fn set_request_defaults(request: &mut Map<String, Value>) {
    default_text(request, "allocationMode", "ExactCount");
    if request.get("allocationMode") == Some(&"ExactCount".into()) {
        default_number(request, "count", 1);
    }
    let tolerations = request.get_mut("tolerations").and_then(Value::as_array_mut);
    let tolerations = tolerations.into_iter().flatten();
    for toleration in tolerations.filter_map(Value::as_object_mut) {
        default_text(toleration, "operator", "Equal");
    }
}

/// All that is wrong with the spec of a claim.
pub(super) fn validate(spec: &Field<'_>) -> Vec<FieldError> {
    let devices = spec.at("devices");
    let requests = RequestNames::of(&devices);
    let mut errors = set(&devices.at("requests"), MAX_ITEMS, "name", validate_request);
    errors.extend(list(&devices.at("constraints"), MAX_ITEMS, |constraint| {
        validate_constraint(constraint, &requests)
    }));
    errors.extend(list(&devices.at("config"), MAX_ITEMS, |config| {
        let mut errors = requests.validate(&config.at("requests"));
        errors.extend(configuration(config));
        errors
    }));
    errors
}

/// Names by which the rest of a claim speaks of its requests: `request` and `request/alternative`.
pub(super) struct RequestNames(Vec<String>);

impl RequestNames {
    pub(super) fn of(devices: &Field<'_>) -> Self {
        let mut names = Vec::new();
        for request in devices.at("requests").items() {
            let name = request.at("name").text();
            names.push(name.to_owned());
            for alternative in request.at("firstAvailable").items() {
                names.push(format!("{name}/{}", alternative.at("name").text()));
            }
        }
        Self(names)
    }

    /// All that is wrong with a list of references.
    pub(super) fn validate(&self, references: &Field<'_>) -> Vec<FieldError> {
        set(references, MAX_ITEMS, "", |one| self.validate_one(one))
    }

    /// All that is wrong with a reference.
    pub(super) fn validate_one(&self, reference: &Field<'_>) -> Vec<FieldError> {
        let text = reference.text();
        let segments: Vec<_> = text.split('/').collect();
        if segments.len() > 2 {
            return vec![reference.invalid(BAD_REFERENCE)];
        }
        let mut errors = Vec::new();
        for segment in segments {
            let problems = names::dns1123_label(segment).into_iter();
            let at = |problem| FieldError::invalid(reference.path(), segment, problem);
            errors.extend(problems.map(at));
        }
        if !self.0.iter().any(|name| name == text) {
            errors.push(reference.invalid(BAD_REFERENCE));
        }
        errors
    }
}

fn validate_request(request: &Field<'_>) -> Vec<FieldError> {
    const ONE: &str = "exactly one of `exactly` or `firstAvailable` is required";
    let (exactly, first) = (request.at("exactly"), request.at("firstAvailable"));
    let mut errors = request.at("name").must_follow(names::dns1123_label);
    match (exactly.is_set(), !first.is_empty()) {
        (false, false) => errors.push(request.required(ONE)),
        (true, true) => {
            let detail = format!("{ONE}, but multiple fields are set");
            errors.push(FieldError::invalid(request.path(), Value::Null, detail));
        }
        (true, false) => errors.extend(validate_exactly(&exactly)),
        (false, true) => errors.extend(set(&first, MAX_ALTERNATIVES, "name", |alternative| {
            let mut errors = alternative.at("name").must_follow(names::dns1123_label);
            errors.extend(validate_exactly(alternative));
            errors
        })),
    }
    errors
}

fn validate_exactly(request: &Field<'_>) -> Vec<FieldError> {
    let (mode, count) = (request.at("allocationMode"), request.at("count"));
    let class = request.at("deviceClassName");
    let mut errors = class.must_follow(names::dns1123_subdomain);
    errors.extend(selectors(&request.at("selectors")));
    match mode.text() {
        "All" if count.integer() != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(count.invalid(detail));
        }
        "ExactCount" if count.integer() <= 0 => {
            errors.push(count.invalid("must be greater than zero"));
        }
        _ => errors.extend(mode.one_of(MODES)),
    }
    let tolerations = request.at("tolerations").items();
    errors.extend(tolerations.iter().flat_map(toleration));
    errors
}

fn validate_constraint(constraint: &Field<'_>, requests: &RequestNames) -> Vec<FieldError> {
    let mut errors = requests.validate(&constraint.at("requests"));
    let (same, distinct) = (
        constraint.at("matchAttribute"),
        constraint.at("distinctAttribute"),
    );
    if same.is_set() {
        errors.extend(fully_qualified_name(&same));
    } else if distinct.is_set() {
        errors.extend(fully_qualified_name(&distinct));
    } else {
        errors.push(same.required(""));
    }
    errors
}
