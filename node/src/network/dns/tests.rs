//! The whole DNS of a node: pods that ask by WASI and by packets, the host, servers outside.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::SOA;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;
use windlass_api::grants::Egress;
use windlass_wasi_shims::net::{NetError, VirtualNetwork as _};

use super::super::service_table::PortFacts;
use super::super::service_table::tests::service;
use super::super::switch::Transport;
use super::super::{Network, NetworkConfig, PodNetwork, PodNetworkRequest};
use super::exchange::{read_framed, write_framed};
use super::*;

const DNS: &str = "10.96.0.10:53";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// What a server outside says to a question: addresses for names below `example`, nothing else exists.
fn answer_of(question: &Query) -> Message {
    let mut answer = Message::response(0, OpCode::Query);
    answer.queries.push(question.clone());
    let asked = question.name().to_ascii().to_ascii_lowercase();
    match (asked.as_str(), question.query_type()) {
        ("broken.example.", _) => answer.metadata.response_code = ResponseCode::ServFail,
        (other, RecordType::A) if other.ends_with(".example.") => {
            let data = RData::from(IpAddr::from([203, 0, 113, 7]));
            answer
                .answers
                .push(Record::from_rdata(question.name().clone(), 60, data));
        }
        (other, kind) => {
            if kind == RecordType::A || !other.ends_with(".example.") {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            let soa = SOA::new(name("ns.example"), name("m.example"), 1, 1, 1, 1, 60);
            answer
                .authorities
                .push(Record::from_rdata(name("example"), 60, RData::SOA(soa)));
        }
    }
    answer
}

/// A server outside; counts what it is asked.
struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Upstream {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                counted.fetch_add(1, Ordering::Relaxed);
                let heard = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = answer_of(&heard.queries[0]);
                // A forger guesses first.
                answer.metadata.id = heard.metadata.id.wrapping_add(1);
                socket
                    .send_to(&answer.to_vec().unwrap(), from)
                    .await
                    .unwrap();
                answer.metadata.id = heard.metadata.id;
                socket
                    .send_to(&answer.to_vec().unwrap(), from)
                    .await
                    .unwrap();
            }
        });
        Self {
            address,
            asked,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn network(resolvers: Resolvers) -> Network {
    let network = Network::new(NetworkConfig {
        resolvers,
        ..NetworkConfig::default()
    });
    network.set_pod_cidr("10.42.0.0/24".parse().unwrap());
    let mut dns = service("kube-system", "kube-dns", "10.96.0.10");
    dns.ports = [("dns", Transport::Udp), ("dns-tcp", Transport::Tcp)]
        .map(|(name, transport)| PortFacts {
            name: name.to_owned(),
            transport,
            port: 53,
            node_port: None,
            speaks_h2: false,
        })
        .to_vec();
    let mut away = service("shop", "away", "");
    away.external_name = Some("api.example".to_owned());
    for service in [dns, service("shop", "web", "10.96.0.9"), away] {
        network.0.services.apply_service(service);
    }
    network
}

fn pod(network: &Network, egress: Egress, spec: Value) -> PodNetwork {
    let mut spec = spec;
    spec["containers"] = json!([]);
    let request = PodNetworkRequest {
        namespace: "shop".to_owned(),
        hostname: "one".to_owned(),
        egress,
        dns: PodDns::of(&serde_json::from_value(spec).unwrap()),
        ..PodNetworkRequest::default()
    };
    network.set_up(&request).unwrap()
}

fn question(text: &str) -> (u16, Vec<u8>) {
    message::ask(&Query::query(name(text), RecordType::A)).unwrap()
}

fn shown(bytes: &[u8], id: u16) -> (ResponseCode, Vec<String>) {
    let message = Message::from_vec(bytes).unwrap();
    assert_eq!(message.metadata.id, id);
    let data = message.answers.iter().map(|it| it.data.to_string());
    (message.metadata.response_code, data.collect())
}

/// Asks by a datagram of the pod's.
async fn by_packet(pod: &PodNetwork, text: &str) -> (ResponseCode, Vec<String>) {
    let port = pod.bind_udp(at("0.0.0.0:0")).unwrap();
    let (id, bytes) = question(text);
    port.send(at(DNS), bytes.into()).unwrap();
    let heard = poll_fn(|cx| port.poll_receive(cx)).await.unwrap();
    assert_eq!(heard.from, at(DNS));
    shown(&heard.data, id)
}

async fn by_stream(pod: &PodNetwork, text: &str) -> (ResponseCode, Vec<String>) {
    let mut stream = pod.connect(None, at(DNS)).await.unwrap();
    let mut last = None;
    // One after the other on the same stream.
    for _ in 0..2 {
        let (id, bytes) = question(text);
        write_framed(&mut stream, &bytes).await.unwrap();
        last = Some(shown(&read_framed(&mut stream).await.unwrap(), id));
    }
    last.unwrap()
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|it| it.parse().unwrap()).collect()
}

