//! Probes and lifecycle hooks: exactly one handler each.

use serde_json::Value;
use windlass_api::names;

use super::super::field::{Errors, Field};
use super::Context;

const HANDLERS: [&str; 5] = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
const NUMBERS: [&str; 5] = [
    "initialDelaySeconds",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
];
const HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";

/// All that is wrong with a container's hooks and probes.
pub(super) fn validate_all(container: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    let lifecycle = container.child("lifecycle");
    for hook in ["postStart", "preStop"] {
        if lifecycle.has(hook) {
            validate_handler(&lifecycle.child(hook), context, errors);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = container.child(name);
        if probe.is_set() {
            validate_probe(&probe, name, context, errors);
        }
    }
}

fn validate_probe(probe: &Field<'_, '_>, name: &str, context: &Context<'_>, errors: &mut Errors) {
    validate_handler(probe, context, errors);
    for number in NUMBERS {
        errors.extend(probe.child(number).non_negative());
    }
    let grace = probe.child("terminationGracePeriodSeconds");
    if grace.integer().is_some_and(|seconds| seconds <= 0) {
        errors.push(grace.invalid("must be greater than 0"));
    }
    let successes = probe.child("successThreshold");
    if name == "readinessProbe" {
        if grace.is_set() {
            errors.push(grace.invalid("must not be set for readinessProbes"));
        }
    } else if successes.integer() != Some(1) {
        errors.push(successes.invalid("must be 1"));
    }
}

fn validate_handler(holder: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    let mut given = HANDLERS.into_iter().filter(|handler| holder.has(handler));
    let Some(first) = given.next() else {
        errors.push(holder.required("must specify a handler type"));
        return;
    };
    let handler = holder.child(first);
    match first {
        "exec" => {
            let command = handler.child("command");
            if command.len() == 0 {
                errors.push(command.required(""));
            }
        }
        "httpGet" => validate_http(&handler, errors),
        "sleep" => validate_sleep(&handler, context, errors),
        _ => validate_port(&handler.child("port"), errors),
    }
    for more in given {
        let detail = "may not specify more than 1 handler type";
        errors.push(holder.child(more).forbidden(detail));
    }
}

fn validate_http(http: &Field<'_, '_>, errors: &mut Errors) {
    errors.extend(http.child("path").present());
    validate_port(&http.child("port"), errors);
    let scheme = http.child("scheme");
    if !SCHEMES.contains(&scheme.text()) {
        errors.push(scheme.not_supported(SCHEMES));
    }
    let headers = http.child("httpHeaders");
    for header in headers.items() {
        let name = header.text_of("name");
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if name.is_empty() || !plain {
            errors.push(headers.invalid_as(name, HEADER));
        }
    }
}

/// A port by number or by name.
fn validate_port(port: &Field<'_, '_>, errors: &mut Errors) {
    if let Value::String(_) = port.value() {
        errors.extend(port.follows(names::port_name));
        return;
    }
    let number = port.integer().unwrap_or_default();
    let problems = names::port_number(number).into_iter();
    errors.extend(problems.map(|problem| port.invalid_as(number, problem)));
}

fn validate_sleep(sleep: &Field<'_, '_>, context: &Context<'_>, errors: &mut Errors) {
    let seconds = sleep.integer_of("seconds").unwrap_or_default();
    if let Some(grace) = context.grace_period
        && !(0..=grace).contains(&seconds)
    {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(sleep.invalid_as(seconds, detail));
    }
}
