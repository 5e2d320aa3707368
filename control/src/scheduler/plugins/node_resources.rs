//! Resources: what a pod asks for must be left, and how full nodes are decides between them.

use std::borrow::Cow;

use super::{Filter, MAX_SCORE, Refusal, Score};
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::{Strategy, Weighted};
use crate::scheduler::resources::Resources;
use crate::scheduler::snapshot::{Load, Node, NodeFacts};

/// `NodeResourcesFit`: the condition, and how full a node should be.
pub(in super::super) struct Fit;
/// `NodeResourcesBalancedAllocation`: resources should be used evenly.
pub(in super::super) struct Balanced;

impl Filter for Fit {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        let (wanted, there) = (&cycle.pod.wants.requests, &node.facts.allocatable);
        let reasons = missing(wanted, there, &node.load.requested);
        if reasons.is_empty() {
            return None;
        }
        Some(Refusal {
            reasons,
            is_for_pods: fits_alone(wanted, there),
        })
    }

    fn hears(&self, event: Event<'_>) -> bool {
        matches!(event, Event::PodGone(_)) || event.node_with(|node| &node.allocatable).is_some()
    }

    fn may_help(&self, pod: &PodInfo, event: Event<'_>) -> bool {
        match event {
            Event::Node { new, .. } => fits_alone(&pod.wants.requests, &new.allocatable),
            _ => true,
        }
    }
}

fn fits_alone(wanted: &Resources, there: &Resources) -> bool {
    missing(wanted, there, &Resources::default()).is_empty()
}

fn missing(wanted: &Resources, there: &Resources, taken: &Resources) -> Vec<Cow<'static, str>> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    if taken.pods + 1 > there.pods {
        reasons.push("Too many pods".into());
    }
    // A pod that asks for nothing fits even where too much was given away.
    let lacks =
        |wanted: i64, there: i64, taken: i64| wanted > 0 && wanted > there.saturating_sub(taken);
    if lacks(wanted.cpu, there.cpu, taken.cpu) {
        reasons.push("Insufficient cpu".into());
    }
    if lacks(wanted.memory, there.memory, taken.memory) {
        reasons.push("Insufficient memory".into());
    }
    if lacks(
        wanted.ephemeral_storage,
        there.ephemeral_storage,
        taken.ephemeral_storage,
    ) {
        reasons.push("Insufficient ephemeral-storage".into());
    }
    for (name, wanted) in &wanted.extended {
        if lacks(*wanted, there.amount(name), taken.amount(name)) {
            reasons.push(format!("Insufficient {name}").into());
        }
    }
    reasons
}

/// Thousandths of a resource in use with the pod on the node; `None` if the node has nothing of it.
///
/// Pods that ask for no cpu or memory count with something all the same.
fn share(name: &str, pod: &PodInfo, facts: &NodeFacts, load: &Load) -> Option<i64> {
    let (cpu, memory) = pod.wants.requests.or_assumed();
    let used = match name {
        "cpu" => load.assumed.0.saturating_add(cpu),
        "memory" => load.assumed.1.saturating_add(memory),
        _ => {
            let wanted = pod.wants.requests.amount(name);
            load.requested.amount(name).saturating_add(wanted)
        }
    };
    let there = facts.allocatable.amount(name);
    if there <= 0 {
        return None;
    }
    let share = i128::from(used.max(0)) * 1000 / i128::from(there);
    Some(i64::try_from(share).unwrap_or(i64::MAX))
}

impl Score for Fit {
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]) {
        let fit = &cycle.profile.fit;
        for (score, node) in scores.iter_mut().zip(nodes) {
            let (mut sum, mut weights) = (0, 0);
            for Weighted { name, weight } in &fit.resources {
                // A resource that the pod does not ask for says nothing about where it should go.
                if !matches!(name.as_str(), "cpu" | "memory")
                    && cycle.pod.wants.requests.amount(name) == 0
                {
                    continue;
                }
                let Some(share) = share(name, cycle.pod, node.facts, node.load) else {
                    continue;
                };
                sum += weight * rate(&fit.strategy, share);
                weights += weight;
            }
            *score = if weights > 0 { sum / weights } else { 0 };
        }
    }
}

/// How good it is that so many thousandths are in use.
fn rate(strategy: &Strategy, share: i64) -> i64 {
    match strategy {
        Strategy::LeastAllocated if share > 1000 => 0,
        Strategy::LeastAllocated => (1000 - share) * MAX_SCORE / 1000,
        Strategy::MostAllocated => share.min(1000) * MAX_SCORE / 1000,
        Strategy::RequestedToCapacityRatio(shape) => along(shape, share.min(1000) as f64 / 10.0),
    }
}

/// The value of the line through the points at `x`; before the first and after the last it is level.
#[expect(clippy::cast_possible_truncation, reason = "scores are small")]
fn along(points: &[(i64, i64)], x: f64) -> i64 {
    let mut last: Option<(i64, i64)> = None;
    for &(at, value) in points {
        if x <= at as f64 {
            let Some((before, from)) = last else {
                return value;
            };
            let part = (x - before as f64) / (at - before) as f64;
            return (from as f64 + part * (value - from) as f64) as i64;
        }
        last = Some((at, value));
    }
    last.map_or(0, |(_, value)| value)
}

impl Score for Balanced {
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]) {
        for (score, node) in scores.iter_mut().zip(nodes) {
            let resources = cycle.profile.balanced.iter();
            let shares =
                resources.filter_map(|of| share(&of.name, cycle.pod, node.facts, node.load));
            let shares: Vec<i64> = shares.map(|share| share.min(1000)).collect();
            *score = (1000 - deviation(&shares)) * MAX_SCORE / 1000;
        }
    }
}

/// The standard deviation; that of two numbers is half their distance.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the shares are at most 1000"
)]
fn deviation(shares: &[i64]) -> i64 {
    match shares {
        [] | [_] => 0,
        [one, other] => (one - other).abs() / 2,
        _ => {
            let count = shares.len() as f64;
            let mean = shares.iter().sum::<i64>() as f64 / count;
            let squares = shares.iter().map(|share| (*share as f64 - mean).powi(2));
            (squares.sum::<f64>() / count).sqrt() as i64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_through_points_is_level_outside_of_them() {
        let shape = [(20, 0), (80, 100)];
        for (x, expected) in [(0.0, 0), (20.0, 0), (50.0, 50), (80.0, 100), (100.0, 100)] {
            assert_eq!(along(&shape, x), expected, "{x}");
        }
        assert_eq!(along(&[], 5.0), 0);
    }

    #[test]
    fn evenness_is_the_deviation() {
        assert_eq!(deviation(&[200, 400]), 100);
        assert_eq!(deviation(&[300, 300, 300]), 0);
        assert_eq!(deviation(&[0, 0, 900]), 424);
        assert_eq!(deviation(&[700]), 0);
    }
}
