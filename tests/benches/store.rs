//! Durable commits, lists and the fan-out of watches.
//!
//! - `commits`: the store over its redb file with 1 and with 64 writers, against raw redb with the
//!   very rows that the store writes, one to a transaction and 64 to a transaction. Both are on a fresh
//!   file with immediate durability.
//! - `list`: 1,000 and 10,000 ConfigMaps through the API, without a socket.
//! - `watch`: one write through the API until each of 1, 100 and 1,000 watchers has its event.
//!
//! Criterion judges each figure against its own past. What compares figures of one run is the table
//! printed at the end, made of the same iterations.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use windlass_control::store::local::LocalStore;
use windlass_control::store::redb::RedbBackend;
use windlass_control::store::transform::Plain;
use windlass_control::store::{Change, ObjectKey, Operation, Pairs, Precondition, Record, Store};
use windlass_tests::Cluster;

/// Writers at once, and rows of a raw transaction that batches.
const MANY: u64 = 64;
/// Objects that commits write again and again.
const OBJECTS: u64 = 1024;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// The store's own table: what is written is read from it, so that raw redb writes the same.
const LOG: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("log");

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let runtime = must(Runtime::new());
    let tally = Tally::default();
    commits(&mut criterion, &runtime, &tally);
    lists(&mut criterion, &runtime, &tally);
    watches(&mut criterion, &runtime, &tally);
    criterion.final_summary();
    tally.print();
}

/// A benchmark cannot go on from a failure, and criterion's closures cannot return one.
#[expect(clippy::panic, reason = "a failed benchmark has no figure to report")]
fn must<T, E: Display>(outcome: Result<T, E>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error:#}"))
}

/// What every benchmark did in how long, warming up included.
#[derive(Default)]
struct Tally(RefCell<Vec<(String, f64, Duration)>>);

/// Figure, the one it is compared with.
const COMPARED: &[(&str, &str)] = &[
    (
        "commits: store, 1 writer",
        "commits: raw redb, 1 a transaction",
    ),
    (
        "commits: store, 64 writers",
        "commits: raw redb, 1 a transaction",
    ),
    (
        "commits: store, 64 writers",
        "commits: raw redb, 64 a transaction",
    ),
    ("list: objects of 10000", "list: objects of 1000"),
    (
        "watch: events to 100 watchers",
        "watch: events to 1 watchers",
    ),
    (
        "watch: events to 1000 watchers",
        "watch: events to 1 watchers",
    ),
];

impl Tally {
    fn add(&self, figure: &str, units: f64, took: Duration) -> Duration {
        let mut figures = self.0.borrow_mut();
        match figures.iter_mut().find(|(name, ..)| name == figure) {
            Some((_, all, time)) => {
                *all += units;
                *time += took;
            }
            None => figures.push((figure.to_owned(), units, took)),
        }
        took
    }

    fn rate(&self, figure: &str) -> Option<f64> {
        let figures = self.0.borrow();
        let (_, units, took) = figures.iter().find(|(name, ..)| name == figure)?;
        (!took.is_zero()).then(|| units / took.as_secs_f64())
    }

    /// Prints the comparisons of which both sides ran.
    fn print(&self) {
        println!("\n| figure | per second | reference | per second | ratio |");
        println!("| --- | --: | --- | --: | --: |");
        for (figure, reference) in COMPARED {
            if let (Some(own), Some(other)) = (self.rate(figure), self.rate(reference)) {
                let ratio = own / other;
                println!("| {figure} | {own:.0} | {reference} | {other:.0} | {ratio:.2}× |");
            }
        }
    }
}

/// An object like those that clients write.
fn config_map(n: u64, text: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": format!("settings-{n:05}"),
            "namespace": "default",
            "resourceVersion": "",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": "bench", "shard": (n % 16).to_string()},
        },
        "data": {"text": text, "more": "x".repeat(512)},
    })
}

