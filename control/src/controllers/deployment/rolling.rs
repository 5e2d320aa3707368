//! The arithmetic of rollouts: how many pods each ReplicaSet is to have.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::runtime::metadata::Metadata;

/// Annotation: how many pods the Deployment wanted when the set was last sized.
pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation: how many it allowed for, with the surge.
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// A set's wanted pods.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// A set's available pods.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or(0)
}

/// A Deployment's wanted pods.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1)
}

/// Whether the Deployment replaces its pods step by step.
pub(super) fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// How many pods there may be beyond the wanted ones, and how many may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leeway {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

impl Leeway {
    /// Percentages of surge round up, of unavailability down; if both come to nothing, one pod may be
    /// missing, or a rollout could not move.
    pub(super) fn of(deployment: &Deployment) -> Self {
        let replicas = wanted(deployment);
        if !is_rolling(deployment) {
            return Self {
                surge: 0,
                unavailable: 0,
            };
        }
        let strategy = deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let amount = |field: Option<&IntOrString>, round_up| {
            resolve(field.unwrap_or(&quarter), replicas, round_up)
        };
        let surge = amount(rolling.and_then(|rolling| rolling.max_surge.as_ref()), true);
        let unavailable = amount(
            rolling.and_then(|rolling| rolling.max_unavailable.as_ref()),
            false,
        );
        if surge == 0 && unavailable == 0 {
            return Self {
                surge,
                unavailable: 1,
            };
        }
        Self {
            surge,
            unavailable: unavailable.min(replicas),
        }
    }
}

/// A number or a percentage of `total`. Objects from the API were checked; what is neither counts as 0.
fn resolve(amount: &IntOrString, total: i32, round_up: bool) -> i32 {
    match amount {
        IntOrString::Int(number) => (*number).max(0),
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|number| number.parse::<i64>().ok());
            let exact = i64::from(total) * percent.unwrap_or(0).max(0);
            let rounded = if round_up {
                (exact + 99) / 100
            } else {
                exact / 100
            };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// How many pods the new set is to have next; `all` are the sizes of all sets together, with it.
pub(super) fn next_size(deployment: &Deployment, current: i32, all: i32) -> i32 {
    let wanted = wanted(deployment);
    if current >= wanted || !is_rolling(deployment) {
        return wanted;
    }
    let room = wanted
        .saturating_add(Leeway::of(deployment).surge)
        .saturating_sub(all);
    if room <= 0 {
        return current;
    }
    current + room.min(wanted - current)
}

/// A set as the arithmetic sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) replicas: i32,
    pub(super) available: i32,
}

impl Size {
    pub(super) fn of(set: &ReplicaSet) -> Self {
        Self {
            replicas: replicas(set),
            available: available(set),
        }
    }
}

/// The next sizes of old sets, oldest first, when the new set has `new`: first pods go that are not
/// available anyway, then as many others as may be missing.
pub(super) fn shrink_old(deployment: &Deployment, new: Size, old: &[Size]) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|set| set.replicas).collect();
    let total = new.replicas + sizes.iter().sum::<i32>();
    let least = wanted(deployment) - Leeway::of(deployment).unavailable;
    // Pods of the new set that are not available yet must not be counted on.
    let missing = (new.replicas - new.available).max(0);
    let mut budget = total - least - missing;
    if budget <= 0 {
        return sizes;
    }
    for (size, set) in sizes.iter_mut().zip(old) {
        let unhealthy = (*size - set.available).max(0).min(budget);
        *size -= unhealthy;
        budget -= unhealthy;
    }
    let available = new.available + old.iter().map(|set| set.available).sum::<i32>();
    let mut spare = (available - least).max(0);
    for size in &mut sizes {
        let down = (*size).min(spare);
        *size -= down;
        spare -= down;
    }
    sizes
}

/// The sizes of the active sets of a Deployment that is scaled in the middle of a rollout: each grows or
/// shrinks in proportion, the first takes what rounding leaves. `sets` come largest first.
pub(super) fn proportional(deployment: &Deployment, sets: &[&ReplicaSet]) -> Vec<i32> {
    let wanted = wanted(deployment);
    let allowed = if wanted > 0 {
        wanted + Leeway::of(deployment).surge
    } else {
        0
    };
    let sizes: Vec<i32> = sets.iter().map(|set| replicas(set)).collect();
    let to_add = allowed - sizes.iter().sum::<i32>();
    if to_add == 0 {
        return sizes;
    }
    let mut left = to_add;
    let mut next: Vec<i32> = Vec::with_capacity(sizes.len());
    for set in sets {
        let share = share(deployment, set, allowed);
        let share = if to_add > 0 {
            share.min(left).max(0)
        } else {
            share.max(left).min(0)
        };
        left -= share;
        next.push(replicas(set) + share);
    }
    if let Some(first) = next.first_mut() {
        *first = (*first + left).max(0);
    }
    next
}

