//! Header blocks: names and values, compressed with zlib and a dictionary that both sides know.
//!
//! One zlib stream runs through all header blocks of a direction, so every block must be inflated, in
//! order, also of streams that are refused.
//!
//! What is sent is not compressed: the zlib stream consists of stored blocks. Headers here are some tens
//! of bytes, a deflate state is hundreds of KiB per session, and what is not compressed tells nothing by
//! its length.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::SpdyError;
use super::dictionary::{CHECKSUM, DICTIONARY};

/// Longest header block, inflated.
const MAX_BLOCK: usize = 64 << 10;
/// Most headers of one block.
const MAX_HEADERS: u32 = 256;
/// Longest stored block of a zlib stream.
const MAX_STORED: usize = 0xffff;
/// zlib's header: deflate with a window of 32 KiB, and a dictionary.
const ZLIB_HEADER: [u8; 2] = [0x78, 0x20];

/// An empty stored block, zlib's sync flush. Go hands out what it has inflated when it meets one; without
/// it, it looks for more behind the frame and gives the session up.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Names, in lower case, and values of one stream, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// Headers from pairs; names are put in lower case, as SPDY asks.
    #[must_use]
    pub fn new(pairs: &[(&str, &str)]) -> Self {
        let lower = |(name, value): &(&str, &str)| (name.to_ascii_lowercase(), (*value).to_owned());
        Self(pairs.iter().map(lower).collect())
    }

    /// The value under a name in lower case, empty when there is none. Of several values, the first.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        let value = found.map(|(_, value)| value.as_str()).unwrap_or_default();
        value.split('\0').next().unwrap_or_default()
    }

    fn encode(&self) -> Vec<u8> {
        let mut block = Vec::new();
        block.put_u32(self.0.len() as u32);
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(text.len() as u32);
            block.put_slice(text.as_bytes());
        }
        block
    }

    fn decode(mut block: Bytes) -> Result<Self, SpdyError> {
        let count = block.try_get_u32().map_err(|_| MALFORMED)?;
        if count > MAX_HEADERS {
            return Err(SpdyError::Protocol("too many headers"));
        }
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push((text(&mut block)?, text(&mut block)?));
        }
        if block.is_empty() {
            Ok(Self(headers))
        } else {
            Err(MALFORMED)
        }
    }
}

const MALFORMED: SpdyError = SpdyError::Protocol("malformed header block");

fn text(block: &mut Bytes) -> Result<String, SpdyError> {
    let length = block.try_get_u32().map_err(|_| MALFORMED)? as usize;
    if length > block.len() {
        return Err(MALFORMED);
    }
    // Go writes what it is given; what is not UTF-8 names nothing we look for.
    Ok(String::from_utf8_lossy(&block.split_to(length)).into_owned())
}

/// Reads the header blocks of one direction.
#[derive(Debug)]
pub(super) struct HeaderReader(Decompress);

impl HeaderReader {
    pub(super) fn new() -> Self {
        Self(Decompress::new(true))
    }

    /// Inflates and reads the next block.
    pub(super) fn read(&mut self, mut compressed: &[u8]) -> Result<Headers, SpdyError> {
        let mut block = Vec::with_capacity(1024);
        loop {
            if block.len() >= MAX_BLOCK {
                return Err(SpdyError::Protocol("a header block is too large"));
            }
            if block.len() == block.capacity() {
                block.reserve(block.len().min(MAX_BLOCK - block.len()));
            }
            let progress = self.inflate(&mut compressed, &mut block)?;
            // Room left means that all was written which the input gives.
            if compressed.is_empty() && block.len() < block.capacity() {
                break;
            }
            if !progress && block.len() < block.capacity() {
                return Err(MALFORMED);
            }
        }
        Headers::decode(block.into())
    }

