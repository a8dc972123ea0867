//! How a function is reached, and what it reaches.

use super::*;

#[test]
fn routes_in_and_hosts_out() {
    are_refused([
        (
            json!({"http": {"host": "https://Example.com/x"}}),
            "spec.http.host: \"https://Example.com/x\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"example.com\"?",
        ),
        (
            json!({"http": {"path": "v1"}}),
            "spec.http.path: \"v1\" does not begin with '/'; did you mean \"/v1\"?",
        ),
        (
            json!({"http": {"path": "/a/../b"}}),
            "spec.http.path: \"/a/../b\" is not the path of a URL: no spaces, '?', '#', or '..' parts",
        ),
        (
            json!({"http": {"path": "/.hive/callback"}}),
            "spec.http.path: \"/.hive/callback\" has the part \".hive\", below which tunnels let people sign in; choose another path",
        ),
        (
            json!({"http": {"routes": [{"path": "/.hivemind"}, {"path": "/a/.hive"}]}}),
            "spec.http.routes[1].path: \"/a/.hive\" has the part \".hive\", below which tunnels let people sign in; choose another path",
        ),
        (
            json!({"http": {"path": "/a", "routes": [{}]}}),
            "spec.http.path: is not there beside routes: say it as one of them",
        ),
        (
            json!({"http": {"routes": [{"methods": ["get"]}]}}),
            "spec.http.routes[0].methods[0]: \"get\" is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE; did you mean \"GET\"?",
        ),
        (
            json!({"http": {"routes": [{"path": "/"}, {"path": "v1"}]}}),
            "spec.http.routes[1].path: \"v1\" does not begin with '/'; did you mean \"/v1\"?",
        ),
        (
            json!({"allowedHosts": ["a.example:0"]}),
            "spec.allowedHosts[0]: \"a.example:0\": a port is a number from 1 to 65535, or \"*\" for every port",
        ),
        (
            json!({"allowedHosts": ["a.example:+80"]}),
            "spec.allowedHosts[0]: \"a.example:+80\": a port is a number from 1 to 65535, or \"*\" for every port",
        ),
        (
            json!({"allowedHosts": ["10.1.2.3/8:80"]}),
            "spec.allowedHosts[0]: \"10.1.2.3/8:80\": the network begins at 10.0.0.0; did you mean \"10.0.0.0/8:80\"?",
        ),
        (
            json!({"allowedHosts": ["10.0.0.0/33"]}),
            "spec.allowedHosts[0]: \"10.0.0.0/33\": a network is written like \"10.0.0.0/8\" or \"[fd00::/8]\"",
        ),
        (
            json!({"allowedHosts": ["[10.0.0.1]"]}),
            "spec.allowedHosts[0]: \"[10.0.0.1]\": a network is written like \"10.0.0.0/8\" or \"[fd00::/8]\"",
        ),
        (
            json!({"allowedHosts": ["fd00::1"]}),
            "spec.allowedHosts[0]: \"fd00::1\": an IPv6 address has brackets around it; did you mean \"[fd00::1]\"?",
        ),
        (
            json!({"allowedHosts": ["a", "a"]}),
            "spec.allowedHosts[1]: \"a\" is listed twice",
        ),
        (
            json!({"allowedHosts": ["http://a.example"]}),
            "spec.allowedHosts[0]: \"http://a.example\" is not a host name: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit; did you mean \"a.example\"?",
        ),
        (
            json!({"egress": {"idleTimeout": "1h"}}),
            "spec.egress.idleTimeout: \"1h\" is not between 10ms and 15m",
        ),
        (
            json!({"egress": {"maxConnections": 0}}),
            "spec.egress.maxConnections: 0 is less than 1",
        ),
    ]);
}
