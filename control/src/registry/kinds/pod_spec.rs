//! Defaults and validation of a pod's spec, for pods and for templates.

use std::collections::HashSet;

use serde_json::{Map, Value, json};
use windlass_api::{names, quantity::Quantity};

use super::{default, integer, items, text};
use crate::registry::field_error::FieldError;
use crate::registry::validation::invalid;

const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];

/// Fills in what upstream fills in.
pub fn set_defaults(spec: &mut Map<String, Value>) {
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "schedulerName", "default-scheduler");
    default(spec, "securityContext", json!({}));
    if let Some(account) = spec
        .get("serviceAccountName")
        .filter(|a| a.is_string())
        .cloned()
    {
        default(spec, "serviceAccount", account);
    }
    for list in CONTAINER_LISTS {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            set_container_defaults(container);
        }
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        set_volume_defaults(volume);
    }
}

fn set_container_defaults(container: &mut Map<String, Value>) {
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    default(container, "resources", json!({}));
    let image = container
        .get("image")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let policy = if is_latest(image) {
        "Always"
    } else {
        "IfNotPresent"
    };
    default(container, "imagePullPolicy", policy);
    let ports = container.get_mut("ports").and_then(Value::as_array_mut);
    for port in ports.into_iter().flatten().filter_map(Value::as_object_mut) {
        default(port, "protocol", "TCP");
    }
    for probe in PROBES {
        if let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) {
            set_probe_defaults(probe);
        }
    }
    let env = container.get_mut("env").and_then(Value::as_array_mut);
    for variable in env.into_iter().flatten() {
        if let Some(field) = variable
            .pointer_mut("/valueFrom/fieldRef")
            .and_then(Value::as_object_mut)
        {
            default(field, "apiVersion", "v1");
        }
    }
    set_request_defaults(container);
}

/// A limit without a request requests as much.
fn set_request_defaults(container: &mut Map<String, Value>) {
    let Some(resources) = container
        .get_mut("resources")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    for (name, limit) in limits {
        if let Some(requests) = requests.as_object_mut() {
            default(requests, &name, limit);
        }
    }
}

fn set_probe_defaults(probe: &mut Map<String, Value>) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        let unset = probe.get(field).and_then(Value::as_i64).unwrap_or(0) == 0;
        if unset {
            probe.insert(field.into(), value.into());
        }
    }
    if let Some(http) = probe.get_mut("httpGet").and_then(Value::as_object_mut) {
        default(http, "path", "/");
        default(http, "scheme", "HTTP");
    }
    if let Some(grpc) = probe.get_mut("grpc").and_then(Value::as_object_mut) {
        default(grpc, "service", "");
    }
}

fn set_volume_defaults(volume: &mut Map<String, Value>) {
    if volume.len() <= 1 {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source).and_then(Value::as_object_mut) {
            default(source, "defaultMode", 420);
        }
    }
    if let Some(host_path) = volume.get_mut("hostPath").and_then(Value::as_object_mut) {
        default(host_path, "type", "");
    }
}

/// Whether an image reference stands for whatever is newest.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        return false;
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// All that is wrong with `spec` at `path`.
#[must_use]
pub fn validate(path: &str, spec: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |field: &str| format!("{path}.{field}");
    let volumes = validate_volumes(&at("volumes"), spec, &mut errors);
    if items(spec, "/containers").is_empty() {
        errors.push(FieldError::required(at("containers"), ""));
    }
    let mut seen = HashSet::new();
    for list in ["containers", "initContainers"] {
        for (index, container) in items(spec, &format!("/{list}")).iter().enumerate() {
            let path = format!("{}[{index}]", at(list));
            errors.extend(validate_container(&path, container, &volumes));
            let name = text(container, "/name");
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
    }
    for (field, allowed) in [
        ("restartPolicy", RESTART_POLICIES),
        ("dnsPolicy", DNS_POLICIES),
    ] {
        errors.extend(one_of(
            &at(field),
            text(spec, &format!("/{field}")),
            allowed,
        ));
    }
    for (field, least) in [
        ("terminationGracePeriodSeconds", 0),
        ("activeDeadlineSeconds", 1),
    ] {
        let value = spec.get(field).and_then(Value::as_i64);
        if let Some(value) = value
            && value < least
        {
            let detail = format!("must be greater than or equal to {least}");
            errors.push(FieldError::invalid(at(field), value, detail));
        }
    }
    for (field, rule) in [
        (
            "nodeName",
            names::dns1123_subdomain as fn(&str) -> Vec<String>,
        ),
        ("serviceAccountName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
    ] {
        let value = text(spec, &format!("/{field}"));
        if !value.is_empty() {
            errors.extend(invalid(&at(field), value, rule(value)));
        }
    }
    let selector = spec.get("nodeSelector");
    errors.extend(crate::registry::validation::labels(
        &at("nodeSelector"),
        selector,
    ));
    errors.extend(validate_tolerations(&at("tolerations"), spec));
    errors
}

fn validate_volumes<'a>(
    path: &str,
    spec: &'a Value,
    errors: &mut Vec<FieldError>,
) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (index, volume) in items(spec, "/volumes").iter().enumerate() {
        let name = text(volume, "/name");
        let name_path = format!("{path}[{index}].name");
        if name.is_empty() {
            errors.push(FieldError::required(name_path, ""));
        } else {
            errors.extend(invalid(&name_path, name, names::dns1123_label(name)));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(name_path, name));
            }
        }
        let sources = volume
            .as_object()
            .map_or(0, |volume| volume.len().saturating_sub(1));
        if sources > 1 {
            let detail = "may not specify more than 1 volume type";
            errors.push(FieldError::forbidden(format!("{path}[{index}]"), detail));
        }
    }
    names
}