    /// Takes from `compressed` what it can; says whether it took or made anything.
    fn inflate(&mut self, compressed: &mut &[u8], block: &mut Vec<u8>) -> Result<bool, SpdyError> {
        let (taken, made) = (self.0.total_in(), block.len());
        let status = self
            .0
            .decompress_vec(compressed, block, FlushDecompress::Sync);
        // Bounded by the length of the input.
        let used = usize::try_from(self.0.total_in() - taken).unwrap_or(usize::MAX);
        *compressed = compressed.get(used..).unwrap_or_default();
        match status {
            Ok(Status::StreamEnd) => Err(SpdyError::Protocol("the header stream ended")),
            Ok(Status::Ok | Status::BufError) => Ok(used > 0 || block.len() > made),
            Err(error) if error.needs_dictionary() == Some(CHECKSUM) => {
                self.0.set_dictionary(&DICTIONARY).map_err(|_| MALFORMED)?;
                Ok(true)
            }
            Err(_) => Err(MALFORMED),
        }
    }
}

/// Writes the header blocks of one direction.
#[derive(Debug, Default)]
pub(super) struct HeaderWriter {
    begun: bool,
}

impl HeaderWriter {
    /// Appends the block of `headers`.
    pub(super) fn write(&mut self, headers: &Headers, out: &mut BytesMut) {
        if !std::mem::replace(&mut self.begun, true) {
            out.put_slice(&ZLIB_HEADER);
            out.put_u32(CHECKSUM);
        }
        for part in headers.encode().chunks(MAX_STORED) {
            let length = part.len() as u16;
            out.put_u8(0);
            out.put_u16_le(length);
            out.put_u16_le(!length);
            out.put_slice(part);
        }
        out.put_slice(&FLUSH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(kind: &str) -> Headers {
        Headers::new(&[("streamType", kind), ("port", "8080"), ("requestID", "0")])
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    }

    #[test]
    fn each_block_ends_with_a_flush() {
        let mut writer = HeaderWriter::default();
        for head in [6, 0] {
            let mut out = BytesMut::new();
            writer.write(&Headers::default(), &mut out);
            assert_eq!(&out[head..], b"\0\x04\0\xfb\xff\0\0\0\0\0\0\0\xff\xff");
        }
    }

    #[test]
    fn blocks_that_zlib_compressed_with_the_dictionary_are_read_in_order() {
        // Two blocks of one stream, as zlib at its highest level and a sync flush writes them.
        let first = "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45e01c6061606100a4398b20d198094ade8c0600000000ffff";
        let second = "c2aa19540e2512d60b000000ffff";
        let mut reader = HeaderReader::new();
        assert_eq!(reader.read(&bytes(first)), Ok(headers("error")));
        assert_eq!(reader.read(&bytes(second)), Ok(headers("data")));
    }

    #[test]
    fn blocks_are_read_as_they_were_written() {
        let (mut reader, mut writer) = (HeaderReader::new(), HeaderWriter::default());
        let long = Headers::new(&[("a", &"x".repeat(60_000)), ("b", "")]);
        for block in [headers("data"), Headers::default(), long, headers("error")] {
            let mut out = BytesMut::new();
            writer.write(&block, &mut out);
            assert_eq!(reader.read(&out), Ok(block));
        }
    }

    #[test]
    fn a_block_that_inflates_without_bound_is_refused() {
        let mut deflate = flate2::Compress::new(flate2::Compression::best(), true);
        deflate.set_dictionary(&DICTIONARY).unwrap();
        let mut out = Vec::with_capacity(1 << 20);
        let zeros = vec![0; 8 << 20];
        deflate
            .compress_vec(&zeros, &mut out, flate2::FlushCompress::Sync)
            .unwrap();
        assert!(out.len() < 64 << 10);
        let error = HeaderReader::new().read(&out).unwrap_err();
        assert_eq!(error, SpdyError::Protocol("a header block is too large"));
    }

    #[test]
    fn of_several_values_the_first_counts() {
        assert_eq!(Headers::new(&[("PORT", "1\u{0}2")]).get("port"), "1");
        assert_eq!(Headers::default().get("port"), "");
    }
}
