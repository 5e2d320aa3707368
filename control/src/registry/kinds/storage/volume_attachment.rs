//! VolumeAttachment: the wish that a volume be attached to a node. Its spec never changes.

use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;

use super::GROUP;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{persistent_volume, rules, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct VolumeAttachment;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "VolumeAttachment");
    Kind::cluster(gvk, "volumeattachments", &VolumeAttachment)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Attacher", "string", "The driver that attaches."),
    Column::new("PV", "string", "The volume."),
    Column::new("Node", "string", "The node."),
    Column::new("Attached", "boolean", "Whether it is attached."),
    AGE,
];

const MAX_METADATA: usize = 256 << 10;
const MAX_MESSAGE: usize = 1024;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

impl Strategy for VolumeAttachment {
    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"attached": false}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let mut errors = rules::csi_driver_name(&spec.at("attacher"));
        errors.extend(source(&spec.at("source")));
        errors.extend(spec.at("nodeName").checked(names::dns1123_subdomain));
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let (old, new) = (Field::root(old), Field::root(new));
        if endpoint == Endpoint::Status {
            return status(&new.at("status"));
        }
        new.at("spec")
            .unchanged(&old.at("spec"))
            .into_iter()
            .collect()
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("VolumeAttachment is stored but Windlass attaches no volumes yet")
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let attached = Field::root(object).at("status").at("attached").is_true();
        vec![
            meta::name(object).into(),
            text(object, "/spec/attacher").into(),
            text(object, "/spec/source/persistentVolumeName").into(),
            text(object, "/spec/nodeName").into(),
            attached.into(),
            age(object, now).into(),
        ]
    }
}

fn source(source: &Field<'_>) -> Vec<FieldError> {
    let (inline, name) = (
        source.at("inlineVolumeSpec"),
        source.at("persistentVolumeName"),
    );
    match (inline.is_set(), name.is_set()) {
        (false, false) => vec![source.required(ONE_SOURCE)],
        (true, true) => vec![source.forbidden(ONE_SOURCE)],
        (false, true) if name.is_empty() => {
            vec![name.required("must specify non empty persistentVolumeName")]
        }
        (false, true) => name.follows(names::dns1123_subdomain),
        (true, false) => persistent_volume::validate_spec(&inline, true),
    }
}

fn status(status: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let metadata = status.at("attachmentMetadata");
    let entries = metadata.entries();
    let size: usize = entries
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size > MAX_METADATA {
        errors.push(metadata.too_long(MAX_METADATA));
    }
    for error in ["attachError", "detachError"] {
        let error = status.at(error);
        if error.at("message").len() > MAX_MESSAGE {
            errors.push(error.at("message").too_long(MAX_MESSAGE));
        }
        if error.at("errorCode").integer() < 0 {
            let detail = format!("must be between 0 and {}, inclusive", i32::MAX);
            errors.push(error.at("errorCode").invalid(detail));
        }
    }
    errors
}
