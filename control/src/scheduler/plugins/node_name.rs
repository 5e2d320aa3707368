//! Pods that name their node. Such a pod is bound already and never comes to the scheduler; the filter
//! keeps the table whole for callers that ask about other pods.

use super::{Filter, NodeFacts, NodeInfo, PodInfo, Wake};
use crate::controllers::runtime::metadata::Metadata;

pub(super) struct NodeName;

impl Filter for NodeName {
    fn refuse(&self, pod: &PodInfo, facts: &NodeFacts, _: &NodeInfo) -> Vec<String> {
        if pod.node.is_empty() || pod.node == facts.metadata.name() {
            return Vec::new();
        }
        vec!["node(s) didn't match the requested node name".into()]
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node]
    }
}
