//! Paths that are written in unusual ways.

use super::*;

#[test]
fn a_path_that_could_be_read_as_another_route_s_is_not_clear() {
    let mut state = State::default();
    let routes = json!({ "host": "x.org", "routes": [{ "path": "/admin" }] });
    function(&mut state, "admin", routes);
    let pay = json!({ "path": "/pay", "pathType": "Exact", "methods": ["GET"] });
    let routes = json!({ "host": "x.org", "routes": [{ "path": "/caf%C3%A9" }, { "path": "/why%3F" }, pay] });
    function(&mut state, "shop", routes);
    function(&mut state, "site", json!({ "host": "x.org" }));
    function(&mut state, "alone", json!({ "host": "alone.org" }));
    let routes = Routes::of(&state);
    let (get, post) = (&Method::GET, &Method::POST);
    for (method, host, path, expected) in [
        (get, "x.org", "/", false),
        (get, "x.org", "/admin", false),
        (get, "x.org", "/admin/", false),
        (get, "x.org", "/administer", false),
        (get, "x.org", "/admin//x%2fy;z", false),
        (get, "x.org", "/x//y", false),
        (get, "x.org", "/x//admin", false),
        (get, "x.org", "/%78/%2561dmin", false),
        (get, "x.org", "/proxy/http://y.org/admin", false),
        (get, "x.org", "/group%2Fproject;v=1", false),
        (get, "x.org", "/caf%C3%A9/x", false),
        // Letters' case tells paths apart (RFC 3986, 6.2.2.1).
        (get, "x.org", "/Admin", false),
        (get, "x.org", "//admin", true),
        (get, "x.org", "///admin/x", true),
        (get, "X.org:8080", "//admin", true),
        (get, "x.org", "/%61dmin", true),
        (get, "x.org", "/%2Fadmin", true),
        (get, "x.org", "/admin%2fx", true),
        (get, "x.org", "/admin%5Cx", true),
        (get, "x.org", "/\\admin", true),
        (get, "x.org", "/admin;x=y", true),
        (get, "x.org", "/;x/admin", true),
        (get, "x.org", "/admin%3bx", true),
        (get, "x.org", "/caf%c3%a9", true),
        (get, "x.org", "/admin%3Fx", true),
        (get, "x.org", "/admin%23", true),
        (get, "x.org", "/pay%3fa=b", true),
        (get, "x.org", "/admin/%3Fx", false),
        (get, "x.org", "/what%3F", false),
        (get, "x.org", "/why%3F/x", false),
        (get, "x.org", "//pay", true),
        (get, "x.org", "/p%61y", true),
        // That route is not for this method.
        (post, "x.org", "//pay", false),
        (post, "x.org", "/pay%3F", false),
        // There is but one route.
        (get, "alone.org", "//admin", false),
        (get, "nobody.org", "//admin", false),
    ] {
        let found = routes.is_unclear(host, method, path);
        assert_eq!(found, expected, "{method} {host}{path}");
    }
}
