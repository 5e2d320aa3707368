//! The names of the cluster: a pure function from the service table and a question to records.
//!
//! | name, below the cluster's domain | records |
//! |---|---|
//! | `SERVICE.NS.svc` | A, AAAA: its own addresses, or its ready endpoints' if it is headless; CNAME of an ExternalName |
//! | `HOST.SERVICE.NS.svc` | A, AAAA of that endpoint |
//! | `_PORT._PROTOCOL.SERVICE.NS.svc` | SRV: the Service, or each ready endpoint if it is headless |
//! | `10-1-2-3.NS.pod` | A, AAAA: the address itself |
//! | `dns-version` | TXT |
//! | the domain itself, `ns.dns` | SOA and NS; A of the cluster's DNS |
//!
//! `in-addr.arpa` and `ip6.arpa`: PTR of Services' addresses and of headless Services' endpoints.
//!
//! A name without records that others lie below has no data (NODATA); one that nothing is known of does not exist
//! (NXDOMAIN). Either comes with the SOA record that says for how long.
//!
//! Spec: the DNS-based service discovery of Kubernetes, version 1.1.0. Where it is silent, as CoreDNS does it.

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::network::Cidr;
use crate::network::follow::ObjectKey;
use crate::network::service_table::{NamedEndpoint, ServiceEntry, Table, label_of};
use crate::network::switch::Transport;

/// How long the cluster's records count, in seconds: as long as CoreDNS says.
const TTL: u32 = 5;

/// How many ExternalName Services are followed for one question.
const MAX_ALIASES: usize = 8;

/// The version of the specification that these names follow.
const VERSION: &str = "1.1.0";

/// What is answered to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct Reply {
    pub(in crate::network) code: ResponseCode,
    pub(in crate::network) answers: Vec<Record>,
    /// Says how long a negative answer counts.
    pub(in crate::network) authority: Vec<Record>,
    /// Whether it comes from who decides about the name.
    pub(in crate::network) authoritative: bool,
}

impl Reply {
    /// An answer of nothing but a code.
    pub(in crate::network) fn code(code: ResponseCode) -> Self {
        Self {
            code,
            answers: Vec::new(),
            authority: Vec::new(),
            authoritative: false,
        }
    }

    /// The addresses among the answers.
    pub(in crate::network) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.answers
            .iter()
            .filter_map(|record| record.data.ip_addr())
    }
}

/// What the cluster knows of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) enum Known {
    /// All there is to say.
    Reply(Reply),
    /// Records that lead to a name outside, whose records belong to the answer.
    Leads(Vec<Record>, Name),
    /// Not a name of the cluster.
    Outside,
}

/// What stands at a name of the cluster.
enum Node<'a> {
    /// Nothing, nor anything below.
    Missing,
    /// Nothing, but names below it.
    Empty,
    Apex,
    Version,
    Addresses(Vec<IpAddr>),
    Alias(&'a str),
    /// Number of the port and the name of the server; the share of each.
    Servers(Vec<(u16, String)>),
}

/// The cluster's domain and its ranges.
#[derive(Debug, Clone)]
pub(in crate::network) struct Zone {
    domain: Name,
    /// As text in lower case, without the last dot.
    text: String,
    pods: Option<Cidr>,
}

impl Zone {
    /// The zone of a domain; addresses of `pods` that nothing is known of have no names.
    pub(in crate::network) fn new(domain: &str, pods: Option<Cidr>) -> Self {
        let text = domain.trim_matches('.').to_ascii_lowercase();
        let mut parsed = Name::from_ascii(&text).unwrap_or_else(|error| {
            tracing::error!(%error, domain, "not a domain: the cluster's names are not resolved");
            Name::root()
        });
        parsed.set_fqdn(true);
        Self {
            domain: parsed,
            text,
            pods,
        }
    }

    /// The domain, in lower case and without the last dot.
    pub(in crate::network) fn domain(&self) -> &str {
        &self.text
    }

    /// Looks a full name up, and the names that it leads to.
    pub(in crate::network) fn look_up(
        &self,
        table: &Table,
        name: &Name,
        kind: RecordType,
    ) -> Known {
        let mut records = Vec::new();
        let mut next = name.clone();
        for _ in 0..MAX_ALIASES {
            match self.step(table, &next, kind) {
                Step::Records(found) => {
                    records.extend(found);
                    return Known::Reply(self.reply(ResponseCode::NoError, records));
                }
                Step::Negative(code, soa) => {
                    let mut reply = self.reply(code, records);
                    reply.authority.push(soa);
                    return Known::Reply(reply);
                }
                Step::Alias(record, target) => {
                    records.push(record);
                    next = target;
                }
                Step::Outside if records.is_empty() => return Known::Outside,
                Step::Outside => return Known::Leads(records, next),
            }
        }
        // A ring of aliases.
        Known::Reply(Reply::code(ResponseCode::ServFail))
    }

