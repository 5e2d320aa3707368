//! What is inside a compressed layer, with a bound on how much it may expand.
//!
//! The first bytes say how it is compressed, not the media type: writers get that wrong.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

const BUFFER: usize = 64 << 10;
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Reads the layer's own bytes; at most `limit` of them.
pub(super) fn reader<'a>(source: impl Read + 'a, limit: u64) -> io::Result<Box<dyn Read + 'a>> {
    let mut source = BufReader::with_capacity(BUFFER, source);
    let start = source.fill_buf()?;
    let inner: Box<dyn Read + 'a> = if start.starts_with(GZIP) {
        Box::new(MultiGzDecoder::new(source))
    } else if start.starts_with(ZSTD) || is_skippable(start) {
        Box::new(Zstd {
            source,
            decoder: FrameDecoder::new(),
            in_frame: false,
        })
    } else {
        Box::new(source)
    };
    Ok(Box::new(Bounded {
        inner,
        left: limit,
        limit,
    }))
}

/// Spec: zstd frames with user data begin with 0x184D2A50 to 0x184D2A5F.
fn is_skippable(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let text = format!("it expands to more than {} bytes", self.limit);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(read)
    }
}

/// Zstd frames one after the other; those with user data are skipped.
struct Zstd<R> {
    source: R,
    decoder: FrameDecoder,
    /// Whether the decoder is inside a frame.
    in_frame: bool,
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.in_frame {
                let read = self.read_frame(buffer)?;
                if read > 0 {
                    return Ok(read);
                }
                self.in_frame = false;
            }
            if self.source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.begin_frame()?;
        }
    }
}

impl<R: BufRead> Zstd<R> {
    /// Reads of the present frame; 0 at its end.
    fn read_frame(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // A block may give nothing that can be taken yet, since later ones may refer to it.
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
            let one = BlockDecodingStrategy::UptoBlocks(1);
            let decoded = self.decoder.decode_blocks(&mut self.source, one);
            decoded.map_err(malformed)?;
        }
        self.decoder.read(buffer)
    }

    fn begin_frame(&mut self) -> io::Result<()> {
        match self.decoder.reset(&mut self.source) {
            Ok(()) => {
                self.in_frame = true;
                Ok(())
            }
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let mut skipped = (&mut self.source).take(length.into());
                io::copy(&mut skipped, &mut io::sink()).map(drop)
            }
            Err(error) => Err(malformed(error)),
        }
    }
}

fn malformed(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{gzip, zstd};
    use super::*;

    fn read(bytes: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        reader(bytes, limit)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn each_compression_is_told_by_its_first_bytes() {
        let content = [7; 300_000].as_slice();
        let two_frames = [zstd(content), zstd(b"!")].concat();
        let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9], &*zstd(content)].concat();
        assert_eq!(read(content, 300_000).unwrap(), content);
        assert_eq!(read(&gzip(content), 300_000).unwrap(), content);
        assert_eq!(read(&zstd(content), 300_000).unwrap(), content);
        assert_eq!(read(&two_frames, 300_001).unwrap().len(), 300_001);
        assert_eq!(read(&skipped, 300_000).unwrap(), content);
        assert_eq!(read(b"", 0).unwrap(), b"");
    }

    #[test]
    fn what_expands_without_end_is_an_error() {
        let content = vec![0; 10 << 20];
        for bytes in [gzip(&content), zstd(&content)] {
            let error = read(&bytes, 1 << 20).unwrap_err();
            assert!(error.to_string().contains("more than 1048576"), "{error}");
        }
    }

    #[test]
    fn damaged_streams_are_errors() {
        for bytes in [gzip(&[1; 1000]), zstd(&[1; 1000])] {
            for end in 1..bytes.len() {
                let result = read(&bytes[..end], 1 << 20);
                assert!(end < 5 || result.is_err(), "{end}");
            }
        }
    }
}
