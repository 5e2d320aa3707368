//! What a DaemonSet needs: pure decisions. Source: upstream's daemon controller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::history::HASH;
use crate::controllers::runtime::clock;
use crate::controllers::runtime::metadata::Metadata;
use crate::controllers::runtime::pod::Pod;
use crate::node_terms::NodeTerms;
use crate::taints::{NO_EXECUTE, NO_SCHEDULE, untolerated};

/// Pods made in one go at most.
const BURST: usize = 250;

/// What a DaemonSet's pods tolerate without saying so; the last only on the node's own network.
const TOLERATED: [(&str, &str); 7] = [
    ("node.kubernetes.io/not-ready", NO_EXECUTE),
    ("node.kubernetes.io/unreachable", NO_EXECUTE),
    ("node.kubernetes.io/disk-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/memory-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/pid-pressure", NO_SCHEDULE),
    ("node.kubernetes.io/unschedulable", NO_SCHEDULE),
    ("node.kubernetes.io/network-unavailable", NO_SCHEDULE),
];

/// What is to be done, and the status.
#[derive(Debug)]
pub(super) struct Plan {
    /// Nodes that need a pod.
    pub(super) create: Vec<String>,
    /// Pods that go.
    pub(super) delete: Vec<Arc<Pod>>,
    /// Of those, the ones that ended by themselves.
    pub(super) ended: Vec<Arc<Pod>>,
    pub(super) status: DaemonSetStatus,
    /// When to look again without anything having happened.
    pub(super) wake: Option<Duration>,
}

/// Whether a node should have a pod, and whether one that is there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fit {
    should_run: bool,
    should_continue: bool,
}

/// What a template says about nodes.
struct Demands {
    node: String,
    terms: NodeTerms,
    tolerations: Vec<Toleration>,
}

impl Demands {
    fn of(spec: Option<&PodSpec>) -> Self {
        let default = PodSpec::default();
        let spec = spec.unwrap_or(&default);
        Self {
            node: spec.node_name.clone().unwrap_or_default(),
            terms: NodeTerms::of(spec),
            tolerations: tolerations(spec),
        }
    }

    fn fit(&self, node: &Node) -> Fit {
        let (name, labels) = (node.metadata.name(), node.metadata.labels());
        let named = self.node.is_empty() || self.node == name;
        if !named || !self.terms.match_node(name, labels) {
            return Fit {
                should_run: false,
                should_continue: false,
            };
        }
        let taints = node
            .spec
            .as_ref()
            .and_then(|spec| spec.taints.as_deref())
            .unwrap_or_default();
        let tolerates =
            |effects: &[&str]| untolerated(taints, effects, &self.tolerations).is_none();
        Fit {
            should_run: tolerates(&[NO_SCHEDULE, NO_EXECUTE]),
            should_continue: tolerates(&[NO_EXECUTE]),
        }
    }
}

