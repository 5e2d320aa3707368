//! The three lists of containers: what all containers have in common, and what each kind may have.

use std::collections::HashSet;

use serde_json::Value;
use windlass_api::names;

use super::super::field::{Errors, Field};
use super::{Context, Owner, PULL_POLICIES, RESTART_POLICIES};
use super::{env, handlers, mounts, resources, security};
use crate::registry::field_error::FieldError;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MESSAGE_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];
const RESIZE_POLICIES: &[&str] = &["NotRequired", "RestartContainer"];
const RESIZABLE: &[&str] = &["cpu", "memory"];
const RULE_ACTIONS: &[&str] = &["Restart"];
const RULE_OPERATORS: &[&str] = &["In", "NotIn"];

/// Most rules of one container, and most exit codes of one rule.
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

const HOOKS: [&str; 4] = [
    "lifecycle",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
];

/// What an ephemeral container may not have.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// All that is wrong with the containers of `spec`.
pub(super) fn validate_lists<'v>(spec: &Field<'_, 'v>, context: &Context<'v>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    let containers = spec.child("containers");
    if containers.len() == 0 {
        errors.push(containers.required(""));
    }
    for container in containers.items() {
        validate_common(&container, context, errors);
        errors.extend(container.child("name").unique(&mut seen));
        handlers::validate_all(&container, context, errors);
        restart_rules(&container, errors);
    }
    host_port_conflicts(containers.items().collect(), errors);
    for container in spec.child("initContainers").items() {
        validate_common(&container, context, errors);
        restart_rules(&container, errors);
        if !container.text_of("name").is_empty() {
            errors.extend(container.child("name").unique(&mut seen));
        }
        host_port_conflicts(vec![container], errors);
        if container.text_of("restartPolicy") == "Always" {
            handlers::validate_all(&container, context, errors);
        } else {
            forbid_hooks(&container, errors);
        }
    }
    let targets = seen.clone();
    for container in spec.child("ephemeralContainers").items() {
        validate_common(&container, context, errors);
        untrimmed(&container, errors);
        errors.extend(container.child("name").unique(&mut seen));
        validate_ephemeral(&container, &targets, errors);
    }
    if context.owner != Owner::Template {
        for list in ["containers", "initContainers"] {
            for container in spec.child(list).items() {
                untrimmed(&container, errors);
            }
        }
    }
}

fn validate_common(container: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    errors.extend(container.child("name").named(names::dns1123_label));
    errors.extend(container.child("image").present());
    let message_policy = container.child("terminationMessagePolicy");
    errors.extend(message_policy.choice(MESSAGE_POLICIES));
    validate_ports(&container.child("ports"), errors);
    env::validate(container, context, errors);
    mounts::validate(container, context, errors);
    errors.extend(container.child("imagePullPolicy").choice(PULL_POLICIES));
    resources::validate(&container.child("resources"), &context.claims, errors);
    resize_policy(&container.child("resizePolicy"), context, errors);
    let security = container.child("securityContext");
    security::validate_container(&security, context.host_users, errors);
}

fn untrimmed(container: &Field<'_, '_>, errors: &mut Errors) {
    let image = container.child("image");
    if image.text().trim() != image.text() {
        errors.push(image.invalid("must not have leading or trailing whitespace"));
    }
}

fn validate_ports(ports: &Field<'_, '_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for port in ports.items() {
        let name = port.child("name");
        if !name.text().is_empty() {
            let before = errors.len();
            errors.extend(name.follows(names::port_name));
            if errors.len() == before {
                errors.extend(name.unique(&mut seen));
            }
        }
        let number = port.child("containerPort");
        match number.integer() {
            None | Some(0) => errors.push(number.required("")),
            Some(_) => errors.extend(number.within(1, 65535)),
        }
        let host = port.child("hostPort");
        if host.integer() != Some(0) {
            errors.extend(host.within(1, 65535));
        }
        errors.extend(port.child("protocol").choice(PROTOCOLS));
    }
}