    fn reply(&self, code: ResponseCode, answers: Vec<Record>) -> Reply {
        Reply {
            code,
            answers,
            authority: Vec::new(),
            authoritative: true,
        }
    }

    fn step(&self, table: &Table, name: &Name, kind: RecordType) -> Step {
        // A root domain is one that could not be read.
        if !self.domain.is_root() && self.domain.zone_of(name) {
            return self.forward(table, name, kind);
        }
        match name.parse_arpa_name() {
            Ok(net) if net.prefix_len() == net.max_prefix_len() => {
                self.reverse(table, name, net.addr(), kind)
            }
            _ => Step::Outside,
        }
    }

    fn forward(&self, table: &Table, name: &Name, kind: RecordType) -> Step {
        let lower = name.to_lowercase();
        let inner = usize::from(lower.num_labels()) - usize::from(self.domain.num_labels());
        let labels = lower.iter().take(inner).map(std::str::from_utf8);
        let Ok(labels) = labels.collect::<Result<Vec<_>, _>>() else {
            return Step::Negative(ResponseCode::NXDomain, self.soa(&self.domain));
        };
        let data = match node(table, &labels) {
            Node::Missing => {
                return Step::Negative(ResponseCode::NXDomain, self.soa(&self.domain));
            }
            Node::Alias(target) => match Name::from_ascii(target) {
                Ok(mut target) => {
                    target.set_fqdn(true);
                    let record = record(name, RData::CNAME(CNAME(target.clone())));
                    return if kind == RecordType::CNAME {
                        Step::Records(vec![record])
                    } else {
                        Step::Alias(record, target)
                    };
                }
                // What no question could be asked about.
                Err(_) => Vec::new(),
            },
            Node::Empty => Vec::new(),
            Node::Apex => self.apex(kind),
            Node::Version => vec![RData::TXT(TXT::new(vec![VERSION.to_owned()]))],
            Node::Addresses(found) => found.into_iter().map(RData::from).collect(),
            Node::Servers(servers) => self.servers(servers),
        };
        self.of_kind(name, kind, data, &self.domain)
    }

    /// The records of a name that are of the kind asked for, or that there are none.
    fn of_kind(&self, name: &Name, kind: RecordType, data: Vec<RData>, zone: &Name) -> Step {
        let fits = data.into_iter().filter(|data| data.record_type() == kind);
        let found: Vec<_> = fits.map(|data| record(name, data)).collect();
        if found.is_empty() {
            Step::Negative(ResponseCode::NoError, self.soa(zone))
        } else {
            Step::Records(found)
        }
    }

    fn apex(&self, kind: RecordType) -> Vec<RData> {
        match kind {
            RecordType::SOA => vec![self.soa(&self.domain).data],
            RecordType::NS => vec![RData::NS(NS(self.server()))],
            _ => Vec::new(),
        }
    }

    fn servers(&self, servers: Vec<(u16, String)>) -> Vec<RData> {
        let share = 100 / u16::try_from(servers.len().clamp(1, 100)).unwrap_or(100);
        let data = servers.into_iter().filter_map(|(port, target)| {
            let target = self.below(&target)?;
            Some(RData::SRV(SRV::new(0, share, port, target)))
        });
        data.collect()
    }

    /// The full name of one below the domain.
    fn below(&self, relative: &str) -> Option<Name> {
        let relative = Name::from_ascii(relative).ok()?;
        relative.append_domain(&self.domain).ok()
    }

    fn server(&self) -> Name {
        self.below("ns.dns").unwrap_or_else(Name::root)
    }

    /// Who answers for the zone, and how long a negative answer counts.
    fn soa(&self, zone: &Name) -> Record {
        let mailbox = self.below("hostmaster").unwrap_or_else(Name::root);
        // Nobody transfers the zone, so nobody compares serials.
        let soa = SOA::new(self.server(), mailbox, 1, 7200, 1800, 86_400, TTL);
        record(zone, RData::SOA(soa))
    }

    fn reverse(&self, table: &Table, name: &Name, address: IpAddr, kind: RecordType) -> Step {
        let mut names = Vec::new();
        if let Some(ObjectKey { namespace, name }) = table.by_cluster_ip(address) {
            names.push(format!("{name}.{namespace}.svc"));
        }
        for key in table.headless_at(address) {
            let entry = table.by_name(key);
            let endpoints = entry.map_or(&[][..], ServiceEntry::headless).iter();
            let hosts = endpoints.filter(|endpoint| endpoint.address == address);
            names.extend(hosts.map(|endpoint| host_name(key, endpoint)));
        }
        if names.is_empty() {
            return if self.pods.is_some_and(|pods| pods.contains(address)) {
                // Each such name is a zone of its own: the ranges need not end at a dot.
                Step::Negative(ResponseCode::NXDomain, self.soa(name))
            } else {
                Step::Outside
            };
        }
        let full = names.iter().filter_map(|name| self.below(name));
        let data = full.map(|name| RData::PTR(PTR(name))).collect();
        self.of_kind(name, kind, data, name)
    }
}

