//! Who has which port, which name and which host.

#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::fixture::edit;
use crate::ingress::routes::SETTINGS;
use crate::objects;
use crate::state::{Command, Member};

/// The key of a tunnel.
fn key(name: &str) -> Key {
    Key::new(Resource::Tunnel, "default", name)
}

fn create(state: &mut State, key: Key, created: &str, extra: Value) {
    let mut body = objects::fresh(&key, json!({}), extra);
    body["metadata"]["creationTimestamp"] = json!(created);
    let body = body.into();
    state.apply(Command::Create { key, body }).unwrap();
}

fn tcp(state: &mut State, name: &str, second: u32, port: u16) {
    with_port(state, name, "TCP", second, port);
}

fn with_port(state: &mut State, name: &str, protocol: &str, second: u32, port: u16) {
    let targets = json!([{ "node": "pi", "port": 22 }]);
    let spec = json!({ "protocol": protocol, "port": port, "targets": targets });
    let created = format!("2026-01-01T00:00:{second:02}Z");
    create(state, key(name), &created, json!({ "spec": spec }));
}

fn delete(state: &mut State, name: &str) {
    let (key, expect, uid) = (key(name), None, None);
    state.apply(Command::Delete { key, expect, uid }).unwrap();
}

fn change(state: &mut State, name: &str, change: impl FnOnce(&mut Value)) {
    edit(state, &key(name), change);
}

/// `port name` of those that have one, and `name Reason` of those that do not.
fn told(table: &Table) -> String {
    let ports = table.ports.iter();
    let ports = ports.map(|(port, key)| format!("{port} {}", key.name));
    let udp = table.udp_ports.iter();
    let udp = udp.map(|(port, key)| format!("{port}/udp {}", key.name));
    let refused = table.refused.iter();
    let refused = refused.map(|(key, why)| format!("{} {}", key.name, why.reason()));
    let all: Vec<_> = ports.chain(udp).chain(refused).collect();
    all.join(", ")
}

#[test]
fn of_several_tunnels_with_one_port_the_oldest_has_it() {
    let mut state = State::default();
    let mut follower = Follower::default();
    let routes = routes::Follower::of(&state);
    let mut after = |state: &State, expected: &str| {
        // Ports are no matter of routes.
        let table = follower.follow(state, &routes);
        assert_eq!(told(&table), expected);
        assert_eq!(table, Table::of(state));
    };
    after(&state, "");
    tcp(&mut state, "young", 3, 2222);
    after(&state, "2222 young");
    // Older, and applied later: as after a restore.
    tcp(&mut state, "old", 1, 2222);
    after(&state, "2222 old, young PortConflict");
    // Of one second, the first by name.
    tcp(&mut state, "other", 1, 2222);
    after(&state, "2222 old, other PortConflict, young PortConflict");
    tcp(&mut state, "alone", 9, 2223);
    after(
        &state,
        "2222 old, 2223 alone, other PortConflict, young PortConflict",
    );
    change(&mut state, "old", |body| {
        body["spec"]["maxConnections"] = json!(7)
    });
    after(
        &state,
        "2222 old, 2223 alone, other PortConflict, young PortConflict",
    );
    change(&mut state, "old", |body| body["spec"]["port"] = json!(2223));
    after(
        &state,
        "2222 other, 2223 old, alone PortConflict, young PortConflict",
    );
    delete(&mut state, "old");
    delete(&mut state, "other");
    after(&state, "2222 young, 2223 alone");
}

#[test]
fn nothing_is_said_of_a_tunnel_of_another_namespace_that_has_the_port() {
    let mut state = State::default();
    tcp(&mut state, "database", 1, 5432);
    tcp(&mut state, "second", 2, 5432);
    let third = Key::new(Resource::Tunnel, "other", "third");
    let targets = json!([{ "node": "pi", "port": 22 }]);
    let spec = json!({ "protocol": "TCP", "port": 5432, "targets": targets });
    let created = "2026-01-01T00:00:03Z";
    create(&mut state, third.clone(), created, json!({ "spec": spec }));
    let refused = Table::of(&state).refused;
    for (key, expected) in [
        (
            key("second"),
            "port 5432 is that of tunnel default/database, which is older: choose another port",
        ),
        (
            third,
            "port 5432 belongs to namespace default: choose another port",
        ),
    ] {
        let why = &refused[&key];
        assert_eq!(why.to_string(), expected);
        assert_eq!(why.reason(), "PortConflict");
    }
}

