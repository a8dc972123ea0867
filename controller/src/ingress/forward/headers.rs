//! The headers of a request on its way through the ingress: what ends here, what is added, and what
//! a client may say of itself. Pure.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderName, VIA};
use http::{HeaderMap, HeaderValue, Request, Version};

use crate::ingress::origin::{Origin, Scheme};
use crate::tunnels::access::forget_identity;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers that speak of one connection (RFC 9110, 7.6.1), and Hive's own.
const NOT_FORWARDED: [&str; 14] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-hive-namespace",
    "x-hive-function",
    "x-hive-probe",
    "x-hive-queue-ms",
    "x-hive-retry",
    "x-hive-revision",
    "x-hive-user",
    "x-hive-waited-us",
];

/// Removes what is not to be passed on, in either direction.
pub fn clean(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        // What `Connection` lists speaks of this connection too. These never do: a caller that lists
        // them wants another request to be seen than the one that was routed, or another client.
        let never = [
            HOST,
            CONTENT_LENGTH,
            FORWARDED_FOR,
            FORWARDED_HOST,
            FORWARDED_PROTO,
        ];
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| !never.contains(name))
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    for name in NOT_FORWARDED {
        headers.remove(name);
    }
}

/// HTTP/2 and proxies' requests carry the host in the target; the stream to the agent is HTTP/1.1.
pub fn to_origin_form<B>(request: &mut Request<B>) {
    let Some(authority) = request.uri().authority().cloned() else {
        return;
    };
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let origin = path.parse().expect("part of a URI that parsed");
    *request.uri_mut() = origin;
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
}

