//! Messages and values against each other: every kind, golden bytes, presence, hostile input.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::Problem;
use super::envelope::{open, seal};
use crate::resource::GroupVersionKind;
use crate::schema::{Schema, Type, TypeRef, builtin_kinds};

fn kind(group: &'static str, version: &'static str, kind: &'static str) -> TypeRef {
    let gvk = GroupVersionKind::of(group, version, kind);
    Schema::builtin().kind(&gvk).expect("is a kind")
}

fn decode(ty: TypeRef, message: &[u8]) -> Value {
    Schema::builtin()
        .decode_protobuf(ty, message)
        .expect("decodes")
}

fn encode(ty: TypeRef, object: &Value) -> Vec<u8> {
    Schema::builtin()
        .encode_protobuf(ty, object)
        .expect("encodes")
}

/// A value with every field that has a number, two items in each list.
fn full(ty: TypeRef, turn: i32) -> Value {
    let schema = Schema::builtin();
    match schema.get(ty) {
        Type::Any => json!({"any": [turn, null, "x"]}),
        Type::String => json!(format!("text{turn}")),
        Type::Boolean => json!(true),
        Type::Int32 => json!(-turn - 1),
        Type::Int64 => json!(i64::MAX - i64::from(turn)),
        Type::Number => json!(1.5),
        Type::Bytes => json!("AAEC/w=="),
        Type::Quantity => json!("100m"),
        Type::IntOrString if turn % 2 == 0 => json!(8080),
        Type::IntOrString => json!("25%"),
        Type::Time => json!("2024-02-29T10:30:45Z"),
        Type::MicroTime => json!("1969-12-31T23:59:58.123456Z"),
        Type::List(of) => json!([full(of.item, turn), full(of.item, turn + 1)]),
        Type::Map(of) => json!({"a": full(of.value, turn), "b/c": full(of.value, turn + 1)}),
        Type::Struct(of) => {
            let numbered = of.fields.iter().filter(|field| field.number.is_known());
            numbered
                .zip(turn..)
                .map(|(field, turn)| (field.name.to_string(), full(field.ty, turn)))
                .collect::<Map<_, _>>()
                .into()
        }
    }
}

#[test]
fn every_kind_with_every_field_set_survives_the_way_there_and_back() {
    for (gvk, name) in builtin_kinds() {
        let ty = Schema::builtin().kind(&gvk).expect("is a kind");
        if !Schema::builtin().has_protobuf(ty) {
            // Schemas are unions that have no type here, and a window is a number on the wire and a text in
            // JSON: these are spoken in JSON and YAML, as what is of no release of Kubernetes.
            let json_only = ["CustomResourceDefinition", "NodeMetrics", "PodMetrics"];
            let is_ours = gvk.group == crate::node_info::GROUP;
            assert!(is_ours || json_only.contains(&&*gvk.kind), "{name}");
            continue;
        }
        let object = full(ty, 0);
        let message = encode(ty, &object);
        assert_eq!(decode(ty, &message), object, "{name}");
    }
}

#[test]
fn what_go_writes_for_nothing_is_absent_unless_required_or_behind_a_pointer() {
    // A Deployment as client-go sends it: metadata with empty name, namespace, generation 0 and an empty
    // creationTimestamp; spec.replicas is a pointer to 0, minReadySeconds and paused are 0 and false.
    let message = b"\x0a\x0c\x0a\0\x12\0\x1a\0\x38\0\x42\0\x2a\0\
                    \x12\x0e\x08\0\x1a\x04\x0a\0\x12\0\x22\x02\x0a\0\x28\0\x38\0\x1a\0";
    let object = decode(kind("apps", "v1", "Deployment"), &message[..]);
    assert_eq!(
        object,
        json!({"spec": {"replicas": 0, "template": {}}}),
        "template is required"
    );
    let object = decode(kind("storage.k8s.io", "v1", "StorageClass"), b"\x12\0");
    assert_eq!(object, json!({"provisioner": ""}));
}

#[test]
fn empty_messages_behind_pointers_are_values() {
    let pod = json!({
        "metadata": {"name": "p", "deletionGracePeriodSeconds": 0},
        "spec": {
            "enableServiceLinks": false,
            "securityContext": {},
            "volumes": [{"name": "v", "emptyDir": {}}],
            "containers": [{
                "name": "c",
                "livenessProbe": {"httpGet": {"port": "http"}, "periodSeconds": 3},
                "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            }],
        },
    });
    let ty = kind("", "v1", "Pod");
    assert_eq!(decode(ty, &encode(ty, &pod)), pod);
}

#[test]
fn messages_are_those_go_writes() {
    let config_map = json!({
        "kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "a", "labels": {"z": "1", "b": "2"},
                     "creationTimestamp": "1970-01-01T00:00:01Z"},
        "data": {"k": "v"}, "binaryData": {"b": "AAE="}, "immutable": true,
    });
    let message = encode(kind("", "v1", "ConfigMap"), &config_map);
    let golden = b"\x0a\x19\x0a\x01a\x42\x04\x08\x01\x10\0\x5a\x06\x0a\x01b\x12\x012\x5a\x06\x0a\x01z\x12\x011\
                   \x12\x06\x0a\x01k\x12\x01v\x1a\x07\x0a\x01b\x12\x02\0\x01\x20\x01";
    assert_eq!(message, golden);
    let pod = json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}});
    let message = encode(kind("", "v1", "Pod"), &pod);
    assert_eq!(
        message,
        b"\x12\x0c\x0a\x0a\x0a\x01v\x12\x05\x0a\x03\x0a\x01/"
    );
}

