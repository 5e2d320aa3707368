//! What somebody without the right tries: each attempt is refused, and the audit log tells of it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use jiff::Timestamp;
use kube::Client;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};
use windlass_control::pki::Authority;
use windlass_control::pki::service_account::{Bound, Claims, ISSUER, Reference, Tokens};
use windlass_tests::Answer;

use super::{Audited, JSON, bearer, certificate, over_tls};

const RULES: &str = "- {level: Metadata, omitStages: [RequestReceived]}";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// A cluster with somebody in it who may do a little in namespace `dev`.
struct Scene {
    audited: Audited,
    mallory: Client,
}

impl Scene {
    /// Mallory may do what `rules` say in namespace `dev`, which is restricted.
    async fn set(rules: Value) -> Self {
        let audited = Audited::start(RULES).await;
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let namespace = json!({"metadata": {"name": "dev", "labels": labels}});
        audited.create("/api/v1/namespaces", namespace).await;
        let secret = json!({"metadata": {"name": "crown"}, "stringData": {"k": "jewels"}});
        audited
            .create("/api/v1/namespaces/default/secrets", secret)
            .await;
        let role = json!({"metadata": {"name": "little"}, "rules": rules});
        audited
            .create(&format!("{RBAC}/namespaces/dev/roles"), role)
            .await;
        let binding = json!({"metadata": {"name": "little"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "little"},
            "subjects": [{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]});
        audited
            .create(&format!("{RBAC}/namespaces/dev/rolebindings"), binding)
            .await;
        let shown = audited.cluster.plane().authority().client("mallory", &[]);
        let shown = shown.unwrap();
        let mallory = over_tls(
            &audited.cluster,
            certificate(&shown.certificate, &shown.key),
        );
        Self {
            mallory: mallory.await,
            audited,
        }
    }

    async fn refused(&self, what: &str, method: Method, path: &str, body: &Value) -> Answer {
        self.refused_to(&self.mallory, what, method, path, body)
            .await
    }

    /// Checks that the request is refused, tells nothing, and is in the log with its author's name.
    async fn refused_to(
        &self,
        client: &Client,
        what: &str,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Answer {
        let answer = self.audited.send(client, method, path, body).await;
        self.check(what, &answer);
        answer
    }

    fn check(&self, what: &str, answer: &Answer) {
        let code = answer.status.as_u16();
        assert!(matches!(code, 401 | 403 | 404 | 405), "{what}: {answer:?}");
        assert!(!answer.body.to_string().contains("jewels"), "{what}");
        let event = self.audited.event(answer);
        assert_eq!(event["responseStatus"]["code"], code, "{what}: {event}");
        match code {
            401 => assert!(
                event["annotations"]["authentication.k8s.io/failed"].is_string(),
                "{what}: {event}"
            ),
            _ => assert!(event["user"]["username"].is_string(), "{what}: {event}"),
        }
    }

    async fn end(self) {
        self.audited.cluster.shutdown().await;
    }
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

#[tokio::test]
async fn tokens_that_are_none_are_refused() {
    let scene = Scene::set(json!([])).await;
    let good = scene.audited.account("dev", "robot").await;
    let (head, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = head.split_once('.').unwrap();
    let account = "/api/v1/namespaces/dev/serviceaccounts/robot";
    let account = scene.audited.cluster.request(Method::GET, account, &[], "");
    let uid = account.await.unwrap().body["metadata"]["uid"].take();
    let now = Timestamp::now().as_second();
    let claims = Claims {
        jti: "j".into(),
        iss: ISSUER.into(),
        sub: "system:serviceaccount:dev:robot".into(),
        aud: vec![ISSUER.into()],
        exp: now + 600,
        iat: now,
        nbf: now,
        bound: Bound {
            namespace: "dev".into(),
            serviceaccount: Reference {
                name: "robot".into(),
                uid: uid.as_str().unwrap().into(),
            },
            ..Bound::default()
        },
    };
    let pki = scene.audited.cluster.directory().join("server/pki");
    let own = Tokens::load_or_create(&pki, &[]).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let other = Tokens::load_or_create(elsewhere.path(), &[]).unwrap();
    let signed = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims.clone();
        change(&mut claims);
        own.sign(&claims).unwrap()
    };
    let headed = |header: &str| {
        let header = URL_SAFE_NO_PAD.encode(header);
        (
            format!("{header}.{body}.{signature}"),
            format!("{header}.{body}."),
        )
    };
    // The same with nothing wrong is taken, so that what is refused is refused for what is wrong.
    let client = over_tls(&scene.audited.cluster, bearer(&signed(&|_| {}))).await;
    assert!(client.apiserver_version().await.is_ok());
    for (what, token) in [
        ("signed by another key", other.sign(&claims).unwrap()),
        ("expired", signed(&|claims| claims.exp = now - 1)),
        ("not valid yet", signed(&|claims| claims.nbf = now + 600)),
        (
            "for others",
            signed(&|claims| claims.aud = vec!["vault".into()]),
        ),
        (
            "of another issuer",
            signed(&|claims| claims.iss = "https://x".into()),
        ),
        (
            "of an account that was",
            signed(&|claims| claims.bound.serviceaccount.uid = "old".into()),
        ),
        (
            "of another's body",
            format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("{}")),
        ),
        ("none", headed(r#"{"alg":"none"}"#).1),
        ("none, with a signature", headed(r#"{"alg":"none"}"#).0),
        ("keyed with the public key", headed(r#"{"alg":"HS256"}"#).0),
        ("empty", "..".to_owned()),
        ("of no key", "abcdef.0123456789abcdef".to_owned()),
        ("very long", "a".repeat(8000)),
    ] {
        let client = over_tls(&scene.audited.cluster, bearer(&token)).await;
        let path = "/api/v1/namespaces/default/secrets/crown";
        let answer = scene
            .refused_to(&client, what, Method::GET, path, &Value::Null)
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}");
    }
    scene.end().await;
}

/// There is no request without a connection, and so nothing in the log.
#[tokio::test]
async fn certificates_of_another_authority_end_in_the_handshake() {
    let scene = Scene::set(json!([])).await;
    let dir = tempfile::tempdir().unwrap();
    let other = Authority::load_or_create(dir.path()).unwrap();
    let shown = other.client("admin", &["system:masters"]).unwrap();
    let auth = certificate(&shown.certificate, &shown.key);
    let client = over_tls(&scene.audited.cluster, auth).await;
    let error = client.apiserver_version().await.unwrap_err();
    assert!(!matches!(error, kube::Error::Api(_)), "{error}");
    scene.end().await;
}

#[tokio::test]
async fn headers_make_nobody_somebody_else() {
    let scene = Scene::set(json!([])).await;
    let nobody = over_tls(&scene.audited.cluster, Some(Default::default())).await;
    let path = "/api/v1/namespaces/default/secrets/crown";
    for headers in [
        vec![
            ("x-remote-user", "admin"),
            ("x-remote-group", "system:masters"),
        ],
        vec![
            ("x-forwarded-user", "admin"),
            ("x-forwarded-for", "127.0.0.1"),
        ],
        vec![
            ("impersonate-user", "admin"),
            ("impersonate-group", "system:masters"),
        ],
        vec![("impersonate-group", "system:masters")],
        vec![(
            "impersonate-user",
            "system:serviceaccount:kube-system:generic-garbage-collector",
        )],
        vec![
            ("impersonate-user", "system:node:a"),
            ("impersonate-group", "system:nodes"),
        ],
        vec![
            ("impersonate-user", "mallory"),
            ("impersonate-extra-scopes", "all"),
        ],
        vec![("impersonate-user", "mallory"), ("impersonate-uid", "1")],
    ] {
        for client in [&nobody, &scene.mallory] {
            let headers = [&[JSON], &*headers].concat();
            let cluster = &scene.audited.cluster;
            let answer = cluster.request_as(client, Method::GET, path, &headers, "");
            let answer = answer.await.unwrap();
            if answer.status == StatusCode::BAD_REQUEST {
                assert_eq!(headers[1].0, "impersonate-group", "{answer:?}");
                continue;
            }
            scene.check(headers[1].0, &answer);
        }
    }
    scene.end().await;
}

#[tokio::test]
async fn nobody_gives_away_what_they_do_not_have() {
    let verbs = &["get", "create", "update", "patch", "delete"];
    let rules = json!([rule(
        &["rbac.authorization.k8s.io"],
        &["roles", "rolebindings"],
        verbs,
    )]);
    let scene = Scene::set(rules).await;
    let (roles, bindings) = (
        format!("{RBAC}/namespaces/dev/roles"),
        format!("{RBAC}/namespaces/dev/rolebindings"),
    );
    let all = json!([rule(&["*"], &["*"], &["*"])]);
    let role = json!({"metadata": {"name": "all"}, "rules": all});
    let answer = scene
        .refused("a role with more", Method::POST, &roles, &role)
        .await;
    let message = answer.body["message"].as_str().unwrap();
    assert!(
        message.contains("attempting to grant RBAC permissions not currently held"),
        "{message}"
    );
    let more = json!({"metadata": {"name": "little"}, "rules": all});
    scene
        .refused(
            "more in a role",
            Method::PUT,
            &format!("{roles}/little"),
            &more,
        )
        .await;
    let bind = |kind: &str, name: &str| {
        json!({"metadata": {"name": "x"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": [{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]})
    };
    for role in ["cluster-admin", "admin", "edit", "view"] {
        let body = bind("ClusterRole", role);
        scene.refused(role, Method::POST, &bindings, &body).await;
    }
    let cluster_wide = bind("ClusterRole", "view");
    let path = format!("{RBAC}/clusterrolebindings");
    scene
        .refused("cluster-wide", Method::POST, &path, &cluster_wide)
        .await;
    scene.end().await;
}

#[tokio::test]
async fn pods_are_no_way_to_the_node_or_to_another_account() {
    let rules = json!([rule(&[""], &["pods", "pods/ephemeralcontainers"], &["*"]),]);
    let scene = Scene::set(rules).await;
    scene.audited.account("dev", "mighty").await;
    let pods = "/api/v1/namespaces/dev/pods";
    let pod = |spec: Value| {
        let security = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}});
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "serviceAccountName": "mighty",
            "containers": [{"name": "c", "image": "i", "securityContext": security}]}});
        for (key, value) in spec.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    for (what, spec) in [
        (
            "hostPath",
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        ("host network", json!({"hostNetwork": true})),
        ("host processes", json!({"hostPID": true})),
        ("host memory", json!({"hostIPC": true})),
        (
            "an account that is not there",
            json!({"serviceAccountName": "other"}),
        ),
        (
            "privileged",
            json!({"containers": [{"name": "c", "image": "i",
            "securityContext": {"privileged": true}}]}),
        ),
        (
            "a host port",
            json!({"containers": [{"name": "c", "image": "i",
            "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
        ),
    ] {
        let answer = scene.refused(what, Method::POST, pods, &pod(spec)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{what}");
    }
    let made = scene
        .audited
        .send(&scene.mallory, Method::POST, pods, &pod(json!({})))
        .await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "i",
        "securityContext": {"privileged": true}}]}});
    let path = format!("{pods}/p/ephemeralcontainers");
    let merge = [("content-type", "application/strategic-merge-patch+json")];
    let cluster = &scene.audited.cluster;
    let patched = cluster.request_as(
        &scene.mallory,
        Method::PATCH,
        &path,
        &merge,
        debug.to_string(),
    );
    scene.check("a debugger with rights", &patched.await.unwrap());
    let token = "/api/v1/namespaces/dev/serviceaccounts/mighty/token";
    scene
        .refused("a token", Method::POST, token, &json!({"spec": {}}))
        .await;
    for subresource in ["exec?command=sh", "attach", "portforward", "log", "proxy/"] {
        let path = format!("{pods}/p/{subresource}");
        let client = &scene.mallory;
        // `pods` with every verb is not `pods/exec`.
        scene
            .refused_to(client, subresource, Method::GET, &path, &Value::Null)
            .await;
    }
    for (method, path) in [
        (Method::GET, "/api/v1/nodes/n/proxy/pods"),
        (Method::POST, "/api/v1/namespaces/dev/pods/p/binding"),
        (Method::PATCH, "/api/v1/namespaces/dev/pods/p/status"),
        (Method::PUT, "/api/v1/namespaces/dev/finalize"),
        (Method::PUT, "/api/v1/namespaces/dev/status"),
    ] {
        scene.refused(path, method, path, &json!({})).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn certificate_requests_are_no_way_up() {
    let scene = Scene::set(json!([])).await;
    let csrs = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let role = json!({"metadata": {"name": "asks"}, "rules": [
        rule(&["certificates.k8s.io"], &["certificatesigningrequests"], &["create", "get"]),
        rule(&["certificates.k8s.io"], &["certificatesigningrequests/approval", "certificatesigningrequests/status"], &["update"])]});
    scene
        .audited
        .create(&format!("{RBAC}/clusterroles"), role)
        .await;
    let binding = json!({"metadata": {"name": "asks"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "asks"},
        "subjects": [{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]});
    scene
        .audited
        .create(&format!("{RBAC}/clusterrolebindings"), binding)
        .await;
    let request = |name: &str, user: &str, group: &str, signer: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
        let key = KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({"metadata": {"name": name}, "spec": {"request": STANDARD.encode(pem),
            "signerName": format!("kubernetes.io/{signer}"),
            "usages": ["digital signature", "client auth"]}})
    };
    let client_signer = "kube-apiserver-client";
    let up = request("up", "admin", "system:masters", client_signer);
    scene
        .refused("into system:masters", Method::POST, csrs, &up)
        .await;
    let ask = async |body: Value| {
        let made = scene
            .audited
            .send(&scene.mallory, Method::POST, csrs, &body)
            .await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        made.body
    };
    let mut plain = ask(request("plain", "boss", "team", client_signer)).await;
    plain["status"] = json!({"conditions": [
        {"type": "Approved", "status": "True", "reason": "r", "message": "m"}]});
    let approval = format!("{csrs}/plain/approval");
    let answer = scene
        .refused("approving", Method::PUT, &approval, &plain)
        .await;
    let message = answer.body["message"].as_str().unwrap();
    assert!(
        message.contains("not permitted to approve requests with signerName"),
        "{message}"
    );
    plain["status"] = json!({"certificate": STANDARD.encode("x")});
    let status = format!("{csrs}/plain/status");
    scene.refused("signing", Method::PUT, &status, &plain).await;
    // A node's certificate for somebody who is no node is not approved by itself.
    ask(request(
        "node",
        "system:node:a",
        "system:nodes",
        "kube-apiserver-client-kubelet",
    ))
    .await;
    let seen = async || {
        let path = format!("{csrs}/node");
        let seen = scene
            .audited
            .send(&scene.mallory, Method::GET, &path, &Value::Null)
            .await;
        seen.body["status"].clone()
    };
    // The approver has seen it once it has approved one that came later.
    let node = scene
        .audited
        .cluster
        .client_of("system:bootstrap:abcdef", &["system:bootstrappers"]);
    let later = request(
        "later",
        "system:node:b",
        "system:nodes",
        "kube-apiserver-client-kubelet",
    );
    let made = scene.audited.send(&node, Method::POST, csrs, &later).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let api = kube::Api::<k8s_openapi::api::certificates::v1::CertificateSigningRequest>::all(
        scene.audited.cluster.client(),
    );
    windlass_tests::eventually(api, "later", "its certificate", |csr| {
        csr.and_then(|csr| csr.status.as_ref()?.certificate.as_ref())
            .is_some()
    })
    .await;
    assert!(seen().await["conditions"].is_null());
    scene.end().await;
}

#[tokio::test]
async fn no_spelling_of_a_path_is_a_way_around() {
    let rules = json!([rule(&[""], &["configmaps"], &["*"])]);
    let scene = Scene::set(rules).await;
    for path in [
        "/api/v1/namespaces/default/secrets/crown",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/secrets",
        "/api/v1/namespaces/*/secrets",
        "/api/v1/namespaces/%2A/secrets",
        "/API/v1/namespaces/default/secrets/crown",
        "/api/V1/namespaces/default/secrets/crown",
        "/api/v1/Namespaces/default/secrets/crown",
        "/api/v1/namespaces/default/Secrets/crown",
        "/api/v1/namespaces/default/SECRETS",
        "//api/v1/namespaces/default/secrets/crown",
        "/api//v1///namespaces/default/secrets/crown",
        "/api/v1/namespaces/default/secrets/crown/",
        "/api/v1/namespaces/default/secrets/./crown",
        "/api/v1/namespaces/dev/../default/secrets/crown",
        "/api/v1/namespaces/dev%2F..%2Fdefault/secrets/crown",
        "/api/v1/namespaces/dev/configmaps/..%2F..%2Fdefault%2Fsecrets%2Fcrown",
        "/api/v1/namespaces/dev/configmaps/../secrets/crown",
        "/api/v1/namespaces/dev/configmaps%2F..%2Fsecrets/crown",
        "/api/v1/namespaces/dev/configmaps/x/../../../default/secrets/crown",
        "/version/../api/v1/namespaces/default/secrets/crown",
        "/healthz/..%2fapi/v1/namespaces/default/secrets/crown",
        "/livez/../../api/v1/namespaces/default/secrets/crown",
        "/api/v1/namespaces/default%00/secrets/crown",
        "/api/v1/namespaces/dev%252F..%252Fdefault/secrets/crown",
        "/api/v1/watch/namespaces/default/secrets/crown",
        "/api/v1/proxy/namespaces/default/secrets/crown",
        "/api/v1/namespaces/dev/secrets?fieldSelector=metadata.namespace%3Ddefault",
        "/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddev",
        "/api/v1/namespaces/dev/configmaps/../../../../metrics",
        "/openapi/../metrics",
        "/debug/pprof/",
        "/metrics",
    ] {
        scene.refused(path, Method::GET, path, &Value::Null).await;
    }
    scene.end().await;
}

#[tokio::test]
async fn strangers_do_not_see_what_is_served() {
    let scene = Scene::set(json!([])).await;
    let nobody = over_tls(&scene.audited.cluster, Some(Default::default())).await;
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    for path in [
        "/api",
        "/apis",
        "/api/v1",
        "/apis/apps/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/",
    ] {
        let cluster = &scene.audited.cluster;
        let headers = [("accept", aggregated)];
        let answer = cluster.request_as(&nobody, Method::GET, path, &headers, "");
        let answer = answer.await.unwrap();
        scene.check(path, &answer);
        assert!(!answer.body.to_string().contains("configmaps"), "{path}");
    }
    scene.end().await;
}

#[tokio::test]
async fn what_is_taken_away_is_gone_at_once() {
    let maps = rule(&[""], &["configmaps"], &["get", "list", "watch"]);
    let scene = Scene::set(json!([maps])).await;
    let path = "/api/v1/namespaces/dev/configmaps?watch=1&timeoutSeconds=1";
    let watched = scene
        .audited
        .send(&scene.mallory, Method::GET, path, &Value::Null)
        .await;
    assert_eq!(watched.status, StatusCode::OK);
    let binding = format!("{RBAC}/namespaces/dev/rolebindings/little");
    let cluster = &scene.audited.cluster;
    let deleted = cluster
        .request(Method::DELETE, &binding, &[], "")
        .await
        .unwrap();
    assert_eq!(deleted.status, StatusCode::OK);
    scene
        .refused("a watch", Method::GET, path, &Value::Null)
        .await;
    scene
        .refused(
            "a list",
            Method::GET,
            "/api/v1/namespaces/dev/configmaps",
            &Value::Null,
        )
        .await;
    scene.end().await;
}

#[tokio::test]
async fn a_node_is_nobody_elses_node() {
    let scene = Scene::set(json!([])).await;
    for name in ["a", "b"] {
        scene
            .audited
            .create("/api/v1/nodes", json!({"metadata": {"name": name}}))
            .await;
    }
    let authority = scene.audited.cluster.plane().authority();
    let connect = async |name: &str, groups: &[&str]| {
        let shown = authority.client(name, groups).unwrap();
        over_tls(
            &scene.audited.cluster,
            certificate(&shown.certificate, &shown.key),
        )
        .await
    };
    let node = connect("system:node:a", &["system:nodes"]).await;
    // The name without the group is no node.
    let pretender = connect("system:node:b", &[]).await;
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    for (client, path) in [(&node, "/api/v1/nodes/b"), (&pretender, "/api/v1/nodes/b")] {
        let merge = [("content-type", "application/merge-patch+json")];
        let cluster = &scene.audited.cluster;
        let answer = cluster.request_as(client, Method::PATCH, path, &merge, patch.to_string());
        scene.check(path, &answer.await.unwrap());
    }
    for path in [
        "/api/v1/namespaces/default/secrets/crown",
        "/api/v1/namespaces/default/secrets",
        "/api/v1/secrets",
        "/api/v1/namespaces/default/pods",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    ] {
        scene
            .refused_to(&node, path, Method::GET, path, &Value::Null)
            .await;
    }
    scene.end().await;
}
