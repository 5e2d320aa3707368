//! A pod's row of the table: upstream's reading of the status, word for word.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::{integer, items, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, NAME};
use crate::registry::{age, since};

pub(super) const COLUMNS: &[Column] = &[
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

pub(super) fn cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let or_none = |text: &str| -> Value { if text.is_empty() { "<none>" } else { text }.into() };
    let shown = Shown::of(object);
    vec![
        meta::name(object).into(),
        format!("{}/{}", shown.ready, containers(object)).into(),
        shown.reason.into(),
        shown.restarts.text(now).into(),
        age(object, now).into(),
        or_none(match text(object, "/status/podIPs/0/ip") {
            "" => text(object, "/status/podIP"),
            ip => ip,
        }),
        or_none(text(object, "/spec/nodeName")),
        or_none(text(object, "/status/nominatedNodeName")),
        readiness_gates(object).into(),
    ]
}

/// Containers that run side by side: sidecars count.
fn containers(object: &Value) -> usize {
    let sidecars = items(object, "/spec/initContainers").iter();
    let sidecars = sidecars.filter(|container| restarts_always(container));
    items(object, "/spec/containers").len() + sidecars.count()
}

fn restarts_always(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn readiness_gates(object: &Value) -> String {
    let gates = items(object, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| holds(object, text(gate, "/conditionType"));
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}

/// Whether a condition of the pod is true.
fn holds(object: &Value, condition: &str) -> bool {
    let conditions = items(object, "/status/conditions").iter();
    let mut wanted = conditions.filter(|c| text(c, "/type") == condition);
    wanted.any(|c| text(c, "/status") == "True")
}

/// Restarts of some containers.
#[derive(Default)]
struct Restarts<'a> {
    count: i64,
    last: &'a str,
}

impl<'a> Restarts<'a> {
    fn add(&mut self, status: &'a Value) {
        self.count += integer(status, "/restartCount");
        let ended = text(status, "/lastState/terminated/finishedAt");
        self.last = self.last.max(ended);
    }

    fn text(&self, now: Timestamp) -> String {
        if self.count == 0 || self.last.is_empty() {
            return self.count.to_string();
        }
        format!("{} ({} ago)", self.count, since(self.last, now))
    }
}

/// What the table says about the containers.
struct Shown<'a> {
    ready: usize,
    reason: String,
    restarts: Restarts<'a>,
}

impl<'a> Shown<'a> {
    fn of(object: &'a Value) -> Self {
        let mut shown = Self {
            ready: 0,
            reason: pod_reason(object).to_owned(),
            restarts: Restarts::default(),
        };
        let initializing = shown.read_init_containers(object);
        if !initializing || holds(object, "Initialized") {
            shown.read_containers(object);
        }
        let phase = text(object, "/status/phase");
        if meta::is_terminating(object) {
            if text(object, "/status/reason") == "NodeLost" {
                shown.reason = "Unknown".into();
            } else if phase != "Succeeded" && phase != "Failed" {
                shown.reason = "Terminating".into();
            }
        }
        shown
    }

    /// Reads init containers in order, up to the first that holds the pod up, if any does.
    fn read_init_containers(&mut self, object: &'a Value) -> bool {
        let specs = items(object, "/spec/initContainers");
        let statuses = items(object, "/status/initContainerStatuses");
        let mut of_sidecars = Restarts::default();
        for (index, status) in statuses.iter().enumerate() {
            self.restarts.add(status);
            let name = text(status, "/name");
            let spec = specs.iter().find(|spec| text(spec, "/name") == name);
            let sidecar = spec.is_some_and(restarts_always);
            if sidecar {
                of_sidecars.add(status);
            }
            if status.pointer("/state/terminated/exitCode") == Some(&json!(0)) {
                continue;
            }
            if sidecar && status.get("started") == Some(&Value::Bool(true)) {
                self.ready += usize::from(is_ready(status));
                continue;
            }
            let reason = container_reason(status).filter(|reason| reason != "PodInitializing");
            let reason = reason.unwrap_or_else(|| format!("{index}/{}", specs.len()));
            self.reason = format!("Init:{reason}");
            if holds(object, "Initialized") {
                self.restarts = of_sidecars;
            }
            return true;
        }
        self.restarts = of_sidecars;
        false
    }

    fn read_containers(&mut self, object: &'a Value) {
        let mut running = false;
        for status in items(object, "/status/containerStatuses").iter().rev() {
            self.restarts.add(status);
            if let Some(reason) = container_reason(status) {
                self.reason = reason;
            } else if is_ready(status) && status.pointer("/state/running").is_some() {
                running = true;
                self.ready += 1;
            }
        }
        // A pod with one finished and one running container is running.
        if self.reason == "Completed" && running {
            let ready = holds(object, "Ready");
            self.reason = if ready { "Running" } else { "NotReady" }.into();
        }
    }
}

fn pod_reason(object: &Value) -> &str {
    let gated = |condition: &&Value| {
        text(condition, "/type") == "PodScheduled"
            && text(condition, "/reason") == "SchedulingGated"
    };
    if items(object, "/status/conditions")
        .iter()
        .any(|c| gated(&c))
    {
        return "SchedulingGated";
    }
    match text(object, "/status/reason") {
        "" => text(object, "/status/phase"),
        reason => reason,
    }
}

fn is_ready(status: &Value) -> bool {
    status.get("ready") == Some(&Value::Bool(true))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(spec: &Value, status: &Value) -> (String, String) {
        let object = json!({"metadata": {}, "spec": spec, "status": status});
        let shown = Shown::of(&object);
        let ready = format!("{}/{}", shown.ready, containers(&object));
        (ready, shown.reason)
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
            (
                json!({"phase": "Pending", "initContainerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
                "Init:Error",
            ),
            (
                json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
                "SchedulingGated",
            ),
        ];
        for (status, text) in cases {
            let (_, reason) = row(&json!({"containers": [{}]}), &status);
            assert_eq!(reason, text);
        }
    }

    #[test]
    fn a_started_sidecar_counts_among_the_containers() {
        let spec = json!({
            "initContainers": [{"name": "proxy", "restartPolicy": "Always"}],
            "containers": [{"name": "web"}],
        });
        let status = json!({
            "phase": "Running",
            "initContainerStatuses": [{"name": "proxy", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [{"name": "web", "ready": true, "state": {"running": {}}}],
        });
        assert_eq!(row(&spec, &status), ("2/2".into(), "Running".into()));
    }

    #[test]
    fn restarts_say_when_the_last_one_was() {
        let mut restarts = Restarts::default();
        let status = json!({
            "restartCount": 3,
            "lastState": {"terminated": {"finishedAt": "1970-01-01T00:00:00Z"}},
        });
        restarts.add(&status);
        let now = "1970-01-01T00:05:00Z".parse().unwrap();
        assert_eq!(restarts.text(now), "3 (5m ago)");
    }
}
