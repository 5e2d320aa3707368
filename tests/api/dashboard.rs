//! The dashboard's server: who gets a session, what a session may, and what pages of other sites may not.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use windlass_control::dashboard::{Dashboard, DashboardConfig, Files};
use windlass_control::identity::{MASTERS, UserInfo};
use windlass_tests::{Cluster, PATIENCE};

const FILES: Files = Files {
    page: "<meta name=\"csp-nonce\" content=\"__CSP_NONCE__\">",
    // An empty file, compressed.
    assets: &[(
        "/assets/a.js",
        "text/javascript",
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    )],
};

struct Site {
    cluster: Cluster,
    dashboard: Arc<Dashboard>,
    address: SocketAddr,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Site {
    async fn open() -> Self {
        let mut cluster = Cluster::control_plane().await.unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = DashboardConfig {
            files: FILES,
            secure: false,
            session_life: Duration::from_secs(3600),
        };
        let served = cluster.plane_mut().serve_dashboard(any, config);
        let (dashboard, address) = served.await.unwrap();
        Self {
            cluster,
            dashboard,
            address,
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let response = client.request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()),
        }
    }

    async fn get(&self, path: &str, cookie: &str) -> Answer {
        self.ask(Method::GET, path, &[("cookie", cookie)], "").await
    }

    /// A session of an administrator, by a link.
    async fn log_in(&self) -> String {
        let admin = UserInfo::authenticated("ann", &[MASTERS]);
        let answer = self.get(&self.dashboard.login_link(admin), "").await;
        assert_eq!(answer.headers[header::LOCATION], "/");
        cookie(&answer)
    }

    async fn shutdown(self) {
        self.cluster.shutdown().await;
    }
}

fn cookie(answer: &Answer) -> String {
    let set = answer.headers[header::SET_COOKIE].to_str().unwrap();
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    set.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_link_works_once_and_a_session_until_it_is_ended() {
    let site = Site::open().await;
    let link = site
        .dashboard
        .login_link(UserInfo::authenticated("ann", &[MASTERS]));
    let own = cookie(&site.get(&link, "").await);
    let again = site.get(&link, "").await;
    assert_eq!(again.headers[header::LOCATION], "/signin?error=link");
    assert!(again.headers.get(header::SET_COOKIE).is_none());
    let who = site.get("/session", &own).await;
    assert_eq!(who.body["user"]["username"], "ann");
    assert_eq!(who.body["version"], "v1.35.0");
    let namespaces = site.get("/kube/api/v1/namespaces", &own).await;
    assert_eq!(namespaces.body["kind"], "NamespaceList");
    let ended = site
        .ask(Method::DELETE, "/session", &[("cookie", &own)], "")
        .await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT);
    for path in ["/session", "/kube/api/v1/namespaces", "/registry/v2/"] {
        for cookie in [&*own, "", "windlass-session=forged"] {
            let refused = site.get(path, cookie).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{path} {cookie}");
            assert_eq!(refused.body["kind"], "Status");
        }
    }
    site.shutdown().await;
}

