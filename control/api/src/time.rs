//! RFC 3339 times as Kubernetes writes them: whole seconds (`metav1.Time`) or microseconds
//! (`metav1.MicroTime`), always in UTC.

use jiff::{Timestamp, Unit};

/// The time is no RFC 3339 date and time with an offset.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not an RFC 3339 time")]
pub struct ParseError {
    text: String,
}

/// The current time in whole seconds, as object metadata holds it.
#[must_use]
pub fn now() -> Timestamp {
    to_seconds(Timestamp::now())
}

/// Drops the fraction of a second.
#[must_use]
pub fn to_seconds(time: Timestamp) -> Timestamp {
    // Flooring can only fail at the very edge of what a timestamp can hold.
    time.round(
        jiff::TimestampRound::new()
            .smallest(Unit::Second)
            .mode(jiff::RoundMode::Floor),
    )
    .unwrap_or(time)
}

/// Parses an RFC 3339 time with any offset and any fraction.
pub fn parse(text: &str) -> Result<Timestamp, ParseError> {
    let error = || ParseError {
        text: text.to_owned(),
    };
    // Jiff is more liberal than RFC 3339: `2024-01-01 10:00Z` or an annotated zone would pass.
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20
        && bytes.get(10) == Some(&b'T')
        && bytes.get(16) == Some(&b':')
        && !text.contains('[');
    if !shaped {
        return Err(error());
    }
    text.parse().map_err(|_| error())
}

/// `2006-01-02T15:04:05Z`.
#[must_use]
pub fn format_seconds(time: Timestamp) -> String {
    to_seconds(time).to_string()
}

/// `2006-01-02T15:04:05.000000Z`.
#[must_use]
pub fn format_micros(time: Timestamp) -> String {
    format!("{time:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_kubernetes_writes_them() {
        let time = parse("2024-02-29T12:30:45.123456789+02:00").expect("parses");
        assert_eq!(format_seconds(time), "2024-02-29T10:30:45Z");
        assert_eq!(format_micros(time), "2024-02-29T10:30:45.123456Z");
        let whole = parse("1969-12-31T23:59:58Z").expect("parses");
        assert_eq!(format_seconds(whole), "1969-12-31T23:59:58Z");
        assert_eq!(format_micros(whole), "1969-12-31T23:59:58.000000Z");
    }

    #[test]
    fn what_is_no_rfc_3339_time_is_refused() {
        for text in [
            "",
            "yesterday",
            "2024-01-01",
            "2024-01-01T10:00:00",
            "2024-01-01 10:00:00Z",
            "2024-13-01T10:00:00Z",
            "2024-01-01T10:00:00Z[UTC]",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
