//! What is sent to which registry, request by request, and what each answer of a bad one leads to.

#![allow(clippy::unwrap_used)]

mod pull;
mod push;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use hive_registry::{Answer, Ask, Credentials, Login, Lookup};
use http::{HeaderMap, HeaderName, StatusCode};

/// A component, as far as anybody here looks.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0and so on";

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: all,
        body: body.into(),
    }
}

fn ok(body: &str) -> Answer {
    answer(200, &[], body.to_owned())
}

fn challenge(text: &str) -> Answer {
    answer(401, &[("www-authenticate", text)], "")
}

/// As a line: method, address, who one says to be, and how many bytes are sent.
fn line(ask: &Ask) -> String {
    let mut line = format!("{} {}", ask.method, ask.url);
    if let Some(value) = ask.headers.get("authorization") {
        assert!(value.is_sensitive());
        let value = value.to_str().unwrap();
        line += &match value.strip_prefix("Basic ") {
            Some(both) => format!(
                " as {}",
                String::from_utf8(BASE64.decode(both).unwrap()).unwrap()
            ),
            None => format!(" with {value}"),
        };
    }
    if let Some(range) = ask.headers.get("content-range") {
        line += &format!(" range {}", range.to_str().unwrap());
    }
    if !ask.body.is_empty() {
        line += &format!(", {} bytes", ask.body.len());
    }
    line
}

fn login(server: &str) -> Option<Login> {
    let config = Credentials::write(server, "me", "secret", None).to_string();
    let reference = format!("{server}/x/y").parse().unwrap();
    match Credentials::parse(config.as_bytes())
        .unwrap()
        .find(&reference)
    {
        Lookup::Login(login) => Some(login),
        other => panic!("{other:?}"),
    }
}

const TOKEN: &str = r#"{"token":"t1","expires_in":300}"#;
