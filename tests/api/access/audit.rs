//! What is written about requests.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::post;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;
use windlass_control::server::audit::{AuditOptions, Mode, WebhookOptions};
use windlass_tests::{Cluster, PATIENCE};

use super::{Audited, BATCHES, JSON, Server, bearer, over_tls, policy};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn the_policy_says_how_much_is_written_about_whom() {
    let audited = Audited::start(
        r#"
- {level: RequestResponse, resources: [{resources: [configmaps]}], verbs: [create, patch, list], omitManagedFields: true}
- {level: Metadata, resources: [{resources: [secrets]}], omitStages: [RequestReceived]}
- {level: None}
"#,
    )
    .await;
    let admin = over_tls(&audited.cluster, None).await;
    let map = json!({"metadata": {"generateName": "m-"}, "data": {"k": "v"}});
    let made = audited.send(&admin, Method::POST, MAPS, &map).await;
    let stages = audited.events(&made);
    let stage = |at: usize| stages[at]["stage"].as_str().unwrap();
    assert_eq!(
        (stages.len(), stage(0), stage(1)),
        (2, "RequestReceived", "ResponseComplete")
    );
    let event = &stages[1];
    assert_eq!(event["level"], "RequestResponse");
    assert_eq!(event["verb"], "create");
    assert_eq!(event["requestURI"], MAPS);
    assert_eq!(event["user"]["username"], "kubernetes-admin");
    assert_eq!(event["sourceIPs"], json!(["127.0.0.1"]));
    assert_eq!(event["responseStatus"]["code"], 201);
    assert_eq!(event["requestObject"]["data"]["k"], "v");
    let name = made.body["metadata"]["name"].as_str().unwrap();
    assert_eq!(event["responseObject"]["metadata"]["name"], name);
    assert!(
        event["responseObject"]["metadata"]
            .get("managedFields")
            .is_none()
    );
    assert_eq!(
        event["annotations"]["authorization.k8s.io/decision"],
        "allow"
    );
    let reference = &event["objectRef"];
    assert_eq!(reference["resource"], "configmaps");
    assert_eq!(
        (&reference["namespace"], &reference["apiVersion"]),
        (&json!("default"), &json!("v1"))
    );
    let listed = audited.send(&admin, Method::GET, MAPS, &Value::Null).await;
    let items = &audited.event(&listed)["responseObject"]["items"];
    assert!(
        items
            .as_array()
            .unwrap()
            .iter()
            .any(|item| item["metadata"]["name"] == name)
    );

    let patch = json!({"data": {"k": "w"}}).to_string();
    let merge = [("content-type", "application/merge-patch+json")];
    let path = format!("{MAPS}/{name}");
    let patched = audited
        .cluster
        .request_as(&admin, Method::PATCH, &path, &merge, patch);
    let event = audited.event(&patched.await.unwrap());
    assert_eq!(event["requestObject"], json!({"data": {"k": "w"}}));

    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
    let secrets = "/api/v1/namespaces/default/secrets";
    let made = audited.send(&admin, Method::POST, secrets, &secret).await;
    let events = audited.events(&made);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["objectRef"]["name"], "s");
    assert!(
        !std::fs::read_to_string(&audited.log)
            .unwrap()
            .contains("hunter2")
    );
    let read = audited.send(&admin, Method::GET, &path, &Value::Null).await;
    assert!(audited.events(&read).is_empty());
    let counted = audited
        .send(&admin, Method::GET, "/metrics", &Value::Null)
        .await;
    let counted = counted.body.as_str().unwrap();
    assert!(counted.contains("apiserver_audit_event_total{plugin=\"log\"}"));
    audited.cluster.shutdown().await;
}

#[tokio::test]
async fn refusals_impersonation_and_pod_security_are_written() {
    let audited = Audited::start("- {level: Metadata, omitStages: [RequestReceived]}").await;
    let forger = over_tls(&audited.cluster, bearer("nonsense")).await;
    let refused = audited.send(&forger, Method::GET, MAPS, &Value::Null).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let event = audited.event(&refused);
    assert_eq!(event["responseStatus"]["code"], 401);
    let failed = &event["annotations"]["authentication.k8s.io/failed"];
    assert_eq!(*failed, "Authentication failed, attempted: bearer");

    let admin = over_tls(&audited.cluster, None).await;
    let headers = [
        JSON,
        ("impersonate-user", "bob"),
        ("impersonate-group", "dev"),
    ];
    let sent = audited
        .cluster
        .request_as(&admin, Method::GET, MAPS, &headers, "");
    let event = audited.event(&sent.await.unwrap());
    assert_eq!(event["user"]["username"], "kubernetes-admin");
    assert_eq!(event["impersonatedUser"]["username"], "bob");
    assert_eq!(event["impersonatedUser"]["groups"][0], "dev");
    assert_eq!(
        event["annotations"]["authorization.k8s.io/decision"],
        "forbid"
    );
    assert_eq!(event["responseStatus"]["reason"], "Forbidden");

    let labels = json!({"pod-security.kubernetes.io/audit": "restricted"});
    let namespace = json!({"metadata": {"name": "watched", "labels": labels}});
    audited.create("/api/v1/namespaces", namespace).await;
    let accounts = "/api/v1/namespaces/watched/serviceaccounts";
    audited
        .create(accounts, json!({"metadata": {"name": "own"}}))
        .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "serviceAccountName": "own", "containers": [{"name": "c", "image": "i"}]}});
    let made = audited
        .send(
            &admin,
            Method::POST,
            "/api/v1/namespaces/watched/pods",
            &pod,
        )
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let annotations = audited.event(&made)["annotations"].take();
    let broken = annotations["pod-security.kubernetes.io/audit-violations"]
        .as_str()
        .unwrap();
    assert!(
        broken.starts_with("would violate PodSecurity \"restricted:latest\": "),
        "{broken}"
    );
    assert_eq!(
        annotations["pod-security.kubernetes.io/enforce-policy"],
        "privileged:latest"
    );
    audited.cluster.shutdown().await;
}

