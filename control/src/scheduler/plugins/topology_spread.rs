//! Spread over topologies: as a condition (`DoNotSchedule`) and as a wish (`ScheduleAnyway`).
//!
//! A pod without constraints of its own that something manages is spread with that owner's other pods by
//! the constraints of the profile: by default over zones and over nodes, as a wish.

use std::collections::HashMap;

use super::taint_toleration::is_tolerated;
use super::{Filter, MAX_SCORE, Refusal, Score, labels};
use crate::scheduler::classes::Class;
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::pod_affinity::Spread;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::{Node, Snapshot};

const HOSTNAME: &str = "kubernetes.io/hostname";

pub(in super::super) struct TopologySpread;

/// Pods that matter to a pod's required constraints, by constraint and value.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Domains(Vec<Domain>);

#[derive(Clone, Debug)]
struct Domain {
    constraint: Spread,
    /// Whether the pod itself counts.
    counts_itself: bool,
    /// Every value that an eligible node has, and the pods there.
    values: HashMap<String, i64>,
    /// What the emptiest holds.
    least: i64,
}

impl Domain {
    fn of(constraint: &Spread, pod: &PodInfo, snapshot: &Snapshot, all: &[&Spread]) -> Self {
        let counts = |node: Node<'_>| has_keys(all, node) && is_eligible(constraint, pod, node);
        let mut values = HashMap::new();
        for node in snapshot.nodes().filter(|node| counts(*node)) {
            if let Some(value) = node.label(&constraint.topology_key) {
                values.insert(value, 0);
            }
        }
        for_counted(constraint, pod, snapshot, |node, count| {
            let known = node.label(&constraint.topology_key);
            if let Some(known) = known.and_then(|value| values.get_mut(value))
                && counts(node)
            {
                *known += count;
            }
        });
        let values = values.into_iter();
        let mut domain = Self {
            counts_itself: is_counted(constraint, pod, pod),
            values: values
                .map(|(value, count)| (value.to_owned(), count))
                .collect(),
            least: 0,
            constraint: constraint.clone(),
        };
        domain.find_least();
        domain
    }

    fn find_least(&mut self) {
        self.least = if self.values.len() < self.constraint.min_domains {
            0
        } else {
            self.values.values().copied().min().unwrap_or(0)
        };
    }
}

/// The constraints of a pod: its own, or the profile's if it has none and something manages it.
fn constraints<'a>(pod: &'a PodInfo, profile: &'a Profile) -> &'a [Spread] {
    match pod.owner() {
        Some(_) if pod.wants.spread.is_empty() => &profile.spread.constraints,
        _ => &pod.wants.spread,
    }
}

/// Whether the node is in every topology; others count for none.
fn has_keys(constraints: &[&Spread], node: Node<'_>) -> bool {
    let mut constraints = constraints.iter();
    constraints.all(|of| node.label(&of.topology_key).is_some())
}

impl Domains {
    pub(in super::super) fn of(pod: &PodInfo, snapshot: &Snapshot, profile: &Profile) -> Self {
        let all = constraints(pod, profile).iter();
        let required: Vec<_> = all.filter(|of| of.is_required).collect();
        let domains = required.iter();
        let domains = domains.map(|of| Domain::of(of, pod, snapshot, &required));
        Self(domains.collect())
    }

    /// `by` more pods such as `other` are on the node.
    pub(in super::super) fn change(
        &mut self,
        pod: &PodInfo,
        other: &PodInfo,
        node: Node<'_>,
        by: i64,
    ) {
        let mut domains = self.0.iter();
        if !domains.all(|domain| node.label(&domain.constraint.topology_key).is_some()) {
            return;
        }
        for domain in &mut self.0 {
            let constraint = &domain.constraint;
            if !is_counted(constraint, pod, other) || !is_eligible(constraint, pod, node) {
                continue;
            }
            let value = node.label(&constraint.topology_key);
            if let Some(known) = value.and_then(|value| domain.values.get_mut(value)) {
                *known += by;
                domain.find_least();
            }
        }
    }
}

/// Whether pods on the node count.
fn is_eligible(constraint: &Spread, pod: &PodInfo, node: Node<'_>) -> bool {
    let selected = || pod.wants.terms.match_node(node.name, node.labels());
    (!constraint.honors_affinity || selected())
        && (!constraint.honors_taints || is_tolerated(pod, node.facts))
}

/// Whether `other` is one of the pods to spread with.
fn is_counted(constraint: &Spread, pod: &PodInfo, other: &PodInfo) -> bool {
    if is_default(constraint) {
        return pod.owner() == other.owner();
    }
    is_selected(constraint, pod, &other.class)
}

fn is_selected(constraint: &Spread, pod: &PodInfo, class: &Class) -> bool {
    !class.is_terminating
        && class.namespace == pod.class.namespace
        && constraint.selector.matches(&class.labels)
}

