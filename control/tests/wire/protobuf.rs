//! Protobuf, as client-go speaks it.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;
use windlass_api::schema::Schema;
use windlass_api::schema::protobuf::envelope::{open, seal, watch_frame, wrap};

use crate::server::{Answer, Server};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TYPED: [(&str, &str); 2] = [
    ("content-type", PROTOBUF),
    ("accept", "application/vnd.kubernetes.protobuf, */*"),
];

fn encode(kind: &'static str, object: &Value) -> Vec<u8> {
    let schema = Schema::builtin();
    let ty = schema.kind(&GroupVersionKind::of("", "v1", kind)).unwrap();
    seal("v1", kind, &schema.encode_protobuf(ty, object).unwrap())
}

/// The object in an enveloped answer, with its kind.
fn decode(bytes: &[u8]) -> (String, Value) {
    let envelope = open(bytes).unwrap();
    let gvk = GroupVersionKind {
        group: "".into(),
        version: envelope.api_version.to_owned().into(),
        kind: envelope.kind.to_owned().into(),
    };
    let schema = Schema::builtin();
    let ty = schema.kind(&gvk).expect("is a kind of the core group");
    let object = schema.decode_protobuf(ty, envelope.message).unwrap();
    (envelope.kind.to_owned(), object)
}

fn object(answer: &Answer) -> Value {
    assert_eq!(answer.headers["content-type"], PROTOBUF, "{answer:?}");
    decode(&answer.body).1
}

async fn create(server: &Server, name: &str) -> Answer {
    let config_map = json!({"metadata": {"name": name}, "data": {"k": "v"}});
    let body = encode("ConfigMap", &config_map);
    server
        .request(Method::POST, CONFIG_MAPS, &TYPED, body)
        .await
}

#[tokio::test]
async fn objects_are_written_read_and_deleted_in_protobuf() {
    let server = Server::start().await;
    let created = create(&server, "a").await;
    assert_eq!(created.status, StatusCode::CREATED);
    let mut config_map = object(&created);
    assert_eq!(config_map["metadata"]["namespace"], "default");
    config_map["data"]["k"] = json!("w");
    let path = format!("{CONFIG_MAPS}/a");
    let body = encode("ConfigMap", &config_map);
    let updated = server.request(Method::PUT, &path, &TYPED, body).await;
    assert_eq!(updated.status, StatusCode::OK, "{updated:?}");
    let got = server.request(Method::GET, &path, &TYPED, "").await;
    assert_eq!(object(&got)["data"], json!({"k": "w"}));
    let json = server.request(Method::GET, &path, &[], "").await;
    let json: Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!(json["kind"], "ConfigMap");
    assert_eq!(json["metadata"], object(&got)["metadata"]);
    let options = json!({"propagationPolicy": "Background", "preconditions": {"uid": "other"}});
    let body = encode("DeleteOptions", &options);
    let conflict = server.request(Method::DELETE, &path, &TYPED, body).await;
    assert_eq!(conflict.status, StatusCode::CONFLICT);
    assert_eq!(object(&conflict)["reason"], "Conflict");
    let body = encode("DeleteOptions", &json!({"propagationPolicy": "Background"}));
    let deleted = server.request(Method::DELETE, &path, &TYPED, body).await;
    assert_eq!(object(&deleted)["status"], "Success");
}

#[tokio::test]
async fn a_list_is_one_message_of_its_items() {
    let server = Server::start().await;
    let a = create(&server, "a").await;
    let b = create(&server, "b").await;
    let path = format!("{CONFIG_MAPS}?fieldSelector=metadata.name!%3Dkube-root-ca.crt");
    let list = server.request(Method::GET, &path, &TYPED, "").await;
    let list = open(&list.body).unwrap();
    assert_eq!((list.kind, list.api_version), ("ConfigMapList", "v1"));
    let items = [&a, &b].map(|item| wrap(2, open(&item.body).unwrap().message));
    assert!(list.message.ends_with(&items.concat()), "{list:?}");
    let metadata = [(
        "accept",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    )];
    let list = server.request(Method::GET, &path, &metadata, "").await;
    let list = open(&list.body).unwrap();
    assert_eq!(list.kind, "PartialObjectMetadataList");
    assert!(list.message.len() < items.concat().len() + 40);
}

#[tokio::test]
async fn a_watch_is_frames_of_enveloped_objects() {
    let server = Server::start().await;
    let a = create(&server, "a").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan\
                 &allowWatchBookmarks=true&fieldSelector=metadata.name!%3Dkube-root-ca.crt";
    let path = format!("{CONFIG_MAPS}?{query}");
    let mut watches = Vec::new();
    for _ in 0..2 {
        watches.push(server.stream(&path, &TYPED).await);
    }
    for watch in &mut watches {
        let media_type = "application/vnd.kubernetes.protobuf;stream=watch";
        assert_eq!(watch.headers["content-type"], media_type);
        assert_eq!(watch.frame().await, framed("ADDED", &a.body));
        let bookmark = watch.frame().await;
        assert!(bookmark.starts_with(b"\x0a\x08BOOKMARK"));
        let end = b"k8s.io/initial-events-end";
        assert!(bookmark.windows(end.len()).any(|bytes| bytes == end));
    }
    let b = create(&server, "b").await;
    let path = format!("{CONFIG_MAPS}/b");
    server.request(Method::DELETE, &path, &[], "").await;
    for watch in &mut watches {
        assert_eq!(watch.frame().await, framed("ADDED", &b.body));
        assert!(watch.frame().await.starts_with(b"\x0a\x07DELETED"));
    }
}

/// A frame without its length.
fn framed(event: &str, object: &Bytes) -> Vec<u8> {
    watch_frame(event, object).split_off(4)
}

#[tokio::test]
async fn what_is_wrong_is_said_in_protobuf() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/none");
    let missing = server.request(Method::GET, &path, &TYPED, "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    let status = object(&missing);
    assert_eq!(status["message"], "configmaps \"none\" not found");
    assert_eq!(status["details"]["kind"], "configmaps");
    let body = encode("Secret", &json!({"metadata": {"name": "s"}}));
    let other = server
        .request(Method::POST, CONFIG_MAPS, &TYPED, body)
        .await;
    assert_eq!(other.status, StatusCode::BAD_REQUEST);
    let message = object(&other)["message"].to_string();
    assert!(
        message.contains("does not match the expected kind"),
        "{message}"
    );
    let damaged = server
        .request(Method::POST, CONFIG_MAPS, &TYPED, "k8s\0\x12\x05")
        .await;
    assert_eq!(damaged.status, StatusCode::BAD_REQUEST);
    assert_eq!(object(&damaged)["reason"], "BadRequest");
    let table = [(
        "accept",
        "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1",
    )];
    let table = server.request(Method::GET, CONFIG_MAPS, &table, "").await;
    assert_eq!(table.status, StatusCode::NOT_ACCEPTABLE);
    let cbor = [("content-type", "application/cbor")];
    let cbor = server.request(Method::POST, CONFIG_MAPS, &cbor, "x").await;
    assert_eq!(cbor.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn unwanted_answers_are_refused_before_anything_is_written() {
    let server = Server::start().await;
    let accept = [("accept", "text/html")];
    let body = r#"{"metadata":{"name":"a"}}"#;
    let refused = server
        .request(Method::POST, CONFIG_MAPS, &accept, body)
        .await;
    assert_eq!(refused.status, StatusCode::NOT_ACCEPTABLE);
    let path = format!("{CONFIG_MAPS}/a");
    let missing = server.request(Method::GET, &path, &[], "").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
}
