#![allow(clippy::unwrap_used)]
use hive_manifests::Resource;
use serde_json::{Value, json};

use super::*;
use crate::state::{Command, Member};

fn swarm(ingresses: &[&str]) -> State {
    let mut state = State::default();
    for ingress in ingresses {
        let member = Member {
            ingress: (*ingress).to_owned(),
            ..Member::default()
        };
        state.apply(Command::AdmitController { member }).unwrap();
    }
    state
}

fn asked(state: &State, spec: Value) -> (Ask, Vec<String>) {
    let spec: TunnelSpec = serde_json::from_value(spec).unwrap();
    ask(
        &Key::new(Resource::Tunnel, "default", "photos"),
        &spec,
        None,
        state,
    )
}

#[test]
fn what_is_served_by_tls_is_reached_at_the_port_for_it() {
    let mut state = State::default();
    for (ingress, tls) in [
        ("c.org:80", None),
        ("d.org:80", Some("d.org:443")),
        ("e.org:80", Some("e.org:8443")),
    ] {
        let member = Member {
            ingress: ingress.to_owned(),
            ingress_tls: tls.map(str::to_owned),
            ..Member::default()
        };
        state.apply(Command::AdmitController { member }).unwrap();
    }
    let tls = json!({ "secretName": "s" });
    let (ask, addresses) = asked(&state, json!({ "http": { "host": "a.org" }, "tls": tls }));
    assert_eq!(addresses, ["https://a.org/"]);
    let at: Vec<String> = ask.controllers.iter().map(Advertised::address).collect();
    assert_eq!(at, ["d.org:443", "e.org:8443"]);
    assert!(matches!(
        ask.way,
        Way::Http(Question { https: Some(_), .. })
    ));

    let passed = json!({ "protocol": "TLS", "serverNames": ["DB.org", "x.org"] });
    let (ask, addresses) = asked(&state, passed);
    assert_eq!(addresses, ["db.org:443", "x.org:443"]);
    assert_eq!(ask.way.name(), Some("db.org"));
    let nowhere = asked(&State::default(), json!({ "tls": tls }));
    assert_eq!(nowhere.0.controllers, []);
    assert!(nowhere.1.is_empty());
}

#[test]
fn an_http_tunnel_is_reached_at_its_host_and_the_port_of_the_ingress() {
    let three = swarm(&["203.0.113.7:80", "[2001:db8::8]:80", "c.example.org:80"]);
    let one = swarm(&["127.0.0.1:8080"]);
    let own = json!({ "http": { "host": "Photos.example.org", "path": "/p" } });
    let routes = json!({ "http": { "host": "a.org", "routes": [
        { "path": "/x", "methods": ["GET"] }, { "path": "/x", "methods": ["PUT"] }, { "host": "b.org" },
    ] } });
    for (state, spec, expected) in [
        (&three, &own, vec!["http://photos.example.org/p"]),
        (&one, &own, vec!["http://photos.example.org:8080/p"]),
        (
            &one,
            &json!({}),
            vec!["http://photos.default.localhost:8080/"],
        ),
        (&three, &routes, vec!["http://a.org/x", "http://b.org/"]),
    ] {
        assert_eq!(asked(state, spec.clone()).1, expected, "{spec}");
    }
}

#[test]
fn a_tcp_tunnel_is_reached_at_its_port_on_every_controller() {
    let spec = json!({ "protocol": "TCP", "port": 2222 });
    let state = swarm(&["203.0.113.7:80", "[2001:db8::8]:80", "c.example.org:80"]);
    let (ask, addresses) = asked(&state, spec.clone());
    let expected = [
        "203.0.113.7:2222",
        "[2001:db8::8]:2222",
        "c.example.org:2222",
    ];
    assert_eq!(addresses, expected);
    assert_eq!(ask.way, Way::Tcp);
    assert_eq!(
        ask.controllers[1].to_string(),
        "controller 2 at [2001:db8::8]:2222"
    );
    let (ask, addresses) = asked(&swarm(&["127.0.0.1:1", "127.0.0.1:2"]), spec);
    assert_eq!(addresses, ["127.0.0.1:2222"]);
    assert_eq!(ask.controllers.len(), 2);
}