/// Says whom the request came from, and how. A neighbour (loopback, private addresses) may be a
/// proxy of the same owner that ends TLS: what it says stands, as that of a trusted proxy. Strangers are not heard.
pub fn add_origin(headers: &mut HeaderMap, origin: Origin, is_trusted: bool) {
    let client = origin.client.to_canonical();
    if !is_neighbour(client) && !is_trusted {
        for name in [
            FORWARDED,
            FORWARDED_FOR,
            FORWARDED_HOST,
            FORWARDED_PROTO,
            REAL_IP,
        ] {
            headers.remove(name);
        }
        // A service that reads these behind one door is led to by another as well, or has a host of its own.
        forget_identity(headers);
    }
    // As bytes: what one client wrote must not take with it what a proxy wrote behind that.
    let mut chain = Vec::new();
    for known in headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(known.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(client.to_string().as_bytes());
    if let Ok(chain) = HeaderValue::from_bytes(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static(origin.scheme.as_str()));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
}

/// Whether a client's connection was one of TLS: this one, or the one that a neighbour or a trusted proxy ended.
pub fn came_by_https(headers: &HeaderMap, origin: Origin, is_trusted: bool) -> bool {
    let said = headers.get(FORWARDED_PROTO);
    match said.filter(|_| is_trusted || is_neighbour(origin.client.to_canonical())) {
        // Of several proxies the first was asked by the client.
        Some(said) => {
            let mut all = said.as_bytes().split(|c| *c == b',');
            let first = all.next().unwrap_or_default();
            first.trim_ascii().eq_ignore_ascii_case(b"https")
        }
        None => origin.scheme == Scheme::Https,
    }
}

/// HTTP/2 may carry each cookie by itself; servers of HTTP/1.1 read one header of them (RFC 9113, 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if all.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

fn is_neighbour(client: IpAddr) -> bool {
    match client {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

/// Every proxy names itself (RFC 9110, 7.6.3).
pub fn add_via(headers: &mut HeaderMap, received: Version) {
    let via = match received {
        Version::HTTP_10 => "1.0 hive",
        Version::HTTP_2 => "2 hive",
        _ => "1.1 hive",
    };
    headers.append(VIA, HeaderValue::from_static(via));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    fn from(client: &str, scheme: Scheme) -> Origin {
        let client = client.parse().unwrap();
        Origin { client, scheme }
    }

    #[test]
    fn a_connection_tells_whether_it_is_https_unless_a_neighbour_knows_better() {
        const NEIGHBOUR: &str = "192.168.1.2";
        const STRANGER: &str = "8.8.8.8";
        for (client, is_trusted, scheme, said, expected) in [
            (STRANGER, false, Scheme::Http, None, "http"),
            (STRANGER, false, Scheme::Https, None, "https"),
            (STRANGER, false, Scheme::Http, Some("https"), "http"),
            (STRANGER, false, Scheme::Https, Some("http"), "https"),
            (NEIGHBOUR, false, Scheme::Http, None, "http"),
            (NEIGHBOUR, false, Scheme::Https, None, "https"),
            (NEIGHBOUR, false, Scheme::Http, Some("https"), "https"),
            (NEIGHBOUR, false, Scheme::Https, Some("http"), "http"),
            (STRANGER, true, Scheme::Http, Some("https"), "https"),
            (STRANGER, true, Scheme::Https, Some("http"), "http"),
        ] {
            let said = said.map(|said| ("x-forwarded-proto", said));
            let mut all = headers(said.as_slice());
            let origin = from(client, scheme);
            let is_https = came_by_https(&all, origin, is_trusted);
            add_origin(&mut all, origin, is_trusted);
            assert_eq!(
                all["x-forwarded-proto"], expected,
                "{client} {scheme:?} {said:?}"
            );
            assert_eq!(
                is_https,
                expected == "https",
                "{client} {scheme:?} {said:?}"
            );
        }
    }

    #[test]
    fn of_several_proxies_the_first_knows_how_a_client_came() {
        for (said, expected) in [
            ("https, http", true),
            ("HTTPS,https", true),
            ("http, https", false),
            ("", false),
        ] {
            let all = headers(&[("x-forwarded-proto", said)]);
            let origin = from("192.168.1.2", Scheme::Http);
            assert_eq!(came_by_https(&all, origin, false), expected, "{said}");
        }
    }

    #[test]
    fn what_speaks_of_one_connection_stays_behind() {
        let mut all = headers(&[
            (
                "connection",
                "close, x-mine, host, Content-Length, X-Forwarded-For, x-forwarded-proto",
            ),
            ("x-mine", "1"),
            ("host", "a.b"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("x-hive-function", "other"),
            ("x-hive-probe", "1"),
            ("x-hive-revision", "other-0"),
            ("x-hive-user", "root"),
            ("x-hive-waited-us", "9000000"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("accept", "c"),
        ]);
        clean(&mut all);
        let rest = headers(&[
            ("host", "a.b"),
            ("content-length", "3"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("accept", "c"),
        ]);
        assert_eq!(all, rest);
    }

    #[test]
    fn neighbours_may_speak_for_others_and_strangers_only_for_themselves() {
        let said = [
            ("host", "a.b"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "9.9.9.9"),
            ("x-auth-request-user", "root"),
        ];
        let seen = |client: &str, is_trusted| {
            let mut all = headers(&said);
            add_origin(&mut all, from(client, Scheme::Http), is_trusted);
            let text = |name: &str| all.get(name).map(|v| v.to_str().unwrap().to_owned());
            let says_who = text("x-auth-request-user").is_some();
            assert_eq!(says_who, text("x-real-ip").is_some(), "{client}");
            (
                text("x-forwarded-for").unwrap(),
                text("x-forwarded-proto").unwrap(),
                text("x-forwarded-host").unwrap(),
                text("x-real-ip").is_some(),
            )
        };
        for neighbour in ["127.0.0.1", "192.168.1.2", "::ffff:10.0.0.1", "fd00::2"] {
            let canonical = neighbour.trim_start_matches("::ffff:");
            let chain = format!("9.9.9.9, {canonical}");
            let expected = (chain, "https".to_owned(), "a.b".to_owned(), true);
            assert_eq!(seen(neighbour, false), expected);
        }
        for stranger in ["8.8.8.8", "2001:db8::1"] {
            let expected = (
                stranger.to_owned(),
                "http".to_owned(),
                "a.b".to_owned(),
                false,
            );
            assert_eq!(seen(stranger, false), expected);
            let chain = format!("9.9.9.9, {stranger}");
            let expected = (chain, "https".to_owned(), "a.b".to_owned(), true);
            assert_eq!(seen(stranger, true), expected);
        }
    }

    #[test]
    fn cookies_come_in_one_header() {
        let cases: [(&[&str], Option<&str>); 3] = [
            (&[], None),
            (&["a=1"], Some("a=1")),
            (&["a=1", "b=2", "c=3; d=4"], Some("a=1; b=2; c=3; d=4")),
        ];
        for (said, joined) in cases {
            let mut all = HeaderMap::new();
            for said in said {
                all.append(COOKIE, said.parse().unwrap());
            }
            join_cookies(&mut all);
            let found: Vec<_> = all.get_all(COOKIE).iter().collect();
            assert_eq!(found, joined.iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_target_becomes_a_path_and_a_host() {
        let mut request = Request::get("http://a.b:8080/x?y=1").body(()).unwrap();
        to_origin_form(&mut request);
        assert_eq!(request.uri(), "/x?y=1");
        assert_eq!(request.headers()[HOST], "a.b:8080");
    }
}
