//! How endpoints are spread over slices, with as few writes as possible.
//!
//! An endpoint stays in the slice it is in. What is new goes where there is room, first into slices that
//! have to be written anyway; what remains gets new slices. A slice's name follows from its owner and
//! a counter, so that a stale cache ends in "already exists" and not in a second slice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use sha2::{Digest, Sha256};

use super::endpoints::{Group, Port};
use super::is_headless;
use crate::controllers::runtime::informers::SERVICE_NAME;
use crate::controllers::runtime::metadata::{Metadata, controller_reference};

/// Endpoints in a slice at most.
const MAX: usize = 100;
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Who makes slices of the pods of Services.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Label of what belongs to a Service without an address of its own.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// Characters in the part of a name that is made up.
const SUFFIX: usize = 5;

/// A write.
#[derive(Debug)]
pub(super) enum Action {
    Create(Box<EndpointSlice>),
    Update(Box<EndpointSlice>),
    Delete(String),
}

/// What slices are of, and what they carry because of it.
#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    uid: String,
    /// Whatever a new slice starts from, its labels among it.
    metadata: ObjectMeta,
}

impl Owner {
    /// A Service with a selector.
    pub(super) fn service(service: &Service) -> Self {
        let mut labels = service.metadata.labels().clone();
        labels.remove(HEADLESS);
        if is_headless(service) {
            labels.insert(HEADLESS.into(), String::new());
        }
        let reference = controller_reference("v1", "Service", &service.metadata);
        Self::new(&service.metadata, reference, labels, MANAGER)
    }

    /// An owner by its metadata; `labels` are what its slices carry besides those that say whose they are.
    pub(super) fn new(
        metadata: &ObjectMeta,
        reference: OwnerReference,
        mut labels: BTreeMap<String, String>,
        manager: &str,
    ) -> Self {
        let name = metadata.name();
        labels.insert(SERVICE_NAME.into(), name.to_owned());
        labels.insert(MANAGED_BY.into(), manager.to_owned());
        Self {
            name: name.to_owned(),
            uid: metadata.uid().to_owned(),
            metadata: ObjectMeta {
                generate_name: Some(format!("{name}-")),
                namespace: metadata.namespace.clone(),
                labels: Some(labels),
                owner_references: Some(vec![reference]),
                ..ObjectMeta::default()
            },
        }
    }
}

/// Whether a slice is that controller's.
pub(super) fn is_managed(slice: &EndpointSlice, manager: &str) -> bool {
    let by = slice.metadata.labels().get(MANAGED_BY);
    by.is_some_and(|by| by == manager)
}

/// The writes that make `known`, the slices there are, show `groups`.
pub(super) fn plan(
    owner: &Owner,
    groups: &BTreeMap<Group, Vec<Endpoint>>,
    known: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let mut by_group: BTreeMap<Group, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in known
        .iter()
        .filter(|slice| !slice.metadata.is_terminating())
    {
        by_group.entry(group_of(slice)).or_default().push(slice);
    }
    let mut names = Names::new(owner, known);
    let mut actions = Vec::new();
    for (group, endpoints) in groups {
        let mut slices = by_group.remove(group).unwrap_or_default();
        slices.sort_by(|a, b| a.metadata.name().cmp(b.metadata.name()));
        fill(owner, group, endpoints, &slices, &mut names, &mut actions);
    }
    let stale = by_group.into_values().flatten();
    actions.extend(stale.map(|slice| Action::Delete(slice.metadata.name().to_owned())));
    actions
}

fn group_of(slice: &EndpointSlice) -> Group {
    let ports = slice.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        app_protocol: port.app_protocol.clone(),
        number: port.port.unwrap_or(0),
    });
    let mut ports: Vec<_> = ports.collect();
    ports.sort();
    Group {
        family: slice.address_type.clone(),
        ports,
    }
}

/// A slice in the making.
struct Draft<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

fn fill(
    owner: &Owner,
    group: &Group,
    endpoints: &[Endpoint],
    slices: &[&EndpointSlice],
    names: &mut Names,
    actions: &mut Vec<Action>,
) {
    let mut wanted: BTreeMap<&str, &Endpoint> = endpoints
        .iter()
        .map(|endpoint| (identity(endpoint), endpoint))
        .collect();
    let labels = &owner.metadata.labels;
    let mut drafts: Vec<Draft<'_>> = slices
        .iter()
        .map(|slice| keep(slice, &mut wanted))
        .collect();
    for draft in &mut drafts {
        draft.changed |= draft.slice.metadata.labels != *labels;
    }
    let mut new: Vec<Endpoint> = wanted.into_values().cloned().collect();
    for fills_changed in [true, false] {
        for draft in drafts
            .iter_mut()
            .filter(|draft| draft.changed == fills_changed)
        {
            let room = MAX.saturating_sub(draft.endpoints.len()).min(new.len());
            if room > 0 {
                draft.endpoints.extend(new.drain(..room));
                draft.changed = true;
            }
        }
    }
    let any_left = drafts.iter().any(|draft| !draft.endpoints.is_empty()) || !new.is_empty();
    let mut keeps_empty = !any_left;
    for draft in drafts {
        if draft.endpoints.is_empty() && !std::mem::take(&mut keeps_empty) {
            actions.push(Action::Delete(draft.slice.metadata.name().to_owned()));
        } else if draft.changed {
            let mut slice = draft.slice.clone();
            slice.endpoints = draft.endpoints;
            slice.metadata.labels.clone_from(labels);
            actions.push(Action::Update(Box::new(slice)));
        }
    }
    for chunk in new.chunks(MAX) {
        actions.push(Action::Create(Box::new(slice(
            owner,
            group,
            names.next(),
            chunk,
        ))));
    }
    // An owner with nobody behind it has one empty slice, so that readers know it was looked at.
    if keeps_empty {
        actions.push(Action::Create(Box::new(slice(
            owner,
            group,
            names.next(),
            &[],
        ))));
    }
}