#[test]
fn a_tunnel_that_turns_somebody_away_is_known_as_such() {
    let tcp = |access: Value| json!({ "protocol": "TCP", "port": 2222, "access": access });
    for (spec, expected) in [
        (json!({}), false),
        (json!({ "access": {} }), false),
        (
            json!({ "access": { "basicAuth": { "secretName": "s" } } }),
            true,
        ),
        (tcp(json!({ "allowedClients": ["10.0.0.0/8"] })), true),
        (
            tcp(json!({ "rateLimit": { "requestsPerSecond": 1 } })),
            true,
        ),
    ] {
        let guarded = asked(&swarm(&[]), spec.clone()).0.guarded;
        assert_eq!(guarded, expected, "{spec}");
    }
}

#[test]
fn a_udp_tunnel_is_asked_what_its_targets_are_asked() {
    let state = swarm(&["203.0.113.7:80", "c.example.org:80"]);
    for (check, expected) in [
        (json!({ "timeout": "50s" }), None),
        (
            json!({ "timeout": "50s", "payload": "cGluZw==" }),
            Some(b"ping".to_vec()),
        ),
    ] {
        let spec = json!({ "protocol": "UDP", "port": 5353, "healthCheck": check });
        let (ask, addresses) = asked(&state, spec);
        assert_eq!(addresses, ["203.0.113.7:5353", "c.example.org:5353"]);
        let way = Way::Udp {
            datagram: expected,
            patience: LONGEST_PATIENCE,
        };
        assert_eq!(ask.way, way);
    }
    // From the leader it would not be let in.
    let access = json!({ "allowedClients": ["203.0.113.0/24"] });
    let check = json!({ "payload": "cGluZw==" });
    let spec = json!({ "protocol": "UDP", "port": 5353, "healthCheck": check, "access": access });
    let way = asked(&state, spec).0.way;
    assert!(matches!(way, Way::Udp { datagram: None, .. }), "{way:?}");
}

#[test]
fn what_a_provider_brings_is_asked_of_the_controllers() {
    let state = swarm(&["203.0.113.7:80", "203.0.113.8:80"]);
    let http = json!({ "host": "photos.example.org", "path": "/p" });
    let (ask, addresses) = asked(&state, json!({ "provider": "Cloudflare", "http": http }));
    assert_eq!(addresses, ["https://photos.example.org/p"]);
    assert_eq!(ask.controllers.len(), 2);
    let Way::Brought { by, question } = ask.way else {
        panic!("{:?}", ask.way);
    };
    assert_eq!(by, Provider::Cloudflare);
    assert_eq!(question.unwrap().host, "photos.example.org");
    let ssh = json!({ "provider": "Tor", "protocol": "TCP", "port": 2222 });
    let (ask, addresses) = asked(&state, ssh);
    assert_eq!((addresses.len(), ask.controllers.len()), (0, 0));
}

#[test]
fn what_is_asked_takes_a_route_of_the_tunnel_and_does_no_harm() {
    let route = |path: &str, methods: &[&str]| json!({ "path": path, "methods": methods });
    for (http, health, expected) in [
        (json!({}), None, "GET photos.default.localhost/"),
        (
            json!({}),
            Some("/healthz?deep=1"),
            "GET photos.default.localhost/healthz?deep=1",
        ),
        (
            json!({ "path": "/p" }),
            Some("/p/healthz"),
            "GET photos.default.localhost/p/healthz",
        ),
        // It is what controllers ask, past all routes.
        (
            json!({ "path": "/p" }),
            Some("/healthz"),
            "GET photos.default.localhost/p",
        ),
        (
            json!({ "routes": [route("/a", &["POST"]), route("/b", &["GET"])] }),
            None,
            "GET photos.default.localhost/b",
        ),
        (
            json!({ "routes": [route("/a", &["POST"]), route("/b", &["HEAD"])] }),
            None,
            "HEAD photos.default.localhost/b",
        ),
        (
            json!({ "routes": [route("/a", &["POST"])] }),
            Some("/a"),
            "none photos.default.localhost/a",
        ),
    ] {
        let check = json!({ "path": health, "timeout": "50s" });
        let spec = json!({ "http": http, "healthCheck": check });
        let Way::Http(question) = asked(&swarm(&[]), spec).0.way else {
            panic!("HTTP");
        };
        let Question {
            host,
            method,
            path,
            patience,
            ..
        } = question;
        let method = method.unwrap_or("none");
        assert_eq!(
            format!("{method} {host}{path}"),
            expected,
            "{http} {health:?}"
        );
        assert_eq!(patience, LONGEST_PATIENCE);
    }
}
