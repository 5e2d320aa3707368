//! Mounts of volumes into a container, and block devices.

use std::collections::HashSet;

use serde_json::Value;

use super::super::field::{Errors, Field};
use super::{Context, volumes};

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const RECURSIVE_READ_ONLY: &[&str] = &["Disabled", "Enabled", "IfPossible"];

/// All that is wrong with the mounts and devices of a container.
pub(super) fn validate(container: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    let mounts = container.child("volumeMounts");
    let devices = container.child("volumeDevices");
    let mut paths = HashSet::new();
    for mount in mounts.items() {
        let (name, path) = (mount.child("name"), mount.child("mountPath"));
        errors.extend(name.present());
        let volume = context.volumes.get(name.text());
        if volume.is_none() {
            errors.push(name.not_found());
        }
        errors.extend(path.present());
        if !paths.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        let overlaps = |field: &'static str, text: &str| {
            devices.items().any(|device| device.text_of(field) == text)
        };
        if overlaps("name", name.text()) {
            errors.push(name.invalid("must not already exist in volumeDevices"));
        }
        if overlaps("devicePath", path.text()) {
            errors.push(path.invalid("must not already exist as a path in volumeDevices"));
        }
        let image = volume.is_some_and(|volume| volume.get("image").is_some());
        validate_sub_paths(&mounts, &mount, image, errors);
        validate_modes(container, &mounts, &mount, errors);
    }
    validate_devices(&devices, &mounts, context, errors);
}

/// `subPath` or `subPathExpr`; upstream names the list of mounts in errors about their text.
fn validate_sub_paths(
    mounts: &Field<'_, '_>,
    mount: &Field<'_, '_>,
    image: bool,
    errors: &mut Errors,
) {
    let path = mounts.path();
    for field in ["subPath", "subPathExpr"] {
        let given = mount.child(field);
        if given.text().is_empty() {
            continue;
        }
        if image {
            errors.push(given.invalid("not allowed in image volume sources"));
        }
        if field == "subPathExpr" && !mount.text_of("subPath").is_empty() {
            errors.push(given.invalid("subPathExpr and subPath are mutually exclusive"));
        }
        let named = Field::root(&path, mount.value());
        volumes::descending(&named.child(field), errors);
    }
}

/// How the mount behaves; upstream names the list of mounts in these errors.
fn validate_modes(
    container: &Field<'_, '_>,
    mounts: &Field<'_, '_>,
    mount: &Field<'_, '_>,
    errors: &mut Errors,
) {
    let path = mounts.path();
    let named = Field::root(&path, mount.value());
    let propagation = named.child("mountPropagation");
    errors.extend(propagation.one_of(PROPAGATIONS));
    let privileged = container.child("securityContext").is_true("privileged");
    if propagation.text() == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(propagation.forbidden(detail));
    }
    let recursive = named.child("recursiveReadOnly");
    match recursive.text() {
        "Enabled" | "IfPossible" => {
            if !mount.is_true("readOnly") {
                errors.push(recursive.forbidden("may only be specified when readOnly is true"));
            }
            if !["", "None"].contains(&propagation.text()) {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(recursive.forbidden(detail));
            }
        }
        _ => errors.extend(recursive.one_of(RECURSIVE_READ_ONLY)),
    }
}

fn validate_devices(
    devices: &Field<'_, '_>,
    mounts: &Field<'_, '_>,
    context: &Context<'_>,
    errors: &mut Errors,
) {
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for device in devices.items() {
        let (name, path) = (device.child("name"), device.child("devicePath"));
        errors.extend(name.present());
        if !name.text().is_empty() && !names.insert(name.text()) {
            errors.push(name.invalid("must be unique"));
        }
        match context.volumes.get(name.text()) {
            None => errors.push(name.not_found()),
            Some(volume) if !is_claim(volume) => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(name.invalid(detail));
            }
            Some(_) => {}
        }
        errors.extend(path.present());
        if path.text().split('/').any(|part| part == "..") {
            errors.push(path.invalid("can not contain backsteps ('..')"));
        } else if !paths.insert(path.text()) {
            errors.push(path.invalid("must be unique"));
        }
        let overlaps = |field: &'static str, text: &str| {
            mounts.items().any(|mount| mount.text_of(field) == text)
        };
        if overlaps("name", name.text()) {
            errors.push(name.invalid("must not already exist in volumeMounts"));
        }
        if overlaps("mountPath", path.text()) {
            errors.push(path.invalid("must not already exist as a path in volumeMounts"));
        }
    }
}

fn is_claim(volume: &Value) -> bool {
    let kinds = ["persistentVolumeClaim", "ephemeral"];
    kinds.iter().any(|kind| volume.get(kind).is_some())
}
