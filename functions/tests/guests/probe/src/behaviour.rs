//! What a request asks for: its path names a behaviour, its query says how much of it.

use std::{fmt, str::FromStr, time::Duration};

pub enum Behaviour {
    Hello,
    Echo,
    Environment,
    Count,
    Status { code: u16 },
    Silent,
    Spin,
    Memory { mib: usize },
    Trap,
    Cut,
    Log { lines: u64, text: String },
    Egress { url: String },
    Stream { chunks: u64, pause: Duration },
    Slow { pause: Duration },
    Random,
    File { path: String },
    Large { kib: u64 },
    Unknown { path: String },
}

/// A parameter that is missing or no number.
#[derive(Debug)]
pub struct BadParameter(String);

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Behaviour {
    /// What the target of a request, `/path?name=value&...`, asks for.
    pub fn of(target: &str) -> Result<Self, BadParameter> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        Ok(match path {
            "" | "/" => Self::Hello,
            "/echo" => Self::Echo,
            "/env" => Self::Environment,
            "/count" => Self::Count,
            "/status" => Self::Status {
                code: query.number("code", 200)?,
            },
            "/silent" => Self::Silent,
            "/spin" => Self::Spin,
            "/memory" => Self::Memory {
                mib: query.number("mib", 1)?,
            },
            "/trap" => Self::Trap,
            "/cut" => Self::Cut,
            "/log" => Self::Log {
                lines: query.number("lines", 1)?,
                text: query.text("text").unwrap_or("line").to_owned(),
            },
            "/egress" => Self::Egress {
                url: query
                    .text("url")
                    .ok_or_else(|| BadParameter("the parameter url is missing".to_owned()))?
                    .to_owned(),
            },
            "/stream" => Self::Stream {
                chunks: query.number("chunks", 3)?,
                pause: Duration::from_millis(query.number("ms", 0)?),
            },
            "/slow" => Self::Slow {
                pause: Duration::from_millis(query.number("ms", 100)?),
            },
            "/random" => Self::Random,
            "/fs" => Self::File {
                path: query.text("path").unwrap_or("/etc/passwd").to_owned(),
            },
            "/large" => Self::Large {
                kib: query.number("kib", 1024)?,
            },
            path => Self::Unknown {
                path: path.to_owned(),
            },
        })
    }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Self {
        let parameters = text.split('&').filter_map(|p| p.split_once('='));
        Self(
            parameters
                .map(|(name, value)| (decode(name), decode(value)))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        Some(value)
    }

    fn number<N: FromStr>(&self, name: &str, default: N) -> Result<N, BadParameter> {
        self.text(name).map_or(Ok(default), |value| {
            let bad = |_| BadParameter(format!("{name}={value} is not a number that fits"));
            value.parse().map_err(bad)
        })
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
