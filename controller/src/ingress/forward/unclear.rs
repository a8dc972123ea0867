//! Requests that whoever stands behind the ingress could read otherwise than it does, whatever routes there are. They
//! are refused: routes are chosen by what the ingress reads, and with them the rules about who may come. Pure.

use http::Request;
use http::header::HOST;

use super::errors::ForwardError;
use crate::ingress::plain::plain;

/// Refuses what is not clear.
pub fn refuse<B>(request: &Request<B>) -> Result<(), ForwardError> {
    if !has_one_host(request) {
        return Err(ForwardError::BadHost);
    }
    match leads_elsewhere(request.uri().path()) {
        true => Err(ForwardError::BadPath),
        false => Ok(()),
    }
}

/// A request is for one host, and says so once (RFC 9112, 3.2) or twice the same (RFC 9113, 8.3.1).
fn has_one_host<B>(request: &Request<B>) -> bool {
    let mut said = request.headers().get_all(HOST).iter();
    let (one, another) = (said.next(), said.next());
    let is_same = match (one, request.uri().authority()) {
        (Some(host), Some(authority)) => host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes()),
        _ => true,
    };
    another.is_none() && is_same
}

/// Whether a part of a path stands for itself or for the one before (RFC 3986, 5.2.4), to anybody who decodes it once;
/// browsers and programs resolve these before they ask, also where it ends to some, at an encoded `?` or `#`. Or whether it
/// ends early with a byte of zero.
fn leads_elsewhere(path: &str) -> bool {
    let path = plain(path);
    path.contains('\0')
        || path
            .split(['/', '?', '#'])
            .any(|part| matches!(part, "." | ".."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_request_is_for_one_host() {
        for (uri, hosts, expected) in [
            ("/", vec!["a.org"], true),
            ("/", vec!["a.org", "b.org"], false),
            ("/", vec!["a.org", "a.org"], false),
            ("/", vec![], true),
            ("http://a.org/", vec![], true),
            ("http://a.org:8080/", vec!["A.org:8080"], true),
            ("http://a.org/", vec!["b.org"], false),
            ("http://a.org/", vec!["a.org:8080"], false),
            ("http://a.org/", vec!["a.org", "b.org"], false),
        ] {
            let mut request = Request::get(uri);
            for host in &hosts {
                request = request.header(HOST, *host);
            }
            let request = request.body(()).unwrap();
            assert_eq!(has_one_host(&request), expected, "{uri} {hosts:?}");
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_known_however_they_are_written() {
        for (path, expected) in [
            ("/", false),
            ("/public/x", false),
            ("/.well-known/acme-challenge/x", false),
            ("/a..b/.c/..d/e..", false),
            ("/...", false),
            ("/a%2fb%2Ec", false),
            ("/a;b=../c", false),
            ("*", false),
            ("/public/../x", true),
            ("/public/./x", true),
            ("/public/..", true),
            ("/..", true),
            ("/public/..%2fx", true),
            ("/public/..%2Fx", true),
            ("/public%2f..%2fx", true),
            ("/public/%2e%2e/x", true),
            ("/public/%2E./x", true),
            ("/public/.%2e", true),
            ("/public/%2e/x", true),
            ("/public\\..\\x", true),
            ("/public/..\\x", true),
            ("/public/..%5cx", true),
            ("/public/..;/x", true),
            ("/public/..;a=b/x", true),
            ("/public/..%3bx", true),
            ("/public%00", true),
            ("/..%3fx", true),
            ("/public/..%23", true),
            ("/what%3f", false),
            // Who decodes twice is not understood by anybody.
            ("/public/%252e%252e/x", false),
        ] {
            assert_eq!(leads_elsewhere(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_clear_is_refused() {
        let refused = |uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            refuse(&request.body(()).unwrap()).err()
        };
        assert!(refused("/public", &["a.org"]).is_none());
        let two = refused("/public", &["a.org", "b.org"]);
        assert!(matches!(two, Some(ForwardError::BadHost)), "{two:?}");
        let elsewhere = refused("/public/../x", &["a.org"]);
        assert!(
            matches!(elsewhere, Some(ForwardError::BadPath)),
            "{elsewhere:?}"
        );
    }
}
