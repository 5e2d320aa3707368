//! How full a node would be: rather emptier, rather evenly so in cpu and memory.

use super::{MAX_SCORE, NodeFacts, NodeInfo, PodInfo, Score};

/// The emptier the better.
pub(super) struct LeastAllocated;
/// The closer the shares of cpu and memory the better.
pub(super) struct BalancedAllocation;

/// Shares of cpu and memory in use with the pod on the node, in thousandths, at most all of them.
fn shares(pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> (i64, i64) {
    let (cpu, memory) = pod.wants.requests.or_assumed();
    let share = |used: i64, there: i64| {
        if there <= 0 {
            return 1000;
        }
        let share = i128::from(used.max(0)) * 1000 / i128::from(there);
        i64::try_from(share).unwrap_or(i64::MAX).min(1000)
    };
    (
        share(node.assumed.0.saturating_add(cpu), facts.allocatable.cpu),
        share(
            node.assumed.1.saturating_add(memory),
            facts.allocatable.memory,
        ),
    )
}

impl Score for LeastAllocated {
    fn score(&self, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> i64 {
        let (cpu, memory) = shares(pod, facts, node);
        (2000 - cpu - memory) * MAX_SCORE / 2000
    }
}

impl Score for BalancedAllocation {
    fn score(&self, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> i64 {
        let (cpu, memory) = shares(pod, facts, node);
        // The standard deviation of two numbers is half their distance.
        (1000 - (cpu - memory).abs() / 2) * MAX_SCORE / 1000
    }
}
