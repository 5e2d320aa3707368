//! The specification as a table of questions and answers.

use super::*;
use crate::network::service_table::PortFacts;
use crate::network::service_table::tests::{service, slice, table};

fn port(name: &str, transport: Transport, port: u16) -> PortFacts {
    PortFacts {
        name: name.to_owned(),
        transport,
        port,
        node_port: None,
        speaks_h2: false,
    }
}

/// A cluster with a Service of each sort.
fn cluster() -> std::sync::Arc<Table> {
    let mut web = service("shop", "web", "10.96.0.9");
    web.cluster_ips.push("fd00::9".parse().unwrap());
    web.ports = vec![
        port("http", Transport::Tcp, 80),
        port("quic", Transport::Udp, 443),
        port("", Transport::Tcp, 81),
    ];
    let mut db = service("data", "db", "None");
    db.ports = vec![port("sql", Transport::Tcp, 5432)];
    let mut members = slice(
        "data",
        "db",
        &[
            ("10.42.0.8", true),
            ("10.42.0.7", true),
            ("10.42.0.9", false),
        ],
    );
    members.ports = vec![("sql".to_owned(), Transport::Tcp, 15_432)];
    members.endpoints[1].hostname = Some("DB-0".to_owned());
    let mut sixes = slice("data", "db", &[("fd00:42::7", true)]);
    sixes.ports.clone_from(&members.ports);
    sixes.endpoints[0].hostname = Some("db-0".to_owned());
    let idle = service("data", "idle", "None");
    let waiting = slice("data", "idle", &[("10.42.0.20", false)]);
    let alias = |namespace: &str, name: &str, target: &str| {
        let mut alias = service(namespace, name, "");
        alias.external_name = Some(target.to_owned());
        alias
    };
    table(
        &[
            web,
            db,
            idle,
            service("default", "kubernetes", "10.96.0.1"),
            service("kube-system", "kube-dns", "10.96.0.10"),
            alias("shop", "away", "www.example.com"),
            alias("shop", "near", "web.shop.svc.cluster.local"),
            alias("shop", "lost", "nosuch.shop.svc.cluster.local."),
            alias("shop", "ring", "ring.shop.svc.cluster.local"),
        ],
        &[members, sixes, waiting],
    )
}