/// What one write commits.
fn operation(n: u64) -> Operation {
    let n = n % OBJECTS;
    let record = must(Record::encode(&config_map(n, "a value"), Pairs::default()));
    Operation {
        key: ObjectKey::new("", "configmaps", "default", &format!("settings-{n:05}")),
        precondition: Precondition::Any,
        change: Change::Put(record),
    }
}

fn open_store(directory: &Path) -> LocalStore {
    let backend = must(RedbBackend::open(&directory.join("store.redb")));
    must(LocalStore::open(Box::new(backend), Box::new(Plain)))
}

/// A row as the store writes it.
fn stored_row(runtime: &Runtime) -> Vec<u8> {
    let directory = must(tempfile::tempdir());
    let store = open_store(directory.path());
    must(runtime.block_on(store.commit(vec![operation(0)])));
    drop(store);
    let database = must(Database::open(directory.path().join("store.redb")));
    let transaction = must(database.begin_read());
    let log = must(transaction.open_table(LOG));
    let first = must(must(log.first()).ok_or("the store wrote no row"));
    first.1.value().to_vec()
}

fn commits(criterion: &mut Criterion, runtime: &Runtime, tally: &Tally) {
    let mut group = criterion.benchmark_group("commits");
    for (writers, figure) in [
        (1, "commits: store, 1 writer"),
        (MANY, "commits: store, 64 writers"),
    ] {
        let directory = must(tempfile::tempdir());
        let store = Arc::new(open_store(directory.path()));
        let operations: Arc<[_]> = (0..OBJECTS).map(operation).collect();
        group.throughput(Throughput::Elements(writers));
        group.bench_function(BenchmarkId::new("store/writers", writers), |bencher| {
            bencher.iter_custom(|rounds| {
                let took = runtime.block_on(write(&store, &operations, writers, rounds));
                tally.add(figure, (writers * rounds) as f64, took)
            });
        });
    }
    let row = stored_row(runtime);
    for (rows, figure) in [
        (1, "commits: raw redb, 1 a transaction"),
        (MANY, "commits: raw redb, 64 a transaction"),
    ] {
        let directory = must(tempfile::tempdir());
        let database = must(Database::create(directory.path().join("raw.redb")));
        let mut next = 0;
        group.throughput(Throughput::Elements(rows));
        group.bench_function(BenchmarkId::new("redb/rows", rows), |bencher| {
            bencher.iter_custom(|rounds| {
                let started = Instant::now();
                for _ in 0..rounds {
                    must(raw_transaction(&database, &row, next, rows));
                    next += rows;
                }
                tally.add(figure, (rows * rounds) as f64, started.elapsed())
            });
        });
    }
    group.finish();
}

