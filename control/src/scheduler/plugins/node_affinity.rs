//! `nodeSelector` and node affinity.

use super::{Filter, NodeFacts, NodeInfo, PodInfo, Score, Wake, scale_to_best};
use crate::controllers::runtime::metadata::Metadata;

pub(super) struct NodeAffinity;

impl Filter for NodeAffinity {
    fn refuse(&self, pod: &PodInfo, facts: &NodeFacts, _: &NodeInfo) -> Vec<String> {
        let (name, labels) = (facts.metadata.name(), facts.metadata.labels());
        if pod.wants.terms.match_node(name, labels) {
            return Vec::new();
        }
        vec!["node(s) didn't match Pod's node affinity/selector".into()]
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node]
    }
}

impl Score for NodeAffinity {
    fn score(&self, pod: &PodInfo, facts: &NodeFacts, _: &NodeInfo) -> i64 {
        pod.wants
            .terms
            .preference(facts.metadata.name(), facts.metadata.labels())
    }

    fn normalize(&self, scores: &mut [i64]) {
        scale_to_best(scores);
    }
}
