//! A key management service, by the plugin of it that runs on this machine: gRPC over a Unix socket.
//!
//! A thread of its own speaks to the plugin, since the store seals and opens on threads that may wait and have no
//! runtime. It asks once a minute which key the service uses; when that is another one, the next value is written with
//! a new data key. A plugin that does not answer is asked again until its time is up.
//!
//! Source: upstream's KMS plugin API, version 2.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use uuid::Uuid;

/// How often the service is asked which key it uses.
const EVERY: Duration = Duration::from_secs(60);
/// After an attempt that failed, before the next.
const PAUSE: Duration = Duration::from_millis(100);
/// What a plugin that is well says.
const WELL: &str = "ok";
/// Versions of the interface.
const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(map = "string, bytes", tag = "3")]
    annotations: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(map = "string, bytes", tag = "4")]
    annotations: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

/// A question to the thread that speaks to the plugin, and where the answer goes.
enum Question {
    Encrypt(Vec<u8>, Answer<EncryptResponse>),
    Decrypt(EncryptResponse, Answer<DecryptResponse>),
}

type Answer<T> = std::sync::mpsc::SyncSender<Result<T, String>>;

/// The plugin of a key management service.
pub(super) struct Kms {
    name: String,
    path: PathBuf,
    limit: Duration,
    /// The key that the service uses; empty before it has said so.
    current: Arc<Mutex<String>>,
    thread: OnceLock<mpsc::UnboundedSender<Question>>,
}

impl Kms {
    /// The plugin called `name` at a socket, which may take so long for an answer.
    pub(super) fn new(name: String, path: PathBuf, limit: Duration) -> Self {
        Self {
            name,
            path,
            limit,
            current: Arc::default(),
            thread: OnceLock::new(),
        }
    }

    /// A data key, wrapped: the answer of the service as a message.
    ///
    /// # Errors
    /// What the plugin says, or that it says nothing.
    pub(super) fn wrap(&self, secret: &[u8]) -> Result<Vec<u8>, String> {
        let secret = secret.to_vec();
        let wrapped = self.ask(|answer| Question::Encrypt(secret, answer))?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone_from(&wrapped.key_id);
        Ok(wrapped.encode_to_vec())
    }

    /// A data key that was wrapped.
    ///
    /// # Errors
    /// What the plugin says, or that it says nothing.
    pub(super) fn unwrap(&self, wrapped: &[u8]) -> Result<Vec<u8>, String> {
        let wrapped = EncryptResponse::decode(wrapped)
            .map_err(|error| format!("whose wrapped data key cannot be read: {error}"))?;
        let answer = self.ask(|answer| Question::Decrypt(wrapped, answer))?;
        Ok(answer.plaintext)
    }

    /// Whether the service still uses the key that wrapped a data key.
    pub(super) fn is_current(&self, wrapped: &[u8]) -> bool {
        // Whoever asks before anything was wrapped wants to know what the service uses now.
        self.thread();
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let wrapped = EncryptResponse::decode(wrapped);
        current.is_empty() || wrapped.is_ok_and(|wrapped| wrapped.key_id == *current)
    }

    fn ask<T>(&self, question: impl FnOnce(Answer<T>) -> Question) -> Result<T, String> {
        let (sender, answer) = std::sync::mpsc::sync_channel(1);
        let failed = |why: &str| format!("which the KMS plugin {:?} does not: {why}", self.name);
        let sent = self.thread().send(question(sender));
        sent.map_err(|_| failed("its thread has ended"))?;
        // The thread keeps to the limit itself; this is for a thread that hangs.
        let answer = answer.recv_timeout(self.limit + EVERY);
        answer
            .map_err(|_| failed("no answer"))?
            .map_err(|why| failed(&why))
    }

