//! Cookies that the ingress itself sets: their names, how they are found, and that no service sees them. Pure.

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

/// A login that was begun.
pub const ATTEMPT: &str = "hive-attempt-";

/// Who signed in.
pub const SESSION: &str = "hive-session-";

/// Browsers let nobody set one that begins so but the host itself, over TLS.
const HOST_ONLY: &str = "__Host-";

/// Letters that tell tunnels, and attempts to sign in, apart.
const TAG: usize = 8;

/// What a cookie of a kind is called; `of` is what is told apart by it, the tunnel first: those of several tunnels at
/// one host do not take each other's place.
pub fn name(kind: &str, of: &[&str], secure: bool) -> String {
    let prefix = if secure { HOST_ONLY } else { "" };
    let tags = of.iter().map(|part| {
        let mut tag = hex::encode(Sha256::digest(part));
        tag.truncate(TAG);
        tag
    });
    let tags: Vec<String> = tags.collect();
    format!("{prefix}{kind}{}", tags.join("-"))
}

/// The value of the first of that name.
pub fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .find_map(|pair| {
            let (found, value) = pair.trim().split_once('=')?;
            (found == name).then_some(value)
        })
}

/// Takes out of a request what is the ingress' own.
pub fn remove_own(headers: &mut HeaderMap) {
    let is_own = |pair: &[u8]| {
        let pair = pair.trim_ascii_start();
        let pair = pair.strip_prefix(HOST_ONLY.as_bytes()).unwrap_or(pair);
        [ATTEMPT, SESSION]
            .iter()
            .any(|kind| pair.starts_with(kind.as_bytes()))
    };
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    let has_own = |line: &HeaderValue| line.as_bytes().split(|c| *c == b';').any(is_own);
    if !lines.iter().any(has_own) {
        return;
    }
    headers.remove(COOKIE);
    for line in lines {
        let pairs = line.as_bytes().split(|c| *c == b';');
        let others: Vec<&[u8]> = pairs
            .filter(|pair| !is_own(pair))
            .map(<[u8]>::trim_ascii)
            .filter(|pair| !pair.is_empty())
            .collect();
        if let (false, Ok(line)) = (
            others.is_empty(),
            HeaderValue::from_bytes(&others.join(&b"; "[..])),
        ) {
            headers.append(COOKIE, line);
        }
    }
}

/// For Set-Cookie. No script reads it, and no other site makes a browser send it but by a link.
pub fn set(name: &str, value: &str, lives: Duration, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let line = format!(
        "{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite=Lax{secure}",
        lives.as_secs()
    );
    HeaderValue::from_str(&line).expect("names and values are letters, digits, '-' and '_'")
}

/// For Set-Cookie: the browser forgets it.
pub fn end(name: &str, secure: bool) -> HeaderValue {
    set(name, "", Duration::ZERO, secure)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(lines: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_static(line));
        }
        headers
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let all = headers(&["a=1; b=2", "hive-session-x=3; c=\"4\";d=5=6"]);
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("2")),
            ("hive-session-x", Some("3")),
            ("hive-session", None),
            ("d", Some("5=6")),
            ("e", None),
        ] {
            assert_eq!(find(&all, name), expected, "{name}");
        }
    }

    #[test]
    fn the_service_sees_only_its_own() {
        for (lines, expected) in [
            (vec!["a=1; b=2"], vec!["a=1; b=2"]),
            (vec!["a=1; hive-session-00=x; b=2"], vec!["a=1; b=2"]),
            (vec!["__Host-hive-session-00=x"], vec![]),
            (vec!["hive-attempt-00=x", "b=2"], vec!["b=2"]),
            (
                vec!["my-hive-session-x=1;hive-session-y=2;hive-z=3"],
                vec!["my-hive-session-x=1; hive-z=3"],
            ),
        ] {
            let mut all = headers(&lines);
            remove_own(&mut all);
            let left: Vec<_> = all.get_all(COOKIE).iter().collect();
            assert_eq!(left, expected, "{lines:?}");
        }
    }

    #[test]
    fn over_tls_no_other_host_can_set_one() {
        let (plain, secure) = (
            name(SESSION, &["uid"], false),
            name(SESSION, &["uid"], true),
        );
        assert_eq!(secure, format!("__Host-{plain}"));
        assert_ne!(plain, name(SESSION, &["other"], false));
        let line = set(&secure, "v", Duration::from_secs(60), true);
        let line = line.to_str().unwrap();
        assert!(
            line.ends_with("=v; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"),
            "{line}"
        );
        let line = end(&plain, false);
        assert!(line.to_str().unwrap().contains("=; Path=/; Max-Age=0; "));
    }
}
