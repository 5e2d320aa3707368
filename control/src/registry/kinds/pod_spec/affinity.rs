//! Affinity to nodes and to other pods.

use std::collections::HashSet;

use windlass_api::names;

use super::super::field::{Errors, Field};
use super::super::label_selector;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const OPERATOR: &str = "not a valid selector operator";

/// All that is wrong with the pod's affinity, which may be absent.
pub(super) fn validate(affinity: &Field<'_, '_>, errors: &mut Errors) {
    let node = affinity.child("nodeAffinity");
    if node.has(REQUIRED) {
        validate_node_selector_terms(&node.child(REQUIRED), errors);
    }
    for term in node.child(PREFERRED).items() {
        validate_weight(&term, errors);
        validate_node_term(&term.child("preference"), false, errors);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind = affinity.child(kind);
        for term in kind.child(REQUIRED).items() {
            validate_pod_term(&term, errors);
        }
        for term in kind.child(PREFERRED).items() {
            validate_weight(&term, errors);
            validate_pod_term(&term.child("podAffinityTerm"), errors);
        }
    }
}

fn validate_weight(term: &Field<'_, '_>, errors: &mut Errors) {
    let weight = term.child("weight");
    let number = weight.integer().unwrap_or_default();
    if !(1..=100).contains(&number) {
        errors.push(weight.invalid_as(number, "must be in the range 1-100"));
    }
}

/// All that is wrong with a node selector that must hold.
fn validate_node_selector_terms(selector: &Field<'_, '_>, errors: &mut Errors) {
    let terms = selector.child("nodeSelectorTerms");
    if terms.len() == 0 {
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in terms.items() {
        validate_node_term(&term, true, errors);
    }
}

/// A preference may name values that no label can have, for it does no harm.
fn validate_node_term(term: &Field<'_, '_>, strict: bool, errors: &mut Errors) {
    for requirement in term.child("matchExpressions").items() {
        validate_node_requirement(&requirement, strict, errors);
    }
    for requirement in term.child("matchFields").items() {
        validate_node_field(&requirement, errors);
    }
}

fn validate_node_requirement(requirement: &Field<'_, '_>, strict: bool, errors: &mut Errors) {
    let values = requirement.child("values");
    match (requirement.text_of("operator"), values.len()) {
        ("In" | "NotIn", 0) => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(values.required(detail));
        }
        ("Exists" | "DoesNotExist", 1..) => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(values.forbidden(detail));
        }
        ("Gt" | "Lt", count) if count != 1 => {
            let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(values.required(detail));
        }
        ("In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt", _) => {}
        _ => errors.push(requirement.child("operator").invalid(OPERATOR)),
    }
    errors.extend(requirement.child("key").follows(names::qualified_name));
    if strict {
        for value in values.items() {
            errors.extend(value.follows(names::label_value));
        }
    }
}

fn validate_node_field(requirement: &Field<'_, '_>, errors: &mut Errors) {
    let (key, values) = (requirement.child("key"), requirement.child("values"));
    match requirement.text_of("operator") {
        "In" | "NotIn" => {
            if values.len() != 1 {
                let detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(values.required(detail));
            }
        }
        _ => errors.push(requirement.child("operator").invalid(OPERATOR)),
    }
    if key.text() != "metadata.name" {
        errors.push(key.invalid("not a valid field selector key"));
        return;
    }
    for value in values.items() {
        errors.extend(value.follows(names::dns1123_subdomain));
    }
}

fn validate_pod_term(term: &Field<'_, '_>, errors: &mut Errors) {
    label_selector::validate(&term.child("labelSelector"), errors);
    label_selector::validate(&term.child("namespaceSelector"), errors);
    for namespace in term.child("namespaces").texts() {
        let problems = names::dns1123_label(namespace).into_iter();
        let named = term.child("namespace");
        errors.extend(problems.map(|problem| named.invalid_as(namespace, problem)));
    }
    validate_label_keys(term, errors);
    let key = term.child("topologyKey");
    if key.text().is_empty() {
        errors.push(key.required("can not be empty"));
    }
    errors.extend(key.follows(names::qualified_name));
}

/// Keys whose values the server takes over from the pod into the selector.
fn validate_label_keys(term: &Field<'_, '_>, errors: &mut Errors) {
    let (matched, mismatched) = (
        term.child("matchLabelKeys"),
        term.child("mismatchLabelKeys"),
    );
    for keys in [matched, mismatched] {
        if keys.len() > 0 && !term.has("labelSelector") {
            let detail = "must not be specified when labelSelector is not set";
            errors.push(keys.forbidden(detail));
        } else {
            for key in keys.items() {
                errors.extend(key.follows(names::qualified_name));
            }
        }
    }
    let selector = term.child("labelSelector");
    let stated: HashSet<_> = selector
        .child("matchLabels")
        .entries()
        .map(|(key, _)| key)
        .collect();
    let others: HashSet<_> = mismatched.texts().collect();
    for (index, key) in matched.texts().enumerate() {
        if stated.contains(key) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(term.index(index).invalid_as(key, detail));
        }
        if others.contains(key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            errors.push(matched.index(index).invalid(detail));
        }
    }
}
