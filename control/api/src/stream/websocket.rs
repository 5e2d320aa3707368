//! WebSockets (RFC 6455): the server's half of the opening, and what a whole socket is used for.
//!
//! The opening is headers: [`select`] chooses the subprotocol, [`response_headers`] makes the answer, and
//! whoever serves HTTP upgrades the connection and hands it to [`server`]. A socket is then channels
//! (`channel.rs`), a plain stream of bytes ([`bytes`]), or messages one way ([`send_all`]).

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::future::ready;
use futures::stream::SplitSink;
use futures::{SinkExt, Stream, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::{ByteStream, CLOSE_LIMIT};

/// Longest message taken.
const MAX_MESSAGE: usize = 4 << 20;
/// Bytes of messages that may wait to be written.
const MAX_WAITING: usize = 8 << 20;

/// Why there is no WebSocket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// None of the subprotocols offered is known.
    #[error("unable to negotiate protocol: client supports [{}], server accepts [{}]", .offered.join(" "), .supported.join(" "))]
    Protocol {
        /// What the client offers.
        offered: Vec<String>,
        /// What there is.
        supported: Vec<&'static str>,
    },
    /// Headers that every WebSocket needs are missing.
    #[error("not a WebSocket of version 13")]
    Malformed,
}

/// Whether a request asks for a WebSocket.
#[must_use]
pub fn is_requested(headers: &HeaderMap) -> bool {
    upgrade(headers).is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

/// The protocol a request wants to upgrade to.
#[must_use]
pub fn upgrade(headers: &HeaderMap) -> Option<&str> {
    let wanted = items(headers, header::CONNECTION).any(|of| of.eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(header::UPGRADE)?.to_str().ok()?;
    wanted.then_some(protocol)
}

/// The subprotocols a client offers, best first.
pub fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    items(headers, header::SEC_WEBSOCKET_PROTOCOL)
}

/// The elements of a header that is a list, over all its lines.
pub fn items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter();
    let texts = lines.filter_map(|line| line.to_str().ok());
    texts
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// The first of the offered subprotocols that is supported; `None` if the client offers none.
///
/// # Errors
/// [`OpenError::Protocol`] if it offers others only.
pub fn select(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<Option<&'static str>, OpenError> {
    let mut offers = offered(headers).peekable();
    if offers.peek().is_none() {
        return Ok(None);
    }
    let known = |offer: &str| supported.iter().copied().find(|known| *known == offer);
    let found = offers.find_map(known);
    found.map(Some).ok_or_else(|| OpenError::Protocol {
        offered: offered(headers).map(str::to_owned).collect(),
        supported: supported.to_vec(),
    })
}

/// The headers of the answer (`101 Switching Protocols`) that opens a WebSocket.
///
/// # Errors
/// [`OpenError::Malformed`] if the request is not one for a WebSocket.
pub fn response_headers(
    request: &HeaderMap,
    protocol: Option<&str>,
) -> Result<HeaderMap, OpenError> {
    let version = request.get(header::SEC_WEBSOCKET_VERSION);
    let key = request.get(header::SEC_WEBSOCKET_KEY);
    let key = key.filter(|_| version.is_some_and(|version| version == "13"));
    let key = key.ok_or(OpenError::Malformed)?;
    let value = |text: &str| HeaderValue::from_str(text).map_err(|_| OpenError::Malformed);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = value(&derive_accept_key(key.as_bytes()))?;
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value(protocol)?);
    }
    Ok(headers)
}

/// The server's end of a WebSocket over a connection that was upgraded.
pub async fn server<S: ByteStream>(connection: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
        .max_write_buffer_size(MAX_WAITING);
    WebSocketStream::from_raw_socket(connection, Role::Server, Some(config)).await
}

/// A WebSocket as a stream of bytes: messages are cut where they are, and mean nothing.
pub fn bytes<S: ByteStream>(socket: WebSocketStream<S>) -> impl ByteStream {
    let (sink, stream) = socket.split();
    let sink = sink
        .with(|bytes| ready(Ok::<_, tungstenite::Error>(Message::Binary(bytes))))
        .sink_map_err(io_error);
    let stream = stream.filter_map(|message| ready(payload(message)));
    tokio::io::join(
        StreamReader::new(stream),
        SinkWriter::new(CopyToBytes::new(sink)),
    )
}

