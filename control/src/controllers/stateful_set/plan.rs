//! What a StatefulSet needs: pure decisions. Source: upstream's `defaultStatefulSetControl`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::history::HASH;
use crate::controllers::runtime::clock;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;

/// Something to be done.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Make the pod of an ordinal, of the newest template or of the one before it.
    Create { ordinal: i32, updated: bool },
    /// Delete a pod; another may take its place.
    Delete(Arc<Pod>),
}

/// What is to be done, and the status.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    pub(super) status: StatefulSetStatus,
    /// When to look again without anything having happened.
    pub(super) wake: Option<Duration>,
}

/// Names of the two revisions that pods may be of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revisions<'a> {
    /// What the set has been rolled out to.
    pub(super) current: &'a str,
    /// What it is to be.
    pub(super) update: &'a str,
    pub(super) collisions: Option<i32>,
}

/// A set and its pods by ordinal.
struct View<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    revisions: Revisions<'a>,
    /// Wanted ordinals, each with its pod if there is one.
    replicas: Vec<(i32, Option<&'a Arc<Pod>>)>,
    /// Pods of other ordinals, highest first.
    condemned: Vec<&'a Arc<Pod>>,
    now: Timestamp,
}

/// The ordinals that pods are wanted for.
pub(super) fn ordinals(set: &StatefulSet) -> Range<i32> {
    let spec = set.spec.as_ref();
    let start = spec.and_then(|spec| spec.ordinals.as_ref()?.start);
    let (start, count) = (start.unwrap_or(0), spec.and_then(|spec| spec.replicas));
    start..start.saturating_add(count.unwrap_or(1))
}

/// What the set needs.
pub(super) fn plan(
    set: &StatefulSet,
    pods: &[Arc<Pod>],
    revisions: Revisions<'_>,
    now: Timestamp,
) -> Plan {
    let default = StatefulSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&default);
    let wanted = ordinals(set);
    let mut by_ordinal: BTreeMap<i32, &Arc<Pod>> = BTreeMap::new();
    for pod in pods {
        if let Some(ordinal) = ordinal(set.metadata.name(), pod.metadata.name()) {
            by_ordinal.insert(ordinal, pod);
        }
    }
    let replicas = wanted
        .clone()
        .map(|at| (at, by_ordinal.get(&at).copied()))
        .collect();
    let condemned = by_ordinal
        .iter()
        .rev()
        .filter(|(at, _)| !wanted.contains(at));
    let view = View {
        set,
        spec,
        revisions,
        replicas,
        condemned: condemned.map(|(_, pod)| *pod).collect(),
        now,
    };
    let actions = if set.metadata.is_terminating() {
        Vec::new()
    } else {
        view.actions()
    };
    Plan {
        actions,
        status: view.status(),
        wake: view.wake(),
    }
}

/// The ordinal in a pod's name, if it is one of the set's.
pub(super) fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let (name, ordinal) = pod.rsplit_once('-')?;
    let canonical = !ordinal.starts_with('+') && (ordinal == "0" || !ordinal.starts_with('0'));
    (name == set && canonical).then(|| ordinal.parse().ok())?
}

impl<'a> View<'a> {
    fn is_parallel(&self) -> bool {
        self.spec.pod_management_policy.as_deref() == Some("Parallel")
    }