/// Keeps what is still wanted of a slice, as it is now, and takes it off `wanted`.
fn keep<'a>(slice: &'a EndpointSlice, wanted: &mut BTreeMap<&str, &Endpoint>) -> Draft<'a> {
    let kept = slice
        .endpoints
        .iter()
        .filter_map(|known| wanted.remove(identity(known)));
    let endpoints: Vec<_> = kept.cloned().collect();
    let changed = endpoints != slice.endpoints;
    Draft {
        slice,
        endpoints,
        changed,
    }
}

/// What makes an endpoint the same one: the pod behind it.
fn identity(endpoint: &Endpoint) -> &str {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref());
    uid.or(endpoint.addresses.first().map(String::as_str))
        .unwrap_or_default()
}

fn slice(owner: &Owner, group: &Group, name: String, endpoints: &[Endpoint]) -> EndpointSlice {
    let ports = group.ports.iter().map(|port| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
        port: Some(port.number),
    });
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(name),
            ..owner.metadata.clone()
        },
        address_type: group.family.clone(),
        endpoints: endpoints.to_vec(),
        ports: Some(ports.collect()),
    }
}

/// Names for new slices: the first of a fixed sequence that are free.
struct Names {
    owner: String,
    uid: String,
    taken: BTreeSet<String>,
    next: u32,
}

impl Names {
    fn new(owner: &Owner, known: &[Arc<EndpointSlice>]) -> Self {
        Self {
            owner: owner.name.clone(),
            uid: owner.uid.clone(),
            taken: known
                .iter()
                .map(|slice| slice.metadata.name().to_owned())
                .collect(),
            next: 0,
        }
    }

    fn next(&mut self) -> String {
        loop {
            let digest = Sha256::digest(format!("{}/{}", self.uid, self.next).as_bytes());
            self.next += 1;
            const LETTERS: &[u8; 32] = b"bcdfghjklmnpqrstvwxz2456789aeiou";
            let letter = |byte: &u8| LETTERS.get(usize::from(byte % 27)).copied().map(char::from);
            let suffix: String = digest.iter().filter_map(letter).take(SUFFIX).collect();
            let name = format!("{}-{suffix}", self.owner);
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::endpoints::groups;
    use super::super::endpoints::tests::{pod, service};
    use super::*;
    use crate::controllers::runtime::pod::Pod;
    use serde_json::json;

    fn pods(range: std::ops::Range<usize>) -> Vec<Arc<Pod>> {
        range
            .map(|at| {
                pod(
                    &format!("p{at:04}"),
                    &format!("10.0.{}.{}", at / 250, at % 250),
                    true,
                    json!({}),
                )
            })
            .collect()
    }

    /// Carries a plan out and tells what it wrote.
    fn apply(known: &mut Vec<Arc<EndpointSlice>>, actions: Vec<Action>) -> [usize; 3] {
        let mut writes = [0; 3];
        for action in actions {
            match action {
                Action::Create(slice) => {
                    writes[0] += 1;
                    known.push(Arc::new(*slice));
                }
                Action::Update(slice) => {
                    writes[1] += 1;
                    known.retain(|old| old.metadata.name() != slice.metadata.name());
                    known.push(Arc::new(*slice));
                }
                Action::Delete(name) => {
                    writes[2] += 1;
                    known.retain(|old| old.metadata.name() != name);
                }
            }
        }
        writes
    }

    #[test]
    fn endpoints_stay_in_their_slices_and_writes_are_few() {
        let service = service(json!({"ports": [{"port": 80}]}));
        let mut known = Vec::new();
        for (pods, expected) in [
            (pods(0..0), [1, 0, 0]),
            (pods(0..0), [0, 0, 0]),
            (pods(0..250), [3, 0, 1]),
            (pods(0..250), [0, 0, 0]),
            // One more goes into the slice with room.
            (pods(0..251), [0, 1, 0]),
            // One goes from a full slice and another comes: one write.
            (pods(1..252), [0, 1, 0]),
            (pods(0..0), [1, 0, 3]),
        ] {
            let groups = groups(&service, &pods, &|_| None);
            let actions = plan(&Owner::service(&service), &groups, &known);
            assert_eq!(apply(&mut known, actions), expected, "{} pods", pods.len());
            assert!(known.iter().all(|slice| slice.endpoints.len() <= MAX));
            let total: usize = known.iter().map(|slice| slice.endpoints.len()).sum();
            assert_eq!(total, pods.len());
        }
    }

    #[test]
    fn slices_carry_the_labels_of_their_service() {
        let service = service(json!({"clusterIP": "None", "ports": [{"port": 80}]}));
        let groups = groups(&service, &pods(0..1), &|_| None);
        let mut known = Vec::new();
        apply(&mut known, plan(&Owner::service(&service), &groups, &[]));
        let labels = known[0].metadata.labels();
        let expected = [
            ("a", "b"),
            (MANAGED_BY, MANAGER),
            (SERVICE_NAME, "web"),
            (HEADLESS, ""),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(*labels, BTreeMap::from(expected));
        assert!(is_managed(&known[0], MANAGER));
    }
}
