//! Pod security: what pods of a namespace may ask of their node.
//!
//! 1. The labels of a namespace (or the [`PodSecurity`] configuration) say what is enforced and what is warned of.
//! 2. A pod that breaks what is enforced is refused. One that breaks what is warned of, and every workload whose
//!    template would make such pods, is let through with a warning.
//! 3. A namespace that is to enforce more is told which of its pods break that already.
//!
//! What a level means is the table in `checks.rs`; what labels mean is `policy.rs`.
//!
//! What a pod breaks that is to be audited becomes an annotation of the request's audit events.

mod checks;
mod configuration;
mod policy;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Admission, Attributes, Remarks};
use crate::registry::error::ApiError;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::parse;
use crate::registry::strategy::Endpoint;
use crate::store::{Entry, KeyRange, ObjectKey};
use checks::{Violation, violations};
pub use configuration::{PodSecurityConfiguration, PodSecurityError};
use policy::{Policies, Policy};

/// Pods of a namespace that are looked at when it is to enforce more.
const MOST_PODS: usize = 3000;

/// Where workloads have the spec of their pods.
const TEMPLATES: [(&str, &str); 8] = [
    ("PodTemplate", "/template"),
    ("ReplicationController", "/spec/template"),
    ("ReplicaSet", "/spec/template"),
    ("Deployment", "/spec/template"),
    ("StatefulSet", "/spec/template"),
    ("DaemonSet", "/spec/template"),
    ("Job", "/spec/template"),
    ("CronJob", "/spec/jobTemplate/spec/template"),
];

/// Annotation of audit events: the policy that was enforced.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
/// Annotation of audit events: what is to be audited.
const AUDIT_VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";

pub(super) struct PodSecurity;

impl Admission for PodSecurity {
    fn admit(&self, attributes: &Attributes<'_>, object: &mut Value) -> Result<(), ApiError> {
        match attributes.kind() {
            "Namespace" if !object.is_null() => check_labels(attributes, object),
            "Pod" if asks_anew(attributes, object) => refuse(attributes, object),
            _ => Ok(()),
        }
    }

    fn remark(&self, attributes: &Attributes<'_>, object: &Value, remarks: &mut Remarks) {
        let kind = attributes.kind();
        if kind == "Namespace" {
            remarks.warnings.extend(broken_already(attributes, object));
            return;
        }
        let template = TEMPLATES.iter().find(|(name, _)| *name == kind);
        let spec = match template {
            Some((_, path)) if attributes.endpoint == Endpoint::Main => object
                .pointer(path)
                .and_then(|template| template.get("spec")),
            None if kind == "Pod" && asks_anew(attributes, object) => object.get("spec"),
            _ => None,
        };
        let Some((spec, policies)) = spec.and_then(|of| Some((of, policies_for(attributes, of)?)))
        else {
            return;
        };
        let broken = |policy: &Policy| {
            let found = told(&violations(policy, spec))?;
            Some(format!("would violate PodSecurity \"{policy}\": {found}"))
        };
        let warned = broken(&policies.warn);
        let audited = if policies.audit == policies.warn {
            warned.clone()
        } else {
            broken(&policies.audit)
        };
        remarks.warnings.extend(warned);
        if let Some(text) = audited {
            remarks.annotations.push((AUDIT_VIOLATIONS, text));
        }
        if kind == "Pod" {
            let enforced = policies.enforce.to_string();
            remarks.annotations.push((ENFORCED, enforced));
        }
    }
}

/// Whether the request asks for something that the pod was not granted before.
fn asks_anew(attributes: &Attributes<'_>, pod: &Value) -> bool {
    if pod.is_null() {
        return false;
    }
    let Some(old) = attributes.old else {
        return true;
    };
    match attributes.endpoint {
        Endpoint::Main => !images(old).eq(images(pod)),
        Endpoint::Named(name) => name == "ephemeralcontainers",
        Endpoint::Status => false,
    }
}

fn images(pod: &Value) -> impl Iterator<Item = &str> {
    let lists = ["initContainers", "containers"].into_iter();
    let lists = lists.filter_map(|list| pod.get("spec")?.get(list)?.as_array());
    let images = lists.flatten().map(|of| of.get("image")?.as_str());
    images.map(Option::unwrap_or_default)
}

