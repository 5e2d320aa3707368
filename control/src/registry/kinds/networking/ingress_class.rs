//! IngressClass: which controller acts on an Ingress.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, typed_reference};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{default, rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct IngressClass;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "IngressClass");
    Kind::cluster(gvk, "ingressclasses", &IngressClass)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Controller", "string", "Who acts on its Ingresses."),
    Column::new("Parameters", "string", "What the controller is to know."),
    AGE,
];

const SCOPES: &[&str] = &["Cluster", "Namespace"];
const MAX_CONTROLLER: usize = 250;

impl Strategy for IngressClass {
    fn set_defaults(&self, object: &mut Value) {
        let parameters = object.pointer_mut("/spec/parameters");
        if let Some(parameters) = parameters.and_then(Value::as_object_mut) {
            default(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let (controller, parameters) = (spec.at("controller"), spec.at("parameters"));
        let mut errors = Vec::new();
        if controller.is_empty() {
            errors.push(controller.required(""));
        } else {
            if controller.len() > MAX_CONTROLLER {
                errors.push(controller.too_long(MAX_CONTROLLER));
            }
            errors.extend(rules::domain_prefixed_path(&controller));
        }
        if parameters.is_set() {
            errors.extend(typed_reference(&parameters));
            errors.extend(parameters.at("scope").one_of(SCOPES));
            errors.extend(validate_namespace(&parameters));
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let controller = |object| Field::root(object).at("spec").at("controller");
        controller(new)
            .unchanged(&controller(old))
            .into_iter()
            .collect()
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let of = |field: &str| text(object, &format!("/spec/parameters/{field}"));
        let parameters = match (of("kind"), of("apiGroup")) {
            ("", _) => "<none>".into(),
            (kind, "") => format!("{kind}/{}", of("name")),
            (kind, group) => format!("{kind}.{group}/{}", of("name")),
        };
        vec![
            meta::name(object).into(),
            text(object, "/spec/controller").into(),
            parameters.into(),
            age(object, now).into(),
        ]
    }
}

fn validate_namespace(parameters: &Field<'_>) -> Vec<FieldError> {
    let namespace = parameters.at("namespace");
    match (parameters.at("scope").text(), namespace.is_set()) {
        ("Namespace", false) => {
            vec![namespace.required("`parameters.scope` is set to 'Namespace'")]
        }
        ("Namespace", true) => namespace.checked(names::dns1123_label),
        ("Cluster", true) => vec![namespace.forbidden("`parameters.scope` is set to 'Cluster'")],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn parameters_are_in_the_cluster_unless_they_say_otherwise() {
        let parameters = json!({"kind": "K", "name": "n", "namespace": "x"});
        let mut object = json!({"spec": {"controller": "acme.io/c", "parameters": parameters}});
        IngressClass.set_defaults(&mut object);
        let errors = IngressClass.validate(&object);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"]
        );
    }
}
