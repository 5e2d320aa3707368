//! What a pod asks for must be left on the node.

use super::{Filter, NodeFacts, NodeInfo, PodInfo, Wake};

pub(super) struct NodeResourcesFit;

impl Filter for NodeResourcesFit {
    fn refuse(&self, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> Vec<String> {
        let (wanted, there, taken) = (&pod.wants.requests, &facts.allocatable, &node.requested);
        let mut reasons = Vec::new();
        if taken.pods + 1 > there.pods {
            reasons.push("Too many pods".to_owned());
        }
        for (name, wanted, there, taken) in [
            ("cpu", wanted.cpu, there.cpu, taken.cpu),
            ("memory", wanted.memory, there.memory, taken.memory),
            (
                "ephemeral-storage",
                wanted.ephemeral_storage,
                there.ephemeral_storage,
                taken.ephemeral_storage,
            ),
        ] {
            if lacks(wanted, there, taken) {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        for (name, wanted) in &wanted.extended {
            let amount = |of: &super::super::resources::Resources| {
                of.extended.get(name).copied().unwrap_or(0)
            };
            if lacks(*wanted, amount(there), amount(taken)) {
                reasons.push(format!("Insufficient {name}"));
            }
        }
        reasons
    }

    fn helped_by(&self) -> &'static [Wake] {
        &[Wake::Node, Wake::PodGone]
    }
}

/// A pod that asks for nothing fits even where too much was given away.
fn lacks(wanted: i64, there: i64, taken: i64) -> bool {
    wanted > 0 && wanted > there.saturating_sub(taken)
}
