//! An agent at an API server that grants it what a kubelet has, and nothing else.
//!
//! Between agent and server stands a gate that knows the ClusterRole `system:node` and the Node authorizer of Kubernetes
//! v1.35 as its documentation describes them. What they allow goes through, whatever else is refused, and both are kept.
//! The pods of the node run all the same.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams};
use kube::client::Body;
use serde_json::json;
use windlass_control::identity::NODES;
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
                ],
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
            }],
        },
    });
    apply::<Pod>(&cluster, &pod).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    eventually(pods.clone(), "all", "readiness", is_ready).await;
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
