//! What is counted once per decision, before nodes are looked at.
//!
//! A cycle can also be asked what would be: pods are added to and removed from it together with a load,
//! when room is looked for or already promised.

use std::borrow::Cow;

use super::plugins::inter_pod_affinity::Neighbours;
use super::plugins::topology_spread::Domains;
use super::plugins::volumes::Mounts;
use super::pod_info::PodInfo;
use super::profile::Profile;
use super::snapshot::{Node, Snapshot};

/// One decision about one pod.
#[derive(Clone)]
pub(super) struct Cycle<'a> {
    pub(super) pod: &'a PodInfo,
    pub(super) snapshot: &'a Snapshot,
    pub(super) profile: &'a Profile,
    pub(super) neighbours: Neighbours,
    pub(super) domains: Domains,
    pub(super) mounts: Mounts,
}

impl<'a> Cycle<'a> {
    /// # Errors
    /// The pod itself has something that keeps it from every node, in upstream's words.
    pub(super) fn begin(
        pod: &'a PodInfo,
        snapshot: &'a Snapshot,
        profile: &'a Profile,
    ) -> Result<Self, Cow<'static, str>> {
        Ok(Self {
            pod,
            snapshot,
            profile,
            mounts: Mounts::of(pod, &snapshot.storage)?,
            neighbours: Neighbours::of(pod, snapshot),
            domains: Domains::of(pod, snapshot, profile),
        })
    }

    /// Counts `other` as being on the node.
    pub(super) fn add(&mut self, other: &PodInfo, node: Node<'_>) {
        self.change(other, node, 1);
    }

    /// Counts `other` as being gone from the node.
    pub(super) fn remove(&mut self, other: &PodInfo, node: Node<'_>) {
        self.change(other, node, -1);
    }

    fn change(&mut self, other: &PodInfo, node: Node<'_>, by: i64) {
        let namespaces = &self.snapshot.namespaces;
        self.neighbours
            .change(self.pod, other, node, by, namespaces);
        self.domains.change(self.pod, other, node, by);
        self.mounts.change(self.pod, other, by);
    }
}
