//! A reader of tar archives for what layers hold: names, sizes and contents of files, nothing else.
//!
//! Nothing is ever unpacked: a file is read through its [`Entry`], so links, devices and names that climb out of the
//! root can do no harm; they are entries that nobody opens.
//!
//! Spec: POSIX ustar and pax (`path`, `size`, `linkpath`), GNU long names and binary sizes. Headers that extend
//! another one are bounded, and so is their number.

use std::io::{self, Read};

const BLOCK: usize = 512;
/// Longest pax or GNU header.
const MAX_EXTENSION: u64 = 64 << 10;
/// More entries than any layer with one program in it has.
const MAX_ENTRIES: usize = 200_000;

/// Reads entry after entry.
pub(super) struct Archive<R> {
    source: R,
    /// Bytes of the present entry that were not read yet, and of its padding.
    left: u64,
    padding: u64,
    seen: usize,
}

/// What an entry's header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Its name without leading `./` and `/`.
    pub(super) name: String,
    /// Whether it is an ordinary file.
    pub(super) is_file: bool,
    /// Size of its content.
    pub(super) size: u64,
}

#[derive(Default)]
struct Extensions {
    name: Option<String>,
    size: Option<u64>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            left: 0,
            padding: 0,
            seen: 0,
        }
    }

    /// The next entry; what was not read of the last one is skipped.
    pub(super) fn next(&mut self) -> io::Result<Option<Header>> {
        let mut extensions = Extensions::default();
        loop {
            self.seen += 1;
            if self.seen > MAX_ENTRIES {
                return Err(malformed(format!("more than {MAX_ENTRIES} entries")));
            }
            self.skip()?;
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let size = number(field(&block, 124, 12))?;
            match field(&block, 156, 1) {
                b"x" => self.pax(size, &mut extensions)?,
                b"L" => {
                    let name = self.extension(size)?;
                    extensions.name = Some(text(&name));
                }
                // A long link name, or a header for all entries that follow: nothing that is needed.
                b"K" | b"g" => self.enter(size),
                kind => return Ok(Some(self.header(&block, kind, size, extensions))),
            }
        }
    }

    /// What the present entry holds.
    pub(super) fn content(&mut self) -> impl Read + '_ {
        Content(self)
    }

    fn header(
        &mut self,
        block: &[u8; BLOCK],
        kind: &[u8],
        size: u64,
        extensions: Extensions,
    ) -> Header {
        let is_file = matches!(kind, b"0" | b"\0" | b"7");
        let size = extensions.size.unwrap_or(size);
        // Links and directories have no content, whatever their size says.
        self.enter(if is_file { size } else { 0 });
        let name = extensions.name.unwrap_or_else(|| short_name(block));
        Header {
            name: plain(&name),
            is_file,
            size,
        }
    }

    fn enter(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> io::Result<()> {
        let unread = self.left.saturating_add(self.padding);
        (self.left, self.padding) = (0, 0);
        let skipped = io::copy(&mut (&mut self.source).take(unread), &mut io::sink())?;
        if skipped == unread {
            Ok(())
        } else {
            Err(malformed("it ends inside an entry"))
        }
    }

    /// The next header, `None` at the end: a block of zeros, or no bytes at all.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.source.read(rest)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(malformed("it ends inside a header")),
                read => filled += read,
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        check_sum(&block)?;
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(malformed(format!("a header of {size} bytes")));
        }
        self.enter(size);
        let mut content = Vec::new();
        self.content().read_to_end(&mut content)?;
        Ok(content)
    }

    /// Spec: pax records are `LENGTH KEY=VALUE\n`, the length counting itself.
    fn pax(&mut self, size: u64, extensions: &mut Extensions) -> io::Result<()> {
        let content = self.extension(size)?;
        let mut rest = content.as_slice();
        while !rest.is_empty() {
            let wrong = || malformed("a malformed pax header");
            let space = rest
                .iter()
                .position(|byte| *byte == b' ')
                .ok_or_else(wrong)?;
            let (length, _) = rest.split_at(space);
            let length = std::str::from_utf8(length)
                .ok()
                .and_then(|text| text.parse().ok());
            let length: usize = length.filter(|length| *length > space).ok_or_else(wrong)?;
            let (record, after) = rest.split_at_checked(length).ok_or_else(wrong)?;
            let record = text(record.get(space + 1..).unwrap_or_default());
            match record.trim_end_matches('\n').split_once('=') {
                Some(("path", value)) => extensions.name = Some(value.to_owned()),
                Some(("size", value)) => {
                    extensions.size = Some(value.parse().map_err(|_| wrong())?);
                }
                _ => {}
            }
            rest = after;
        }
        Ok(())
    }
}

struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let archive = &mut *self.0;
        let read = (&mut archive.source).take(archive.left).read(buffer)?;
        if read == 0 && archive.left > 0 && !buffer.is_empty() {
            return Err(malformed("it ends inside a file"));
        }
        archive.left -= read as u64;
        Ok(read)
    }
}

/// Whether these bytes begin with a header.
pub(super) fn is_tar(start: &[u8]) -> bool {
    let block: Option<&[u8; BLOCK]> = start.first_chunk();
    block.is_some_and(|block| check_sum(block).is_ok())
}

fn malformed(what: impl Into<String>) -> io::Error {
    let what: String = what.into();
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed tar: {what}"))
}

fn field(block: &[u8; BLOCK], start: usize, length: usize) -> &[u8] {
    block.get(start..start + length).unwrap_or_default()
}

/// Spec: octal digits between spaces and NULs, or, with the highest bit set, a binary number.
fn number(field: &[u8]) -> io::Result<u64> {
    if let [first, rest @ ..] = field
        && first & 0x80 != 0
    {
        let bytes = std::iter::once(first & 0x7f).chain(rest.iter().copied());
        return bytes
            .into_iter()
            .try_fold(0_u64, |value, byte| {
                value.checked_mul(256)?.checked_add(u64::from(byte))
            })
            .ok_or_else(|| malformed("a size without bounds"));
    }
    let digits = text(field);
    let digits = digits.trim_matches([' ', '\0']);
    if digits.is_empty() {
        return Ok(0);
    }
    u64::from_str_radix(digits, 8).map_err(|_| malformed("a size that is no number"))
}

fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let stored = number(field(block, 148, 8))?;
    let sum = block.iter().enumerate().map(|(at, byte)| {
        let own = (148..156).contains(&at);
        u64::from(if own { b' ' } else { *byte })
    });
    if sum.sum::<u64>() == stored {
        Ok(())
    } else {
        Err(malformed("a header with a wrong sum"))
    }
}

fn short_name(block: &[u8; BLOCK]) -> String {
    let name = text(field(block, 0, 100));
    let prefix = text(field(block, 345, 155));
    // Old GNU archives have times where ustar has the prefix.
    let is_ustar = field(block, 257, 6) == b"ustar\0";
    if is_ustar && !prefix.is_empty() {
        format!("{prefix}/{name}")
    } else {
        name
    }
}

/// Text up to its first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    let bytes = end.and_then(|end| bytes.get(..end)).unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// A path in its shortest form below the root.
pub(super) fn plain(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{self, entry};
    use super::*;

    fn names(bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut archive = Archive::new(bytes);
        let mut found = Vec::new();
        while let Some(header) = archive.next()? {
            let mut content = Vec::new();
            archive.content().read_to_end(&mut content)?;
            found.push((header.name, content));
        }
        Ok(found)
    }

    #[test]
    fn files_come_with_their_names_and_content() {
        let long = format!("{}/app.wasm", "d".repeat(180));
        let bytes = fixtures::tar(&[("./a", b"1"), ("/b/c", b"22"), (&long, b"333")]);
        let want = [("a", "1"), ("b/c", "22"), (&*long, "333")];
        let want = want.map(|(name, content)| (name.to_owned(), content.as_bytes().to_vec()));
        assert_eq!(names(&bytes).unwrap(), want);
        assert!(is_tar(&bytes));
        assert!(!is_tar(b"\0asm"));
    }

    #[test]
    fn an_unread_file_is_skipped() {
        let bytes = fixtures::tar(&[("a", &[1; 5000]), ("b", b"2")]);
        let mut archive = Archive::new(&*bytes);
        assert_eq!(archive.next().unwrap().unwrap().size, 5000);
        assert_eq!(archive.next().unwrap().unwrap().name, "b");
        assert_eq!(archive.next().unwrap(), None);
    }

    #[test]
    fn archives_that_lie_are_errors() {
        let whole = fixtures::tar(&[("a", &[1; 5000])]);
        for end in [100, 512 + 100, 512 + 4999] {
            assert!(names(&whole[..end]).is_err(), "{end}");
        }
        let mut wrong = whole;
        wrong[0] = b'b';
        assert!(names(&wrong).is_err());
        let endless = entry("x", b'L', u64::MAX >> 8);
        assert!(names(&endless).is_err());
        let binary = entry("x", b'0', u64::MAX);
        assert!(names(&binary).is_err());
    }
}
