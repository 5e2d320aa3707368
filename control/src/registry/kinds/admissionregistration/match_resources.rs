//! `MatchResources`: which writes a policy or its binding is about.

use serde_json::{Map, Value, json};
use windlass_api::names;

use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::{default, rules};

const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const RULES: [&str; 2] = ["resourceRules", "excludeResourceRules"];

/// Fills in what upstream fills in.
pub(super) fn set_defaults(resources: &mut Map<String, Value>) {
    default(resources, "matchPolicy", "Equivalent");
    default(resources, "namespaceSelector", json!({}));
    default(resources, "objectSelector", json!({}));
    for list in RULES {
        let rules = resources.get_mut(list).and_then(Value::as_array_mut);
        for rule in rules.into_iter().flatten().filter_map(Value::as_object_mut) {
            default(rule, "scope", "*");
        }
    }
}

/// All that is wrong with it.
pub(super) fn validate(resources: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    errors.extend(resources.at("matchPolicy").must_be_one_of(MATCH_POLICIES));
    for selector in ["namespaceSelector", "objectSelector"] {
        let selector = resources.at(selector);
        if selector.is_set() {
            errors.extend(rules::label_selector(&selector));
        } else {
            errors.push(selector.required(""));
        }
    }
    for list in RULES {
        errors.extend(resources.at(list).items().iter().flat_map(validate_rule));
    }
    errors
}

fn validate_rule(rule: &Field<'_>) -> Vec<FieldError> {
    let names = rule.at("resourceNames").items();
    let mut errors: Vec<_> = names
        .iter()
        .flat_map(|name| name.checked(names::path_segment))
        .collect();
    errors.extend(repeated(&names));
    let operations = rule.at("operations");
    for (list, what) in [
        ("operations", "operations"),
        ("apiGroups", "API groups"),
        ("apiVersions", "API versions"),
    ] {
        errors.extend(validate_list(&rule.at(list), what));
    }
    let operations = operations.items();
    errors.extend(operations.iter().filter_map(|one| one.one_of(OPERATIONS)));
    let versions = rule.at("apiVersions").items();
    let unnamed = versions.iter().filter(|version| version.is_empty());
    errors.extend(unnamed.map(|version| version.required("")));
    errors.extend(validate_resources(&rule.at("resources")));
    errors.extend(rule.at("scope").one_of_if_set(SCOPES));
    errors
}

/// There is something, and `*` stands alone.
fn validate_list(list: &Field<'_>, what: &str) -> Option<FieldError> {
    if list.is_empty() {
        return Some(list.required(""));
    }
    let crowded = list.len() > 1 && list.texts().contains(&"*");
    let detail = format!("if '*' is present, must not specify other {what}");
    crowded.then(|| list.invalid(detail))
}

/// No resource, with or without its subresource, is covered by a wildcard that came before it.
fn validate_resources(resources: &Field<'_>) -> Vec<FieldError> {
    if resources.is_empty() {
        return vec![resources.required("")];
    }
    let mut errors = Vec::new();
    let (mut all_of, mut of_all) = (Vec::new(), Vec::new());
    let mut plain = false;
    for item in resources.items() {
        let text = item.text();
        if text.is_empty() {
            errors.push(item.required(""));
        }
        let Some((resource, subresource)) = text.split_once('/') else {
            plain = plain || text != "*";
            continue;
        };
        let covered = |by: String| {
            let detail = format!("if '{by}' is present, must not specify {text}");
            item.invalid(detail)
        };
        if all_of.contains(&resource) {
            errors.push(covered(format!("{resource}/*")));
        }
        if of_all.contains(&subresource) {
            errors.push(covered(format!("*/{subresource}")));
        }
        if subresource == "*" {
            all_of.push(resource);
        }
        if resource == "*" {
            of_all.push(subresource);
        }
    }
    let texts = resources.texts();
    if texts.len() > 1 && texts.contains(&"*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(resources.invalid(detail));
    }
    if plain && texts.contains(&"*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(resources.invalid(detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_what_follows_it() {
        for (resources, errors) in [
            (json!(["pods", "pods/status"]), 0),
            (json!(["pods/*", "pods/status"]), 1),
            (json!(["*/status", "pods/status"]), 1),
            (json!(["*/*", "pods"]), 1),
            (json!(["*", "pods"]), 1),
            (json!(["*", "pods/status"]), 0),
            (json!([]), 1),
        ] {
            let found = validate_resources(&Field::new("r", &resources));
            assert_eq!(found.len(), errors, "{resources}: {found:?}");
        }
    }
}
