//! What the scheduler knows of storage: claims, volumes and classes, and which pods use which claim.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{self as core, TopologySelectorTerm};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use windlass_api::quantity::Quantity;

use super::counts::Counts;
use super::pod_info::PodInfo;
use crate::controllers::runtime::informer::{Cached, Index};
use crate::controllers::runtime::key::Key;
use crate::controllers::runtime::metadata::Metadata;
use crate::node_terms::RequiredTerms;

/// Annotation that names the class of objects older than the field.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// Annotation of a claim: the node that its provisioner shall make the volume for.
pub(super) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Labels that say where a volume is, and those that took their place on nodes.
const PLACES: [(&str, &str); 4] = [
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    (
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default)]
pub(super) struct Claim {
    pub(super) metadata: ObjectMeta,
    /// Name of its volume; empty if it has none.
    pub(super) volume: String,
    pub(super) class: String,
    pub(super) modes: Vec<String>,
    pub(super) is_lost: bool,
    size: i64,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default)]
pub(super) struct Volume {
    pub(super) metadata: ObjectMeta,
    /// Nodes that reach it; `None` stands for all.
    pub(super) nodes: Option<RequiredTerms>,
    /// The claim it is for.
    claim: Option<Key>,
    class: String,
    modes: Vec<String>,
    /// Bytes.
    pub(super) size: i64,
}

/// A StorageClass.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    pub(super) metadata: ObjectMeta,
    /// Whether claims wait for the pod that uses them.
    pub(super) waits: bool,
    provisioner: String,
    topologies: Vec<TopologySelectorTerm>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Storage {
    pub(super) claims: HashMap<Key, Arc<Claim>>,
    pub(super) volumes: HashMap<String, Arc<Volume>>,
    pub(super) classes: HashMap<String, Arc<Class>>,
    /// How many pods on nodes use a claim.
    used: Counts<Key>,
}

impl Claim {
    pub(super) fn is_exclusive(&self) -> bool {
        self.modes.iter().any(|mode| mode == "ReadWriteOncePod")
    }
}

impl Volume {
    /// Whether the labels of a node say that it is where the volume is.
    ///
    /// A value may list several places, separated by `__`.
    pub(super) fn is_placed_with(&self, node: &BTreeMap<String, String>) -> bool {
        let own = self.metadata.labels();
        PLACES.iter().all(|(label, stable)| {
            let Some(places) = own.get(*label) else {
                return true;
            };
            let of_node = node.get(*label).or_else(|| node.get(*stable));
            of_node.is_some_and(|of_node| places.split("__").any(|place| place == of_node))
        })
    }

    /// Whether the claim can have it.
    pub(super) fn suits(&self, claim: &Claim) -> bool {
        let own = self.claim.as_ref();
        own.is_none_or(|own| *own == Key::of(&claim.metadata))
            && self.class == claim.class
            && self.size >= claim.size
            && claim.modes.iter().all(|mode| self.modes.contains(mode))
    }
}

impl Class {
    /// Whether a volume can be made for a node with these labels.
    pub(super) fn provisions_for(&self, node: &BTreeMap<String, String>) -> bool {
        let holds = |term: &TopologySelectorTerm| {
            term.match_label_expressions.iter().flatten().all(|wanted| {
                let value = node.get(&wanted.key);
                value.is_some_and(|value| wanted.values.contains(value))
            })
        };
        self.provisioner != NO_PROVISIONER
            && (self.topologies.is_empty() || self.topologies.iter().any(holds))
    }
}

impl Storage {
    pub(super) fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<Claim>> {
        self.claims.get(&Key::new(namespace, name))
    }

    /// How many pods on nodes use the claim.
    pub(super) fn users(&self, namespace: &str, name: &str) -> usize {
        self.used.get(&Key::new(namespace, name))
    }

    pub(super) fn add_user(&mut self, pod: &PodInfo) {
        for claim in &pod.wants.claims {
            let key = Key::new(pod.metadata.namespace(), &claim.name);
            self.used.add(&key);
        }
    }

    pub(super) fn remove_user(&mut self, pod: &PodInfo) {
        for claim in &pod.wants.claims {
            let key = Key::new(pod.metadata.namespace(), &claim.name);
            self.used.remove(&key);
        }
    }
}

fn class_of(metadata: &ObjectMeta, field: Option<String>) -> String {
    let old = metadata.annotations().get(CLASS).cloned();
    old.or(field).unwrap_or_default()
}

fn size(amount: Option<&k8s_openapi::apimachinery::pkg::api::resource::Quantity>) -> i64 {
    // What validation let through can be read.
    let amount = amount.and_then(|amount| amount.0.parse::<Quantity>().ok());
    amount.map_or(0, Quantity::units)
}

impl Cached for Claim {
    type Object = core::PersistentVolumeClaim;

    fn project(mut claim: Self::Object) -> Self {
        claim.metadata.managed_fields = None;
        let spec = claim.spec.unwrap_or_default();
        let requests = spec.resources.and_then(|resources| resources.requests);
        Self {
            class: class_of(&claim.metadata, spec.storage_class_name),
            metadata: claim.metadata,
            volume: spec.volume_name.unwrap_or_default(),
            modes: spec.access_modes.unwrap_or_default(),
            is_lost: claim.status.and_then(|status| status.phase).as_deref() == Some("Lost"),
            size: size(requests.as_ref().and_then(|list| list.get("storage"))),
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        Vec::new()
    }
}

impl Cached for Volume {
    type Object = core::PersistentVolume;

    fn project(mut volume: Self::Object) -> Self {
        volume.metadata.managed_fields = None;
        let spec = volume.spec.unwrap_or_default();
        let terms = spec.node_affinity.and_then(|affinity| affinity.required);
        let claim = spec.claim_ref.map(|of| {
            let (namespace, name) = (
                of.namespace.unwrap_or_default(),
                of.name.unwrap_or_default(),
            );
            Key::new(&namespace, &name)
        });
        let capacity = spec.capacity.unwrap_or_default();
        Self {
            class: class_of(&volume.metadata, spec.storage_class_name),
            metadata: volume.metadata,
            nodes: terms.map(|terms| RequiredTerms::of(&terms)),
            claim,
            modes: spec.access_modes.unwrap_or_default(),
            size: size(capacity.get("storage")),
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        Vec::new()
    }
}

impl Cached for Class {
    type Object = StorageClass;

    fn project(mut class: Self::Object) -> Self {
        class.metadata.managed_fields = None;
        Self {
            metadata: class.metadata,
            waits: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            provisioner: class.provisioner,
            topologies: class.allowed_topologies.unwrap_or_default(),
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn index(&self) -> Vec<Index> {
        Vec::new()
    }
}