fn validate_container(path: &str, container: &Value, volumes: &HashSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text(container, "/name");
    if name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), ""));
    } else {
        errors.extend(invalid(
            &format!("{path}.name"),
            name,
            names::dns1123_label(name),
        ));
    }
    let image = text(container, "/image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{path}.image"), image, detail));
    }
    for (field, allowed) in [
        ("imagePullPolicy", PULL_POLICIES),
        ("terminationMessagePolicy", MESSAGE_POLICIES),
    ] {
        let value = text(container, &format!("/{field}"));
        errors.extend(one_of(&format!("{path}.{field}"), value, allowed));
    }
    errors.extend(validate_ports(path, container));
    errors.extend(validate_env(path, container));
    errors.extend(validate_mounts(path, container, volumes));
    errors.extend(validate_resources(path, container));
    for probe in PROBES {
        if let Some(value) = container.get(probe) {
            errors.extend(validate_probe(&format!("{path}.{probe}"), probe, value));
        }
    }
    errors
}

fn validate_ports(path: &str, container: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for (index, port) in items(container, "/ports").iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        let number = integer(port, "/containerPort");
        if port.get("containerPort").is_none() {
            errors.push(FieldError::required(format!("{path}.containerPort"), ""));
        } else {
            let problems = names::port_number(number).into_iter();
            errors.extend(
                problems.map(|p| FieldError::invalid(format!("{path}.containerPort"), number, p)),
            );
        }
        let name = text(port, "/name");
        if !name.is_empty() {
            errors.extend(invalid(
                &format!("{path}.name"),
                name,
                names::port_name(name),
            ));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{path}.name"), name));
            }
        }
        errors.extend(one_of(
            &format!("{path}.protocol"),
            text(port, "/protocol"),
            PROTOCOLS,
        ));
    }
    errors
}

fn validate_env(path: &str, container: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, variable) in items(container, "/env").iter().enumerate() {
        let path = format!("{path}.env[{index}]");
        let name = text(variable, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else {
            errors.extend(invalid(
                &format!("{path}.name"),
                name,
                names::env_var_name(name),
            ));
        }
        let Some(from) = variable.get("valueFrom").and_then(Value::as_object) else {
            continue;
        };
        let path = format!("{path}.valueFrom");
        if !text(variable, "/value").is_empty() {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(path, "", detail));
        } else if from.len() != 1 {
            let detail = if from.is_empty() {
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
            } else {
                "may not have more than one field specified at a time"
            };
            errors.push(FieldError::invalid(path, "", detail));
        }
    }
    errors
}

fn validate_mounts(path: &str, container: &Value, volumes: &HashSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut seen = HashSet::new();
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        let (name, mount_path) = (text(mount, "/name"), text(mount, "/mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        } else if !volumes.contains(name) {
            let problem = crate::registry::field_error::Problem::NotFound(name.into());
            errors.push(FieldError {
                path: format!("{path}.name"),
                problem,
            });
        }
        if mount_path.is_empty() {
            errors.push(FieldError::required(format!("{path}.mountPath"), ""));
        } else if !seen.insert(mount_path) {
            let detail = "must be unique";
            errors.push(FieldError::invalid(
                format!("{path}.mountPath"),
                mount_path,
                detail,
            ));
        }
        let sub_path = text(mount, "/subPath");
        let detail = if sub_path.starts_with('/') {
            "must be a relative path"
        } else if sub_path.split('/').any(|part| part == "..") {
            "must not contain '..'"
        } else {
            continue;
        };
        errors.push(FieldError::invalid(
            format!("{path}.subPath"),
            sub_path,
            detail,
        ));
    }
    errors
}

