//! Ingresses as clients outside of the cluster reach them: hosts, paths, certificates by name.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use windlass_control::identity::NODES;
use windlass_tests::load::Load;
use windlass_tests::{Cluster, PATIENCE, eventually};

use crate::hello as deployment;
use crate::{HELLO, answered, apply, is_ready, node_port, push, rolled_out};

const LABEL: &str = "node-restriction.kubernetes.io/ingress";

/// A pod of the hello component, and a Service before it; `two` is spoken to in HTTP/2.
async fn serve(cluster: &Cluster, image: &str, name: &str, node: &str) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "hello", "image": image, "env": [{"name": "POD_NAME", "value": name}],
            "ports": [{"name": "http", "containerPort": 8080}]}]},
    });
    apply::<Pod>(cluster, &pod).await;
    // The component's server speaks both.
    let protocol = if name == "two" {
        "kubernetes.io/h2c"
    } else {
        "http"
    };
    let port = json!({"name": "web", "port": 80, "targetPort": "http", "appProtocol": protocol});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [port]},
    });
    apply::<Service>(cluster, &service).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    eventually(pods, name, "readiness", is_ready).await;
}

fn backend(name: &str) -> Value {
    json!({"service": {"name": name, "port": {"name": "web"}}})
}

fn rule(host: &str, paths: &[(&str, &str, &str)]) -> Value {
    let path = |(path, by, to): &(&str, &str, &str)| json!({"path": path, "pathType": by, "backend": backend(to)});
    let paths: Vec<_> = paths.iter().map(path).collect();
    json!({"host": host, "http": {"paths": paths}})
}

fn ingress(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": spec})
}

fn request(host: &str, path: &str, scheme: Option<&str>) -> Request<Empty<Bytes>> {
    let request = match scheme {
        None => Request::get(path).header("host", host),
        Some(scheme) => Request::get(format!("{scheme}://{host}{path}")),
    };
    request.body(Empty::new()).unwrap()
}

async fn text(response: http::Response<hyper::body::Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).trim().to_owned())
}

/// One request by HTTP/1.1 on a connection of its own.
async fn get(server: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    text(
        sender
            .send_request(request(host, path, None))
            .await
            .unwrap(),
    )
    .await
}

/// The same by HTTP/2 without TLS.
async fn get_h2(server: SocketAddr, host: &str, path: &str) -> (u16, String) {
    let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = request(host, path, Some("http"));
    text(sender.send_request(request).await.unwrap()).await
}

/// The same by HTTP/2 over TLS, from who trusts that certificate only.
async fn get_tls(server: SocketAddr, host: &str, trusted: &Pair) -> Result<(u16, String), String> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.0.cert.der().clone()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(
        tokio_rustls::rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(server).await.unwrap();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await;
    let stream = TokioIo::new(stream.map_err(|error| error.to_string())?);
    let handshake = http2::handshake(TokioExecutor::new(), stream).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let answer = sender.send_request(request(host, "/", Some("https"))).await;
    Ok(text(answer.map_err(|error| error.to_string())?).await)
}

/// Asks until the answer is as wanted: nodes hear of a change a moment after it was made.
async fn until<T: PartialEq + std::fmt::Debug>(wanted: &T, ask: impl AsyncFn() -> T) {
    let asking = async { while ask().await != *wanted {} };
    let came = tokio::time::timeout(PATIENCE, asking).await;
    if came.is_err() {
        panic!("wanted {wanted:?}, last {:?}", ask().await);
    }
}

fn hello(name: &str) -> (u16, String) {
    (200, format!("Hello from {name}"))
}

fn no_rule() -> (u16, String) {
    (
        404,
        "404: no Ingress has a rule for this host and path".to_owned(),
    )
}

/// A certificate that signs itself, and its key.
struct Pair(rcgen::CertifiedKey<rcgen::KeyPair>);

impl Pair {
    fn new(name: &str) -> Self {
        Self(rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap())
    }

    fn secret(&self, name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": self.0.cert.pem(), "tls.key": self.0.signing_key.serialize_pem()}})
    }
}

