//! Frames: what one side says to the other, and its bytes.
//!
//! ```text
//!   control  1|version 15|type 16    flags 8|length 24   what the type says
//!   data     0|stream 31             flags 8|length 24   bytes
//! ```
//!
//! The bytes of a data frame are handed on as they come, so a frame of 16 MiB needs no buffer of 16 MiB.
//! A control frame is taken when it is whole, and may not be long.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::SpdyError;
use super::headers::{HeaderReader, HeaderWriter, Headers};

const VERSION: u16 = 3;
const HEAD: usize = 8;
/// Longest control frame.
const MAX_CONTROL: usize = 64 << 10;
/// Longest run of bytes handed on at once.
const MAX_DATA: usize = 32 << 10;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
/// Stream identifiers have 31 bits, and so have windows.
const LOW_31: u32 = 0x7fff_ffff;
/// Setting: the window of new streams.
pub(super) const INITIAL_WINDOW: u32 = 7;

mod kind {
    pub(super) const SYN_STREAM: u16 = 1;
    pub(super) const SYN_REPLY: u16 = 2;
    pub(super) const RST_STREAM: u16 = 3;
    pub(super) const SETTINGS: u16 = 4;
    pub(super) const PING: u16 = 6;
    pub(super) const GO_AWAY: u16 = 7;
    pub(super) const HEADERS: u16 = 8;
    pub(super) const WINDOW_UPDATE: u16 = 9;
}

/// One frame, or a part of the bytes of a data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens a stream.
    SynStream {
        /// Odd for the client's, even for the server's.
        id: u32,
        /// The sender has nothing to send.
        fin: bool,
        /// The other side may not send.
        unidirectional: bool,
        /// What the stream is for.
        headers: Headers,
    },
    /// Takes a stream.
    SynReply {
        /// The stream.
        id: u32,
        /// The sender has nothing to send.
        fin: bool,
        /// Headers of the answer.
        headers: Headers,
    },
    /// More headers of a stream.
    Headers {
        /// The stream.
        id: u32,
        /// The sender has sent all.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        id: u32,
        /// The sender has sent all.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// Ends a stream at once.
    RstStream {
        /// The stream.
        id: u32,
        /// Why.
        status: u32,
    },
    /// Settings: identifiers and values.
    Settings(Vec<(u32, u32)>),
    /// To be sent back as it is.
    Ping(u32),
    /// No more streams.
    GoAway {
        /// The last stream that was taken.
        last: u32,
        /// Why.
        status: u32,
    },
    /// More may be sent.
    WindowUpdate {
        /// The stream; 0 for the session.
        id: u32,
        /// By how many bytes.
        delta: u32,
    },
}

/// Bytes to frames, for one direction of a session.
#[derive(Debug)]
pub struct Decoder {
    headers: HeaderReader,
    /// What is left of the data frame being read: stream, end, bytes.
    data: Option<(u32, bool, usize)>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            headers: HeaderReader::new(),
            data: None,
        }
    }
}