/// The tolerations of the set's pods.
pub(super) fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut tolerations = spec.tolerations.clone().unwrap_or_default();
    let own_network = spec.host_network == Some(true);
    let count = if own_network {
        TOLERATED.len()
    } else {
        TOLERATED.len() - 1
    };
    for (key, effect) in TOLERATED.iter().take(count) {
        let toleration = Toleration {
            key: Some((*key).to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some((*effect).to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    tolerations
}

/// The set, and what it is planned from.
struct View<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    /// The hash of the current template.
    hash: &'a str,
    /// Nodes with how the set fits them and the set's pods there, oldest first.
    nodes: BTreeMap<&'a str, (Fit, Vec<&'a Arc<Pod>>)>,
    /// Pods of nodes that are not there.
    lost: Vec<&'a Arc<Pod>>,
    now: Timestamp,
}

/// What the set needs.
pub(super) fn plan(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: &[Arc<Pod>],
    hash: &str,
    now: Timestamp,
) -> Plan {
    let default = DaemonSetSpec::default();
    let spec = set.spec.as_ref().unwrap_or(&default);
    let demands = Demands::of(spec.template.spec.as_ref());
    let fits = nodes
        .iter()
        .map(|node| (node.metadata.name(), (demands.fit(node), Vec::new())));
    let mut view = View {
        set,
        spec,
        hash,
        nodes: fits.collect(),
        lost: Vec::new(),
        now,
    };
    for pod in pods {
        let node = if pod.node.is_empty() {
            &pod.pinned
        } else {
            &pod.node
        };
        match view.nodes.get_mut(node.as_str()) {
            Some((_, pods)) => pods.push(pod),
            None => view.lost.push(pod),
        }
    }
    for (_, pods) in view.nodes.values_mut() {
        pods.sort_by_key(|pod| (pod.metadata.created(), pod.metadata.name().to_owned()));
    }
    view.plan()
}

impl<'a> View<'a> {
    fn plan(&self) -> Plan {
        let mut plan = Plan {
            create: Vec::new(),
            delete: Vec::new(),
            ended: Vec::new(),
            status: self.status(),
            wake: self.wake(),
        };
        if self.set.metadata.is_terminating() {
            return plan;
        }
        for (node, (fit, pods)) in &self.nodes {
            self.manage(node, *fit, pods, &mut plan);
        }
        // Pods of nodes that are gone are the pod collector's; those that never got one are ours.
        let waiting = self.lost.iter().filter(|pod| pod.node.is_empty());
        plan.delete.extend(
            waiting
                .filter(|pod| pod.is_active())
                .map(|pod| Arc::clone(pod)),
        );
        // Replacing waits until every node has what it should.
        if plan.create.is_empty() && plan.delete.is_empty() {
            self.roll(&mut plan);
        }
        plan.create.truncate(BURST);
        plan
    }

    fn manage(&self, node: &str, fit: Fit, pods: &[&'a Arc<Pod>], plan: &mut Plan) {
        let ended = pods
            .iter()
            .filter(|pod| pod.has_ended() && !pod.metadata.is_terminating());
        let living: Vec<_> = pods.iter().filter(|pod| !pod.has_ended()).collect();
        if !fit.should_continue {
            plan.delete.extend(
                living
                    .into_iter()
                    .filter(|pod| pod.is_active())
                    .map(|pod| Arc::clone(pod)),
            );
            return;
        }
        for pod in ended {
            plan.delete.push(Arc::clone(pod));
            plan.ended.push(Arc::clone(pod));
        }
        let leaving = pods
            .iter()
            .any(|pod| pod.metadata.is_terminating() || pod.has_ended());
        let active: Vec<_> = living.into_iter().filter(|pod| pod.is_active()).collect();
        if active.is_empty() && !leaving && fit.should_run {
            plan.create.push(node.to_owned());
        }
        // One pod of each revision is enough; two are there while one takes over from the other.
        let active = active.into_iter().copied();
        let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = active.partition(|pod| self.is_new(pod));
        let surplus = new.iter().skip(1).chain(old.iter().skip(1));
        plan.delete.extend(surplus.copied().cloned());
        if let (Some(new), Some(old), true) = (new.first(), old.first(), self.surge() > 0)
            && self.is_available(new)
        {
            plan.delete.push(Arc::clone(old));
        } else if let (Some(_), Some(old), true) = (new.first(), old.first(), self.surge() == 0) {
            plan.delete.push(Arc::clone(old));
        }
    }

    /// Replaces pods of older revisions, as many at a time as may be missing, or may be too many.
    fn roll(&self, plan: &mut Plan) {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|of| of.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let wanted = self.nodes.iter().filter(|(_, (fit, _))| fit.should_run);
        let surge = self.surge();
        if surge > 0 {
            let is_surging =
                |pods: &Vec<&Arc<Pod>>| pods.iter().filter(|pod| pod.is_active()).count() > 1;
            let taken = wanted
                .clone()
                .filter(|(_, (_, pods))| is_surging(pods))
                .count();
            let old = wanted.filter(|(_, (_, pods))| {
                !is_surging(pods) && pods.iter().any(|pod| pod.is_active() && !self.is_new(pod))
            });
            let free = surge.saturating_sub(taken);
            plan.create
                .extend(old.take(free).map(|(node, _)| (*node).to_owned()));
            return;
        }
        let max = self.max_unavailable();
        let is_missing = |pods: &Vec<&Arc<Pod>>| !pods.iter().any(|pod| self.is_available(pod));
        let mut missing = wanted
            .clone()
            .filter(|(_, (_, pods))| is_missing(pods))
            .count();
        for (_, (_, pods)) in wanted {
            let old = pods
                .iter()
                .filter(|pod| pod.is_active() && !self.is_new(pod));
            for pod in old {
                if !self.is_available(pod) {
                    // It is missing already.
                    plan.delete.push(Arc::clone(pod));
                } else if missing < max {
                    missing += 1;
                    plan.delete.push(Arc::clone(pod));
                }
            }
        }
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.metadata
            .labels()
            .get(HASH)
            .is_some_and(|hash| hash == self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        pod.is_active() && pod.available(min_ready, self.now).is_ok()
    }

    /// How many pods there may be beyond one for each node.
    fn surge(&self) -> usize {
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|of| of.rolling_update.as_ref());
        self.number(rolling.and_then(|of| of.max_surge.as_ref()))
            .unwrap_or(0)
    }

    fn max_unavailable(&self) -> usize {
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|of| of.rolling_update.as_ref());
        let number = self.number(rolling.and_then(|of| of.max_unavailable.as_ref()));
        number.unwrap_or(1).max(1)
    }

    fn number(&self, of: Option<&IntOrString>) -> Option<usize> {
        let wanted = self
            .nodes
            .values()
            .filter(|(fit, _)| fit.should_run)
            .count();
        Some(match of? {
            IntOrString::Int(number) => usize::try_from(*number).unwrap_or(0),
            IntOrString::String(text) => {
                let percent = text
                    .strip_suffix('%')
                    .and_then(|text| text.parse::<usize>().ok());
                (percent.unwrap_or(0) * wanted).div_ceil(100)
            }
        })
    }

    fn status(&self) -> DaemonSetStatus {
        let known = self.set.status.clone().unwrap_or_default();
        let mut counts = [0_i32; 6];
        for (fit, pods) in self.nodes.values() {
            let living: Vec<_> = pods
                .iter()
                .filter(|pod| !pod.metadata.is_terminating())
                .collect();
            let scheduled = !living.is_empty();
            let holds = [
                fit.should_run,
                fit.should_run && scheduled,
                !fit.should_run && scheduled,
                fit.should_run && living.iter().any(|pod| pod.ready),
                fit.should_run && living.iter().any(|pod| self.is_available(pod)),
                fit.should_run && living.iter().any(|pod| self.is_new(pod)),
            ];
            for (count, holds) in counts.iter_mut().zip(holds) {
                *count += i32::from(holds);
            }
        }
        let [desired, current, misscheduled, ready, available, updated] = counts;
        DaemonSetStatus {
            collision_count: known.collision_count,
            conditions: known.conditions,
            current_number_scheduled: current,
            desired_number_scheduled: desired,
            number_available: Some(available),
            number_misscheduled: misscheduled,
            number_ready: ready,
            number_unavailable: Some(desired - available),
            observed_generation: self.set.metadata.generation,
            updated_number_scheduled: Some(updated),
        }
    }

    fn wake(&self) -> Option<Duration> {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let pods = self.nodes.values().flat_map(|(_, pods)| pods);
        let due = pods.filter_map(|pod| pod.available(min_ready, self.now).err().flatten());
        due.min().map(|due| clock::until(due, self.now))
    }
}

#[cfg(test)]
#[expect(
    clippy::needless_pass_by_value,
    reason = "json! values read better unborrowed"
)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn node(name: &str, spec: Value) -> Arc<Node> {
        let node = json!({"metadata": {"name": name, "labels": {"name": name}}, "spec": spec});
        Arc::new(serde_json::from_value(node).unwrap())
    }

    /// A pod on a node as its letter says: `r`eady, `n`ot ready, `t`erminating, `f`ailed; upper case: old.
    fn pod(node: &str, at: usize, state: char) -> Arc<Pod> {
        let hash = if state.is_uppercase() { "old" } else { "new" };
        let state = state.to_ascii_lowercase();
        let metadata = json!({
            "name": format!("{node}{at}"), "uid": format!("{node}{at}"), "labels": {HASH: hash},
            "deletionTimestamp": (state == 't').then_some("2026-01-01T00:00:00Z"),
        });
        Arc::new(Pod {
            metadata: serde_json::from_value(metadata).unwrap(),
            node: node.to_owned(),
            phase: if state == 'f' { "Failed" } else { "Running" }.into(),
            ready: state == 'r' || state == 't',
            ready_since: Some(Timestamp::UNIX_EPOCH),
            ..Pod::default()
        })
    }

    fn set(spec: Value) -> DaemonSet {
        serde_json::from_value(json!({"metadata": {"name": "d", "generation": 2}, "spec": spec}))
            .unwrap()
    }

    /// `states` has a word for each node `a`, `b`, ...; the answer names what is created and deleted.
    fn actions(spec: Value, states: &str) -> String {
        let names = ["a", "b", "c", "d"];
        let words: Vec<_> = states.split(' ').collect();
        let nodes: Vec<_> = names
            .iter()
            .take(words.len())
            .map(|name| node(name, json!({})))
            .collect();
        let pods = words.iter().zip(names).flat_map(|(word, node)| {
            let states = word.chars().filter(|state| *state != '.').enumerate();
            states.map(move |(at, state)| pod(node, at, state))
        });
        let pods: Vec<_> = pods.collect();
        let plan = plan(&set(spec), &nodes, &pods, "new", Timestamp::UNIX_EPOCH);
        let created = plan.create.iter().map(|node| format!("+{node}"));
        let deleted = plan
            .delete
            .iter()
            .map(|pod| format!("-{}", pod.metadata.name()));
        created.chain(deleted).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_node_has_one_pod() {
        let cases = [
            (". .", "+a +b"),
            ("r .", "+b"),
            ("n t", ""),
            ("r f", "-b0"),
            ("rr r", "-a1"),
            ("r r", ""),
        ];
        for (states, expected) in cases {
            assert_eq!(actions(json!({}), states), expected, "{states}");
        }
    }

    #[test]
    fn old_pods_are_replaced_a_few_at_a_time() {
        let rolling =
            |of: Value| json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": of}});
        let surge = || rolling(json!({"maxSurge": 1, "maxUnavailable": 0}));
        let cases = [
            (rolling(json!({})), "R R R", "-a0"),
            (rolling(json!({})), "r R R", "-b0"),
            (rolling(json!({})), "n R R", ""),
            (rolling(json!({})), "r N R", "-b0"),
            (
                rolling(json!({"maxUnavailable": "67%"})),
                "R R R",
                "-a0 -b0 -c0",
            ),
            (rolling(json!({"maxUnavailable": 2})), "R R R", "-a0 -b0"),
            (surge(), "R R R", "+a"),
            (surge(), "Rn R R", ""),
            (surge(), "Rr R R", "-a0"),
            (json!({"updateStrategy": {"type": "OnDelete"}}), "R R R", ""),
        ];
        for (spec, states, expected) in cases {
            assert_eq!(actions(spec.clone(), states), expected, "{spec} {states}");
        }
    }

    #[test]
    fn nodes_that_are_not_selected_or_not_tolerated_have_none() {
        let taint = |effect: &str| json!({"taints": [{"key": "k", "effect": effect}]});
        let cordoned = json!({"unschedulable": true, "taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]});
        let nodes = [
            node("plain", json!({})),
            node("cordoned", cordoned),
            node("shy", taint("NoSchedule")),
            node("hostile", taint("NoExecute")),
        ];
        let pods: Vec<_> = ["shy", "hostile"].map(|node| pod(node, 0, 'r')).into();
        let all = set(json!({}));
        let plan_of = |set: &DaemonSet, pods: &[Arc<Pod>]| {
            let plan = plan(set, &nodes, pods, "new", Timestamp::UNIX_EPOCH);
            let deleted: Vec<_> = plan
                .delete
                .iter()
                .map(|pod| pod.metadata.name().to_owned())
                .collect();
            (plan.create, deleted, plan.status)
        };
        let (created, deleted, status) = plan_of(&all, &pods);
        assert_eq!(created, ["cordoned", "plain"]);
        assert_eq!(deleted, ["hostile0"]);
        assert_eq!(
            (status.desired_number_scheduled, status.number_misscheduled),
            (2, 2)
        );
        let selecting = set(
            json!({"template": {"spec": {"containers": [], "nodeSelector": {"name": "shy"},
            "tolerations": [{"operator": "Exists"}]}}}),
        );
        assert_eq!(plan_of(&selecting, &[]).0, ["shy"]);
    }

    #[test]
    fn the_status_counts_nodes() {
        let nodes = ["a", "b", "c"].map(|name| node(name, json!({})));
        let pods = [pod("a", 0, 'r'), pod("b", 0, 'N')];
        let status = plan(&set(json!({})), &nodes, &pods, "new", Timestamp::UNIX_EPOCH).status;
        let counts = (
            status.desired_number_scheduled,
            status.current_number_scheduled,
            status.number_ready,
            status.updated_number_scheduled,
            status.number_available,
            status.number_unavailable,
            status.observed_generation,
        );
        assert_eq!(counts, (3, 2, 1, Some(1), Some(1), Some(2), Some(2)));
    }
}
