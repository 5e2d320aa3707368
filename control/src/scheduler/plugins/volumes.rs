//! Volumes: claims must have volumes that the node reaches, and some volumes are for one pod at a time.
//!
//! Differs from Kubernetes: limits of volumes per node (`NodeVolumeLimits`) and capacities of storage
//! (`CSIStorageCapacity`) are not read.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Filter, Refusal, labels};
use crate::controllers::runtime::metadata::Metadata;
use crate::scheduler::cycle::Cycle;
use crate::scheduler::event::Event;
use crate::scheduler::pod_info::{ClaimUse, PodInfo};
use crate::scheduler::snapshot::Node;
use crate::scheduler::storage::{Claim, Class, Storage, Volume};

/// `VolumeRestrictions`: claims that only one pod may use.
pub(in super::super) struct Restrictions;
/// `VolumeBinding`: nodes that reach the volumes of the claims.
pub(in super::super) struct Binding;
/// `VolumeZone`: volumes whose labels say where they are.
pub(in super::super) struct Zone;

/// What a pod mounts.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Mounts {
    volumes: Vec<Arc<Volume>>,
    /// Claims that get their volume once the node is known, with their class.
    waiting: Vec<(Arc<Claim>, Arc<Class>)>,
    /// How many pods on nodes hold a claim that only one may have.
    conflicts: i64,
}

impl Mounts {
    /// # Errors
    /// A claim keeps the pod from every node.
    pub(in super::super) fn of(
        pod: &PodInfo,
        storage: &Storage,
    ) -> Result<Self, Cow<'static, str>> {
        if let Some(device) = pod.wants.devices.first() {
            // Differs from Kubernetes: devices are not allocated, so such a pod would start without them.
            return Err(format!(
                "resource claim {device:?}: this scheduler does not allocate devices"
            )
            .into());
        }
        let mut mounts = Self::default();
        let mut has_unbound = false;
        for used in &pod.wants.claims {
            let claim = usable(pod, used, storage)?;
            if claim.is_exclusive() {
                let users = storage.users(pod.metadata.namespace(), &used.name);
                mounts.conflicts += i64::try_from(users).unwrap_or(i64::MAX);
            }
            if !claim.volume.is_empty() {
                let volume = storage
                    .volumes
                    .get(&claim.volume)
                    .ok_or_else(|| format!("persistentvolume {:?} not found", claim.volume))?;
                mounts.volumes.push(Arc::clone(volume));
                continue;
            }
            match storage
                .classes
                .get(&claim.class)
                .filter(|class| class.waits)
            {
                Some(class) => mounts.waiting.push((Arc::clone(claim), Arc::clone(class))),
                None => has_unbound = true,
            }
        }
        if has_unbound {
            return Err("pod has unbound immediate PersistentVolumeClaims".into());
        }
        Ok(mounts)
    }

    /// `by` more pods such as `other` are on nodes.
    pub(in super::super) fn change(&mut self, pod: &PodInfo, other: &PodInfo, by: i64) {
        if self.conflicts == 0 {
            return;
        }
        let shared = other.wants.claims.iter();
        let shared = shared.filter(|claim| pod.mounts(other.metadata.namespace(), &claim.name));
        self.conflicts += by * i64::try_from(shared.count()).unwrap_or(0);
    }

    /// The claims that have no volume yet, and the one that each should get on the node, if it is made already.
    pub(in super::super) fn to_bind(
        &self,
        node: Node<'_>,
        storage: &Storage,
    ) -> Vec<(Arc<Claim>, Option<Arc<Volume>>)> {
        let waiting = self.waiting.iter();
        waiting
            .map(|(claim, _)| (Arc::clone(claim), made(claim, node, storage)))
            .collect()
    }
}

fn usable<'a>(
    pod: &PodInfo,
    used: &ClaimUse,
    storage: &'a Storage,
) -> Result<&'a Arc<Claim>, Cow<'static, str>> {
    let name = &used.name;
    let claim = storage
        .claim(pod.metadata.namespace(), name)
        .ok_or_else(|| match used.is_ephemeral {
            true => format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"),
            false => format!("persistentvolumeclaim {name:?} not found"),
        })?;
    if claim.is_lost {
        let volume = &claim.volume;
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        )
        .into());
    }
    if claim.metadata.is_terminating() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted").into());
    }
    let owner = claim.metadata.controller();
    if used.is_ephemeral && owner.is_none_or(|owner| owner.uid != pod.metadata.uid()) {
        let (namespace, pod) = (pod.metadata.namespace(), pod.metadata.name());
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        )
        .into());
    }
    Ok(claim)
}

/// The smallest volume made by hand that suits the claim and that the node reaches.
fn made(claim: &Claim, node: Node<'_>, storage: &Storage) -> Option<Arc<Volume>> {
    let volumes = storage.volumes.values();
    let fitting = volumes.filter(|volume| volume.suits(claim) && reaches(node, volume));
    let best = fitting.min_by_key(|volume| (volume.size, volume.metadata.name().to_owned()));
    best.cloned()
}

fn reaches(node: Node<'_>, volume: &Volume) -> bool {
    let terms = volume.nodes.as_ref();
    terms.is_none_or(|terms| terms.match_node(node.name, node.labels()))
}

/// Whether it may be about where volumes are.
fn hears_of_volumes(event: Event<'_>) -> bool {
    match event {
        Event::Claim { .. } | Event::Storage => true,
        event => event.node_with(labels).is_some(),
    }
}

impl Filter for Restrictions {
    fn refuse(&self, cycle: &Cycle<'_>, _: Node<'_>) -> Option<Refusal> {
        (cycle.mounts.conflicts > 0).then(|| {
            Refusal::for_pods(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            )
        })
    }

    fn hears(&self, event: Event<'_>) -> bool {
        matches!(event, Event::PodGone(_))
    }

    fn may_help(&self, pod: &PodInfo, event: Event<'_>) -> bool {
        let Event::PodGone(gone) = event else {
            return false;
        };
        let mut claims = gone.wants.claims.iter();
        claims.any(|claim| pod.mounts(gone.metadata.namespace(), &claim.name))
    }
}

impl Filter for Binding {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        let mounts = &cycle.mounts;
        if !mounts.volumes.iter().all(|volume| reaches(node, volume)) {
            return Some(Refusal::for_good(
                "node(s) didn't match PersistentVolume's node affinity",
            ));
        }
        let storage = &cycle.snapshot.storage;
        let mut waiting = mounts.waiting.iter();
        let lacks = waiting.any(|(claim, class)| {
            !class.provisions_for(node.labels()) && made(claim, node, storage).is_none()
        });
        lacks.then(|| Refusal::for_good("node(s) didn't find available persistent volumes to bind"))
    }

    fn hears(&self, event: Event<'_>) -> bool {
        hears_of_volumes(event)
    }

    fn may_help(&self, pod: &PodInfo, event: Event<'_>) -> bool {
        match event {
            Event::Claim { namespace, name } => pod.mounts(namespace, name),
            _ => true,
        }
    }
}

impl Filter for Zone {
    fn refuse(&self, cycle: &Cycle<'_>, node: Node<'_>) -> Option<Refusal> {
        let mut volumes = cycle.mounts.volumes.iter();
        volumes
            .any(|volume| !volume.is_placed_with(node.labels()))
            .then(|| Refusal::for_good("node(s) had no available volume zone"))
    }

    fn hears(&self, event: Event<'_>) -> bool {
        hears_of_volumes(event)
    }
}
