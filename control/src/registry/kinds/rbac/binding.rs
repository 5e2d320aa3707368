//! RoleBinding and ClusterRoleBinding: who has the rights of a role, which a binding never changes.

use jiff::Timestamp;
use serde_json::{Map, Value};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{default_text, items, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, NameRule, Strategy};

struct RoleBinding;
struct ClusterRoleBinding;

/// The row of RoleBinding.
pub(in crate::registry::kinds) fn role_binding() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "RoleBinding");
    Kind::namespaced(gvk, "rolebindings", &RoleBinding)
}

/// The row of ClusterRoleBinding.
pub(in crate::registry::kinds) fn cluster_role_binding() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "ClusterRoleBinding");
    Kind::cluster(gvk, "clusterrolebindings", &ClusterRoleBinding)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Role", "string", "The role whose rights are given."),
    AGE,
    Column::wide("Users", "string", "Users who have the rights."),
    Column::wide("Groups", "string", "Groups that have the rights."),
    Column::wide(
        "ServiceAccounts",
        "string",
        "ServiceAccounts that have the rights.",
    ),
];

impl Strategy for RoleBinding {
    fn set_defaults(&self, object: &mut Value) {
        set_defaults(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate(object, &["Role", "ClusterRole"], true)
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        validate_update(old, new)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}

impl Strategy for ClusterRoleBinding {
    fn set_defaults(&self, object: &mut Value) {
        set_defaults(object);
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate(object, &["ClusterRole"], false)
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        validate_update(old, new)
    }

    fn creates_on_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        cells(object, now)
    }
}

fn set_defaults(object: &mut Value) {
    if let Some(role) = object.get_mut("roleRef").and_then(Value::as_object_mut) {
        default_text(role, "apiGroup", GROUP);
    }
    let subjects = object.get_mut("subjects").and_then(Value::as_array_mut);
    let subjects = subjects.into_iter().flatten();
    for subject in subjects.filter_map(Value::as_object_mut) {
        set_subject_defaults(subject);
    }
}

fn set_subject_defaults(subject: &mut Map<String, Value>) {
    let kind = subject.get("kind").and_then(Value::as_str);
    if matches!(kind, Some("User" | "Group")) {
        default_text(subject, "apiGroup", GROUP);
    }
}

fn validate(object: &Value, kinds: &[&'static str], namespaced: bool) -> Vec<FieldError> {
    let role = Field::root(object).at("roleRef");
    let mut errors = Vec::new();
    errors.extend(role.at("apiGroup").one_of(&[GROUP]));
    errors.extend(role.at("kind").one_of(kinds));
    errors.extend(role.at("name").must_follow(names::path_segment));
    for subject in Field::root(object).at("subjects").items() {
        errors.extend(validate_subject(&subject, namespaced));
    }
    errors
}

fn validate_subject(subject: &Field<'_>, namespaced: bool) -> Vec<FieldError> {
    const KINDS: &[&str] = &["ServiceAccount", "User", "Group"];
    let name = subject.at("name");
    let mut errors = Vec::new();
    if name.is_empty() {
        errors.push(name.required(""));
    }
    match subject.at("kind").text() {
        "ServiceAccount" => {
            errors.extend(name.follows(names::dns1123_subdomain));
            errors.extend(subject.at("apiGroup").one_of(&[""]));
            if !namespaced && subject.at("namespace").is_empty() {
                errors.push(subject.at("namespace").required(""));
            }
        }
        "User" | "Group" => errors.extend(subject.at("apiGroup").one_of(&[GROUP])),
        _ => errors.extend(subject.at("kind").one_of(KINDS)),
    }
    errors
}

fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    let role = Field::root(new).at("roleRef");
    if old.get("roleRef") == new.get("roleRef") {
        Vec::new()
    } else {
        vec![role.invalid("cannot change roleRef")]
    }
}

fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let role = |field| text(object, field);
    let role = format!("{}/{}", role("/roleRef/kind"), role("/roleRef/name"));
    vec![
        meta::name(object).into(),
        role.into(),
        age(object, now).into(),
        subjects(object, "User").into(),
        subjects(object, "Group").into(),
        subjects(object, "ServiceAccount").into(),
    ]
}

/// The subjects of one kind; accounts with their namespace.
fn subjects(object: &Value, kind: &str) -> String {
    let of_kind = items(object, "/subjects")
        .iter()
        .filter(|subject| text(subject, "/kind") == kind);
    let names: Vec<_> = of_kind
        .map(
            |subject| match (text(subject, "/namespace"), text(subject, "/name")) {
                ("", name) => name.to_owned(),
                (namespace, name) => format!("{namespace}/{name}"),
            },
        )
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn binding(role: &Value, subjects: &Value) -> Value {
        let mut object = json!({"metadata": {"name": "b"}, "roleRef": role, "subjects": subjects});
        RoleBinding.set_defaults(&mut object);
        object
    }

    #[test]
    fn references_get_their_group_and_subjects_theirs() {
        let role = json!({"kind": "Role", "name": "r"});
        let subjects =
            json!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]);
        let object = binding(&role, &subjects);
        assert_eq!(object["roleRef"]["apiGroup"], GROUP);
        assert_eq!(object["subjects"][0]["apiGroup"], GROUP);
        assert_eq!(object["subjects"][1].get("apiGroup"), None);
        assert_eq!(RoleBinding.validate(&object), []);
        let texts: Vec<_> = ClusterRoleBinding
            .validate(&object)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            texts,
            [
                r#"roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole""#,
                "subjects[1].namespace: Required value",
            ]
        );
    }

    #[test]
    fn a_binding_keeps_its_role() {
        let of = |name: &str| binding(&json!({"kind": "Role", "name": name}), &json!([]));
        let errors = RoleBinding.validate_update(&of("a"), &of("b"), Endpoint::Main);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 1);
        assert!(texts.iter().all(|t| t.ends_with("cannot change roleRef")));
    }
}
