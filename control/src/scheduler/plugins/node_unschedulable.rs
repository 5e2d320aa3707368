//! Nodes that are cordoned.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Filter, Refusal};
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::snapshot::Node;
use crate::taints::{NO_SCHEDULE, tolerates};

const TAINT: &str = "node.kubernetes.io/unschedulable";

pub(in super::super) struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        (node.facts.unschedulable && !is_tolerated(&cycle.pod.wants.tolerations))
            .then(|| Refusal::for_good("node(s) were unschedulable"))
    }

    fn hears(&self, event: Event<'_>) -> bool {
        event
            .node_with(|node| node.unschedulable)
            .is_some_and(|node| !node.unschedulable)
    }
}

fn is_tolerated(tolerations: &[Toleration]) -> bool {
    let taint = Taint {
        key: TAINT.into(),
        effect: NO_SCHEDULE.into(),
        ..Taint::default()
    };
    tolerations
        .iter()
        .any(|toleration| tolerates(toleration, &taint))
}