#[tokio::test]
async fn a_pod_is_told_the_same_whichever_way_it_asks() {
    use ResponseCode::{NXDomain, NoError, Refused, ServFail};
    let upstream = Upstream::start().await;
    let network = network(Resolvers::Servers(vec![upstream.address]));
    let free = pod(&network, Egress::All, json!({}));
    let kept = pod(&network, Egress::Cluster, json!({}));
    let cluster = ["10.96.0.9"];
    let chain = ["api.example.", "203.0.113.7"];
    for (pod, text, packet, wasi) in [
        (
            &free,
            "web.shop.svc.cluster.local",
            (NoError, &cluster[..]),
            Ok(&cluster[..]),
        ),
        (
            &free,
            "www.example",
            (NoError, &["203.0.113.7"]),
            Ok(&["203.0.113.7"]),
        ),
        (
            &free,
            "away.shop.svc.cluster.local",
            (NoError, &chain),
            Ok(&["203.0.113.7"]),
        ),
        (
            &free,
            "nosuch.invalid",
            (NXDomain, &[]),
            Err(NetError::NameUnresolvable),
        ),
        (
            &free,
            "broken.example",
            (ServFail, &[]),
            Err(NetError::TemporaryResolverFailure),
        ),
        (
            &kept,
            "web.shop.svc.cluster.local",
            (NoError, &cluster),
            Ok(&cluster),
        ),
        (
            &kept,
            "www.example",
            (Refused, &[]),
            Err(NetError::NameUnresolvable),
        ),
        (
            &kept,
            "away.shop.svc.cluster.local",
            (Refused, &[]),
            Err(NetError::NameUnresolvable),
        ),
    ] {
        let want = (
            packet.0,
            packet.1.iter().map(|it| (*it).to_owned()).collect(),
        );
        assert_eq!(by_packet(pod, text).await, want, "{text} by packet");
        assert_eq!(by_stream(pod, text).await, want, "{text} by stream");
        assert_eq!(pod.resolve(text).await, wasi.map(addresses), "{text}");
    }
    let shut = pod(&network, Egress::None, json!({}));
    let port = shut.bind_udp(at("0.0.0.0:0")).unwrap();
    let sent = port.send(at(DNS), question("web.shop.svc.cluster.local").1.into());
    assert_eq!(sent, Err(NetError::AccessDenied));
    assert_eq!(shut.resolve("web").await, Ok(addresses(&cluster)));
}

#[tokio::test]
async fn what_was_answered_is_asked_once_and_so_is_what_many_ask_at_once() {
    let upstream = Upstream::start().await;
    let network = network(Resolvers::Servers(vec![upstream.address]));
    let free = pod(&network, Egress::All, json!({}));
    let many = (0..20).map(|_| by_packet(&free, "wWw.example"));
    for (code, data) in futures::future::join_all(many).await {
        assert_eq!(
            (code, data),
            (ResponseCode::NoError, vec!["203.0.113.7".to_owned()])
        );
    }
    assert_eq!(upstream.asked(), 1);
    by_packet(&free, "www.EXAMPLE").await;
    by_packet(&free, "nosuch.invalid").await;
    by_packet(&free, "nosuch.invalid").await;
    assert_eq!(upstream.asked(), 2, "a negative answer is kept too");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_fetched_by_a_stream() {
    let streams = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = streams.local_addr().unwrap();
    let datagrams = UdpSocket::bind(address).await.unwrap();
    let _short = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer).await {
            let mut answer = Message::from_vec(&buffer[..length])
                .unwrap()
                .into_response();
            answer.metadata.truncation = true;
            let bytes = answer.to_vec().unwrap();
            datagrams.send_to(&bytes, from).await.unwrap();
        }
    }));
    let _whole = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok((mut stream, _)) = streams.accept().await {
            let asked = Message::from_vec(&read_framed(&mut stream).await.unwrap()).unwrap();
            let mut answer = asked.clone().into_response();
            if asked.queries[0].query_type() == RecordType::A {
                let addresses = (0..100).map(|last| RData::from(IpAddr::from([203, 0, 113, last])));
                let of = asked.queries[0].name();
                let records = addresses.map(|data| Record::from_rdata(of.clone(), 60, data));
                answer.answers = records.collect();
            }
            let bytes = answer.to_vec().unwrap();
            write_framed(&mut stream, &bytes).await.unwrap();
        }
    }));
    let network = network(Resolvers::Servers(vec![address]));
    let free = pod(&network, Egress::All, json!({}));
    assert_eq!(free.resolve("www.example").await.unwrap().len(), 100);
    assert_eq!(by_stream(&free, "www.example").await.1.len(), 100);
    let (code, cut) = by_packet(&free, "www.example").await;
    assert_eq!(
        (code, cut.len()),
        (ResponseCode::NoError, 0),
        "and is cut for who asks by a datagram"
    );
}

