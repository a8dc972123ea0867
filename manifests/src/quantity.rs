//! Amounts of memory and CPU as Kubernetes writes them: `128Mi`, `1.5Gi`, `100m`, `2`.
//!
//! Text or a JSON number flows in; whole bytes and thousandths of a core come out, rounded up, so
//! that a request is never granted less than it said. Parsing never loses digits to floating point.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of memory or storage, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// An amount of CPU, in thousandths of a core.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MilliCpu(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("an amount is a number with an optional unit, such as 128Mi, 1.5Gi, 100m or 2")]
    Syntax,
    #[error(
        "unknown unit; use one of Ki, Mi, Gi, Ti, Pi, Ei (powers of 1024), k, M, G, T, P, E (powers of 1000), or m (a thousandth)"
    )]
    Unit,
    #[error("an amount cannot be negative")]
    Negative,
    #[error("the amount is too large")]
    TooLarge,
}

/// A number of more digits than this is a mistake; it also keeps the arithmetic within `u128`.
const MAX_DIGITS: usize = 20;

impl Bytes {
    pub const MIB: u64 = 1024 * 1024;
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, 0).map(Bytes)
    }
}

impl FromStr for MilliCpu {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        parse(text, 3).map(MilliCpu)
    }
}

/// The value of `text` in units of 10^-`decimals`, rounded up.
fn parse(text: &str, decimals: i32) -> Result<u64, QuantityError> {
    let (text, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (text.strip_prefix('+').unwrap_or(text), false),
    };
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::Syntax);
    }
    let (exponent, binary) = scale(unit)?;
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.len() + fraction.len() > MAX_DIGITS {
        return Err(QuantityError::TooLarge);
    }
    let mut digits: u128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        digits = digits * 10 + u128::from(digit - b'0');
    }
    if digits == 0 {
        return Ok(0);
    }
    if negative {
        return Err(QuantityError::Negative);
    }
    // Below 10^20 * 2^60, which is less than 2^127.
    let digits = digits << binary;
    let fraction_digits = i32::try_from(fraction.len()).expect("at most MAX_DIGITS");
    let power = exponent + decimals - fraction_digits;
    let value = if power >= 0 {
        let factor = 10u128
            .checked_pow(power.unsigned_abs())
            .ok_or(QuantityError::TooLarge)?;
        digits.checked_mul(factor).ok_or(QuantityError::TooLarge)?
    } else {
        match 10u128.checked_pow(power.unsigned_abs()) {
            Some(divisor) => digits.div_ceil(divisor),
            // Less than the smallest unit, but not nothing.
            None => 1,
        }
    };
    u64::try_from(value).map_err(|_| QuantityError::TooLarge)
}

/// The power of ten and the power of two that a unit stands for.
fn scale(unit: &str) -> Result<(i32, u32), QuantityError> {
    Ok(match unit {
        "" => (0, 0),
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exponent = unit.strip_prefix(['e', 'E']).ok_or(QuantityError::Unit)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|c| c.is_ascii_digit()) {
                return Err(QuantityError::Unit);
            }
            let exponent = exponent
                .parse::<i16>()
                .map_err(|_| QuantityError::TooLarge)?;
            (i32::from(exponent), 0)
        }
    })
}

/// With the largest binary unit that divides the amount: `128Mi`.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let mut value = self.0;
        let mut unit = 0;
        while value != 0 && value.is_multiple_of(1024) {
            value /= 1024;
            unit += 1;
        }
        write!(f, "{value}{}", UNITS[unit])
    }
}

/// Whole cores plain, others in thousandths: `2`, `100m`.
impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

/// Accepts text and, as Kubernetes does, a bare number.
struct QuantityVisitor<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = QuantityError>> Visitor<'_> for QuantityVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount such as \"128Mi\" or \"100m\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

// Kubernetes' own way to say "a number or text"; a list of alternatives would not be structural.
fn quantity_schema() -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

macro_rules! quantity_serde {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(QuantityVisitor(std::marker::PhantomData))
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                quantity_schema()
            }
        }
    };
}

quantity_serde!(Bytes);
quantity_serde!(MilliCpu);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_as_kubernetes_writes_them() {
        for (text, bytes) in [
            ("0", 0),
            ("64", 64),
            ("128Mi", 128 << 20),
            ("1.5Gi", 3 << 29),
            ("1k", 1000),
            ("1Ki", 1024),
            ("16M", 16_000_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("2E", 2_000_000_000_000_000_000),
            (".5Ki", 512),
            ("+7", 7),
            ("-0", 0),
            ("1m", 1),
            ("0.1", 1),
            ("1e-400", 1),
            ("15Ei", 15 << 60),
        ] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for (text, millis) in [("100m", 100), ("2", 2000), ("0.25", 250), ("1u", 1)] {
            assert_eq!(text.parse(), Ok(MilliCpu(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_says_why() {
        for (text, error) in [
            ("", QuantityError::Syntax),
            (".", QuantityError::Syntax),
            ("1.2.3", QuantityError::Syntax),
            ("Mi", QuantityError::Syntax),
            ("128MB", QuantityError::Unit),
            ("128 Mi", QuantityError::Unit),
            ("1e", QuantityError::Unit),
            ("-1Mi", QuantityError::Negative),
            ("16Ei", QuantityError::TooLarge),
            ("1e99999", QuantityError::TooLarge),
            ("1e400", QuantityError::TooLarge),
            ("123456789012345678901", QuantityError::TooLarge),
        ] {
            assert_eq!(text.parse::<Bytes>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_bare_number_is_an_amount_too() {
        assert_eq!(serde_json::from_str::<MilliCpu>("2").unwrap().0, 2000);
        assert_eq!(serde_json::from_str::<MilliCpu>("0.5").unwrap().0, 500);
        assert_eq!(serde_json::from_str::<Bytes>("\"1Ki\"").unwrap().0, 1024);
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back_the_same(bytes in any::<u64>(), shift in 0u32..64, millis in 0..10u64.pow(15)) {
            let bytes = Bytes(bytes >> shift << shift);
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
            let cpu = MilliCpu(millis);
            prop_assert_eq!(cpu.to_string().parse(), Ok(cpu));
        }

        #[test]
        fn parsing_never_panics(text in "[-+]?[0-9.]{0,24}[a-zA-Z0-9+-]{0,6}") {
            let _ = text.parse::<Bytes>();
            let _ = text.parse::<MilliCpu>();
        }
    }
}
