//! Where a tunnel is reached and what answers there, within which limits.

use super::*;

#[test]
fn hosts_and_paths_are_those_of_functions() {
    let cases: &[(Value, &[&str])] = &[
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
    ];
    are_refused(cases);
}

#[test]
fn one_thing_answers() {
    let no_service = "spec.targets: say where the service listens: a node and a port, such as {node: pi-3, port: 3000}; or with HTTP name a function";
    let cases: &[(Value, &[&str])] = &[
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
    ];
    are_refused(cases);
}

#[test]
fn what_a_tunnel_takes_is_bounded() {
    let cases: &[(Value, &[&str])] = &[
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
    are_refused(cases);
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
