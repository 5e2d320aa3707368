//! What a PodDisruptionBudget's status should say, computed from what there is.
//!
//! `disruptionsAllowed` is how many of the budget's pods may be evicted now: the healthy ones beyond
//! those that must stay healthy. A pod that the eviction API let go (`disruptedPods`) counts as not
//! healthy until it is gone, or until it is plain that its deletion did not happen. Source: upstream's
//! disruption controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;

/// Condition that says whether an eviction would be let through.
const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
/// An evicted pod that is still there after this long was not deleted after all.
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_secs(120);

/// How many pods there should be, and how many of them must be healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) expected: i32,
    pub(super) healthy: i32,
}

/// The status to write, and when to look again though nothing changes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) status: PodDisruptionBudgetStatus,
    pub(super) wake: Option<Duration>,
    /// Evicted pods that were not deleted in time.
    pub(super) not_deleted: Vec<String>,
}

/// Whether the budget needs to know how many pods the controllers of its pods want.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.as_ref();
    match spec.and_then(|spec| spec.max_unavailable.as_ref()) {
        Some(_) => true,
        None => matches!(
            spec.and_then(|spec| spec.min_available.as_ref()),
            Some(IntOrString::String(_))
        ),
    }
}

/// What the budget asks for. `scale` is what the controllers of its pods want together; only budgets
/// for which [`needs_scale`] holds read it.
///
/// # Errors
/// When an amount is neither a number nor a percentage.
pub(super) fn wanted(
    budget: &PodDisruptionBudget,
    pods: usize,
    scale: i32,
) -> Result<Wanted, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    if let Some(unavailable) = spec.max_unavailable {
        let healthy = (scale - share(&unavailable, scale)?).max(0);
        return Ok(Wanted {
            expected: scale,
            healthy,
        });
    }
    let expected = i32::try_from(pods).unwrap_or(i32::MAX);
    match spec.min_available {
        None => Ok(Wanted {
            expected,
            healthy: 0,
        }),
        Some(IntOrString::Int(healthy)) => Ok(Wanted { expected, healthy }),
        Some(percent) => Ok(Wanted {
            expected: scale,
            healthy: share(&percent, scale)?,
        }),
    }
}

/// The number, or the percentage of `whole`, rounded up.
fn share(amount: &IntOrString, whole: i32) -> Result<i32, String> {
    let text = match amount {
        IntOrString::Int(number) => return Ok(*number),
        IntOrString::String(text) => text,
    };
    let percent: Option<i64> = text
        .strip_suffix('%')
        .and_then(|digits| digits.parse().ok());
    let percent = percent.ok_or_else(|| {
        format!("invalid value for IntOrString: invalid type: string is not a percentage: {text:?}")
    })?;
    let share = (i64::from(whole) * percent + 99) / 100;
    Ok(i32::try_from(share).unwrap_or(i32::MAX))
}

/// The status of a budget whose pods are `pods`.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    wanted: Wanted,
    now: Timestamp,
) -> Plan {
    let old = budget.status.clone().unwrap_or_default();
    let (disrupted, wake, not_deleted) =
        still_disrupted(old.disrupted_pods.unwrap_or_default(), pods, now);
    let healthy = pods.iter().filter(|pod| {
        pod.ready && !pod.metadata.is_terminating() && !disrupted.contains_key(pod.metadata.name())
    });
    let current = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if wanted.expected <= 0 {
        0
    } else {
        (current - wanted.healthy).max(0)
    };
    let generation = budget.metadata.generation.unwrap_or_default();
    let (status, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let condition = condition(status, reason, String::new(), generation, now);
    Plan {
        status: PodDisruptionBudgetStatus {
            conditions: Some(merged(old.conditions.unwrap_or_default(), condition)),
            current_healthy: current,
            desired_healthy: wanted.healthy,
            disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
            disruptions_allowed: allowed,
            expected_pods: wanted.expected,
            observed_generation: Some(generation),
        },
        wake,
        not_deleted,
    }
}

/// The status of a budget that cannot be computed: nothing may be evicted.
pub(super) fn failed(
    budget: &PodDisruptionBudget,
    message: String,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or_default();
    let condition = condition("False", "SyncFailed", message, generation, now);
    status.disruptions_allowed = 0;
    status.observed_generation = Some(generation);
    status.conditions = Some(merged(status.conditions.unwrap_or_default(), condition));
    status
}

/// The evicted pods that still count, when the next of them stops to, and those that were not deleted.
fn still_disrupted(
    evicted: BTreeMap<String, Time>,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>, Vec<String>) {
    let (mut still, mut wake, mut not_deleted) = (BTreeMap::new(), None, Vec::new());
    for (name, at) in evicted {
        let pod = pods.iter().find(|pod| pod.metadata.name() == name);
        if pod.is_none_or(|pod| pod.metadata.is_terminating()) {
            continue;
        }
        let left = DELETION_TIMEOUT - now.duration_since(at.0);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => {
                wake = Some(wake.map_or(left, |wake: Duration| wake.min(left)));
                still.insert(name, at);
            }
            _ => not_deleted.push(name),
        }
    }
    (still, wake, not_deleted)
}

