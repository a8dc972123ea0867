//! What a tunnel has by its protocol, and who ends TLS.

use super::*;

#[test]
fn each_protocol_has_its_own_fields() {
    let only_tcp = "spec.port: only with protocol TCP or UDP: with HTTP the tunnel is reached by its host; leave it out, or write protocol: TCP";
    let cases: &[(Value, &[&str])] = &[
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
    ];
    are_refused(cases);
}

#[test]
fn tls_ends_at_one_place() {
    let cases: &[(Value, &[&str])] = &[
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
    ];
    are_refused(cases);
}

#[test]
fn flows_of_udp_are_idle_sooner_than_connections() {
    for (mut value, expected) in [(udp(json!({})), "1m"), (tcp(json!({})), "1h")] {
        apply_defaults(Resource::Tunnel, &mut value);
        assert_eq!(value["spec"]["idleTimeout"], expected);
    }
}
