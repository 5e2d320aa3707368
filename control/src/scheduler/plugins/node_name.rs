//! Pods that name their node. Such a pod is bound already and never comes to the scheduler; the filter
//! keeps the table whole for callers that ask about other pods.

use super::{Filter, Refusal};
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::snapshot::Node;

pub(in super::super) struct NodeName;

impl Filter for NodeName {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        let wanted = &cycle.pod.node;
        (!wanted.is_empty() && **wanted != **node.name)
            .then(|| Refusal::for_good("node(s) didn't match the requested node name"))
    }

    fn hears(&self, event: Event<'_>) -> bool {
        matches!(event, Event::Node { old: None, .. })
    }
}
