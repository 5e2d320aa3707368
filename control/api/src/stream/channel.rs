//! `channel.k8s.io`: numbered channels in the messages of one WebSocket.
//!
//! ```text
//!   binary   one byte, the channel's number; the rest is the channel's bytes
//!   base64   one digit, the channel's number; the rest is base64 (text messages)
//! ```
//! | version | adds |
//! |---|---|
//! | `channel.k8s.io` | an error channel that carries text |
//! | `v4.channel.k8s.io` | the error channel carries a Status |
//! | `v5.channel.k8s.io` | message `ff N`: the client has no more to say on channel N |
//!
//! [`channels`] makes a pipe of each channel. A channel that nobody reads holds up those behind it in the
//! socket: the protocol has no windows.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream, select_all};
use futures::{SinkExt, StreamExt};
use http::HeaderMap;
use tokio::io::{AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::io::ReaderStream;

use super::websocket::close;
use super::websocket::{self, OpenError};
use super::{ByteStream, CLOSE_LIMIT};

/// Bytes that may wait in one direction of a channel.
const PIPE: usize = 64 << 10;
/// Bytes of one message.
const PIECE: usize = 16 << 10;
/// The number in place of a channel's that ends the channel named behind it.
const CLOSE: u8 = 255;

/// A version of the protocol, and its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// As a subprotocol of WebSocket.
    pub name: &'static str,
    /// 1, 4 or 5.
    version: u8,
    base64: bool,
}

const fn protocol(name: &'static str, version: u8, base64: bool) -> Protocol {
    Protocol {
        name,
        version,
        base64,
    }
}

const V4: Protocol = protocol("v4.channel.k8s.io", 4, false);
const V4_BASE64: Protocol = protocol("v4.base64.channel.k8s.io", 4, true);

/// What exec and attach speak; without a subprotocol, the first version.
pub const REMOTE_COMMAND: &[Protocol] = &[
    protocol("channel.k8s.io", 1, false),
    protocol("base64.channel.k8s.io", 1, true),
    protocol("v5.channel.k8s.io", 5, false),
    V4,
    V4_BASE64,
];

/// What port-forward speaks; without a subprotocol, the first of these.
pub const PORT_FORWARD: &[Protocol] = &[V4, V4_BASE64];

/// What a message means.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Bytes(u8, Bytes),
    End(u8),
    Nothing,
}

impl Protocol {
    /// The protocol to speak, of those known, and what to name in the answer.
    ///
    /// # Errors
    /// The client offers others only.
    pub fn select(
        headers: &HeaderMap,
        known: &[Self],
    ) -> Result<(Self, Option<&'static str>), OpenError> {
        let names: Vec<_> = known.iter().map(|protocol| protocol.name).collect();
        let name = websocket::select(headers, &names)?;
        let named = |protocol: &&Self| name.is_none_or(|name| name == protocol.name);
        let found = known.iter().find(named).ok_or(OpenError::Malformed)?;
        Ok((*found, name))
    }

    /// Whether the error channel carries a Status instead of text.
    #[must_use]
    pub const fn has_status(self) -> bool {
        self.version >= 4
    }

    fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let digit = char::from(b'0'.saturating_add(channel));
            return Message::text(format!("{digit}{}", BASE64.encode(data)));
        }
        let mut message = Vec::with_capacity(1 + data.len());
        message.push(channel);
        message.extend_from_slice(data);
        Message::binary(message)
    }

    fn decode(self, message: Message) -> Option<Part> {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return None,
            _ => return Some(Part::Nothing),
        };
        let Some((&first, rest)) = bytes.split_first() else {
            return Some(Part::Nothing);
        };
        if first == CLOSE && self.version >= 5 {
            return Some(rest.first().map_or(Part::Nothing, |of| Part::End(*of)));
        }
        if self.base64 {
            let channel = first.checked_sub(b'0')?;
            return Some(Part::Bytes(channel, BASE64.decode(rest).ok()?.into()));
        }
        Some(Part::Bytes(first, bytes.slice(1..)))
    }
}

/// Who writes to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The client; such as stdin.
    FromClient,
    /// The server; such as stdout.
    ToClient,
    /// Both.
    Both,
    /// Nobody: the channel was not asked for.
    Neither,
}

/// The channels of a socket, and the future that drives them.
///
/// The socket is closed when every channel that the server may write to was shut down or dropped. When
/// the client closes it, or the future is dropped, all channels end. `greetings` are sent first, each as a
/// message of its own on the channel it names; what is written to a channel has no such bounds.
pub fn channels<S: ByteStream>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    directions: &[Direction],
    greetings: Vec<(u8, Vec<u8>)>,
) -> (Vec<DuplexStream>, impl Future<Output = ()> + Send + use<S>) {
    let (mut near, mut inward, mut outward) = (Vec::new(), Vec::new(), Vec::new());
    for (channel, direction) in (0..CLOSE).zip(directions) {
        let (end, far) = duplex(PIPE);
        let (read, write) = tokio::io::split(far);
        near.push(end);
        inward.push(matches!(direction, Direction::FromClient | Direction::Both).then_some(write));
        if matches!(direction, Direction::ToClient | Direction::Both) {
            outward.push((channel, read));
        }
    }
    let driver = async move {
        let (sink, stream) = socket.split();
        let mut inbound = std::pin::pin!(receive(stream, inward, protocol));
        tokio::select! {
            () = &mut inbound => return,
            () = send(sink, outward, protocol, greetings) => {}
        }
        let _late = tokio::time::timeout(CLOSE_LIMIT, inbound).await;
    };
    (near, driver)
}

