//! PersistentVolumeClaim: a wish for storage. Once made, only its size and its changeable attributes move.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::names;
use windlass_api::quantity::Quantity;
use windlass_api::resource::GroupVersionKind;

use super::field_path::Field;
use super::persistent_volume::{
    VOLUME_MODES, access_modes, class_of, or_unset, phase, validate_access_modes,
};
use super::{default, resource_names, rules, text};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct PersistentVolumeClaim;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "PersistentVolumeClaim");
    Kind::namespaced(gvk, "persistentvolumeclaims", &PersistentVolumeClaim).short_names(&["pvc"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Status", "string", "Whether the claim is bound."),
    Column::new("Volume", "string", "The volume it is bound to."),
    Column::new("Capacity", "string", "How much the volume holds."),
    Column::new("Access Modes", "string", "How the volume can be mounted."),
    Column::new("StorageClass", "string", "The class it asks for."),
    Column::new(
        "VolumeAttributesClass",
        "string",
        "The class of changeable attributes it asks for.",
    ),
    AGE,
    Column::wide("VolumeMode", "string", "Filesystem or block device."),
];

const RESIZE_STATES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

impl Strategy for PersistentVolumeClaim {
    fn set_defaults(&self, object: &mut Value) {
        set_spec_defaults(meta::member_mut(object, "spec"));
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        normalize_sources(meta::member_mut(object, "spec"));
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({"phase": "Pending"}));
        }
    }

    fn prepare_for_update(&self, _: &Value, new: &mut Value, _: Endpoint) {
        normalize_sources(meta::member_mut(new, "spec"));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate_spec(&Field::root(object).at("spec"))
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            validate_status(&Field::root(new).at("status"))
        } else {
            validate_change(old, new)
        }
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("PersistentVolumeClaim is stored but not bound or mounted by Windlass yet")
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = |field: &str| text(object, &format!("/spec/{field}"));
        let volume = spec("volumeName");
        let (capacity, modes) = if volume.is_empty() {
            ("", String::new())
        } else {
            let capacity = text(object, "/status/capacity/storage");
            let modes = access_modes(object.pointer("/status/accessModes"));
            (if capacity.is_empty() { "0" } else { capacity }, modes)
        };
        vec![
            meta::name(object).into(),
            phase(object).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            class_of(object).into(),
            or_unset(spec("volumeAttributesClassName")).into(),
            age(object, now).into(),
            or_unset(spec("volumeMode")).into(),
        ]
    }
}

/// Fills in what upstream fills in, in claims and in templates of claims.
pub(super) fn set_spec_defaults(spec: &mut Map<String, Value>) {
    default(spec, "volumeMode", "Filesystem");
}

/// Keeps `dataSource` and `dataSourceRef` alike. The older field holds claims and snapshots only; what else
/// it names is dropped, as it always was.
fn normalize_sources(spec: &mut Map<String, Value>) {
    let is_old_kind = |source: &Value| {
        let of = (text(source, "/apiGroup"), text(source, "/kind"));
        matches!(
            of,
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        )
    };
    if spec
        .get("dataSource")
        .is_some_and(|source| !is_old_kind(source))
    {
        spec.shift_remove("dataSource");
    }
    match (
        spec.get("dataSource").cloned(),
        spec.get("dataSourceRef").cloned(),
    ) {
        (Some(source), None) => drop(spec.insert("dataSourceRef".into(), source)),
        (None, Some(source)) if text(&source, "/namespace").is_empty() && is_old_kind(&source) => {
            spec.insert("dataSource".into(), source);
        }
        _ => {}
    }
}

/// All that is wrong with a claim's spec, or a claim template's.
pub(super) fn validate_spec(spec: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let modes = spec.at("accessModes");
    if modes.is_empty() {
        errors.push(modes.required("at least 1 access mode is required"));
    }
    errors.extend(validate_access_modes(&modes));
    errors.extend(rules::label_selector(&spec.at("selector")));
    errors.extend(validate_size(spec));
    for class in ["storageClassName", "volumeAttributesClassName"] {
        errors.extend(spec.at(class).follows(names::dns1123_subdomain));
    }
    errors.extend(spec.at("volumeMode").one_of_if_set(VOLUME_MODES));
    for source in ["dataSource", "dataSourceRef"] {
        errors.extend(validate_source(&spec.at(source)));
    }
    errors.extend(validate_sources(spec));
    errors
}

fn validate_size(spec: &Field<'_>) -> Vec<FieldError> {
    let size = spec.at("resources").at("requests").key("storage");
    // Upstream leaves `requests` out of the path.
    let path = format!("{}[storage]", spec.at("resources").path());
    let size = Field::new(path, size.value());
    if size.is_set() {
        resource_names::positive(&size).into_iter().collect()
    } else {
        vec![size.required("")]
    }
}

fn validate_source(source: &Field<'_>) -> Vec<FieldError> {
    if !source.is_set() {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let (group, kind) = (source.at("apiGroup"), source.at("kind"));
    for field in [source.at("name"), kind.clone()] {
        if field.is_empty() {
            errors.push(field.required(""));
        }
    }
    if group.is_empty() && kind.text() != "PersistentVolumeClaim" {
        let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(source.path(), kind.text(), detail));
    }
    errors.extend(group.follows(names::dns1123_subdomain));
    errors.extend(source.at("namespace").follows(names::dns1123_label));
    errors
}

fn validate_sources(spec: &Field<'_>) -> Option<FieldError> {
    let (old, new) = (spec.at("dataSource"), spec.at("dataSourceRef"));
    if !old.is_set() || !new.is_set() {
        return None;
    }
    let same = ["apiGroup", "kind", "name"]
        .iter()
        .all(|field| old.at(field).value() == new.at(field).value());
    let detail = if !new.at("namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if !same {
        "must match dataSourceRef"
    } else {
        return None;
    };
    Some(FieldError::invalid(spec.path(), old.path(), detail))
}