/// What lasts is written when it begins and when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_written_when_it_begins_and_when_it_ends() {
    let audited = Audited::start("- {level: Metadata, omitStages: [RequestReceived]}").await;
    let admin = over_tls(&audited.cluster, None).await;
    let path = format!("{MAPS}?watch=1&timeoutSeconds=1");
    let watched = audited.send(&admin, Method::GET, &path, &Value::Null).await;
    let ended = tokio::time::timeout(PATIENCE, async {
        while audited.events(&watched).len() < 2 {
            tokio::task::yield_now().await;
        }
    });
    ended.await.unwrap();
    let events = audited.events(&watched);
    assert_eq!(events[0]["stage"], "ResponseStarted");
    assert_eq!(events[1]["stage"], "ResponseComplete");
    assert_eq!(events[1]["verb"], "watch");
    audited.cluster.shutdown().await;
}

#[tokio::test]
async fn a_webhook_is_sent_events_until_it_takes_them() {
    let received: Arc<Mutex<Vec<Value>>> = Arc::default();
    let (lists, told) = (Arc::clone(&received), Arc::new(Notify::new()));
    let tell = Arc::clone(&told);
    let server = Server::start(|_| {
        let take = move |headers: http::HeaderMap, body: String| {
            let mut lists = lists.lock().unwrap();
            assert_eq!(headers["authorization"], "Bearer webhook-token");
            lists.push(serde_json::from_str(&body).unwrap());
            tell.notify_one();
            // The first time it is busy.
            let status = if lists.len() == 1 { 503 } else { 200 };
            async move { StatusCode::from_u16(status).unwrap() }
        };
        Router::new().route("/events", post(take))
    })
    .await;
    let ca = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(&server.ca)
    };
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "hook", "cluster": {
            "server": format!("{}/events", server.url), "certificate-authority-data": ca}}],
        "users": [{"name": "us", "user": {"token": "webhook-token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "hook", "user": "us"}}],
    });
    let webhook = WebhookOptions {
        kubeconfig: kubeconfig.to_string(),
        initial_backoff: std::time::Duration::from_millis(5),
    };
    let audit = AuditOptions {
        policy: policy("- {level: Metadata, users: [alice]}"),
        log: None,
        webhook: Some((webhook, Mode::Batch, BATCHES)),
    };
    let cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.audit = Some(audit);
    });
    let cluster = cluster.await.unwrap();
    let alice = cluster.client_of("alice", &[]);
    let refused = cluster.request_as(&alice, Method::GET, MAPS, &[JSON], "");
    assert_eq!(refused.await.unwrap().status, StatusCode::FORBIDDEN);
    tokio::time::timeout(PATIENCE, told.notified())
        .await
        .unwrap();
    // What has come is sent before the server ends.
    cluster.shutdown().await;
    let lists = received.lock().unwrap();
    assert_eq!(lists[0], lists[1], "sent again as it was");
    assert_eq!(lists[1]["kind"], "EventList");
    let stages: Vec<_> = lists[1..]
        .iter()
        .flat_map(|list| list["items"].as_array().unwrap())
        .map(|event| event["stage"].as_str().unwrap())
        .collect();
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
}

/// Whoever has to be sure that everything is written has requests refused that cannot be.
#[tokio::test]
async fn a_strict_log_that_cannot_be_written_stops_requests() {
    let options = |mode| {
        let webhook = WebhookOptions {
            kubeconfig: json!({
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c"}}],
            })
            .to_string(),
            initial_backoff: std::time::Duration::from_millis(1),
        };
        AuditOptions {
            policy: policy("- {level: Metadata, users: [alice]}"),
            log: None,
            webhook: Some((webhook, mode, BATCHES)),
        }
    };
    for (mode, expected) in [
        (Mode::BlockingStrict, StatusCode::INTERNAL_SERVER_ERROR),
        (Mode::Blocking, StatusCode::OK),
    ] {
        let cluster = Cluster::start(|config| {
            config.in_memory = true;
            config.audit = Some(options(mode));
        });
        let cluster = cluster.await.unwrap();
        let alice = cluster.client_of("alice", &["system:masters"]);
        let answer = cluster.request_as(&alice, Method::GET, MAPS, &[JSON], "");
        assert_eq!(answer.await.unwrap().status, expected, "{mode:?}");
        cluster.shutdown().await;
    }
}
