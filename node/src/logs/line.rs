//! One line of a CRI log file: `2026-01-02T03:04:05.000000006Z stdout F text`.

use std::io::Write as _;

use jiff::Timestamp;

use super::sink::Output;

/// Longest text of one line; what is longer is split into parts tagged `P`.
pub(super) const MAX_TEXT: usize = 16 << 10;

/// Appends one line to `buffer`.
pub(super) fn format(
    buffer: &mut Vec<u8>,
    time: Timestamp,
    output: Output,
    partial: bool,
    text: &[u8],
) {
    let tag = if partial { 'P' } else { 'F' };
    // Writing to a Vec can't fail.
    let _ = write!(buffer, "{time:.9} {} {tag} ", output.as_str());
    buffer.extend_from_slice(text);
    buffer.push(b'\n');
}

/// A line read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The time as written.
    pub(super) time: &'a str,
    /// Which stream it was printed to.
    pub(super) output: Output,
    /// Whether the next line of the same stream continues this one.
    pub(super) partial: bool,
    /// The text without its line end.
    pub(super) text: &'a [u8],
}

/// Parses a line without its line end; `None` if it is damaged.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let output = match parts.next()? {
        b"stdout" => Output::Stdout,
        b"stderr" => Output::Stderr,
        _ => return None,
    };
    let partial = match parts.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(Line {
        time,
        output,
        partial,
        text: parts.next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        let time: Timestamp = "2026-01-02T03:04:05.000000006Z".parse().unwrap();
        let mut buffer = Vec::new();
        format(&mut buffer, time, Output::Stderr, true, b"a b ");
        assert_eq!(buffer, b"2026-01-02T03:04:05.000000006Z stderr P a b \n");
        let line = parse(buffer.trim_ascii_end()).unwrap();
        assert_eq!(
            (line.time, line.partial),
            ("2026-01-02T03:04:05.000000006Z", true)
        );
        assert_eq!(parse(b"t stdout F ").unwrap().text, b"");
    }

    #[test]
    fn damaged_lines_are_told() {
        for line in ["", "t", "t stdout", "t std F x", "t stdout X x"] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }
}
