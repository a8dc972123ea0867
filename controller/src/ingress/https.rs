//! What a tunnel that is served by https says to those who come without, and to browsers. Pure.

use hive_manifests::tunnel::TunnelSpec;
use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};

use super::repeat::text;
use super::routes::without_port;
use crate::challenges;
use crate::gateway::Body;

/// By which https is meant where no port is said.
const HTTPS_PORT: u16 = 443;

/// Of a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Https {
    /// Who comes by http is told to come by https, where that is possible.
    pub redirect: bool,
    /// What browsers are told.
    pub hsts: Option<HeaderValue>,
}

impl Https {
    /// `None` of a tunnel that is not served by https.
    pub fn of(spec: &TunnelSpec) -> Option<Self> {
        let tls = spec.tls.as_ref()?;
        let hsts = tls.hsts_max_age.map(|age| {
            let text = format!("max-age={}", age.0.as_secs());
            HeaderValue::from_str(&text).expect("digits are good in a header")
        });
        Some(Self {
            redirect: tls.redirect,
            hsts,
        })
    }

    /// The answer to a request that came by http, where it is to come otherwise; `port` is where TLS is taken for
    /// the host, if it is.
    pub fn elsewhere<B>(
        &self,
        host: &str,
        request: &Request<B>,
        port: Option<u16>,
    ) -> Option<Response<Body>> {
        let path = request.uri().path_and_query();
        let path = path.map_or("/", |path| path.as_str());
        if !self.redirect || path.starts_with(challenges::PATH) {
            return None;
        }
        let host = without_port(host);
        let there = match port? {
            HTTPS_PORT => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        let said = format!("308 Redirect: come by {there}\n");
        let mut response = text(StatusCode::PERMANENT_REDIRECT, said);
        let there = HeaderValue::from_str(&there).ok()?;
        response.headers_mut().insert(LOCATION, there);
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    fn of(tls: Value) -> Option<Https> {
        let spec = serde_json::from_value(json!({ "tls": tls })).unwrap();
        Https::of(&spec)
    }

    #[test]
    fn who_comes_by_http_is_told_where_https_is() {
        let plain = json!({ "redirect": false });
        for (tls, host, path, port, expected) in [
            (
                json!({}),
                "a.org",
                "/x?y=1",
                Some(443),
                "https://a.org/x?y=1",
            ),
            (
                json!({}),
                "A.org:8080",
                "/",
                Some(8443),
                "https://A.org:8443/",
            ),
            (json!({}), "a.org", "/", None, ""),
            (plain, "a.org", "/", Some(443), ""),
            (
                json!({}),
                "a.org",
                "/.well-known/acme-challenge/token",
                Some(443),
                "",
            ),
            (
                json!({}),
                "a.org",
                "/.well-known/other",
                Some(443),
                "https://a.org/.well-known/other",
            ),
        ] {
            let request = Request::get(path).body(()).unwrap();
            let told = of(tls).unwrap().elsewhere(host, &request, port);
            let there = told.map_or_else(String::new, |told| {
                assert_eq!(told.status(), 308);
                assert_eq!(told.headers()["content-type"], "text/plain; charset=utf-8");
                told.headers()[LOCATION].to_str().unwrap().to_owned()
            });
            assert_eq!(there, expected, "{host}{path}");
        }
    }

    #[test]
    fn browsers_are_told_for_how_long() {
        assert_eq!(of(Value::Null), None);
        assert_eq!(of(json!({})).unwrap().hsts, None);
        let year = of(json!({ "hstsMaxAge": "8760h" })).unwrap().hsts;
        assert_eq!(year.unwrap(), "max-age=31536000");
        let none = of(json!({ "hstsMaxAge": "0s" })).unwrap().hsts;
        assert_eq!(none.unwrap(), "max-age=0");
    }
}
