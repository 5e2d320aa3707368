//! Schedules of CronJobs: five fields or a descriptor, as Kubernetes' parser reads and refuses them.
//!
//! ```text
//! minute hour day-of-month month day-of-week      */15 0-6,12 1 jan,jul *
//! @yearly @annually @monthly @weekly @daily @midnight @hourly @every 1h30m
//! ```

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// At every time whose parts are all in these sets.
    At(Times),
    /// Again and again after this long.
    Every(Duration),
}

/// Sets of parts of a time, one bit for each value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Minutes, 0 to 59.
    pub minutes: u64,
    /// Hours, 0 to 23.
    pub hours: u64,
    /// Days of the month, 1 to 31.
    pub days: u64,
    /// Months, 1 to 12.
    pub months: u64,
    /// Days of the week, 0 (Sunday) to 6.
    pub weekdays: u64,
    /// Whether the days of the month are no restriction. If both kinds of days restrict, one is enough.
    pub any_day: bool,
    /// Whether the days of the week are no restriction.
    pub any_weekday: bool,
}

/// Why a text is no schedule, in upstream's words.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Nothing there.
    #[error("empty spec string")]
    Empty,
    /// More or fewer than five fields.
    #[error("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" "))]
    Fields {
        /// The fields found.
        fields: Vec<String>,
    },
    /// A descriptor that does not exist.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// `@every` without a duration.
    #[error("failed to parse duration {text}: {reason}")]
    Duration {
        /// The whole schedule.
        text: String,
        /// What is wrong with the duration.
        reason: String,
    },
    /// A time zone within the schedule that does not exist.
    #[error("provided bad location {0}: unknown time zone {0}")]
    Zone(String),
    /// No number where one is expected.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Integer(String),
    /// A number below zero.
    #[error("negative number ({0}) not allowed: {0}")]
    Negative(i64),
    /// `1-2-3`.
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    /// `1/2/3`.
    #[error("too many slashes: {0}")]
    Slashes(String),
    /// The range starts too early.
    #[error("beginning of range ({start}) below minimum ({min}): {text}")]
    Below {
        /// Where it starts.
        start: u32,
        /// Where it may start.
        min: u32,
        /// The range.
        text: String,
    },
    /// The range ends too late.
    #[error("end of range ({end}) above maximum ({max}): {text}")]
    Above {
        /// Where it ends.
        end: u32,
        /// Where it may end.
        max: u32,
        /// The range.
        text: String,
    },
    /// The range ends before it starts.
    #[error("beginning of range ({start}) beyond end of range ({end}): {text}")]
    Backwards {
        /// Where it starts.
        start: u32,
        /// Where it ends.
        end: u32,
        /// The range.
        text: String,
    },
    /// A step of zero.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
}

/// The values a field may have.
struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds::of(0, 59, &[]);
const HOURS: Bounds = Bounds::of(0, 23, &[]);
const DAYS: Bounds = Bounds::of(1, 31, &[]);
const MONTHS: Bounds = Bounds::of(
    1,
    12,
    &[
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ],
);
const WEEKDAYS: Bounds = Bounds::of(0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]);

const DESCRIPTORS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Bounds {
    const fn of(min: u32, max: u32, names: &'static [&'static str]) -> Self {
        Self { min, max, names }
    }

    fn value(&self, text: &str) -> Result<u32, ParseError> {
        let lower = text.to_lowercase();
        match self.names.iter().position(|name| *name == lower) {
            // The names of a field are few.
            Some(at) => Ok(self.min + u32::try_from(at).unwrap_or_default()),
            None => number(text),
        }
    }
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// When upstream's parser refuses it.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return Err(ParseError::Empty);
        }
        let text = without_zone(text)?;
        if text.starts_with('@') {
            return descriptor(text);
        }
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            let fields = fields.into_iter().map(str::to_owned).collect();
            return Err(ParseError::Fields { fields });
        };
        let (minutes, _) = field(minute, &MINUTES)?;
        let (hours, _) = field(hour, &HOURS)?;
        let (days, any_day) = field(day, &DAYS)?;
        let (months, _) = field(month, &MONTHS)?;
        let (weekdays, any_weekday) = field(weekday, &WEEKDAYS)?;
        Ok(Self::At(Times {
            minutes,
            hours,
            days,
            months,
            weekdays,
            any_day,
            any_weekday,
        }))
    }
}

/// Days searched for the next time: a leap day is eight years away at the most.
const HORIZON: usize = 8 * 366;