#[tokio::test]
async fn a_token_signs_in_with_its_rights_and_no_longer_than_it_is_good() {
    let site = Site::open().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "robot"}});
    site.cluster.create(accounts, &account).await.unwrap();
    let request = json!({"spec": {}});
    let path = format!("{accounts}/robot/token");
    let issued = site.cluster.create(&path, &request).await.unwrap();
    let body = json!({"token": issued["status"]["token"]}).to_string();
    let signed = site.ask(Method::POST, "/session", &[], &body).await;
    assert_eq!(signed.status, StatusCode::NO_CONTENT);
    let own = cookie(&signed);
    let who = site.get("/session", &own).await;
    let name = "system:serviceaccount:default:robot";
    assert_eq!(who.body["user"]["username"], name);
    let refused = site.get("/kube/api/v1/secrets", &own).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    // Headers of the page's own make it nobody else.
    let forged = [("cookie", &*own), ("authorization", "Bearer forged")];
    let same = site
        .ask(Method::GET, "/kube/api/v1/secrets", &forged, "")
        .await;
    assert_eq!(same.status, StatusCode::FORBIDDEN);

    let account = format!("{accounts}/robot");
    let deleted = site.cluster.request(Method::DELETE, &account, &[], "");
    assert_eq!(deleted.await.unwrap().status, StatusCode::OK);
    assert_eq!(
        site.get("/session", &own).await.status,
        StatusCode::UNAUTHORIZED
    );
    for body in ["", "{}", r#"{"token": "forged"}"#, r#"{"token": "a\nb"}"#] {
        let refused = site.ask(Method::POST, "/session", &[], body).await;
        assert!(
            refused.status.is_client_error(),
            "{body}: {}",
            refused.status
        );
        assert!(refused.headers.get(header::SET_COOKIE).is_none());
    }
    site.shutdown().await;
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing_and_open_nothing() {
    let site = Site::open().await;
    let own = site.log_in().await;
    let maps = "/kube/api/v1/namespaces/default/configmaps";
    let body = r#"{"metadata": {"name": "a"}}"#;
    let json = ("content-type", "application/json");
    let without = site
        .ask(Method::POST, maps, &[("cookie", &own), json], body)
        .await;
    assert_eq!(without.status, StatusCode::FORBIDDEN);
    let intent = ("x-windlass-request", "1");
    let with = site
        .ask(Method::POST, maps, &[("cookie", &own), json, intent], body)
        .await;
    assert_eq!(with.status, StatusCode::CREATED);
    let elsewhere = ("origin", "http://evil.example");
    let signed = site.ask(Method::POST, "/session", &[elsewhere], "{}").await;
    assert_eq!(signed.status, StatusCode::FORBIDDEN);
    for path in ["/stream", "/kube/api/v1/namespaces?watch=1"] {
        let headers = [
            ("cookie", &*own),
            elsewhere,
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let refused = site.ask(Method::GET, path, &headers, "").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
    }
    site.shutdown().await;
}

#[tokio::test]
async fn many_watches_share_a_connection_and_each_ends_by_itself() {
    let site = Site::open().await;
    let own = site.log_in().await;
    let mut request = format!("ws://{}/stream", site.address)
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert(header::COOKIE, own.parse().unwrap());
    let origin = format!("http://{}", site.address);
    request
        .headers_mut()
        .insert(header::ORIGIN, origin.parse().unwrap());
    let connection = TcpStream::connect(site.address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, connection)
        .await
        .unwrap();
    let say = |text: Value| Message::text(text.to_string());
    let maps = "/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3D";
    for (id, name) in [(1, "a"), (2, "b")] {
        let path = format!("{maps}{name}");
        socket
            .send(say(json!({"op": "start", "id": id, "path": path})))
            .await
            .unwrap();
    }
    let bad = json!({"op": "start", "id": 3, "path": "/api/v1/nothing?watch=1"});
    socket.send(say(bad)).await.unwrap();
    let mut hear = async || {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await;
        let message = message.unwrap().unwrap().unwrap();
        let heard: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        heard
    };
    let heard = hear().await;
    assert_eq!(
        (&heard["id"], &heard["end"]["code"]),
        (&json!(3), &json!(404)),
        "{heard}"
    );
    for (id, name) in [(2, "b"), (1, "a")] {
        let path = "/api/v1/namespaces/default/configmaps";
        let object = json!({"metadata": {"name": name}});
        site.cluster.create(path, &object).await.unwrap();
        let heard = hear().await;
        assert_eq!(heard["id"], id, "{heard}");
        assert_eq!(heard["event"]["type"], "ADDED");
        assert_eq!(heard["event"]["object"]["metadata"]["name"], name);
    }
    site.shutdown().await;
}

#[tokio::test]
async fn a_page_that_comes_back_without_a_session_is_told_to_sign_in() {
    let site = Site::open().await;
    let mut request = format!("ws://{}/stream", site.address)
        .into_client_request()
        .unwrap();
    let headers = request.headers_mut();
    let origin = format!("http://{}", site.address);
    headers.insert(header::ORIGIN, origin.parse().unwrap());
    headers.insert(header::COOKIE, "windlass-session-1=gone".parse().unwrap());
    let connection = TcpStream::connect(site.address).await.unwrap();
    let opened = tokio_tungstenite::client_async(request, connection).await;
    let (mut socket, _) = opened.unwrap();
    let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(end)))) = message else {
        panic!("{message:?}");
    };
    assert_eq!(u16::from(end.code), 4401);
    site.shutdown().await;
}

#[tokio::test]
async fn a_page_is_told_why_the_api_refuses_a_web_socket() {
    let site = Site::open().await;
    let own = site.log_in().await;
    let path = "kube/api/v1/namespaces/default/pods/gone/exec?command=sh&stdout=1";
    let url = format!("ws://{}/{path}", site.address);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert(header::COOKIE, own.parse().unwrap());
    let protocol = "v5.channel.k8s.io".parse().unwrap();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    let connection = TcpStream::connect(site.address).await.unwrap();
    let opened = tokio_tungstenite::client_async(request, connection).await;
    let (mut socket, _) = opened.unwrap();
    let message = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(end)))) = message else {
        panic!("{message:?}");
    };
    assert_eq!(u16::from(end.code), 4000);
    assert_eq!(end.reason.as_str(), "pods \"gone\" not found");
    site.shutdown().await;
}

#[tokio::test]
async fn the_page_is_guarded_and_files_are_kept() {
    let site = Site::open().await;
    let page = site.get("/pods/default/web", "").await;
    let policy = page.headers[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .unwrap();
    assert!(policy.starts_with("default-src 'self';"), "{policy}");
    let nonce = policy
        .split("'nonce-")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    assert!(page.body.as_str().unwrap().contains(nonce));
    let other = site.get("/", "").await;
    assert_ne!(other.headers[header::CONTENT_SECURITY_POLICY], policy);
    let file = site.get("/assets/a.js", "").await;
    assert_eq!(file.headers[header::CONTENT_TYPE], "text/javascript");
    assert!(
        file.headers[header::CACHE_CONTROL]
            .to_str()
            .unwrap()
            .contains("immutable")
    );
    assert_eq!(
        site.get("/assets/old.js", "").await.status,
        StatusCode::NOT_FOUND
    );
    let posted = site.ask(Method::POST, "/pods", &[], "").await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    site.shutdown().await;
}
