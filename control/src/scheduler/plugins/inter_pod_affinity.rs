//! Affinity and anti-affinity between pods, in both directions: what a pod says about others, and what
//! those say about it.

use super::{Filter, MAX_SCORE, Refusal, Score, Topology, labels};
use crate::scheduler::classes::{ByNode, Class};
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::pod_affinity::Term;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::{Namespaces, Node, Snapshot};

pub(in super::super) struct InterPodAffinity;

/// Pods that matter to a pod's required terms, counted by where they are.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Neighbours {
    /// Those that want the pod not to be near.
    repelling: Topology,
    /// Those that all the pod's required terms are about.
    wanted: Topology,
    /// Those that one of the pod's forbidding terms is about.
    unwanted: Topology,
}

impl Neighbours {
    pub(in super::super) fn of(pod: &PodInfo, snapshot: &Snapshot) -> Self {
        let mut found = Self::default();
        let namespaces = &snapshot.namespaces;
        for (class, nodes) in snapshot.classes.with_affinity() {
            for term in &class.affinity.forbidden {
                if term.matches(&pod.class, namespaces) {
                    for (node, count) in snapshot.known(nodes) {
                        found.repelling.add_at(&term.topology_key, node, count);
                    }
                }
            }
        }
        let affinity = &pod.class.affinity;
        if affinity.required.is_empty() && affinity.forbidden.is_empty() {
            return found;
        }
        let covered = |namespace: &str| {
            let mut terms = affinity.required.iter().chain(&affinity.forbidden);
            terms.any(|term| term.covers(namespace, namespaces))
        };
        for namespace in snapshot.classes.namespaces().filter(|name| covered(name)) {
            for (class, nodes) in snapshot.classes.of(namespace) {
                let counted = Counted::of(pod, class, namespaces);
                if counted.is_nothing() {
                    continue;
                }
                for (node, count) in snapshot.known(nodes) {
                    found.count(&counted, node, count);
                }
            }
        }
        found
    }

    /// `by` more pods such as `other` are on the node.
    pub(in super::super) fn change(
        &mut self,
        pod: &PodInfo,
        other: &PodInfo,
        node: Node<'_>,
        by: i64,
        namespaces: &Namespaces,
    ) {
        for term in &other.class.affinity.forbidden {
            if term.matches(&pod.class, namespaces) {
                self.repelling.add_at(&term.topology_key, node, by);
            }
        }
        self.count(&Counted::of(pod, &other.class, namespaces), node, by);
    }

    fn count(&mut self, counted: &Counted<'_>, node: Node<'_>, by: i64) {
        for term in counted.wanted {
            self.wanted.add_at(&term.topology_key, node, by);
        }
        for term in &counted.unwanted {
            self.unwanted.add_at(&term.topology_key, node, by);
        }
    }
}

/// The terms of a pod under which a class counts.
struct Counted<'a> {
    /// All or none: a pod counts as wanted if every term is about it.
    wanted: &'a [Term],
    unwanted: Vec<&'a Term>,
}

impl<'a> Counted<'a> {
    fn of(pod: &'a PodInfo, class: &Class, namespaces: &Namespaces) -> Self {
        let affinity = &pod.class.affinity;
        let matches = |term: &&Term| term.matches(class, namespaces);
        let wanted = affinity.required.iter().all(|term| matches(&term));
        Self {
            wanted: if wanted { &affinity.required } else { &[] },
            unwanted: affinity.forbidden.iter().filter(matches).collect(),
        }
    }

    fn is_nothing(&self) -> bool {
        self.wanted.is_empty() && self.unwanted.is_empty()
    }
}