/// What an update may not do: anything but name the volume once and, once bound, ask for more or other
/// attributes.
fn validate_change(old: &Value, new: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if comparable(old, new, old) != comparable(old, new, new) {
        // Upstream appends a difference of its Go structs.
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden("spec", detail));
    }
    errors.extend(validate_shrinking(old, new));
    let (old, new) = (Field::root(old).at("spec"), Field::root(new).at("spec"));
    // Upstream leaves `spec` out of this path.
    let mode = Field::new("volumeMode", new.at("volumeMode").value());
    errors.extend(mode.unchanged(&old.at("volumeMode")));
    let class = new.at("volumeAttributesClassName");
    if old.at("volumeAttributesClassName").is_set() {
        if !class.is_set() {
            errors.push(class.forbidden("update from non-nil value to nil is forbidden"));
        } else if class.is_empty() {
            let detail = "update from non-nil value to an empty string is forbidden";
            errors.push(class.forbidden(detail));
        }
    }
    errors
}

/// The spec of `object`, without what may differ between `old` and `new`.
fn comparable(old: &Value, new: &Value, object: &Value) -> Value {
    let mut spec = object.get("spec").cloned().unwrap_or_default();
    let bound = text(new, "/status/phase") == "Bound";
    let (had, has) = (old.get("spec"), new.get("spec"));
    let set = |spec: Option<&Value>, field| spec.is_some_and(|spec| spec.get(field).is_some());
    if let Some(spec) = spec.as_object_mut() {
        if text(old, "/spec/volumeName").is_empty() {
            spec.shift_remove("volumeName");
        }
        if bound && set(has, "volumeAttributesClassName") {
            spec.shift_remove("volumeAttributesClassName");
        }
        if !set(had, "storageClassName") {
            spec.shift_remove("storageClassName");
        }
    }
    let requests = spec
        .pointer_mut("/resources/requests")
        .and_then(Value::as_object_mut);
    if let Some(requests) = requests.filter(|_| bound) {
        requests.shift_remove("storage");
    }
    spec
}

/// A claim may take back a wish for more that was not fulfilled, and not what it has.
fn validate_shrinking(old: &Value, new: &Value) -> Option<FieldError> {
    const PATH: &str = "/spec/resources/requests/storage";
    let size = |object, pointer| {
        text(object, pointer)
            .parse::<Quantity>()
            .unwrap_or_default()
    };
    let (before, after) = (size(old, PATH), size(new, PATH));
    let held = size(old, "/status/capacity/storage");
    let detail = "field can not be less than status.capacity";
    let path = "spec.resources.requests.storage";
    (after < before && after <= held).then(|| FieldError::forbidden(path, detail))
}

fn validate_status(status: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (_, amount) in status.at("capacity").entries() {
        let negative = amount.quantity().is_some_and(Quantity::is_negative);
        if negative {
            errors.push(amount.invalid("must be a valid resource quantity"));
        }
    }
    for (name, state) in status.at("allocatedResourceStatuses").entries() {
        if !RESIZE_STATES.contains(&state.text()) {
            let path = "status.allocatedResourceStatus";
            errors.push(FieldError::not_supported(path, name, RESIZE_STATES));
        }
    }
    for (name, amount) in status.at("allocatedResources").entries() {
        errors.extend(resource_names::amount(&amount, name));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({
            "metadata": {"name": "c"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "2Gi"}},
                "volumeName": "v",
            },
            "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}},
        });
        change(&mut object);
        PersistentVolumeClaim.set_defaults(&mut object);
        object
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_claim_asks_for_a_size_and_a_mode() {
        assert_eq!(PersistentVolumeClaim.validate(&claim(|_| {})), []);
        let errors = PersistentVolumeClaim.validate(&json!({"spec": {}}));
        assert_eq!(
            texts(&errors),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ]
        );
    }

    #[test]
    fn a_bound_claim_may_grow_and_not_fall_below_what_it_has() {
        let old = claim(|_| {});
        let resized = |size: &str| {
            let new = claim(|c| c["spec"]["resources"]["requests"]["storage"] = size.into());
            PersistentVolumeClaim.validate_update(&old, &new, Endpoint::Main)
        };
        assert_eq!(resized("3Gi"), []);
        assert_eq!(resized("1.5Gi"), []);
        assert_eq!(
            texts(&resized("1Gi")),
            [
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
            ]
        );
    }

    #[test]
    fn an_unbound_claim_changes_only_by_being_bound() {
        let pending = |c: &mut Value| c["status"]["phase"] = "Pending".into();
        let unbound = claim(|c| {
            pending(c);
            c["spec"]["volumeName"] = "".into();
        });
        let update =
            |new: &Value| PersistentVolumeClaim.validate_update(&unbound, new, Endpoint::Main);
        assert_eq!(update(&claim(pending)), []);
        let grown = claim(|c| {
            pending(c);
            c["spec"]["resources"]["requests"]["storage"] = "3Gi".into();
        });
        assert_eq!(update(&grown).len(), 1);
    }

    #[test]
    fn the_two_fields_of_a_source_are_kept_alike() {
        let mut object = claim(|c| {
            c["spec"]["dataSource"] = json!({"kind": "PersistentVolumeClaim", "name": "o"});
        });
        PersistentVolumeClaim.prepare_for_create(&mut object, &UserInfo::default());
        assert_eq!(
            object["spec"]["dataSource"],
            object["spec"]["dataSourceRef"]
        );
        assert_eq!(PersistentVolumeClaim.validate(&object), []);
    }
}
