//! Feeds the service table from the cluster's Services and EndpointSlices.
//!
//! A watch that breaks is started again by the watcher, with a back-off; its new list replaces what
//! the table held, so that nothing deleted in between stays. Until that list is whole the old
//! entries serve on.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

use super::service_table::{
    EndpointFacts, PortFacts, ServiceFacts, ServiceKey, ServiceTable, SliceFacts,
};
use super::switch::Transport;

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Keeps `table` in step until dropped.
pub(super) async fn run(table: &ServiceTable, client: Client) {
    let services = follow(Api::<Service>::all(client.clone()), ServiceFeed(table));
    let slices = follow(Api::<EndpointSlice>::all(client), SliceFeed(table));
    tokio::join!(services, slices);
}

/// Takes the objects of one kind into the table.
trait Feed<K> {
    fn apply(&self, object: &K);
    fn delete(&self, id: &ServiceKey);
    fn retain(&self, present: &HashSet<ServiceKey>);
}

async fn follow<K>(api: Api<K>, feed: impl Feed<K>)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut present = HashSet::new();
    let mut events = watcher(api, watcher::Config::default())
        .default_backoff()
        .boxed();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Apply(object))) => feed.apply(&object),
            Ok(Some(watcher::Event::Delete(object))) => feed.delete(&id(&object)),
            Ok(Some(watcher::Event::Init)) => present.clear(),
            Ok(Some(watcher::Event::InitApply(object))) => {
                present.insert(id(&object));
                feed.apply(&object);
            }
            Ok(Some(watcher::Event::InitDone)) => feed.retain(&std::mem::take(&mut present)),
            Ok(None) => return,
            Err(error) => tracing::warn!(%error, "the watch of services is interrupted"),
        }
    }
}

fn id<K: kube::Resource>(object: &K) -> ServiceKey {
    ServiceKey::new(&object.namespace().unwrap_or_default(), &object.name_any())
}

struct ServiceFeed<'a>(&'a ServiceTable);

impl Feed<Service> for ServiceFeed<'_> {
    fn apply(&self, object: &Service) {
        self.0.apply_service(service_facts(object));
    }

    fn delete(&self, id: &ServiceKey) {
        self.0.delete_service(id);
    }

    fn retain(&self, present: &HashSet<ServiceKey>) {
        self.0.retain_services(present);
    }
}

struct SliceFeed<'a>(&'a ServiceTable);

impl Feed<EndpointSlice> for SliceFeed<'_> {
    fn apply(&self, object: &EndpointSlice) {
        match slice_facts(object) {
            Some(facts) => self.0.apply_slice(&id(object), facts),
            None => self.0.delete_slice(&id(object)),
        }
    }

    fn delete(&self, id: &ServiceKey) {
        self.0.delete_slice(id);
    }

    fn retain(&self, present: &HashSet<ServiceKey>) {
        self.0.retain_slices(present);
    }
}

/// The default of `sessionAffinityConfig.clientIP.timeoutSeconds`: three hours.
const AFFINITY_TIMEOUT: i32 = 10_800;

fn service_facts(object: &Service) -> ServiceFacts {
    let spec = object.spec.clone().unwrap_or_default();
    let single = spec.cluster_ip.clone().into_iter().collect();
    let cluster_ips = spec
        .cluster_ips
        .filter(|all| !all.is_empty())
        .unwrap_or(single);
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        Some(PortFacts {
            name: port.name.clone().unwrap_or_default(),
            transport: transport(port.protocol.as_deref())?,
            port: u16::try_from(port.port).ok()?,
            node_port: port
                .node_port
                .and_then(|port| u16::try_from(port).ok())
                .filter(|port| *port != 0),
        })
    };
    let timeout = spec
        .session_affinity_config
        .and_then(|config| config.client_ip?.timeout_seconds)
        .unwrap_or(AFFINITY_TIMEOUT);
    let sticky = spec.session_affinity.as_deref() == Some("ClientIP");
    ServiceFacts {
        key: id(object),
        // A headless Service says "None", which is no address.
        cluster_ips: cluster_ips
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect(),
        external_name: spec
            .external_name
            .filter(|_| spec.type_.as_deref() == Some("ExternalName")),
        ports: spec
            .ports
            .unwrap_or_default()
            .iter()
            .filter_map(port)
            .collect(),
        affinity: sticky.then(|| Duration::from_secs(timeout.max(1).unsigned_abs().into())),
    }
}

