//! The table of kinds the API serves. To add a kind: a file here and a line in [`KINDS`].
//!
//! The order is the order of discovery, and clients prefer what comes first when names are ambiguous.

mod admissionregistration;
mod certificate_signing_request;
#[cfg(test)]
mod completeness_tests;
mod config_map;
mod controller_revision;
mod cron_job;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod endpoints;
mod event;
mod event_v1;
mod field;
mod field_path;
mod flowcontrol;
mod horizontal_pod_autoscaler;
mod job;
mod label_selector;
mod lease;
mod limit_range;
mod metrics;
mod namespace;
mod networking;
mod node;
mod node_info;
mod persistent_volume;
mod persistent_volume_claim;
pub(crate) mod pod;
mod pod_disruption_budget;
mod pod_spec;
mod pod_template;
mod priority_class;
mod rbac;
mod replica_set;
mod replication_controller;
mod resource;
mod resource_names;
mod resource_quota;
mod reviews;
mod rules;
mod runtime_class;
mod secret;
mod service;
mod service_account;
mod stateful_set;
mod storage;
mod workload;

use serde_json::Value;

use super::strategy::Kind;
pub(crate) use workload::scale_of;

/// Every kind.
pub const KINDS: &[fn() -> Kind] = &[
    reviews::binding,
    reviews::component_status,
    config_map::kind,
    endpoints::kind,
    event::kind,
    limit_range::kind,
    namespace::kind,
    node::kind,
    persistent_volume_claim::kind,
    persistent_volume::kind,
    pod::kind,
    pod_template::kind,
    replication_controller::kind,
    resource_quota::kind,
    secret::kind,
    service_account::kind,
    service::kind,
    controller_revision::kind,
    daemon_set::kind,
    deployment::kind,
    replica_set::kind,
    stateful_set::kind,
    event_v1::kind,
    reviews::self_subject_review,
    reviews::token_review,
    reviews::local_subject_access_review,
    reviews::self_subject_access_review,
    reviews::self_subject_rules_review,
    reviews::subject_access_review,
    horizontal_pod_autoscaler::kind,
    horizontal_pod_autoscaler::kind_v1,
    cron_job::kind,
    job::kind,
    certificate_signing_request::kind,
    networking::ingress_class::kind,
    networking::ingress::kind,
    networking::ip_address::kind,
    networking::network_policy::kind,
    networking::service_cidr::kind,
    pod_disruption_budget::kind,
    rbac::binding::cluster_role_binding,
    rbac::role::cluster_role,
    rbac::binding::role_binding,
    rbac::role::role,
    storage::csi_driver::kind,
    storage::csi_node::kind,
    storage::csi_storage_capacity::kind,
    storage::storage_class::kind,
    storage::volume_attachment::kind,
    storage::volume_attributes_class::kind,
    admissionregistration::validating_admission_policy::kind,
    admissionregistration::validating_admission_policy_binding::kind,
    priority_class::kind,
    lease::kind,
    runtime_class::kind,
    endpoint_slice::kind,
    resource::device_class::kind,
    resource::resource_claim::kind,
    resource::resource_claim_template::kind,
    resource::resource_slice::kind,
    flowcontrol::flow_schema::kind,
    flowcontrol::priority_level_configuration::kind,
    metrics::node_metrics,
    metrics::pod_metrics,
    node_info::pod_components,
    node_info::pod_flows,
];

/// The text at a JSON pointer, empty when there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
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

/// Sets a text unless it is there and not empty: what Go does to a text that is no pointer.
fn default_text(object: &mut serde_json::Map<String, Value>, field: &str, value: &str) {
    if object
        .get(field)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .is_empty()
    {
        object.insert(field.to_owned(), value.into());
    }
}

/// Sets an integer unless it is there and not 0: what Go does to an integer that is no pointer.
fn default_number(object: &mut serde_json::Map<String, Value>, field: &str, value: i64) {
    if object
        .get(field)
        .and_then(Value::as_i64)
        .unwrap_or_default()
        == 0
    {
        object.insert(field.to_owned(), value.into());
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
