//! Variables that tell a container of Services, as `enableServiceLinks` asks for.
//!
//! One watch of the cluster's Services, projected to what the variables need; read at container start.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

/// Namespace and name of a Service.
type Key = (String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    address: String,
    /// Name, number and protocol.
    ports: Vec<(Option<String>, i32, String)>,
}

/// The Services of the cluster as variables.
#[derive(Debug)]
pub(crate) struct ServiceLinks {
    links: RwLock<BTreeMap<Key, Link>>,
    synced: watch::Sender<bool>,
}

impl ServiceLinks {
    pub(crate) fn new() -> Self {
        Self {
            links: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }

    /// Waits until the Services were listed once. Cancel-safe.
    pub(crate) async fn synced(&self) {
        let mut synced = self.synced.subscribe();
        // The sender lives as long as `self`.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Keeps the links current; never returns.
    pub(crate) async fn run(&self, client: kube::Client) {
        let api: Api<Service> = Api::all(client);
        let mut events = watcher(api, watcher::Config::default())
            .default_backoff()
            .boxed();
        let mut fresh = BTreeMap::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => fresh.clear(),
                Ok(watcher::Event::InitApply(service)) => {
                    fresh.extend(link(&service).map(|link| (key(&service), link)));
                }
                Ok(watcher::Event::InitDone) => {
                    *self.write() = std::mem::take(&mut fresh);
                    self.synced.send_replace(true);
                }
                Ok(watcher::Event::Apply(service)) => match link(&service) {
                    Some(link) => drop(self.write().insert(key(&service), link)),
                    None => drop(self.write().remove(&key(&service))),
                },
                Ok(watcher::Event::Delete(service)) => drop(self.write().remove(&key(&service))),
                Err(error) => tracing::warn!(%error, "watch of Services failed, will resume"),
            }
        }
    }

    /// The variables of Service `default/kubernetes` and, with a namespace, of the Services in it.
    pub(crate) fn variables(&self, namespace: Option<&str>) -> Vec<(String, String)> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        let master = ("default".to_owned(), "kubernetes".to_owned());
        let mut variables = Vec::new();
        if let Some(link) = links.get(&master) {
            add_variables(&mut variables, &master.1, link);
        }
        let first = namespace.map(|namespace| (namespace.to_owned(), String::new()));
        let of_namespace = first.iter().flat_map(|first| links.range(first.clone()..));
        for ((found, name), link) in of_namespace {
            if Some(found.as_str()) != namespace {
                break;
            }
            if (found, name) != (&master.0, &master.1) {
                add_variables(&mut variables, name, link);
            }
        }
        variables
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Key, Link>> {
        self.links.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(service: &Service) -> Key {
    let metadata = &service.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

/// A Service without an address of its own (headless, ExternalName) has no variables.
fn link(service: &Service) -> Option<Link> {
    let spec = service.spec.as_ref()?;
    let address = spec
        .cluster_ip
        .clone()
        .filter(|ip| !ip.is_empty() && ip != "None")?;
    let ports = spec.ports.iter().flatten().map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        (port.name.clone(), port.port, protocol)
    });
    Some(Link {
        address,
        ports: ports.collect(),
    })
}

/// Spec: `{SVC}_SERVICE_HOST`, `{SVC}_SERVICE_PORT`, and Docker's link variables.
fn add_variables(variables: &mut Vec<(String, String)>, name: &str, link: &Link) {
    let prefix = name.to_uppercase().replace('-', "_");
    let mut add =
        |suffix: &str, value: String| variables.push((format!("{prefix}_{suffix}"), value));
    let address = &link.address;
    add("SERVICE_HOST", address.clone());
    if let Some((_, port, protocol)) = link.ports.first() {
        add("SERVICE_PORT", port.to_string());
        add(
            "PORT",
            format!("{}://{address}:{port}", protocol.to_lowercase()),
        );
    }
    for (name, port, protocol) in &link.ports {
        if let Some(name) = name {
            let name = name.to_uppercase().replace('-', "_");
            add(&format!("SERVICE_PORT_{name}"), port.to_string());
        }
        let lower = protocol.to_lowercase();
        let of_port = format!("PORT_{port}_{protocol}");
        add(&of_port, format!("{lower}://{address}:{port}"));
        add(&format!("{of_port}_PROTO"), lower);
        add(&format!("{of_port}_PORT"), port.to_string());
        add(&format!("{of_port}_ADDR"), address.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_are_those_of_the_namespace_and_of_kubernetes() {
        let links = ServiceLinks::new();
        for (namespace, name) in [("default", "kubernetes"), ("a", "my-db"), ("b", "other")] {
            let service: Service = serde_json::from_value(json!({
                "metadata": { "namespace": namespace, "name": name },
                "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "https", "port": 443 }] },
            }))
            .unwrap();
            links.write().insert(key(&service), link(&service).unwrap());
        }
        let names = |namespace| -> Vec<String> {
            links
                .variables(namespace)
                .into_iter()
                .map(|(name, _)| name)
                .collect()
        };
        assert_eq!(names(None).len(), 8);
        assert!(
            names(None)
                .iter()
                .all(|name| name.starts_with("KUBERNETES_"))
        );
        assert!(names(Some("a")).contains(&"MY_DB_SERVICE_PORT_HTTPS".to_owned()));
        assert!(names(Some("a")).contains(&"MY_DB_PORT_443_TCP_ADDR".to_owned()));
        assert_eq!(names(Some("a")).len(), 16);
        assert_eq!(names(Some("default")).len(), 8);
    }
}