#[tokio::test]
async fn packets_teach_the_names_that_rules_are_about() {
    use super::super::policy::NamePattern;
    let upstream = Upstream::start().await;
    let network = network(Resolvers::Servers(vec![upstream.address]));
    let free = pod(&network, Egress::All, json!({}));
    let pattern = NamePattern::of("api.example").unwrap();
    let knows = || free.0.known.fits(IpAddr::from([203, 0, 113, 7]), &pattern);
    assert!(!knows());
    by_packet(&free, "away.shop.svc.cluster.local").await;
    assert!(knows());
}

#[tokio::test]
async fn a_ring_of_servers_ends_with_its_first_question() {
    // The host's server asks the address that we answer the host at.
    let relay = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let network = network(Resolvers::Servers(vec![relay.local_addr().unwrap()]));
    let listener = DnsListener::bind(at("127.0.0.1:0")).await.unwrap();
    let ours = listener.address();
    let seen = Arc::new(Mutex::new(0));
    let counted = seen.clone();
    let _relaying = AbortOnDropHandle::new(tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = relay.recv_from(&mut buffer).await {
            *counted.lock().unwrap() += 1;
            let onward = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            onward.send_to(&buffer[..length], ours).await.unwrap();
            // The answer never comes: what we are asked waits for what we ask.
            drop((onward, from));
        }
    }));
    let serving = network.clone();
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        serving.serve_dns(listener).await;
    }));
    let free = pod(&network, Egress::All, json!({}));
    tokio::time::pause();
    let (code, _) = by_packet(&free, "www.example").await;
    assert_eq!(code, ResponseCode::ServFail);
    let questions = *seen.lock().unwrap();
    assert!((1..=2).contains(&questions), "{questions}");
}

#[tokio::test]
async fn a_server_that_is_this_one_is_not_asked() {
    let first = DnsListener::bind(at("127.0.0.1:0")).await.unwrap();
    let network = network(Resolvers::Servers(vec![first.address(), at(DNS)]));
    let address = first.address();
    let serving = network.clone();
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        serving.serve_dns(first).await;
    }));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (id, bytes) = question("www.example");
    client.send_to(&bytes, address).await.unwrap();
    let mut buffer = [0; 2048];
    let (length, _) = client.recv_from(&mut buffer).await.unwrap();
    assert_eq!(shown(&buffer[..length], id).0, ResponseCode::ServFail);
}

#[tokio::test]
async fn the_host_is_answered_by_both_transports_and_strangers_about_the_cluster_only() {
    let upstream = Upstream::start().await;
    let network = network(Resolvers::Servers(vec![upstream.address]));
    let listener = DnsListener::bind(at("127.0.0.1:0")).await.unwrap();
    let address = listener.address();
    let serving = network.clone();
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        serving.serve_dns(listener).await;
    }));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut buffer = [0; 2048];
    for (text, want) in [
        ("web.shop.svc.cluster.local", "10.96.0.9"),
        ("www.example", "203.0.113.7"),
    ] {
        let (id, bytes) = question(text);
        client.send_to(&bytes, address).await.unwrap();
        let (length, _) = client.recv_from(&mut buffer).await.unwrap();
        let want = (ResponseCode::NoError, vec![want.to_owned()]);
        assert_eq!(shown(&buffer[..length], id), want);
        write_framed(&mut stream, &bytes).await.unwrap();
        assert_eq!(shown(&read_framed(&mut stream).await.unwrap(), id), want);
    }
    stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert_eq!(
        stream.read(&mut buffer).await.unwrap(),
        0,
        "noise ends a stream"
    );
    let asked = upstream.asked();
    let outside = Query::query(name("new.example"), RecordType::A);
    let reply = network.0.answer(&Asker::Stranger, &outside).await;
    assert_eq!(
        (reply.code, upstream.asked()),
        (ResponseCode::Refused, asked)
    );
    let answered = network.host().dns_answers();
    assert_eq!(answered, [("A", "NOERROR", 4), ("A", "REFUSED", 1)]);
}

