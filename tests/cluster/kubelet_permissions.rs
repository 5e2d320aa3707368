//! An agent at an API server that grants it what a kubelet has, and nothing else.
//!
//! Between agent and server stands a gate that knows the ClusterRole `system:node` and the Node authorizer of Kubernetes
//! v1.35 as its documentation describes them. What they allow goes through, whatever else is refused, and both are kept.
//! The pods of the node run all the same. Of an agent that joins by a token the audit log tells the same.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, AttachParams, DeleteParams, PostParams};
use kube::client::Body;
use serde_json::{Value, json};
use windlass_control::identity::NODES;
use windlass_control::server::audit::{AuditOptions, BatchOptions, LogFileOptions, Mode, Policy};
use windlass_node::registration::bootstrap::{JoinRequest, bootstrap, ca_hash, renew};
use windlass_tests::{Cluster, eventually};

use crate::{HELLO, apply, is_ready, push};

const NODE: &str = "node-1";

/// Of which objects a rule speaks.
#[derive(Clone, Copy)]
enum Which {
    All,
    /// Those that go by the node's name, asked for by it.
    Own,
    /// Those with the node's name in `spec.nodeName`, asked for by that or by name.
    OnNode,
    /// One, by name: the authorizer looks whether a pod of the node names it.
    Named,
}

type Rule = (
    &'static [&'static str],
    &'static str,
    &'static [&'static str],
    Which,
);

const READ: &[&str] = &["get", "list", "watch"];

/// What `system:node` allows, and what of it the Node authorizer leaves.
const KUBELET: &[Rule] = &[
    (
        &["create"],
        "authentication.k8s.io",
        &["tokenreviews"],
        Which::All,
    ),
    (
        &["create"],
        "authorization.k8s.io",
        &["subjectaccessreviews", "localsubjectaccessreviews"],
        Which::All,
    ),
    (READ, "", &["services"], Which::All),
    (&["create"], "", &["nodes"], Which::All),
    (READ, "", &["nodes"], Which::Own),
    (
        &["update", "patch"],
        "",
        &["nodes", "nodes/status"],
        Which::Own,
    ),
    (&["create", "update", "patch"], "", &["events"], Which::All),
    (READ, "", &["pods"], Which::OnNode),
    (&["create"], "", &["pods"], Which::All),
    (&["delete"], "", &["pods"], Which::Named),
    (&["update", "patch"], "", &["pods/status"], Which::Named),
    (&["create"], "", &["pods/eviction"], Which::Named),
    (READ, "", &["configmaps", "secrets"], Which::Named),
    (
        &["get"],
        "",
        &[
            "persistentvolumeclaims",
            "persistentvolumes",
            "endpoints",
            "serviceaccounts",
        ],
        Which::Named,
    ),
    (&["create"], "", &["serviceaccounts/token"], Which::Named),
    (
        &["create", "get", "list", "watch"],
        "certificates.k8s.io",
        &["certificatesigningrequests"],
        Which::All,
    ),
    (&["create"], "coordination.k8s.io", &["leases"], Which::All),
    (
        &["get", "update", "patch", "delete"],
        "coordination.k8s.io",
        &["leases"],
        Which::Own,
    ),
    (
        &["get"],
        "storage.k8s.io",
        &["volumeattachments"],
        Which::Named,
    ),
    (READ, "storage.k8s.io", &["csidrivers"], Which::All),
    (READ, "node.k8s.io", &["runtimeclasses"], Which::All),
];

/// What an agent asks for besides, as kube-proxy and network plugins do on other nodes. Each is refused here, and costs what
/// docs/compatibility.md says.
const BESIDES: &[&str] = &[
    "list discovery.k8s.io/endpointslices",
    "list /namespaces",
    "list /nodes",
    "list networking.k8s.io/networkpolicies",
];

/// What a request asks for.
#[derive(Debug, Default)]
struct Asked {
    verb: &'static str,
    group: String,
    resource: String,
    name: String,
    selector: String,
}

