//! Environment variables and what they take their values from.

use windlass_api::names;

use super::super::field::{Errors, Field};
use super::{Context, amount, volumes};

/// Fields of the pod that a variable may show.
const FIELD_PATHS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

/// Fields of a pod that have a name in the downward API, whoever may use them.
const KNOWN_PATHS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.host",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.phase",
    "status.podIP",
    "status.podIPs",
];

const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["requests.hugepages-", "limits.hugepages-"];

const SOURCES: [&str; 5] = [
    "fieldRef",
    "resourceFieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "fileKeyRef",
];

const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const BYTE_DIVISORS: [&str; 13] = [
    "1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei",
];

const SEVERAL: &str = "may not have more than one field specified at a time";

/// All that is wrong with `env` and `envFrom` of a container.
pub(super) fn validate(container: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    for variable in container.child("env").items() {
        errors.extend(variable.child("name").named(names::env_var_name));
        if variable.has("valueFrom") {
            validate_value_from(&variable, context, errors);
        }
    }
    let all = container.child("envFrom");
    for from in all.items() {
        let prefix = from.child("prefix");
        errors.extend(prefix.follows_if_set(names::env_var_name));
        let mut given = 0;
        for source in ["configMapRef", "secretRef"] {
            let source = from.child(source);
            if source.is_set() {
                given += 1;
                errors.extend(source.child("name").named(names::dns1123_subdomain));
            }
        }
        match given {
            0 => {
                let detail = "must specify one of: `configMapRef` or `secretRef`";
                errors.push(all.invalid_as("", detail));
            }
            1 => {}
            _ => errors.push(all.invalid_as("", SEVERAL)),
        }
    }
}

fn validate_value_from(variable: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    let from = variable.child("valueFrom");
    let given: Vec<_> = SOURCES
        .into_iter()
        .filter(|source| from.has(source))
        .collect();
    for source in &given {
        let field = from.child(source);
        match *source {
            "fieldRef" => validate_field_ref(&field, FIELD_PATHS, errors),
            "resourceFieldRef" => validate_resource_field_ref(&field, false, errors),
            "fileKeyRef" => validate_file_key(&field, context, errors),
            _ => validate_key(&field, errors),
        }
    }
    let detail = match given.len() {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !variable.text_of("value").is_empty() => {
            "may not be specified when `value` is not empty"
        }
        1 => return,
        _ => SEVERAL,
    };
    errors.push(from.invalid_as("", detail));
}

/// A key of a ConfigMap or Secret.
fn validate_key(selector: &Field<'_, '_>, errors: &mut Errors) {
    errors.extend(selector.child("name").follows(names::dns1123_subdomain));
    errors.extend(selector.child("key").named(names::config_map_key));
}

/// A key of a file in a volume.
fn validate_file_key(selector: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    errors.extend(selector.child("key").named(names::env_var_name));
    let volume = selector.child("volumeName");
    match volume.present() {
        Some(missing) => errors.push(missing),
        None if !context.volumes.contains_key(volume.text()) => errors.push(volume.not_found()),
        None => {}
    }
    let path = selector.child("path");
    match path.present() {
        Some(missing) => errors.push(missing),
        None => volumes::non_reserved(&path, errors),
    }
}

/// A field of the pod, one of `allowed` or a single label or annotation.
pub(super) fn validate_field_ref(
    selector: &Field<'_, '_>,
    allowed: &[&'static str],
    errors: &mut Errors,
) {
    let (version, path) = (selector.child("apiVersion"), selector.child("fieldPath"));
    if let Some(missing) = version.present().or_else(|| path.present()) {
        errors.push(missing);
        return;
    }
    let plain = path.text().split_once("['");
    let (name, subscript) =
        match plain.and_then(|(name, rest)| Some((name, rest.strip_suffix("']")?))) {
            Some((name, subscript)) => (name, Some(subscript)),
            None => (path.text(), None),
        };
    if version.text() != "v1" {
        let detail = format!(
            "error converting fieldPath: unsupported pod version: {}",
            version.text()
        );
        errors.push(path.invalid(detail));
    } else if !KNOWN_PATHS.contains(&name) {
        let label = path.text();
        let detail = format!("error converting fieldPath: field label not supported: {label}");
        errors.push(path.invalid(detail));
    } else if let Some(subscript) = subscript {
        let key = match name {
            "metadata.annotations" => subscript.to_lowercase(),
            "metadata.labels" => subscript.to_owned(),
            _ => {
                errors.push(selector.invalid_as(name, "does not support subscript"));
                return;
            }
        };
        let problems = names::qualified_name(&key).into_iter();
        errors.extend(problems.map(|p| selector.invalid_as(key.as_str(), p)));
    } else if !allowed.contains(&name) && name != "spec.host" {
        errors.push(path.not_supported(allowed));
    }
}

/// A request or limit of a container; a volume must say of which.
pub(super) fn validate_resource_field_ref(
    selector: &Field<'_, '_>,
    in_volume: bool,
    errors: &mut Errors,
) {
    let (container, resource) = (selector.child("containerName"), selector.child("resource"));
    let name = resource.text();
    let huge = HUGE_PAGES.iter().any(|prefix| name.starts_with(prefix));
    if in_volume && container.text().is_empty() {
        errors.push(container.required(""));
    } else if name.is_empty() {
        errors.push(resource.required(""));
    } else if !huge && !RESOURCES.contains(&name) {
        errors.push(resource.not_supported(RESOURCES));
    }
    let divisor = selector.child("divisor");
    let Some(amount) = amount(divisor.value()).filter(|amount| !amount.is_zero()) else {
        return;
    };
    let text = amount.to_string();
    let (kind, fits) = match name {
        "limits.cpu" | "requests.cpu" => ("cpu", CPU_DIVISORS.contains(&text.as_str())),
        "limits.memory" | "requests.memory" => ("memory", BYTE_DIVISORS.contains(&text.as_str())),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (
            "local ephemeral storage",
            BYTE_DIVISORS.contains(&text.as_str()),
        ),
        _ if huge => ("hugepages", BYTE_DIVISORS.contains(&text.as_str())),
        _ => return,
    };
    if fits {
        return;
    }
    let divisors = if kind == "cpu" {
        "1m and 1".to_owned()
    } else {
        BYTE_DIVISORS.join(", ")
    };
    let detail = format!("only divisor's values {divisors} are supported with the {kind} resource");
    errors.push(divisor.invalid_as(name, detail));
}