/// Constraints of a profile have no selector: they are about the pods of one owner.
///
/// Differs from Kubernetes: which selects such pods by the selectors of their Services and owner.
fn is_default(constraint: &Spread) -> bool {
    constraint.selector.requirements().is_none()
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Calls `found` with every node that has pods to spread with.
fn for_counted<'a>(
    constraint: &Spread,
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    mut found: impl FnMut(Node<'a>, i64),
) {
    if is_default(constraint) {
        let Some(owner) = pod.owner() else { return };
        for node in snapshot.nodes() {
            let count = node.load.pods_of(owner);
            if count > 0 {
                found(node, number(count));
            }
        }
        return;
    }
    for (class, nodes) in snapshot.classes.of(&pod.class.namespace) {
        if !is_selected(constraint, pod, class) {
            continue;
        }
        for (node, count) in snapshot.known(nodes) {
            found(node, count);
        }
    }
}

impl Filter for TopologySpread {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        for domain in &cycle.domains.0 {
            let Some(value) = node.label(&domain.constraint.topology_key) else {
                return Some(Refusal::for_good(
                    "node(s) didn't match pod topology spread constraints (missing required label)",
                ));
            };
            let there = domain.values.get(value).copied().unwrap_or(0);
            let skew = there + i64::from(domain.counts_itself) - domain.least;
            if skew > domain.constraint.max_skew {
                return Some(Refusal::for_pods(
                    "node(s) didn't match pod topology spread constraints",
                ));
            }
        }
        None
    }

    fn hears(&self, event: Event<'_>) -> bool {
        match event {
            Event::PodPlaced | Event::PodGone(_) | Event::NodeGone => true,
            event => {
                event.node_with(labels).is_some()
                    || event.node_with(|node| node.taints.as_slice()).is_some()
            }
        }
    }
}

impl Score for TopologySpread {
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]) {
        let all = constraints(cycle.pod, cycle.profile).iter();
        let wishes: Vec<_> = all.filter(|of| !of.is_required).collect();
        if wishes.is_empty() {
            return;
        }
        // Nodes without zones shall still be spread over by the constraints that nobody wrote.
        let is_builtin = cycle.pod.wants.spread.is_empty() && cycle.profile.spread.is_builtin;
        let counted = nodes
            .iter()
            .map(|node| is_builtin || has_keys(&wishes, *node));
        let counted: Vec<bool> = counted.collect();
        let mut sums = vec![0.0; nodes.len()];
        for wish in wishes {
            add_wish(wish, cycle, nodes, &counted, &mut sums);
        }
        normalize(&sums, &counted, scores);
    }
}

/// Adds how many pods are where each node is, weighed so that small topologies count as much as large ones.
fn add_wish(
    wish: &Spread,
    cycle: &Cycle<'_>,
    nodes: &[Node<'_>],
    counted: &[bool],
    sums: &mut [f64],
) {
    let key = &*wish.topology_key;
    let of_candidates = nodes.iter().zip(counted).filter(|(_, counted)| **counted);
    let mut values: HashMap<&str, i64> = HashMap::new();
    for (node, _) in of_candidates.clone() {
        if let Some(value) = node.label(key) {
            values.insert(value, 0);
        }
    }
    let per_node = key == HOSTNAME && is_default(wish);
    if !per_node {
        for_counted(wish, cycle.pod, cycle.snapshot, |node, count| {
            let known = node.label(key).and_then(|value| values.get_mut(value));
            if let Some(known) = known
                && is_eligible(wish, cycle.pod, node)
            {
                *known += count;
            }
        });
    }
    let size = if key == HOSTNAME {
        of_candidates.count()
    } else {
        values.len()
    };
    let weight = (size as f64 + 2.0).ln();
    for ((node, counted), sum) in nodes.iter().zip(counted).zip(sums) {
        let Some(value) = node.label(key).filter(|_| *counted) else {
            continue;
        };
        let count = if per_node {
            let owner = cycle.pod.owner();
            owner.map_or(0, |owner| number(node.load.pods_of(owner)))
        } else {
            values.get(value).copied().unwrap_or(0)
        };
        // A constraint that allows more skew tells differences apart less.
        *sum += count as f64 * weight + (wish.max_skew - 1) as f64;
    }
}

/// The fewer pods the better; nodes outside of the topologies are the worst.
#[expect(clippy::cast_possible_truncation, reason = "sums of counts of pods")]
fn normalize(sums: &[f64], counted: &[bool], scores: &mut [i64]) {
    let rounded: Vec<i64> = sums.iter().map(|sum| sum.round() as i64).collect();
    let among = rounded.iter().zip(counted).filter(|(_, counted)| **counted);
    let min = among.clone().map(|(sum, _)| *sum).min().unwrap_or(0);
    let max = among.map(|(sum, _)| *sum).max().unwrap_or(0);
    for ((score, sum), counted) in scores.iter_mut().zip(&rounded).zip(counted) {
        *score = match (counted, max) {
            (false, _) => 0,
            (true, 0) => MAX_SCORE,
            (true, max) => MAX_SCORE * (max + min - sum) / max,
        };
    }
}
