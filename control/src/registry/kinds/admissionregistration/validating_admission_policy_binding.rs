//! ValidatingAdmissionPolicyBinding: where a policy holds, with which parameters, and what it does.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, match_resources};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::{default, label_selector, rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Kind, NAME, Strategy};

struct ValidatingAdmissionPolicyBinding;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ValidatingAdmissionPolicyBinding");
    Kind::cluster(
        gvk,
        "validatingadmissionpolicybindings",
        &ValidatingAdmissionPolicyBinding,
    )
    .categories(&["api-extensions"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("PolicyName", "string", "The policy that holds."),
    Column::new("ParamRef", "string", "Its parameters."),
    AGE,
];

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
const NOT_FOUND_ACTIONS: &[&str] = &["Deny", "Allow"];
const EXCLUSIVE: &str = "name and selector are mutually exclusive";

impl Strategy for ValidatingAdmissionPolicyBinding {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        if let Some(resources) = spec
            .get_mut("matchResources")
            .and_then(Value::as_object_mut)
        {
            match_resources::set_defaults(resources);
        }
        if let Some(parameters) = spec.get_mut("paramRef").and_then(Value::as_object_mut) {
            default(parameters, "parameterNotFoundAction", "Deny");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let mut errors = spec.at("policyName").must_follow(names::dns1123_subdomain);
        let parameters = spec.at("paramRef");
        if parameters.is_set() {
            errors.extend(validate_parameters(&parameters));
        }
        let resources = spec.at("matchResources");
        if resources.is_set() {
            // The misspelt path is upstream's.
            let resources = Field::new("spec.matchResouces", resources.value());
            errors.extend(match_resources::validate(&resources));
        }
        errors.extend(validate_actions(&spec.at("validationActions")));
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("ValidatingAdmissionPolicyBinding is stored but not enforced by Windlass yet")
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let parameters = Field::root(object).at("spec").at("paramRef");
        let namespace = match parameters.at("namespace").text() {
            "" => "*",
            namespace => namespace,
        };
        let shown = match parameters.at("name").text() {
            "" if parameters.at("selector").is_set() => {
                label_selector::text(parameters.at("selector").value())
            }
            "" => "<unset>".into(),
            name => format!("{namespace}/{name}"),
        };
        vec![
            meta::name(object).into(),
            text(object, "/spec/policyName").into(),
            shown.into(),
            age(object, now).into(),
        ]
    }
}

fn validate_parameters(parameters: &Field<'_>) -> Vec<FieldError> {
    let (name, selector) = (parameters.at("name"), parameters.at("selector"));
    let mut errors = name.follows(names::path_segment);
    if selector.is_set() {
        errors.extend(rules::label_selector(&selector));
        if !name.is_empty() {
            errors.push(name.forbidden(EXCLUSIVE));
            errors.push(selector.forbidden(EXCLUSIVE));
        }
    } else if name.is_empty() {
        let detail = "one of name or selector must be specified";
        errors.push(parameters.required(detail));
    }
    let action = parameters.at("parameterNotFoundAction");
    errors.extend(action.must_be_one_of(NOT_FOUND_ACTIONS));
    errors
}

fn validate_actions(actions: &Field<'_>) -> Vec<FieldError> {
    let items = actions.items();
    let mut errors: Vec<_> = items.iter().filter_map(|one| one.one_of(ACTIONS)).collect();
    errors.extend(repeated(&items));
    if ["Deny", "Warn"]
        .iter()
        .all(|one| actions.texts().contains(one))
    {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(actions.invalid(detail));
    }
    if items.is_empty() {
        errors.push(actions.required("at least one validation action is required"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_binding_names_its_policy_and_what_is_to_happen() {
        for (spec, errors) in [
            (json!({"policyName": "p", "validationActions": ["Deny"]}), 0),
            (
                json!({"policyName": "p", "validationActions": ["Deny", "Warn"]}),
                1,
            ),
            (json!({"validationActions": ["Deny", "Shout"]}), 2),
            (
                json!({"policyName": "p", "validationActions": ["Deny"], "paramRef": {}}),
                1,
            ),
            (
                json!({"policyName": "p", "validationActions": ["Deny"],
                    "paramRef": {"name": "n", "selector": {}}}),
                2,
            ),
        ] {
            let mut object = json!({"spec": spec});
            ValidatingAdmissionPolicyBinding.set_defaults(&mut object);
            let found = ValidatingAdmissionPolicyBinding.validate(&object);
            assert_eq!(found.len(), errors, "{object}: {found:?}");
        }
    }
}
