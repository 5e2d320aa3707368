//! Taints: those that forbid, and those that are better avoided.

use super::{Filter, Refusal, Score, scale_to_worst};
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::{Node, NodeFacts};
use crate::taints::{NO_EXECUTE, NO_SCHEDULE, PREFER_NO_SCHEDULE, tolerates, untolerated};

pub(in super::super) struct TaintToleration;

/// Whether no taint of the node keeps the pod away.
pub(in super::super) fn is_tolerated(pod: &PodInfo, node: &NodeFacts) -> bool {
    untolerated(
        &node.taints,
        &[NO_SCHEDULE, NO_EXECUTE],
        &pod.wants.tolerations,
    )
    .is_none()
}

impl Filter for TaintToleration {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        (!is_tolerated(cycle.pod, node.facts))
            .then(|| Refusal::for_good("node(s) had untolerated taint(s)"))
    }

    fn hears(&self, event: Event<'_>) -> bool {
        event.node_with(|node| node.taints.as_slice()).is_some()
    }

    fn may_help(&self, pod: &PodInfo, event: Event<'_>) -> bool {
        event
            .node_with(|node| node.taints.as_slice())
            .is_some_and(|node| is_tolerated(pod, node))
    }
}

impl Score for TaintToleration {
    /// By how many taints would rather not have the pod.
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]) {
        let tolerations = &cycle.pod.wants.tolerations;
        for (score, node) in scores.iter_mut().zip(nodes) {
            let taints = node.facts.taints.iter();
            let shy = taints.filter(|taint| taint.effect == PREFER_NO_SCHEDULE);
            let left = shy.filter(|taint| !tolerations.iter().any(|t| tolerates(t, taint)));
            *score = i64::try_from(left.count()).unwrap_or(i64::MAX);
        }
        scale_to_worst(scores);
    }
}
