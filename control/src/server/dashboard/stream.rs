//! `/stream`: many watches over one WebSocket, since a browser has few connections to one address.
//!
//! ```text
//!   browser ── {"op":"start","id":1,"path":"/api/v1/pods?watch=1…"} ─►
//!           ◄─ {"id":1,"event":{"type":"ADDED",…}}      for each event, bytes as the API has them
//!           ◄─ {"id":1,"end":null or a Status}          when the watch ended
//!           ── {"op":"stop","id":1} ─►
//! ```
//!
//! Each watch is a request of its own to the API, as the session's user. A browser that reads slowly holds its
//! watches up, and the API cuts those that fall too far behind. Code 4401 at the end says that the session ended.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::task::AbortOnDropHandle;
use windlass_api::stream::websocket;

use super::{Caller, Refusal, is_own_page};
use crate::server::connect::upgrade::{Connection, switch};

/// Watches of one browser.
const MAX_WATCHES: usize = 64;
/// Messages that may wait for a slow browser.
const WAITING: usize = 256;
/// Closes a connection whose session has ended.
const SESSION_ENDED: u16 = 4401;
/// Closes a WebSocket that the API refused.
const REFUSED: u16 = 4000;
/// The longest reason that a close may give: a control frame of 125 bytes less the code.
const MAX_REASON: usize = 123;
/// The longest line of a watch: an object of the largest size twice over.
const MAX_LINE: usize = 8 << 20;

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Command {
    Start { id: u64, path: String },
    Stop { id: u64 },
}

/// Answers the request that opens the WebSocket. Who has no session is told so by a close: a page that comes back after
/// a restart of the server has to learn that it must sign in again.
pub(super) fn open(
    caller: Result<Caller, Refusal>,
    mut request: Request<Body>,
) -> Result<Response, Refusal> {
    is_own_page(request.headers(), request.uri())?;
    let caller = match caller {
        Ok(caller) => caller,
        Err(refusal) => {
            let refused = Refused::of(&request).ok_or(refusal)?;
            return Ok(refused.close(SESSION_ENDED, "session ended".to_owned()));
        }
    };
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or(Refusal::Malformed)?;
    let agreed = websocket::response_headers(request.headers(), None);
    let headers = agreed.map_err(|_| Refusal::Malformed)?;
    Ok(switch(upgrade, headers, async move |connection| {
        serve(caller, websocket::server(connection).await).await;
    }))
}

/// A request for a WebSocket that the API may refuse.
pub(super) struct Refused {
    upgrade: OnUpgrade,
    headers: HeaderMap,
}

impl Refused {
    /// What is needed to tell a page of the refusal; nothing if the request is none for a WebSocket.
    pub(super) fn of(request: &Request<Body>) -> Option<Self> {
        let upgrade = request.extensions().get::<OnUpgrade>()?.clone();
        // A page that offered protocols takes no answer without one of them.
        let protocol = websocket::offered(request.headers()).next();
        let headers = websocket::response_headers(request.headers(), protocol).ok()?;
        Some(Self { upgrade, headers })
    }

    /// Accepts the WebSocket and closes it with the message of the API's answer.
    pub(super) async fn tell(self, answer: Response) -> Result<Response, Refusal> {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_LINE).collect().await;
        let body = body.map(http_body_util::Collected::to_bytes);
        let body: Option<Value> = body
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok());
        let message = body.as_ref().and_then(|body| body.get("message")?.as_str());
        let mut reason = message.map_or_else(|| status.to_string(), str::to_owned);
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        Ok(self.close(REFUSED, reason))
    }

    /// Accepts the WebSocket and closes it.
    fn close(self, code: u16, reason: String) -> Response {
        switch(self.upgrade, self.headers, async move |connection| {
            let mut socket = websocket::server(connection).await;
            let end = CloseFrame {
                code: code.into(),
                reason: reason.into(),
            };
            if let Err(error) = socket.close(Some(end)).await {
                tracing::debug!(%error, "a browser went away before it was told of a refusal");
            }
            // Until the browser has closed too: bytes left unread would cut the reason off.
            while let Some(Ok(_)) = socket.next().await {}
        })
    }
}

type Socket = WebSocketStream<Connection>;

