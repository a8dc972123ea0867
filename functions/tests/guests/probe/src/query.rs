//! The parameters of a request's query: percent-decoded, with numbers read.
//!
//! A name may come more than once; what is missing or no number is told, never guessed.

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

/// A parameter that is missing or no number.
#[derive(Debug)]
pub struct BadParameter(pub String);

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(text: &str) -> Self {
        let parameters = text.split('&').filter_map(|p| p.split_once('='));
        Self(
            parameters
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.texts(name).next()
    }

    pub fn texts(&self, name: &str) -> impl Iterator<Item = String> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.clone())
    }

    pub fn required(&self, name: &str) -> Result<String, BadParameter> {
        self.text(name)
            .ok_or_else(|| BadParameter(format!("the parameter {name} is missing")))
    }

    pub fn parsed<T: FromStr>(&self, name: &str) -> Result<Option<T>, BadParameter> {
        self.text(name)
            .map(|value| {
                let bad = |_| BadParameter(format!("{name}={value} is nothing that fits"));
                value.parse().map_err(bad)
            })
            .transpose()
    }

    pub fn number<N: FromStr>(&self, name: &str, default: N) -> Result<N, BadParameter> {
        Ok(self.parsed(name)?.unwrap_or(default))
    }

    pub fn address(&self, name: &str) -> Result<SocketAddr, BadParameter> {
        let missing = || BadParameter(format!("the parameter {name} is missing"));
        self.parsed(name)?.ok_or_else(missing)
    }

    pub fn milliseconds(&self, name: &str) -> Result<Option<Duration>, BadParameter> {
        Ok(self.parsed(name)?.map(Duration::from_millis))
    }
}

/// Percent-decoded. What is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match rest {
            [b'%', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        if let Some((high, low)) = escaped {
            bytes.push(high * 16 + low);
            rest = &rest[3..];
        } else {
            bytes.push(if *first == b'+' { b' ' } else { *first });
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}
