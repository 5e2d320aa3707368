//! A control plane, asked in raw requests.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use tempfile::TempDir;
use windlass_control::identity::{MASTERS, UserInfo};
use windlass_control::{Config, ControlPlane};

/// A bound for broken code, not a measure.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    client: Client,
    _plane: ControlPlane,
    _dir: TempDir,
}

/// What a request answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer that goes on.
pub(crate) struct Streamed {
    body: Body,
    pub(crate) headers: HeaderMap,
    read: Vec<u8>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("server"));
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.in_memory = true;
        let plane = ControlPlane::start(config).await.unwrap();
        Self {
            client: plane.client(UserInfo::authenticated("admin", &[MASTERS])),
            _plane: plane,
            _dir: dir,
        }
    }

    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        let (parts, body) = self.send(method, path, headers, body.into()).await;
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// A GET whose answer does not end.
    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Streamed {
        let (parts, body) = self.send(Method::GET, path, headers, Vec::new()).await;
        assert_eq!(parts.status, StatusCode::OK);
        Streamed {
            body,
            headers: parts.headers,
            read: Vec::new(),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (http::response::Parts, Body) {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body)).unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.client.send(request));
        answer.await.unwrap().unwrap().into_parts()
    }
}

impl Streamed {
    /// The next frame with a length of four bytes in front.
    pub(crate) async fn frame(&mut self) -> Vec<u8> {
        let length = self.take(4).await;
        let length = u32::from_be_bytes(length.try_into().unwrap());
        self.take(usize::try_from(length).unwrap()).await
    }

    async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.read.len() < length {
            let next = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = next.expect("in time").expect("goes on").unwrap();
            self.read.extend(frame.into_data().unwrap());
        }
        let rest = self.read.split_off(length);
        std::mem::replace(&mut self.read, rest)
    }
}