impl Filter for InterPodAffinity {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        let (affinity, found) = (&cycle.pod.class.affinity, &cycle.neighbours);
        if !has_wanted(cycle, node) {
            return Some(Refusal::for_good("node(s) didn't match pod affinity rules"));
        }
        let near = |counts: &Topology, term: &Term| {
            let value = node.label(&term.topology_key);
            value.is_some_and(|value| counts.get(&term.topology_key, value) > 0)
        };
        if affinity
            .forbidden
            .iter()
            .any(|term| near(&found.unwanted, term))
        {
            return Some(Refusal::for_pods(
                "node(s) didn't match pod anti-affinity rules",
            ));
        }
        found
            .repelling
            .at(node)
            .any(|count| count > 0)
            .then(|| Refusal::for_pods("node(s) didn't satisfy existing pods anti-affinity rules"))
    }

    fn hears(&self, event: Event<'_>) -> bool {
        match event {
            Event::PodPlaced | Event::PodGone(_) | Event::Namespace => true,
            event => event.node_with(labels).is_some(),
        }
    }

    fn may_help(&self, pod: &PodInfo, event: Event<'_>) -> bool {
        match event {
            // A pod that comes can only be one that is missed.
            Event::PodPlaced => !pod.class.affinity.required.is_empty(),
            _ => true,
        }
    }
}

/// Whether every required term is met. The first pod of a group that wants its own kind is let in anywhere
/// in the topology.
fn has_wanted(cycle: &Cycle<'_>, node: Node<'_>) -> bool {
    let (required, found) = (&cycle.pod.class.affinity.required, &cycle.neighbours.wanted);
    let mut missing = false;
    for term in required {
        let Some(value) = node.label(&term.topology_key) else {
            return false;
        };
        missing |= found.get(&term.topology_key, value) <= 0;
    }
    if !missing {
        return true;
    }
    let namespaces = &cycle.snapshot.namespaces;
    let (class, mut terms) = (&cycle.pod.class, required.iter());
    found.is_zero() && terms.all(|term| term.matches(class, namespaces))
}

impl Score for InterPodAffinity {
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]) {
        let liked = preferences(cycle);
        if liked == Topology::default() {
            return;
        }
        for (score, node) in scores.iter_mut().zip(nodes) {
            *score = liked.at(*node).sum();
        }
        let min = scores.iter().copied().min().unwrap_or(0);
        let range = scores.iter().copied().max().unwrap_or(0) - min;
        for score in scores {
            *score = if range > 0 {
                MAX_SCORE * (*score - min) / range
            } else {
                0
            };
        }
    }
}

/// How much the pod is liked where, and likes to be there.
fn preferences(cycle: &Cycle<'_>) -> Topology {
    let (pod, snapshot) = (cycle.pod, cycle.snapshot);
    let namespaces = &snapshot.namespaces;
    let mut liked = Topology::default();
    let mut add = |term: &Term, nodes: &ByNode, weight: i64| {
        for (node, count) in snapshot.known(nodes) {
            liked.add_at(&term.topology_key, node, count.saturating_mul(weight));
        }
    };
    let own = &pod.class.affinity.preferred;
    if !own.is_empty() {
        for namespace in snapshot.classes.namespaces() {
            let mut terms = own.iter();
            if !terms.any(|(_, term)| term.covers(namespace, namespaces)) {
                continue;
            }
            for (class, nodes) in snapshot.classes.of(namespace) {
                for (weight, term) in own {
                    if term.matches(class, namespaces) {
                        add(term, nodes, *weight);
                    }
                }
            }
        }
    }
    if cycle.profile.ignores_preferences_of_others && own.is_empty() {
        return liked;
    }
    for (class, nodes) in snapshot.classes.with_affinity() {
        let required = class.affinity.required.iter();
        let hard = required.map(|term| (cycle.profile.hard_affinity_weight, term));
        let preferred = class
            .affinity
            .preferred
            .iter()
            .map(|(weight, term)| (*weight, term));
        for (weight, term) in hard.chain(preferred) {
            if weight != 0 && term.matches(&pod.class, namespaces) {
                add(term, nodes, weight);
            }
        }
    }
    liked
}
