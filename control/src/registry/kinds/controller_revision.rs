//! ControllerRevision: a former state of a StatefulSet or DaemonSet, which never changes.

use jiff::Timestamp;
use serde_json::Value;
use windlass_api::resource::GroupVersionKind;

use super::field::{Field, member};
use super::{integer, items, text};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct ControllerRevision;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("apps", "v1", "ControllerRevision");
    Kind::namespaced(gvk, "controllerrevisions", &ControllerRevision)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Controller", "string", "The object the revision is of."),
    Column::new(
        "Revision",
        "string",
        "Its place among the object's revisions.",
    ),
    AGE,
];

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let root = Field::root("", object);
        let data = root.child("data");
        let missing = (!data.is_set()).then(|| data.required("data is mandatory"));
        let negative = root.child("revision").non_negative();
        missing.into_iter().chain(negative).collect()
    }

    fn validate_update(&self, old: &Value, new: &Value, _: Endpoint) -> Vec<FieldError> {
        let root = Field::root("", new);
        let changed = root.child("data").unchanged(member(old, "data"));
        changed.into_iter().collect()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            meta::name(object).into(),
            controller(object).into(),
            integer(object, "/revision").into(),
            age(object, now).into(),
        ]
    }
}

/// `daemonset.apps/NAME` of the object that controls this one.
fn controller(object: &Value) -> String {
    let owners = items(object, "/metadata/ownerReferences");
    let controls = |owner: &&Value| owner.get("controller") == Some(&Value::Bool(true));
    let Some(owner) = owners.iter().find(controls) else {
        return "<none>".into();
    };
    let kind = text(owner, "/kind").to_lowercase();
    let name = text(owner, "/name");
    match text(owner, "/apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}
