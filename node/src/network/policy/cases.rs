//! The table of policy cases: what one set of policies makes of connections between a fixed cast.
//!
//! ```text
//!   namespace a (team: red)                        namespace b (team: blue)
//!     web    app=web             http=80, dns=53/UDP    client  app=client
//!     client app=client role=front                      db      app=db      sql=5432
//!     other  app=other
//!   outside 192.0.2.10 and 198.51.100.7
//! ```

use serde_json::{Value, json};

use crate::network::switch::Transport::{self, Tcp, Udp};

/// A pod of the cast (`namespace/name`), or an address outside.
pub(super) type Who = &'static str;

/// From whom, to whom, how, at which port, and whether it is allowed.
pub(super) type Row = (Who, Who, Transport, u16, bool);

/// A set of policies and what it makes of connections.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) policies: Vec<Value>,
    pub(super) rows: &'static [Row],
}

const NEAR: Who = "192.0.2.10";
const FAR: Who = "198.51.100.7";
const WEB: Who = "a/web";
const FRONT: Who = "a/client";
const OTHER: Who = "a/other";
const CLIENT: Who = "b/client";
const DB: Who = "b/db";

fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

/// A policy for pods `app=web` of namespace a with these rules for ingress.
fn to_web(ingress: &Value) -> Vec<Value> {
    let spec = json!({"podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress"], "ingress": ingress});
    vec![policy("a", "web", &spec)]
}

/// A policy for pods `app=client` of namespace a with these rules for egress.
fn from_client(egress: &Value) -> Vec<Value> {
    let spec = json!({"podSelector": {"matchLabels": {"app": "client"}},
        "policyTypes": ["Egress"], "egress": egress});
    vec![policy("a", "client", &spec)]
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = ingress();
    all.extend(ports());
    all.extend(egress());
    all.extend(combinations());
    all
}