#[test]
fn what_a_controller_listens_on_is_no_tunnel_s() {
    let mut state = State::default();
    let member = Member {
        link: "10.0.0.7:7443".into(),
        api: "[fd00::7]:6443".into(),
        ingress: "hive.example.org:8080".into(),
        ingress_tls: Some("hive.example.org:8443".into()),
    };
    state.apply(Command::AdmitController { member }).unwrap();
    for (name, port) in [
        ("a", 7443),
        ("b", 6443),
        ("c", 8080),
        ("d", 8081),
        ("e", 8443),
    ] {
        tcp(&mut state, name, 0, port);
    }
    let table = Table::of(&state);
    assert_eq!(table.tls_port, Some(8443));
    assert_eq!(
        told(&table),
        "8081 d, a PortInUse, b PortInUse, c PortInUse, e PortInUse"
    );
    let said = table.refused[&key("c")].to_string();
    assert!(
        said.contains("port 8080") && said.contains("controller 1"),
        "{said}"
    );
}

#[test]
fn ports_of_udp_are_others_than_those_of_tcp() {
    let mut state = State::default();
    let member = Member {
        link: "10.0.0.7:7443".into(),
        api: "10.0.0.7:6443".into(),
        ingress: "10.0.0.7:8080".into(),
        ingress_tls: None,
    };
    state.apply(Command::AdmitController { member }).unwrap();
    tcp(&mut state, "a-tcp", 1, 5353);
    with_port(&mut state, "b-udp", "UDP", 2, 5353);
    with_port(&mut state, "c-udp", "UDP", 3, 5353);
    // Links are of both; the API and the ingress are of TCP alone.
    with_port(&mut state, "d-udp", "UDP", 4, 7443);
    with_port(&mut state, "e-udp", "UDP", 5, 8080);
    assert_eq!(
        told(&Table::of(&state)),
        "5353 a-tcp, 5353/udp b-udp, 8080/udp e-udp, c-udp PortConflict, d-udp PortInUse"
    );
}

#[test]
fn http_tunnels_have_a_host_and_no_port() {
    let mut state = State::default();
    let time = "2026-01-01T00:00:00Z";
    let targets = json!([{ "node": "pi", "port": 80 }]);
    let spec = json!({ "targets": targets });
    create(&mut state, key("photos"), time, json!({ "spec": spec }));
    let spec = json!({ "http": { "host": "Photos.example.org" }, "targets": targets });
    create(&mut state, key("named"), time, json!({ "spec": spec }));
    let mut follower = Follower::default();
    let mut hosts = |state: &State| {
        let table = follower.follow(state, &routes::Follower::of(state));
        assert!(table.ports.is_empty() && table.refused.is_empty());
        let hosts = table.tunnels.values().map(|tunnel| tunnel.host.clone());
        hosts.collect::<Vec<_>>()
    };
    assert_eq!(
        hosts(&state),
        ["photos.example.org", "photos.default.localhost"]
    );
    let settings = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
    let data = json!({ "data": { "domain": "swarm.example" } });
    create(&mut state, settings, time, data);
    assert_eq!(
        hosts(&state),
        ["photos.example.org", "photos.default.swarm.example"]
    );
}

