//! Pods of one owner are better on different nodes.

use super::{NodeFacts, NodeInfo, PodInfo, Score, scale_to_worst};

pub(super) struct Spreading;

impl Score for Spreading {
    fn score(&self, pod: &PodInfo, _: &NodeFacts, node: &NodeInfo) -> i64 {
        pod.owner().map_or(0, |owner| node.pods_of(owner).into())
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_worst(scores);
    }
}
