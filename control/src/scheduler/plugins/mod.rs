//! What decides between nodes: the table [`PLUGINS`], under upstream's names. To add one: a file and a
//! line.

mod image_locality;
pub(super) mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod taint_toleration;
pub(super) mod topology_spread;
pub(super) mod volumes;

use std::borrow::Cow;
use std::collections::HashMap;

use super::cycle::Cycle;
use super::event::Event;
use super::pod_info::PodInfo;
use super::snapshot::{Node, NodeFacts};
use crate::controllers::runtime::metadata::Metadata;

/// The best score.
pub(super) const MAX_SCORE: i64 = 100;

/// Why a node cannot have a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// In upstream's words.
    pub(super) reasons: Vec<Cow<'static, str>>,
    /// Whether it could be otherwise if other pods left the node.
    pub(super) is_for_pods: bool,
}

impl Refusal {
    /// The node itself is wrong.
    fn for_good(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            is_for_pods: false,
        }
    }

    /// Pods are in the way.
    fn for_pods(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            reasons: vec![reason.into()],
            is_for_pods: true,
        }
    }
}

/// A condition that a node must meet.
pub(super) trait Filter: Sync {
    /// Why the node cannot have the pod; `None` if it can.
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal>;

    /// Whether such an event may change an answer about any pod.
    fn hears(&self, event: Event<'_>) -> bool;

    /// Whether an event that is heard may change an answer about this pod.
    fn may_help(&self, _: &PodInfo, _: Event<'_>) -> bool {
        true
    }
}

/// A preference between nodes that all meet the filters.
pub(super) trait Score: Sync {
    /// Scores the nodes, each with 0..=[`MAX_SCORE`], in place of the zeros in `scores`.
    fn score(&self, cycle: &Cycle<'_>, nodes: &[Node<'_>], scores: &mut [i64]);
}

/// A row of the table.
pub(super) struct Plugin {
    /// Upstream's name, by which profiles switch it on and off.
    pub(super) name: &'static str,
    pub(super) filter: Option<&'static dyn Filter>,
    pub(super) score: Option<&'static dyn Score>,
    /// How much the score counts if a profile says nothing.
    pub(super) weight: i64,
}

const fn filter(name: &'static str, filter: &'static dyn Filter) -> Plugin {
    Plugin {
        name,
        filter: Some(filter),
        score: None,
        weight: 0,
    }
}

const fn score(name: &'static str, score: &'static dyn Score, weight: i64) -> Plugin {
    Plugin {
        name,
        filter: None,
        score: Some(score),
        weight,
    }
}

impl Plugin {
    const fn scored(mut self, score: &'static dyn Score, weight: i64) -> Self {
        self.score = Some(score);
        self.weight = weight;
        self
    }
}

/// Everything, filters in the order in which they are asked.
pub(super) static PLUGINS: [Plugin; 13] = [
    filter("NodeUnschedulable", &node_unschedulable::NodeUnschedulable),
    filter("NodeName", &node_name::NodeName),
    filter("TaintToleration", &taint_toleration::TaintToleration)
        .scored(&taint_toleration::TaintToleration, 3),
    filter("NodeAffinity", &node_affinity::NodeAffinity).scored(&node_affinity::NodeAffinity, 2),
    filter("NodePorts", &node_ports::NodePorts),
    filter("NodeResourcesFit", &node_resources::Fit).scored(&node_resources::Fit, 1),
    filter("VolumeRestrictions", &volumes::Restrictions),
    filter(VOLUME_BINDING, &volumes::Binding),
    filter("VolumeZone", &volumes::Zone),
    filter("PodTopologySpread", &topology_spread::TopologySpread)
        .scored(&topology_spread::TopologySpread, 2),
    filter("InterPodAffinity", &inter_pod_affinity::InterPodAffinity)
        .scored(&inter_pod_affinity::InterPodAffinity, 2),
    score(
        "NodeResourcesBalancedAllocation",
        &node_resources::Balanced,
        1,
    ),
    score("ImageLocality", &image_locality::ImageLocality, 1),
];

/// The plugin that has to do with what keeps a pod from every node alike.
pub(super) const VOLUME_BINDING: &str = "VolumeBinding";

/// The position of a plugin in the table.
pub(super) fn position(name: &str) -> Option<usize> {
    PLUGINS.iter().position(|plugin| plugin.name == name)
}

/// Pods counted by the value of a label of their nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Topology(HashMap<String, HashMap<String, i64>>);

impl Topology {
    fn add(&mut self, key: &str, value: &str, count: i64) {
        let values = match self.0.get_mut(key) {
            Some(values) => values,
            None => self.0.entry(key.to_owned()).or_default(),
        };
        match values.get_mut(value) {
            Some(known) => *known += count,
            None => {
                values.insert(value.to_owned(), count);
            }
        }
    }

    /// Adds `count` where `node` is, if it is anywhere in that topology.
    fn add_at(&mut self, key: &str, node: Node<'_>, count: i64) {
        if let Some(value) = node.label(key) {
            self.add(key, value, count);
        }
    }

    fn get(&self, key: &str, value: &str) -> i64 {
        let values = self.0.get(key);
        values
            .and_then(|values| values.get(value))
            .copied()
            .unwrap_or(0)
    }

    /// What is counted where `node` is, in all topologies.
    fn at(&self, node: Node<'_>) -> impl Iterator<Item = i64> {
        self.0
            .iter()
            .filter_map(move |(key, values)| values.get(node.label(key)?).copied())
    }

    /// Whether nothing is counted anywhere.
    fn is_zero(&self) -> bool {
        self.0
            .values()
            .flat_map(HashMap::values)
            .all(|count| *count == 0)
    }
}

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

fn labels(facts: &NodeFacts) -> &std::collections::BTreeMap<String, String> {
    facts.metadata.labels()
}
