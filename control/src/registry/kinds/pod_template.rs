//! PodTemplate: a template on its own.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::field::{Field, pointer};
use super::{label_selector, pod_spec, workload};
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{Column, Kind, NAME, Strategy};

struct PodTemplate;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "PodTemplate");
    Kind::namespaced(gvk, "podtemplates", &PodTemplate)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new(
        "Containers",
        "string",
        "Names of each container in the template.",
    ),
    Column::new(
        "Images",
        "string",
        "Images referenced by each container in the template.",
    ),
    Column::new("Pod Labels", "string", "The labels for the pod template."),
];

impl Strategy for PodTemplate {
    fn set_defaults(&self, object: &mut Value) {
        if let Some(object) = object.as_object_mut() {
            workload::set_template_defaults(object);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let root = Field::root("", object);
        pod_spec::validate_template(&root.child("template"), &mut errors);
        errors
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        let root = Field::root("", object);
        pod_spec::warnings(&root.child("template"))
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, _: Timestamp) -> Vec<Value> {
        let [containers, images] = workload::container_cells(object, "/template/spec/containers");
        let labels = pointer(object, "/template/metadata/labels");
        vec![
            meta::name(object).into(),
            containers,
            images,
            label_selector::shown(labels),
        ]
    }
}