/// What one name says.
enum Step {
    Records(Vec<Record>),
    Negative(ResponseCode, Record),
    Alias(Record, Name),
    Outside,
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL, data)
}

fn host_name(key: &ObjectKey, endpoint: &NamedEndpoint) -> String {
    format!("{}.{}.{}.svc", endpoint.host, key.name, key.namespace)
}

/// What stands at the labels, which are in lower case and without the cluster's domain.
fn node<'a>(table: &'a Table, labels: &[&str]) -> Node<'a> {
    match labels {
        [] => Node::Apex,
        ["dns-version"] => Node::Version,
        ["ns", "dns"] => found(table.dns_addresses().to_vec()),
        ["dns" | "svc" | "pod"] | [_, "pod"] => Node::Empty,
        [namespace, "svc"] if table.has_services_in(namespace) => Node::Empty,
        [service, namespace, "svc"] => {
            with_service(table, namespace, service, |entry, _| service_node(entry))
        }
        [host, service, namespace, "svc"] => {
            with_service(table, namespace, service, |entry, _| host_node(entry, host))
        }
        [port, protocol, service, namespace, "svc"] => {
            with_service(table, namespace, service, |entry, key| {
                port_node(entry, key, port, protocol)
            })
        }
        [label, _, "pod"] => address_of(label).map_or(Node::Missing, |it| found(vec![it])),
        _ => Node::Missing,
    }
}

fn with_service<'a>(
    table: &'a Table,
    namespace: &str,
    service: &str,
    then: impl FnOnce(&'a ServiceEntry, &ObjectKey) -> Node<'a>,
) -> Node<'a> {
    let key = ObjectKey::new(namespace, service);
    table
        .by_name(&key)
        .map_or(Node::Missing, |entry| then(entry, &key))
}

fn found<'a>(mut addresses: Vec<IpAddr>) -> Node<'a> {
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        // Spec: a headless Service without ready endpoints does not exist.
        Node::Missing
    } else {
        Node::Addresses(addresses)
    }
}

fn service_node(entry: &ServiceEntry) -> Node<'_> {
    match &entry.external_name {
        Some(target) => Node::Alias(target),
        None if entry.cluster_ips.is_empty() => {
            found(entry.headless().iter().map(|each| each.address).collect())
        }
        None => found(entry.cluster_ips.clone()),
    }
}

/// The transport of a label such as `_tcp`.
fn transport_of(label: &str) -> Option<Transport> {
    match label {
        "_tcp" => Some(Transport::Tcp),
        "_udp" => Some(Transport::Udp),
        _ => None,
    }
}

fn host_node<'a>(entry: &ServiceEntry, host: &str) -> Node<'a> {
    if let Some(wanted) = transport_of(host) {
        // The labels of ports lie below this one.
        let own = entry.ports().map(|(name, over, _)| (name, over));
        let of_endpoints = entry.headless().iter().flat_map(NamedEndpoint::ports);
        let mut all = own.chain(of_endpoints);
        let any = all.any(|(name, over)| over == wanted && !name.is_empty());
        return if any { Node::Empty } else { Node::Missing };
    }
    found(entry.hosts(host).map(|each| each.address).collect())
}

fn port_node<'a>(entry: &ServiceEntry, key: &ObjectKey, port: &str, protocol: &str) -> Node<'a> {
    let (Some(name), Some(transport)) = (port.strip_prefix('_'), transport_of(protocol)) else {
        return Node::Missing;
    };
    let mut servers: Vec<_> = if entry.cluster_ips.is_empty() {
        let of_endpoint = |endpoint: &NamedEndpoint| {
            let number = endpoint.port(name, transport)?;
            Some((number, host_name(key, endpoint)))
        };
        entry.headless().iter().filter_map(of_endpoint).collect()
    } else {
        let own = entry.ports();
        let fitting = own.filter(|(of, over, _)| *of == name && *over == transport);
        fitting
            .map(|(.., number)| (number, format!("{}.{}.svc", key.name, key.namespace)))
            .collect()
    };
    // A host with an address of each family is one server.
    servers.sort_unstable();
    servers.dedup();
    if servers.is_empty() || name.is_empty() {
        Node::Missing
    } else {
        Node::Servers(servers)
    }
}

/// The address that a pod's label stands for: `10-1-2-3`, `2001-db8--1`.
fn address_of(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().ok();
    let address = v4.or_else(|| label.replace('-', ":").parse().ok())?;
    // Of an address's spellings one is its label.
    (label_of(address) == label).then_some(address)
}

#[cfg(test)]
mod tests;
