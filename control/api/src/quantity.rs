//! Amounts of resources: `100m`, `1.5Gi`, `2e3`.
//!
//! A [`Quantity`] is a whole number of nano-units and the family of suffixes it was written in, so it is
//! exact down to `1n`, ordered and summed as an integer, and written back in upstream's canonical form:
//! no fraction, and the largest suffix of its family that leaves none. As upstream, what is smaller than
//! a nano rounds away from zero and what is larger than 2^63-1 is capped.

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANOS: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANOS;

/// Suffixes of decimal amounts with their power of ten.
const DECIMAL: &[(&str, i32)] = &[
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// Suffixes of binary amounts with their power of 1024.
const BINARY: &[(&str, u32)] = &[
    ("Ki", 1),
    ("Mi", 2),
    ("Gi", 3),
    ("Ti", 4),
    ("Pi", 5),
    ("Ei", 6),
];

/// The family of suffixes an amount is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `m`, ``, `k`, `M`, ...
    #[default]
    Decimal,
    /// `Ki`, `Mi`, ...
    Binary,
    /// `e3`, `e6`, ...
    Exponent,
}

/// An exact amount.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The text is no quantity; the words are upstream's.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseError {
    /// Nothing there, or a sign, digits or suffix in a wrong place.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// A suffix that does not exist.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self {
        nanos: 0,
        format: Format::Decimal,
    };

    /// A whole number of units, such as bytes or pods.
    #[must_use]
    pub const fn from_units(units: i64, format: Format) -> Self {
        Self {
            nanos: units as i128 * NANOS,
            format,
        }
    }

    /// A whole number of thousandths, such as millicores.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self {
            nanos: millis as i128 * 1_000_000,
            format: Format::Decimal,
        }
    }

    /// The amount in whole units, rounded up.
    #[must_use]
    pub fn units(self) -> i64 {
        saturate(divide_up(self.nanos, NANOS))
    }

    /// The amount in thousandths, rounded up.
    #[must_use]
    pub fn millis(self) -> i64 {
        saturate(divide_up(self.nanos, 1_000_000))
    }

    /// Whether the amount is zero.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    /// Whether the amount is below zero.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// The family of suffixes the amount is written in.
    #[must_use]
    pub const fn format(self) -> Format {
        self.format
    }

    fn capped(nanos: i128, format: Format) -> Self {
        Self {
            nanos: nanos.clamp(-MAX, MAX),
            format,
        }
    }

    fn write_binary(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = divide_away(self.nanos, NANOS);
        let fits = BINARY
            .iter()
            .rev()
            .find(|(_, power)| units % 1024_i128.pow(*power) == 0);
        match fits {
            Some((suffix, power)) if units != 0 => {
                write!(f, "{}{suffix}", units / 1024_i128.pow(*power))
            }
            _ => write!(f, "{units}"),
        }
    }

    /// The mantissa without trailing thousands and its power of ten.
    fn decimal_parts(self) -> (i128, i32) {
        let (mut mantissa, mut power) = (self.nanos, -9);
        while mantissa != 0 && mantissa % 1000 == 0 && power < 18 {
            mantissa /= 1000;
            power += 3;
        }
        (mantissa, if mantissa == 0 { 0 } else { power })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Small binary amounts are written in decimal, so that no precision is lost.
        let small = self.nanos.abs() < 1024 * NANOS;
        if self.format == Format::Binary && !small {
            return self.write_binary(f);
        }
        let (mantissa, power) = self.decimal_parts();
        if self.format == Format::Exponent {
            return if power == 0 {
                write!(f, "{mantissa}")
            } else {
                write!(f, "{mantissa}e{power}")
            };
        }
        let suffix = DECIMAL
            .iter()
            .find(|(_, of)| *of == power)
            .map_or("", |(suffix, _)| suffix);
        write!(f, "{mantissa}{suffix}")
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (number, suffix) = split_suffix(text)?;
        let scale = Scale::parse(suffix)?;
        let (negative, digits) = match number.strip_prefix(['+', '-']) {
            Some(digits) => (number.starts_with('-'), digits),
            None => (false, number),
        };
        let magnitude = scale.nanos(digits)?;
        let format = if scale.format() == Format::Binary && magnitude < 1024 * NANOS {
            Format::Decimal
        } else {
            scale.format()
        };
        Ok(Self::capped(
            if negative { -magnitude } else { magnitude },
            format,
        ))
    }
}

