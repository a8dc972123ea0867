//! Lengths of time as Go and Kubernetes write them: `30s`, `1m30s`, `250ms`, `1.5h`.
//!
//! Text flows in, [`Duration`]s come out, and the shortest text for a duration flows back.
//! Negative lengths and numbers without a unit are refused: "30" has meant both 30 s and 30 ns.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time whose text form is Go's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(pub Duration);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("a duration is numbers with units, such as 30s, 1m30s or 250ms")]
    Syntax,
    #[error("a duration needs a unit after each number: ms, s, m or h, such as 30s")]
    MissingUnit,
    #[error("unknown unit of time; use ns, us, ms, s, m or h, such as 30s")]
    Unit,
    #[error("a duration cannot be negative")]
    Negative,
    #[error("the duration is too long")]
    TooLong,
}

/// Digits of one number beyond this are a mistake; it keeps the arithmetic within `u128`.
const MAX_DIGITS: usize = 19;

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        if text.starts_with('-') {
            return Err(DurationError::Negative);
        }
        let mut rest = text;
        if rest == "0" {
            return Ok(GoDuration(Duration::ZERO));
        }
        if rest.is_empty() {
            return Err(DurationError::Syntax);
        }
        let mut nanos: u128 = 0;
        while !rest.is_empty() {
            let number_end = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .unwrap_or(rest.len());
            let (number, tail) = rest.split_at(number_end);
            let unit_end = tail
                .find(|c: char| c.is_ascii_digit() || c == '.')
                .unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            nanos += part(number, unit)?;
            rest = tail;
        }
        let nanos = u64::try_from(nanos).map_err(|_| DurationError::TooLong)?;
        Ok(GoDuration(Duration::from_nanos(nanos)))
    }
}

/// One number and its unit, in nanoseconds; digits below one are dropped, as in Go.
fn part(number: &str, unit: &str) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(DurationError::Syntax);
    }
    let unit: u128 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(DurationError::MissingUnit),
        _ => return Err(DurationError::Unit),
    };
    if whole.len() > MAX_DIGITS || fraction.len() > MAX_DIGITS {
        return Err(DurationError::TooLong);
    }
    let number = |digits: &str| {
        digits
            .bytes()
            .fold(0u128, |sum, digit| sum * 10 + u128::from(digit - b'0'))
    };
    let divisor = 10u128.pow(u32::try_from(fraction.len()).expect("at most MAX_DIGITS"));
    Ok(number(whole) * unit + number(fraction) * unit / divisor)
}

/// The shortest exact form: `1h30m`, `2.5s` as `2s500ms`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let mut nanos = self.0.as_nanos();
        for (unit, size) in [
            ("h", 3_600_000_000_000),
            ("m", 60_000_000_000),
            ("s", 1_000_000_000),
            ("ms", 1_000_000),
            ("us", 1_000),
            ("ns", 1),
        ] {
            let count = nanos / size;
            if count > 0 {
                write!(f, "{count}{unit}")?;
                nanos -= count * size;
            }
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl JsonSchema for GoDuration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1h", 3_600_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("0", 0),
            ("0s", 0),
            ("1500us", 1),
        ] {
            let parsed: GoDuration = text.parse().unwrap();
            assert_eq!(parsed.0.as_millis(), millis, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        for (text, error) in [
            ("", DurationError::Syntax),
            ("s", DurationError::Syntax),
            ("30", DurationError::MissingUnit),
            ("1m30", DurationError::MissingUnit),
            ("30 s", DurationError::Unit),
            ("30sec", DurationError::Unit),
            ("1d", DurationError::Unit),
            ("-1s", DurationError::Negative),
            ("1.2.3s", DurationError::Syntax),
            ("99999999h", DurationError::TooLong),
        ] {
            assert_eq!(text.parse::<GoDuration>(), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(nanos in any::<u64>()) {
            let duration = GoDuration(Duration::from_nanos(nanos));
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn parsing_never_panics(text in "[-0-9.a-zµ ]{0,60}") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
