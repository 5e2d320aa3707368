//! Making room: which pods of lower priority would have to leave a node for a pod to fit there.
//!
//! 1. Every crowded node (or the first hundred or so that have an answer) is imagined without all pods of
//!    lower priority. If the pod fits then, they are put back one by one, the most important first and
//!    those that a budget protects before all others, as long as the pod still fits. Who is left has to go.
//! 2. The best answer breaks no budgets, then takes the least important pods, then the fewest, then the
//!    youngest.
//!
//! Pure: nothing is evicted here.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use windlass_api::label_selector::LabelSelector;

use super::cycle::Cycle;
use super::decide::{Refusals, Unschedulable, refusal};
use super::plugins::Refusal;
use super::pod_info::PodInfo;
use super::profile::Profile;
use super::snapshot::{Node, Snapshot};
use crate::controllers::runtime::metadata::Metadata;

const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";

/// Where room can be made, and how.
#[derive(Clone, Debug)]
pub(super) struct Preemption {
    pub(super) node: Arc<str>,
    /// Most important first; never empty.
    pub(super) victims: Vec<Arc<PodInfo>>,
}

/// No room can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoRoom {
    /// Why, in upstream's words.
    pub(super) message: String,
    /// Whether a node that was promised is none any more.
    pub(super) ends_promise: bool,
}

impl NoRoom {
    fn yet(message: &str) -> Self {
        Self {
            message: message.to_owned(),
            ends_promise: false,
        }
    }

    fn anywhere(refusals: &Refusals, nodes: usize) -> Self {
        Self {
            message: refusals.message(nodes),
            ends_promise: true,
        }
    }
}

struct Candidate {
    preemption: Preemption,
    /// Victims whose budgets allow no disruption.
    violations: usize,
}

/// The best way to make room for a pod that fits nowhere.
///
/// # Errors
/// There is none.
pub(super) fn preempt(
    pod: &PodInfo,
    snapshot: &Snapshot,
    profile: &Profile,
    refused: &Unschedulable,
) -> Result<Preemption, NoRoom> {
    let count = snapshot.node_count();
    if pod.wants.never_preempts {
        return Err(NoRoom::yet("not eligible due to preemptionPolicy=Never."));
    }
    if is_being_served(pod, snapshot, refused) {
        let why = "not eligible due to a terminating pod on the nominated node.";
        return Err(NoRoom::yet(why));
    }
    let mut refusals = Refusals::default();
    let crowded = refused.crowded.len();
    if count > crowded {
        refusals.count(NOT_HELPFUL.into(), count - crowded);
    }
    if !snapshot.has_pods_below(pod.wants.priority) {
        if crowded > 0 {
            refusals.count(NO_VICTIMS.into(), crowded);
        }
        return Err(NoRoom::anywhere(&refusals, count));
    }
    let Ok(cycle) = Cycle::begin(pod, snapshot, profile) else {
        // What keeps a pod from every node alike leaves none crowded.
        return Err(NoRoom::anywhere(&refusals, count));
    };
    let args = profile.preemption;
    let enough = (crowded * args.percentage / 100).max(args.least).max(1);
    let mut candidates = Vec::new();
    for name in &refused.crowded {
        let Some(node) = snapshot.node(name) else {
            continue;
        };
        match victims(&cycle, node) {
            Ok(candidate) => candidates.push(candidate),
            Err(reasons) => reasons
                .into_iter()
                .for_each(|reason| refusals.count(reason, 1)),
        }
        // Among those found one that breaks no budget is wanted.
        if candidates.len() >= enough && candidates.iter().any(|of| of.violations == 0) {
            break;
        }
    }
    let best = candidates.into_iter().min_by_key(Candidate::rank);
    best.map(|best| best.preemption)
        .ok_or_else(|| NoRoom::anywhere(&refusals, count))
}

/// Whether room is already being made: on the node that it is promised, pods that matter less are leaving.
fn is_being_served(pod: &PodInfo, snapshot: &Snapshot, refused: &Unschedulable) -> bool {
    let promised = snapshot.nomination_of(pod.metadata.uid());
    let Some(node) = promised.and_then(|name| snapshot.node(name)) else {
        return false;
    };
    // A node that it can never have again is given up.
    refused.crowded.contains(node.name)
        && node.load.pods.values().any(|other| {
            other.is_disrupted
                && other.metadata.is_terminating()
                && other.wants.priority < pod.wants.priority
        })
}