/// Splits `-1.5Gi` into `-1.5` and `Gi`.
fn split_suffix(text: &str) -> Result<(&str, &str), ParseError> {
    let signed = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = signed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(signed.len());
    let (digits, suffix) = signed.split_at(end);
    let dots = digits.bytes().filter(|b| *b == b'.').count();
    if dots > 1 || digits.len() == dots {
        return Err(ParseError::Format);
    }
    let number = text.strip_suffix(suffix).unwrap_or(text);
    Ok((number, suffix))
}

/// What a suffix multiplies by.
enum Scale {
    Ten { power: i32, format: Format },
    Kibi { power: u32 },
}

impl Scale {
    fn parse(suffix: &str) -> Result<Self, ParseError> {
        if let Some((_, power)) = DECIMAL.iter().find(|(known, _)| *known == suffix) {
            return Ok(Self::Ten {
                power: *power,
                format: Format::Decimal,
            });
        }
        if let Some((_, power)) = BINARY.iter().find(|(known, _)| *known == suffix) {
            return Ok(Self::Kibi { power: *power });
        }
        if !suffix
            .bytes()
            .all(|b| b"eEinumkKMGTP+-0123456789".contains(&b))
        {
            return Err(ParseError::Format);
        }
        let exponent = suffix.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
        let power = exponent.parse().map_err(|_| ParseError::Suffix)?;
        Ok(Self::Ten {
            power,
            format: Format::Exponent,
        })
    }

    const fn format(&self) -> Format {
        match self {
            Self::Ten { format, .. } => *format,
            Self::Kibi { .. } => Format::Binary,
        }
    }

    /// The magnitude of unsigned digits with at most one dot, in nanos rounded up and capped.
    fn nanos(&self, digits: &str) -> Result<i128, ParseError> {
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        match self {
            Self::Ten { power, .. } => {
                decimal_nanos(whole, fraction, power.saturating_add(9)).ok_or(ParseError::Format)
            }
            Self::Kibi { power } => {
                binary_nanos(whole, fraction, 1024_i128.pow(*power)).ok_or(ParseError::Format)
            }
        }
    }
}

/// `whole.fraction × 10^power`, rounded up, capped.
fn decimal_nanos(whole: &str, fraction: &str, power: i32) -> Option<i128> {
    // The point moves `power` digits to the right: take digits up to there, round up what is left.
    let point = i64::try_from(whole.len())
        .ok()?
        .saturating_add(i64::from(power));
    let mut nanos: i128 = 0;
    let mut inexact = false;
    for (at, digit) in whole.bytes().chain(fraction.bytes()).enumerate() {
        let digit = i128::from(digit.checked_sub(b'0')?);
        if i64::try_from(at).ok()? < point {
            nanos = nanos
                .saturating_mul(10)
                .saturating_add(digit)
                .min(MAX + NANOS);
        } else {
            inexact |= digit != 0;
        }
    }
    let digits = i64::try_from(whole.len() + fraction.len()).ok()?;
    for _ in digits..point {
        if nanos == 0 || nanos > MAX {
            break;
        }
        nanos = nanos.saturating_mul(10);
    }
    Some((nanos + i128::from(inexact)).min(MAX))
}

