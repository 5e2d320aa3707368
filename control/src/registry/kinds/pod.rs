//! Pod.
//!
//! A pod's spec hardly ever changes. A deletion waits for the grace period: the node agent stops the
//! containers and then deletes the pod with a grace period of zero. A pod that no node has taken, or
//! whose containers have all ended, goes at once.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodSpec;
use serde::Deserialize;
use serde_json::{Value, json};
use windlass_api::pod_resources::qos_class;
use windlass_api::resource::GroupVersionKind;

use super::{integer, items, pod_spec, text};
use crate::identity::UserInfo;
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, PROXY_VERBS, Strategy};

struct Pod;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = |name| GroupVersionKind::of("", "v1", name);
    Kind::namespaced(gvk("Pod"), "pods", &Pod)
        .short_names(&["po"])
        .categories(&["all"])
        .subresource("attach", gvk("PodAttachOptions"), &["create", "get"])
        .subresource("binding", gvk("Binding"), &["create"])
        .subresource(
            "eviction",
            GroupVersionKind::of("policy", "v1", "Eviction"),
            &["create"],
        )
        .subresource("exec", gvk("PodExecOptions"), &["create", "get"])
        .subresource("log", gvk("Pod"), &["get"])
        .subresource(
            "portforward",
            gvk("PodPortForwardOptions"),
            &["create", "get"],
        )
        .subresource("proxy", gvk("PodProxyOptions"), PROXY_VERBS)
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Ready", "string", "Ready containers of all containers."),
    Column::new("Status", "string", "What the pod is doing."),
    Column::new(
        "Restarts",
        "string",
        "How often containers were restarted, and when last.",
    ),
    AGE,
    Column::wide("IP", "string", "The pod's address."),
    Column::wide("Node", "string", "The node the pod is bound to."),
    Column::wide(
        "Nominated Node",
        "string",
        "The node that is being cleared for the pod.",
    ),
    Column::wide(
        "Readiness Gates",
        "string",
        "Readiness gates that hold of all gates.",
    ),
];

/// Fields of the spec that may change, besides container images.
const MUTABLE: [&str; 4] = [
    "activeDeadlineSeconds",
    "tolerations",
    "terminationGracePeriodSeconds",
    "schedulingGates",
];

