//! The table of kinds the API serves. To add a kind: a file here and a line in [`KINDS`].
//!
//! The order is the order of discovery, and clients prefer what comes first when names are ambiguous.

mod certificate_signing_request;
mod config_map;
mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "for the registry to serve kinds in a second version"
    )
)]
mod event_v1;
mod field;
mod horizontal_pod_autoscaler;
mod job;
mod label_selector;
mod lease;
mod namespace;
mod node;
mod pod;
mod pod_disruption_budget;
mod pod_spec;
mod pod_template;
mod replica_set;
mod replication_controller;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod workload;

use serde_json::Value;

use super::strategy::Kind;
pub(crate) use workload::scale_of;

/// Every kind.
pub const KINDS: &[fn() -> Kind] = &[
    config_map::kind,
    endpoints::kind,
    event::kind,
    namespace::kind,
    node::kind,
    pod::kind,
    pod_template::kind,
    replication_controller::kind,
    secret::kind,
    service_account::kind,
    service::kind,
    controller_revision::kind,
    daemon_set::kind,
    deployment::kind,
    replica_set::kind,
    stateful_set::kind,
    horizontal_pod_autoscaler::kind,
    cron_job::kind,
    job::kind,
    certificate_signing_request::kind,
    lease::kind,
    endpoint_slice::kind,
    pod_disruption_budget::kind,
];

/// The text at a JSON pointer, empty when there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The integer at a JSON pointer, 0 when there is none.
fn integer(object: &Value, pointer: &str) -> i64 {
    object
        .pointer(pointer)
        .and_then(Value::as_i64)
        .unwrap_or_default()
}

/// The elements of the array at a JSON pointer.
fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object
        .pointer(pointer)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// How many members or elements the value at a JSON pointer has.
fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// Sets a member unless it is there and not null.
fn default(object: &mut serde_json::Map<String, Value>, field: &str, value: impl Into<Value>) {
    let member = object.entry(field).or_insert(Value::Null);
    if member.is_null() {
        *member = value.into();
    }
}

/// `a,b,+2 more...`, as tables abbreviate lists.
fn abbreviate(texts: &[String], shown: usize) -> String {
    match texts.len() {
        0 => "<none>".into(),
        len if len <= shown => texts.join(","),
        len => {
            let first: Vec<_> = texts.iter().take(shown).map(String::as_str).collect();
            format!("{} + {} more...", first.join(","), len - shown)
        }
    }
}
