//! What the table answers as Services and slices come, change and go; builders that other tests use.

use super::*;

/// A Service with port 80, named "" and forwarded to 8080.
pub(in super::super) fn service(namespace: &str, name: &str, cluster_ip: &str) -> ServiceFacts {
    ServiceFacts {
        key: ObjectKey::new(namespace, name),
        cluster_ips: cluster_ip.parse().into_iter().collect(),
        external_name: None,
        ports: vec![PortFacts {
            name: String::new(),
            transport: Transport::Tcp,
            port: 80,
            node_port: None,
            speaks_h2: false,
        }],
        affinity: None,
        external_ips: Vec::new(),
        inside: TrafficPolicy::Cluster,
        outside: TrafficPolicy::Cluster,
        health_check_port: None,
    }
}

/// A slice whose endpoints are `(address, ready)`, all serving, at port 8080.
pub(in super::super) fn slice(
    namespace: &str,
    service: &str,
    endpoints: &[(&str, bool)],
) -> SliceFacts {
    let endpoint = |(address, ready): &(&str, bool)| EndpointFacts {
        address: address.parse().unwrap(),
        hostname: None,
        ready: *ready,
        serving: true,
        node: None,
        for_zones: Vec::new(),
        for_nodes: Vec::new(),
    };
    SliceFacts {
        service: ObjectKey::new(namespace, service),
        ports: vec![(String::new(), Transport::Tcp, 8080)],
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

pub(in super::super) fn table(services: &[ServiceFacts], slices: &[SliceFacts]) -> Arc<Table> {
    let table = ServiceTable::new();
    fill(&table, services, slices);
    table.load()
}

fn fill(table: &ServiceTable, services: &[ServiceFacts], slices: &[SliceFacts]) {
    for service in services {
        table.apply_service(service.clone());
    }
    for (number, slice) in slices.iter().enumerate() {
        let id = ObjectKey::new(&slice.service.namespace, &format!("slice-{number}"));
        table.apply_slice(&id, slice.clone());
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn client() -> IpAddr {
    "10.42.0.99".parse().unwrap()
}

fn endpoints(table: &Table) -> Vec<String> {
    let port = table
        .by_address(Transport::Tcp, at("10.96.0.9:80"))
        .unwrap();
    let mut all: Vec<_> = port
        .candidates(client(), Origin::Inside)
        .map(|each| each.to_string())
        .collect();
    all.sort();
    all
}

#[test]
fn ready_endpoints_are_used_and_leaving_ones_only_when_alone() {
    for (given, want) in [
        (
            &[("10.0.0.1", true), ("10.0.0.2", false)][..],
            &["10.0.0.1:8080"][..],
        ),
        (
            &[("10.0.0.1", false), ("10.0.0.2", false)],
            &["10.0.0.1:8080", "10.0.0.2:8080"],
        ),
        (&[], &[]),
    ] {
        let table = table(
            &[service("a", "web", "10.96.0.9")],
            &[slice("a", "web", given)],
        );
        assert_eq!(endpoints(&table), want, "{given:?}");
    }
}

#[test]
fn turns_go_round_and_survive_an_update() {
    let services = ServiceTable::new();
    let both = [("10.0.0.1", true), ("10.0.0.2", true)];
    fill(
        &services,
        &[service("a", "web", "10.96.0.9")],
        &[slice("a", "web", &both)],
    );
    let first = |table: &Table| {
        let port = table
            .by_address(Transport::Tcp, at("10.96.0.9:80"))
            .unwrap();
        port.candidates(client(), Origin::Inside)
            .next()
            .unwrap()
            .ip()
            .to_string()
    };
    let one = first(&services.load());
    let mut changed = service("a", "web", "10.96.0.9");
    changed.ports[0].node_port = Some(30_080);
    services.apply_service(changed);
    let two = first(&services.load());
    assert_ne!(one, two);
    assert_eq!(first(&services.load()), one);
    assert!(
        services
            .load()
            .by_node_port(Transport::Tcp, 30_080)
            .is_some()
    );
}

#[test]
fn a_client_with_affinity_stays_until_its_endpoint_fails() {
    let mut sticky = service("a", "web", "10.96.0.9");
    sticky.affinity = Some(Duration::from_secs(60));
    let all = [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", true)];
    let table = table(&[sticky], &[slice("a", "web", &all)]);
    let port = table
        .by_address(Transport::Tcp, at("10.96.0.9:80"))
        .unwrap();
    let first = port.candidates(client(), Origin::Inside).next().unwrap();
    for _ in 0..5 {
        assert_eq!(
            port.candidates(client(), Origin::Inside).next(),
            Some(first)
        );
    }
    port.forget(client(), first);
    let next: Vec<_> = port.candidates(client(), Origin::Inside).collect();
    assert_eq!(next.len(), 3);
    assert_ne!(next[0], first);
}

#[test]
fn a_service_that_goes_leaves_nothing_behind() {
    let services = ServiceTable::new();
    let mut web = service("a", "web", "10.96.0.9");
    web.ports[0].node_port = Some(30_080);
    let key = web.key.clone();
    fill(
        &services,
        &[web],
        &[slice("a", "web", &[("10.0.0.1", true)])],
    );
    services.delete_service(&key);
    let table = services.load();
    assert!(
        table
            .by_address(Transport::Tcp, at("10.96.0.9:80"))
            .is_none()
    );
    assert!(!table.is_service_address("10.96.0.9".parse().unwrap()));
    assert_eq!(table.node_ports().count(), 0);
    assert!(table.by_name(&key).is_none());
}

#[test]
fn an_external_address_has_one_service_at_a_time() {
    let services = ServiceTable::new();
    for (name, ip) in [("one", "10.96.0.1"), ("two", "10.96.0.2")] {
        let mut facts = service("a", name, ip);
        facts.external_ips = vec!["192.0.2.1".parse().unwrap()];
        services.apply_service(facts);
    }
    let holder = || {
        let table = services.load();
        let port = table.by_external(Transport::Tcp, at("192.0.2.1:80"));
        port.map(|port| port.service.name.clone())
    };
    assert_eq!(holder().as_deref(), Some("one"));
    services.delete_service(&ObjectKey::new("a", "one"));
    assert_eq!(holder().as_deref(), Some("two"));
    services.delete_service(&ObjectKey::new("a", "two"));
    assert_eq!(holder(), None);
}

#[test]
fn a_slice_may_come_before_its_service_and_move_to_another() {
    let services = ServiceTable::new();
    let id = ObjectKey::new("a", "slice-x");
    services.apply_slice(&id, slice("a", "web", &[("10.0.0.1", true)]));
    services.apply_service(service("a", "web", "10.96.0.9"));
    assert_eq!(endpoints(&services.load()), ["10.0.0.1:8080"]);
    services.apply_slice(&id, slice("a", "other", &[("10.0.0.1", true)]));
    assert!(endpoints(&services.load()).is_empty());
    services.delete_slice(&id);
    services.delete_slice(&id);
}

#[test]
fn a_new_list_drops_what_it_does_not_hold() {
    let services = ServiceTable::new();
    fill(
        &services,
        &[service("a", "web", "10.96.0.9")],
        &[slice("a", "web", &[("10.0.0.1", true)])],
    );
    services.retain_slices(&std::collections::HashSet::new());
    assert!(endpoints(&services.load()).is_empty());
    services.retain_services(&std::collections::HashSet::new());
    assert!(
        !services
            .load()
            .is_service_address("10.96.0.9".parse().unwrap())
    );
}
