//! StorageClass: how volumes are made; once there, only expansion, topologies and mount options change.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, forbidden_update, parameters, provisioner};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::{Field, repeated};
use crate::registry::kinds::{default, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct StorageClass;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "StorageClass");
    Kind::cluster(gvk, "storageclasses", &StorageClass).short_names(&["sc"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Provisioner", "string", "Who makes the volumes."),
    Column::new(
        "ReclaimPolicy",
        "string",
        "What becomes of released volumes.",
    ),
    Column::new("VolumeBindingMode", "string", "When a volume is made."),
    Column::new(
        "AllowVolumeExpansion",
        "string",
        "Whether claims may ask for more later.",
    ),
    AGE,
];

const RECLAIM_POLICIES: &[&str] = &["Delete", "Retain"];
const BINDING_MODES: &[&str] = &["Immediate", "WaitForFirstConsumer"];

/// The annotation that makes a class the one of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

impl Strategy for StorageClass {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            default(object, "reclaimPolicy", "Delete");
            default(object, "volumeBindingMode", "Immediate");
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let class = Field::root(object);
        let mut errors = provisioner(&class.at("provisioner"));
        errors.extend(parameters(&class.at("parameters"), true));
        errors.extend(class.at("reclaimPolicy").one_of(RECLAIM_POLICIES));
        errors.extend(class.at("volumeBindingMode").one_of(BINDING_MODES));
        errors.extend(topologies(&class.at("allowedTopologies")));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let (old, new) = (Field::root(old), Field::root(new));
        let fixed = ["parameters", "provisioner", "reclaimPolicy"];
        let mut errors: Vec<_> = fixed
            .iter()
            .filter_map(|field| forbidden_update(&old.at(field), &new.at(field)))
            .collect();
        let mode = new.at("volumeBindingMode");
        errors.extend(mode.unchanged(&old.at("volumeBindingMode")));
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("StorageClass is stored but Windlass makes no volumes of it yet")
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let annotations = meta::get(object, "annotations");
        let is_default = annotations.and_then(|all| all.get(DEFAULT_CLASS)) == Some(&"true".into());
        let mark = if is_default { " (default)" } else { "" };
        let expands = Field::root(object).at("allowVolumeExpansion").is_true();
        vec![
            format!("{}{mark}", meta::name(object)).into(),
            text(object, "/provisioner").into(),
            text(object, "/reclaimPolicy").into(),
            text(object, "/volumeBindingMode").into(),
            expands.into(),
            age(object, now).into(),
        ]
    }
}

fn topologies(terms: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let terms = terms.items();
    for (index, term) in terms.iter().enumerate() {
        let expressions = term.at("matchLabelExpressions");
        let keys: Vec<_> = expressions.items().iter().map(|e| e.at("key")).collect();
        for expression in expressions.items() {
            let values = expression.at("values");
            if values.is_empty() {
                errors.push(values.required(""));
            }
            errors.extend(repeated(&values.items()));
            errors.extend(expression.at("key").checked(names::qualified_name));
        }
        errors.extend(repeated(&keys));
        let mut before = terms.iter().take(index);
        if before.any(|other| other.value() == term.value()) {
            errors.push(FieldError::duplicate(expressions.path(), ""));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_made_the_volumes_stays() {
        let mut old = json!({"metadata": {"name": "fast"}, "provisioner": "example.com/disk"});
        StorageClass.set_defaults(&mut old);
        assert_eq!(StorageClass.validate(&old), []);
        let mut new = old.clone();
        new["parameters"] = json!({"type": "ssd"});
        new["volumeBindingMode"] = "WaitForFirstConsumer".into();
        let errors = StorageClass.validate_update(&old, &new, Endpoint::Main);
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "parameters: Forbidden: updates to parameters are forbidden.",
                r#"volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable"#,
            ]
        );
    }
}
