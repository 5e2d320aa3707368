//! What reading costs in allocations: objects are encoded once, when they are written, and GET, LIST and
//! WATCH of JSON hand the stored bytes out.
//!
//! Decoding or encoding an object allocates for each of its fields. So a large object must cost no more
//! blocks than a small one, and a list a few per object, whatever the size. One test alone counts here:
//! others would count along.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "../wire/server.rs"]
#[expect(dead_code, reason = "frames of protobuf are read elsewhere")]
mod server;

use http::{Method, StatusCode};
use serde_json::json;
use server::Server;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Fields of a large object; each would be two blocks at least.
const FIELDS: usize = 5_000;
/// Objects of the list.
const OBJECTS: usize = 50;
/// Blocks that work of others (timers, controllers) may add meanwhile.
const NOISE: u64 = 500;

async fn create(server: &Server, name: &str, group: &str, fields: usize) {
    let data: serde_json::Map<_, _> = (0..fields)
        .map(|at| (format!("key-{at}"), "value".into()))
        .collect();
    let object = json!({
        "metadata": {"name": name, "labels": {"group": group}}, "data": data,
    });
    let answer = server
        .request(Method::POST, CONFIG_MAPS, &[], object.to_string())
        .await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
}

/// Blocks allocated by a GET of `path`, and the length of its answer.
async fn cost(server: &Server, path: &str) -> (u64, usize) {
    // The first request pays for what is made once.
    server.request(Method::GET, path, &[], "").await;
    let before = dhat::HeapStats::get().total_blocks;
    let answer = server.request(Method::GET, path, &[], "").await;
    let blocks = dhat::HeapStats::get().total_blocks - before;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    (blocks, answer.body.len())
}

#[tokio::test]
async fn reading_neither_decodes_nor_encodes() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let server = Server::start().await;
    create(&server, "small", "one", 1).await;
    create(&server, "large", "one", FIELDS).await;
    for at in 0..OBJECTS {
        create(&server, &format!("many-{at}"), "many", FIELDS / 10).await;
    }

    let (small, _) = cost(&server, &format!("{CONFIG_MAPS}/small")).await;
    let (large, length) = cost(&server, &format!("{CONFIG_MAPS}/large")).await;
    println!("GET: {small} blocks for a small object, {large} for one of {length} bytes");
    assert!(length > FIELDS * 15);
    assert!(
        large < small + NOISE,
        "{large} blocks, and {small} for a small one"
    );

    let path = format!("{CONFIG_MAPS}?labelSelector=group%3Dmany");
    let (list, length) = cost(&server, &path).await;
    println!("LIST: {list} blocks for {OBJECTS} objects, {length} bytes");
    assert!(list < small + NOISE + 10 * OBJECTS as u64, "{list} blocks");

    let path =
        format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dlarge");
    let (watch, length) = cost(&server, &path).await;
    println!("WATCH: {watch} blocks for an event of {length} bytes");
    assert!(watch < small + NOISE, "{watch} blocks");

    let (table, _) = table(&server).await;
    println!("Table, which has to decode: {table} blocks");
    assert!(table > FIELDS as u64, "the profile counts what it should");
}

/// The same for a representation that reads the object: proof that the profile would tell.
async fn table(server: &Server) -> (u64, usize) {
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let before = dhat::HeapStats::get().total_blocks;
    let path = format!("{CONFIG_MAPS}/large");
    let answer = server.request(Method::GET, &path, &accept, "").await;
    let blocks = dhat::HeapStats::get().total_blocks - before;
    (blocks, answer.body.len())
}
