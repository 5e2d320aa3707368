//! What a node agent reads and writes, and what of others it does not.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use windlass_tests::{Answer, Cluster};

use super::JSON;

const BASE: &str = "/api/v1/namespaces/kube-public";

/// A cluster with node `a`, on which pod `p` runs as `own`, and node `b` with pod `q`.
async fn cluster() -> Cluster {
    let cluster = Cluster::control_plane().await.unwrap();
    let create = async |path: &str, object: Value| cluster.create(path, &object).await.unwrap();
    for name in ["own", "other"] {
        create(
            &format!("{BASE}/serviceaccounts"),
            json!({"metadata": {"name": name}}),
        )
        .await;
    }
    for name in ["a", "b"] {
        create("/api/v1/nodes", json!({"metadata": {"name": name}})).await;
    }
    for name in ["needed", "tls", "others"] {
        create(
            &format!("{BASE}/secrets"),
            json!({"metadata": {"name": name}}),
        )
        .await;
        create(
            &format!("{BASE}/configmaps"),
            json!({"metadata": {"name": name}}),
        )
        .await;
    }
    let container = |from: &str| json!([{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": from}}]}]);
    let token = json!({"serviceAccountToken": {"path": "t", "audience": "vault"}});
    let volumes = json!([
        {"name": "s", "projected": {"sources": [{"secret": {"name": "tls"}}, token]}},
        {"name": "m", "configMap": {"name": "needed"}}]);
    for (name, node, account, secret, volumes) in [
        ("p", "a", "own", "needed", volumes),
        ("q", "b", "other", "others", json!([])),
    ] {
        let spec = json!({"nodeName": node, "serviceAccountName": account,
            "containers": container(secret), "volumes": volumes});
        create(
            &format!("{BASE}/pods"),
            json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await;
    }
    cluster
}

async fn ask(cluster: &Cluster, method: Method, path: &str, body: Value) -> Answer {
    let node = cluster.client_of("system:node:a", &["system:nodes"]);
    let patch = ("content-type", "application/merge-patch+json");
    let kind = if method == Method::PATCH { patch } else { JSON };
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let headers = [kind];
    let asked = cluster.request_as(&node, method, path, &headers, body);
    asked.await.unwrap()
}

#[tokio::test]
async fn a_node_reads_what_its_pods_name_and_nothing_else() {
    let cluster = cluster().await;
    for (path, expected) in [
        ("secrets/needed", 200),
        ("secrets/tls", 200),
        ("secrets/others", 403),
        ("secrets", 403),
        ("secrets?fieldSelector=metadata.name%3Dneeded", 200),
        ("secrets?fieldSelector=metadata.name%3Dothers", 403),
        ("secrets?fieldSelector=metadata.name!%3Dothers", 403),
        ("configmaps/needed", 200),
        ("configmaps/tls", 403),
        ("serviceaccounts/own", 200),
        ("serviceaccounts/other", 403),
        ("pods/p", 200),
        ("pods/q", 403),
    ] {
        let answer = ask(
            &cluster,
            Method::GET,
            &format!("{BASE}/{path}"),
            Value::Null,
        )
        .await;
        assert_eq!(answer.status.as_u16(), expected, "{path}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_node_writes_what_is_its_own() {
    let cluster = cluster().await;
    let nodes = "/api/v1/nodes";
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let taints = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let refused = "node \"a\" is not allowed to";
    for (method, path, body, wanted) in [
        (Method::PATCH, "a", label("example.com/rack"), ""),
        (Method::PATCH, "a", label("topology.kubernetes.io/zone"), ""),
        (
            Method::PATCH,
            "a",
            label("node-restriction.kubernetes.io/secure"),
            "modify labels: node-restriction.kubernetes.io/secure",
        ),
        (
            Method::PATCH,
            "a",
            label("node-role.kubernetes.io/control-plane"),
            "modify labels: node-role.kubernetes.io/control-plane",
        ),
        (Method::PATCH, "a", taints, "modify taints"),
        (
            Method::POST,
            "",
            json!({"metadata": {"name": "c"}}),
            "modify node \"c\"",
        ),
    ] {
        let path = format!("{nodes}/{path}");
        let answer = ask(&cluster, method, path.trim_end_matches('/'), body).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        let expected = if wanted.is_empty() { 200 } else { 403 };
        assert_eq!(answer.status.as_u16(), expected, "{path}: {message}");
        assert!(
            wanted.is_empty() || message.contains(&format!("{refused} {wanted}")),
            "{message}"
        );
    }
    let other = ask(&cluster, Method::PATCH, "/api/v1/nodes/b", label("x")).await;
    assert_eq!(other.status, StatusCode::FORBIDDEN);
    // The labels of a pod select it for policies and Services: its status is the node's, they are not.
    let status = json!({"metadata": {"labels": {"app": "x"}}, "status": {"phase": "Running"}});
    let answer = ask(
        &cluster,
        Method::PATCH,
        &format!("{BASE}/pods/p/status"),
        status,
    )
    .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
    let own = json!({"status": {"phase": "Running"}});
    let answer = ask(
        &cluster,
        Method::PATCH,
        &format!("{BASE}/pods/p/status"),
        own,
    )
    .await;
    assert_eq!(answer.status, StatusCode::OK);
    let pod = json!({"metadata": {"name": "r"}, "spec": {"nodeName": "a", "containers": [{"name": "c", "image": "i"}]}});
    let answer = ask(&cluster, Method::POST, &format!("{BASE}/pods"), pod).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    cluster.shutdown().await;
}

/// A mirror says of what node it is, and nothing that a node could read by it.
#[tokio::test]
async fn a_node_makes_no_pods_but_mirrors_of_its_own() {
    let cluster = cluster().await;
    let node = cluster
        .request(Method::GET, "/api/v1/nodes/a", &[], "")
        .await
        .unwrap();
    let owner = |changes: Value| {
        let mut owner = json!({"apiVersion": "v1", "kind": "Node", "name": "a", "controller": true,
            "uid": node.body["metadata"]["uid"]});
        for (field, value) in changes.as_object().unwrap() {
            owner[field] = value.clone();
        }
        json!([owner])
    };
    let spec = |changes: Value| {
        let mut spec = json!({"nodeName": "a", "containers": [{"name": "c", "image": "i"}]});
        for (field, value) in changes.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let (plain, own) = (spec(json!({})), owner(json!({})));
    let two = json!([own[0], own[0]]);
    let mirror = json!({"kubernetes.io/config.mirror": "x"});
    for (annotations, owners, spec, wanted) in [
        (
            json!({}),
            &own,
            plain.clone(),
            "pod does not have \"kubernetes.io/config.mirror\" annotation",
        ),
        (
            mirror.clone(),
            &own,
            spec(json!({"nodeName": "b"})),
            "can only create pods with spec.nodeName set to itself",
        ),
        (
            mirror.clone(),
            &json!([]),
            plain.clone(),
            "can only create pods with an owner reference set to itself",
        ),
        (
            mirror.clone(),
            &two,
            plain.clone(),
            "can only create pods with a single owner reference set to itself",
        ),
        (
            mirror.clone(),
            &owner(json!({"name": "b"})),
            plain.clone(),
            "can only create pods with an owner reference set to itself",
        ),
        (
            mirror.clone(),
            &owner(json!({"controller": false})),
            plain.clone(),
            "can only create pods with a controller owner reference set to itself",
        ),
        (
            mirror.clone(),
            &owner(json!({"blockOwnerDeletion": true})),
            plain.clone(),
            "must not set blockOwnerDeletion on an owner reference",
        ),
        (
            mirror.clone(),
            &owner(json!({"uid": "other"})),
            plain.clone(),
            "UID mismatch",
        ),
        (
            mirror.clone(),
            &own,
            spec(json!({"serviceAccountName": "own"})),
            "can not create pods that reference serviceaccounts",
        ),
        (
            mirror.clone(),
            &own,
            spec(json!({"volumes": [{"name": "v", "secret": {"secretName": "others"}}]})),
            "can not create pods that reference secrets",
        ),
        (
            mirror.clone(),
            &own,
            spec(json!({"volumes": [{"name": "v", "configMap": {"name": "others"}}]})),
            "can not create pods that reference configmaps",
        ),
        (mirror, &own, plain, ""),
    ] {
        let pod = json!({"metadata": {"name": "m", "annotations": annotations, "ownerReferences": owners},
            "spec": spec});
        let path = format!("{BASE}/pods");
        let answer = ask(&cluster, Method::POST, &path, pod).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        let expected = if wanted.is_empty() { 201 } else { 403 };
        assert_eq!(answer.status.as_u16(), expected, "{wanted}: {answer:?}");
        assert!(message.contains(wanted), "{message}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_node_gets_tokens_for_its_pods_as_their_volumes_say() {
    let cluster = cluster().await;
    let uid = async |name: &str| {
        let pod = cluster
            .request(Method::GET, &format!("{BASE}/pods/{name}"), &[], "")
            .await;
        pod.unwrap().body["metadata"]["uid"].take()
    };
    let (p, q) = (uid("p").await, uid("q").await);
    let request = |pod: &str, uid: &Value, audience: &str| {
        json!({"spec": {"audiences": [audience],
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}}})
    };
    let unbound = json!({"spec": {"audiences": ["vault"]}});
    let no_uid = json!({"spec": {"audiences": ["vault"], "boundObjectRef":
        {"apiVersion": "v1", "kind": "Pod", "name": "p"}}});
    for (account, body, wanted) in [
        ("own", request("p", &p, "vault"), ""),
        (
            "own",
            request("p", &p, "bank"),
            "audience \"bank\" not found in pod spec volume",
        ),
        ("own", unbound, "not bound to a pod"),
        ("own", no_uid, "without a uid"),
        (
            "other",
            request("q", &q, "vault"),
            "cannot create resource \"serviceaccounts/token\"",
        ),
    ] {
        let path = format!("{BASE}/serviceaccounts/{account}/token");
        let answer = ask(&cluster, Method::POST, &path, body).await;
        let message = answer.body["message"].as_str().unwrap_or_default();
        let expected = if wanted.is_empty() { 201 } else { 403 };
        assert_eq!(answer.status.as_u16(), expected, "{message}");
        assert!(message.contains(wanted), "{message}");
    }
    cluster.shutdown().await;
}

/// A token is mounted unless the pod, or in its silence its account, says no.
///
/// Conformance: [sig-auth] ServiceAccounts should allow opting out of API token automount [Conformance]
#[tokio::test]
async fn a_token_is_mounted_for_all_but_those_who_want_none() {
    let cluster = cluster().await;
    let accounts = format!("{BASE}/serviceaccounts");
    for (name, says) in [("mounting", true), ("refusing", false)] {
        let account = json!({"metadata": {"name": name}, "automountServiceAccountToken": says});
        cluster.create(&accounts, &account).await.unwrap();
    }
    for (name, account, says, expected) in [
        ("m1", "own", json!(null), true),
        ("m2", "own", json!(true), true),
        ("m3", "own", json!(false), false),
        ("m4", "mounting", json!(null), true),
        ("m5", "mounting", json!(true), true),
        ("m6", "mounting", json!(false), false),
        ("m7", "refusing", json!(null), false),
        ("m8", "refusing", json!(true), true),
        ("m9", "refusing", json!(false), false),
    ] {
        let spec = json!({"serviceAccountName": account, "automountServiceAccountToken": says,
            "containers": [{"name": "c", "image": "i"}]});
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        let made = cluster.create(&format!("{BASE}/pods"), &pod).await.unwrap();
        let mounts = made["spec"]["containers"][0]["volumeMounts"].as_array();
        let mounted = mounts.is_some_and(|mounts| {
            mounts[0]["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
        });
        assert_eq!(mounted, expected, "{name}");
    }
    cluster.shutdown().await;
}
