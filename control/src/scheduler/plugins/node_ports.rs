//! Ports of the node that pods ask for.

use super::{Filter, Refusal};
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::snapshot::Node;

pub(in super::super) struct NodePorts;

impl Filter for NodePorts {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        let mut wanted = cycle.pod.wants.ports.iter();
        let taken = &node.load.ports;
        wanted
            .any(|port| taken.iter().any(|taken| taken.clashes(port)))
            .then(|| {
                Refusal::for_pods("node(s) didn't have free ports for the requested pod ports")
            })
    }

    fn hears(&self, event: Event<'_>) -> bool {
        match event {
            Event::Node { old, .. } => old.is_none(),
            Event::PodGone(pod) => !pod.wants.ports.is_empty(),
            _ => false,
        }
    }
}
