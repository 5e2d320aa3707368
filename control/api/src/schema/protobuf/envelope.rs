//! What travels: messages in the envelope that says what they are, lists, and frames of watches.
//!
//! ```text
//! object:  k8s\0 | Unknown{1: TypeMeta{1: apiVersion, 2: kind}, 2: message, 3: contentEncoding, 4: contentType}
//! list:    the same around {1: ListMeta, 2: item, 2: item, ...}
//! watch:   length u32 big-endian | WatchEvent{1: type, 2: RawExtension{1: enveloped object}}
//! ```

use std::convert::Infallible;

use bytes::Bytes;

use super::wire::{Reader, WireType, Writer};
use super::{Problem, ProtobufError};

/// The media type of enveloped objects.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const PREFIX: &[u8] = b"k8s\0";

/// An opened envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    /// `apiVersion`, empty if the sender left it out.
    pub api_version: &'a str,
    /// `kind`, empty if the sender left it out.
    pub kind: &'a str,
    /// The bare message.
    pub message: &'a [u8],
}

/// Opens an envelope.
///
/// # Errors
/// When there is none, it is damaged, or its content is encoded once more.
pub fn open(bytes: &[u8]) -> Result<Envelope<'_>, ProtobufError> {
    let mut reader = Reader::new(bytes.strip_prefix(PREFIX).ok_or(Problem::NoPrefix)?);
    let mut envelope = Envelope {
        api_version: "",
        kind: "",
        message: &[],
    };
    while let Some(tag) = reader.tag()? {
        match tag.number {
            1..=3 => tag.expect(WireType::Delimited)?,
            _ => {
                reader.skip(tag)?;
                continue;
            }
        }
        let value = reader.delimited()?;
        match tag.number {
            1 => read_type(value, &mut envelope)?,
            2 => envelope.message = value,
            _ if value.is_empty() => {}
            _ => return Err(Problem::ContentEncoding(text(value)?.to_owned()).into()),
        }
    }
    Ok(envelope)
}

fn read_type<'a>(bytes: &'a [u8], envelope: &mut Envelope<'a>) -> Result<(), ProtobufError> {
    let mut reader = Reader::new(bytes);
    while let Some(tag) = reader.tag()? {
        match tag.number {
            1 | 2 => {
                tag.expect(WireType::Delimited)?;
                let text = text(reader.delimited()?)?;
                *(if tag.number == 1 {
                    &mut envelope.api_version
                } else {
                    &mut envelope.kind
                }) = text;
            }
            _ => reader.skip(tag)?,
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<&str, ProtobufError> {
    std::str::from_utf8(bytes).map_err(|_| Problem::Utf8.into())
}

/// Puts a message into an envelope.
#[must_use]
pub fn seal(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut bytes = head(api_version, kind, message.len());
    bytes.extend_from_slice(message);
    bytes.extend_from_slice(TAIL);
    bytes
}

/// `contentEncoding` and `contentType`, empty.
const TAIL: &[u8] = &[0x1a, 0, 0x22, 0];

/// Everything before the message.
fn head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut out = Writer::with_capacity(64 + length);
    let result = out.message::<Infallible>(1, |out| {
        out.bytes(1, api_version.as_bytes());
        out.bytes(2, kind.as_bytes());
        Ok(())
    });
    let Ok(()) = result;
    out.delimited_head(2, length);
    let mut bytes = PREFIX.to_vec();
    bytes.extend(out.into_bytes());
    bytes
}

/// A message whose only field is `message` under `number`.
#[must_use]
pub fn wrap(number: u8, message: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(message.len() + 8);
    out.bytes(number, message);
    out.into_bytes()
}

/// An enveloped list, in chunks: the head, then one for each item.
///
/// # Errors
/// The first error among the items.
pub fn list<E>(
    api_version: &str,
    kind: &str,
    metadata: &[u8],
    items: impl Iterator<Item = Result<Vec<u8>, E>>,
) -> Result<Vec<Bytes>, E> {
    let mut chunks = vec![Bytes::new()];
    let metadata = wrap(1, metadata);
    let mut length = metadata.len();
    for item in items {
        let item = wrap(2, &item?);
        length += item.len();
        chunks.push(Bytes::from(item));
    }
    let mut first = head(api_version, kind, length);
    first.extend(metadata);
    if let Some(chunk) = chunks.first_mut() {
        *chunk = Bytes::from(first);
    }
    chunks.push(Bytes::from_static(TAIL));
    Ok(chunks)
}

/// A frame of a watch: an event of that type about an enveloped object.
#[must_use]
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(object.len() + 32);
    out.bytes(1, event.as_bytes());
    out.bytes(2, &wrap(1, object));
    let event = out.into_bytes();
    // An object is bounded far below what 32 bits can count.
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(event);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_says_what_is_in_it() {
        let bytes = seal("apps/v1", "Deployment", b"xyz");
        let golden = b"k8s\0\x0a\x15\x0a\x07apps/v1\x12\x0aDeployment\x12\x03xyz\x1a\0\"\0";
        assert_eq!(bytes, golden);
        let envelope = open(&bytes).expect("opens");
        let expected = Envelope {
            api_version: "apps/v1",
            kind: "Deployment",
            message: b"xyz",
        };
        assert_eq!(envelope, expected);
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        let cases: [(&[u8], Problem); 5] = [
            (b"", Problem::NoPrefix),
            (b"{\"kind\":\"Pod\"}", Problem::NoPrefix),
            (b"k8s\0\x12\x05ab", Problem::Truncated),
            (b"k8s\0\x10\x01", Problem::WrongWireType(0)),
            (
                b"k8s\0\x1a\x04gzip",
                Problem::ContentEncoding("gzip".into()),
            ),
        ];
        for (bytes, problem) in cases {
            assert_eq!(open(bytes), Err(problem.into()), "{bytes:?}");
        }
    }

    #[test]
    fn a_list_in_chunks_is_one_envelope() {
        let items = [Ok::<_, Infallible>(b"one".to_vec()), Ok(Vec::new())];
        let Ok(chunks) = list("v1", "PodList", b"m", items.into_iter());
        let bytes = chunks.concat();
        let envelope = open(&bytes).expect("opens");
        assert_eq!(envelope.kind, "PodList");
        assert_eq!(envelope.message, b"\x0a\x01m\x12\x03one\x12\0");
    }

    #[test]
    fn a_watch_frame_begins_with_its_length() {
        let frame = watch_frame("ADDED", b"object");
        assert_eq!(frame, b"\0\0\0\x11\x0a\x05ADDED\x12\x08\x0a\x06object");
    }
}
