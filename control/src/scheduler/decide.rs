//! The decision: which node a pod goes to, purely over the snapshot.

use std::collections::BTreeMap;

use super::plugins::{FILTERS, SCORES};
use super::pod_info::PodInfo;
use super::queue::Wake;
use super::snapshot::{NodeFacts, NodeInfo, Snapshot};
use crate::controllers::runtime::metadata::Metadata;

/// No node can have the pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unschedulable {
    /// Why, in upstream's words.
    pub(super) message: String,
    /// What may change it.
    pub(super) helped_by: Vec<Wake>,
}

/// The best node for the pod.
///
/// # Errors
/// Why there is none.
pub(super) fn decide<'a>(pod: &PodInfo, snapshot: &'a Snapshot) -> Result<&'a str, Unschedulable> {
    let mut refusals = Refusals::default();
    let mut feasible: Vec<(&NodeFacts, &NodeInfo)> = Vec::new();
    for (facts, node) in snapshot.nodes() {
        if refusals.accept(pod, facts, node) {
            feasible.push((facts, node));
        }
    }
    match feasible.as_slice() {
        [] => Err(refusals.into_answer(snapshot.node_count())),
        [(only, _)] => Ok(only.metadata.name()),
        _ => Ok(best(pod, &feasible)),
    }
}

/// Of equally good nodes the first by name; every placement changes what is equal.
fn best<'a>(pod: &PodInfo, feasible: &[(&'a NodeFacts, &NodeInfo)]) -> &'a str {
    let mut totals = vec![0_i64; feasible.len()];
    let mut scores = Vec::with_capacity(feasible.len());
    for (plugin, weight) in SCORES {
        scores.clear();
        scores.extend(
            feasible
                .iter()
                .map(|(facts, node)| plugin.score(pod, facts, node)),
        );
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * weight;
        }
    }
    let ranked = totals.iter().zip(feasible).rev();
    let best = ranked.max_by_key(|(total, _)| **total);
    best.map(|(_, (facts, _))| facts.metadata.name())
        .unwrap_or_default()
}

/// Why nodes were refused, by how many each reason holds for.
#[derive(Default)]
struct Refusals {
    reasons: BTreeMap<String, usize>,
    helped_by: Vec<Wake>,
}

impl Refusals {
    /// Whether the node passes every filter; the first that refuses it is the one that counts.
    fn accept(&mut self, pod: &PodInfo, facts: &NodeFacts, node: &NodeInfo) -> bool {
        for filter in FILTERS {
            let reasons = filter.refuse(pod, facts, node);
            if reasons.is_empty() {
                continue;
            }
            for reason in reasons {
                *self.reasons.entry(reason).or_default() += 1;
            }
            for event in filter.helped_by() {
                if !self.helped_by.contains(event) {
                    self.helped_by.push(*event);
                }
            }
            return false;
        }
        true
    }

    fn into_answer(self, nodes: usize) -> Unschedulable {
        if nodes == 0 {
            return Unschedulable {
                message: "no nodes available to schedule pods".into(),
                helped_by: vec![Wake::Node],
            };
        }
        let counted = self
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"));
        let mut counted: Vec<_> = counted.collect();
        counted.sort();
        Unschedulable {
            message: format!("0/{nodes} nodes are available: {}.", counted.join(", ")),
            helped_by: self.helped_by,
        }
    }
}