#[test]
fn of_several_tunnels_with_one_name_the_oldest_has_it() {
    let targets = json!([{ "node": "pi", "port": 443 }]);
    let passed =
        |names: &[&str]| json!({ "protocol": "TLS", "serverNames": names, "targets": targets });
    let tls = json!({ "secretName": "s" });
    let ended = |host: &str| json!({ "http": { "host": host }, "tls": tls, "targets": targets });
    let told = |specs: &[(&str, Value)]| {
        let mut state = State::default();
        for (second, (name, spec)) in specs.iter().enumerate() {
            let created = format!("2026-01-01T00:00:{second:02}Z");
            create(&mut state, key(name), &created, json!({ "spec": spec }));
        }
        let table = Table::of(&state);
        let names = table.names.iter().map(|(name, named)| match named {
            Named::Passed(key) => format!("{name} to {}", key.name),
            Named::Ended(all) => {
                let all: Vec<&str> = all.iter().map(|key| &*key.name).collect();
                format!("{name} here by {}", all.join("+"))
            }
        });
        let refused = table.refused.iter();
        let refused = refused.map(|(key, why)| format!("{}: {}", key.name, why.reason()));
        names.chain(refused).collect::<Vec<_>>().join(", ")
    };
    let plain = json!({ "http": { "host": "a.org" }, "targets": targets });
    for (specs, expected) in [
        (
            vec![("a", passed(&["a.org", "b.org"]))],
            "a.org to a, b.org to a",
        ),
        // As clients ask for it.
        (vec![("a", passed(&["A.Org"]))], "a.org to a"),
        (vec![("a", plain)], ""),
        (vec![("a", ended("A.org"))], "a.org here by a"),
        (
            vec![("a", json!({ "tls": tls, "targets": targets }))],
            "a.default.localhost here by a",
        ),
        // Paths of one host may be those of several, and any certificate will do.
        (
            vec![("a", ended("a.org")), ("b", ended("a.org"))],
            "a.org here by a+b",
        ),
        (
            vec![
                ("a", passed(&["a.org"])),
                ("b", passed(&["a.org", "b.org"])),
            ],
            "a.org to a, b.org to b, b: NameConflict",
        ),
        (
            vec![("a", passed(&["a.org"])), ("b", ended("a.org"))],
            "a.org to a, b: NameConflict",
        ),
        (
            vec![
                ("a", ended("a.org")),
                ("b", passed(&["a.org"])),
                ("c", ended("a.org")),
            ],
            "a.org here by a+c, b: NameConflict",
        ),
    ] {
        assert_eq!(told(&specs), expected);
    }
}

#[test]
fn a_host_of_another_namespace_is_not_passed_through() {
    let targets = json!([{ "node": "pi", "port": 443 }]);
    let hosts = json!([{ "path": "/" }, { "path": "/b", "host": "b.org" }]);
    let http = json!({ "host": "a.org", "routes": hosts });
    let tunnel = json!({ "http": http, "targets": targets });
    let function = json!({ "http": http, "artifact": { "sha256": "00" } });
    let names = ["a.org", "b.org", "c.org"];
    let passed = json!({ "protocol": "TLS", "serverNames": names, "targets": targets });
    let (t, f) = ((Resource::Tunnel, tunnel), (Resource::Function, function));
    for ((resource, plain), namespace, seconds, expected) in [
        (&t, "other", [1, 2], "c.org"),
        (&f, "other", [1, 2], "c.org"),
        (&t, "other", [2, 1], "a.org b.org c.org"),
        (&f, "other", [2, 1], "a.org b.org c.org"),
        // As for a service that also answers by HTTP.
        (&t, "default", [1, 2], "a.org b.org c.org"),
        (&f, "default", [1, 2], "a.org b.org c.org"),
    ] {
        let mut state = State::default();
        let other = Key::new(Resource::Tunnel, namespace, "passed");
        for (key, spec, second) in [
            (Key::new(*resource, "default", "plain"), plain, seconds[0]),
            (other.clone(), &passed, seconds[1]),
        ] {
            let created = format!("2026-01-01T00:00:{second:02}Z");
            create(&mut state, key, &created, json!({ "spec": spec }));
        }
        let table = Table::of(&state);
        let names: Vec<&str> = table.names.keys().map(String::as_str).collect();
        assert_eq!(names.join(" "), expected, "{namespace} {seconds:?}");
        // Routes say so.
        assert!(table.refused.is_empty());
        let lost = routes::Follower::of(&state).lost(&other);
        let is_lost = expected == "c.org";
        assert_eq!(lost.map(|it| it.reason()), is_lost.then_some("HostTaken"));
    }
}

#[test]
fn a_host_that_is_served_is_not_passed_through_as_well() {
    let targets = json!([{ "node": "pi", "port": 443 }]);
    let tls = json!({ "secretName": "s" });
    let served = json!({ "http": { "host": "a.org" }, "tls": tls, "targets": targets });
    let passed = json!({ "protocol": "TLS", "serverNames": ["a.org"], "targets": targets });
    let mut state = State::default();
    for (name, created, spec) in [
        ("served", "2026-01-01T00:00:01Z", served),
        ("passed", "2026-01-01T00:00:02Z", passed),
    ] {
        create(&mut state, key(name), created, json!({ "spec": spec }));
    }
    let table = Table::of(&state);
    assert_eq!(table.names["a.org"], Named::Ended(vec![key("served")]));
    let refused = table.refused.get(&key("passed")).map(Refused::reason);
    assert_eq!(refused, Some("NameConflict"));
}