/// `whole.fraction × unit`, rounded up, capped.
fn binary_nanos(whole: &str, fraction: &str, unit: i128) -> Option<i128> {
    let whole = decimal_nanos(whole, "", 0)?;
    let whole = whole.saturating_mul(unit).saturating_mul(NANOS);
    // Eighteen digits of a fraction decide every nano of an `Ei`; the rest can only round up.
    let (kept, rest) = fraction.split_at(fraction.len().min(18));
    let mut scaled = decimal_nanos(kept, "", 0)?;
    scaled += i128::from(rest.bytes().any(|digit| digit != b'0'));
    let denominator = 10_i128.pow(u32::try_from(kept.len()).ok()?);
    // Split so that no product leaves 128 bits: unit ≤ 2^60, scaled ≤ 10^18.
    let product = scaled.saturating_mul(unit);
    let units = product / denominator;
    let left = product % denominator;
    let nanos = units.saturating_mul(NANOS) + divide_up(left.saturating_mul(NANOS), denominator);
    Some(whole.saturating_add(nanos).min(MAX))
}

/// Division rounded towards positive infinity; the divisor is positive.
fn divide_up(number: i128, by: i128) -> i128 {
    number.div_euclid(by) + i128::from(number.rem_euclid(by) != 0)
}

/// Division rounded away from zero; the divisor is positive.
fn divide_away(number: i128, by: i128) -> i128 {
    let magnitude = divide_up(number.abs(), by);
    if number < 0 { -magnitude } else { magnitude }
}

fn saturate(number: i128) -> i64 {
    let limit = if number < 0 { i64::MIN } else { i64::MAX };
    i64::try_from(number).unwrap_or(limit)
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;

    /// The sum, in the format of the first amount that is not zero; capped.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() {
            other.format
        } else {
            self.format
        };
        Self::capped(self.nanos.saturating_add(other.nanos), format)
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self {
            nanos: -self.nanos,
            format: self.format,
        }
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Quantity {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn quantities_are_written_in_canonical_form() {
        for (given, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("0Ki", "0"),
            ("1", "1"),
            ("+1", "1"),
            ("-5m", "-5m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.1m", "100u"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-0.1n", "-1n"),
            ("1000k", "1M"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("0.5Ki", "512"),
            ("1.1Ki", "1127"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("12e6", "12e6"),
            ("1.5e3", "1500"),
            ("1e-3", "1e-3"),
            ("100Ei", "9223372036854775807"),
            ("1e100", "9223372036854775807"),
            ("7Ei", "7Ei"),
            ("100000000000", "100G"),
        ] {
            assert_eq!(parse(given).to_string(), canonical, "{given}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", "-", ".", "1.2.3", "Mi", "x", "1 ", " 1", "1m1", "--1", "1,5", "1é", "٣",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
        assert_eq!("1ki".parse::<Quantity>(), Err(ParseError::Suffix));
        assert_eq!("1x".parse::<Quantity>(), Err(ParseError::Format));
    }

    #[test]
    fn amounts_are_read_in_units_and_thousandths_rounded_up() {
        assert_eq!(parse("1500m").units(), 2);
        assert_eq!(parse("-1500m").units(), -1);
        assert_eq!(parse("0.1m").millis(), 1);
        assert_eq!(parse("64Mi").units(), 64 << 20);
    }

    proptest! {
        #[test]
        fn writing_and_parsing_gives_the_same_amount(
            units in -1_000_000_000_000_i64..1_000_000_000_000, suffix in 0..16_usize
        ) {
            let suffixes: Vec<_> =
                DECIMAL.iter().map(|(s, _)| *s).chain(BINARY.iter().map(|(s, _)| *s)).collect();
            let quantity = parse(&format!("{units}{}", suffixes[suffix]));
            let again = parse(&quantity.to_string());
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn order_follows_the_amount(a in -1_000_000_i64..1_000_000, b in -1_000_000_i64..1_000_000) {
            let (x, y) = (parse(&format!("{a}m")), parse(&format!("{b}m")));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x + y, Quantity::from_millis(a + b));
            prop_assert_eq!(x - y + y, x);
        }

        #[test]
        fn any_text_is_an_answer(text in "\\PC{0,24}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