impl Asked {
    /// Nothing for what is not about objects.
    fn of(method: &Method, uri: &http::Uri) -> Option<Self> {
        let mut parts = uri.path().trim_matches('/').split('/').peekable();
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        let _version = parts.next()?;
        let parts: Vec<&str> = parts.collect();
        let rest = match parts.as_slice() {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
            rest => rest,
        };
        let name = rest.get(1).copied().unwrap_or_default().to_owned();
        let resource = match rest {
            [resource, _, sub] => format!("{resource}/{sub}"),
            [resource, ..] => (*resource).to_owned(),
            [] => return None,
        };
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let query: Vec<_> = query.into_owned().collect();
        let given = |key: &str| {
            let mut given = query.iter().filter(|(name, _)| name == key);
            given.next().map(|(_, value)| value.clone())
        };
        let watches = given("watch").is_some_and(|value| value == "true" || value == "1");
        let verb = match *method {
            Method::GET if watches => "watch",
            Method::GET if name.is_empty() => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => return None,
        };
        Some(Self {
            verb,
            group,
            resource,
            name,
            selector: given("fieldSelector").unwrap_or_default(),
        })
    }

    /// What an event of the audit log is about.
    fn of_event(event: &Value) -> Option<Self> {
        let method = match event["verb"].as_str()? {
            "create" => Method::POST,
            "update" => Method::PUT,
            "patch" => Method::PATCH,
            "delete" => Method::DELETE,
            _ => Method::GET,
        };
        Self::of(&method, &event["requestURI"].as_str()?.parse().ok()?)
    }

    fn is_allowed(&self) -> bool {
        KUBELET.iter().any(|(verbs, group, resources, which)| {
            verbs.contains(&self.verb)
                && *group == self.group
                && resources.contains(&self.resource.as_str())
                && self.is(*which)
        })
    }

    fn is(&self, which: Which) -> bool {
        let selects = |term: &str| {
            self.selector
                .split(',')
                .any(|given| given.starts_with(term))
        };
        match which {
            Which::All => true,
            Which::Own => self.name == NODE || selects(&format!("metadata.name={NODE}")),
            Which::OnNode => !self.name.is_empty() || selects(&format!("spec.nodeName={NODE}")),
            Which::Named => !self.name.is_empty() || selects("metadata.name="),
        }
    }
}

/// What was asked for.
#[derive(Default)]
struct Gate {
    allowed: Mutex<BTreeSet<String>>,
    refused: Mutex<BTreeSet<String>>,
}