impl Decoder {
    /// Takes the next frame from `buffer`; `None` until more bytes come.
    ///
    /// # Errors
    /// The bytes are not SPDY/3, or exceed a bound.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, SpdyError> {
        loop {
            if let Some(frame) = self.take_data(buffer) {
                return Ok(Some(frame));
            }
            let Some(mut head) = buffer.get(..HEAD).filter(|_| self.data.is_none()) else {
                return Ok(None);
            };
            let (word, flags) = (head.get_u32(), head.get_u8());
            let length = head.get_uint(3) as usize;
            if word & !LOW_31 == 0 {
                buffer.advance(HEAD);
                self.data = Some((word, flags & FIN != 0, length));
                continue;
            }
            if length > MAX_CONTROL {
                return Err(SpdyError::Protocol("a control frame is too long"));
            }
            if buffer.len() < HEAD + length {
                return Ok(None);
            }
            buffer.advance(HEAD);
            let body = buffer.split_to(length);
            if let Some(frame) = self.control(word, flags, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    /// The bytes of the data frame being read that are there.
    fn take_data(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        let (id, fin, left) = self.data?;
        let length = left.min(buffer.len()).min(MAX_DATA);
        if length == 0 && left > 0 {
            return None;
        }
        let left = left - length;
        self.data = (left > 0).then_some((id, fin, left));
        Some(Frame::Data {
            id,
            fin: fin && left == 0,
            data: buffer.split_to(length).freeze(),
        })
    }

    /// Reads a control frame; `None` for one of a kind that is to be ignored.
    fn control(&mut self, word: u32, flags: u8, body: &[u8]) -> Result<Option<Frame>, SpdyError> {
        if (word >> 16) as u16 & 0x7fff != VERSION {
            return Err(SpdyError::Protocol("another version than 3"));
        }
        let short = |_| SpdyError::Protocol("a control frame is too short");
        let mut body = body;
        let fin = flags & FIN != 0;
        Ok(Some(match (word & 0xffff) as u16 {
            kind::SYN_STREAM => {
                let id = body.try_get_u32().map_err(short)? & LOW_31;
                // The associated stream, priority and slot mean nothing here.
                body.try_get_u32().map_err(short)?;
                body.try_get_u16().map_err(short)?;
                Frame::SynStream {
                    id,
                    fin,
                    unidirectional: flags & UNIDIRECTIONAL != 0,
                    headers: self.headers.read(body)?,
                }
            }
            kind::SYN_REPLY => Frame::SynReply {
                id: body.try_get_u32().map_err(short)? & LOW_31,
                fin,
                headers: self.headers.read(body)?,
            },
            kind::HEADERS => Frame::Headers {
                id: body.try_get_u32().map_err(short)? & LOW_31,
                fin,
                headers: self.headers.read(body)?,
            },
            kind::RST_STREAM => Frame::RstStream {
                id: body.try_get_u32().map_err(short)? & LOW_31,
                status: body.try_get_u32().map_err(short)?,
            },
            kind::SETTINGS => Frame::Settings(settings(body)?),
            kind::PING => Frame::Ping(body.try_get_u32().map_err(short)?),
            kind::GO_AWAY => Frame::GoAway {
                last: body.try_get_u32().map_err(short)? & LOW_31,
                status: body.try_get_u32().map_err(short)?,
            },
            kind::WINDOW_UPDATE => Frame::WindowUpdate {
                id: body.try_get_u32().map_err(short)? & LOW_31,
                delta: body.try_get_u32().map_err(short)? & LOW_31,
            },
            _ => return Ok(None),
        }))
    }
}

fn settings(mut body: &[u8]) -> Result<Vec<(u32, u32)>, SpdyError> {
    let malformed = |_| SpdyError::Protocol("malformed settings");
    let count = body.try_get_u32().map_err(malformed)? as usize;
    // The frame's length bounds them, whatever the count says.
    if body.len() != count.saturating_mul(8) {
        return Err(SpdyError::Protocol("malformed settings"));
    }
    let mut settings = Vec::with_capacity(count);
    while !body.is_empty() {
        let id = body.try_get_u32().map_err(malformed)? & 0x00ff_ffff;
        settings.push((id, body.try_get_u32().map_err(malformed)?));
    }
    Ok(settings)
}

/// Frames to bytes, for one direction of a session.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    headers: HeaderWriter,
}

impl Encoder {
    /// Appends a frame. A data frame holds less than 16 MiB.
    pub(super) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        let mut body = BytesMut::new();
        let (word, flags) = match frame {
            Frame::Data { id, fin, data } => {
                out.put_u32(id & LOW_31);
                out.put_u8(u8::from(*fin));
                out.put_uint(data.len() as u64, 3);
                out.put_slice(data);
                return;
            }
            Frame::SynStream {
                id,
                fin,
                unidirectional,
                headers,
            } => {
                body.put_u32(*id);
                body.put_u32(0);
                body.put_u16(0);
                self.headers.write(headers, &mut body);
                let one_way = if *unidirectional { UNIDIRECTIONAL } else { 0 };
                (kind::SYN_STREAM, u8::from(*fin) | one_way)
            }
            Frame::SynReply { id, fin, headers } => {
                body.put_u32(*id);
                self.headers.write(headers, &mut body);
                (kind::SYN_REPLY, u8::from(*fin))
            }
            Frame::Headers { id, fin, headers } => {
                body.put_u32(*id);
                self.headers.write(headers, &mut body);
                (kind::HEADERS, u8::from(*fin))
            }
            Frame::RstStream { id, status } => (pair(&mut body, kind::RST_STREAM, *id, *status), 0),
            Frame::GoAway { last, status } => (pair(&mut body, kind::GO_AWAY, *last, *status), 0),
            Frame::WindowUpdate { id, delta } => {
                (pair(&mut body, kind::WINDOW_UPDATE, *id, *delta), 0)
            }
            Frame::Ping(id) => {
                body.put_u32(*id);
                (kind::PING, 0)
            }
            Frame::Settings(settings) => {
                body.put_u32(settings.len() as u32);
                for (id, value) in settings {
                    body.put_u32(*id);
                    body.put_u32(*value);
                }
                (kind::SETTINGS, 0)
            }
        };
        out.put_u16(0x8000 | VERSION);
        out.put_u16(word);
        out.put_u8(flags);
        out.put_uint(body.len() as u64, 3);
        out.put_slice(&body);
    }
}