    fn thread(&self) -> &mpsc::UnboundedSender<Question> {
        self.thread.get_or_init(|| {
            let (sender, questions) = mpsc::unbounded_channel();
            let (first, asked) = std::sync::mpsc::sync_channel(1);
            let (name, limit, path) = (self.name.clone(), self.limit, self.path.clone());
            let current = Arc::clone(&self.current);
            let speak = async move {
                // A channel belongs to the runtime that it was made in.
                let service = Grpc::new(channel(&path));
                let speaker = Speaker {
                    name,
                    limit,
                    current,
                    service,
                };
                speaker.run(questions, &first).await;
            };
            std::thread::spawn(|| on_runtime(speak));
            // Which key the service uses is known before anything is written.
            if asked.recv_timeout(self.limit).is_err() {
                tracing::warn!(plugin = self.name, "the KMS plugin does not say how it is");
            }
            sender
        })
    }
}

fn on_runtime(speak: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(speak),
        Err(error) => tracing::error!(%error, "the KMS plugin cannot be spoken to"),
    }
}

/// A channel that connects when it is used.
fn channel(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // Where it leads is up to the connector.
    Endpoint::from_static("http://kms.invalid").connect_with_connector_lazy(connector)
}

/// What runs on the thread.
struct Speaker {
    name: String,
    limit: Duration,
    current: Arc<Mutex<String>>,
    service: Grpc<Channel>,
}

impl Speaker {
    async fn run(
        mut self,
        mut questions: mpsc::UnboundedReceiver<Question>,
        first: &std::sync::mpsc::SyncSender<()>,
    ) {
        let mut every = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                biased;
                _ = every.tick() => {
                    self.look().await;
                    // Nobody waits for any but the first.
                    let _ = first.try_send(());
                }
                question = questions.recv() => match question {
                    Some(question) => self.answer(question).await,
                    None => return,
                },
            }
        }
    }

    /// Asks which key the service uses.
    async fn look(&mut self) {
        let status: Result<StatusResponse, _> = self.call("Status", StatusRequest {}).await;
        match status {
            Ok(status) if status.healthz != WELL => {
                tracing::error!(
                    plugin = self.name,
                    status.healthz,
                    "the KMS plugin is not well"
                );
            }
            Ok(status) if !VERSIONS.contains(&&*status.version) => {
                let version = status.version;
                tracing::error!(
                    plugin = self.name,
                    version,
                    "the KMS plugin is of another version"
                );
            }
            Ok(status) => {
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                *current = status.key_id;
            }
            Err(error) => {
                tracing::error!(plugin = self.name, error, "ask the KMS plugin how it is");
            }
        }
    }

    async fn answer(&mut self, question: Question) {
        let uid = Uuid::new_v4().to_string();
        // Whoever asked may have given up.
        match question {
            Question::Encrypt(plaintext, answer) => {
                let request = EncryptRequest { plaintext, uid };
                drop(answer.send(self.call("Encrypt", request).await));
            }
            Question::Decrypt(wrapped, answer) => {
                let request = DecryptRequest {
                    ciphertext: wrapped.ciphertext,
                    uid,
                    key_id: wrapped.key_id,
                    annotations: wrapped.annotations,
                };
                drop(answer.send(self.call("Decrypt", request).await));
            }
        }
    }

    /// Calls a method, again and again while the plugin cannot be reached and the time is not up.
    async fn call<Q, A>(&mut self, method: &str, request: Q) -> Result<A, String>
    where
        Q: Message + Clone + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = format!("/v2.KeyManagementService/{method}");
        let path = PathAndQuery::try_from(path).map_err(|error| error.to_string())?;
        let until = Instant::now() + self.limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let attempt = self.once(&path, request.clone());
            let outcome = tokio::time::timeout(left, attempt).await;
            match outcome {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if status.code() == tonic::Code::Unavailable && left > PAUSE => {
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(Err(status)) => return Err(format!("{method}: {}", status.message())),
                Err(_) => return Err(format!("{method}: no answer within {:?}", self.limit)),
            }
        }
    }

    async fn once<Q, A>(&mut self, path: &PathAndQuery, request: Q) -> Result<A, tonic::Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let ready = self.service.ready().await;
        ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let request = tonic::Request::new(request);
        let answer = self.service.unary(request, path.clone(), codec).await?;
        Ok(answer.into_inner())
    }
}

#[cfg(test)]
mod tests;
