//! A registry in this process that does what a test tells it, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};
use windlass_oci::digest::Digest;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn authorization(&self) -> Option<&str> {
        self.header(header::AUTHORIZATION)
    }

    pub(crate) fn is_for(&self, part: &str) -> bool {
        self.path.contains(part)
    }
}

/// A server that ends with its owner.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Fake {
    /// Answers each request with what `answer` makes of it and of how many came before.
    pub(crate) async fn serve(
        answer: impl Fn(&Asked, usize) -> Response + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (known, answer) = (asked.clone(), Arc::new(answer));
        let router = axum::Router::new().fallback(move |request: Request| {
            let (known, answer) = (known.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
                let one = Asked {
                    method: parts.method,
                    path: parts.uri.path().to_owned(),
                    query: parts.uri.query().unwrap_or_default().to_owned(),
                    headers: parts.headers,
                    body: String::from_utf8_lossy(&body).into_owned(),
                };
                let mut known = known.lock().unwrap();
                let before = known.iter().filter(|other| other.path == one.path).count();
                known.push(one.clone());
                drop(known);
                answer(&one, before)
            }
        });
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        Self {
            address,
            asked,
            serving,
        }
    }

    pub(crate) fn asked(&self, part: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|one| one.is_for(part))
            .cloned()
            .collect()
    }
}

/// An image with blobs, as a registry has it.
#[derive(Clone)]
pub(crate) struct Image {
    pub(crate) manifest: Bytes,
    pub(crate) blobs: Vec<Bytes>,
}

impl Image {
    /// A configuration and layers of these types.
    pub(crate) fn new(config: (&str, &[u8]), layers: &[(&str, &[u8])]) -> Self {
        let describe = |(kind, bytes): &(&str, &[u8])| json!({"mediaType": kind, "digest": Digest::sha256(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": describe(&config),
            "layers": layers.iter().map(describe).collect::<Vec<_>>(),
        });
        let blobs = layers.iter().chain([&config]);
        Self {
            manifest: manifest.to_string().into(),
            blobs: blobs
                .map(|(_, bytes)| Bytes::copy_from_slice(bytes))
                .collect(),
        }
    }

    /// A wasm artifact with one layer.
    pub(crate) fn wasm(bytes: &[u8]) -> Self {
        let config = ("application/vnd.wasm.config.v0+json", b"{}".as_slice());
        Self::new(config, &[("application/wasm", bytes)])
    }

    pub(crate) fn layer(&self) -> Digest {
        Digest::sha256(&self.blobs[0])
    }

    /// The honest answer.
    pub(crate) fn answer(&self, asked: &Asked) -> Response {
        if asked.is_for("/manifests/") {
            return ok(self.manifest.clone());
        }
        let blob = self.blobs.iter();
        let blob = blob
            .into_iter()
            .find(|blob| asked.path.ends_with(&Digest::sha256(blob).to_string()));
        match blob {
            Some(blob) => ranged(asked, blob),
            None => status(404, &json!({"errors": [{"code": "NAME_UNKNOWN"}]})),
        }
    }
}

pub(crate) fn ok(body: impl Into<Body>) -> Response {
    Response::new(body.into())
}

pub(crate) fn status(code: u16, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

pub(crate) fn with(mut response: Response, name: header::HeaderName, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}

/// A blob from where the request wants it.
fn ranged(asked: &Asked, blob: &Bytes) -> Response {
    let Some(start) = start_of(asked) else {
        return ok(blob.clone());
    };
    let mut response = ok(blob.slice(start..));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
    with(response, header::CONTENT_RANGE, &range)
}

pub(crate) fn start_of(asked: &Asked) -> Option<usize> {
    let range = asked.header(header::RANGE)?.strip_prefix("bytes=")?;
    range.strip_suffix('-')?.parse().ok()
}

/// So many bytes of what is announced, then the connection breaks.
pub(crate) fn broken(bytes: &Bytes, length: usize) -> Response {
    let chunks = [Ok(bytes.slice(..length)), Err("broken")];
    // The head and the first chunk have to be on their way before the connection breaks.
    let stream = futures::stream::iter(chunks);
    let stream = futures::StreamExt::then(stream, |chunk| async move {
        tokio::task::yield_now().await;
        if chunk.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        chunk
    });
    let response = ok(Body::from_stream(stream));
    with(response, header::CONTENT_LENGTH, &bytes.len().to_string())
}

/// An answer whose body never comes.
pub(crate) fn hanging() -> Response {
    let stream = futures::stream::pending::<Result<Bytes, &'static str>>();
    ok(Body::from_stream(stream))
}