fn pair(body: &mut BytesMut, kind: u16, first: u32, second: u32) -> u16 {
    body.put_u32(first);
    body.put_u32(second);
    kind
}

/// Decodes all frames of a session's direction: the way in for a fuzzer.
///
/// # Errors
/// The bytes are not SPDY/3, or exceed a bound; never a panic.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Frame>, SpdyError> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::from(bytes));
    let mut frames = Vec::new();
    while let Some(frame) = decoder.decode(&mut buffer)? {
        frames.push(frame);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_frame() -> Vec<Frame> {
        let headers = Headers::new(&[("streamtype", "data")]);
        vec![
            Frame::SynStream {
                id: 1,
                fin: true,
                unidirectional: true,
                headers: headers.clone(),
            },
            Frame::SynReply {
                id: 1,
                fin: false,
                headers: Headers::default(),
            },
            Frame::Headers {
                id: 1,
                fin: true,
                headers,
            },
            Frame::Data {
                id: 1,
                fin: false,
                data: Bytes::from_static(b"hello"),
            },
            Frame::Data {
                id: 1,
                fin: true,
                data: Bytes::new(),
            },
            Frame::RstStream { id: 1, status: 5 },
            Frame::Settings(vec![(INITIAL_WINDOW, 1 << 16)]),
            Frame::Ping(7),
            Frame::GoAway { last: 1, status: 0 },
            Frame::WindowUpdate { id: 0, delta: 9 },
        ]
    }

    fn encoded(frames: &[Frame]) -> BytesMut {
        let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
        for frame in frames {
            encoder.encode(frame, &mut out);
        }
        out
    }

    #[test]
    fn frames_are_read_as_they_were_written() {
        assert_eq!(decode_all(&encoded(&every_frame())), Ok(every_frame()));
    }

    #[test]
    fn frames_cut_anywhere_are_the_same_frames() {
        let bytes = encoded(&every_frame());
        let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
        let (mut frames, mut data) = (Vec::new(), Vec::new());
        for byte in &bytes {
            buffer.put_u8(*byte);
            while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
                match frame {
                    Frame::Data { data: part, .. } => data.extend_from_slice(&part),
                    frame => frames.push(frame),
                }
            }
        }
        let mut expected = every_frame();
        expected.retain(|frame| !matches!(frame, Frame::Data { .. }));
        assert_eq!((frames, data), (expected, b"hello".to_vec()));
    }

    #[test]
    fn golden_bytes_of_a_ping_and_a_reset() {
        let bytes = encoded(&[Frame::Ping(1), Frame::RstStream { id: 3, status: 5 }]);
        let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        let reset = [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5];
        assert_eq!(&bytes[..], [&ping[..], &reset[..]].concat());
    }

    #[test]
    fn what_is_not_spdy_is_refused_and_what_is_unknown_is_passed_over() {
        let unknown = [0x80, 3, 0, 99, 0, 0, 0, 1, 42];
        assert_eq!(decode_all(&unknown), Ok(Vec::new()));
        for (bytes, why) in [
            (
                &b"\x80\x02\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01"[..],
                "another version than 3",
            ),
            (
                b"\x80\x03\x00\x06\x00\x00\x00\x00",
                "a control frame is too short",
            ),
            (
                b"\x80\x03\x00\x01\x00\xff\xff\xff",
                "a control frame is too long",
            ),
            (
                b"\x80\x03\x00\x04\x00\x00\x00\x04\xff\xff\xff\xff",
                "malformed settings",
            ),
            (
                b"\x80\x03\x00\x02\x00\x00\x00\x06\x00\x00\x00\x01\x12\x34",
                "malformed header block",
            ),
        ] {
            assert_eq!(decode_all(bytes), Err(SpdyError::Protocol(why)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode_all(&bytes);
        }

        #[test]
        fn no_damage_to_frames_makes_the_decoder_panic(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = encoded(&every_frame());
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = decode_all(&bytes);
        }
    }
}