impl Gate {
    fn client(self: &Arc<Self>, server: kube::Client) -> kube::Client {
        let gate = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let (gate, server) = (gate.clone(), server.clone());
            async move {
                if gate.lets_through(&request) {
                    return server
                        .send(request)
                        .await
                        .map_err(|error| error.to_string());
                }
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "reason": "Forbidden", "code": 403, "message": "not a kubelet's"});
                let mut response = Response::new(Body::from(status.to_string().into_bytes()));
                *response.status_mut() = StatusCode::FORBIDDEN;
                Ok(response)
            }
        });
        kube::Client::new(service, "default")
    }

    fn lets_through(&self, request: &Request<Body>) -> bool {
        let Some(asked) = Asked::of(request.method(), request.uri()) else {
            // The images of this test are in the registry of the cluster's own.
            return request.uri().path().starts_with("/v2/");
        };
        let Asked {
            verb,
            group,
            resource,
            ..
        } = &asked;
        let allowed = asked.is_allowed();
        let kept = if allowed {
            &self.allowed
        } else {
            &self.refused
        };
        kept.lock()
            .unwrap()
            .insert(format!("{verb} {group}/{resource}"));
        allowed
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_needs_no_more_than_a_kubelet() {
    let mut cluster = Cluster::control_plane().await.unwrap();
    let gate = Arc::new(Gate::default());
    let folder = cluster.directory().join("static");
    std::fs::create_dir(&folder).unwrap();
    let node = cluster.client_of(&format!("system:node:{NODE}"), &[NODES]);
    let client = gate.client(node);
    cluster
        .add_node_with(NODE, |builder| {
            // Ingresses and the tunnel are asked for explicitly: a foreign server's node has neither.
            builder
                .client(client)
                .ingress(None, None)
                .static_pods(&folder)
        })
        .await
        .unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    let named = json!({"metadata": {"name": "named"}, "apiVersion": "v1"});
    let with = |kind: &str| {
        let mut object = named.clone();
        object["kind"] = kind.into();
        object
    };
    apply::<ConfigMap>(&cluster, &with("ConfigMap")).await;
    apply::<Secret>(&cluster, &with("Secret")).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "all"},
        "spec": {
            "nodeName": NODE, "terminationGracePeriodSeconds": 1,
            "volumes": [
                {"name": "map", "configMap": {"name": "named"}},
                {"name": "secret", "secret": {"secretName": "named"}},
                {"name": "scratch", "emptyDir": {}},
                {"name": "of-host", "hostPath": {"path": cluster.host_directory(), "type": "Directory"}},
                {"name": "of-image", "image": {"reference": image}},
                {"name": "self", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "token", "audience": "vault"}}]}},
            ],
            "containers": [{
                "name": "hello", "image": image,
                "envFrom": [{"configMapRef": {"name": "named"}}, {"secretRef": {"name": "named"}}],
                "ports": [{"name": "http", "containerPort": 8080}],
                "volumeMounts": [
                    {"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"},
                    {"name": "scratch", "mountPath": "/tmp"}, {"name": "self", "mountPath": "/self"},
                    {"name": "token", "mountPath": "/token"},
                    {"name": "of-host", "mountPath": "/host"}, {"name": "of-image", "mountPath": "/image"},
                ],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
            }],
        },
    });
    apply::<Pod>(&cluster, &pod).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    eventually(pods.clone(), "all", "readiness", is_ready).await;
    let over_tls: Api<Pod> = Api::default_namespaced(cluster.client_over_tls().await.unwrap());
    let params = AttachParams::default();
    let exec = over_tls.exec("all", ["test", "-d", "/host"], &params);
    let status = exec.await.unwrap().take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"), "{status:?}");
    let static_pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: own}}\nspec:\n  containers:\n  \
         - {{name: a, image: {image}}}\n"
    );
    std::fs::write(folder.join("own.yaml"), static_pod).unwrap();
    eventually(pods.clone(), "own-node-1", "readiness", is_ready).await;
    pods.delete("all", &DeleteParams::default()).await.unwrap();
    eventually(pods.clone(), "all", "the end", |pod| pod.is_none()).await;
    std::fs::remove_file(folder.join("own.yaml")).unwrap();
    eventually(pods, "own-node-1", "the end", |pod| pod.is_none()).await;
    cluster.shutdown().await;

    let refused = gate.refused.lock().unwrap().clone();
    let besides: BTreeSet<_> = BESIDES.iter().map(|asked| (*asked).to_owned()).collect();
    let unknown: Vec<_> = refused.difference(&besides).collect();
    assert!(unknown.is_empty(), "beyond a kubelet's: {unknown:?}");
    // The gate has seen what the agent lives by.
    let allowed = gate.allowed.lock().unwrap().clone();
    for needed in [
        "create /events",
        "create /nodes",
        "create /pods",
        "create /serviceaccounts/token",
        "delete /pods",
        "patch /nodes/status",
        "patch /pods/status",
        "watch /pods",
    ] {
        assert!(allowed.contains(needed), "{needed} is not in {allowed:?}");
    }
}

/// What a bootstrap token is for: the ClusterRole `system:node-bootstrapper`.
const BOOTSTRAPPER: &[&str] = &["create", "get", "list", "watch"];

