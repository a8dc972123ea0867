//! Whose a host is when several namespaces claim it.

use super::*;
use crate::fixture::{self, made_in};

/// Which kind, in which namespace, with which name.
type Named<'a> = (Resource, &'a str, &'a str);

fn key((resource, namespace, name): Named<'_>) -> Key {
    Key::new(resource, namespace, name)
}

fn made(state: &mut State, what: Named<'_>, year: u16, spec: Value) {
    let body = made_in(year, &key(what), json!({ "spec": spec }));
    fixture::put(state, key(what), &body);
}

fn function_at(state: &mut State, namespace: &str, name: &str, year: u16, http: Value) {
    let spec = json!({ "artifact": { "sha256": "00" }, "http": http });
    made(state, (Resource::Function, namespace, name), year, spec);
}

fn delete(state: &mut State, what: Named<'_>) {
    let (key, uid, expect) = (key(what), None, None);
    state.apply(Command::Delete { key, uid, expect }).unwrap();
}

/// The namespace of what answers.
fn namespace_at<'a>(routes: &'a Routes, host: &str, method: &Method, path: &str) -> &'a str {
    match routes.find(host, method, path) {
        Chosen::One((_, Backend::Function(it))) => &it.key.namespace,
        Chosen::One((_, Backend::Tunnel(it) | Backend::Exposed(it, _))) => &it.namespace,
        _ => "nobody",
    }
}

#[test]
fn no_route_of_another_namespace_is_answered_however_narrow_it_is() {
    let mut state = State::default();
    function_at(&mut state, "own", "site", 2020, json!({ "host": "x.org" }));
    let narrow = json!({ "host": "X.org", "routes": [
        { "path": "/", "methods": ["POST"] },
        { "path": "/admin" },
        { "path": "/pay", "pathType": "Exact" },
        { "path": "/.well-known/acme-challenge/token" },
        { "host": "y.org" },
    ] });
    function_at(&mut state, "other", "narrow", 2021, narrow);
    // Younger than what the others claim.
    let late = json!({ "host": "x.org", "path": "/late" });
    function_at(&mut state, "own", "late", 2022, late);
    let mut follower = Follower::of(&state);
    let routes = follower.routes();
    let (get, post) = (&Method::GET, &Method::POST);
    for (method, host, path, expected) in [
        (post, "x.org", "/", "own"),
        (get, "x.org", "/admin", "own"),
        (get, "x.org", "/pay", "own"),
        (get, "x.org", "/late", "own"),
        (get, "x.org", "/.well-known/acme-challenge/token", "own"),
        (get, "y.org", "/", "other"),
    ] {
        let found = namespace_at(&routes, host, method, path);
        assert_eq!(found, expected, "{method} {host}{path}");
    }
    let (site, narrow) = (
        (Resource::Function, "own", "site"),
        (Resource::Function, "other", "narrow"),
    );
    assert_eq!(follower.lost(&key(site)), None);
    let lost = follower.lost(&key(narrow)).unwrap();
    assert_eq!(lost.reason(), "HostTaken");
    // Nothing of what is in the other namespace.
    let why = "host x.org belongs to namespace own: ask for a route there, or choose another host";
    assert_eq!(lost.to_string(), why);

    // The host goes to the next one, with all that is claimed there.
    delete(&mut state, site);
    assert!(follower.follow(&state));
    let routes = follower.routes();
    assert_eq!(namespace_at(&routes, "x.org", post, "/"), "other");
    assert_eq!(namespace_at(&routes, "x.org", get, "/late"), "nobody");
    assert_eq!(follower.lost(&key(narrow)), None);
    let late = key((Resource::Function, "own", "late"));
    assert_eq!(follower.lost(&late).unwrap().reason(), "HostTaken");
}

#[test]
fn a_host_belongs_to_the_namespace_that_claimed_it_first_by_whatever_kind() {
    let http = json!({ "host": "X.org" });
    let targets = json!([{ "node": "pi", "port": 443 }]);
    let function = json!({ "artifact": { "sha256": "00" }, "http": http });
    let tunnel = json!({ "http": http, "targets": targets });
    let passed = json!({ "protocol": "TLS", "serverNames": ["X.org"], "targets": targets });
    let (f, t) = ((Resource::Function, function), (Resource::Tunnel, tunnel));
    let p = (Resource::Tunnel, passed);
    // The first is the older one.
    for (first, second, answered) in [
        (&f, &t, "one"),
        (&t, &f, "one"),
        (&f, &f, "one"),
        (&t, &t, "one"),
        (&f, &p, "one"),
        // What is passed through has no routes, and nobody else has any there.
        (&p, &f, "nobody"),
        (&p, &t, "nobody"),
        (&p, &p, "nobody"),
    ] {
        // In the order of the names it is the other way round.
        for [one, two] in [["one", "two"], ["two", "one"]] {
            let mut state = State::default();
            let (older, younger) = ((first.0, one, "x"), (second.0, two, "x"));
            // As after a restore: what is older comes later.
            made(&mut state, younger, 2021, second.1.clone());
            let mut follower = Follower::of(&state);
            assert_eq!(follower.lost(&key(younger)), None);
            made(&mut state, older, 2020, first.1.clone());
            assert!(follower.follow(&state));
            let routes = follower.routes();
            assert_eq!(routes, Routes::of(&state));
            let expected = if answered == "one" { one } else { answered };
            let found = namespace_at(&routes, "x.org", &Method::GET, "/");
            assert_eq!(found, expected, "{older:?} {younger:?}");
            assert_eq!(follower.lost(&key(older)), None);
            let lost = follower.lost(&key(younger)).map(|lost| lost.reason());
            assert_eq!(lost, Some("HostTaken"), "{older:?} {younger:?}");
            delete(&mut state, older);
            assert!(follower.follow(&state));
            assert_eq!(follower.lost(&key(younger)), None);
        }
    }
}

