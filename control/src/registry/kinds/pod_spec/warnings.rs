//! What is allowed in a pod's spec but hardly meant. Source: `pkg/api/pod/warnings.go`.

use std::collections::{HashMap, HashSet};

use super::super::field::Field;
use super::amount;

const LISTS: [&str; 2] = ["initContainers", "containers"];
const NULL_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// Labels of nodes that have got another name.
const LABELS: &[(&str, &str)] = &[
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
];

const VOLUMES: &[(&str, &str)] = &[
    (
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const ANNOTATIONS: &[(&str, &str)] = &[
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        "non-functional in v1.11+; use the \"sysctls\" field instead",
    ),
];

/// Warnings about the pod, or the template of pods, at `holder`.
pub(in super::super) fn warnings(holder: &Field<'_, '_>) -> Vec<String> {
    let mut found = Vec::new();
    let spec = holder.child("spec");
    node_labels(&spec, &mut found);
    let metadata = holder.child("metadata");
    let annotations = metadata.child("annotations");
    for (name, text) in ANNOTATIONS {
        if annotations.has(name) {
            found.push(about(&annotations.key(name), text));
        }
    }
    for volume in spec.child("volumes").items() {
        for (source, text) in VOLUMES.iter().filter(|(source, _)| volume.has(source)) {
            found.push(about(&volume.child(source), text));
        }
    }
    duplicates(&spec.child("hostAliases"), "ip", &mut found);
    duplicates(&spec.child("imagePullSecrets"), "name", &mut found);
    for secret in spec.child("imagePullSecrets").items() {
        if secret.text_of("name").is_empty() {
            found.push(about(&secret.child("name"), "invalid empty name \"\""));
        }
    }
    fractions(&spec.child("overhead"), &mut found);
    let mut ports = HashMap::new();
    for list in LISTS {
        for container in spec.child(list).items() {
            let resources = container.child("resources");
            fractions(&resources.child("limits"), &mut found);
            fractions(&resources.child("requests"), &mut found);
            variables(&container.child("env"), &mut found);
            overlapping_ports(&container.child("ports"), &mut ports, &mut found);
        }
    }
    let grace = spec.child("terminationGracePeriodSeconds");
    if grace.integer().is_some_and(|seconds| seconds < 0) {
        let text = "must be >= 0; negative values are invalid and will be treated as 1";
        found.push(about(&grace, text));
    }
    null_selectors(&spec, &mut found);
    found
}

fn about(field: &Field<'_, '_>, text: &str) -> String {
    format!("{}: {text}", field.path())
}

fn node_labels(spec: &Field<'_, '_>, found: &mut Vec<String>) {
    let deprecated = |label: &str| LABELS.iter().find(|(name, _)| *name == label);
    let selector = spec.child("nodeSelector");
    for (label, _) in selector.entries() {
        if let Some((_, text)) = deprecated(label) {
            found.push(about(&selector.key(label), text));
        }
    }
    for constraint in spec.child("topologySpreadConstraints").items() {
        let key = constraint.child("topologyKey");
        if let Some((name, text)) = deprecated(key.text()) {
            found.push(about(&key, &format!("{name} is {text}")));
        }
        if !constraint.has("labelSelector") {
            found.push(about(&constraint.child("labelSelector"), NULL_SELECTOR));
        }
    }
}

fn duplicates(list: &Field<'_, '_>, field: &str, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for item in list.items() {
        let value = item.text_of(field);
        if !seen.insert(value) {
            let text = format!("duplicate {field} {value:?}");
            found.push(about(&item.child(field), &text));
        }
    }
}

/// Parts of bytes do not exist.
fn fractions(list: &Field<'_, '_>, found: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let field = list.key(name);
        let Some(amount) = amount(field.value()) else {
            continue;
        };
        if amount.millis() % 1000 != 0 {
            let shown = amount.to_string();
            let text = format!("fractional byte value {shown:?} is invalid, must be an integer");
            found.push(about(&field, &text));
        }
    }
}

/// A variable that hides an earlier one without building on it.
fn variables(list: &Field<'_, '_>, found: &mut Vec<String>) {
    let mut seen = HashSet::new();
    for variable in list.items() {
        let (name, value) = (variable.text_of("name"), variable.text_of("value"));
        let reference = format!("$({name})");
        let builds_on = value != reference && value.contains(&reference);
        if !seen.insert(name) && (variable.has("valueFrom") || !builds_on) {
            let text = format!(
                "hides previous definition of {name:?}, which may be dropped when using apply"
            );
            found.push(about(&variable, &text));
        }
    }
}

/// Ports seen so far, by number and protocol: path, address of the host, port of the host.
type Ports<'v> = HashMap<(i64, &'v str), Vec<(String, &'v str, i64)>>;

fn overlapping_ports<'v>(list: &Field<'_, 'v>, seen: &mut Ports<'v>, found: &mut Vec<String>) {
    for port in list.items() {
        let number = port.integer_of("containerPort").unwrap_or_default();
        let (ip, host) = (
            port.text_of("hostIP"),
            port.integer_of("hostPort").unwrap_or_default(),
        );
        let others = seen.entry((number, port.text_of("protocol"))).or_default();
        for (path, other_ip, other_host) in &*others {
            let kind = if ip == *other_ip && host == *other_host {
                "duplicate"
            } else if host == 0 || *other_host == 0 {
                "overlapping"
            } else if host == *other_host && (ip.is_empty() != other_ip.is_empty()) {
                "dangerously ambiguous"
            } else {
                continue;
            };
            found.push(about(&port, &format!("{kind} port definition with {path}")));
        }
        others.push((port.path(), ip, host));
    }
}

fn null_selectors(spec: &Field<'_, '_>, found: &mut Vec<String>) {
    let affinity = spec.child("affinity");
    for kind in ["podAffinity", "podAntiAffinity"] {
        let kind = affinity.child(kind);
        for term in kind
            .child("requiredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            if !term.has("labelSelector") {
                found.push(about(&term.child("labelSelector"), NULL_SELECTOR));
            }
        }
        for weighted in kind
            .child("preferredDuringSchedulingIgnoredDuringExecution")
            .items()
        {
            let term = weighted.child("podAffinityTerm");
            if !term.has("labelSelector") {
                found.push(about(&term.child("labelSelector"), NULL_SELECTOR));
            }
        }
    }
}
