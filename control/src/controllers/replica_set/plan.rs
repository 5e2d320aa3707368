//! What a ReplicaSet needs: pure decisions.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::controllers::runtime::clock;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::{DELETION_COST, Pod};
use crate::controllers::runtime::pod_owners::Failure;

/// Pods created or deleted in one go at most.
const BURST: usize = 500;

/// How the number of pods is to change.
#[derive(Debug)]
pub(super) enum Scaling {
    Nothing,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

/// How the number of `pods`, the active ones of the set, is to change. `related` gives the pods that
/// count when those who share a node with their like are given up first.
pub(super) fn scale(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
) -> Scaling {
    let wanted = usize::try_from(replicas(set)).unwrap_or(0);
    if pods.len() < wanted {
        return Scaling::Create((wanted - pods.len()).min(BURST));
    }
    let surplus = (pods.len() - wanted).min(BURST);
    match surplus {
        0 => Scaling::Nothing,
        // Everybody goes: no ranking needed.
        _ if surplus == pods.len() => Scaling::Delete(pods.to_vec()),
        _ => Scaling::Delete(victims(pods, surplus, &related())),
    }
}

fn replicas(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// The `count` pods that are missed least. Source: upstream's `ActivePodsWithRanks`.
fn victims(pods: &[Arc<Pod>], count: usize, related: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| pod.is_active()) {
        *on_node.entry(&pod.node).or_default() += 1;
    }
    let rank = |pod: &Pod| on_node.get(&*pod.node).copied().unwrap_or(0);
    let mut sorted = pods.to_vec();
    sorted.sort_by(|a, b| {
        let by_state = standing(a).cmp(&standing(b));
        by_state
            .then(rank(b).cmp(&rank(a)))
            .then_with(|| by_age(a, b))
    });
    sorted.truncate(count);
    sorted
}

/// Unassigned before assigned, pending before unknown before running, not ready before ready, cheap
/// before dear.
fn standing(pod: &Pod) -> (bool, u8, bool, i64) {
    let phase = match &*pod.phase {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let cost = pod.metadata.annotation(DELETION_COST).parse().unwrap_or(0);
    (!pod.node.is_empty(), phase, pod.ready, cost)
}

/// Ready for a shorter time first, then more restarts first, then younger first.
fn by_age(a: &Pod, b: &Pod) -> Ordering {
    let ready = match (a.ready, b.ready) {
        (true, true) => b.ready_since.cmp(&a.ready_since),
        _ => Ordering::Equal,
    };
    let restarts = b.restarts.cmp(&a.restarts);
    ready
        .then(restarts)
        .then(b.metadata.created().cmp(&a.metadata.created()))
}

/// The set's status, and when it has to be looked at again without anything having happened.
pub(super) fn status(
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    failure: Option<&Failure>,
    now: Timestamp,
) -> (ReplicaSetStatus, Option<Duration>) {
    let spec = set.spec.as_ref();
    let min_ready = spec.and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    let template = spec.and_then(|spec| spec.template.as_ref()?.metadata.as_ref()?.labels.as_ref());
    let is_fully_labelled = |pod: &&Arc<Pod>| {
        let labels = pod.metadata.labels();
        template.is_none_or(|wanted| {
            wanted
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        })
    };
    let available = pods.iter().map(|pod| pod.available(min_ready, now));
    let due = available
        .clone()
        .filter_map(|available| available.err().flatten())
        .min();
    let status = ReplicaSetStatus {
        replicas: count(pods.len()),
        fully_labeled_replicas: Some(count(pods.iter().filter(is_fully_labelled).count())),
        ready_replicas: Some(count(pods.iter().filter(|pod| pod.ready).count())),
        available_replicas: Some(count(available.filter(Result::is_ok).count())),
        observed_generation: set.metadata.generation,
        conditions: conditions(set, failure, now),
        terminating_replicas: None,
    };
    (status, due.map(|due| clock::until(due, now)))
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn conditions(
    set: &ReplicaSet,
    failure: Option<&Failure>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const KIND: &str = "ReplicaFailure";
    let known = set
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let mut conditions = known.unwrap_or_default();
    let old = conditions
        .iter()
        .position(|condition| condition.type_ == KIND);
    let old = old.map(|at| conditions.remove(at));
    if let Some(failure) = failure {
        let condition = old.filter(|old| old.reason.as_deref() == Some(failure.reason));
        conditions.push(condition.unwrap_or_else(|| ReplicaSetCondition {
            type_: KIND.to_owned(),
            status: "True".to_owned(),
            reason: Some(failure.reason.to_owned()),
            message: Some(failure.message.clone()),
            last_transition_time: Some(Time(windlass_api::time::to_seconds(now))),
        }));
    }
    (!conditions.is_empty()).then_some(conditions)
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn set(spec: Value) -> ReplicaSet {
        let object = json!({"metadata": {"name": "web", "generation": 3}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn pod(name: &str) -> Pod {
        Pod {
            metadata: serde_json::from_value(json!({"name": name, "labels": {"app": "web"}}))
                .unwrap(),
            node: "n1".into(),
            phase: "Running".into(),
            ready: true,
            ready_since: Some(Timestamp::UNIX_EPOCH),
            ..Pod::default()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn pods_are_created_and_deleted_up_to_the_wanted_number() {
        let pods: Vec<_> = ["a", "b", "c"].map(|name| Arc::new(pod(name))).into();
        for (wanted, expected) in [(5, 2_i64), (3, 0), (1, -2), (0, -3), (2000, 500)] {
            let change = match scale(&set(json!({"replicas": wanted})), &pods, Vec::new) {
                Scaling::Nothing => 0,
                Scaling::Create(count) => i64::try_from(count).unwrap(),
                Scaling::Delete(victims) => -i64::try_from(victims.len()).unwrap(),
            };
            assert_eq!(change, expected, "{wanted} wanted");
        }
    }

    #[test]
    fn those_go_first_that_are_missed_least() {
        let cheap = json!({"name": "cheap", "annotations": {DELETION_COST: "-5"}});
        let created = |name: &str, time: &str| {
            serde_json::from_value(json!({"name": name, "creationTimestamp": time})).unwrap()
        };
        let pods = [
            Pod {
                metadata: created("old", "2026-01-01T00:00:00Z"),
                ..pod("")
            },
            Pod {
                metadata: created("young", "2026-01-02T00:00:00Z"),
                ..pod("")
            },
            Pod {
                restarts: 3,
                ..pod("restarted")
            },
            Pod {
                ready_since: Some(at(100)),
                ..pod("freshly-ready")
            },
            Pod {
                node: "n2".into(),
                ready_since: Some(at(200)),
                ..pod("crowded")
            },
            Pod {
                metadata: serde_json::from_value(cheap).unwrap(),
                ..pod("")
            },
            Pod {
                ready: false,
                ..pod("not-ready")
            },
            Pod {
                phase: "Pending".into(),
                ready: false,
                ..pod("pending")
            },
            Pod {
                node: String::new(),
                phase: "Pending".into(),
                ready: false,
                ..pod("unassigned")
            },
        ];
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let crowd = Pod {
            node: "n2".into(),
            ..pod("r")
        };
        let mut related: Vec<_> = (0..9).map(|_| Arc::new(crowd.clone())).collect();
        related.extend(pods.iter().cloned());
        let order = victims(&pods, pods.len(), &related);
        let names: Vec<_> = order.iter().map(|pod| pod.metadata.name()).collect();
        let expected = [
            "unassigned",
            "pending",
            "not-ready",
            "cheap",
            "crowded",
            "freshly-ready",
            "restarted",
            "young",
            "old",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn the_status_counts_and_says_when_to_look_again() {
        let set = set(json!({"replicas": 3, "minReadySeconds": 10,
            "template": {"metadata": {"labels": {"app": "web"}}}}));
        let pods = [
            pod("available"),
            Pod {
                ready_since: Some(at(95)),
                ..pod("soon")
            },
            Pod {
                ready: false,
                ..pod("not-ready")
            },
        ];
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let (status, wake) = status(&set, &pods, None, at(100));
        assert_eq!(
            (
                status.replicas,
                status.ready_replicas,
                status.available_replicas
            ),
            (3, Some(2), Some(1))
        );
        assert_eq!(
            (status.fully_labeled_replicas, status.observed_generation),
            (Some(3), Some(3))
        );
        assert_eq!(wake, Some(Duration::from_secs(5)));
    }
}
