//! Spans between wall-clock times.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How long from `now` until `due`; zero if that has passed.
#[must_use]
pub fn until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or_default()
}

/// `time` and some seconds.
#[must_use]
pub fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