fn validate_resources(path: &str, container: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let resources = container.get("resources").unwrap_or(&Value::Null);
    let list = |field: &str| {
        resources
            .get(field)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
    };
    let amount = |value: &Value| value.as_str().unwrap_or_default().parse::<Quantity>();
    for field in ["limits", "requests"] {
        for (name, value) in list(field) {
            let path = format!("{path}.resources.{field}[{name}]");
            if amount(value).is_ok_and(|amount| amount < Quantity::default()) {
                let detail = "must be greater than or equal to 0";
                errors.push(FieldError::invalid(path, value.clone(), detail));
            }
        }
    }
    for (name, request) in list("requests") {
        let limit = resources.get("limits").and_then(|limits| limits.get(name));
        if let (Ok(request_amount), Some(Ok(limit_amount))) = (amount(request), limit.map(amount))
            && request_amount > limit_amount
        {
            let detail = format!(
                "must be less than or equal to {name} limit of {}",
                limit.and_then(Value::as_str).unwrap_or_default()
            );
            let path = format!("{path}.resources.requests");
            errors.push(FieldError::invalid(path, request.clone(), detail));
        }
    }
    errors
}

fn validate_probe(path: &str, name: &str, probe: &Value) -> Vec<FieldError> {
    const HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
    let mut errors = Vec::new();
    match HANDLERS
        .iter()
        .filter(|handler| probe.get(**handler).is_some())
        .count()
    {
        0 => errors.push(FieldError::required(path, "must specify a handler type")),
        1 => {}
        _ => {
            let detail = "may not specify more than 1 handler type";
            errors.push(FieldError::forbidden(path, detail));
        }
    }
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        let value = integer(probe, &format!("/{field}"));
        if value < 0 {
            let detail = "must be greater than or equal to 0";
            errors.push(FieldError::invalid(
                format!("{path}.{field}"),
                value,
                detail,
            ));
        }
    }
    let successes = integer(probe, "/successThreshold");
    if name != "readinessProbe" && successes > 1 {
        errors.push(FieldError::invalid(
            format!("{path}.successThreshold"),
            successes,
            "must be 1",
        ));
    }
    errors
}

pub(super) fn validate_tolerations(path: &str, spec: &Value) -> Vec<FieldError> {
    const OPERATORS: &[&str] = &["Equal", "Exists"];
    const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let mut errors = Vec::new();
    for (index, toleration) in items(spec, "/tolerations").iter().enumerate() {
        let path = format!("{path}[{index}]");
        let field = |name: &str| text(toleration, &format!("/{name}"));
        let (key, operator, effect) = (field("key"), field("operator"), field("effect"));
        errors.extend(one_of(&format!("{path}.operator"), operator, OPERATORS));
        errors.extend(one_of(&format!("{path}.effect"), effect, EFFECTS));
        if key.is_empty() && operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(
                format!("{path}.operator"),
                operator,
                detail,
            ));
        }
        if operator == "Exists" && !field("value").is_empty() {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(
                format!("{path}.operator"),
                field("value"),
                detail,
            ));
        }
    }
    errors
}

/// The value is empty or one of `allowed`.
fn one_of(path: &str, value: &str, allowed: &[&'static str]) -> Option<FieldError> {
    let wrong = !value.is_empty() && !allowed.contains(&value);
    wrong.then(|| FieldError::not_supported(path, value, allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(spec: &Value) -> Vec<String> {
        validate("spec", spec)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn every_broken_field_is_reported_with_its_path() {
        let spec = json!({
            "restartPolicy": "Sometimes",
            "containers": [
                {"name": "A", "image": ""},
                {"name": "b", "image": "b", "volumeMounts": [{"name": "nope", "mountPath": "/x"}]},
                {"name": "b", "image": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
            ],
        });
        let found = errors(&spec);
        for expected in [
            "spec.containers[0].image: Required value",
            r#"spec.containers[1].volumeMounts[0].name: Not found: "nope""#,
            r#"spec.containers[2].name: Duplicate value: "b""#,
            r#"spec.containers[2].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
            r#"spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#,
        ] {
            assert!(
                found.iter().any(|text| text == expected),
                "{expected} not in {found:#?}"
            );
        }
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("web", "Always"),
            ("web:latest", "Always"),
            ("localhost:5000/web", "Always"),
            ("web:1", "IfNotPresent"),
            ("web@sha256:00", "IfNotPresent"),
        ] {
            let mut spec = json!({"containers": [{"image": image}]});
            set_defaults(spec.as_object_mut().unwrap());
            assert_eq!(spec["containers"][0]["imagePullPolicy"], policy, "{image}");
        }
    }
}
