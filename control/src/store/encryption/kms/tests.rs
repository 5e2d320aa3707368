//! A service of the tests' own, which wraps by turning bits over and can change its key.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::super::{DELETED, Encryption};
use super::*;
use crate::store::ObjectKey;
use crate::store::transform::Transform;

/// The service, which runs on a thread of its own until the test ends.
struct Service {
    state: Arc<State>,
    path: PathBuf,
    _dir: TempDir,
}

#[derive(Default)]
struct State {
    key: Mutex<String>,
    wrapped: AtomicUsize,
    is_ill: AtomicBool,
}

impl Service {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kms.sock");
        let state = Arc::new(State::default());
        "one".clone_into(&mut state.key.lock().unwrap());
        let (own, socket) = (Arc::clone(&state), path.clone());
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::bind(socket).unwrap();
                ready.send(()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let state = Arc::clone(&own);
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
                }
            });
        });
        started.recv().unwrap();
        Self {
            state,
            path,
            _dir: dir,
        }
    }

    fn encryption(&self) -> Encryption {
        Encryption::parse(&configuration(&self.path)).unwrap()
    }

    fn plugin(&self) -> Kms {
        Kms::new("k".into(), self.path.clone(), Duration::from_secs(20))
    }

    fn rotate(&self, key: &str) {
        key.clone_into(&mut self.state.key.lock().unwrap());
    }
}

fn configuration(path: &Path) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- \
         resources: [secrets]\n  providers: [{{kms: {{apiVersion: v2, name: k, timeout: 20s, endpoint: \"unix://{}\"}}}}]\n",
        path.display()
    )
}

type Body = StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

async fn answer(
    state: Arc<State>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let method = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let message = &body[5..];
    let turned = |bytes: &[u8]| bytes.iter().map(|byte| byte ^ 0xff).collect();
    let key = state.key.lock().unwrap().clone();
    let mut status = "0";
    let answer = match &*method {
        "/v2.KeyManagementService/Status" => StatusResponse {
            version: "v2".into(),
            healthz: "ok".into(),
            key_id: key,
        }
        .encode_to_vec(),
        "/v2.KeyManagementService/Encrypt" => {
            state.wrapped.fetch_add(1, Ordering::Relaxed);
            let request = EncryptRequest::decode(message).unwrap();
            assert!(!request.uid.is_empty());
            EncryptResponse {
                ciphertext: turned(&request.plaintext),
                annotations: HashMap::from([("by.example.com".into(), key.clone().into_bytes())]),
                key_id: key,
            }
            .encode_to_vec()
        }
        _ => {
            let request = DecryptRequest::decode(message).unwrap();
            let by = &request.annotations["by.example.com"];
            assert_eq!(*by, request.key_id.as_bytes());
            if state.is_ill.load(Ordering::Relaxed) {
                status = "13";
            }
            DecryptResponse {
                plaintext: turned(&request.ciphertext),
            }
            .encode_to_vec()
        }
    };
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(answer.len().try_into().unwrap());
    framed.extend_from_slice(&answer);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "out of order".parse().unwrap());
    let data = (status == "0").then(|| Ok(Frame::data(framed.freeze())));
    let frames: Vec<_> = data
        .into_iter()
        .chain([Ok(Frame::trailers(trailers))])
        .collect();
    let body = StreamBody::new(futures::stream::iter(frames));
    let response = Response::builder().header("content-type", "application/grpc");
    Ok(response.body(body).unwrap())
}

fn secret(name: &str) -> ObjectKey {
    ObjectKey::new("", "secrets", "default", name)
}

#[test]
fn values_are_sealed_with_a_key_that_the_service_wraps_once() {
    let service = Service::start();
    let own = service.encryption();
    let plain = b"\x01do not tell".to_vec();
    let sealed = own.seal(&secret("a"), plain.clone()).unwrap();
    let again = own.seal(&secret("a"), plain.clone()).unwrap();
    assert_ne!(sealed, again);
    assert!(!sealed.windows(6).any(|part| part == b"do not"));
    assert_eq!(service.state.wrapped.load(Ordering::Relaxed), 1);
    assert_eq!(own.seal(&secret("a"), vec![DELETED]).unwrap(), [DELETED]);
    // Another process asks the service for the key.
    let other = service.encryption();
    assert_eq!(other.open(&secret("a"), sealed.clone()).unwrap(), plain);
    assert!(other.open(&secret("b"), sealed.clone()).is_err());
    assert!(other.open(&secret("a"), sealed[..40].to_vec()).is_err());
    service.state.is_ill.store(true, Ordering::Relaxed);
    let refused = service.encryption().open(&secret("a"), sealed).unwrap_err();
    assert!(
        refused.contains("KMS plugin \"k\"") && refused.contains("out of order"),
        "{refused}"
    );
}

#[test]
fn another_key_of_the_service_is_taken_up() {
    let service = Service::start();
    let kms = service.plugin();
    let first = kms.wrap(&[7; 32]).unwrap();
    assert!(kms.is_current(&first));
    assert_eq!(kms.unwrap(&first).unwrap(), [7; 32]);
    service.rotate("two");
    // As the question of every minute tells.
    let second = kms.wrap(&[8; 32]).unwrap();
    assert!(!kms.is_current(&first) && kms.is_current(&second));
    assert_eq!(kms.unwrap(&first).unwrap(), [7; 32]);
    // What was written with the old key is to be written anew.
    let own = service.encryption();
    service.rotate("one");
    let old = service.encryption();
    let sealed = old.seal(&secret("a"), b"\x01x".to_vec()).unwrap();
    assert!(!old.is_stale(&secret("a"), &sealed));
    service.rotate("two");
    assert!(own.is_stale(&secret("a"), &sealed));
}

#[test]
fn a_plugin_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let kms = Kms::new(
        "gone".into(),
        dir.path().join("no.sock"),
        Duration::from_millis(300),
    );
    let error = kms.wrap(&[0; 32]).unwrap_err();
    assert!(error.contains("KMS plugin \"gone\""), "{error}");
}

#[test]
fn a_configuration_says_what_is_wrong_with_it() {
    let good = configuration(Path::new("/run/kms.sock"));
    assert!(Encryption::parse(&good).is_ok());
    for (from, to, wanted) in [
        (
            "apiVersion: v2",
            "apiVersion: v1",
            "apiVersion must be \"v2\"",
        ),
        ("unix:///run", "tcp://run", "endpoint must be unix:///PATH"),
        ("20s", "0s", "timeout must be positive"),
        ("name: k,", "name: \"\",", "a name has 1 to 255 bytes"),
    ] {
        let error = Encryption::parse(&good.replace(from, to))
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}
