//! What a node's state means: pure decisions.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::runtime::clock;
use crate::taints::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, tolerates};

const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Conditions that keep new pods away while they are True.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    (
        "NetworkUnavailable",
        "node.kubernetes.io/network-unavailable",
    ),
];

/// Conditions that become Unknown with the node.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The status of the node's condition Ready.
pub(super) fn ready(node: &Node) -> &str {
    condition(node, "Ready").map_or("", |condition| &condition.status)
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// What to write about a node.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Its conditions, if its state became unknown.
    pub(super) conditions: Option<Vec<NodeCondition>>,
    /// Its taints, if they are to change.
    pub(super) taints: Option<Vec<Taint>>,
    /// Whether its pods have to leave from now on.
    pub(super) gives_up: bool,
    /// When its silence will be too long.
    pub(super) wake: Option<Duration>,
}

/// The plan for a node that may give no sign of life for as long as is `left`. Its pods stay where they are
/// unless it may be given up.
pub(super) fn plan(node: &Node, left: Duration, may_give_up: bool, now: Timestamp) -> Plan {
    let silent = left.is_zero();
    let conditions = silent.then(|| unknown(node, now)).flatten();
    let status = if silent { "Unknown" } else { ready(node) };
    let taints = taints(node, status, may_give_up, now);
    Plan {
        conditions,
        gives_up: taints.as_deref().is_some_and(is_given_up) && !is_given_up(taints_of(node)),
        taints,
        wake: (!silent).then_some(left),
    }
}

/// All conditions with those that the node reports turned to Unknown; `None` if they are.
fn unknown(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let now = Time(windlass_api::time::to_seconds(now));
    let known = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let mut conditions = known.unwrap_or_default();
    let mut changed = false;
    for kind in REPORTED {
        match conditions
            .iter_mut()
            .find(|condition| condition.type_ == kind)
        {
            Some(condition) if condition.status == "Unknown" => continue,
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(now.clone());
            }
            None => conditions.push(NodeCondition {
                type_: kind.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: None,
                last_transition_time: Some(now.clone()),
            }),
        }
        changed = true;
    }
    changed.then_some(conditions)
}

fn taints_of(node: &Node) -> &[Taint] {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default()
}

/// Whether pods have to leave because the node is not ready.
fn is_given_up(taints: &[Taint]) -> bool {
    let mut taints = taints.iter();
    taints.any(|taint| taint.effect == NO_EXECUTE && matches!(&*taint.key, NOT_READY | UNREACHABLE))
}

/// The node's taints if they are to change. Others' taints stay as they are.
fn taints(node: &Node, ready: &str, may_give_up: bool, now: Timestamp) -> Option<Vec<Taint>> {
    let spec = node.spec.as_ref();
    let known = taints_of(node);
    let cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
    let mut wanted: Vec<(&str, &str)> = match ready {
        "True" => Vec::new(),
        "Unknown" => vec![(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)],
        _ => vec![(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)],
    };
    wanted.retain(|(_, effect)| may_give_up || *effect != NO_EXECUTE);
    let pressed = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    let pressures = PRESSURES.iter().filter(|(kind, _)| pressed(kind));
    wanted.extend(pressures.map(|(_, taint)| (*taint, NO_SCHEDULE)));
    if cordoned {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is_wanted = |taint: &Taint| {
        wanted
            .iter()
            .any(|(key, effect)| taint.key == *key && taint.effect == *effect)
    };
    let kept = known
        .iter()
        .filter(|taint| !is_own(taint) || is_wanted(taint));
    let mut taints: Vec<Taint> = kept.cloned().collect();
    for (key, effect) in &wanted {
        if !known
            .iter()
            .any(|taint| taint.key == *key && taint.effect == *effect)
        {
            taints.push(Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                time_added: Some(Time(windlass_api::time::to_seconds(now))),
                value: None,
            });
        }
    }
    (taints != known).then_some(taints)
}

fn is_own(taint: &Taint) -> bool {
    let keys = [NOT_READY, UNREACHABLE, UNSCHEDULABLE];
    keys.contains(&&*taint.key) || PRESSURES.iter().any(|(_, key)| *key == taint.key)
}

/// What a pod has to expect from the taints of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// It may stay.
    Stays,
    /// It has to go at this time, which may have passed.
    Until(Timestamp),
}