fn condition(
    status: &str,
    reason: &str,
    message: String,
    generation: i64,
    now: Timestamp,
) -> Condition {
    Condition {
        type_: DISRUPTION_ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message,
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    }
}

/// The conditions with `condition` in place; its time is that of the last change of its status.
fn merged(mut conditions: Vec<Condition>, mut condition: Condition) -> Vec<Condition> {
    match conditions
        .iter_mut()
        .find(|old| old.type_ == condition.type_)
    {
        Some(old) => {
            if old.status == condition.status {
                condition.last_transition_time = old.last_transition_time.clone();
            }
            *old = condition;
        }
        None => conditions.push(condition),
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(spec: &Value, status: &Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({
            "metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        Arc::new(Pod {
            metadata: serde_json::from_value(json!({"name": name})).unwrap(),
            ready,
            ..Pod::default()
        })
    }

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    #[test]
    fn a_budget_says_how_many_pods_must_be_healthy() {
        let cases = [
            (json!({"minAvailable": 2}), 5, 9, (5, 2)),
            (json!({"minAvailable": "50%"}), 5, 5, (5, 3)),
            (json!({"maxUnavailable": 1}), 5, 4, (4, 3)),
            (json!({"maxUnavailable": "30%"}), 5, 10, (10, 7)),
            (json!({"maxUnavailable": 9}), 5, 4, (4, 0)),
            (json!({}), 5, 0, (5, 0)),
        ];
        for (spec, pods, scale, (expected, healthy)) in cases {
            let found = wanted(&budget(&spec, &Value::Null), pods, scale);
            assert_eq!(found, Ok(Wanted { expected, healthy }), "{spec}");
        }
        let odd = wanted(
            &budget(&json!({"maxUnavailable": "some"}), &Value::Null),
            1,
            1,
        );
        assert!(odd.is_err());
    }

    #[test]
    fn healthy_pods_beyond_those_wanted_may_be_evicted() {
        let pods = [pod("a", true), pod("b", true), pod("c", false)];
        let wanted = Wanted {
            expected: 3,
            healthy: 1,
        };
        let found = plan(&budget(&json!({}), &Value::Null), &pods, wanted, now()).status;
        assert_eq!((found.current_healthy, found.disruptions_allowed), (2, 1));
        assert_eq!(found.observed_generation, Some(3));
        assert_eq!(found.conditions.unwrap()[0].reason, "SufficientPods");
    }

    #[test]
    fn an_evicted_pod_is_not_healthy_until_its_deletion_is_overdue() {
        let pods = [pod("fresh", true), pod("overdue", true), pod("other", true)];
        let status = json!({
            "currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3, "disruptionsAllowed": 0,
            "disruptedPods": {
                "fresh": "2026-01-01T00:09:00Z", "overdue": "2026-01-01T00:08:00Z",
                "gone": "2026-01-01T00:09:59Z",
            },
        });
        let wanted = Wanted {
            expected: 3,
            healthy: 1,
        };
        let found = plan(&budget(&json!({}), &status), &pods, wanted, now());
        assert_eq!(found.not_deleted, ["overdue"]);
        assert_eq!(found.wake, Some(Duration::from_secs(60)));
        let names: Vec<_> = found.status.disrupted_pods.unwrap().into_keys().collect();
        assert_eq!(names, ["fresh"]);
        assert_eq!(found.status.disruptions_allowed, 1);
    }

    #[test]
    fn a_budget_that_cannot_be_computed_lets_nothing_go() {
        let status = json!({
            "currentHealthy": 3, "desiredHealthy": 1, "expectedPods": 3, "disruptionsAllowed": 2,
        });
        let found = failed(&budget(&json!({}), &status), "why".into(), now());
        assert_eq!(found.disruptions_allowed, 0);
        assert_eq!(found.conditions.unwrap()[0].reason, "SyncFailed");
    }
}
