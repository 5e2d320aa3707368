//! What somebody can do with connections before anybody knows who they are: little.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use windlass_control::server::peers::PeerLimits;
use windlass_tests::{Cluster, PATIENCE};

use super::{over_tls, who_am_i};

async fn cluster(limits: PeerLimits) -> Cluster {
    let cluster = Cluster::start(|config| {
        config.in_memory = true;
        config.peer_limits = limits;
    });
    cluster.await.unwrap()
}

type Versions = &'static [&'static SupportedProtocolVersion];

const NEW: Versions = &[&TLS13];
const OLD: Versions = &[&TLS12];

/// A connection of HTTP/1.1, without a client certificate.
async fn connect(cluster: &Cluster, versions: Versions) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in cluster.plane().authority().trusted() {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address: SocketAddr = cluster.plane().address();
    let stream = TcpStream::connect(address).await?;
    let name = address.ip().into();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Everything that comes until the server ends the connection.
async fn rest(stream: &mut TlsStream<TcpStream>) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text));
    // A connection that is cut has ended too.
    let _ = read.await.expect("the server ends the connection");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn the_head_of_a_request_has_to_come_in_time() {
    let limits = PeerLimits {
        head: Duration::from_millis(100),
        ..PeerLimits::default()
    };
    let cluster = cluster(limits).await;
    let mut stream = connect(&cluster, NEW).await.unwrap();
    stream
        .write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nx-")
        .await
        .unwrap();
    let answer = rest(&mut stream).await;
    assert!(!answer.contains("200 OK"), "{answer}");
    cluster.shutdown().await;
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let limits = PeerLimits {
        connections: 3,
        ..PeerLimits::default()
    };
    let cluster = cluster(limits).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(connect(&cluster, NEW).await.unwrap());
    }
    assert!(connect(&cluster, NEW).await.is_err());
    open.pop();
    // The server sees the end of a connection a moment later.
    let again = tokio::time::timeout(PATIENCE, async {
        while connect(&cluster, NEW).await.is_err() {}
    });
    again.await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test]
async fn wrong_credentials_are_looked_at_so_often_and_certificates_always() {
    let limits = PeerLimits {
        failures: 5,
        forgiven_per_second: 0,
        ..PeerLimits::default()
    };
    let cluster = cluster(limits).await;
    let request = "GET /version HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauthorization: Bearer nonsense\r\n\r\n";
    let forge = async || {
        let mut stream = connect(&cluster, NEW).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        rest(&mut stream).await
    };
    for _ in 0..5 {
        let answer = forge().await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    let answer = forge().await;
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("retry-after: 1"), "{answer}");
    let admin = over_tls(&cluster, None).await;
    assert_eq!(
        who_am_i(&cluster, &admin, &[]).await.status,
        StatusCode::CREATED
    );
    cluster.shutdown().await;
}

/// However the length of a body is disguised, there is no second request in it.
#[tokio::test]
async fn no_request_hides_in_the_body_of_another() {
    // Where the server waits for more of a request, it does not do so for long.
    let limits = PeerLimits {
        head: Duration::from_millis(200),
        ..PeerLimits::default()
    };
    let cluster = cluster(limits).await;
    let hidden = "GET /version HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = "POST /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let chunk = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    for (what, text) in [
        (
            "both lengths",
            format!("{post}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{chunk}"),
        ),
        (
            "two lengths",
            format!(
                "{post}content-length: 0\r\ncontent-length: {}\r\n\r\n{hidden}",
                hidden.len()
            ),
        ),
        (
            "a length with a sign",
            format!("{post}content-length: +{}\r\n\r\n{hidden}", hidden.len()),
        ),
        (
            "chunks by another name",
            format!("{post}transfer-encoding: xchunked\r\n\r\n{chunk}"),
        ),
        (
            "chunks not last",
            format!("{post}transfer-encoding: chunked, identity\r\n\r\n{chunk}"),
        ),
        (
            "a space before the colon",
            format!("{post}transfer-encoding : chunked\r\n\r\n{chunk}"),
        ),
        (
            "a folded line",
            format!("{post}x: y\r\n transfer-encoding: chunked\r\n\r\n{chunk}"),
        ),
        (
            "a bare carriage return",
            format!("{post}x: y\rtransfer-encoding: chunked\r\n\r\n{chunk}"),
        ),
        (
            "a chunk's length too long",
            format!(
                "{post}transfer-encoding: chunked\r\n\r\n{}\r\n{hidden}",
                "f".repeat(20)
            ),
        ),
    ] {
        let mut stream = connect(&cluster, NEW).await.unwrap();
        // The server may end the connection before it has read everything.
        let _ = stream.write_all(text.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(!answer.contains("gitVersion"), "{what}: {answer}");
        assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn tls_of_both_versions_is_spoken_with_modern_suites() {
    let cluster = cluster(PeerLimits::default()).await;
    for versions in [OLD, NEW] {
        let stream = connect(&cluster, versions).await.unwrap();
        let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap();
        let name = format!("{:?}", suite.suite());
        assert!(name.contains("GCM") || name.contains("CHACHA20"), "{name}");
    }
    let answer = cluster.request(Method::GET, "/livez", &[], "").await;
    assert_eq!(answer.unwrap().status, StatusCode::OK);
    cluster.shutdown().await;
}
