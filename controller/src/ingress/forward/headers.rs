//! The headers of a request on its way through the ingress: what ends here, what is added, and what
//! a client may say of itself. Pure.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderName, VIA};
use http::{HeaderMap, HeaderValue, Request, Version};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers that speak of one connection (RFC 9110, 7.6.1), and Hive's own.
const NOT_FORWARDED: [&str; 13] = [
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
    "x-hive-waited-us",
];

/// Removes what is not to be passed on, in either direction.
pub fn clean(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        // What `Connection` lists speaks of this connection too. These two never do: a caller that
        // lists them wants a function to see another request than the one that was routed.
        let listed: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
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
/// proxy of the same owner that ends TLS: what it says stands. Strangers are not heard.
pub fn add_origin(headers: &mut HeaderMap, client: IpAddr) {
    let client = client.to_canonical();
    if !is_neighbour(client) {
        for name in [
            FORWARDED,
            FORWARDED_FOR,
            FORWARDED_HOST,
            FORWARDED_PROTO,
            REAL_IP,
        ] {
            headers.remove(name);
        }
    }
    let mut chain = String::new();
    for known in headers.get_all(FORWARDED_FOR) {
        if let Ok(known) = known.to_str() {
            chain.push_str(known);
            chain.push_str(", ");
        }
    }
    chain.push_str(&client.to_string());
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    headers
        .entry(FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static("http"));
    if let Some(host) = headers.get(HOST).cloned() {
        headers.entry(FORWARDED_HOST).or_insert(host);
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

    #[test]
    fn what_speaks_of_one_connection_stays_behind() {
        let mut all = headers(&[
            ("connection", "close, x-mine, host, Content-Length"),
            ("x-mine", "1"),
            ("host", "a.b"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("x-hive-function", "other"),
            ("x-hive-probe", "1"),
            ("x-hive-revision", "other-0"),
            ("x-hive-waited-us", "9000000"),
            ("accept", "c"),
        ]);
        clean(&mut all);
        let rest = headers(&[("host", "a.b"), ("content-length", "3"), ("accept", "c")]);
        assert_eq!(all, rest);
    }

    #[test]
    fn neighbours_may_speak_for_others_and_strangers_only_for_themselves() {
        let said = [
            ("host", "a.b"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "9.9.9.9"),
        ];
        let seen = |client: &str| {
            let mut all = headers(&said);
            add_origin(&mut all, client.parse().unwrap());
            let text = |name: &str| all.get(name).map(|v| v.to_str().unwrap().to_owned());
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
            assert_eq!(seen(neighbour), expected);
        }
        for stranger in ["8.8.8.8", "2001:db8::1"] {
            let expected = (
                stranger.to_owned(),
                "http".to_owned(),
                "a.b".to_owned(),
                false,
            );
            assert_eq!(seen(stranger), expected);
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