#[test]
fn what_a_provider_brings_has_no_port_here() {
    let mut state = State::default();
    let targets = json!([{ "node": "pi", "port": 22 }]);
    let spec = json!({ "provider": "Tor", "protocol": "TCP", "port": 2222, "targets": targets });
    let created = "2026-01-01T00:00:00Z";
    create(&mut state, key("hidden"), created, json!({ "spec": spec }));
    assert_eq!(told(&Table::of(&state)), "");
    tcp(&mut state, "open", 9, 2222);
    assert_eq!(told(&Table::of(&state)), "2222 open");
}

#[test]
fn a_host_is_served_with_certificates_of_the_namespace_that_has_it() {
    let http = json!({ "host": "a.org" });
    let function = json!({ "http": http, "artifact": { "sha256": "00" } });
    let targets = json!([{ "node": "pi", "port": 80 }]);
    let plain = json!({ "http": http, "targets": targets });
    let mut served = plain.clone();
    served["tls"] = json!({ "secretName": "s" });
    let (f, p) = ((Resource::Function, &function), (Resource::Tunnel, &plain));
    let t = (Resource::Tunnel, &served);
    let mine = |kind, name| (kind, "default", name);
    let other = |kind, name| (kind, "other", name);
    // The oldest first.
    for (all, expected) in [
        (vec![mine(t, "a"), mine(t, "b")], "a b"),
        (vec![mine(t, "a"), other(t, "b"), mine(t, "c")], "a c"),
        (vec![mine(f, "a"), other(t, "b"), mine(t, "c")], "c"),
        (vec![other(t, "a"), mine(f, "b"), mine(t, "c")], "a"),
        (vec![mine(f, "a"), other(t, "b")], ""),
        (vec![mine(p, "a"), other(t, "b")], ""),
    ] {
        let mut state = State::default();
        for (second, ((resource, spec), namespace, name)) in all.into_iter().enumerate() {
            let key = Key::new(resource, namespace, name);
            let created = format!("2026-01-01T00:00:{second:02}Z");
            create(&mut state, key, &created, json!({ "spec": spec }));
        }
        let table = Table::of(&state);
        let by: Vec<&str> = match table.names.get("a.org") {
            Some(Named::Ended(by)) => by.iter().map(|key| &*key.name).collect(),
            _ => Vec::new(),
        };
        assert_eq!(by.join(" "), expected);
        assert!(table.refused.is_empty());
    }
}

#[test]
fn rules_follow_secrets_and_settings() {
    let mut state = State::default();
    let time = "2026-01-01T00:00:00Z";
    let access = json!({ "oidc": { "issuerUrl": "https://login.example", "clientId": "c", "secretName": "s",
                                   "sessionDuration": "1h" } });
    let spec = json!({ "targets": [{ "node": "pi", "port": 80 }], "access": access });
    create(&mut state, key("photos"), time, json!({ "spec": spec }));
    let mut follower = Follower::default();
    let mut after = |state: &State, expected: &str, trusted: bool| {
        let table = follower.follow(state, &routes::Follower::of(state));
        assert_eq!(table, Table::of(state));
        let access = &*table.tunnels[&key("photos")].access;
        let found = access.as_ref().map_or_else(Problem::reason, |_| "good");
        assert_eq!(found, expected);
        let proxy = "10.0.0.1".parse().unwrap();
        assert_eq!(table.proxies.forwarding.contains(proxy), trusted);
        assert_eq!(table.proxies.announcing.contains(proxy), trusted);
    };
    after(&state, "SecretNotFound", false);
    let secret = |namespace: &str, name: &str| Key::new(Resource::Secret, namespace, name);
    let data = json!({ "data": { "clientSecret": "c2VjcmV0" } });
    create(&mut state, secret("default", "s"), time, data);
    after(&state, "NoSessionKey", false);
    let data = json!({ "data": { "key": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=" } });
    let sessions = secret(SYSTEM_NAMESPACE, "tunnel-sessions");
    create(&mut state, sessions, time, data);
    after(&state, "good", false);
    let settings = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
    let networks = "192.0.2.1, nonsense,10.0.0.0/8";
    let data = json!({ "data": { "trustedProxies": networks, "proxyProtocolFrom": networks } });
    create(&mut state, settings, time, data);
    after(&state, "good", true);
}

#[test]
fn what_cannot_be_read_leads_nowhere() {
    let mut state = State::default();
    let spec = json!({ "spec": { "protocol": "LATER", "port": 2222 } });
    create(&mut state, key("later"), "2026-01-01T00:00:00Z", spec);
    assert_eq!(Table::of(&state), Table::default());
}