/// How long a pod with these tolerations may stay on a node with these taints. `since` tells when a taint
/// came that does not say so itself.
pub(super) fn stay(
    taints: &[Taint],
    tolerations: &[Toleration],
    since: impl Fn(&Taint) -> Timestamp,
) -> Stay {
    let mut end: Option<Timestamp> = None;
    for taint in taints.iter().filter(|taint| taint.effect == NO_EXECUTE) {
        let came = taint
            .time_added
            .as_ref()
            .map_or_else(|| since(taint), |time| time.0);
        let matching = tolerations
            .iter()
            .filter(|toleration| tolerates(toleration, taint));
        // Of several tolerations the shortest counts; one without a limit limits nothing.
        let limits: Vec<Option<i64>> = matching.map(|t| t.toleration_seconds).collect();
        let limit = match limits.iter().flatten().min() {
            _ if limits.is_empty() => Some(0),
            Some(seconds) => Some((*seconds).max(0)),
            None => None,
        };
        if let Some(seconds) = limit {
            let until = clock::after(came, seconds);
            end = Some(end.map_or(until, |end| end.min(until)));
        }
    }
    end.map_or(Stay::Stays, Stay::Until)
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn node(ready: &str, spec: Value) -> Node {
        let conditions = json!([{"type": "Ready", "status": ready}, {"type": "DiskPressure", "status": "False"}]);
        serde_json::from_value(json!({"spec": spec, "status": {"conditions": conditions}})).unwrap()
    }

    fn keys(taints: &Option<Vec<Taint>>) -> Vec<String> {
        taints
            .iter()
            .flatten()
            .map(|taint| format!("{}:{}", taint.key, taint.effect))
            .collect()
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_unreachable() {
        let healthy = node("True", json!({}));
        let plan_ = plan(&healthy, Duration::from_secs(30), true, at(10));
        assert_eq!(
            plan_,
            Plan {
                wake: Some(Duration::from_secs(30)),
                ..Plan::default()
            }
        );
        let kept = plan(&healthy, Duration::ZERO, false, at(40));
        assert_eq!(
            keys(&kept.taints),
            ["node.kubernetes.io/unreachable:NoSchedule"]
        );
        let plan_ = plan(&healthy, Duration::ZERO, true, at(40));
        assert!(plan_.gives_up && !kept.gives_up);
        let conditions = plan_.conditions.unwrap();
        assert!(
            conditions
                .iter()
                .all(|condition| condition.status == "Unknown")
        );
        assert_eq!(conditions.len(), 4);
        assert_eq!(
            keys(&plan_.taints),
            [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        // Once written there is nothing more to do.
        let mut silent = healthy;
        silent.status.as_mut().unwrap().conditions = Some(conditions);
        silent.spec.as_mut().unwrap().taints = plan_.taints;
        assert_eq!(plan(&silent, Duration::ZERO, true, at(99)), Plan::default());
    }

    #[test]
    fn taints_follow_the_nodes_state_and_leave_others_alone() {
        let own = json!({"key": "mine", "effect": "NoSchedule"});
        let stale = json!({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"});
        let recovered = node("True", json!({"taints": [own, stale]}));
        assert_eq!(
            keys(&plan(&recovered, Duration::from_secs(1), true, at(1)).taints),
            ["mine:NoSchedule"]
        );
        let cordoned = node("False", json!({"unschedulable": true}));
        let expected = [
            "not-ready:NoSchedule",
            "not-ready:NoExecute",
            "unschedulable:NoSchedule",
        ];
        let expected = expected.map(|taint| format!("node.kubernetes.io/{taint}"));
        assert_eq!(
            keys(&plan(&cordoned, Duration::from_secs(1), true, at(1)).taints),
            expected
        );
        assert_eq!(
            plan(
                &node(
                    "True",
                    json!({"taints": [{"key": "mine", "effect": "NoSchedule"}]})
                ),
                Duration::from_secs(1),
                true,
                at(1)
            )
            .taints,
            None
        );
    }

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let taint = |key: &str| -> Taint {
            serde_json::from_value(
                json!({"key": key, "effect": "NoExecute", "timeAdded": "1970-01-01T00:01:40Z"}),
            )
            .unwrap()
        };
        let tolerations =
            |value: Value| -> Vec<Toleration> { serde_json::from_value(value).unwrap() };
        let forever = json!({"key": "a", "operator": "Exists"});
        let minute = json!({"key": "a", "operator": "Exists", "tolerationSeconds": 60});
        for (taints, tolerations_, expected) in [
            (vec![], json!([]), Stay::Stays),
            (vec![taint("a")], json!([]), Stay::Until(at(100))),
            (vec![taint("a")], json!([forever]), Stay::Stays),
            (vec![taint("a")], json!([minute]), Stay::Until(at(160))),
            (
                vec![taint("a")],
                json!([forever, minute]),
                Stay::Until(at(160)),
            ),
            (
                vec![taint("a"), taint("b")],
                json!([forever]),
                Stay::Until(at(100)),
            ),
        ] {
            assert_eq!(
                stay(&taints, &tolerations(tolerations_.clone()), |_| at(0)),
                expected,
                "{tolerations_}"
            );
        }
    }
}
