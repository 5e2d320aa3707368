//! What else decides where a pod runs: gates, tolerations, spreading.

use std::collections::HashSet;

use windlass_api::names;

use super::super::field::{Errors, Field};
use super::super::label_selector;
use crate::registry::field_error::{FieldError, Problem};

const OPERATORS: &[&str] = &["Equal", "Exists"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const UNSATISFIABLE: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const INCLUSION: &[&str] = &["Honor", "Ignore"];
const NOT_POSITIVE: &str = "must be greater than zero";

/// All that is wrong with readiness gates, scheduling gates and spreading.
pub(super) fn validate(spec: &Field<'_, '_>, errors: &mut Errors) {
    for gate in spec.child("readinessGates").items() {
        errors.extend(gate.child("conditionType").follows(names::qualified_name));
    }
    let mut seen = HashSet::new();
    for gate in spec.child("schedulingGates").items() {
        let name = gate.text_of("name");
        let problems = names::qualified_name(name).into_iter();
        errors.extend(problems.map(|problem| gate.invalid_as(name, problem)));
        if !seen.insert(name) {
            errors.push(gate.error(Problem::Duplicate(name.into())));
        }
    }
    let constraints = spec.child("topologySpreadConstraints");
    for (index, constraint) in constraints.items().enumerate() {
        validate_constraint(&constraint, errors);
        let kind = |of: &Field<'_, '_>| {
            let (key, action) = (of.text_of("topologyKey"), of.text_of("whenUnsatisfiable"));
            format!("{{{key}, {action}}}")
        };
        let own = kind(&constraint);
        if constraints
            .items()
            .skip(index + 1)
            .any(|other| kind(&other) == own)
        {
            let path = format!("{}.{{topologyKey, whenUnsatisfiable}}", constraint.path());
            errors.push(FieldError::duplicate(path, own));
        }
    }
}

fn validate_constraint(constraint: &Field<'_, '_>, errors: &mut Errors) {
    let skew = constraint.child("maxSkew");
    let number = skew.integer().unwrap_or_default();
    if number <= 0 {
        errors.push(skew.invalid_as(number, NOT_POSITIVE));
    }
    let key = constraint.child("topologyKey");
    if key.text().is_empty() {
        errors.push(key.required("can not be empty"));
    }
    let action = constraint.child("whenUnsatisfiable");
    if !UNSATISFIABLE.contains(&action.text()) {
        errors.push(action.not_supported(UNSATISFIABLE));
    }
    let domains = constraint.child("minDomains");
    if domains.integer().is_some_and(|number| number <= 0) {
        errors.push(domains.invalid(NOT_POSITIVE));
    }
    if domains.is_set() && action.text() != "DoNotSchedule" {
        let detail = format!(
            "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
            action.text()
        );
        errors.push(domains.invalid(detail));
    }
    for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        errors.extend(constraint.child(policy).one_of(INCLUSION));
    }
    validate_label_keys(constraint, errors);
    label_selector::validate(&constraint.child("labelSelector"), errors);
}

fn validate_label_keys(constraint: &Field<'_, '_>, errors: &mut Errors) {
    let keys = constraint.child("matchLabelKeys");
    let selector = constraint.child("labelSelector");
    if keys.len() > 0 && !selector.is_set() {
        let detail = "must not be specified when labelSelector is not set";
        errors.push(keys.forbidden(detail));
    }
    let labels = selector.child("matchLabels");
    let expressions = selector.child("matchExpressions");
    for key in keys.items() {
        errors.extend(key.follows(names::qualified_name));
        let stated = labels.has(key.text())
            || expressions
                .items()
                .any(|expression| expression.text_of("key") == key.text());
        if stated {
            errors.push(key.invalid("exists in both matchLabelKeys and labelSelector"));
        }
    }
}

/// All that is wrong with a list of tolerations.
pub(in super::super) fn validate_tolerations(tolerations: &Field<'_, '_>, errors: &mut Errors) {
    for toleration in tolerations.items() {
        let (key, operator) = (toleration.child("key"), toleration.child("operator"));
        let (value, effect) = (toleration.child("value"), toleration.child("effect"));
        errors.extend(key.follows_if_set(names::qualified_name));
        if key.text().is_empty() && operator.text() != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(operator.invalid_as(operator.text(), detail));
        }
        if toleration.has("tolerationSeconds") && effect.text() != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(effect.invalid_as(effect.text(), detail));
        }
        match operator.text() {
            "" | "Equal" => {
                let problems = names::label_value(value.text());
                if !problems.is_empty() {
                    errors.push(operator.invalid_as(value.text(), problems.join(";")));
                }
            }
            "Exists" if !value.text().is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(operator.invalid_as(value.text(), detail));
            }
            "Exists" => {}
            _ => errors.push(operator.not_supported(OPERATORS)),
        }
        if !effect.text().is_empty() {
            errors.extend(effect.one_of(EFFECTS));
        }
    }
}