#[tokio::test(flavor = "multi_thread")]
async fn joining_takes_what_a_token_and_a_stranger_may_do() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("audit.log");
    let audit = everything_to(&log);
    let cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.audit = Some(audit);
    });
    let mut cluster = cluster.await.unwrap();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": "bootstrap-token-abcdef", "namespace": "kube-system"},
        "stringData": {
            "token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true",
        },
    });
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "kube-system");
    let secret = serde_json::from_value(secret).unwrap();
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .unwrap();
    let hash = ca_hash(cluster.plane().authority().certificate().as_bytes()).unwrap();
    let token = format!("abcdef.0123456789abcdef:sha256:{hash}");
    let request = JoinRequest {
        server: format!("https://{}", cluster.plane().address()),
        node_name: NODE.to_owned(),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        directory: directory.path().join("certificates"),
    };
    let joined = bootstrap(&request, &token.parse().unwrap()).await.unwrap();
    let joined = renew(&request, &joined).await.unwrap();
    let client = joined.client(&request).unwrap();
    let added = cluster.add_node_with(NODE, |builder| builder.client(client).ingress(None, None));
    added.await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "hello", "image": image}]},
    });
    apply::<Pod>(&cluster, &pod).await;
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    eventually(pods, "web", "readiness", is_ready).await;
    cluster.shutdown().await;

    let node = format!("system:node:{NODE}");
    let mut seen = BTreeSet::new();
    for line in std::fs::read_to_string(&log).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let user = event["user"]["username"].as_str().unwrap_or_default();
        let Some(asked) = Asked::of_event(&event) else {
            continue;
        };
        let said = format!("{} {}/{}", asked.verb, asked.group, asked.resource);
        let is_allowed = match user {
            "system:anonymous" => asked.resource == "configmaps" && asked.name == "cluster-info",
            "system:bootstrap:abcdef" => {
                asked.resource == "certificatesigningrequests" && BOOTSTRAPPER.contains(&asked.verb)
            }
            // What is listed is watched then.
            user if user == node => {
                asked.is_allowed()
                    || BESIDES.contains(&said.replacen("watch ", "list ", 1).as_str())
            }
            _ => continue,
        };
        assert!(is_allowed, "{user}: {said}");
        seen.insert(user.to_owned());
    }
    assert_eq!(seen.len(), 3, "all three have asked: {seen:?}");
}

/// An audit log with a line for every request that has ended.
fn everything_to(log: &Path) -> AuditOptions {
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n\
                  rules: [{level: Metadata}]\n";
    let file = LogFileOptions {
        path: log.to_owned(),
        max_size: 1 << 30,
        max_age: Duration::ZERO,
        max_backups: 0,
    };
    let batches = BatchOptions {
        buffer: 1000,
        max_size: 100,
        max_wait: Duration::from_millis(10),
    };
    AuditOptions {
        policy: Policy::parse(policy).unwrap(),
        log: Some((file, Mode::Blocking, batches)),
        webhook: None,
    }
}

#[test]
fn requests_are_told_apart() {
    let allowed = |method: Method, uri: &str| {
        let asked = Asked::of(&method, &uri.parse().unwrap()).unwrap();
        asked.is_allowed()
    };
    for (method, uri, expected) in [
        (Method::GET, "/api/v1/secrets", false),
        (Method::GET, "/api/v1/namespaces/a/secrets/b", true),
        (
            Method::GET,
            "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Db&watch=true",
            true,
        ),
        (Method::GET, "/api/v1/pods", false),
        (
            Method::GET,
            "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1",
            true,
        ),
        (Method::GET, "/api/v1/nodes", false),
        (Method::GET, "/api/v1/nodes/node-1", true),
        (Method::GET, "/api/v1/nodes/node-2", false),
        (Method::PATCH, "/api/v1/nodes/node-1/status", true),
        (Method::DELETE, "/api/v1/nodes/node-1", false),
        (
            Method::GET,
            "/apis/discovery.k8s.io/v1/endpointslices",
            false,
        ),
        (Method::GET, "/api/v1/namespaces/a", false),
    ] {
        assert_eq!(allowed(method, uri), expected, "{uri}");
    }
}