/// What counts for pods of this spec; `None` if nothing does.
fn policies_for(attributes: &Attributes<'_>, spec: &Value) -> Option<Policies> {
    let (call, configuration) = (attributes.call, &attributes.configuration.pod_security);
    let runtime = spec.get("runtimeClassName").and_then(Value::as_str);
    if configuration.exempts(&call.options.user.name, call.namespace, runtime) {
        return None;
    }
    let key = ObjectKey::new("", "namespaces", "", call.namespace);
    let namespace = attributes.snapshot.get(&key)?;
    let label = |name: &str| namespace.labels.get(name);
    let (policies, _) = configuration.defaults().read(label);
    (!policies.allow_everything()).then_some(policies)
}

fn refuse(attributes: &Attributes<'_>, pod: &Value) -> Result<(), ApiError> {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let Some(Policies { enforce, .. }) = policies_for(attributes, spec) else {
        return Ok(());
    };
    let Some(found) = told(&violations(&enforce, spec)) else {
        return Ok(());
    };
    let reason = format!("violates PodSecurity \"{enforce}\": {found}");
    Err(attributes.forbidden(pod, reason))
}

/// `what (wherein), what (wherein)`; `None` if there is nothing.
fn told(violations: &[Violation]) -> Option<String> {
    let each = violations
        .iter()
        .map(|of| format!("{} ({})", of.what, of.wherein));
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| each.join(", "))
}

fn of_object(attributes: &Attributes<'_>, namespace: &Value) -> (Policies, Vec<FieldError>) {
    let labels = meta::get(namespace, "labels");
    let label = |name: &str| {
        labels
            .and_then(|labels| labels.get(name))
            .and_then(Value::as_str)
    };
    attributes.configuration.pod_security.defaults().read(label)
}

/// A namespace's labels must say something, unless they said the same before.
fn check_labels(attributes: &Attributes<'_>, namespace: &Value) -> Result<(), ApiError> {
    let (_, errors) = of_object(attributes, namespace);
    let known = attributes.old.map(|old| of_object(attributes, old).1);
    if errors.is_empty() || known.is_some_and(|known| known == errors) {
        return Ok(());
    }
    Err(ApiError::Invalid {
        target: attributes.call.target_of(meta::name(namespace)),
        errors,
    })
}

/// The pods that break what the namespace is to enforce from now on, those alike in one line.
fn broken_already(attributes: &Attributes<'_>, namespace: &Value) -> Vec<String> {
    let Some(old) = attributes
        .old
        .filter(|_| attributes.endpoint == Endpoint::Main)
    else {
        return Vec::new();
    };
    let before = of_object(attributes, old).0.enforce;
    let enforce = of_object(attributes, namespace).0.enforce;
    let name = meta::name(namespace);
    let is_new = before != enforce && !enforce.allows_everything();
    if !is_new
        || attributes
            .configuration
            .pod_security
            .exempts("", name, None)
    {
        return Vec::new();
    }
    let range = KeyRange::namespace("", "pods", name);
    let pods = attributes.snapshot.range(&range, None).take(MOST_PODS);
    let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (pod, found) in pods.filter_map(|entry| broken_by(entry, attributes, &enforce)) {
        alike.entry(found).or_default().push(pod);
    }
    let mut lines: Vec<_> = alike
        .into_iter()
        .map(|(found, pods)| match pods.as_slice() {
            [one] => format!("{one}: {found}"),
            [one, _] => format!("{one} (and 1 other pod): {found}"),
            [one, others @ ..] => format!("{one} (and {} other pods): {found}", others.len()),
            [] => found,
        })
        .collect();
    lines.sort_unstable();
    if !lines.is_empty() {
        let all = format!(
            "existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{enforce}\""
        );
        lines.insert(0, all);
    }
    lines
}

/// A pod's name, and what it does that the policy forbids.
fn broken_by(
    entry: &Entry,
    attributes: &Attributes<'_>,
    policy: &Policy,
) -> Option<(String, String)> {
    // What is stored can be read; a pod that could not would be found out elsewhere.
    let pod = parse(entry).ok()?;
    let spec = pod.get("spec")?;
    let runtime = spec.get("runtimeClassName").and_then(Value::as_str);
    if attributes
        .configuration
        .pod_security
        .exempts("", meta::namespace(&pod), runtime)
    {
        return None;
    }
    let found = violations(policy, spec);
    let found: Vec<_> = found.into_iter().map(|of| of.what).collect();
    (!found.is_empty()).then(|| (meta::name(&pod).to_owned(), found.join(", ")))
}
