//! The route that a request takes. Pure.

use hive_proto::routes::Chosen;
use http::header::HOST;
use http::{Method, Request};

use super::errors::ForwardError;
use super::unclear;
use crate::gateway::Body;
use crate::ingress::routes::{Found, Routes};

/// The route that a request takes, and whose it is.
pub fn find<'a>(routes: &'a Routes, request: &Request<Body>) -> Result<Found<'a>, ForwardError> {
    if request.method() == Method::CONNECT {
        return Err(ForwardError::Connect);
    }
    unclear::refuse(request)?;
    let (host, method, path) = (host_of(request), request.method(), request.uri().path());
    if routes.is_unclear(host, method, path) {
        return Err(ForwardError::UnclearPath);
    }
    match routes.locate(host, method, path) {
        Chosen::One(found) => Ok(found),
        Chosen::OtherMethods(allowed) => Err(ForwardError::NoMethod { allowed }),
        Chosen::Nobody => Err(ForwardError::NoRoute {
            host: host.to_owned(),
            path: path.to_owned(),
        }),
    }
}

/// As the request says it, with the port if it says one.
pub fn host_of<B>(request: &Request<B>) -> &str {
    request
        .uri()
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| request.headers().get(HOST)?.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;
    use http::StatusCode;
    use serde_json::json;

    use super::super::errors;
    use super::*;
    use crate::fixture::declare;
    use crate::ingress::repeat::full;
    use crate::state::{Key, State};

    #[test]
    fn a_path_that_could_be_another_route_s_is_refused() {
        let mut state = State::default();
        for path in ["/", "/admin"] {
            let name = format!("at{}", path.replace('/', "-"));
            let key = Key::new(Resource::Tunnel, "default", name);
            let http = json!({ "host": "x.org", "path": path });
            let targets = json!([{ "node": "pi", "port": 80 }]);
            let spec = json!({ "spec": { "http": http, "targets": targets } });
            declare(&mut state, key, spec);
        }
        let routes = Routes::of(&state);
        for (path, expected) in [
            ("/admin", Ok("/admin")),
            ("/photos//1", Ok("/")),
            ("//admin", Err("BadPath")),
            ("/%61dmin", Err("BadPath")),
            ("/admin%3Fx", Err("BadPath")),
            ("/what%3F", Ok("/")),
            ("/admin%2f..", Err("BadPath")),
        ] {
            let request = Request::get(path).header(HOST, "x.org");
            let request = request.body(full(Vec::new())).unwrap();
            let found = find(&routes, &request).map(|found| found.route);
            let found = found.map_err(|error| {
                let refused = errors::response(&error);
                assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
                refused.headers()["x-hive-reason"]
                    .to_str()
                    .unwrap()
                    .to_owned()
            });
            let found = found.as_ref().map(|route| &**route).map_err(|it| &**it);
            assert_eq!(found, expected, "{path}");
        }
    }
}