/// `writers` tasks make `rounds` commits each, one after the other.
async fn write(
    store: &Arc<LocalStore>,
    operations: &Arc<[Operation]>,
    writers: u64,
    rounds: u64,
) -> Duration {
    let started = Instant::now();
    let tasks = (0..writers).map(|writer| {
        let (store, operations) = (Arc::clone(store), Arc::clone(operations));
        tokio::spawn(async move {
            // Every writer has objects of its own, so that none waits for another's.
            let own = operations
                .iter()
                .skip(writer as usize)
                .step_by(MANY as usize);
            for operation in own.cycle().take(rounds as usize) {
                must(store.commit(vec![operation.clone()]).await);
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(must);
    started.elapsed()
}

fn raw_transaction(
    database: &Database,
    row: &[u8],
    first: u64,
    rows: u64,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut log = transaction.open_table(LOG)?;
        for at in first..first + rows {
            log.insert((at, 0), row)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

/// A control plane in memory with this many ConfigMaps of ours.
async fn cluster_of(objects: u64) -> Cluster {
    let cluster = must(Cluster::control_plane().await);
    let created = stream::iter(0..objects)
        .map(|n| {
            let cluster = &cluster;
            async move { cluster.create(CONFIG_MAPS, &config_map(n, "first")).await }
        })
        .buffer_unordered(32)
        .try_for_each(|_| async { Ok(()) });
    must(created.await);
    cluster
}

fn lists(criterion: &mut Criterion, runtime: &Runtime, tally: &Tally) {
    let mut group = criterion.benchmark_group("list");
    group.sample_size(20);
    for objects in [1_000, 10_000] {
        let cluster = runtime.block_on(cluster_of(objects));
        // A client starts a task of its own.
        let client = runtime.block_on(async { cluster.client() });
        let figure = format!("list: objects of {objects}");
        let bytes = runtime.block_on(list(&client));
        group.throughput(Throughput::Bytes(bytes));
        group.bench_function(BenchmarkId::from_parameter(objects), |bencher| {
            bencher.iter_custom(|rounds| {
                let started = Instant::now();
                for _ in 0..rounds {
                    assert_eq!(runtime.block_on(list(&client)), bytes);
                }
                tally.add(&figure, (objects * rounds) as f64, started.elapsed())
            });
        });
        runtime.block_on(cluster.shutdown());
    }
    group.finish();
}

/// Lists all ConfigMaps and returns the length of the answer.
async fn list(client: &Client) -> u64 {
    let request = must(Request::get(CONFIG_MAPS).body(Body::empty()));
    let answer = must(client.send(request).await);
    assert!(answer.status().is_success(), "{}", answer.status());
    let mut body = answer.into_body();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        bytes += must(frame).data_ref().map_or(0, |data| data.len() as u64);
    }
    bytes
}

fn watches(criterion: &mut Criterion, runtime: &Runtime, tally: &Tally) {
    let mut group = criterion.benchmark_group("watch");
    group.sample_size(20);
    for watchers in [1, 100, 1_000] {
        let cluster = runtime.block_on(cluster_of(1));
        let mut events = runtime.block_on(watch(&cluster, watchers));
        let figure = format!("watch: events to {watchers} watchers");
        let mut write = 0;
        group.throughput(Throughput::Elements(watchers));
        group.bench_function(BenchmarkId::new("watchers", watchers), |bencher| {
            bencher.iter_custom(|rounds| {
                let started = Instant::now();
                runtime.block_on(async {
                    for _ in 0..rounds {
                        write += 1;
                        replace(&cluster, write).await;
                        for _ in 0..watchers {
                            must(events.recv().await.ok_or("every watch has ended"));
                        }
                    }
                });
                tally.add(&figure, (watchers * rounds) as f64, started.elapsed())
            });
        });
        drop(events);
        runtime.block_on(cluster.shutdown());
    }
    group.finish();
}

/// Opens watches from now on; each sends for every event it is given.
async fn watch(cluster: &Cluster, watchers: u64) -> mpsc::UnboundedReceiver<()> {
    let list = cluster.request(Method::GET, CONFIG_MAPS, &[], axum::body::Body::empty());
    let list = must(list.await).body;
    let version = list
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str);
    let version = must(version.ok_or("a list without resourceVersion"));
    let (sender, receiver) = mpsc::unbounded_channel();
    for _ in 0..watchers {
        let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=3600");
        let request = must(Request::get(path).body(Body::empty()));
        let answer = must(cluster.client().send(request).await);
        assert!(answer.status().is_success(), "{}", answer.status());
        let (sender, mut body) = (sender.clone(), answer.into_body());
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let frame = must(frame);
                let lines = frame
                    .data_ref()
                    .map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
                for _ in 0..lines {
                    // The receiver goes when the benchmark is over.
                    let _ = sender.send(());
                }
            }
        });
    }
    receiver
}

async fn replace(cluster: &Cluster, write: u64) {
    let json = [("content-type", "application/json")];
    let path = format!("{CONFIG_MAPS}/settings-00000");
    let object = config_map(0, &write.to_string()).to_string();
    let answer = must(cluster.request(Method::PUT, &path, &json, object).await);
    assert!(answer.status.is_success(), "{answer:?}");
}
