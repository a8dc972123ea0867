//! Tunnels that are good, and exactly what people are told of those that are not.
#![allow(clippy::unwrap_used)]

use hive_manifests::{Resource, Tunnel, apply_defaults, validate};
use serde_json::{Value, json};

fn messages(value: &Value) -> Vec<String> {
    let errors = validate(Resource::Tunnel, value);
    errors.iter().map(ToString::to_string).collect()
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
        assert_eq!(messages(&value), [""; 0], "{value}");
        let mut complete = value;
        apply_defaults(Resource::Tunnel, &mut complete);
        assert_eq!(messages(&complete), [""; 0], "{complete}");
        let again = complete.clone();
        apply_defaults(Resource::Tunnel, &mut complete);
        assert_eq!(complete, again);
        serde_json::from_value::<Tunnel>(complete).unwrap();
    }
}

#[test]
fn tunnels_that_are_not() {
    let only_tcp = "spec.port: only with protocol TCP or UDP: with HTTP the tunnel is reached by its host; leave it out, or write protocol: TCP";
    let no_service = "spec.targets: say where the service listens: a node and a port, such as {node: pi-3, port: 3000}; or with HTTP name a function";
    let cases: &[(Value, &[&str])] = &[
        // Which protocol has what.
        (
            http(json!({"protocol": "QUIC"})),
            &["spec.protocol: \"QUIC\" is none of HTTP, TCP, TLS, UDP"],
        ),
        (
            udp(json!({"port": null})),
            &[
                "spec.port: required with protocol UDP: name the port, from 1024 to 65535, where every controller listens",
            ],
        ),
        (
            udp(json!({"http": {"host": "a.example"}})),
            &[
                "spec.http: only with protocol HTTP: a datagram names no host; leave it out, or write protocol: HTTP",
            ],
        ),
        (
            udp(json!({"proxyProtocol": "V2", "idleTimeout": "0s", "healthCheck": {"path": "/"}})),
            &[
                "spec.healthCheck.path: only with protocol HTTP: elsewhere a target is well if it takes a connection, with UDP if it answers healthCheck.payload; leave it out",
                "spec.proxyProtocol: only with protocol TCP or TLS: a datagram has no begin that tells who sends it; leave it out",
                "spec.idleTimeout: \"0s\" is not for UDP, where nobody ends a flow: say how long it may be silent, such as \"1m\"",
            ],
        ),
        (
            udp(json!({"healthCheck": {"payload": "ping!"}})),
            &[
                "spec.healthCheck.payload: is not base64: `printf ping | base64` writes the four letters of ping",
            ],
        ),
        (
            udp(json!({"healthCheck": {"payload": ""}})),
            &["spec.healthCheck.payload: 0 bytes; write 1 to 1200, which fit into one packet"],
        ),
        (
            tcp(json!({"healthCheck": {"payload": "cGluZw=="}})),
            &[
                "spec.healthCheck.payload: only with protocol UDP: leave it out; with HTTP healthCheck.path says what is asked",
            ],
        ),
        (http(json!({"port": 8080})), &[only_tcp]),
        (
            http(json!({"proxyProtocol": "V2"})),
            &[
                "spec.proxyProtocol: only with protocol TCP or TLS: with HTTP the header X-Forwarded-For says who the client is; leave it out",
            ],
        ),
        (
            http(json!({"proxyProtocol": "v2"})),
            &["spec.proxyProtocol: \"v2\" is none of None, V1, V2; did you mean \"V2\"?"],
        ),
        (
            tcp(json!({"port": null})),
            &[
                "spec.port: required with protocol TCP: name the port, from 1024 to 65535, where every controller listens",
            ],
        ),
        (
            tcp(json!({"port": 443})),
            &["spec.port: 443 is less than 1024"],
        ),
        (
            tcp(json!({"port": 65536})),
            &["spec.port: 65536 is more than 65535"],
        ),
        (
            tcp(json!({"http": {"host": "a.example"}})),
            &[
                "spec.http: only with protocol HTTP: a TCP connection names no host; leave it out, or write protocol: HTTP",
            ],
        ),
        (
            tcp(json!({"function": "hello", "targets": null})),
            &[
                "spec.function: only with protocol HTTP: functions answer requests; name targets, or write protocol: HTTP",
            ],
        ),
        (
            tcp(json!({"healthCheck": {"path": "/"}})),
            &[
                "spec.healthCheck.path: only with protocol HTTP: elsewhere a target is well if it takes a connection, with UDP if it answers healthCheck.payload; leave it out",
            ],
        ),
        // Who ends TLS.
        (
            http(json!({"serverNames": ["db.example"]})),
            &[
                "spec.serverNames: only with protocol TLS: with HTTP the host is in http.host; leave it out, or write protocol: TLS",
            ],
        ),
        (
            http(json!({"tls": {}})),
            &[
                "spec.tls.secretName: name a Secret of type kubernetes.io/tls, with tls.crt and tls.key, or write acme: true",
            ],
        ),
        (
            http(json!({"tls": {"secretName": "photos-tls", "acme": true}})),
            &[
                "spec.tls.secretName: not together with acme: true, which orders a certificate; keep one of them",
            ],
        ),
        (
            http(json!({"tls": {"secretName": "Photos"}})),
            &[
                "spec.tls.secretName: \"Photos\" is not the name of a Secret: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit",
            ],
        ),
        (
            http(json!({"tls": {"secretName": "photos-tls", "hstsMaxAge": "17521h"}})),
            &["spec.tls.hstsMaxAge: \"17521h\" is not between 0s and 17520h"],
        ),
        (
            tcp(json!({"serverNames": ["db.example"], "tls": {"secretName": "x"}})),
            &[
                "spec.serverNames: only with protocol TLS: TCP names no host; leave it out, or write protocol: TLS",
                "spec.tls: only with protocol HTTP: elsewhere the target ends TLS itself; leave it out, or write protocol: HTTP",
            ],
        ),
        (
            tls(json!({"serverNames": null})),
            &[
                "spec.serverNames: required with protocol TLS: name the hosts that clients ask for, such as [db.example.org]",
            ],
        ),
        (
            tls(json!({"serverNames": ["db.example", "db.example"]})),
            &["spec.serverNames[1]: \"db.example\" is listed twice"],
        ),
        (
            tls(json!({"port": 5432, "targetProtocol": "H2C"})),
            &[
                "spec.port: only with protocol TCP: with TLS the tunnel is reached by its serverNames at the controllers' TLS port; leave it out, or write protocol: TCP",
                "spec.targetProtocol: only with protocol HTTP: elsewhere bytes are passed on as they come; leave it out",
            ],
        ),
        (
            tls(json!({"http": {"host": "db.example"}})),
            &[
                "spec.http: only with protocol HTTP: with TLS nobody but the target reads requests; name hosts in serverNames, or write protocol: HTTP",
            ],
        ),
        (
            function(json!({"targetProtocol": "H2C"})),
            &[
                "spec.targetProtocol: not together with function, which is reached as functions are; leave it out",
            ],
        ),
        // The host and its paths are those of functions.
        (
            http(json!({"http": {"host": "https://a.example/x"}})),
            &[
                "spec.http.host: \"https://a.example/x\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"a.example\"?",
            ],
        ),
        (
            http(json!({"http": {"path": "x"}})),
            &["spec.http.path: \"x\" does not begin with '/'; did you mean \"/x\"?"],
        ),
        // What answers.
        (http(json!({"targets": null})), &[no_service]),
        (http(json!({"targets": []})), &[no_service]),
        (
            tcp(json!({"targets": "pi-3"})),
            &["spec.targets: expected a list, found text"],
        ),
        (
            http(json!({"function": "hello"})),
            &["spec.function: not together with targets; keep one of them"],
        ),
        (
            function(json!({"function": "Hello"})),
            &[
                "spec.function: \"Hello\" is not the name of a function: use lower-case letters, digits and '-', beginning and ending with a letter or digit",
            ],
        ),
        (
            function(json!({"maxConnections": 10, "idleTimeout": "1h"})),
            &[
                "spec.maxConnections: not together with function, which has limits of its own; leave it out",
            ],
        ),
        (
            function(json!({"bandwidth": "1Mi"})),
            &[
                "spec.bandwidth: not together with function, which has limits of its own; leave it out",
            ],
        ),
        (
            http(targets(17)),
            &[
                "spec.targets: 17 targets; a tunnel has at most 16: leave some out, or make a second tunnel",
            ],
        ),
        (
            http(json!({"targets": [{"node": "pi-3"}]})),
            &["spec.targets[0].port: required, but missing"],
        ),
        (
            http(json!({"targets": [{"port": 80}]})),
            &["spec.targets[0].node: required, but missing"],
        ),
        (
            http(json!({"targets": [{"node": "pi-3", "port": 0}]})),
            &["spec.targets[0].port: 0 is less than 1"],
        ),
        (
            http(json!({"targets": [{"node": "pi.lan", "port": 80}]})),
            &[
                "spec.targets[0].node: \"pi.lan\" is not the name of a node: use lower-case letters, digits and '-', beginning and ending with a letter or digit",
            ],
        ),
        (
            http(
                json!({"targets": [{"node": "a", "port": 80}, {"node": "a", "host": "127.0.0.1", "port": 80}]}),
            ),
            &["spec.targets[1]: is there twice; leave one of them out"],
        ),
        (
            http(at("0.0.0.0")),
            &[
                "spec.targets[0].host: \"0.0.0.0\" is where a service listens, and no address to reach it; did you mean \"127.0.0.1\"?",
            ],
        ),
        (
            http(at("::")),
            &[
                "spec.targets[0].host: \"::\" is where a service listens, and no address to reach it; did you mean \"::1\"?",
            ],
        ),
        (
            http(at("[fd00::20]")),
            &[
                "spec.targets[0].host: \"[fd00::20]\": here an address has no brackets around it; did you mean \"fd00::20\"?",
            ],
        ),
        (
            http(at("192.168.1.300")),
            &[
                "spec.targets[0].host: \"192.168.1.300\" is neither a name nor an address such as \"192.168.1.20\" or \"fd00::20\"",
            ],
        ),
        (
            http(at("192.168.1.20:3000")),
            &[
                "spec.targets[0].host: \"192.168.1.20:3000\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"192.168.1.20\"?",
            ],
        ),
        (
            http(at("NAS.lan")),
            &[
                "spec.targets[0].host: \"NAS.lan\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"nas.lan\"?",
            ],
        ),
        // Limits.
        (
            http(json!({"connectTimeout": "10ms"})),
            &["spec.connectTimeout: \"10ms\" is not between 100ms and 1m"],
        ),
        (
            http(json!({"connectTimeout": "5"})),
            &[
                "spec.connectTimeout: \"5\": a duration needs a unit after each number: ms, s, m or h, such as 30s",
            ],
        ),
        (
            http(json!({"idleTimeout": "500ms"})),
            &["spec.idleTimeout: \"500ms\" is not between 1s and 24h, nor \"0s\" for no limit"],
        ),
        (
            http(json!({"idleTimeout": "never"})),
            &[
                "spec.idleTimeout: \"never\": a duration is numbers with units, such as 30s, 1m30s or 250ms",
            ],
        ),
        (
            http(json!({"maxConnections": 0})),
            &["spec.maxConnections: 0 is less than 1"],
        ),
        (
            http(json!({"maxConnections": 10001})),
            &["spec.maxConnections: 10001 is more than 10000"],
        ),
        (
            http(json!({"bandwidth": "10m"})),
            &["spec.bandwidth: \"10m\" is not between 1Ki and 1Ti"],
        ),
        (
            http(json!({"healthCheck": {"interval": "10ms", "timeout": "2m"}})),
            &[
                "spec.healthCheck.interval: \"10ms\" is not between 1s and 1h",
                "spec.healthCheck.timeout: \"2m\" is not between 100ms and 1m",
            ],
        ),
        (
            http(json!({"healthCheck": {"path": "healthz"}})),
            &["spec.healthCheck.path: \"healthz\" is not a path such as \"/healthz\""],
        ),
        (
            http(json!({"healthcheck": {}})),
            &["spec.healthcheck: unknown field; did you mean \"healthCheck\"?"],
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(messages(value), *expected, "{value}");
    }
}

/// A good tunnel at Cloudflare.
fn cloudflare(changes: Value) -> Value {
    let mut spec = json!({
        "provider": "Cloudflare",
        "http": {"host": "photos.example.org"},
        "cloudflare": {"secretName": "photos-cloudflare"},
    });
    let fields = changes.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(fields);
    http(spec)
}

fn client(key: &str) -> Value {
    json!({"provider": "Tor", "tor": {"authorizedClients": [key]}})
}

#[test]
fn providers_are_told_what_they_need() {
    let account = "699d98642c564d2e855e9661899b7252";
    let key = format!("descriptor:x25519:{}", "A2".repeat(26));
    for value in [
        http(json!({"provider": "Hive"})),
        cloudflare(json!({})),
        cloudflare(json!({"http": {"routes": [{"host": "a.example.org"}]}})),
        cloudflare(json!({"cloudflare": {"secretName": "x", "accountId": account}})),
        http(json!({"provider": "Tor"})),
        tcp(json!({"provider": "Tor", "tor": {}})),
        http(client(&key)),
    ] {
        assert_eq!(messages(&value), [""; 0], "{value}");
        let mut complete = value;
        apply_defaults(Resource::Tunnel, &mut complete);
        assert_eq!(messages(&complete), [""; 0], "{complete}");
        serde_json::from_value::<Tunnel>(complete).unwrap();
    }
    let no_key = |key: &str| {
        format!(
            "spec.tor.authorizedClients[0]: \"{key}\" is not a public key such as \"descriptor:x25519:<52 letters and digits>\""
        )
    };
    let twice = json!({"provider": "Tor", "tor": {"authorizedClients": [key, key.to_lowercase()]}});
    let cases: Vec<(Value, String)> = vec![
        (
            http(json!({"provider": "Ngrok"})),
            "spec.provider: \"Ngrok\" is none of Hive, Cloudflare, Tor".into(),
        ),
        (
            http(json!({"cloudflare": {"secretName": "x"}})),
            "spec.cloudflare: only with provider Cloudflare: leave it out, or write provider: Cloudflare".into(),
        ),
        (
            cloudflare(json!({"tor": {}})),
            "spec.tor: only with provider Tor: leave it out, or write provider: Tor".into(),
        ),
        (
            cloudflare(json!({"cloudflare": null})),
            "spec.cloudflare: required with provider Cloudflare: name a Secret with the tunnel's token, such as {secretName: photos-cloudflare}".into(),
        ),
        (
            cloudflare(json!({"cloudflare": {}})),
            "spec.cloudflare.secretName: required, but missing".into(),
        ),
        (
            cloudflare(json!({"cloudflare": {"secretName": "X"}})),
            "spec.cloudflare.secretName: \"X\" is not the name of a secret: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit".into(),
        ),
        (
            cloudflare(json!({"cloudflare": {"secretName": "x", "accountId": "me"}})),
            "spec.cloudflare.accountId: \"me\" is not an account of 32 hexadecimal digits, as the address of its dashboard has it".into(),
        ),
        (
            cloudflare(json!({"http": null})),
            "spec.http.host: required with provider Cloudflare: name the host, in one of your zones there".into(),
        ),
        (http(client("A2")), no_key("A2")),
        (
            http(client("descriptor:x25519:A2")),
            no_key("descriptor:x25519:A2"),
        ),
        (
            http(twice),
            "spec.tor.authorizedClients[1]: is there twice; leave one of them out".into(),
        ),
    ];
    for (value, expected) in cases {
        assert_eq!(messages(&value), [expected], "{value}");
    }
    let tcp = tcp(json!({"provider": "Cloudflare", "cloudflare": {"secretName": "x"}}));
    assert!(
        messages(&tcp)[0].starts_with("spec.provider: Cloudflare carries requests to everybody"),
        "{:?}",
        messages(&tcp)
    );
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

#[test]
fn addresses_of_targets_are_written_as_in_a_url() {
    for (host, address) in [
        ("127.0.0.1", "127.0.0.1:80"),
        ("nas.lan", "nas.lan:80"),
        ("fd00::20", "[fd00::20]:80"),
    ] {
        let tunnel: Tunnel = serde_json::from_value(http(at(host))).unwrap();
        assert_eq!(tunnel.spec.targets[0].address(), address);
    }
}

#[test]
fn flows_of_udp_are_idle_sooner_than_connections() {
    for (mut value, expected) in [(udp(json!({})), "1m"), (tcp(json!({})), "1h")] {
        apply_defaults(Resource::Tunnel, &mut value);
        assert_eq!(value["spec"]["idleTimeout"], expected);
    }
}