    /// Whether the pod has been ready long enough.
    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        is_running(pod) && pod.available(min_ready, self.now).is_ok()
    }

    fn is_healthy(pod: &Pod) -> bool {
        is_running(pod) && pod.ready && !pod.metadata.is_terminating()
    }

    fn actions(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.fill(&mut actions) || self.shrink(&mut actions) {
            return actions;
        }
        self.roll(&mut actions);
        actions
    }

    /// Makes what is missing. Whether that is all for now: in order, each pod waits for the one before.
    fn fill(&self, actions: &mut Vec<Action>) -> bool {
        let mut waits = false;
        for (ordinal, pod) in &self.replicas {
            match pod {
                None => {
                    let updated = !self.is_current_needed(*ordinal);
                    actions.push(Action::Create {
                        ordinal: *ordinal,
                        updated,
                    });
                }
                Some(pod) if pod.has_ended() && !pod.metadata.is_terminating() => {
                    actions.push(Action::Delete(Arc::clone(pod)));
                }
                Some(pod) if pod.metadata.is_terminating() || !self.is_available(pod) => {}
                Some(_) => continue,
            }
            // A pod that ended is made again once it is gone, whatever the order.
            waits |= pod.is_some_and(|pod| pod.has_ended());
            if !self.is_parallel() {
                return true;
            }
        }
        waits
    }

    /// Whether a new pod of that ordinal has to be of the revision before.
    fn is_current_needed(&self, ordinal: i32) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        let kind = strategy
            .and_then(|of| of.type_.as_deref())
            .unwrap_or("RollingUpdate");
        if kind != "RollingUpdate" {
            return false;
        }
        let start = ordinals(self.set).start;
        let rolling = strategy.and_then(|of| of.rolling_update.as_ref());
        let below = match rolling.and_then(|of| of.partition) {
            Some(partition) => partition,
            None => self
                .set
                .status
                .as_ref()
                .and_then(|of| of.current_replicas)
                .unwrap_or(0),
        };
        ordinal < start.saturating_add(below)
    }

    /// Deletes what is too much, from the highest ordinal down. Whether that is all for now.
    fn shrink(&self, actions: &mut Vec<Action>) -> bool {
        let kept = self.replicas.iter().filter_map(|(_, pod)| *pod);
        let all = kept.chain(self.condemned.iter().rev().copied());
        let first_unhealthy = all.clone().find(|pod| !Self::is_healthy(pod));
        for pod in &self.condemned {
            let is_first =
                first_unhealthy.is_some_and(|first| first.metadata.uid() == pod.metadata.uid());
            if pod.metadata.is_terminating() {
                if self.is_parallel() {
                    continue;
                }
                return true;
            }
            if !self.is_parallel() && !is_first && !Self::is_healthy(pod) {
                return true;
            }
            actions.push(Action::Delete(Arc::clone(pod)));
            if !self.is_parallel() {
                return true;
            }
        }
        false
    }

    /// Replaces pods of older revisions, from the highest ordinal down to the partition.
    fn roll(&self, actions: &mut Vec<Action>) {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|of| of.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let start = ordinals(self.set).start;
        let rolling = strategy.and_then(|of| of.rolling_update.as_ref());
        let partition = rolling.and_then(|of| of.partition).unwrap_or(0);
        let max = rolling.and_then(|of| of.max_unavailable.as_ref());
        let max = max_unavailable(max, self.replicas.len());
        let pods = self.replicas.iter().rev();
        let pods = pods.take_while(|(ordinal, _)| *ordinal >= start.saturating_add(partition));
        let mut unavailable = 0;
        for (_, pod) in pods {
            let Some(pod) = pod else {
                unavailable += 1;
                continue;
            };
            let outdated = revision(pod) != self.revisions.update;
            let goes = pod.metadata.is_terminating();
            if outdated && !goes {
                if unavailable >= max {
                    return;
                }
                actions.push(Action::Delete(Arc::clone(pod)));
                unavailable += 1;
            } else if goes || !self.is_available(pod) {
                unavailable += 1;
            }
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let pods = || {
            let kept = self.replicas.iter().filter_map(|(_, pod)| *pod);
            kept.chain(self.condemned.iter().copied())
        };
        let count = |holds: &dyn Fn(&Pod) -> bool| {
            i32::try_from(pods().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
        };
        let of = |name: &'a str| {
            move |pod: &Pod| !pod.metadata.is_terminating() && revision(pod) == name
        };
        let known = self.set.status.clone().unwrap_or_default();
        let Revisions {
            current,
            update,
            collisions,
        } = self.revisions;
        let mut status = StatefulSetStatus {
            available_replicas: Some(count(&|pod| self.is_available(pod))),
            collision_count: collisions,
            conditions: known.conditions,
            current_replicas: Some(count(&of(current))),
            current_revision: Some(current.to_owned()),
            observed_generation: self.set.metadata.generation,
            ready_replicas: Some(count(&|pod| is_running(pod) && pod.ready)),
            replicas: count(&|_| true),
            update_revision: Some(update.to_owned()),
            updated_replicas: Some(count(&of(update))),
        };
        let strategy = self.spec.update_strategy.as_ref();
        let on_delete = strategy.and_then(|of| of.type_.as_deref()) == Some("OnDelete");
        let wanted = self.spec.replicas.unwrap_or(1);
        let all = |count: Option<i32>| count == Some(status.replicas);
        if !on_delete
            && status.replicas == wanted
            && all(status.updated_replicas)
            && all(status.ready_replicas)
        {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        status
    }

    fn wake(&self) -> Option<Duration> {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let pods = self.replicas.iter().filter_map(|(_, pod)| *pod);
        let due = pods.filter_map(|pod| pod.available(min_ready, self.now).err().flatten());
        due.min().map(|due| clock::until(due, self.now))
    }
}

fn is_running(pod: &Pod) -> bool {
    pod.phase == "Running"
}

/// The name of the revision that the pod is of.
fn revision(pod: &Pod) -> &str {
    let revision = pod.metadata.labels().get(HASH);
    revision.map(String::as_str).unwrap_or_default()
}

/// How many pods may be missing as others are replaced: one, unless the set says otherwise.
fn max_unavailable(wanted: Option<&IntOrString>, replicas: usize) -> usize {
    let number = match wanted {
        None => 1,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(1),
        Some(IntOrString::String(text)) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|text| text.parse::<usize>().ok());
            (percent.unwrap_or(0) * replicas).div_ceil(100)
        }
    };
    number.max(1)
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A pod as its letter says: `r`eady, `n`ot ready, `t`erminating, `f`ailed; upper case: of the old revision.
    fn pod(ordinal: usize, state: char) -> Arc<Pod> {
        let revision = if state.is_uppercase() { "old" } else { "new" };
        let state = state.to_ascii_lowercase();
        let metadata = json!({
            "name": format!("web-{ordinal}"), "uid": format!("u{ordinal}"), "labels": {HASH: revision},
            "deletionTimestamp": (state == 't').then_some("2026-01-01T00:00:00Z"),
        });
        Arc::new(Pod {
            metadata: serde_json::from_value(metadata).unwrap(),
            phase: if state == 'f' { "Failed" } else { "Running" }.into(),
            ready: state == 'r' || state == 't',
            ready_since: Some(Timestamp::UNIX_EPOCH),
            ..Pod::default()
        })
    }

    /// `+1` creates, `-1` replaces, `-1` retires; an apostrophe marks the old revision.
    fn actions(spec: Value, states: &str) -> String {
        let set = json!({"metadata": {"name": "web"}, "spec": spec, "status": {"replicas": 0, "currentReplicas": 0}});
        let set: StatefulSet = serde_json::from_value(set).unwrap();
        let pods = states
            .chars()
            .enumerate()
            .filter(|(_, state)| *state != '.');
        let pods: Vec<_> = pods.map(|(at, state)| pod(at, state)).collect();
        let revisions = Revisions {
            current: "old",
            update: "new",
            collisions: None,
        };
        let plan = plan(&set, &pods, revisions, Timestamp::UNIX_EPOCH);
        let show = |action: &Action| match action {
            Action::Create {
                ordinal,
                updated: true,
            } => format!("+{ordinal}"),
            Action::Create {
                ordinal,
                updated: false,
            } => format!("+{ordinal}'"),
            Action::Delete(pod) => pod.metadata.name().replace("web", ""),
        };
        plan.actions.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_come_and_go_in_order_or_all_at_once() {
        let ordered = |replicas: i32| json!({"replicas": replicas});
        let parallel =
            |replicas: i32| json!({"replicas": replicas, "podManagementPolicy": "Parallel"});
        let cases = [
            (ordered(3), "", "+0"),
            (ordered(3), "r", "+1"),
            (ordered(3), "n", ""),
            (ordered(3), "rnr", ""),
            (ordered(3), "r.r", "+1"),
            (ordered(3), "rfr", "-1"),
            (ordered(3), "rtr", ""),
            (ordered(1), "rrr", "-2"),
            (ordered(1), "rrt", ""),
            (ordered(1), "rnr", "-2"),
            (ordered(1), "rrn", "-2"),
            (ordered(1), "rnn", ""),
            (ordered(0), "r", "-0"),
            (parallel(3), "", "+0 +1 +2"),
            (parallel(3), "n.n", "+1"),
            (parallel(1), "nrn", "-2 -1"),
            (parallel(2), "fr", "-0"),
        ];
        for (spec, states, expected) in cases {
            assert_eq!(actions(spec.clone(), states), expected, "{spec} {states}");
        }
    }

    #[test]
    fn pods_are_replaced_from_the_highest_ordinal_down_to_the_partition() {
        let rolling = |of: Value| json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": of}});
        let cases = [
            (rolling(json!({})), "RRR", "-2"),
            (rolling(json!({})), "RRn", ""),
            (rolling(json!({})), "RRt", ""),
            (rolling(json!({})), "RRr", "-1"),
            (rolling(json!({})), "rrr", ""),
            (rolling(json!({"partition": 2})), "RRr", ""),
            (rolling(json!({"partition": 2})), "RR.", "+2"),
            (rolling(json!({"partition": 2})), "R.r", "+1'"),
            (rolling(json!({"maxUnavailable": 2})), "RRR", "-2 -1"),
            (
                json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}),
                "RRR",
                "",
            ),
            (
                json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}),
                "RR.",
                "+2",
            ),
        ];
        for (spec, states, expected) in cases {
            assert_eq!(actions(spec.clone(), states), expected, "{spec} {states}");
        }
    }

    #[test]
    fn a_set_that_starts_elsewhere_counts_from_there() {
        let spec = json!({"replicas": 2, "ordinals": {"start": 1}});
        assert_eq!(actions(spec.clone(), "r"), "+1");
        assert_eq!(actions(spec.clone(), ".rr"), "");
        assert_eq!(actions(spec, "rrr"), "-0");
    }

    #[test]
    fn the_status_counts_by_revision_until_all_are_updated() {
        let set: StatefulSet =
            serde_json::from_value(json!({"metadata": {"name": "web"}, "spec": {"replicas": 3}}))
                .unwrap();
        let revisions = Revisions {
            current: "old",
            update: "new",
            collisions: Some(1),
        };
        let status = |states: &str| {
            let pods: Vec<_> = states
                .chars()
                .enumerate()
                .map(|(at, state)| pod(at, state))
                .collect();
            plan(&set, &pods, revisions, Timestamp::UNIX_EPOCH).status
        };
        let half = status("RRr");
        assert_eq!(
            (
                half.replicas,
                half.ready_replicas,
                half.current_replicas,
                half.updated_replicas
            ),
            (3, Some(3), Some(2), Some(1))
        );
        assert_eq!(half.current_revision.as_deref(), Some("old"));
        let done = status("rrr");
        assert_eq!(
            (done.current_revision.as_deref(), done.current_replicas),
            (Some("new"), Some(3))
        );
        assert_eq!(done.collision_count, Some(1));
    }

    #[test]
    fn only_the_sets_own_names_have_ordinals() {
        let cases = [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web-01", None),
            ("web-x", None),
            ("webs-0", None),
            ("web", None),
        ];
        for (name, expected) in cases {
            assert_eq!(ordinal("web", name), expected, "{name}");
        }
    }
}