#[tokio::test]
async fn a_pod_asks_the_servers_that_it_names_by_its_own_network() {
    let network = network(Resolvers::Servers(Vec::new()));
    let server = pod(&network, Egress::All, json!({}));
    let ip = server.ip();
    let port = server.bind_udp(SocketAddr::new(ip, 53)).unwrap();
    let _serving = AbortOnDropHandle::new(tokio::spawn(async move {
        while let Ok(heard) = poll_fn(|cx| port.poll_receive(cx)).await {
            let question = Message::from_vec(&heard.data).unwrap();
            let mut answer = answer_of(&question.queries[0]);
            answer.metadata.id = question.metadata.id;
            port.send(heard.from, answer.to_vec().unwrap().into())
                .unwrap();
        }
    }));
    let own = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": [ip.to_string()],
        "searches": ["nosuch.invalid", "corp.example"]}});
    let asks = pod(&network, Egress::Cluster, own.clone());
    assert_eq!(asks.resolve("www").await, Ok(addresses(&["203.0.113.7"])));
    let cluster = asks.resolve("web.shop.svc.cluster.local.").await;
    assert_eq!(
        cluster,
        Err(NetError::NameUnresolvable),
        "that server knows no cluster"
    );
    let shut = pod(&network, Egress::None, own);
    assert_eq!(shut.resolve("www").await, Err(NetError::NameUnresolvable));
    // The address of the cluster's DNS is the cluster's DNS.
    let named = json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.96.0.10"], "searches": ["svc.cluster.local"]}});
    let named = pod(&network, Egress::Cluster, named);
    assert_eq!(
        named.resolve("web.shop").await,
        Ok(addresses(&["10.96.0.9"]))
    );
}

#[tokio::test]
async fn a_pod_with_the_hosts_names_has_no_cluster_names() {
    let upstream = Upstream::start().await;
    let network = network(Resolvers::Servers(vec![upstream.address]));
    let host = pod(&network, Egress::All, json!({"dnsPolicy": "Default"}));
    assert_eq!(
        host.resolve("www.example").await,
        Ok(addresses(&["203.0.113.7"]))
    );
    let cluster = host.resolve("web.shop.svc.cluster.local").await;
    assert_eq!(cluster, Err(NetError::NameUnresolvable));
}

#[tokio::test]
async fn a_flood_is_answered_that_there_is_no_room() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let network = network(Resolvers::Servers(vec![silent.local_addr().unwrap()]));
    let free = pod(&network, Egress::All, json!({}));
    let port = free.bind_udp(at("0.0.0.0:0")).unwrap();
    for number in 0..=MAX_WAITING_OF_POD {
        let bytes = question(&format!("n{number}.example")).1;
        port.send(at(DNS), bytes.into()).unwrap();
    }
    let heard = poll_fn(|cx| port.poll_receive(cx)).await.unwrap();
    let answer = Message::from_vec(&heard.data).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    let last = name(&format!("n{MAX_WAITING_OF_POD}.example"));
    assert_eq!(answer.queries[0].name(), &last);
}

#[tokio::test]
async fn several_addresses_take_turns() {
    use super::super::follow::ObjectKey;
    use super::super::service_table::tests::slice;
    let network = network(Resolvers::Servers(Vec::new()));
    network
        .0
        .services
        .apply_service(service("shop", "db", "None"));
    let members = slice("shop", "db", &[("10.42.0.7", true), ("10.42.0.8", true)]);
    network
        .0
        .services
        .apply_slice(&ObjectKey::new("shop", "db-1"), members);
    let free = pod(&network, Egress::All, json!({}));
    let mut first = Vec::new();
    for _ in 0..2 {
        first.push(
            by_packet(&free, "db.shop.svc.cluster.local")
                .await
                .1
                .remove(0),
        );
    }
    first.sort();
    assert_eq!(first, ["10.42.0.7", "10.42.0.8"]);
}
