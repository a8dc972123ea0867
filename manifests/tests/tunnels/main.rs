//! Tunnels that are good, and exactly what people are told of those that are not.
#![allow(clippy::unwrap_used)]

mod access;
mod protocols;
mod providers;
mod targets;

use hive_manifests::{Resource, Tunnel, apply_defaults, validate};
use serde_json::{Value, json};

fn messages(value: &Value) -> Vec<String> {
    let errors = validate(Resource::Tunnel, value);
    errors.iter().map(ToString::to_string).collect()
}

/// As it is written out: fails if anything is wrong with it, before or after.
#[track_caller]
fn completed(value: Value) -> Value {
    assert_eq!(messages(&value), [""; 0], "{value}");
    let mut complete = value;
    apply_defaults(Resource::Tunnel, &mut complete);
    assert_eq!(messages(&complete), [""; 0], "{complete}");
    let mut again = complete.clone();
    apply_defaults(Resource::Tunnel, &mut again);
    assert_eq!(complete, again);
    serde_json::from_value::<Tunnel>(complete.clone()).unwrap();
    complete
}

/// Fails unless all that is said of each is what stands beside it.
#[track_caller]
fn are_refused(cases: &[(Value, &[&str])]) {
    for (value, expected) in cases {
        assert_eq!(messages(value), *expected, "{value}");
    }
}

/// A good tunnel whose spec has `changes` merged into it; null takes a field away.
fn tunnel(base: Value, changes: &Value) -> Value {
    let mut value = json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Tunnel",
        "metadata": {"name": "photos"},
        "spec": base,
    });
    let spec = value["spec"].as_object_mut().unwrap();
    for (name, change) in changes.as_object().unwrap() {
        spec.insert(name.clone(), change.clone());
    }
    value
}

fn http(changes: Value) -> Value {
    tunnel(
        json!({"targets": [{"node": "pi-3", "port": 3000}]}),
        &changes,
    )
}

fn tcp(changes: Value) -> Value {
    tunnel(
        json!({"protocol": "TCP", "port": 2222, "targets": [{"node": "pi-3", "port": 22}]}),
        &changes,
    )
}

fn tls(changes: Value) -> Value {
    tunnel(
        json!({"protocol": "TLS", "serverNames": ["db.example"], "targets": [{"node": "pi-3", "port": 5432}]}),
        &changes,
    )
}

fn udp(changes: Value) -> Value {
    tunnel(
        json!({"protocol": "UDP", "port": 5353, "targets": [{"node": "pi-3", "port": 53}]}),
        &changes,
    )
}

fn function(changes: Value) -> Value {
    tunnel(json!({"function": "hello"}), &changes)
}

/// One target, which the node reaches there.
fn at(host: &str) -> Value {
    json!({"targets": [{"node": "pi-3", "host": host, "port": 80}]})
}

fn targets(count: usize) -> Value {
    let targets = (1..=count).map(|port| json!({"node": "pi-3", "port": port}));
    json!({"targets": targets.collect::<Vec<_>>()})
}

#[test]
fn tunnels_that_are_good() {
    for value in [
        http(json!({})),
        http(json!({"protocol": null, "http": null, "function": null, "bandwidth": null})),
        http(json!({"http": {"host": "photos.example.org", "path": "/v1"}})),
        http(
            json!({"http": {"routes": [{"host": "a.example"}, {"path": "/x", "methods": ["GET"]}]}}),
        ),
        http(json!({"proxyProtocol": "None"})),
        http(json!({"tls": {"acme": true}})),
        http(
            json!({"healthCheck": {"interval": "1s", "timeout": "100ms", "path": "/healthz?full=1"}}),
        ),
        http(json!({"healthCheck": {"interval": "1h", "timeout": "1m"}})),
        http(json!({"connectTimeout": "100ms", "idleTimeout": "1s", "maxConnections": 1})),
        http(json!({"connectTimeout": "60s", "idleTimeout": "24h", "maxConnections": 10000})),
        http(json!({"idleTimeout": "0s", "bandwidth": "1Ki"})),
        http(json!({"bandwidth": 1_000_000})),
        http(at("127.0.0.1")),
        http(at("192.168.1.20")),
        http(at("fd00::20")),
        http(at("localhost")),
        http(at("nas.lan")),
        http(targets(16)),
        // The same machine from two nodes, and two ports of it.
        http(json!({"targets": [
            {"node": "a", "host": "nas.lan", "port": 80}, {"node": "b", "host": "nas.lan", "port": 80},
            {"node": "b", "host": "nas.lan", "port": 81}]})),
        tcp(json!({})),
        tcp(json!({"port": 1024})),
        tcp(json!({"port": 65535, "proxyProtocol": "V1"})),
        tcp(json!({"proxyProtocol": "V2", "healthCheck": {"interval": "30s"}})),
        // As it was written out while the tunnel was one of HTTP.
        tcp(json!({"http": {"path": "/"}})),
        http(json!({"tls": {"secretName": "photos-tls"}})),
        http(
            json!({"tls": {"secretName": "photos.tls", "redirect": false, "hstsMaxAge": "17520h"}}),
        ),
        http(json!({"tls": {"secretName": "photos-tls", "hstsMaxAge": "0s"}})),
        http(json!({"targetProtocol": "H2C", "tls": null})),
        tls(json!({})),
        tls(
            json!({"serverNames": ["a.example", "b.example"], "proxyProtocol": "V2", "http": {"path": "/"}}),
        ),
        tls(json!({"targetProtocol": "HTTP1"})),
        function(json!({"tls": {"secretName": "hello-tls"}, "targetProtocol": "HTTP1"})),
        udp(json!({})),
        udp(json!({"idleTimeout": "10s", "bandwidth": "1Mi", "maxConnections": 5})),
        udp(json!({"healthCheck": {"payload": "cGluZw=="}})),
        // As it was written out while the tunnel was one of HTTP.
        udp(json!({"http": {"path": "/"}, "proxyProtocol": "None", "idleTimeout": "1h"})),
        function(json!({})),
        function(json!({"http": {"host": "hello.example"}, "healthCheck": {"path": "/"}})),
        // As it was written out while it had targets.
        function(json!({"connectTimeout": "5s", "idleTimeout": "1h", "maxConnections": 1000})),
    ] {
        completed(value);
    }
}

#[test]
fn a_tunnel_is_named_as_a_part_of_a_host() {
    let mut value = http(json!({}));
    value["metadata"]["name"] = "photos.old".into();
    assert_eq!(
        messages(&value),
        [
            "metadata.name: \"photos.old\" is not a name: use lower-case letters, digits and '-', beginning and ending with a letter or digit"
        ]
    );
}
