//! ValidatingAdmissionPolicy: expressions that writes must satisfy.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, match_resources};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::{count, default, rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct ValidatingAdmissionPolicy;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ValidatingAdmissionPolicy");
    Kind::cluster(
        gvk,
        "validatingadmissionpolicies",
        &ValidatingAdmissionPolicy,
    )
    .categories(&["api-extensions"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Validations", "integer", "Number of expressions."),
    Column::new("ParamKind", "string", "The kind of its parameters."),
    AGE,
];

const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
const REASONS: &[&str] = &[
    "Forbidden",
    "Invalid",
    "RequestEntityTooLarge",
    "Unauthorized",
];
const MAX_CONDITIONS: usize = 64;
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION_EXPRESSION: usize = 5 << 10;

/// Words that name nothing in an expression.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

impl Strategy for ValidatingAdmissionPolicy {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default(spec, "failurePolicy", "Fail");
        let constraints = spec.get_mut("matchConstraints");
        if let Some(constraints) = constraints.and_then(Value::as_object_mut) {
            match_resources::set_defaults(constraints);
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let (kind, constraints) = (spec.at("paramKind"), spec.at("matchConstraints"));
        let mut errors = Vec::new();
        errors.extend(spec.at("failurePolicy").must_be_one_of(FAILURE_POLICIES));
        if kind.is_set() {
            errors.extend(validate_param_kind(&kind));
        }
        if constraints.is_set() {
            errors.extend(match_resources::validate(&constraints));
            // Without a rule nothing says which types the expressions are about.
            let rules = constraints.at("resourceRules");
            errors.extend(rules.is_empty().then(|| rules.required("")));
        } else {
            errors.push(constraints.required(""));
        }
        errors.extend(validate_conditions(&spec.at("matchConditions")));
        errors.extend(
            spec.at("variables")
                .items()
                .iter()
                .flat_map(validate_variable),
        );
        errors.extend(validate_checks(&spec, meta::name(object)));
        errors
    }

    fn validate_update(&self, _: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint != Endpoint::Status {
            return Vec::new();
        }
        let status = Field::root(new).at("status");
        let mut errors = rules::conditions(&status.at("conditions"));
        for warning in status.at("typeChecking").at("expressionWarnings").items() {
            for field in ["warning", "fieldRef"] {
                let field = warning.at(field);
                errors.extend(blank(&field).then(|| field.required("")));
            }
        }
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("ValidatingAdmissionPolicy is stored but not enforced by Windlass yet")
    }

    fn has_status(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let kind = |field: &str| text(object, &format!("/spec/paramKind/{field}"));
        let kind = match object.pointer("/spec/paramKind") {
            Some(_) => format!("{}/{}", kind("apiVersion"), kind("kind")),
            None => "<unset>".into(),
        };
        vec![
            meta::name(object).into(),
            count(object, "/spec/validations").into(),
            kind.into(),
            age(object, now).into(),
        ]
    }
}

fn blank(field: &Field<'_>) -> bool {
    field.text().trim().is_empty()
}

fn validate_param_kind(of: &Field<'_>) -> Vec<FieldError> {
    let (version, kind) = (of.at("apiVersion"), of.at("kind"));
    let mut errors = validate_api_version(&version);
    let problems = names::dns1035_label(&kind.text().to_lowercase());
    if kind.is_empty() {
        errors.push(kind.required(""));
    } else if !problems.is_empty() {
        let detail = format!(
            "may have mixed case, but should otherwise match: {}",
            problems.join(",")
        );
        errors.push(kind.invalid(detail));
    }
    errors
}

fn validate_api_version(field: &Field<'_>) -> Vec<FieldError> {
    let text = field.text();
    if text.is_empty() {
        return vec![field.required("")];
    }
    if text.matches('/').count() > 1 {
        return vec![field.invalid(format!("unexpected GroupVersion string: {text}"))];
    }
    let (group, version) = text.split_once('/').unwrap_or(("", text));
    let mut errors = Vec::new();
    let mut refuse = |part: &str, problems: Vec<String>| {
        if !problems.is_empty() {
            let detail = problems.join(",");
            errors.push(FieldError::invalid(field.path(), part, detail));
        }
    };
    if !group.is_empty() {
        refuse(group, names::dns1123_subdomain(group));
    }
    if version.is_empty() {
        refuse(text, vec!["version must be specified".into()]);
    } else {
        refuse(version, names::dns1035_label(version));
    }
    errors
}

fn validate_conditions(conditions: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if conditions.len() > MAX_CONDITIONS {
        errors.push(conditions.too_many(MAX_CONDITIONS));
    }
    let items = conditions.items();
    for condition in &items {
        let expression = condition.at("expression");
        errors.extend(blank(&expression).then(|| expression.required("")));
        errors.extend(condition.at("name").must_follow(names::qualified_name));
    }
    let names = items.iter().map(|condition| condition.at("name"));
    let names: Vec<_> = names.filter(|name| !name.is_empty()).collect();
    errors.extend(repeated(&names));
    errors
}

fn validate_variable(variable: &Field<'_>) -> Vec<FieldError> {
    let (name, expression) = (variable.at("name"), variable.at("expression"));
    let identifier =
        names::c_identifier(name.text()).is_empty() && !RESERVED.contains(&name.text());
    let mut errors = Vec::new();
    if blank(&name) {
        errors.push(name.required("name is not specified"));
    } else if !identifier {
        errors.push(name.invalid("name is not a valid CEL identifier"));
    }
    if blank(&expression) {
        errors.push(expression.required("expression is not specified"));
    }
    errors
}

fn validate_checks(spec: &Field<'_>, policy: &str) -> Vec<FieldError> {
    let (validations, annotations) = (spec.at("validations"), spec.at("auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        return vec![validations.required(detail), annotations.required(detail)];
    }
    let mut errors: Vec<_> = validations
        .items()
        .iter()
        .flat_map(validate_validation)
        .collect();
    if annotations.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.push(annotations.invalid(detail));
    }
    let annotations = annotations.items();
    for annotation in &annotations {
        errors.extend(validate_annotation(annotation, policy));
    }
    let keys: Vec<_> = annotations.iter().map(|one| one.at("key")).collect();
    errors.extend(repeated(&keys));
    errors
}

fn validate_validation(validation: &Field<'_>) -> Vec<FieldError> {
    let (expression, message) = (validation.at("expression"), validation.at("message"));
    let mut errors = Vec::new();
    if blank(&expression) {
        errors.push(expression.required("expression is not specified"));
    }
    let computed = validation.at("messageExpression");
    if !computed.is_empty() && blank(&computed) {
        errors.push(computed.invalid("must be non-empty if specified"));
    }
    if !message.is_empty() && blank(&message) {
        errors.push(message.invalid("message must be non-empty if specified"));
    } else if message.text().trim().contains(['\n', '\r']) {
        errors.push(message.invalid("message must not contain line breaks"));
    }
    errors.extend(validation.at("reason").one_of_if_set(REASONS));
    errors
}

fn validate_annotation(annotation: &Field<'_>, policy: &str) -> Vec<FieldError> {
    let (key, value) = (annotation.at("key"), annotation.at("valueExpression"));
    let mut errors = Vec::new();
    if policy.is_empty() {
        errors.push(key.invalid("requires metadata.name be non-empty"));
    } else {
        let full = format!("{policy}/{}", key.text());
        let problems = names::qualified_name(&full).into_iter();
        errors.extend(
            problems.map(|problem| FieldError::invalid(key.path(), full.as_str(), problem)),
        );
    }
    if blank(&value) {
        errors.push(value.required("valueExpression is not specified"));
    } else if value.text().trim().len() > MAX_ANNOTATION_EXPRESSION {
        let detail = format!("must not exceed {MAX_ANNOTATION_EXPRESSION} bytes in length");
        errors.push(value.required(&detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(spec: &Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "p"}, "spec": spec});
        ValidatingAdmissionPolicy.set_defaults(&mut object);
        let errors = ValidatingAdmissionPolicy.validate(&object);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_policy_says_what_it_is_about_and_what_must_hold() {
        let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["deployments"]});
        let constraints = json!({"resourceRules": [rule]});
        let valid = json!({"matchConstraints": constraints,
            "validations": [{"expression": "object.spec.replicas <= 5"}]});
        assert_eq!(texts(&valid), [""; 0]);
        let invalid = json!({"matchConstraints": constraints, "paramKind": {"apiVersion": "a/b/c", "kind": "K"},
            "variables": [{"name": "if", "expression": "1"}], "validations": [{"expression": " "}]});
        assert_eq!(
            texts(&invalid),
            [
                r#"spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
                r#"spec.variables[0].name: Invalid value: "if": name is not a valid CEL identifier"#,
                "spec.validations[0].expression: Required value: expression is not specified",
            ]
        );
        assert_eq!(texts(&json!({})).len(), 3);
    }
}