impl Schedule {
    /// The first time after `after` that the schedule names, by the clocks of `zone`.
    ///
    /// A time that the clocks skip does not come that day; one that they show twice comes twice, as in
    /// upstream's parser.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(every) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole
                    .checked_add(SignedDuration::try_from(*every).ok()?)
                    .ok()
            }
            Self::At(times) => {
                let first = zone.to_datetime(after).date();
                let days = first.series(jiff::Span::new().days(1)).take(HORIZON);
                let mut days = days.filter(|day| times.includes(*day));
                days.find_map(|day| times.on(day, zone).find(|time| *time > after))
            }
        }
    }
}

impl Times {
    fn includes(&self, day: Date) -> bool {
        let has =
            |set: u64, value: i8| u32::try_from(value).is_ok_and(|value| set >> value & 1 == 1);
        let of_month = has(self.days, day.day());
        let of_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        // Two restrictions are alternatives; without one of them, the other has to hold.
        let right_day = if self.any_day || self.any_weekday {
            of_month && of_week
        } else {
            of_month || of_week
        };
        has(self.months, day.month()) && right_day
    }

    /// The times of a day, in order.
    fn on(&self, day: Date, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
        let values = |set: u64, end: i8| (0..end).filter(move |value| set >> value & 1 == 1);
        let minutes = self.minutes;
        let mut times: Vec<Timestamp> = values(self.hours, 24)
            .flat_map(|hour| values(minutes, 60).map(move |minute| day.at(hour, minute, 0, 0)))
            .flat_map(|time| instants(time, zone))
            .collect();
        times.sort_unstable();
        times.into_iter()
    }
}

/// When the clocks show a time: once, never, or twice.
fn instants(time: DateTime, zone: &TimeZone) -> impl Iterator<Item = Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(time);
    let instants = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } => [ambiguous.compatible().ok(), None],
        AmbiguousOffset::Gap { .. } => [None, None],
        AmbiguousOffset::Fold { .. } => [ambiguous.earlier().ok(), ambiguous.later().ok()],
    };
    instants.into_iter().flatten()
}

/// The schedule behind `TZ=` or `CRON_TZ=` and a zone.
fn without_zone(text: &str) -> Result<&str, ParseError> {
    let zoned = text
        .strip_prefix("TZ=")
        .or_else(|| text.strip_prefix("CRON_TZ="));
    let Some(rest) = zoned else { return Ok(text) };
    let (zone, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match TimeZone::get(zone) {
        Ok(_) => Ok(rest.trim()),
        Err(_) => Err(ParseError::Zone(zone.to_owned())),
    }
}

fn descriptor(text: &str) -> Result<Schedule, ParseError> {
    if let Some((_, fields)) = DESCRIPTORS.iter().find(|(name, _)| *name == text) {
        return Schedule::parse(fields);
    }
    let Some(every) = text.strip_prefix("@every ") else {
        return Err(ParseError::Descriptor(text.to_owned()));
    };
    let every = duration(every).map_err(|reason| ParseError::Duration {
        text: text.to_owned(),
        reason,
    })?;
    // Less than a second is a second, and parts of seconds do not count.
    Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1))))
}

