//! What happens in a cluster that may let a pod fit that did not.

use super::pod_info::PodInfo;
use super::snapshot::NodeFacts;

/// Something that happened.
#[derive(Clone, Copy)]
pub(super) enum Event<'a> {
    /// A node came, or changed in something that pods can ask for.
    Node {
        old: Option<&'a NodeFacts>,
        new: &'a NodeFacts,
    },
    NodeGone,
    /// A pod was placed, or what other pods can ask of a placed one changed.
    PodPlaced,
    PodGone(&'a PodInfo),
    /// A namespace came, or its labels changed.
    Namespace,
    Claim {
        namespace: &'a str,
        name: &'a str,
    },
    /// A PersistentVolume or a StorageClass.
    Storage,
}

impl<'a> Event<'a> {
    /// The node, if `changed` of it has changed, or if it is new.
    pub(super) fn node_with<T: PartialEq>(
        self,
        changed: impl Fn(&'a NodeFacts) -> T,
    ) -> Option<&'a NodeFacts> {
        let Self::Node { old, new } = self else {
            return None;
        };
        old.is_none_or(|old| changed(old) != changed(new))
            .then_some(new)
    }
}