#[test]
fn hosts_that_have_a_namespace_in_their_name_are_for_nobody_else() {
    let mut state = State::default();
    let host = |host: &str| json!({ "host": host });
    // Before anything is there.
    let squatter = (Resource::Function, "other", "squatter");
    function_at(
        &mut state,
        "other",
        "squatter",
        2020,
        host("site.own.localhost"),
    );
    let mut follower = Follower::of(&state);
    let lost = |follower: &Follower| follower.lost(&key(squatter)).map(|lost| lost.reason());
    let found = |follower: &Follower| {
        let routes = follower.routes();
        namespace_at(&routes, "site.own.localhost", &Method::GET, "/").to_owned()
    };
    assert_eq!(
        (found(&follower), lost(&follower)),
        ("nobody".into(), Some("HostTaken"))
    );
    function_at(&mut state, "own", "site", 2021, json!({}));
    assert!(follower.follow(&state));
    assert_eq!(
        (found(&follower), lost(&follower)),
        ("own".into(), Some("HostTaken"))
    );
    // Under another domain it is a host as any other.
    let settings = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
    let data = json!({ "data": { "domain": "swarm.example" } });
    declare(&mut state, settings, data);
    assert!(follower.follow(&state));
    assert_eq!((found(&follower), lost(&follower)), ("other".into(), None));
}

#[test]
fn the_domain_of_the_swarm_is_taken_by_who_begins_to_claim_it() {
    let function = |host: &str| {
        let http = json!({ "host": host });
        json!({ "artifact": { "sha256": "00" }, "http": http })
    };
    let targets = json!([{ "node": "pi", "port": 443 }]);
    let by_name = json!({ "protocol": "TLS", "serverNames": ["localhost"], "targets": targets });
    let (free, own) = (function("x.org"), function("LocalHost"));
    let narrow = json!({ "artifact": { "sha256": "00" }, "http": { "routes": [
        { "path": "/" }, { "host": "localhost", "path": "/a" },
    ] } });
    let below = function("it.own.localhost");
    let mut state = State::default();
    let nobodys = Routes::of(&state);
    function_at(&mut state, "own", "site", 2021, own["http"].clone());
    let held = Routes::of(&state);
    let (f, t) = (Resource::Function, Resource::Tunnel);
    for (routes, resource, namespace, before, after, takes) in [
        (&nobodys, f, "own", None, &own, true),
        (&nobodys, f, "own", None, &narrow, true),
        (&nobodys, t, "own", None, &by_name, true),
        (&nobodys, f, "own", Some(&free), &own, true),
        (&nobodys, f, "own", Some(&own), &narrow, false),
        (&nobodys, f, "own", None, &free, false),
        (&nobodys, f, "own", None, &below, false),
        // It is the namespace's already.
        (&held, f, "own", None, &narrow, false),
        (&held, f, "other", None, &narrow, true),
    ] {
        let key = Key::new(resource, namespace, "it");
        let declared = |spec: &Value| objects::fresh(&key, json!({}), json!({ "spec": spec }));
        let before = before.map(declared);
        let found = routes.takes_domain(&key, before.as_ref(), &declared(after));
        let expected = takes.then_some("localhost");
        assert_eq!(found, expected, "{namespace} {before:?} {after}");
    }
}

#[test]
fn no_change_of_what_is_older_takes_a_host_from_another_namespace() {
    let mut state = State::default();
    function_at(&mut state, "own", "site", 2021, json!({ "host": "x.org" }));
    function_at(&mut state, "own", "plain", 2021, json!({}));
    let routes = Routes::of(&state);
    let (f, t) = (Resource::Function, Resource::Tunnel);
    let function = |http: Value| json!({ "artifact": { "sha256": "00" }, "http": http });
    let targets = json!([{ "node": "pi", "port": 443 }]);
    let old = function(json!({ "host": "old.org" }));
    let new = function(json!({ "host": "X.org" }));
    let free = function(json!({ "host": "free.org" }));
    let narrow =
        function(json!({ "routes": [{ "path": "/" }, { "host": "x.org", "path": "/a" }] }));
    let at_home = function(json!({ "host": "plain.own.localhost" }));
    let by_port = json!({ "protocol": "TCP", "port": 7000, "targets": targets });
    let by_name = json!({ "protocol": "TLS", "serverNames": ["X.org"], "targets": targets });
    for (resource, namespace, year, before, after, takes) in [
        (f, "other", 2020, &old, &new, true),
        (f, "other", 2020, &old, &narrow, true),
        (t, "other", 2020, &by_port, &by_name, true),
        // It comes after who has the host, as if it was made anew.
        (f, "other", 2022, &old, &new, false),
        (f, "own", 2020, &old, &new, false),
        (f, "other", 2020, &old, &free, false),
        // It claimed that before.
        (f, "other", 2020, &new, &narrow, false),
        // Claimed in vain, whatever is older.
        (f, "other", 2020, &old, &at_home, false),
    ] {
        let key = Key::new(resource, namespace, "it");
        let declared = |spec: &Value| made_in(year, &key, json!({ "spec": spec }));
        let lost = routes.taken_by_change(&key, &declared(before), &declared(after));
        let reason = lost.map(|lost| lost.reason());
        assert_eq!(reason, takes.then_some("HostTaken"), "{year} {after}");
    }
}