fn zone() -> Zone {
    Zone::new("Cluster.Local.", Some("10.42.0.0/16".parse().unwrap()))
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// An answer as one line: the code if it is not NOERROR, the data of the records, `soa` if it is negative, `->` and the
/// name outside that it leads to.
fn ask(text: &str, kind: RecordType) -> String {
    let line = |records: &[Record]| {
        records
            .iter()
            .map(|it| it.data.to_string())
            .collect::<Vec<_>>()
    };
    match zone().look_up(&cluster(), &name(text), kind) {
        Known::Outside => "outside".to_owned(),
        Known::Leads(records, next) => format!("{} -> {next}", line(&records).join(" | ")),
        Known::Reply(reply) => {
            let mut words = line(&reply.answers);
            if reply.code != ResponseCode::NoError {
                words.insert(0, format!("{:?}", reply.code));
            }
            let has_soa = reply
                .authority
                .iter()
                .any(|it| it.record_type() == RecordType::SOA);
            assert!(
                reply
                    .answers
                    .iter()
                    .chain(&reply.authority)
                    .all(|it| it.ttl == TTL)
            );
            if has_soa {
                words.push("soa".to_owned());
            }
            words.join(" | ")
        }
    }
}

#[test]
fn every_name_of_the_specification_has_its_records() {
    use RecordType::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
    for (question, kind, want) in [
        ("web.shop.svc.cluster.local", A, "10.96.0.9"),
        ("WeB.Shop.SVC.Cluster.LOCAL", A, "10.96.0.9"),
        ("web.shop.svc.cluster.local", AAAA, "fd00::9"),
        ("web.shop.svc.cluster.local", TXT, "soa"),
        ("kubernetes.default.svc.cluster.local", A, "10.96.0.1"),
        ("kubernetes.default.svc.cluster.local", AAAA, "soa"),
        // Headless: the ready ones.
        ("db.data.svc.cluster.local", A, "10.42.0.7 | 10.42.0.8"),
        ("db.data.svc.cluster.local", AAAA, "fd00:42::7"),
        ("db-0.db.data.svc.cluster.local", A, "10.42.0.7"),
        ("db-0.db.data.svc.cluster.local", AAAA, "fd00:42::7"),
        ("10-42-0-8.db.data.svc.cluster.local", A, "10.42.0.8"),
        ("10-42-0-8.db.data.svc.cluster.local", AAAA, "soa"),
        ("10-42-0-9.db.data.svc.cluster.local", A, "NXDomain | soa"),
        ("db-1.db.data.svc.cluster.local", A, "NXDomain | soa"),
        ("idle.data.svc.cluster.local", A, "NXDomain | soa"),
        // Ports.
        (
            "_http._tcp.web.shop.svc.cluster.local",
            SRV,
            "0 100 80 web.shop.svc.cluster.local.",
        ),
        (
            "_quic._udp.web.shop.svc.cluster.local",
            SRV,
            "0 100 443 web.shop.svc.cluster.local.",
        ),
        ("_http._tcp.web.shop.svc.cluster.local", A, "soa"),
        (
            "_http._udp.web.shop.svc.cluster.local",
            SRV,
            "NXDomain | soa",
        ),
        (
            "_nosuch._tcp.web.shop.svc.cluster.local",
            SRV,
            "NXDomain | soa",
        ),
        ("_._tcp.web.shop.svc.cluster.local", SRV, "NXDomain | soa"),
        ("_tcp.web.shop.svc.cluster.local", SRV, "soa"),
        ("_udp.db.data.svc.cluster.local", SRV, "NXDomain | soa"),
        (
            "_sql._tcp.db.data.svc.cluster.local",
            SRV,
            "0 50 15432 10-42-0-8.db.data.svc.cluster.local. | 0 50 15432 db-0.db.data.svc.cluster.local.",
        ),
        // Aliases.
        (
            "away.shop.svc.cluster.local",
            A,
            "www.example.com. -> www.example.com.",
        ),
        ("away.shop.svc.cluster.local", CNAME, "www.example.com."),
        (
            "near.shop.svc.cluster.local",
            A,
            "web.shop.svc.cluster.local. | 10.96.0.9",
        ),
        (
            "near.shop.svc.cluster.local",
            TXT,
            "web.shop.svc.cluster.local. | soa",
        ),
        (
            "lost.shop.svc.cluster.local",
            A,
            "NXDomain | nosuch.shop.svc.cluster.local. | soa",
        ),
        ("ring.shop.svc.cluster.local", A, "ServFail"),
        // Pods.
        ("10-42-0-7.data.pod.cluster.local", A, "10.42.0.7"),
        ("10-42-0-7.data.pod.cluster.local", AAAA, "soa"),
        ("fd00-42--7.data.pod.cluster.local", AAAA, "fd00:42::7"),
        ("10-42-0-07.data.pod.cluster.local", A, "NXDomain | soa"),
        ("web.data.pod.cluster.local", A, "NXDomain | soa"),
        // What only has names below it, and what has none.
        ("shop.svc.cluster.local", A, "soa"),
        ("nosuch.svc.cluster.local", A, "NXDomain | soa"),
        ("svc.cluster.local", A, "soa"),
        ("shop.pod.cluster.local", A, "soa"),
        ("a.b.c.d.e.svc.cluster.local", A, "NXDomain | soa"),
        ("web.cluster.local", A, "NXDomain | soa"),
        // The zone.
        (
            "cluster.local",
            SOA,
            "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
        ),
        ("cluster.local", NS, "ns.dns.cluster.local."),
        ("cluster.local", A, "soa"),
        ("ns.dns.cluster.local", A, "10.96.0.10"),
        ("dns-version.cluster.local", TXT, "1.1.0"),
        // Addresses.
        ("9.0.96.10.in-addr.arpa", PTR, "web.shop.svc.cluster.local."),
        ("9.0.96.10.in-addr.arpa", A, "soa"),
        (
            "7.0.42.10.in-addr.arpa",
            PTR,
            "db-0.db.data.svc.cluster.local.",
        ),
        (
            "8.0.42.10.in-addr.arpa",
            PTR,
            "10-42-0-8.db.data.svc.cluster.local.",
        ),
        ("9.0.42.10.in-addr.arpa", PTR, "NXDomain | soa"),
        (
            "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.4.0.0.0.0.d.f.ip6.arpa",
            PTR,
            "db-0.db.data.svc.cluster.local.",
        ),
        ("1.2.0.192.in-addr.arpa", PTR, "outside"),
        ("42.10.in-addr.arpa", PTR, "outside"),
        // Others'.
        ("example.com", A, "outside"),
        ("notcluster.local", A, "outside"),
        ("local", A, "outside"),
        (".", NS, "outside"),
    ] {
        assert_eq!(ask(question, kind), want, "{question} {kind}");
    }
}

#[test]
fn a_service_that_goes_takes_its_names_with_it() {
    use crate::network::service_table::ServiceTable;
    let services = ServiceTable::new();
    let key = ObjectKey::new("data", "db");
    services.apply_service(service("data", "db", "None"));
    services.apply_slice(&key, slice("data", "db", &[("10.42.0.7", true)]));
    let reverse = name("7.0.42.10.in-addr.arpa");
    let code = || match zone().look_up(&services.load(), &reverse, RecordType::PTR) {
        Known::Reply(reply) => reply.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(), ResponseCode::NoError);
    services.delete_service(&key);
    assert_eq!(code(), ResponseCode::NXDomain);
}

#[test]
fn labels_that_are_no_text_do_not_exist() {
    let odd = Name::from_labels([&b"\xff\xfe"[..], b"shop", b"svc", b"cluster", b"local"]).unwrap();
    match zone().look_up(&cluster(), &odd, RecordType::A) {
        Known::Reply(reply) => assert_eq!(reply.code, ResponseCode::NXDomain),
        other => panic!("{other:?}"),
    }
}