fn payload(message: Result<Message, tungstenite::Error>) -> Option<io::Result<Bytes>> {
    match message {
        Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
        Ok(Message::Text(text)) => Some(Ok(text.into())),
        Ok(_) => None,
        Err(error) => Some(Err(io_error(error))),
    }
}

fn io_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

/// How bytes are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Binary messages.
    Binary,
    /// Text messages; the bytes are UTF-8.
    Text,
    /// Text messages, encoded with base64.
    Base64,
}

impl Framing {
    /// The message that carries `bytes`.
    #[must_use]
    pub fn message(self, bytes: Bytes) -> Message {
        match self {
            Self::Binary => Message::Binary(bytes),
            Self::Text => Message::text(String::from_utf8_lossy(&bytes).into_owned()),
            Self::Base64 => Message::text(BASE64.encode(&bytes)),
        }
    }
}

/// Sends every item of `source` as a message, then closes; ends early when the client closes. What the
/// client says is ignored.
pub async fn send_all<S: ByteStream>(
    socket: WebSocketStream<S>,
    source: impl Stream<Item = Bytes> + Send,
    framing: Framing,
) {
    let (mut sink, mut incoming) = socket.split();
    let mut heard = std::pin::pin!(async { while let Some(Ok(_)) = incoming.next().await {} });
    let send = async {
        let mut source = std::pin::pin!(source);
        while let Some(item) = source.next().await {
            if sink.send(framing.message(item)).await.is_err() {
                return;
            }
        }
        close(&mut sink).await;
    };
    tokio::select! {
        () = &mut heard => return,
        () = send => {}
    }
    let _late = tokio::time::timeout(CLOSE_LIMIT, heard).await;
}

/// What a socket is closed with. Without a code kubectl takes the end for a failure.
pub(super) const NORMAL: CloseFrame = CloseFrame {
    code: CloseCode::Normal,
    reason: Utf8Bytes::from_static(""),
};

/// Closes a socket that has done what it was for.
pub(super) async fn close<S: ByteStream>(sink: &mut SplitSink<WebSocketStream<S>, Message>) {
    let told = async {
        sink.send(Message::Close(Some(NORMAL))).await?;
        sink.close().await
    };
    // An error means that the client is gone: closed as well.
    let _gone = told.await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_first_known_subprotocol_is_chosen() {
        let known = &["v5.channel.k8s.io", "v4.channel.k8s.io"];
        let select = |offers| select(&headers(offers), known);
        assert_eq!(select(&[]), Ok(None));
        let offers = [
            ("sec-websocket-protocol", "x, v4.channel.k8s.io"),
            ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ];
        assert_eq!(select(&offers), Ok(Some("v4.channel.k8s.io")));
        let error = select(&[("sec-websocket-protocol", "x,y")]).unwrap_err();
        let text = "unable to negotiate protocol: client supports [x y], server accepts [v5.channel.k8s.io v4.channel.k8s.io]";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_request_is_answered_with_the_key_of_the_specification() {
        let request = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]);
        assert!(is_requested(&request));
        let answer = response_headers(&request, Some("v4.channel.k8s.io")).unwrap();
        let accept = answer.get("sec-websocket-accept").unwrap();
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let none = response_headers(&HeaderMap::new(), None);
        assert_eq!(none, Err(OpenError::Malformed));
        assert!(!is_requested(&headers(&[("upgrade", "websocket")])));
    }

    #[tokio::test]
    async fn bytes_survive_whatever_messages_they_come_in() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let mut stream = bytes(server(far).await);
        for part in ["S", "PD", "Y"] {
            let message = Message::Binary(Bytes::from_static(part.as_bytes()));
            client.send(message).await.unwrap();
        }
        let mut got = [0; 4];
        stream.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"SPDY");
        stream.write_all(b"back").await.unwrap();
        stream.flush().await.unwrap();
        let message = client.next().await.unwrap().unwrap();
        assert_eq!(message, Message::Binary(Bytes::from_static(b"back")));
    }

    #[tokio::test]
    async fn one_way_messages_are_framed_as_asked_and_then_closed() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let source = futures::stream::iter([Bytes::from_static(b"hi")]);
        tokio::spawn(async move { send_all(server(far).await, source, Framing::Base64).await });
        let mut next = async || client.next().await.unwrap().unwrap();
        assert_eq!(next().await, Message::text("aGk="));
        assert_eq!(next().await, Message::Close(Some(NORMAL)));
    }
}