/// Messages to channels, until the client closes.
async fn receive<S: ByteStream>(
    mut stream: SplitStream<WebSocketStream<S>>,
    mut channels: Vec<Option<WriteHalf<DuplexStream>>>,
    protocol: Protocol,
) {
    while let Some(Ok(message)) = stream.next().await {
        let (channel, data) = match protocol.decode(message) {
            None => return,
            Some(Part::Nothing) => continue,
            Some(Part::Bytes(channel, data)) => (channel, Some(data)),
            Some(Part::End(channel)) => (channel, None),
        };
        let Some(slot) = channels.get_mut(usize::from(channel)) else {
            continue;
        };
        let Some(pipe) = slot else { continue };
        let open = match data {
            Some(data) => pipe.write_all(&data).await.is_ok(),
            None => false,
        };
        if !open {
            // An error means that nobody reads it any more, which is what ending it is for.
            let _gone = pipe.shutdown().await;
            *slot = None;
        }
    }
}

/// Channels to messages, until all have ended; then closes the socket.
async fn send<S: ByteStream>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    channels: Vec<(u8, ReadHalf<DuplexStream>)>,
    protocol: Protocol,
    greetings: Vec<(u8, Vec<u8>)>,
) {
    for (channel, text) in greetings {
        if sink.send(protocol.encode(channel, &text)).await.is_err() {
            return;
        }
    }
    let pipes = channels.into_iter().map(|(channel, pipe)| {
        let pieces = ReaderStream::with_capacity(pipe, PIECE);
        pieces.map(move |piece| (channel, piece))
    });
    let mut pieces = select_all(pipes);
    while let Some((channel, piece)) = pieces.next().await {
        let Ok(piece) = piece else { continue };
        if sink.send(protocol.encode(channel, &piece)).await.is_err() {
            return;
        }
    }
    close(&mut sink).await;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::super::websocket::NORMAL;
    use super::*;

    const V5: Protocol = REMOTE_COMMAND[2];

    #[test]
    fn messages_have_the_bytes_of_the_protocol() {
        assert_eq!(V5.encode(1, b"hi"), Message::binary(b"\x01hi".to_vec()));
        assert_eq!(V4_BASE64.encode(2, b"hi"), Message::text("2aGk="));
        let bytes = |message: &'static [u8]| Message::binary(message);
        assert_eq!(V5.decode(bytes(b"\xff\x00")), Some(Part::End(0)));
        let four = V4.decode(bytes(b"\xff\x00"));
        assert_eq!(four, Some(Part::Bytes(255, Bytes::from_static(b"\0"))));
        let data = Part::Bytes(0, Bytes::from_static(b"hi"));
        assert_eq!(V4_BASE64.decode(Message::text("0aGk=")), Some(data));
        assert_eq!(V4_BASE64.decode(Message::text("0!")), None);
        assert_eq!(V5.decode(Message::Close(None)), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            at in 0..REMOTE_COMMAND.len(), channel in 0_u8..5,
            data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let protocol = REMOTE_COMMAND[at];
            let part = protocol.decode(protocol.encode(channel, &data));
            prop_assert_eq!(part, Some(Part::Bytes(channel, data.into())));
        }

        #[test]
        fn no_message_makes_the_decoder_panic(
            at in 0..REMOTE_COMMAND.len(), data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            REMOTE_COMMAND[at].decode(Message::binary(data));
        }
    }

    #[tokio::test]
    async fn stdin_may_end_while_stdout_goes_on() {
        let (near, far) = duplex(1 << 16);
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let server = websocket::server(far).await;
        let directions = [Direction::FromClient, Direction::ToClient];
        let (mut pipes, driver) = channels(server, V5, &directions, vec![(1, Vec::new())]);
        tokio::spawn(driver);
        let (mut stdout, mut stdin) = (pipes.pop().unwrap(), pipes.pop().unwrap());
        for message in [&b"\x00in"[..], b"\xff\x00", b"\x00late", b"\x09other"] {
            client.send(Message::binary(message)).await.unwrap();
        }
        let mut got = String::new();
        stdin.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "in");
        stdout.write_all(b"out").await.unwrap();
        drop(stdout);
        let mut next = async || client.next().await.unwrap().unwrap();
        assert_eq!(next().await, Message::binary(&b"\x01"[..]));
        assert_eq!(next().await, Message::binary(&b"\x01out"[..]));
        assert_eq!(next().await, Message::Close(Some(NORMAL)));
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_all_channels() {
        let (near, far) = duplex(1 << 16);
        let server = websocket::server(far).await;
        let (mut pipes, driver) = channels(server, V5, &[Direction::Both], Vec::new());
        drop(near);
        driver.await;
        let mut got = Vec::new();
        pipes.pop().unwrap().read_to_end(&mut got).await.unwrap();
        assert!(got.is_empty());
    }
}
