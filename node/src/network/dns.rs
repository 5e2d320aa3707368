//! The cluster's names, as a pod resolves them.
//!
//! WASI guests ask for addresses and nothing else, so there is no DNS server here: a pure function
//! over the service table answers, in the order a pod's `/etc/resolv.conf` would give
//! (`search <namespace>.svc.<domain> svc.<domain> <domain>`, `ndots:5`).
//!
//! Spec: the DNS-based service discovery of Kubernetes, version 1.1.0.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::PodNetworkRequest;
use super::follow::ObjectKey;
use super::service_table::Table;

/// Names with fewer dots are tried with the search domains first.
const NDOTS: usize = 5;

/// What a pod's lookups depend on besides the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PodNames {
    hostname: String,
    address: Ipv4Addr,
    search: Vec<String>,
    domain: String,
}

impl PodNames {
    pub(super) fn new(request: &PodNetworkRequest, domain: &str, address: Ipv4Addr) -> Self {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let usual = || {
            vec![
                format!("{}.svc.{domain}", request.namespace),
                format!("svc.{domain}"),
                domain.clone(),
            ]
        };
        Self {
            hostname: request.hostname.to_ascii_lowercase(),
            address,
            search: request.search.clone().unwrap_or_else(usual),
            domain,
        }
    }

    /// The full names to try, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        let absolute = name.trim_end_matches('.').to_owned();
        if name.ends_with('.') {
            return vec![absolute];
        }
        let searched = self.search.iter().map(|domain| format!("{name}.{domain}"));
        if name.matches('.').count() < NDOTS {
            searched.chain([absolute]).collect()
        } else {
            std::iter::once(absolute).chain(searched).collect()
        }
    }
}

/// What the cluster knows of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The addresses, never none.
    Addresses(Vec<IpAddr>),
    /// The cluster's name for another name, to be resolved in its turn.
    CanonicalName(String),
    /// A name of the cluster's domain that does not exist.
    NotFound,
    /// Not a name of the cluster: the host's resolver decides.
    Outside,
}

/// Resolves a name for a pod.
pub(super) fn resolve(table: &Table, names: &PodNames, name: &str) -> Answer {
    let name = name.to_ascii_lowercase();
    if let Ok(address) = name.parse() {
        return Answer::Addresses(vec![address]);
    }
    if name == "localhost" || name.ends_with(".localhost") {
        let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return Answer::Addresses(loopback.to_vec());
    }
    if name == names.hostname {
        return Answer::Addresses(vec![names.address.into()]);
    }
    let mut outside = false;
    for candidate in names.candidates(&name) {
        match cluster_part(&candidate, &names.domain) {
            Some(part) => match lookup(table, part) {
                Answer::NotFound => {}
                answer => return answer,
            },
            None => outside = true,
        }
    }
    if outside {
        Answer::Outside
    } else {
        Answer::NotFound
    }
}

/// The name without the cluster's domain, if it lies in it.
fn cluster_part<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let part = name.strip_suffix(domain)?;
    if part.is_empty() {
        Some(part)
    } else {
        part.strip_suffix('.')
    }
}

/// Looks up `service.namespace.svc`, `host.service.namespace.svc` and `1-2-3-4.namespace.pod`.
fn lookup(table: &Table, name: &str) -> Answer {
    let labels: Vec<&str> = name.split('.').collect();
    match labels.as_slice() {
        [service, namespace, "svc"] => service_records(table, namespace, service),
        [host, service, namespace, "svc"] => host_records(table, namespace, service, host),
        [address, _, "pod"] => match address.replace('-', ".").parse::<Ipv4Addr>() {
            Ok(address) => Answer::Addresses(vec![address.into()]),
            Err(_) => Answer::NotFound,
        },
        _ => Answer::NotFound,
    }
}

fn service_records(table: &Table, namespace: &str, name: &str) -> Answer {
    let Some(service) = table.by_name(&ObjectKey::new(namespace, name)) else {
        return Answer::NotFound;
    };
    match &service.external_name {
        Some(external) => Answer::CanonicalName(format!("{}.", external.trim_end_matches('.'))),
        None => addresses(service.addresses()),
    }
}

fn host_records(table: &Table, namespace: &str, service: &str, host: &str) -> Answer {
    let service = table.by_name(&ObjectKey::new(namespace, service));
    addresses(
        service
            .and_then(|service| service.hostnames.get(host))
            .cloned()
            .unwrap_or_default(),
    )
}

fn addresses(found: Vec<IpAddr>) -> Answer {
    if found.is_empty() {
        Answer::NotFound
    } else {
        Answer::Addresses(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::service_table::tests::{service, slice, table};
    use super::*;

    fn names() -> PodNames {
        let request = PodNetworkRequest {
            namespace: "shop".to_owned(),
            hostname: "web-0".to_owned(),
            ..PodNetworkRequest::default()
        };
        PodNames::new(&request, "cluster.local", Ipv4Addr::new(10, 42, 0, 5))
    }

    #[test]
    fn names_resolve_as_in_a_pod() {
        let mut db = service("data", "db", "None");
        db.cluster_ips.clear();
        let mut members = slice("data", "db", &[("10.42.0.7", true), ("10.42.0.8", true)]);
        members.endpoints[0].hostname = Some("db-0".to_owned());
        let mut away = service("shop", "away", "");
        away.cluster_ips.clear();
        away.external_name = Some("example.com".to_owned());
        let table = table(&[service("shop", "web", "10.96.0.9"), db, away], &[members]);
        let found =
            |list: &[&str]| Answer::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect());
        for (name, want) in [
            ("web", found(&["10.96.0.9"])),
            ("WEB", found(&["10.96.0.9"])),
            ("web.shop", found(&["10.96.0.9"])),
            ("web.shop.svc", found(&["10.96.0.9"])),
            ("web.shop.svc.cluster.local", found(&["10.96.0.9"])),
            ("web.shop.svc.cluster.local.", found(&["10.96.0.9"])),
            ("db.data", found(&["10.42.0.7", "10.42.0.8"])),
            ("db-0.db.data.svc.cluster.local", found(&["10.42.0.7"])),
            ("db-0.db.data", found(&["10.42.0.7"])),
            ("10-42-0-7.data.pod", found(&["10.42.0.7"])),
            ("localhost", found(&["127.0.0.1", "::1"])),
            ("web-0", found(&["10.42.0.5"])),
            ("192.0.2.1", found(&["192.0.2.1"])),
            ("away", Answer::CanonicalName("example.com.".to_owned())),
            ("db", Answer::Outside),
            ("example.com", Answer::Outside),
            ("nosuch.shop.svc.cluster.local.", Answer::NotFound),
            ("web.", Answer::Outside),
            ("notcluster.local", Answer::Outside),
        ] {
            assert_eq!(resolve(&table, &names(), name), want, "{name}");
        }
    }

    #[test]
    fn a_cluster_name_never_leaves_the_cluster() {
        let table = table(&[], &[]);
        // Five dots: tried as it is first; the searched forms lie in the cluster's domain too.
        assert_eq!(
            resolve(&table, &names(), "a.b.c.svc.cluster.local"),
            Answer::NotFound
        );
    }
}
