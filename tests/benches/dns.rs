//! DNS: questions a second about names of a cluster with 1,000 Services, by UDP and loopback.
//!
//! The reference is a server that sends each datagram back, asked in the same way in the same run: what is left is the
//! cost of kernel and client. Criterion judges each figure against its own past; the table at the end compares them.

use std::cell::RefCell;
use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use windlass_tests::Cluster;

const SERVICES: usize = 1000;
/// Questions on their way at once.
const WINDOW: usize = 32;
/// Questions of one measurement.
const BATCH: usize = 2000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = must(Runtime::new());
    let (cluster, echo) = must(runtime.block_on(servers()));
    let dns = cluster.dns_address();
    let rates = RefCell::new(Vec::new());
    let mut group = criterion.benchmark_group("dns");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (what, server, kind) in [
        ("echo", echo, RecordType::A),
        ("a of a service", dns, RecordType::A),
        ("srv of a port", dns, RecordType::SRV),
        ("no such name", dns, RecordType::PTR),
    ] {
        let packets = must(questions(kind));
        let spent = RefCell::new((Duration::ZERO, 0_u64));
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|rounds| {
                let took = must(runtime.block_on(drive(server, &packets, rounds)));
                let mut spent = spent.borrow_mut();
                *spent = (spent.0 + took, spent.1 + rounds);
                took
            });
        });
        let (time, rounds) = spent.into_inner();
        let count = rounds as f64 * BATCH as f64;
        rates
            .borrow_mut()
            .push((what, count / time.as_secs_f64().max(f64::MIN_POSITIVE)));
    }
    group.finish();
    criterion.final_summary();
    print(&rates.into_inner());
    runtime.block_on(cluster.shutdown());
}

/// A benchmark cannot go on from a failure.
#[expect(clippy::panic, reason = "a failed benchmark has no figure to report")]
fn must<T, E: Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error:#}"))
}

fn print(rates: &[(&str, f64)]) {
    let echo = rates.iter().find(|(what, _)| *what == "echo");
    let echo = echo.map_or(f64::NAN, |(_, rate)| *rate);
    println!("\n| question | a second | of plain echo |");
    println!("| --- | --: | --: |");
    for (what, rate) in rates {
        println!("| {what} | {rate:.0} | {:.2}× |", rate / echo);
    }
}

/// A cluster that knows its Services, and a server that sends back what it gets.
async fn servers() -> anyhow::Result<(Cluster, SocketAddr)> {
    let cluster = Cluster::with_node().await?;
    for number in 0..SERVICES {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("web-{number}")},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        });
        let path = "/api/v1/namespaces/default/services";
        cluster.create(path, &service).await?;
    }
    // The last one made is the last one heard of.
    let last = packet(&format!("web-{}", SERVICES - 1), RecordType::A)?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    let mut buffer = [0; 2048];
    loop {
        socket.send_to(&last, cluster.dns_address()).await?;
        let (length, _) = socket.recv_from(&mut buffer).await?;
        let answer = Message::from_vec(buffer.get(..length).unwrap_or_default())?;
        if answer.metadata.response_code == ResponseCode::NoError {
            break;
        }
    }
    let echo = UdpSocket::bind("127.0.0.1:0").await?;
    let address = echo.local_addr()?;
    tokio::spawn(async move {
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            let _lost = echo
                .send_to(buffer.get(..length).unwrap_or_default(), from)
                .await;
        }
    });
    Ok((cluster, address))
}

fn packet(service: &str, kind: RecordType) -> anyhow::Result<Vec<u8>> {
    let name = match kind {
        RecordType::SRV => format!("_http._tcp.{service}.default.svc.cluster.local."),
        // What is asked for addresses that pods do not have.
        RecordType::PTR => "9.9.191.10.in-addr.arpa.".to_owned(),
        _ => format!("{service}.default.svc.cluster.local."),
    };
    let mut message = Message::query();
    message
        .queries
        .push(Query::query(Name::from_ascii(name)?, kind));
    Ok(message.to_vec()?)
}

fn questions(kind: RecordType) -> anyhow::Result<Vec<Vec<u8>>> {
    let all = 0..SERVICES;
    all.map(|number| packet(&format!("web-{number}"), kind))
        .collect()
}

/// Asks [`BATCH`] questions `rounds` times, [`WINDOW`] at once; how long it took.
async fn drive(server: SocketAddr, packets: &[Vec<u8>], rounds: u64) -> anyhow::Result<Duration> {
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(server).await?;
    let total = usize::try_from(rounds)? * BATCH;
    let mut next = packets.iter().cycle().take(total);
    let mut buffer = [0; 2048];
    let start = Instant::now();
    for packet in next.by_ref().take(WINDOW) {
        socket.send(packet).await?;
    }
    for _ in 0..total {
        // Loopback loses nothing while so few are on their way.
        socket.recv(&mut buffer).await?;
        if let Some(packet) = next.next() {
            socket.send(packet).await?;
        }
    }
    Ok(start.elapsed())
}
