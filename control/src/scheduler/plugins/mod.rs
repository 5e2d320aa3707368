//! What decides between nodes: the tables [`FILTERS`] and [`SCORES`]. To add one: a file and a line.

mod allocation;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod spreading;
mod taint_toleration;

use super::pod_info::PodInfo;
use super::queue::Wake;
use super::snapshot::{NodeFacts, NodeInfo};

/// The best score.
pub(super) const MAX_SCORE: i64 = 100;

/// A condition that a node must meet.
pub(super) trait Filter: Sync {
    /// Why the node cannot have the pod, in upstream's words; nothing if it can.
    fn refuse(&self, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> Vec<String>;

    /// What may change the answer.
    fn helped_by(&self) -> &'static [Wake];
}

/// A preference between nodes that all meet the filters.
pub(super) trait Score: Sync {
    /// How good the node is, in the plugin's own measure.
    fn score(&self, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> i64;

    /// Brings the scores of all nodes to 0..=[`MAX_SCORE`].
    fn normalize(&self, _: &mut [i64]) {}
}

/// Every filter, cheapest first.
pub(super) const FILTERS: &[&dyn Filter] = &[
    &node_unschedulable::NodeUnschedulable,
    &node_name::NodeName,
    &taint_toleration::TaintToleration,
    &node_affinity::NodeAffinity,
    &node_ports::NodePorts,
    &node_resources_fit::NodeResourcesFit,
];

/// Every score with its weight.
pub(super) const SCORES: &[(&dyn Score, i64)] = &[
    (&taint_toleration::TaintToleration, 3),
    (&node_affinity::NodeAffinity, 2),
    (&spreading::Spreading, 2),
    (&allocation::LeastAllocated, 1),
    (&allocation::BalancedAllocation, 1),
];

/// Scales scores so that the largest becomes the best.
fn scale_to_best(scores: &mut [i64]) {
    let max = scores.iter().copied().max().unwrap_or(0);
    if max > 0 {
        scores
            .iter_mut()
            .for_each(|score| *score = *score * MAX_SCORE / max);
    }
}

/// Scales scores so that the largest becomes the worst.
fn scale_to_worst(scores: &mut [i64]) {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = if max > 0 {
            MAX_SCORE - *score * MAX_SCORE / max
        } else {
            MAX_SCORE
        };
    }
}
