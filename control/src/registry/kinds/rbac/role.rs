//! Role and ClusterRole: rules, and for ClusterRoles which other roles' rules they gather.

use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::rules;
use crate::registry::strategy::{Kind, NameRule, Strategy};

struct Role;
struct ClusterRole;

/// The row of Role.
pub(in crate::registry::kinds) fn role() -> Kind {
    Kind::namespaced(GroupVersionKind::of(GROUP, "v1", "Role"), "roles", &Role)
}

/// The row of ClusterRole.
pub(in crate::registry::kinds) fn cluster_role() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ClusterRole");
    Kind::cluster(gvk, "clusterroles", &ClusterRole)
}

impl Strategy for Role {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        policy_rules(object, true)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

impl Strategy for ClusterRole {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = policy_rules(object, false);
        let aggregation = Field::root(object).at("aggregationRule");
        let selectors = aggregation.at("clusterRoleSelectors");
        if aggregation.is_set() && selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            errors.push(selectors.required(detail));
        }
        for selector in selectors.items() {
            errors.extend(rules::label_selector(&selector));
        }
        errors
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }
}

fn policy_rules(object: &Value, namespaced: bool) -> Vec<FieldError> {
    let rules = Field::root(object).at("rules").items();
    rules
        .iter()
        .flat_map(|rule| policy_rule(rule, namespaced))
        .collect()
}

fn policy_rule(rule: &Field<'_>, namespaced: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if rule.at("verbs").is_empty() {
        let detail = "verbs must contain at least one value";
        errors.push(rule.at("verbs").required(detail));
    }
    let urls = rule.at("nonResourceURLs");
    let (groups, resources) = (rule.at("apiGroups"), rule.at("resources"));
    if !urls.is_empty() {
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.push(urls.invalid(detail));
        }
        if !groups.is_empty() || !resources.is_empty() || !rule.at("resourceNames").is_empty() {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(urls.invalid(detail));
        }
        return errors;
    }
    if groups.is_empty() {
        let detail = "resource rules must supply at least one api group";
        errors.push(groups.required(detail));
    }
    if resources.is_empty() {
        let detail = "resource rules must supply at least one resource";
        errors.push(resources.required(detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_rule_is_about_resources_or_about_urls() {
        let object = json!({"rules": [
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]},
            {"nonResourceURLs": ["/healthz"], "verbs": ["get"]},
            {"verbs": []},
        ]});
        let texts = |errors: Vec<FieldError>| -> Vec<String> {
            errors.iter().map(ToString::to_string).collect()
        };
        let missing = [
            "rules[2].verbs: Required value: verbs must contain at least one value",
            "rules[2].apiGroups: Required value: resource rules must supply at least one api group",
            "rules[2].resources: Required value: resource rules must supply at least one resource",
        ];
        assert_eq!(texts(ClusterRole.validate(&object)), missing);
        let of_role = texts(Role.validate(&object));
        assert_eq!(
            of_role.first().map(String::as_str),
            Some(
                r#"rules[1].nonResourceURLs: Invalid value: ["/healthz"]: namespaced rules cannot apply to non-resource URLs"#
            )
        );
    }
}
