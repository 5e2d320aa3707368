//! Namespace: deleted in two steps, by the finalizer in its spec.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
use super::{items, text};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, NameRule, Strategy};

struct Namespace;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "Namespace");
    Kind::cluster(gvk.clone(), "namespaces", &Namespace)
        .short_names(&["ns"])
        .verbs(&[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ])
        .subresource("finalize", gvk, &["update"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", "string", "Active or Terminating."),
    AGE,
];

/// The label by which selectors find a namespace by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespace {
    fn set_defaults(&self, object: &mut Value) {
        let name = meta::name(object).to_owned();
        if name.is_empty() {
            return;
        }
        let labels = meta::metadata_mut(object)
            .entry("labels")
            .or_insert_with(|| json!({}));
        if let Some(labels) = labels.as_object_mut() {
            labels.insert(NAME_LABEL.into(), name.into());
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        meta::member_mut(object, "spec").insert("finalizers".into(), json!(["kubernetes"]));
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"phase": "Active"}));
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, endpoint: Endpoint) {
        match endpoint {
            Endpoint::Named("deletion") => {
                meta::member_mut(new, "status").insert("phase".into(), "Terminating".into());
            }
            Endpoint::Named(_) => meta::copy_member(old, new, "status"),
            Endpoint::Main => meta::copy_member(old, new, "spec"),
            Endpoint::Status => {}
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let finalizers = Field::root(object).at("spec").at("finalizers").items();
        finalizers.iter().flat_map(validate_finalizer).collect()
    }

    fn validate_update(&self, _: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint != Endpoint::Status {
            return Vec::new();
        }
        let (phase, condition) = match meta::is_terminating(new) {
            true => ("Terminating", "is not empty"),
            false => ("Active", "is empty"),
        };
        if text(new, "/status/phase") == phase {
            return Vec::new();
        }
        let detail = format!("may only be '{phase}' if `deletionTimestamp` {condition}");
        let found = text(new, "/status/phase");
        // The capital letter is upstream's.
        vec![FieldError::invalid("status.Phase", found, detail)]
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn blocks_deletion(&self, object: &Value) -> bool {
        !items(object, "/spec/finalizers").is_empty()
    }

    fn name_rule(&self) -> NameRule {
        NameRule::Label
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.phase"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let phase = text(object, "/status/phase");
        vec![
            meta::name(object).into(),
            phase.into(),
            age(object, now).into(),
        ]
    }
}

fn validate_finalizer(finalizer: &Field<'_>) -> Vec<FieldError> {
    let mut errors = finalizer.checked(windlass_api::names::qualified_name);
    if !finalizer.text().contains('/') && finalizer.text() != "kubernetes" {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(finalizer.invalid(detail));
    }
    errors
}