/// By how much a set changes if it keeps its part of the whole.
fn share(deployment: &Deployment, set: &ReplicaSet, allowed: i32) -> i32 {
    let size = replicas(set);
    if allowed == 0 {
        return -size;
    }
    let before = set
        .metadata
        .annotation(MAX)
        .parse::<i32>()
        .ok()
        .filter(|max| *max > 0);
    let status = deployment
        .status
        .as_ref()
        .and_then(|status| status.replicas);
    let before = i64::from(before.or(status).unwrap_or(0).max(1));
    let scaled = i64::from(size) * i64::from(allowed);
    // Rounded to the nearest.
    let next = (scaled + before / 2) / before;
    i32::try_from(next).unwrap_or(i32::MAX) - size
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn deployment(replicas: i32, surge: Value, unavailable: Value) -> Deployment {
        serde_json::from_value(json!({"spec": {"replicas": replicas, "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
        .unwrap()
    }

    #[test]
    fn surge_rounds_up_and_unavailability_down() {
        for (replicas, surge, unavailable, expected) in [
            (10, json!("25%"), json!("25%"), (3, 2)),
            (2, json!("25%"), json!("25%"), (1, 0)),
            (1, json!("0%"), json!("25%"), (0, 1)),
            (4, json!(0), json!(9), (0, 4)),
            (0, json!("25%"), json!("25%"), (0, 1)),
        ] {
            let leeway = Leeway::of(&deployment(replicas, surge, unavailable));
            assert_eq!((leeway.surge, leeway.unavailable), expected, "{replicas}");
        }
    }

    #[test]
    fn the_new_set_grows_into_the_room_there_is() {
        let d = deployment(10, json!(3), json!(2));
        for (current, all, expected) in [
            (0, 10, 3),
            (3, 13, 3),
            (5, 11, 7),
            (9, 10, 10),
            (12, 12, 10),
        ] {
            assert_eq!(next_size(&d, current, all), expected, "{current} of {all}");
        }
        let recreate: Deployment = serde_json::from_value(
            json!({"spec": {"replicas": 4, "strategy": {"type": "Recreate"}}}),
        )
        .unwrap();
        assert_eq!(next_size(&recreate, 0, 9), 4);
    }

    #[test]
    fn old_sets_shrink_only_while_enough_pods_are_available() {
        let size = |replicas, available| Size {
            replicas,
            available,
        };
        let d = deployment(10, json!(3), json!(2));
        for (new, old, expected) in [
            // The first step takes what may be missing.
            (size(3, 0), vec![size(10, 10)], vec![8]),
            (size(3, 3), vec![size(10, 10)], vec![5]),
            // Nothing may go while the new pods are not available.
            (size(5, 0), vec![size(8, 8)], vec![8]),
            // Broken old pods go first and cost nothing.
            (size(3, 0), vec![size(10, 4)], vec![8]),
            (size(3, 1), vec![size(4, 4), size(6, 0)], vec![4, 3]),
            (size(10, 10), vec![size(2, 2), size(1, 1)], vec![0, 0]),
        ] {
            assert_eq!(shrink_old(&d, new, &old), expected, "{new:?} {old:?}");
        }
    }

    #[test]
    fn scaling_amid_a_rollout_keeps_proportions() {
        let d = deployment(20, json!(3), json!(2));
        let set = |replicas: i32| -> ReplicaSet {
            serde_json::from_value(
                json!({"metadata": {"annotations": {MAX: "13"}}, "spec": {"replicas": replicas}}),
            )
            .unwrap()
        };
        let (a, b) = (set(8), set(5));
        assert_eq!(proportional(&d, &[&a, &b]), [14, 9]);
        let down = deployment(5, json!(3), json!(2));
        assert_eq!(proportional(&down, &[&a, &b]), [5, 3]);
        assert_eq!(
            proportional(&deployment(0, json!(1), json!(0)), &[&a, &b]),
            [0, 0]
        );
    }
}
