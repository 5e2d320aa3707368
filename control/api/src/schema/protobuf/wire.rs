//! The wire format: varints, tags, lengths. Reads never trust a length and never panic.
//!
//! A message is a sequence of (tag, value); a tag is a field's number and one of the wire types below.
//! Groups are obsolete and only skipped.

use super::{Problem, ProtobufError};

/// How a value is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
    StartGroup = 3,
    EndGroup = 4,
    Fixed32 = 5,
}

/// The start of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) number: u32,
    pub(super) wire: WireType,
}

impl Tag {
    /// An error unless the value is laid out as the field's type wants.
    pub(super) fn expect(self, wire: WireType) -> Result<(), ProtobufError> {
        if self.wire == wire {
            return Ok(());
        }
        Err(Problem::WrongWireType(self.wire as u8).into())
    }
}

/// Reads one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next field's tag; `None` at the end.
    pub(super) fn tag(&mut self) -> Result<Option<Tag>, ProtobufError> {
        if self.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok();
        let number = number.filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or(Problem::IllegalTag(key >> 3))?;
        let wire = match (key & 7) as u8 {
            0 => WireType::Varint,
            1 => WireType::Fixed64,
            2 => WireType::Delimited,
            3 => WireType::StartGroup,
            4 => WireType::EndGroup,
            5 => WireType::Fixed32,
            other => return Err(Problem::IllegalWireType(other).into()),
        };
        Ok(Some(Tag { number, wire }))
    }

    pub(super) fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first().ok_or(Problem::Truncated)?;
            self.0 = rest;
            let bits = u64::from(first & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Problem::Overflow.into())
    }

    pub(super) fn fixed64(&mut self) -> Result<u64, ProtobufError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Problem::Truncated)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// The bytes of a text, of bytes, or of a message.
    pub(super) fn delimited(&mut self) -> Result<&'a [u8], ProtobufError> {
        let length = usize::try_from(self.varint()?).map_err(|_| Problem::Truncated)?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Problem::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Passes over the value of a field that nobody knows. Groups are counted, not recursed into.
    pub(super) fn skip(&mut self, tag: Tag) -> Result<(), ProtobufError> {
        let mut open = 0_usize;
        let mut wire = tag.wire;
        loop {
            match wire {
                WireType::Varint => drop(self.varint()?),
                WireType::Fixed64 => drop(self.take(8)?),
                WireType::Delimited => drop(self.delimited()?),
                WireType::Fixed32 => drop(self.take(4)?),
                WireType::StartGroup => open += 1,
                WireType::EndGroup => open = open.checked_sub(1).ok_or(Problem::EndGroup)?,
            }
            if open == 0 {
                return Ok(());
            }
            wire = self.tag()?.ok_or(Problem::Truncated)?.wire;
        }
    }
}

/// Writes one message.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Nothing written, with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// What was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, number: u8, wire: WireType) {
        self.put_varint(u64::from(number) << 3 | wire as u64);
    }

    fn put_varint(&mut self, value: u64) {
        let (bytes, length) = varint(value);
        self.0.extend(bytes.iter().take(length));
    }

    /// A number, or a truth value.
    pub fn varint(&mut self, number: u8, value: u64) {
        self.tag(number, WireType::Varint);
        self.put_varint(value);
    }

    /// A signed number: negative ones take ten bytes, as in every protobuf integer that is not zigzag.
    pub(super) fn signed(&mut self, number: u8, value: i64) {
        self.varint(number, value.cast_unsigned());
    }

    pub(super) fn fixed64(&mut self, number: u8, value: u64) {
        self.tag(number, WireType::Fixed64);
        self.0.extend(value.to_le_bytes());
    }

    /// Bytes, or a text.
    pub fn bytes(&mut self, number: u8, value: &[u8]) {
        self.delimited_head(number, value.len());
        self.0.extend_from_slice(value);
    }

    /// The tag and length of a value whose bytes come from elsewhere.
    pub(super) fn delimited_head(&mut self, number: u8, length: usize) {
        self.tag(number, WireType::Delimited);
        self.put_varint(length as u64);
    }

    /// Bytes that have tags and lengths already.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes out what was written from `start` on.
    pub(super) fn split_off(&mut self, start: usize) -> Vec<u8> {
        self.0.split_off(start)
    }

    /// Begins a message within, which [`Writer::end`] ends.
    pub(super) fn begin(&mut self, number: u8) -> usize {
        self.tag(number, WireType::Delimited);
        // Most lengths have one digit, for which there is room now.
        self.0.push(0);
        self.0.len()
    }

    /// Ends the message that began at `start`. Its length goes in front of it now that it is known: where
    /// it takes more than one byte that moves the message, which is cheaper than walking the value twice.
    pub(super) fn end(&mut self, start: usize) {
        let (bytes, length) = varint(self.0.len().saturating_sub(start) as u64);
        let head = start.saturating_sub(1)..start;
        self.0.splice(head, bytes.iter().copied().take(length));
    }

    /// A message within.
    ///
    /// # Errors
    /// What `body` says.
    pub fn message<E>(
        &mut self,
        number: u8,
        body: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.begin(number);
        body(self)?;
        self.end(start);
        Ok(())
    }
}

/// A varint and its length.
fn varint(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, at + 1);
        }
        *byte |= 0x80;
    }
    (bytes, bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_are_written_as_they_are_read() {
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::from(u32::MAX), u64::MAX] {
            let mut writer = Writer::default();
            writer.varint(15, value);
            let bytes = writer.into_bytes();
            let mut reader = Reader::new(&bytes);
            let tag = reader.tag().expect("reads").expect("is there");
            assert_eq!((tag.number, tag.wire), (15, WireType::Varint));
            assert_eq!(reader.varint(), Ok(value));
            assert!(reader.is_empty());
        }
    }

    #[test]
    fn damaged_bytes_say_what_is_wrong() {
        let cases: [(&[u8], Problem); 8] = [
            (&[0x80], Problem::Truncated),
            (&[0x80; 11], Problem::Overflow),
            (&[0x02], Problem::IllegalTag(0)),
            (&[0x0f], Problem::IllegalWireType(7)),
            (&[0x0c], Problem::EndGroup),
            (&[0x0a, 0x05, b'x'], Problem::Truncated),
            (
                &[
                    0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
                ],
                Problem::Truncated,
            ),
            (&[0x0b, 0x0b, 0x0c], Problem::Truncated),
        ];
        for (bytes, problem) in cases {
            let mut reader = Reader::new(bytes);
            let skipped = reader
                .tag()
                .and_then(|tag| reader.skip(tag.expect("is there")));
            assert_eq!(skipped, Err(problem.into()), "{bytes:x?}");
        }
    }

    #[test]
    fn unknown_fields_and_groups_are_skipped() {
        let bytes = [
            0x0b, 0x13, 0x14, 0x12, 0x01, b'x', 0x0c, 0x0d, 1, 2, 3, 4, 0x20, 0x07,
        ];
        let mut reader = Reader::new(&bytes);
        for _ in 0..2 {
            let tag = reader.tag().expect("reads").expect("is there");
            reader.skip(tag).expect("skips");
        }
        assert_eq!(reader.tag().expect("reads").map(|tag| tag.number), Some(4));
        assert_eq!(reader.varint(), Ok(7));
    }
}
