//! `nodeSelector` and node affinity, and what a profile adds to them.

use super::{Filter, Refusal, Score, labels, scale_to_best};
use crate::controllers::runtime::metadata::Metadata;
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Node;

pub(in super::super) struct NodeAffinity;

impl Filter for NodeAffinity {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        let added = &cycle.profile.added_affinity;
        if !added.match_node(node.name, node.labels()) {
            return Some(Refusal::for_good(
                "node(s) didn't match scheduler-enforced node affinity",
            ));
        }
        let own = &cycle.pod.wants.terms;
        (!own.match_node(node.name, node.labels()))
            .then(|| Refusal::for_good("node(s) didn't match Pod's node affinity/selector"))
    }

    fn hears(&self, event: Event<'_>) -> bool {
        event.node_with(labels).is_some()
    }

    fn may_help(&self, pod: &PodInfo, event: Event<'_>) -> bool {
        event.node_with(labels).is_some_and(|node| {
            pod.wants
                .terms
                .match_node(node.metadata.name(), labels(node))
        })
    }
}

impl Score for NodeAffinity {
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]) {
        let (own, added) = (&cycle.pod.wants.terms, &cycle.profile.added_affinity);
        if !own.has_preferences() && !added.has_preferences() {
            return;
        }
        for (score, node) in scores.iter_mut().zip(nodes) {
            let of =
                |terms: &crate::node_terms::NodeTerms| terms.preference(node.name, node.labels());
            *score = of(own) + of(added);
        }
        scale_to_best(scores);
    }
}
