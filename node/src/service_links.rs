//! Variables that tell a container of Services, as `enableServiceLinks` asks for.
//!
//! Read from the network's service table at container start.

use std::net::SocketAddr;

use crate::network::{LinkedPort, Network, ServiceAddress};

/// Namespace and name of the Service that every container is told of.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// The variables of Service `default/kubernetes` and, with a namespace, of the Services in it.
///
/// A Service without an address of its own (headless, ExternalName) has no variables.
pub(crate) fn variables(network: &Network, namespace: Option<&str>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    if let Some(service) = network.service(API_SERVER.0, API_SERVER.1) {
        add_variables(&mut variables, &service);
    }
    let of_namespace = namespace.map(|namespace| network.services(namespace));
    for service in of_namespace.into_iter().flatten() {
        if (namespace, service.name.as_str()) != (Some(API_SERVER.0), API_SERVER.1) {
            add_variables(&mut variables, &service);
        }
    }
    variables
}

/// Spec: `{SVC}_SERVICE_HOST`, `{SVC}_SERVICE_PORT`, and Docker's link variables.
fn add_variables(variables: &mut Vec<(String, String)>, service: &ServiceAddress) {
    let upper = |name: &str| name.to_uppercase().replace('-', "_");
    let prefix = upper(&service.name);
    let mut add =
        |suffix: &str, value: String| variables.push((format!("{prefix}_{suffix}"), value));
    let address = service.address.to_string();
    let url = |port: &LinkedPort| {
        let authority = SocketAddr::new(service.address, port.number);
        format!("{}://{authority}", port.protocol.to_lowercase())
    };
    add("SERVICE_HOST", address.clone());
    if let Some(first) = service.ports.first() {
        add("SERVICE_PORT", first.number.to_string());
        add("PORT", url(first));
    }
    for port in &service.ports {
        if !port.name.is_empty() {
            let suffix = format!("SERVICE_PORT_{}", upper(&port.name));
            add(&suffix, port.number.to_string());
        }
        let of_port = format!("PORT_{}_{}", port.number, port.protocol);
        add(&of_port, url(port));
        add(&format!("{of_port}_PROTO"), port.protocol.to_lowercase());
        add(&format!("{of_port}_PORT"), port.number.to_string());
        add(&format!("{of_port}_ADDR"), address.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkConfig;
    use serde_json::json;

    #[tokio::test]
    async fn variables_are_those_of_the_namespace_and_of_kubernetes() {
        let network = Network::new(NetworkConfig::default());
        for (namespace, name, ip) in [
            ("default", "kubernetes", "10.96.0.1"),
            ("a", "my-db", "10.96.0.2"),
            ("a", "headless", "None"),
            ("ab", "other", "10.96.0.3"),
        ] {
            let service = json!({
                "metadata": { "namespace": namespace, "name": name },
                "spec": { "clusterIP": ip, "ports": [{ "name": "https", "port": 443 }] },
            });
            network.learn_service(&serde_json::from_value(service).unwrap());
        }
        let all = |namespace| variables(&network, namespace);
        let names = |namespace| -> Vec<String> {
            let names = all(namespace).into_iter().map(|(name, _)| name);
            names.collect()
        };
        assert_eq!(names(None).len(), 8);
        let of_api = |name: &String| name.starts_with("KUBERNETES_");
        assert!(names(None).iter().all(of_api));
        assert!(names(Some("a")).contains(&"MY_DB_SERVICE_PORT_HTTPS".to_owned()));
        assert!(names(Some("a")).contains(&"MY_DB_PORT_443_TCP_ADDR".to_owned()));
        assert_eq!(names(Some("a")).len(), 16);
        assert_eq!(names(Some("default")).len(), 8);
        let url = ("MY_DB_PORT".to_owned(), "tcp://10.96.0.2:443".to_owned());
        assert!(all(Some("a")).contains(&url));
    }
}