/// A duration as Go writes it: `1h30m`, `1.5h`.
fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: &[(&str, f64)] = &[
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let invalid = || format!("time: invalid duration {text:?}");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_digit = |c: char| c.is_ascii_digit() || c == '.';
        let (amount, tail) = rest.split_at(rest.find(|c| !is_digit(c)).unwrap_or(rest.len()));
        let amount: f64 = amount.parse().map_err(|_| invalid())?;
        let (unit, tail) = tail.split_at(tail.find(is_digit).unwrap_or(tail.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        seconds += amount * factor;
        rest = tail;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

/// The set of a field, and whether it is no restriction.
fn field(text: &str, bounds: &Bounds) -> Result<(u64, bool), ParseError> {
    let (mut set, mut any) = (0, false);
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (values, star) = range(part, bounds)?;
        set |= values;
        any |= star;
    }
    Ok((set, any))
}

/// `*`, `5`, `1-5`, each with `/step`.
fn range(text: &str, bounds: &Bounds) -> Result<(u64, bool), ParseError> {
    let mut parts = text.split('/');
    let (values, step, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let limits: Vec<_> = values.split('-').collect();
    let single = limits.len() == 1;
    let (start, mut end, mut star) = match limits.as_slice() {
        ["*" | "?", ..] => (bounds.min, bounds.max, true),
        [only] => (bounds.value(only)?, bounds.value(only)?, false),
        [start, end] => (bounds.value(start)?, bounds.value(end)?, false),
        _ => return Err(ParseError::Hyphens(text.to_owned())),
    };
    if more.is_some() {
        return Err(ParseError::Slashes(text.to_owned()));
    }
    let step = match step {
        Some(step) => {
            let step = number(step)?;
            if single {
                end = bounds.max;
            }
            star &= step <= 1;
            step
        }
        None => 1,
    };
    check(start, end, step, text, bounds)?;
    let values = (start..=end).step_by(step as usize);
    Ok((values.fold(0, |set, value| set | 1 << value), star))
}

fn check(start: u32, end: u32, step: u32, text: &str, bounds: &Bounds) -> Result<(), ParseError> {
    let (min, max, text) = (bounds.min, bounds.max, text.to_owned());
    if start < min {
        Err(ParseError::Below { start, min, text })
    } else if end > max {
        Err(ParseError::Above { end, max, text })
    } else if start > end {
        Err(ParseError::Backwards { start, end, text })
    } else if step == 0 {
        Err(ParseError::Step(text))
    } else {
        Ok(())
    }
}

fn number(text: &str) -> Result<u32, ParseError> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(ParseError::Negative(number)),
        Ok(number) => u32::try_from(number).map_err(|_| ParseError::Integer(text.to_owned())),
        Err(_) => Err(ParseError::Integer(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(text: &str) -> Times {
        match Schedule::parse(text) {
            Ok(Schedule::At(times)) => times,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn fields_are_sets() {
        let at = times("*/15 0-2,12 1 jan,Jul 5");
        assert_eq!(at.minutes, 1 | 1 << 15 | 1 << 30 | 1 << 45);
        assert_eq!(at.hours, 0b111 | 1 << 12);
        assert_eq!(at.months, 1 << 1 | 1 << 7);
        assert_eq!(at.weekdays, 1 << 5);
        assert!(!at.any_day && !at.any_weekday);
        assert_eq!(times("@weekly"), times("0 0 * * sun"));
        assert!(times("0 0 * * *").any_day);
        assert!(!times("0 0 */2 * *").any_day);
        let every = Schedule::Every(Duration::from_secs(5400));
        assert_eq!(Schedule::parse("@every 1h30m"), Ok(every));
    }

    #[test]
    fn the_next_time_is_the_first_that_all_parts_name() {
        let cases = [
            (
                "*/15 * * * *",
                "2026-01-01T00:00:00Z",
                "2026-01-01T00:15:00Z",
            ),
            ("0 0 1 * *", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00Z"),
            (
                "0 12 29 2 *",
                "2026-01-01T00:00:00Z",
                "2028-02-29T12:00:00Z",
            ),
            // The thirteenth or a Friday, whichever comes first.
            (
                "0 0 13 * fri",
                "2026-01-01T00:00:00Z",
                "2026-01-02T00:00:00Z",
            ),
            ("0 0 * * 0", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            (
                "59 23 31 dec *",
                "2026-12-31T23:59:00Z",
                "2027-12-31T23:59:00Z",
            ),
            (
                "@every 90s",
                "2026-01-01T00:00:00.5Z",
                "2026-01-01T00:01:30Z",
            ),
        ];
        for (text, after, expected) in cases {
            let schedule = Schedule::parse(text).unwrap();
            let next = schedule.next(after.parse().unwrap(), &TimeZone::UTC);
            assert_eq!(next, Some(expected.parse().unwrap()), "{text}");
        }
        let never = Schedule::parse("0 0 31 2 *").unwrap();
        assert_eq!(never.next(Timestamp::UNIX_EPOCH, &TimeZone::UTC), None);
    }

    #[test]
    fn clocks_that_are_put_forward_or_back_skip_and_repeat() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let next = |text: &str, after: &str| {
            let schedule = Schedule::parse(text).unwrap();
            schedule
                .next(after.parse().unwrap(), &zone)
                .unwrap()
                .to_string()
        };
        assert_eq!(
            next("30 2 * * *", "2026-03-28T12:00:00Z"),
            "2026-03-30T00:30:00Z"
        );
        assert_eq!(
            next("30 2 * * *", "2026-10-24T12:00:00Z"),
            "2026-10-25T00:30:00Z"
        );
        assert_eq!(
            next("30 2 * * *", "2026-10-25T00:30:00Z"),
            "2026-10-25T01:30:00Z"
        );
        assert_eq!(
            next("0 9 * * *", "2026-07-01T00:00:00Z"),
            "2026-07-01T07:00:00Z"
        );
    }

    #[test]
    fn errors_are_upstreams() {
        for (text, error) in [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            (
                "5-3 * * * *",
                "beginning of range (5) beyond end of range (3): 5-3",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@never", "unrecognized descriptor: @never"),
            (
                "@every 5",
                "failed to parse duration @every 5: time: missing unit in duration \"5\"",
            ),
            (
                "TZ=No/Where 0 0 * * *",
                "provided bad location No/Where: unknown time zone No/Where",
            ),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err().to_string(), error);
        }
    }
}