#[test]
fn later_occurrences_win_and_messages_merge() {
    let ty = kind("", "v1", "ConfigMap");
    let message = b"\x0a\x03\x0a\x01a\x0a\x06\x0a\x01b\x1a\x01n\x12\x06\x0a\x01k\x12\x01v\x12\x06\x0a\x01k\x12\x01w";
    let expected = json!({"metadata": {"name": "b", "namespace": "n"}, "data": {"k": "w"}});
    assert_eq!(decode(ty, message), expected);
}

#[test]
fn packed_and_single_numbers_are_both_lists() {
    let ty = kind("", "v1", "Pod");
    // spec.securityContext.supplementalGroups, field 4: 1 alone, then 2 and 300 packed.
    let message = b"\x12\x09\x72\x07\x20\x01\x22\x03\x02\xac\x02";
    let expected = json!({"spec": {"securityContext": {"supplementalGroups": [1, 2, 300]}}});
    assert_eq!(decode(ty, message), expected);
}

#[test]
fn errors_say_where_and_what() {
    let ty = kind("", "v1", "Pod");
    let cases: [(&[u8], &str); 6] = [
        (
            b"\x0a\x02\x08\x01",
            "metadata.name: proto: wrong wireType = 0",
        ),
        (
            b"\x0a\x03\x0a\x01\xff",
            "metadata.name: string field contains invalid UTF-8",
        ),
        (b"\x12\x05\x12", "spec: unexpected EOF"),
        (
            b"\x12\x04\x12\x02\x0a\x05",
            "spec.containers.name: unexpected EOF",
        ),
        (
            b"\x0a\x0a\x42\x08\x08\xff\xff\xff\xff\xff\xff\x7f",
            "metadata.creationTimestamp: time is out of range",
        ),
        (b"\x7c", "proto: wiretype end group for non-group"),
    ];
    for (message, text) in cases {
        let error = Schema::builtin().decode_protobuf(ty, message);
        assert_eq!(error.expect_err(text).to_string(), text);
    }
}

#[test]
fn a_custom_kind_has_no_form() {
    let definitions = json!({"x": {"type": "object", "properties": {"spec": {"type": "object"}}}});
    let definitions = definitions.as_object().expect("is an object");
    let gvk = GroupVersionKind::of("example.com", "v1", "X");
    let schema = Schema::compile(definitions, &[(gvk.clone(), "x")]).expect("compiles");
    let ty = schema.kind(&gvk).expect("is a kind");
    assert!(!schema.has_protobuf(ty));
    let error = schema.encode_protobuf(ty, json!({"spec": {}}));
    assert_eq!(error.expect_err("has no form").problem, Problem::NoForm);
}

#[test]
fn many_empty_values_are_refused() {
    // spec.containers, each empty: two bytes a value.
    let spec = b"\x12\0".repeat(super::decode::MAX_VALUES + 1);
    let message = super::envelope::wrap(2, &spec);
    let error = Schema::builtin().decode_protobuf(kind("", "v1", "Pod"), &message);
    assert_eq!(
        error.expect_err("is refused").problem,
        Problem::TooManyValues
    );
}

proptest! {
    #[test]
    fn hostile_bytes_are_an_error_or_an_object(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = open(&bytes);
        if let Ok(object) = Schema::builtin().decode_protobuf(kind("", "v1", "Pod"), &bytes) {
            prop_assert!(object.is_object());
        }
    }

    #[test]
    fn a_damaged_message_never_panics(at in 0_usize..4000, byte in any::<u8>(), cut in 0_usize..4000) {
        static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
            let ty = kind("discovery.k8s.io", "v1", "EndpointSlice");
            encode(ty, &full(ty, 0))
        });
        let ty = kind("discovery.k8s.io", "v1", "EndpointSlice");
        let mut message = WHOLE.clone();
        let length = message.len();
        message[at % length] = byte;
        let _ = Schema::builtin().decode_protobuf(ty, &message);
        message.truncate(cut % length);
        let sealed = seal("discovery.k8s.io/v1", "EndpointSlice", &message);
        let envelope = open(&sealed).expect("opens");
        let _ = Schema::builtin().decode_protobuf(ty, envelope.message);
    }
}
