//! EndpointSlices of Endpoints that somebody else writes: readers of slices then see them too.
//!
//! Mirrored are the Endpoints of Services without a selector, unless they carry the label that forbids it
//! or are what an old leader election was held in.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};

use super::endpoints::{Group, Port, family_of};
use super::{mirror, slices, write_slices};
use crate::controllers::Context;
use crate::controllers::runtime::informers::SERVICE_NAME;
use crate::controllers::runtime::key::Key;
use crate::controllers::runtime::metadata::{Metadata, controller_reference};
use crate::controllers::runtime::worker::{Outcome, is_namespace_terminating, work};

const NAME: &str = "endpointslicemirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const WORKERS: usize = 4;
/// Label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Annotation of Endpoints that a leader is elected in.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Addresses of a subset that are mirrored at most.
const MAX: usize = 1000;

/// Starts the controller.
pub(in crate::controllers) fn start(context: Context) -> BoxFuture<'static, ()> {
    Box::pin(run(context))
}

async fn run(context: Context) {
    let queue = context.queue();
    let informers = &context.informers;
    informers.services.synced().await;
    informers.endpoints.synced().await;
    informers.endpoint_slices.synced().await;
    let [of_services, of_endpoints, of_slices] = [(); 3].map(|()| Arc::clone(&queue));
    let _services = informers.services.subscribe(move |change| {
        if let Some(service) = change.either() {
            of_services.add(Key::of(&service.metadata));
        }
    });
    let _endpoints = informers.endpoints.subscribe(move |change| {
        if let Some(endpoints) = change.either() {
            of_endpoints.add(Key::of(&endpoints.metadata));
        }
    });
    let _slices = informers.endpoint_slices.subscribe(move |change| {
        let changed = change.old.filter(|old| slices::is_managed(old, MANAGER));
        let service = changed.and_then(|slice| slice.metadata.labels().get(SERVICE_NAME));
        if let (Some(slice), Some(service)) = (changed, service) {
            of_slices.add(Key::new(slice.metadata.namespace(), service));
        }
    });
    let stop = context.stop.clone();
    work(NAME, queue, WORKERS, stop, |key| reconcile(&context, key)).await;
}

async fn reconcile(context: &Context, key: Key) -> Outcome {
    let Some(endpoints) = context.informers.endpoints.get(&key) else {
        // Their slices are owned by them, and collected.
        return Ok(None);
    };
    if endpoints.metadata.is_terminating() {
        return Ok(None);
    }
    let service = context.informers.services.get(&key);
    let groups = if is_mirrored(&endpoints, service.as_deref()) {
        groups(&endpoints)
    } else {
        BTreeMap::new()
    };
    let owner = owner(&endpoints);
    match write_slices(context, &key, &owner, MANAGER, &groups).await {
        Err(error) if !is_namespace_terminating(&error) => Err(error.into()),
        _ => Ok(None),
    }
}

fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let selects = |service: &Service| {
        let selector = service
            .spec
            .as_ref()
            .and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| !selector.is_empty())
    };
    let skips = endpoints.metadata.labels().get(SKIP);
    service.is_some_and(|service| !selects(service))
        && !mirror::is_managed(endpoints)
        && skips.is_none_or(|skips| skips != "true")
        && endpoints.metadata.annotation(LEADER).is_empty()
}

fn owner(endpoints: &Endpoints) -> slices::Owner {
    let metadata = &endpoints.metadata;
    let reference = controller_reference("v1", "Endpoints", metadata);
    slices::Owner::new(metadata, reference, metadata.labels().clone(), MANAGER)
}

/// The addresses by what they have in common, as slices have them.
fn groups(endpoints: &Endpoints) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let with = |ready| move |address| (address, ready);
        let ready = subset.addresses.iter().flatten().map(with(true));
        let others = subset.not_ready_addresses.iter().flatten().map(with(false));
        for (address, ready) in ready.chain(others).take(MAX) {
            let group = Group {
                family: family_of(&address.ip).to_owned(),
                ports: ports.clone(),
            };
            groups
                .entry(group)
                .or_default()
                .push(endpoint(address, ready));
        }
    }
    groups
}

fn ports(subset: &EndpointSubset) -> Vec<Port> {
    let ports = subset.ports.iter().flatten().map(|port| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
        app_protocol: port.app_protocol.clone(),
        number: port.port,
    });
    let mut ports: Vec<_> = ports.collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn endpoints(change: impl FnOnce(&mut Value)) -> Endpoints {
        let mut object = json!({
            "metadata": {"name": "s", "labels": {}, "annotations": {}},
            "subsets": [{
                "addresses": [{"ip": "10.0.0.1", "hostname": "a"}, {"ip": "fd00::1"}],
                "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 80, "name": "http"}],
            }],
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn addresses_are_grouped_by_family_and_say_whether_they_are_ready() {
        let groups = groups(&endpoints(|_| {}));
        let seen: Vec<_> = groups
            .iter()
            .map(|(group, endpoints)| {
                let of = |endpoint: &Endpoint| {
                    let ready = endpoint.conditions.as_ref().unwrap().ready.unwrap();
                    (endpoint.addresses[0].clone(), ready)
                };
                let ports: Vec<_> = group.ports.iter().map(|port| port.number).collect();
                (
                    group.family.as_str(),
                    ports,
                    endpoints.iter().map(of).collect::<Vec<_>>(),
                )
            })
            .collect();
        let v4 = vec![
            ("10.0.0.1".to_owned(), true),
            ("10.0.0.2".to_owned(), false),
        ];
        let expected = [
            ("IPv4", vec![80], v4),
            ("IPv6", vec![80], vec![("fd00::1".to_owned(), true)]),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn only_what_a_person_wrote_for_a_service_without_a_selector_is_mirrored() {
        let service = |selector: Value| -> Service {
            serde_json::from_value(json!({"spec": {"selector": selector}})).unwrap()
        };
        let plain = service(Value::Null);
        assert!(is_mirrored(&endpoints(|_| {}), Some(&plain)));
        assert!(!is_mirrored(&endpoints(|_| {}), None));
        assert!(!is_mirrored(
            &endpoints(|_| {}),
            Some(&service(json!({"a": "b"})))
        ));
        let changes: [(&str, &str, &str); 3] = [
            ("labels", SKIP, "true"),
            (
                "labels",
                "endpoints.kubernetes.io/managed-by",
                "endpoint-controller",
            ),
            ("annotations", LEADER, "{}"),
        ];
        for (member, key, value) in changes {
            let changed = endpoints(|object| object["metadata"][member][key] = json!(value));
            assert!(!is_mirrored(&changed, Some(&plain)), "{key}");
        }
    }
}