/// No two of the containers may want one port of the host.
fn host_port_conflicts(containers: Vec<Field<'_, '_>>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for container in containers {
        for port in container.child("ports").items() {
            let number = port.integer_of("hostPort").unwrap_or_default();
            if number == 0 {
                continue;
            }
            let text = |field| port.text_of(field);
            let wanted = format!("{}/{}/{number}", text("protocol"), text("hostIP"));
            if !seen.insert(wanted.clone()) {
                let path = port.child("hostPort").path();
                errors.push(FieldError::duplicate(path, wanted));
            }
        }
    }
}

/// In the host's network a container's ports are the host's.
pub(super) fn validate_host_ports(spec: &Field<'_, '_>, owner: Owner<'_>, errors: &mut Errors) {
    if !spec.is_true("hostNetwork") {
        return;
    }
    for container in spec.child("containers").items() {
        for port in container.child("ports").items() {
            let host = port.integer_of("hostPort").unwrap_or_default();
            let left_open = owner == Owner::Template && host == 0;
            if !left_open && Some(host) != port.integer_of("containerPort") {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(port.child("hostPort").invalid_as(host, detail));
            }
        }
    }
}

fn resize_policy(policies: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for policy in policies.items() {
        let (resource, restart) = (policy.child("resourceName"), policy.child("restartPolicy"));
        if !seen.insert(resource.text()) {
            errors.push(FieldError::duplicate(policy.path(), resource.text()));
        }
        // Upstream names the list, not the element.
        let path = policies.path();
        for (value, supported) in [(resource, RESIZABLE), (restart, RESIZE_POLICIES)] {
            errors.extend(Field::root(&path, value.value()).choice(supported));
        }
        if context.restart_policy == "Never" && restart.text() != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(policies.invalid_as(restart.text(), detail));
        }
    }
}

/// The container's own policy of restarts, and its rules by exit code.
fn restart_rules(container: &Field<'_, '_>, errors: &mut Errors) {
    let policy = container.child("restartPolicy");
    let rules = container.child("restartPolicyRules");
    errors.extend(policy.one_of(RESTART_POLICIES));
    if rules.len() == 0 {
        return;
    }
    if !policy.is_set() {
        let detail = "must specify restartPolicy when restart rules are used";
        errors.push(policy.required(detail));
    }
    errors.extend(rules.at_most(RULES_MAX));
    for rule in rules.items() {
        errors.extend(rule.child("action").choice(RULE_ACTIONS));
        let codes = rule.child("exitCodes");
        if !codes.is_set() {
            errors.push(codes.required("must be specified"));
            continue;
        }
        errors.extend(codes.child("operator").choice(RULE_OPERATORS));
        errors.extend(codes.child("values").at_most(EXIT_CODES_MAX));
    }
}

fn forbid_hooks(container: &Field<'_, '_>, errors: &mut Errors) {
    for hook in HOOKS {
        if container.has(hook) {
            let detail = "may not be set for init containers without restartPolicy=Always";
            errors.push(container.child(hook).forbidden(detail));
        }
    }
}

fn validate_ephemeral(container: &Field<'_, '_>, targets: &HashSet<&str>, errors: &mut Errors) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    let target = container.child("targetContainerName");
    if !target.text().is_empty() && !targets.contains(target.text()) {
        errors.push(target.not_found());
    }
    for field in NOT_EPHEMERAL {
        let field = container.child(field);
        let empty = match field.value() {
            Value::Object(_) | Value::Array(_) => field.len() == 0,
            other => other.is_null(),
        };
        if !empty {
            errors.push(field.forbidden(DETAIL));
        }
    }
    for mount in container.child("volumeMounts").items() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.text_of(field).is_empty() {
                errors.push(mount.child(field).forbidden(DETAIL));
            }
        }
    }
}