fn ingress() -> Vec<Case> {
    vec![
        Case {
            name: "no policy",
            policies: vec![],
            rows: &[
                (CLIENT, WEB, Tcp, 80, true),
                (NEAR, WEB, Tcp, 80, true),
                (WEB, DB, Tcp, 5432, true),
                (FRONT, WEB, Udp, 53, true),
            ],
        },
        Case {
            name: "nobody comes in",
            policies: vec![policy("a", "deny", &json!({"podSelector": {}}))],
            rows: &[
                (FRONT, WEB, Tcp, 80, false),
                (CLIENT, WEB, Tcp, 80, false),
                (NEAR, WEB, Tcp, 80, false),
                (FRONT, WEB, Udp, 53, false),
                (WEB, WEB, Tcp, 80, true),
                (WEB, DB, Tcp, 5432, true),
                (FRONT, CLIENT, Tcp, 80, true),
            ],
        },
        Case {
            name: "everybody comes in",
            policies: to_web(&json!([{}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (CLIENT, WEB, Tcp, 81, true),
                (NEAR, WEB, Tcp, 80, true),
                (FRONT, WEB, Udp, 53, true),
            ],
        },
        Case {
            name: "pods of the same namespace by label",
            policies: to_web(
                &json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]),
            ),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (OTHER, WEB, Tcp, 80, false),
                (CLIENT, WEB, Tcp, 80, false),
                (NEAR, WEB, Tcp, 80, false),
                (OTHER, FRONT, Tcp, 80, true),
            ],
        },
        Case {
            name: "all pods of the same namespace",
            policies: to_web(&json!([{"from": [{"podSelector": {}}]}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (OTHER, WEB, Tcp, 80, true),
                (CLIENT, WEB, Tcp, 80, false),
                (FAR, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "pods of namespaces by label",
            policies: to_web(
                &json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]),
            ),
            rows: &[
                (CLIENT, WEB, Tcp, 80, true),
                (DB, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 80, false),
                (NEAR, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "pods of all namespaces, which are not outside",
            policies: to_web(&json!([{"from": [{"namespaceSelector": {}}]}])),
            rows: &[
                (CLIENT, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 80, true),
                (NEAR, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "namespace and pod in one peer",
            policies: to_web(&json!([{"from": [{
                "namespaceSelector": {"matchLabels": {"team": "blue"}},
                "podSelector": {"matchLabels": {"app": "client"}}}]}])),
            rows: &[
                (CLIENT, WEB, Tcp, 80, true),
                (DB, WEB, Tcp, 80, false),
                (FRONT, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "namespace and pod in two peers",
            policies: to_web(&json!([{"from": [
                {"namespaceSelector": {"matchLabels": {"team": "blue"}}},
                {"podSelector": {"matchLabels": {"app": "client"}}}]}])),
            rows: &[
                (CLIENT, WEB, Tcp, 80, true),
                (DB, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 80, true),
                (OTHER, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "expressions",
            policies: to_web(&json!([{"from": [{
                "namespaceSelector": {"matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["a", "b"]}]},
                "podSelector": {"matchExpressions": [
                    {"key": "role", "operator": "DoesNotExist"},
                    {"key": "app", "operator": "NotIn", "values": ["db"]}]}}]}])),
            rows: &[
                (CLIENT, WEB, Tcp, 80, true),
                (OTHER, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 80, false),
                (DB, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "a block with an exception",
            policies: to_web(&json!([{"from": [{"ipBlock": {
                "cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]}])),
            rows: &[
                (NEAR, WEB, Tcp, 80, true),
                ("192.0.2.200", WEB, Tcp, 80, false),
                (FAR, WEB, Tcp, 80, false),
                (FRONT, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "a block that holds pods",
            policies: to_web(&json!([{"from": [{"ipBlock": {"cidr": "10.128.0.0/10"}}]}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (CLIENT, WEB, Tcp, 80, true),
                (NEAR, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "a block that cannot be read opens nothing",
            policies: to_web(
                &json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["x"]}}]}]),
            ),
            rows: &[(NEAR, WEB, Tcp, 80, false)],
        },
    ]
}

fn ports() -> Vec<Case> {
    vec![
        Case {
            name: "one port, whose protocol is TCP unless it says so",
            policies: to_web(&json!([{"ports": [{"port": 80}]}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (CLIENT, WEB, Tcp, 80, true),
                (NEAR, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 81, false),
                (FRONT, WEB, Udp, 53, false),
            ],
        },
        Case {
            name: "a range of ports",
            policies: to_web(&json!([{"ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}]}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 81, true),
                (FRONT, WEB, Tcp, 90, true),
                (FRONT, WEB, Tcp, 79, false),
                (FRONT, WEB, Tcp, 91, false),
            ],
        },
        Case {
            name: "a named port",
            policies: to_web(&json!([{"ports": [{"port": "http"}]}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (CLIENT, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 81, false),
            ],
        },
        Case {
            name: "a named port of the other protocol",
            policies: to_web(&json!([{"ports": [{"port": "dns", "protocol": "UDP"}]}])),
            rows: &[
                (FRONT, WEB, Udp, 53, true),
                (FRONT, WEB, Tcp, 53, false),
                (FRONT, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "all ports of one protocol",
            policies: to_web(&json!([{"ports": [{"protocol": "UDP"}]}])),
            rows: &[
                (FRONT, WEB, Udp, 53, true),
                (OTHER, WEB, Udp, 53, true),
                (FRONT, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "a protocol that pods here do not have",
            policies: to_web(&json!([{"ports": [{"port": 80, "protocol": "SCTP"}]}])),
            rows: &[(FRONT, WEB, Tcp, 80, false), (FRONT, WEB, Udp, 53, false)],
        },
        Case {
            name: "peers and ports of one rule both count",
            policies: to_web(&json!([
                {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 80}]},
                {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], "ports": [{"port": 81}]}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (FRONT, WEB, Tcp, 81, false),
                (CLIENT, WEB, Tcp, 81, true),
                (CLIENT, WEB, Tcp, 80, false),
            ],
        },
    ]
}

fn egress() -> Vec<Case> {
    vec![
        Case {
            name: "nothing goes out",
            policies: from_client(&json!([])),
            rows: &[
                (FRONT, WEB, Tcp, 80, false),
                (FRONT, WEB, Udp, 53, false),
                (FRONT, DB, Tcp, 5432, false),
                (FRONT, NEAR, Tcp, 443, false),
                (FRONT, FRONT, Tcp, 80, true),
                (OTHER, DB, Tcp, 5432, true),
                (CLIENT, WEB, Tcp, 80, true),
                (OTHER, FRONT, Tcp, 80, true),
            ],
        },
        Case {
            name: "to pods by label",
            policies: from_client(
                &json!([{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]),
            ),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (FRONT, WEB, Udp, 53, true),
                (FRONT, OTHER, Tcp, 80, false),
                (FRONT, DB, Tcp, 5432, false),
                (FRONT, NEAR, Tcp, 443, false),
            ],
        },
        Case {
            name: "to pods of another namespace at a named port of theirs",
            policies: from_client(&json!([{
                "to": [{"namespaceSelector": {"matchLabels": {"team": "blue"}},
                    "podSelector": {"matchLabels": {"app": "db"}}}],
                "ports": [{"port": "sql"}]}])),
            rows: &[
                (FRONT, DB, Tcp, 5432, true),
                (FRONT, DB, Tcp, 80, false),
                (FRONT, CLIENT, Tcp, 80, false),
                (FRONT, WEB, Tcp, 80, false),
            ],
        },
        Case {
            name: "to a named port of whoever has it",
            policies: from_client(&json!([{"ports": [{"port": "http"}]}])),
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (FRONT, OTHER, Tcp, 80, false),
                (FRONT, DB, Tcp, 5432, false),
                (FRONT, NEAR, Tcp, 80, false),
            ],
        },
        Case {
            name: "to a block with an exception and a range of ports",
            policies: from_client(&json!([{
                "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["198.51.100.0/24"]}}],
                "ports": [{"port": 1000, "endPort": 2000}, {"port": 443}]}])),
            rows: &[
                (FRONT, NEAR, Tcp, 443, true),
                (FRONT, NEAR, Tcp, 1500, true),
                (FRONT, NEAR, Tcp, 2001, false),
                (FRONT, FAR, Tcp, 443, false),
                (FRONT, WEB, Tcp, 80, false),
                (FRONT, DB, Tcp, 1433, true),
            ],
        },
        Case {
            name: "one protocol only",
            policies: from_client(&json!([{"ports": [{"port": 53, "protocol": "UDP"}]}])),
            rows: &[
                (FRONT, WEB, Udp, 53, true),
                (FRONT, WEB, Tcp, 53, false),
                (FRONT, NEAR, Udp, 53, true),
            ],
        },
    ]
}

fn combinations() -> Vec<Case> {
    let of = |ingress: Value| to_web(&ingress).remove(0);
    let mut second =
        of(json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]));
    second["metadata"]["name"] = json!("second");
    let mut ends =
        to_web(&json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]));
    ends.extend(from_client(&json!([{"ports": [{"port": 81}]}])));
    vec![
        Case {
            name: "policies add up",
            policies: vec![
                policy(
                    "a",
                    "deny",
                    &json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
                ),
                of(json!([{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}])),
                second,
            ],
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (CLIENT, WEB, Tcp, 80, true),
                (OTHER, WEB, Tcp, 80, false),
                (NEAR, WEB, Tcp, 80, false),
                (WEB, FRONT, Tcp, 80, false),
            ],
        },
        Case {
            name: "both ends have to agree",
            policies: ends,
            rows: &[
                (FRONT, WEB, Tcp, 81, true),
                (FRONT, WEB, Tcp, 80, false),
                (OTHER, WEB, Tcp, 81, false),
                (FRONT, OTHER, Tcp, 81, true),
            ],
        },
        Case {
            name: "without types a policy with egress rules is for both directions",
            policies: vec![policy(
                "a",
                "both",
                &json!({"podSelector": {"matchLabels": {"app": "client"}},
                    "egress": [{"to": [{"podSelector": {}}]}]}),
            )],
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (FRONT, DB, Tcp, 5432, false),
                (WEB, FRONT, Tcp, 80, false),
            ],
        },
        Case {
            name: "a policy of another namespace is nobody's concern here",
            policies: vec![policy(
                "b",
                "deny",
                &json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}),
            )],
            rows: &[
                (FRONT, WEB, Tcp, 80, true),
                (FRONT, DB, Tcp, 5432, false),
                (DB, WEB, Tcp, 80, false),
                (CLIENT, DB, Tcp, 5432, false),
                (NEAR, WEB, Tcp, 80, true),
            ],
        },
    ]
}
