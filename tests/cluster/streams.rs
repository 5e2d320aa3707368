//! Streams to a pod: port-forward, attach and proxies.

use std::collections::HashSet;

use http::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, AttachParams, ListParams};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use windlass_api::stream::port_forward::{Half, Request as Forward, TUNNEL_PROTOCOL};
use windlass_api::stream::{ByteStream, spdy, websocket};
use windlass_tests::Cluster;

use crate::{HELLO, apply, hello, node_port, push, rolled_out};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// A cluster with one pod of the hello component, and the pod's name.
async fn running() -> (Cluster, String) {
    let cluster = Cluster::with_node().await.unwrap();
    let image = push(&cluster, "hello", HELLO).await;
    apply::<Deployment>(&cluster, &hello(&image, 1, "streams")).await;
    apply::<Service>(&cluster, &node_port()).await;
    rolled_out(&cluster).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "default");
    let params = ListParams::default().labels("app=hello");
    let pod = pods.list(&params).await.unwrap().items.remove(0);
    (cluster, pod.metadata.name.unwrap())
}

/// One request over a connection, read to the end.
async fn ask(mut connection: impl ByteStream) -> String {
    connection.write_all(REQUEST).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_forwarded_over_channels_of_a_web_socket() {
    let (cluster, name) = running().await;
    let client = cluster.client_over_tls().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let mut forwarder = pods.portforward(&name, &[8080]).await.unwrap();
    let answer = ask(forwarder.take_stream(8080).unwrap()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(&name), "{answer}");
    let mut forwarder = pods.portforward(&name, &[9]).await.unwrap();
    let error = forwarder.take_error(9).unwrap().await.unwrap();
    assert!(error.contains("error forwarding port 9 to pod"), "{error}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_forwarded_as_kubectl_does_by_spdy_within_a_web_socket() {
    let (cluster, name) = running().await;
    let client = cluster.client_over_tls().await.unwrap();
    let request = Request::get(format!(
        "/api/v1/namespaces/default/pods/{name}/portforward"
    ))
    .header(header::CONNECTION, "Upgrade")
    .header(header::UPGRADE, "websocket")
    .header(header::SEC_WEBSOCKET_VERSION, "13")
    .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
    .header(header::SEC_WEBSOCKET_PROTOCOL, TUNNEL_PROTOCOL);
    let request = request.body(kube::client::Body::empty()).unwrap();
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    let (session, driver) = spdy::Session::new(websocket::bytes(socket), spdy::Role::Client);
    let driver = tokio::spawn(driver);
    for id in ["0", "1"] {
        let open = |half| {
            let id = id.to_owned();
            session
                .open(
                    Forward {
                        half,
                        port: 8080,
                        id,
                    }
                    .headers(),
                )
                .unwrap()
        };
        let (_error, data) = (open(Half::Error), open(Half::Data));
        let answer = ask(data).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    driver.abort();
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_services_and_nodes_answer_through_the_proxy() {
    let (cluster, name) = running().await;
    let get = async |path: &str| cluster.request(Method::GET, path, &[], "").await.unwrap();
    let namespace = "/api/v1/namespaces/default";
    for path in [
        format!("{namespace}/pods/{name}/proxy/"),
        format!("{namespace}/pods/http:{name}:8080/proxy/"),
        format!("{namespace}/services/hello/proxy/"),
        format!("{namespace}/services/hello:80/proxy/?a=b"),
    ] {
        let answer = get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        assert!(
            answer.body.to_string().contains(&name),
            "{path}: {answer:?}"
        );
    }
    let redirected = get(&format!("{namespace}/services/hello/proxy?a=b")).await;
    assert_eq!(redirected.status, StatusCode::MOVED_PERMANENTLY);
    let location = redirected.headers.get(header::LOCATION).unwrap();
    assert_eq!(
        location,
        "/api/v1/namespaces/default/services/hello/proxy/?a=b"
    );
    let healthy = get("/api/v1/nodes/node-1/proxy/healthz").await;
    assert_eq!(healthy.body, json!("ok"));
    let refused = get(&format!("{namespace}/pods/{name}:9/proxy/")).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let message = refused.body["message"].as_str().unwrap();
    assert!(
        message.starts_with("error trying to reach service: "),
        "{message}"
    );
    assert!(message.contains("connection refused"), "{message}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_a_node_are_read_through_the_server() {
    let (cluster, name) = running().await;
    let get = async |path: &str| cluster.request(Method::GET, path, &[], "").await.unwrap();
    get("/api/v1/namespaces/default/services/hello/proxy/").await;
    let pod = format!("namespace=\"default\",pod=\"{name}\"");
    let cases = [
        (
            "metrics",
            vec![
                "kubelet_node_name{node=\"node-1\"} 1".to_owned(),
                "kubelet_running_pods 1".to_owned(),
                "kubelet_running_containers{container_state=\"running\"} 1".to_owned(),
                format!(
                    "windlass_network_received_bytes_total{{direction=\"Ingress\",\
                     namespace=\"default\",peer=\"Node\",pod=\"{name}\"}} "
                ),
                "windlass_ingress_request_duration_seconds_count 0".to_owned(),
            ],
        ),
        (
            "metrics/resource",
            vec![
                format!("container_cpu_usage_seconds_total{{container=\"hello\",{pod}}} 0."),
                format!("container_memory_working_set_bytes{{container=\"hello\",{pod}}} "),
                format!("container_start_time_seconds{{container=\"hello\",{pod}}} 1"),
                format!("pod_memory_working_set_bytes{{{pod}}} "),
                "node_memory_working_set_bytes ".to_owned(),
                "resource_scrape_error 0".to_owned(),
            ],
        ),
        (
            "metrics/cadvisor",
            vec![
                "container_cpu_usage_seconds_total{container=\"hello\",id=\"/pod".to_owned(),
                "container_spec_cpu_shares{container=\"hello\",".to_owned(),
                format!("container_network_receive_bytes_total{{interface=\"eth0\",{pod}}} "),
            ],
        ),
    ];
    for (path, wanted) in cases {
        let answer = get(&format!("/api/v1/nodes/node-1/proxy/{path}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        let text = answer.body.as_str().unwrap();
        for start in wanted {
            let found = text.lines().any(|line| line.starts_with(&start));
            assert!(found, "{path}: {start}\n{text}");
        }
        let mut types = HashSet::new();
        for line in text.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                assert!(types.insert(family), "{path}: {family} is told twice");
            } else if !line.starts_with('#') {
                let (_, value) = line.rsplit_once(' ').unwrap();
                assert!(value.parse::<f64>().is_ok(), "{path}: {line}");
            }
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_attaches_sees_what_the_pod_prints_from_then_on() {
    let (cluster, name) = running().await;
    let client = cluster.client_over_tls().await.unwrap();
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let params = AttachParams::default()
        .stdin(false)
        .stdout(true)
        .stderr(false);
    let mut attached = pods.attach(&name, &params).await.unwrap();
    let mut lines = BufReader::new(attached.stdout().unwrap()).lines();
    let path = format!("/api/v1/namespaces/default/pods/{name}/proxy/attached");
    cluster.request(Method::GET, &path, &[], "").await.unwrap();
    let seen = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("/attached") {
                return;
            }
        }
        panic!("the output ended");
    };
    tokio::time::timeout(windlass_tests::PATIENCE, seen)
        .await
        .unwrap();
    cluster.shutdown().await;
}
