//! Ports of the node that pods ask for.

use super::{Filter, NodeFacts, NodeInfo, PodInfo, Wake};

pub(super) struct NodePorts;

impl Filter for NodePorts {
    fn refuse(&self, pod: &PodInfo, _: &NodeFacts, node: &NodeInfo) -> Vec<String> {
        let mut wanted = pod.wants.ports.iter();
        if wanted.any(|port| node.ports.iter().any(|taken| taken.clashes(port))) {
            return vec!["node(s) didn't have free ports for the requested pod ports".into()];
        }
        Vec::new()
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node, Wake::PodGone]
    }
}
