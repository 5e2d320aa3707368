//! PersistentVolume: a piece of storage. What it is made of never changes.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::names;
use windlass_api::resource::GroupVersionKind;
use windlass_api::time::{format_seconds, now};

use super::field_path::Field;
use super::{default, resource_names, rules, text};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct PersistentVolume;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("", "v1", "PersistentVolume");
    Kind::cluster(gvk, "persistentvolumes", &PersistentVolume).short_names(&["pv"])
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Capacity", "string", "How much it holds."),
    Column::new("Access Modes", "string", "How it can be mounted."),
    Column::new(
        "Reclaim Policy",
        "string",
        "What becomes of it once released.",
    ),
    Column::new("Status", "string", "Whether it is bound to a claim."),
    Column::new("Claim", "string", "The claim it is bound to."),
    Column::new("StorageClass", "string", "Its class."),
    Column::new(
        "VolumeAttributesClass",
        "string",
        "The class of its changeable attributes.",
    ),
    Column::new("Reason", "string", "Why it is in its state."),
    AGE,
    Column::wide("VolumeMode", "string", "Filesystem or block device."),
];

const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
pub(super) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];

/// Access modes, sorted, with their short forms.
const ACCESS_MODES: &[(&str, &str)] = &[
    ("ReadWriteOnce", "RWO"),
    ("ReadOnlyMany", "ROX"),
    ("ReadWriteMany", "RWX"),
    ("ReadWriteOncePod", "RWOP"),
];
const ACCESS_MODE_NAMES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// What a volume can be made of, with the texts and lists each must have.
const SOURCES: &[(&str, &[&str])] = &[
    ("hostPath", &["path"]),
    ("gcePersistentDisk", &["pdName"]),
    ("awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", &["endpoints", "path"]),
    ("flocker", &[]),
    ("nfs", &["server", "path"]),
    ("rbd", &["monitors", "image"]),
    ("quobyte", &["registry", "volume"]),
    ("cephfs", &["monitors"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("cinder", &["volumeID"]),
    ("fc", &[]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("local", &["path"]),
    ("storageos", &[]),
    ("csi", &["volumeHandle"]),
];

const INLINE: &str = "may not be specified in the context of inline volumes";

impl Strategy for PersistentVolume {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        default(spec, "persistentVolumeReclaimPolicy", "Retain");
        default(spec, "volumeMode", "Filesystem");
        set_source_defaults(spec);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        if let Some(object) = object.as_object_mut() {
            let since = format_seconds(now());
            let status = json!({"phase": "Pending", "lastPhaseTransitionTime": since});
            object.insert("status".into(), status);
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, endpoint: Endpoint) {
        let phase = |object| text(object, "/status/phase").to_owned();
        let since = |object: &Value| object.pointer("/status/lastPhaseTransitionTime").cloned();
        let moved = phase(old) != phase(new) && since(old) == since(new);
        if endpoint == Endpoint::Status && moved {
            let since = format_seconds(now()).into();
            meta::member_mut(new, "status").insert("lastPhaseTransitionTime".into(), since);
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate_spec(&Field::root(object).at("spec"), false)
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint == Endpoint::Status {
            return Vec::new();
        }
        let (old, new) = (Field::root(old).at("spec"), Field::root(new).at("spec"));
        let mut errors = Vec::new();
        if source_of(&old) != source_of(&new) {
            let detail = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden("spec.persistentvolumesource", detail));
        }
        // Upstream leaves `spec` out of these two paths.
        let mode = Field::new("volumeMode", new.at("volumeMode").value());
        errors.extend(mode.unchanged(&old.at("volumeMode")));
        if old.at("nodeAffinity").is_set() {
            let affinity = Field::new("nodeAffinity", new.at("nodeAffinity").value());
            errors.extend(affinity.unchanged(&old.at("nodeAffinity")));
        }
        let class = new.at("volumeAttributesClassName");
        if old.at("volumeAttributesClassName").is_set() && !class.is_set() {
            errors.push(class.forbidden("update from non-nil value to nil is forbidden"));
        }
        errors
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("PersistentVolume is stored but not bound or mounted by Windlass yet")
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
        let claim = match spec("claimRef/name") {
            "" => String::new(),
            name => format!("{}/{name}", spec("claimRef/namespace")),
        };
        vec![
            meta::name(object).into(),
            spec("capacity/storage").into(),
            access_modes(object.pointer("/spec/accessModes")).into(),
            spec("persistentVolumeReclaimPolicy").into(),
            phase(object).into(),
            claim.into(),
            class_of(object).into(),
            or_unset(spec("volumeAttributesClassName")).into(),
            text(object, "/status/reason").into(),
            age(object, now).into(),
            or_unset(spec("volumeMode")).into(),
        ]
    }
}

/// The phase as tables show it.
pub(super) fn phase(object: &Value) -> &str {
    if meta::is_terminating(object) {
        "Terminating"
    } else {
        text(object, "/status/phase")
    }
}

/// A text as tables show it.
pub(super) fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

/// The storage class, from the annotation that came before the field.
pub(super) fn class_of(object: &Value) -> &str {
    const ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
    let annotations = meta::get(object, "annotations");
    let annotated = annotations.and_then(|all| all.get(ANNOTATION));
    annotated
        .and_then(Value::as_str)
        .unwrap_or_else(|| text(object, "/spec/storageClassName"))
}

/// Access modes in their short forms.
pub(super) fn access_modes(modes: Option<&Value>) -> String {
    let modes = modes.and_then(Value::as_array);
    let has = |mode: &str| modes.is_some_and(|modes| modes.iter().any(|m| m == mode));
    let shown: Vec<_> = ACCESS_MODES
        .iter()
        .filter(|(mode, _)| has(mode))
        .map(|(_, short)| *short)
        .collect();
    shown.join(",")
}

fn set_source_defaults(spec: &mut Map<String, Value>) {
    const DEFAULTS: &[(&str, &str, &str)] = &[
        ("hostPath", "type", ""),
        ("iscsi", "iscsiInterface", "default"),
        ("rbd", "pool", "rbd"),
        ("rbd", "user", "admin"),
        ("rbd", "keyring", "/etc/ceph/keyring"),
        ("azureDisk", "cachingMode", "ReadWrite"),
        ("azureDisk", "kind", "Shared"),
        ("azureDisk", "fsType", "ext4"),
        ("scaleIO", "storageMode", "ThinProvisioned"),
        ("scaleIO", "fsType", "xfs"),
    ];
    for (source, field, value) in DEFAULTS {
        if let Some(source) = spec.get_mut(*source).and_then(Value::as_object_mut) {
            default(source, field, *value);
        }
    }
}

/// What the volume is made of, without the one part of it that may be added later.
fn source_of(spec: &Field<'_>) -> Vec<(&'static str, Value)> {
    let there = SOURCES.iter().filter(|(name, _)| spec.at(name).is_set());
    there
        .map(|(name, _)| {
            let mut source = spec.at(name).value().clone();
            if let Some(source) = source.as_object_mut() {
                source.shift_remove("controllerExpandSecretRef");
            }
            (*name, source)
        })
        .collect()
}

/// All that is wrong with a volume's spec, of an object or inline in a `VolumeAttachment`.
pub(super) fn validate_spec(spec: &Field<'_>, inline: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if inline {
        errors.extend(validate_inline(spec));
    } else {
        errors.extend(validate_capacity(&spec.at("capacity")));
        let policy = spec.at("persistentVolumeReclaimPolicy");
        errors.extend(policy.one_of(RECLAIM_POLICIES));
        errors.extend(
            spec.at("storageClassName")
                .follows(names::dns1123_subdomain),
        );
        errors.extend(spec.at("volumeMode").one_of_if_set(VOLUME_MODES));
    }
    let modes = spec.at("accessModes");
    if modes.is_empty() {
        errors.push(modes.required(""));
    }
    errors.extend(validate_access_modes(&modes));
    errors.extend(validate_affinity(&spec.at("nodeAffinity"), inline));
    errors.extend(validate_source(spec));
    let class = spec.at("volumeAttributesClassName");
    if class.is_set() {
        if class.is_empty() {
            errors.push(class.required("an empty string is disallowed"));
        }
        errors.extend(class.follows(names::dns1123_subdomain));
        if !spec.at("csi").is_set() {
            let detail = "has to be specified when using volumeAttributesClassName";
            errors.push(spec.at("csi").required(detail));
        }
    }
    errors
}

fn validate_inline(spec: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["claimRef", "capacity", "storageClassName"] {
        let field = spec.at(field);
        if field.is_set() && !field.is_empty() {
            errors.push(field.forbidden(INLINE));
        }
    }
    if !spec.at("csi").is_set() {
        let detail = "has to be specified in the context of inline volumes";
        errors.push(spec.at("csi").required(detail));
    }
    for (field, only) in [
        ("persistentVolumeReclaimPolicy", "Retain"),
        ("volumeMode", "Filesystem"),
    ] {
        let value = spec.at(field);
        if !value.is_empty() && value.text() != only {
            let detail = match field {
                "volumeMode" => format!(
                    "may not specify volumeMode other than {only} in the context of inline volumes"
                ),
                _ => format!("may only be {only} in the context of inline volumes"),
            };
            errors.push(value.forbidden(detail));
        }
    }
    errors
}

fn validate_capacity(capacity: &Field<'_>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if capacity.is_empty() {
        errors.push(capacity.required(""));
    }
    if !capacity.key("storage").is_set() || capacity.len() > 1 {
        errors.push(capacity.not_supported(&["storage"]));
    }
    for (_, amount) in capacity.entries() {
        errors.extend(resource_names::positive(&amount));
    }
    errors
}

/// All that is wrong with access modes, of volumes and of claims.
pub(super) fn validate_access_modes(modes: &Field<'_>) -> Vec<FieldError> {
    const ALONE: &str = "ReadWriteOncePod";
    let mut errors = Vec::new();
    for mode in modes.items() {
        // Upstream names the list, not the element.
        errors.extend(Field::new(modes.path(), mode.value()).one_of(ACCESS_MODE_NAMES));
    }
    let known = modes.texts().into_iter();
    let known: Vec<_> = known
        .filter(|mode| ACCESS_MODE_NAMES.contains(mode))
        .collect();
    if known.contains(&ALONE) && known.iter().any(|mode| *mode != ALONE) {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(modes.forbidden(detail));
    }
    errors
}

fn validate_affinity(affinity: &Field<'_>, inline: bool) -> Vec<FieldError> {
    if !affinity.is_set() {
        return Vec::new();
    }
    if inline {
        return vec![affinity.forbidden(INLINE)];
    }
    let required = affinity.at("required");
    if required.is_set() {
        rules::node_selector(&required)
    } else {
        vec![required.required("must specify required node constraints")]
    }
}

fn validate_source(spec: &Field<'_>) -> Vec<FieldError> {
    let there = SOURCES.iter().filter(|(name, _)| spec.at(name).is_set());
    let mut errors = Vec::new();
    for (index, (name, required)) in there.enumerate() {
        let source = spec.at(name);
        if index > 0 {
            errors.push(source.forbidden("may not specify more than 1 volume type"));
            continue;
        }
        if *name == "csi" {
            errors.extend(rules::csi_driver_name(&source.at("driver")));
        }
        for field in *required {
            if source.at(field).is_empty() {
                errors.push(source.at(field).required(""));
            }
        }
        errors.extend(validate_path(spec, name));
    }
    if SOURCES.iter().all(|(name, _)| !spec.at(name).is_set()) {
        errors.push(spec.required("must specify a volume type"));
    }
    errors
}

/// The rules of sources that are paths.
fn validate_path(spec: &Field<'_>, source: &str) -> Vec<FieldError> {
    let path = spec.at(source).at("path");
    let mut errors = Vec::new();
    let steps_back = path.text().split('/').any(|part| part == "..");
    if matches!(source, "hostPath" | "local") && steps_back {
        errors.push(path.invalid("must not contain '..'"));
    }
    if source == "nfs" && !path.is_empty() && !path.text().starts_with('/') {
        errors.push(path.invalid("must be an absolute path"));
    }
    let affinity = spec.at("nodeAffinity");
    if source == "local" && !affinity.is_set() {
        errors.push(affinity.required("Local volume requires node affinity"));
    }
    let policy = spec.at("persistentVolumeReclaimPolicy");
    let whole_disk = source == "hostPath" && path.text().trim_matches('/').is_empty();
    if whole_disk && !path.is_empty() && policy.text() == "Recycle" {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(policy.forbidden(detail));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"metadata": {"name": "v"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "disk.example.com", "volumeHandle": "1"},
        }});
        change(&mut object);
        PersistentVolume.set_defaults(&mut object);
        object
    }

    #[test]
    fn a_volume_is_made_of_one_thing() {
        let errors = |change: fn(&mut Value)| -> Vec<String> {
            let errors = PersistentVolume.validate(&volume(change));
            errors.iter().map(ToString::to_string).collect()
        };
        assert_eq!(errors(|_| {}), [""; 0]);
        assert_eq!(
            errors(|v| v["spec"]["nfs"] = json!({"server": "s", "path": "/"})),
            ["spec.csi: Forbidden: may not specify more than 1 volume type"]
        );
        assert_eq!(
            errors(|v| v["spec"]["capacity"] = json!({"storage": "0"})),
            [r#"spec.capacity[storage]: Invalid value: "0": must be greater than zero"#]
        );
        assert_eq!(
            errors(|v| v["spec"]["accessModes"] = json!(["ReadWriteOncePod", "ReadOnlyMany"])),
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]
        );
    }

    #[test]
    fn what_a_volume_is_made_of_stays() {
        let old = volume(|_| {});
        let update = |change: fn(&mut Value)| {
            PersistentVolume.validate_update(&old, &volume(change), Endpoint::Main)
        };
        assert_eq!(
            update(|v| v["spec"]["csi"]["controllerExpandSecretRef"] = json!({})),
            []
        );
        assert_eq!(
            update(|v| v["spec"]["csi"]["volumeHandle"] = "2".into()).len(),
            1
        );
        assert_eq!(
            update(|v| v["spec"]["volumeMode"] = "Block".into()).len(),
            1
        );
    }
}
