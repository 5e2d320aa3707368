//! Streams without a node: WebSockets, and what is answered before an upgrade.

use futures::StreamExt;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use windlass_tests::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

fn web_socket(path: &str, protocols: &str) -> Request<kube::client::Body> {
    let request = Request::get(path)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        .header(SEC_WEBSOCKET_PROTOCOL, protocols);
    request.body(kube::client::Body::empty()).unwrap()
}

#[tokio::test]
async fn a_watch_over_a_web_socket_sends_an_event_per_message() {
    let cluster = Cluster::control_plane().await.unwrap();
    let path = "/api/v1/namespaces/default/configmaps";
    let object = json!({"metadata": {"name": "a", "labels": {"l": "x"}}});
    cluster.create(path, &object).await.unwrap();
    let client = cluster.client_over_tls().await.unwrap();
    let watch = web_socket(
        &format!("{path}?watch=1&labelSelector=l"),
        "base64.binary.k8s.io",
    );
    let response = client.send(watch).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL).unwrap();
    assert_eq!(chosen, "base64.binary.k8s.io");
    let io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
    for expected in ["ADDED", "DELETED"] {
        let message = socket.next().await.unwrap().unwrap();
        let event: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(event["type"], expected);
        let one = format!("{path}/a");
        cluster
            .request(Method::DELETE, &one, &[], "")
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_cannot_be_streamed_is_answered_with_a_status() {
    let cluster = Cluster::control_plane().await.unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "a", "image": "x"}, {"name": "b", "image": "x"},
    ]}});
    cluster.create(PODS, &pod).await.unwrap();
    let cases = [
        ("no/exec", 404, "pods \"no\" not found"),
        (
            "p/exec?stdout=true",
            400,
            "a container name must be specified for pod p, choose one of: [a b]",
        ),
        (
            "p/attach?container=c&stdout=true",
            400,
            "container c is not valid for pod p",
        ),
        (
            "p/attach?container=a",
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
        ),
        (
            "p/attach?container=a&stdout=true",
            400,
            "pod p does not have a host assigned",
        ),
        (
            "p/portforward?ports=80",
            400,
            "pod p does not have a host assigned",
        ),
        ("p/proxy/", 400, "address not allowed"),
        ("ftp:p:1/proxy/", 400, "invalid pod request \"ftp:p:1\""),
        (
            "p/log?container=a&tailLines=-1",
            422,
            "PodLogOptions \"p\" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
    ];
    for (path, status, message) in cases {
        let path = format!("{PODS}/{path}");
        let answer = cluster.request(Method::GET, &path, &[], "").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.body["message"]),
            (status, &json!(message)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_proxy_to_a_service_without_endpoints_says_so() {
    let cluster = Cluster::control_plane().await.unwrap();
    let services = "/api/v1/namespaces/default/services";
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    cluster.create(services, &service).await.unwrap();
    for (path, message) in [
        ("s/proxy/x", "no endpoints available for service \"s\""),
        ("s:81/proxy/x", "no service port 81 found for service \"s\""),
    ] {
        let path = format!("{services}/{path}");
        let answer = cluster.request(Method::GET, &path, &[], "").await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.body["message"]),
            (503, &json!(message))
        );
    }
}