/// What a slice says, if it belongs to a Service and holds addresses.
fn slice_facts(object: &EndpointSlice) -> Option<SliceFacts> {
    let service = object.labels().get(SERVICE_NAME)?;
    let ports = object.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port?).ok()?;
        Some((
            port.name.clone().unwrap_or_default(),
            transport(port.protocol.as_deref())?,
            number,
        ))
    });
    Some(SliceFacts {
        service: ServiceKey::new(&object.namespace().unwrap_or_default(), service),
        ports: ports.collect(),
        endpoints: object.endpoints.iter().filter_map(endpoint_facts).collect(),
    })
}

fn endpoint_facts(endpoint: &Endpoint) -> Option<EndpointFacts> {
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    // Spec: an absent condition counts as true; `serving` falls back to `ready`.
    let ready = conditions.ready.unwrap_or(true);
    Some(EndpointFacts {
        // Spec: all addresses of an endpoint are the same; clients use the first.
        address: endpoint.addresses.first()?.parse().ok()?,
        hostname: endpoint.hostname.clone(),
        ready,
        serving: conditions.serving.unwrap_or(ready),
    })
}

fn transport(protocol: Option<&str>) -> Option<Transport> {
    match protocol {
        None | Some("TCP") => Some(Transport::Tcp),
        Some("UDP") => Some(Transport::Udp),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<K: serde::de::DeserializeOwned>(value: serde_json::Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn services_are_read_with_their_defaults() {
        let facts = service_facts(&parse(serde_json::json!({
            "metadata": {"name": "web", "namespace": "a"},
            "spec": {
                "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
                "sessionAffinity": "ClientIP",
                "ports": [
                    {"port": 80, "nodePort": 30080},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "x", "port": 99, "protocol": "SCTP"},
                ],
            },
        })));
        assert_eq!(
            facts.cluster_ips,
            ["10.96.0.9".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(facts.affinity, Some(Duration::from_secs(10_800)));
        assert_eq!(facts.ports.len(), 2);
        assert_eq!(facts.ports[0].node_port, Some(30_080));
        assert_eq!(facts.ports[1].transport, Transport::Udp);
    }

    #[test]
    fn headless_and_external_services_have_no_address() {
        let headless = service_facts(&parse(serde_json::json!({
            "metadata": {"name": "db", "namespace": "a"},
            "spec": {"clusterIP": "None", "clusterIPs": ["None"]},
        })));
        assert_eq!(
            (headless.cluster_ips.len(), headless.external_name),
            (0, None)
        );
        let external = service_facts(&parse(serde_json::json!({
            "metadata": {"name": "away", "namespace": "a"},
            "spec": {"type": "ExternalName", "externalName": "example.com"},
        })));
        assert_eq!(external.external_name.as_deref(), Some("example.com"));
    }

    #[test]
    fn slices_are_read_with_their_defaults() {
        let slice = |labels: serde_json::Value| {
            slice_facts(&parse(serde_json::json!({
                "metadata": {"name": "web-x", "namespace": "a", "labels": labels},
                "addressType": "IPv4",
                "ports": [{"port": 8080}],
                "endpoints": [
                    {"addresses": ["10.42.0.2"]},
                    {"addresses": ["10.42.0.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                    {"addresses": ["not an address"]},
                ],
            })))
        };
        assert_eq!(slice(serde_json::json!({})), None);
        let facts = slice(serde_json::json!({SERVICE_NAME: "web"})).unwrap();
        assert_eq!(facts.service, ServiceKey::new("a", "web"));
        let states: Vec<_> = facts
            .endpoints
            .iter()
            .map(|each| (each.ready, each.serving))
            .collect();
        assert_eq!(states, [(true, true), (false, true)]);
    }
}