async fn label(cluster: &Cluster, node: &str, value: &Value) {
    let nodes: Api<Node> = Api::all(cluster.client());
    let patch = Patch::Merge(json!({"metadata": {"labels": {LABEL: value}}}));
    nodes
        .patch(node, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_and_paths_lead_to_their_services_on_every_node() {
    let mut cluster = Cluster::with_node().await.unwrap();
    cluster.add_node("node-2").await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    serve(&cluster, &image, "one", "node-1").await;
    serve(&cluster, &image, "two", "node-2").await;
    let [plain, _] = cluster.ingress_addresses();
    let spec = json!({"rules": [
        rule("shop.example", &[("/", "Prefix", "one"), ("/", "Exact", "two")]),
        rule("*.shop.example", &[("/", "Prefix", "two")]),
    ]});
    let applied = ingress("shop", &spec);
    apply::<Ingress>(&cluster, &applied).await;
    let ingresses: Api<Ingress> = Api::namespaced(cluster.client(), "default");
    let made = ingresses.get("shop").await.unwrap();
    let class = made.spec.unwrap().ingress_class_name;
    assert_eq!(class.as_deref(), Some("windlass"), "the default class");
    until(&hello("two"), async || {
        get(plain, "shop.example", "/").await
    })
    .await;
    let other = (404, "no page at /other".to_owned());
    for (host, path, want) in [
        ("shop.example:8080", "/other", other.clone()),
        ("SHOP.example", "/healthz", (200, "ok".to_owned())),
        ("api.shop.example", "/", hello("two")),
        ("a.b.shop.example", "/", no_rule()),
        ("elsewhere.example", "/", no_rule()),
    ] {
        assert_eq!(get(plain, host, path).await, want, "{host}{path}");
        assert_eq!(get_h2(plain, host, path).await, want, "{host}{path} by h2");
    }

    // Its addresses are those of the nodes that were made to serve.
    let addresses = |ingress: Option<&Ingress>| {
        let status = ingress.and_then(|it| it.status.as_ref()?.load_balancer.as_ref());
        let all = status
            .and_then(|it| it.ingress.as_ref())
            .into_iter()
            .flatten();
        all.filter_map(|it| it.ip.clone()).collect::<Vec<_>>()
    };
    label(&cluster, "node-1", &json!("true")).await;
    let what = "an address";
    eventually(ingresses.clone(), "shop", what, |it| {
        addresses(it) == ["127.0.0.1"]
    })
    .await;
    label(&cluster, "node-1", &Value::Null).await;
    eventually(ingresses.clone(), "shop", "none", |it| {
        addresses(it).is_empty()
    })
    .await;

    // A class of somebody else's is theirs; a default backend takes what is left.
    let mut foreign = applied;
    foreign["spec"]["ingressClassName"] = "other".into();
    apply::<Ingress>(&cluster, &foreign).await;
    until(&no_rule(), async || get(plain, "shop.example", "/").await).await;
    let left = ingress("left", &json!({"defaultBackend": backend("one")}));
    apply::<Ingress>(&cluster, &left).await;
    until(&hello("one"), async || get(plain, "any.example", "/").await).await;
    ingresses
        .delete("left", &DeleteParams::default())
        .await
        .unwrap();
    until(&no_rule(), async || get(plain, "any.example", "/").await).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_update_behind_an_ingress_fails_no_request() {
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    apply::<Deployment>(&cluster, &deployment(&image, 2, "one")).await;
    apply::<Service>(&cluster, &node_port()).await;
    let backend = json!({"service": {"name": "hello", "port": {"number": 80}}});
    apply::<Ingress>(
        &cluster,
        &ingress("hello", &json!({ "defaultBackend": backend })),
    )
    .await;
    rolled_out(&cluster).await;
    let [plain, _] = cluster.ingress_addresses();
    let url = format!("http://{plain}/");
    until(&200, async || answered(&url).await.0).await;
    let load = Load::on(&url, 4);
    for greeting in ["two", "three"] {
        apply::<Deployment>(&cluster, &deployment(&image, 2, greeting)).await;
        rolled_out(&cluster).await;
    }
    load.none_failed().await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_chosen_by_name_and_replaced_while_it_runs() {
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    serve(&cluster, &image, "one", "node-1").await;
    let [plain, tls] = cluster.ingress_addresses();
    let (own, wild, next) = (
        Pair::new("a.example"),
        Pair::new("b.wild.example"),
        Pair::new("a.example"),
    );
    apply::<Secret>(&cluster, &own.secret("own")).await;
    apply::<Secret>(&cluster, &wild.secret("wild")).await;
    apply::<Secret>(&cluster, &next.secret("unnamed")).await;
    let spec = json!({
        "tls": [{"hosts": ["a.example"], "secretName": "own"}, {"hosts": ["*.wild.example"], "secretName": "wild"}],
        "rules": [rule("a.example", &[("/", "Prefix", "one")]), rule("*.wild.example", &[("/", "Prefix", "one")])],
    });
    apply::<Ingress>(&cluster, &ingress("web", &spec)).await;
    // A node that was not made to serve Ingresses is shown no certificate.
    let node = cluster.client_of("system:node:node-1", &[NODES]);
    let read = async |name: &str| {
        let path = format!("/api/v1/namespaces/default/secrets/{name}");
        let answer = cluster.request_as(&node, Method::GET, &path, &[], "").await;
        answer.unwrap().status
    };
    assert_eq!(read("own").await, StatusCode::FORBIDDEN);
    until(&hello("one"), async || get(plain, "a.example", "/").await).await;
    assert!(get_tls(tls, "a.example", &own).await.is_err());

    label(&cluster, "node-1", &json!("true")).await;
    assert_eq!(read("own").await, StatusCode::OK);
    assert_eq!(read("unnamed").await, StatusCode::FORBIDDEN);
    let listed = cluster.request_as(
        &node,
        Method::GET,
        "/api/v1/namespaces/default/secrets",
        &[],
        "",
    );
    assert_eq!(listed.await.unwrap().status, StatusCode::FORBIDDEN);
    until(&Ok(hello("one")), async || {
        get_tls(tls, "a.example", &own).await
    })
    .await;
    until(&Ok(hello("one")), async || {
        get_tls(tls, "b.wild.example", &wild).await
    })
    .await;
    assert!(get_tls(tls, "c.example", &own).await.is_err());

    apply::<Secret>(&cluster, &next.secret("own")).await;
    until(&Ok(hello("one")), async || {
        get_tls(tls, "a.example", &next).await
    })
    .await;
    assert!(
        get_tls(tls, "a.example", &own).await.is_err(),
        "the old one is shown no more"
    );
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "default");
    secrets
        .delete("own", &DeleteParams::default())
        .await
        .unwrap();
    until(&true, async || {
        get_tls(tls, "a.example", &next).await.is_err()
    })
    .await;
    cluster.shutdown().await;
}
