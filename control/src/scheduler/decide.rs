//! The decision: which node a pod goes to, purely over the snapshot.
//!
//! 1. Nodes are asked one after the other until enough have room: all of a small cluster, a part of a large
//!    one. The next decision begins where this one stopped, so that in time all nodes are asked.
//! 2. Each plugin scores all those that have room; the best weighted sum wins, of equals the first asked.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::cycle::Cycle;
use super::plugins::{PLUGINS, Refusal, VOLUME_BINDING};
use super::pod_info::PodInfo;
use super::profile::Profile;
use super::queue::Filters;
use super::snapshot::{Node, Snapshot};
use crate::controllers::runtime::metadata::Metadata;

/// Clusters up to here are asked whole.
const ALL: usize = 100;

/// No node can have the pod.
#[derive(Clone, Debug, Default)]
pub(super) struct Unschedulable {
    /// Why, in upstream's words.
    pub(super) message: String,
    /// The filters that refused it.
    pub(super) refused_by: Filters,
    /// Nodes that could have it if some pods left.
    pub(super) crowded: Vec<Arc<str>>,
}

/// The best node for the pod, looking first at those after `last`, which moves on.
///
/// # Errors
/// Why there is none.
pub(super) fn decide<'a>(
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    profile: &Profile,
    last: &mut Arc<str>,
) -> Result<&'a Arc<str>, Unschedulable> {
    let count = snapshot.node_count();
    if count == 0 {
        let mut refused_by = Filters::default();
        profile.filters.iter().for_each(|at| refused_by.insert(*at));
        return Err(Unschedulable {
            message: "no nodes available to schedule pods".into(),
            refused_by,
            crowded: Vec::new(),
        });
    }
    let cycle = match Cycle::begin(pod, snapshot, profile) {
        Ok(cycle) => cycle,
        Err(why) => return Err(refused_everywhere(&why, count)),
    };
    let promised = snapshot.nomination_of(pod.metadata.uid());
    if let Some(node) = promised.and_then(|name| snapshot.node(name))
        && refusal(&cycle, node).is_none()
    {
        return Ok(node.name);
    }
    let enough = enough(count, profile.percentage);
    let mut refusals = Refusals::default();
    let mut feasible: Vec<Node<'_>> = Vec::new();
    let begin = Arc::clone(last);
    for node in snapshot.nodes_after(&begin) {
        match refusal(&cycle, node) {
            None => {
                feasible.push(node);
                if feasible.len() >= enough {
                    *last = Arc::clone(node.name);
                    break;
                }
            }
            Some(refused) => refusals.add(node, refused),
        }
    }
    match feasible.as_slice() {
        [] => Err(refusals.into_answer(count)),
        [only] => Ok(only.name),
        [first, ..] => Ok(best(&cycle, *first, &feasible)),
    }
}

/// How many nodes with room are enough to choose from.
fn enough(nodes: usize, percentage: Option<usize>) -> usize {
    if nodes <= ALL {
        return nodes;
    }
    // The larger the cluster the smaller the part that is enough.
    let percentage = percentage.unwrap_or_else(|| 50_usize.saturating_sub(nodes / 125).max(5));
    (nodes * percentage / 100).max(ALL)
}

fn refused_everywhere(why: &str, nodes: usize) -> Unschedulable {
    Unschedulable {
        message: format!("0/{nodes} nodes are available: {why}."),
        refused_by: Filters::of(VOLUME_BINDING),
        crowded: Vec::new(),
    }
}

/// A refusal and the filter it comes from.
pub(super) type Refused = (usize, Refusal);

/// Why the node cannot have the pod, also with the pods that room is made for there.
pub(super) fn refusal(cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refused> {
    let own = cycle.pod;
    let promised = cycle.snapshot.nominated_on(node.name);
    let mut promised = promised.filter(|other| {
        other.wants.priority >= own.wants.priority && other.metadata.uid() != own.metadata.uid()
    });
    let Some(first) = promised.next() else {
        return ask(cycle, node);
    };
    let (mut with, mut load) = (cycle.clone(), node.load.clone());
    for other in std::iter::once(first).chain(promised) {
        load.add(other);
        with.add(other, node);
    }
    // They may never come: without them it must fit too, when it needs others to be there.
    ask(&with, node.loaded(&load)).or_else(|| ask(cycle, node))
}

/// The first filter that refuses is the one that counts.
fn ask(cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refused> {
    let mut filters = cycle.profile.filters.iter();
    filters.find_map(|at| {
        let refused = PLUGINS.get(*at)?.filter?.refuse(cycle, node)?;
        Some((*at, refused))
    })
}

/// The best of the nodes, of which `first` is the first.
fn best<'a>(cycle: &Cycle<'_>, first: Node<'a>, feasible: &[Node<'a>]) -> &'a Arc<str> {
    let mut totals = vec![0_i64; feasible.len()];
    let mut scores = vec![0_i64; feasible.len()];
    for (at, weight) in &cycle.profile.scores {
        let Some(score) = PLUGINS.get(*at).and_then(|plugin| plugin.score) else {
            continue;
        };
        scores.fill(0);
        score.score(cycle, feasible, &mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * weight;
        }
    }
    // The last of equals is the first that was asked.
    let ranked = feasible.iter().zip(&totals).rev();
    let best = ranked.max_by_key(|(_, total)| **total);
    best.map_or(first.name, |(node, _)| node.name)
}

/// Why nodes were refused, by how many each reason holds for.
#[derive(Default)]
pub(super) struct Refusals {
    reasons: BTreeMap<Cow<'static, str>, usize>,
    refused_by: Filters,
    crowded: Vec<Arc<str>>,
}

impl Refusals {
    fn add(&mut self, node: Node<'_>, (filter, refused): Refused) {
        self.refused_by.insert(filter);
        for reason in refused.reasons {
            self.count(reason, 1);
        }
        if refused.is_for_pods {
            self.crowded.push(Arc::clone(node.name));
        }
    }

    pub(super) fn count(&mut self, reason: Cow<'static, str>, nodes: usize) {
        *self.reasons.entry(reason).or_default() += nodes;
    }

    /// All of it in one line, the counts in the order of texts as upstream has them.
    pub(super) fn message(&self, nodes: usize) -> String {
        let counted = self.reasons.iter();
        let mut counted: Vec<_> = counted
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        counted.sort();
        format!("0/{nodes} nodes are available: {}.", counted.join(", "))
    }

    fn into_answer(self, nodes: usize) -> Unschedulable {
        Unschedulable {
            message: self.message(nodes),
            refused_by: self.refused_by,
            crowded: self.crowded,
        }
    }
}