/// Who has to leave the node.
fn victims(cycle: &Cycle<'_>, node: Node<'_>) -> Result<Candidate, Vec<Cow<'static, str>>> {
    let below = node.load.pods.values();
    let below = below.filter(|other| other.wants.priority < cycle.pod.wants.priority);
    let mut below: Vec<_> = below.cloned().collect();
    if below.is_empty() {
        return Err(vec![NO_VICTIMS.into()]);
    }
    let (mut cycle, mut load) = (cycle.clone(), node.load.clone());
    for other in &below {
        load.remove(other);
        cycle.remove(other, node);
    }
    if let Some((_, Refusal { reasons, .. })) = refusal(&cycle, node.loaded(&load)) {
        return Err(reasons);
    }
    below.sort_by_key(importance);
    let mut budgets = Budgets::of(cycle.snapshot);
    let (protected, free): (Vec<_>, Vec<_>) =
        below.into_iter().partition(|other| budgets.protects(other));
    let (mut victims, mut violations) = (Vec::new(), 0);
    let protected = protected.into_iter().map(|other| (other, true));
    for (other, is_protected) in protected.chain(free.into_iter().map(|other| (other, false))) {
        load.add(&other);
        cycle.add(&other, node);
        if refusal(&cycle, node.loaded(&load)).is_none() {
            continue;
        }
        load.remove(&other);
        cycle.remove(&other, node);
        violations += usize::from(is_protected);
        victims.push(other);
    }
    victims.sort_by_key(importance);
    if victims.is_empty() {
        return Err(vec![NO_VICTIMS.into()]);
    }
    Ok(Candidate {
        preemption: Preemption {
            node: Arc::clone(node.name),
            victims,
        },
        violations,
    })
}

/// The most important first: by priority, then who has been there longest.
fn importance(pod: &Arc<PodInfo>) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.wants.priority), pod.since)
}

impl Candidate {
    /// The less, the better.
    fn rank(&self) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
        let victims = &self.preemption.victims;
        let highest = victims.first().map_or(i32::MIN, |pod| pod.wants.priority);
        // Raised, so that many pods below zero are no better than few.
        let raised = |pod: &Arc<PodInfo>| i64::from(pod.wants.priority) - i64::from(i32::MIN) + 1;
        let sum = victims.iter().map(raised).fold(0, i64::saturating_add);
        let most_important = victims.iter().filter(|pod| pod.wants.priority == highest);
        let since = most_important.map(|pod| pod.since).min();
        let since = since.unwrap_or(Timestamp::MAX);
        (self.violations, highest, sum, victims.len(), Reverse(since))
    }
}

/// What budgets still allow, as victims are counted against them.
struct Budgets<'a> {
    left: Vec<(&'a PodDisruptionBudget, LabelSelector, i32)>,
}

impl<'a> Budgets<'a> {
    fn of(snapshot: &'a Snapshot) -> Self {
        let budgets = snapshot.budgets.values().filter_map(|budget| {
            let spec = budget.spec.as_ref()?;
            let selector = LabelSelector::from_object(spec.selector.as_ref()).ok()?;
            let status = budget.status.as_ref();
            let allowed = status.map_or(0, |status| status.disruptions_allowed);
            Some((&**budget, selector, allowed))
        });
        Self {
            left: budgets.collect(),
        }
    }

    /// Whether evicting the pod as well would break a budget. It counts from then on.
    fn protects(&mut self, pod: &PodInfo) -> bool {
        let mut broken = false;
        for (budget, selector, left) in &mut self.left {
            // One without labels is under no budget, whatever the selector says.
            if budget.metadata.namespace() != pod.metadata.namespace()
                || pod.class.labels.is_empty()
                || !selector.matches(&pod.class.labels)
            {
                continue;
            }
            let status = budget.status.as_ref();
            let known = status.and_then(|status| status.disrupted_pods.as_ref());
            if known.is_some_and(|known| known.contains_key(pod.metadata.name())) {
                continue;
            }
            *left -= 1;
            broken |= *left < 0;
        }
        broken
    }
}
