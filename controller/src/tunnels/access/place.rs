//! Where a tunnel is, as a browser sees it: its own paths, and what may be a browser. Pure.

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Request};

/// Below the path of the route: where browsers come back to.
const CALLBACK: &str = "/.hive/callback";
/// Where people sign out.
const LOGOUT: &str = "/.hive/logout";

/// Where the tunnel is, as the browser sees it.
pub struct Place<'a> {
    /// `https://photos.example.org:8443`
    origin: String,
    /// Of the route; empty or `/photos`.
    pub base: &'a str,
    pub secure: bool,
}

/// What a request to one of the tunnel's own paths wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Callback,
    Logout,
}

impl<'a> Place<'a> {
    /// Of a request whose headers say whom it came from, and how.
    pub fn of<B>(request: &Request<B>, route: &'a str) -> Self {
        let headers = request.headers();
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let secure = text("x-forwarded-proto").is_some_and(|it| it.eq_ignore_ascii_case("https"));
        let scheme = if secure { "https" } else { "http" };
        let host = text(HOST.as_str()).unwrap_or_default();
        Self {
            origin: format!("{scheme}://{host}"),
            base: route.trim_end_matches('/'),
            secure,
        }
    }

    pub fn part(&self, path: &str) -> Option<Part> {
        match path.strip_prefix(self.base)? {
            CALLBACK => Some(Part::Callback),
            LOGOUT => Some(Part::Logout),
            _ => None,
        }
    }

    /// Whether who comes here wants what is done here: not if another site sent the browser (Fetch Metadata). One that
    /// does not say so, as without TLS, has to send a form of this place.
    pub fn is_meant(&self, method: &Method, headers: &HeaderMap) -> bool {
        match headers.get("sec-fetch-site") {
            Some(site) => site == "same-origin" || site == "none",
            None => {
                let is_own = |origin: &HeaderValue| *origin == self.origin;
                method == Method::POST && headers.get(ORIGIN).is_none_or(is_own)
            }
        }
    }

    pub fn callback(&self) -> String {
        format!("{}{}{CALLBACK}", self.origin, self.base)
    }

    /// Whatever the path is, such as `//elsewhere.example`, it is one of this host.
    pub fn back(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

/// Whether a person waits for a page, as far as a browser says: what a script asks for cannot follow to the issuer.
pub fn is_navigation<B>(request: &Request<B>) -> bool {
    let text = |name: &str| {
        let value = request.headers().get(name)?;
        value.to_str().ok()
    };
    let goes_there = match text("sec-fetch-mode") {
        Some(mode) => mode == "navigate",
        None => text("accept").is_some_and(|it| it.contains("text/html")),
    };
    matches!(*request.method(), Method::GET | Method::HEAD) && goes_there
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::get("/").body(()).unwrap();
        for &(name, value) in headers {
            let value = HeaderValue::from_static(value);
            request.headers_mut().insert(name, value);
        }
        request
    }

    #[test]
    fn a_tunnel_s_own_paths_lie_below_its_route() {
        let host = request(&[
            ("host", "photos.example:8080"),
            ("x-forwarded-proto", "https"),
        ]);
        for (route, path, expected) in [
            ("/", "/.hive/callback", Some(Part::Callback)),
            ("/", "/.hive/logout", Some(Part::Logout)),
            ("/", "/.hive/callback/", None),
            ("/", "/x/.hive/callback", None),
            ("/photos", "/photos/.hive/callback", Some(Part::Callback)),
            ("/photos/", "/photos/.hive/logout", Some(Part::Logout)),
            ("/photos", "/.hive/callback", None),
            ("/photos", "/photos/", None),
        ] {
            assert_eq!(
                Place::of(&host, route).part(path),
                expected,
                "{route} {path}"
            );
        }
        let place = Place::of(&host, "/photos");
        assert_eq!(
            place.callback(),
            "https://photos.example:8080/photos/.hive/callback"
        );
        // The host stays, whatever a path looks like.
        for (path, expected) in [
            ("/a?b=c", "https://photos.example:8080/a?b=c"),
            (
                "//evil.example/x",
                "https://photos.example:8080//evil.example/x",
            ),
        ] {
            assert_eq!(place.back(path), expected);
            assert_eq!(
                url::Url::parse(expected).unwrap().host_str(),
                Some("photos.example")
            );
        }
        assert!(!Place::of(&request(&[("host", "a")]), "/").secure);
    }

    #[test]
    fn another_site_s_wish_is_nobody_s() {
        let (own, other) = ("http://photos.example", "http://evil.example");
        for (method, said, expected) in [
            (Method::GET, vec![("sec-fetch-site", "none")], true),
            (Method::GET, vec![("sec-fetch-site", "same-origin")], true),
            (Method::GET, vec![("sec-fetch-site", "same-site")], false),
            (Method::GET, vec![("sec-fetch-site", "cross-site")], false),
            (Method::POST, vec![("sec-fetch-site", "cross-site")], false),
            (Method::GET, vec![], false),
            (Method::GET, vec![("origin", own)], false),
            (Method::POST, vec![], true),
            (Method::POST, vec![("origin", own)], true),
            (Method::POST, vec![("origin", other)], false),
            (Method::POST, vec![("origin", "null")], false),
        ] {
            let host = [("host", "photos.example")];
            let request = request(&[&host[..], &said[..]].concat());
            let found = Place::of(&request, "/").is_meant(&method, request.headers());
            assert_eq!(found, expected, "{method} {said:?}");
        }
    }

    #[test]
    fn only_who_waits_for_a_page_is_sent_away() {
        for (headers, expected) in [
            (vec![], false),
            (vec![("accept", "*/*")], false),
            (vec![("accept", "text/html,*/*")], true),
            (
                vec![("accept", "text/html"), ("sec-fetch-mode", "cors")],
                false,
            ),
            (
                vec![("accept", "*/*"), ("sec-fetch-mode", "navigate")],
                true,
            ),
        ] {
            let mut request = request(&headers);
            assert_eq!(is_navigation(&request), expected, "{headers:?}");
            *request.method_mut() = Method::POST;
            assert!(!is_navigation(&request));
        }
    }
}
