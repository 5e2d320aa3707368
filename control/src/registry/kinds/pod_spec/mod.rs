//! A pod's spec, in pods and in templates: defaults, validation, warnings.
//!
//! One file per concept; this one holds what stands at the top of the spec and the order in which the
//! parts are looked at, which is upstream's order of errors. What the parts need of each other (which
//! volumes there are, which claims) is gathered once into a [`Context`].

mod affinity;
mod container;
mod defaults;
mod dns;
mod env;
mod handlers;
mod mounts;
mod os;
mod resources;
mod scheduling;
mod security;
mod volumes;
mod warnings;

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use windlass_api::names;

use super::field::{Errors, Field};
use crate::registry::validation;

pub(super) use defaults::{set_defaults, set_pod_defaults};
pub(super) use resources::amount;
pub(super) use scheduling::validate_tolerations;
pub(super) use warnings::warnings;

/// The policies of restarting a pod's containers.
pub(super) const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PREEMPTION_POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];

/// Longest name a pod may call itself by.
const HOSTNAME_MAX: usize = 64;

/// What holds the spec: some rules are for pods alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// The pod of that name.
    Pod(&'a str),
    /// A template of pods.
    Template,
}

/// What the parts of a spec know of the whole.
struct Context<'v> {
    owner: Owner<'v>,
    /// Sources of the valid volumes.
    volumes: HashMap<&'v str, &'v Value>,
    /// Names of the pod's resource claims.
    claims: HashSet<&'v str>,
    grace_period: Option<i64>,
    restart_policy: &'v str,
    host_users: bool,
}

/// All that is wrong with the pod spec at `spec`.
pub(super) fn validate<'v>(spec: &Field<'_, 'v>, owner: Owner<'v>, errors: &mut Errors) {
    if !spec.has("terminationGracePeriodSeconds") {
        errors.push(spec.child("terminationGracePeriodSeconds").required(""));
    }
    let context = Context {
        owner,
        volumes: volumes::validate(&spec.child("volumes"), owner, errors),
        claims: resources::validate_pod_claims(&spec.child("resourceClaims"), errors),
        grace_period: spec.integer_of("terminationGracePeriodSeconds"),
        restart_policy: spec.text_of("restartPolicy"),
        host_users: spec.value().get("hostUsers") != Some(&Value::Bool(false)),
    };
    container::validate_lists(spec, &context, errors);
    resources::validate_pod_level(spec, errors);
    container::validate_host_ports(spec, owner, errors);
    errors.extend(spec.child("restartPolicy").choice(RESTART_POLICIES));
    errors.extend(spec.child("dnsPolicy").choice(DNS_POLICIES));
    let selector = spec.child("nodeSelector");
    if selector.is_set() {
        errors.extend(validation::labels(&selector.path(), Some(selector.value())));
    }
    security::validate_pod(spec, errors);
    affinity::validate(&spec.child("affinity"), errors);
    dns::validate(spec, errors);
    scheduling::validate(spec, errors);
    os::validate_host_process(spec, errors);
    validate_host_users(spec, errors);
    validate_names(spec, errors);
    validate_numbers(spec, errors);
    validate_tolerations(&spec.child("tolerations"), errors);
    dns::validate_host_aliases(&spec.child("hostAliases"), errors);
    errors.extend(spec.child("preemptionPolicy").one_of(PREEMPTION_POLICIES));
    resources::validate_overhead(&spec.child("overhead"), errors);
    os::validate(spec, errors);
}

/// All that is wrong with the template of pods at `template`.
pub(super) fn validate_template(template: &Field<'_, '_>, errors: &mut Errors) {
    let metadata = template.child("metadata");
    let labels = metadata.child("labels");
    errors.extend(validation::labels(&labels.path(), Some(labels.value())));
    let annotations = metadata.child("annotations");
    for (key, _) in annotations.entries() {
        let problems = names::qualified_name(&key.to_lowercase());
        errors.extend(problems.into_iter().map(|p| annotations.invalid_as(key, p)));
    }
    let spec = template.child("spec");
    validate(&spec, Owner::Template, errors);
    let ephemeral = spec.child("ephemeralContainers");
    if ephemeral.len() > 0 {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

fn validate_names(spec: &Field<'_, '_>, errors: &mut Errors) {
    for field in [
        "serviceAccountName",
        "nodeName",
        "priorityClassName",
        "runtimeClassName",
    ] {
        errors.extend(spec.child(field).follows_if_set(names::dns1123_subdomain));
    }
    for field in ["hostname", "subdomain"] {
        errors.extend(spec.child(field).follows_if_set(names::dns1123_label));
    }
    let given = spec.child("hostnameOverride");
    if !given.is_set() {
        return;
    }
    errors.extend(given.follows(names::dns1123_subdomain));
    if given.text().len() > HOSTNAME_MAX {
        let detail = format!("must be no more than {HOSTNAME_MAX} characters");
        errors.push(given.invalid(detail));
    }
    for other in ["hostNetwork", "setHostnameAsFQDN"] {
        if spec.is_true(other) {
            let detail = format!("may not be specified when `{other}` is true");
            errors.push(given.forbidden(detail));
        }
    }
}

fn validate_numbers(spec: &Field<'_, '_>, errors: &mut Errors) {
    let most = i64::from(i32::MAX);
    errors.extend(spec.child("activeDeadlineSeconds").within(1, most));
}

/// Users of its own do not go with the host's other namespaces.
fn validate_host_users(spec: &Field<'_, '_>, errors: &mut Errors) {
    if spec.value().get("hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    for (field, called) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.is_true(field) {
            let detail = "when `pod.Spec.HostUsers` is false";
            errors.push(spec.child(called).forbidden(detail));
        }
    }
}

#[cfg(test)]
mod tests;