async fn serve(caller: Caller, socket: Socket) {
    let left = caller
        .expires
        .map(|expires| expires.duration_since(Timestamp::now()));
    let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
    let (sink, stream) = socket.split();
    let (sender, messages) = mpsc::channel(WAITING);
    let expired = async {
        match left {
            Some(left) => tokio::time::sleep(left).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = listen(caller, stream, sender) => {}
        () = tell(sink, messages, expired) => {}
    }
}

/// Sends what watches have to say, until the browser is gone or the session is over.
async fn tell(
    mut sink: SplitSink<Socket, Message>,
    mut messages: mpsc::Receiver<String>,
    expired: impl Future<Output = ()>,
) {
    let mut expired = std::pin::pin!(expired);
    loop {
        let message = tokio::select! {
            () = &mut expired => break,
            message = messages.recv() => message,
        };
        let Some(message) = message else { return };
        if sink.send(Message::text(message)).await.is_err() {
            return;
        }
    }
    let end = CloseFrame {
        code: SESSION_ENDED.into(),
        reason: "session ended".into(),
    };
    if let Err(error) = sink.send(Message::Close(Some(end))).await {
        tracing::debug!(%error, "a browser went away with its session");
    }
}

/// Starts and stops watches as the browser says, until it is gone.
async fn listen(caller: Caller, mut stream: SplitStream<Socket>, messages: mpsc::Sender<String>) {
    let mut watches: HashMap<u64, AbortOnDropHandle<()>> = HashMap::new();
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else {
            continue;
        };
        match serde_json::from_str(&text) {
            Ok(Command::Start { id, path }) => {
                watches.retain(|_, watch| !watch.is_finished());
                if watches.len() >= MAX_WATCHES && !watches.contains_key(&id) {
                    let status = failure("TooManyRequests", "too many watches of one browser");
                    let end = json!({"id": id, "end": status});
                    if messages.send(end.to_string()).await.is_err() {
                        return;
                    }
                    continue;
                }
                let watch = watch(caller.clone(), id, path, messages.clone());
                let watch = AbortOnDropHandle::new(tokio::spawn(watch));
                watches.insert(id, watch);
            }
            Ok(Command::Stop { id }) => {
                watches.remove(&id);
            }
            Err(error) => {
                tracing::debug!(%error, "a browser said what nobody understands");
                return;
            }
        }
    }
}

fn failure(reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message})
}

/// Passes the events of one watch on, and its end.
async fn watch(caller: Caller, id: u64, path: String, messages: mpsc::Sender<String>) {
    let end = events(&caller, id, path, &messages).await;
    let end = json!({"id": id, "end": end});
    // A browser that is gone wants no end.
    let _gone = messages.send(end.to_string()).await;
}

/// Passes events on; answers the Status that the watch ended with, if there is one.
async fn events(
    caller: &Caller,
    id: u64,
    path: String,
    messages: &mpsc::Sender<String>,
) -> Option<Value> {
    let request = Request::get(path).header(header::ACCEPT, "application/json");
    let Ok(request) = request.body(Body::empty()) else {
        return Some(failure(
            "BadRequest",
            "the path of a watch cannot be understood",
        ));
    };
    let response = caller.send(request).await;
    let status = response.status();
    let mut body = response.into_body();
    let mut lines = Lines::default();
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if !lines.push(&data) {
            return Some(failure("Expired", "an event is too long"));
        }
        if status != StatusCode::OK {
            continue;
        }
        while let Some(line) = lines.next() {
            let Ok(event) = serde_json::from_slice::<&RawValue>(&line) else {
                return Some(failure("InternalError", "an event is no JSON"));
            };
            let message = format!("{{\"id\":{id},\"event\":{event}}}");
            if messages.send(message).await.is_err() {
                return None;
            }
        }
    }
    let rest = lines.rest();
    (status != StatusCode::OK).then(|| serde_json::from_slice(&rest).unwrap_or_default())
}

/// Cuts a stream of bytes into lines.
#[derive(Default)]
struct Lines(BytesMut);

impl Lines {
    /// Takes more bytes in; whether they are not too many.
    fn push(&mut self, data: &[u8]) -> bool {
        self.0.extend_from_slice(data);
        self.0.len() <= MAX_LINE
    }

    fn next(&mut self) -> Option<Bytes> {
        let end = self.0.iter().position(|byte| *byte == b'\n')?;
        let line = self.0.split_to(end + 1).freeze();
        Some(line)
    }

    fn rest(self) -> Bytes {
        self.0.freeze()
    }
}