impl Strategy for Pod {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        pod_spec::set_defaults(spec);
        super::default(spec, "enableServiceLinks", true);
    }

    fn prepare_for_create(&self, object: &mut Value, _: &UserInfo) {
        // A spec that does not decode is refused by the schema before it gets here.
        let spec = object
            .get("spec")
            .and_then(|spec| PodSpec::deserialize(spec).ok());
        let qos = qos_class(&spec.unwrap_or_default());
        if let Some(object) = object.as_object_mut() {
            object.insert(
                "status".into(),
                json!({"phase": "Pending", "qosClass": qos.as_str()}),
            );
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        pod_spec::validate("spec", object.get("spec").unwrap_or(&Value::Null))
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        if endpoint != Endpoint::Main || comparable(old) == comparable(new) {
            return Vec::new();
        }
        let detail = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        vec![FieldError::forbidden("spec", detail)]
    }

    fn has_status(&self) -> bool {
        true
    }

    fn grace_period(&self, object: &Value, requested: Option<i64>) -> i64 {
        let phase = text(object, "/status/phase");
        let unbound = text(object, "/spec/nodeName").is_empty();
        if unbound || phase == "Succeeded" || phase == "Failed" {
            return 0;
        }
        requested.unwrap_or_else(|| integer(object, "/spec/terminationGracePeriodSeconds"))
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ]
    }

    fn selectable_field(&self, object: &Value, field: &str) -> String {
        match field {
            "spec.hostNetwork" => {
                (object.pointer("/spec/hostNetwork") == Some(&Value::Bool(true))).to_string()
            }
            "status.podIPs" => text(object, "/status/podIP").to_owned(),
            _ => text(object, &format!("/{}", field.replace('.', "/"))).to_owned(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let or_none =
            |text: &str| -> Value { if text.is_empty() { "<none>" } else { text }.into() };
        let shown = Shown::of(object, now);
        vec![
            meta::name(object).into(),
            format!(
                "{}/{}",
                shown.ready,
                items(object, "/spec/containers").len()
            )
            .into(),
            shown.reason.into(),
            shown.restarts.into(),
            age(object, now).into(),
            or_none(text(object, "/status/podIP")),
            or_none(text(object, "/spec/nodeName")),
            or_none(text(object, "/status/nominatedNodeName")),
            readiness_gates(object).into(),
        ]
    }
}

/// The spec with everything that may change blanked out.
fn comparable(object: &Value) -> Value {
    let mut spec = object.get("spec").cloned().unwrap_or_default();
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers
            .into_iter()
            .flatten()
            .filter_map(Value::as_object_mut)
        {
            container.shift_remove("image");
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        for field in MUTABLE {
            spec.shift_remove(field);
        }
    }
    spec
}

fn readiness_gates(object: &Value) -> String {
    let gates = items(object, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| {
        let wanted = text(gate, "/conditionType");
        let conditions = items(object, "/status/conditions").iter();
        conditions
            .filter(|c| text(c, "/type") == wanted)
            .any(|c| text(c, "/status") == "True")
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

/// What the table says about the containers: kubectl's reading of the status.
struct Shown {
    ready: usize,
    reason: String,
    restarts: String,
}

impl Shown {
    fn of(object: &Value, now: Timestamp) -> Self {
        let mut reason = match text(object, "/status/reason") {
            "" => text(object, "/status/phase"),
            reason => reason,
        }
        .to_owned();
        let containers = items(object, "/status/containerStatuses");
        let initializing = init_reason(object);
        let mut running = false;
        if let Some(initializing) = &initializing {
            reason.clone_from(initializing);
        } else {
            for status in containers.iter().rev() {
                running |= is_ready(status) && status.pointer("/state/running").is_some();
                reason = container_reason(status).unwrap_or(reason);
            }
            // A pod with one finished and one running container is running.
            if reason == "Completed" && running {
                reason = if is_pod_ready(object) {
                    "Running"
                } else {
                    "NotReady"
                }
                .into();
            }
        }
        if meta::is_terminating(object) {
            let lost = text(object, "/status/reason") == "NodeLost";
            reason = if lost { "Unknown" } else { "Terminating" }.into();
        }
        let counted = if initializing.is_some() {
            items(object, "/status/initContainerStatuses")
        } else {
            containers
        };
        Self {
            ready: containers.iter().filter(|status| is_ready(status)).count(),
            reason,
            restarts: restarts(counted, now),
        }
    }
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&Value::Bool(true))
}

fn is_pod_ready(object: &Value) -> bool {
    let conditions = items(object, "/status/conditions").iter();
    conditions
        .filter(|c| text(c, "/type") == "Ready")
        .any(|c| text(c, "/status") == "True")
}

/// Why a container does not just run.
fn container_reason(status: &Value) -> Option<String> {
    let waiting = text(status, "/state/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.to_owned());
    }
    let terminated = status.pointer("/state/terminated")?;
    let reason = text(terminated, "/reason");
    if !reason.is_empty() {
        return Some(reason.to_owned());
    }
    Some(match integer(terminated, "/signal") {
        0 => format!("ExitCode:{}", integer(terminated, "/exitCode")),
        signal => format!("Signal:{signal}"),
    })
}

/// The first init container that holds the pod up.
fn init_reason(object: &Value) -> Option<String> {
    let wanted = items(object, "/spec/initContainers").len();
    for (index, status) in items(object, "/status/initContainerStatuses")
        .iter()
        .enumerate()
    {
        let started = status.get("started") == Some(&Value::Bool(true));
        let finished = status.pointer("/state/terminated/exitCode") == Some(&json!(0));
        if finished || started {
            continue;
        }
        let reason = container_reason(status).filter(|reason| reason != "PodInitializing");
        return Some(match reason {
            Some(reason) => format!("Init:{reason}"),
            None => format!("Init:{index}/{wanted}"),
        });
    }
    None
}

fn restarts(statuses: &[Value], now: Timestamp) -> String {
    let total: i64 = statuses
        .iter()
        .map(|status| integer(status, "/restartCount"))
        .sum();
    let ends = statuses
        .iter()
        .map(|status| text(status, "/lastState/terminated/finishedAt"));
    match ends.max().filter(|end| total > 0 && !end.is_empty()) {
        Some(end) => format!("{total} ({} ago)", crate::registry::since(end, now)),
        None => total.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(status: &Value) -> String {
        let object = json!({"metadata": {}, "spec": {"containers": [{}]}, "status": status});
        Shown::of(&object, Timestamp::UNIX_EPOCH).reason
    }

    #[test]
    fn the_status_column_reads_as_kubectl_prints_it() {
        let cases = [
            (
                json!({"phase": "Running", "containerStatuses": [{"ready": true, "state": {"running": {}}}]}),
                "Running",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}),
                "CrashLoopBackOff",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
                "ExitCode:3",
            ),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"running": {}}}]}),
                "Init:0/0",
            ),
        ];
        for (status, text) in cases {
            assert_eq!(shown(&status), text);
        }
    }

    #[test]
    fn a_pod_nobody_runs_goes_at_once() {
        let unbound = json!({"spec": {"terminationGracePeriodSeconds": 30}});
        let bound = json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}});
        assert_eq!(Pod.grace_period(&unbound, None), 0);
        assert_eq!(Pod.grace_period(&bound, None), 30);
        assert_eq!(Pod.grace_period(&bound, Some(5)), 5);
    }
}
