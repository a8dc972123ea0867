//! Who may use a tunnel: rules that are good, and exactly what people are told of those that are not.

use hive_manifests::Tunnel;
use serde_json::{Value, json};

use super::{completed, messages};

fn tunnel(mut spec: Value, access: Value) -> Value {
    spec["access"] = access;
    spec["targets"] = json!([{"node": "pi-3", "port": 3000}]);
    json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Tunnel",
        "metadata": {"name": "photos"},
        "spec": spec,
    })
}

fn http(access: Value) -> Value {
    tunnel(json!({}), access)
}

fn tcp(access: Value) -> Value {
    tunnel(json!({"protocol": "TCP", "port": 2222}), access)
}

fn bearer(changes: Value) -> Value {
    let mut bearer = json!({"issuerUrl": "https://login.example.org/realm", "audience": "photos"});
    merge(&mut bearer, changes);
    json!({"bearer": bearer})
}

fn oidc(changes: Value) -> Value {
    let mut login = json!({"issuerUrl": "https://login.example.org", "clientId": "photos"});
    merge(&mut login, changes);
    json!({"oidc": login})
}

fn merge(fields: &mut Value, changes: Value) {
    for (name, change) in changes.as_object().unwrap() {
        fields[name] = change.clone();
    }
}

#[test]
fn rules_that_are_good() {
    let all = json!({
        "allowedClients": ["203.0.113.0/24", "2001:db8::/32", "198.51.100.7", "0.0.0.0/0"],
        "rateLimit": {"requestsPerSecond": 10, "burst": 20},
        "basicAuth": {"secretName": "photos-users", "forward": true},
        "bearer": {"issuerUrl": "https://login.example.org:8443/realm/", "audience": "photos", "groupsClaim": "cognito:groups"},
        "oidc": {
            "issuerUrl": "https://login.example.org", "clientId": "photos", "secretName": "photos-client",
            "scopes": ["email", "groups"], "sessionDuration": "5m",
            "allow": {"emails": ["ada@example.org"], "domains": ["Example.org"], "groups": ["/makers"]},
        },
    });
    let routes = |routes: Value| tunnel(json!({"http": {"routes": routes}}), oidc(json!({})));
    for value in [
        http(Value::Null),
        http(json!({})),
        http(all),
        http(json!({"rateLimit": {"requestsPerSecond": 1}})),
        http(oidc(json!({"sessionDuration": "720h"}))),
        tcp(json!({"allowedClients": ["10.0.0.0/8"], "rateLimit": {"requestsPerSecond": 100_000}})),
        routes(json!([{"path": "/a"}, {"path": "/b", "methods": ["POST", "GET"]}])),
    ] {
        let complete = completed(value);
        let tunnel: Tunnel = serde_json::from_value(complete.clone()).unwrap();
        if !complete["spec"]["access"].is_null() {
            assert_eq!(json!(tunnel.spec.access), complete["spec"]["access"]);
        }
    }
    let login = completed(http(oidc(json!({}))));
    assert_eq!(login["spec"]["access"]["oidc"]["sessionDuration"], "12h");
}

#[test]
fn rules_that_are_not() {
    let only_http = "only with protocol HTTP: other connections do not say who they are; leave it out, or let the service ask";
    let no_issuer = |url: &str| {
        format!(
            "{url:?} is no issuer: write its https URL without query and fragment, such as \"https://login.example.org/realm\""
        )
    };
    let clients = |client: &str| http(json!({"allowedClients": [client]}));
    let routes = |route: Value| tunnel(json!({"http": {"routes": [route]}}), oidc(json!({})));
    let back = "spec.access.oidc: not together with routes of pathType Exact, or without the method GET: browsers come back from the issuer to a path below the route; change spec.http.routes";
    let cases = [
        (
            clients("203.0.113.7/24"),
            "spec.access.allowedClients[0]: \"203.0.113.7/24\": the network begins at 203.0.113.0; did you mean \"203.0.113.0/24\"?".to_owned(),
        ),
        (
            clients("example.org"),
            "spec.access.allowedClients[0]: \"example.org\" is no network: write one such as \"203.0.113.0/24\" or \"2001:db8::/32\", or a single address".to_owned(),
        ),
        (
            http(json!({"allowedClients": ["10.0.0.1", "10.0.0.1"]})),
            "spec.access.allowedClients[1]: is there twice; leave one of them out".to_owned(),
        ),
        (
            http(json!({"rateLimit": {"requestsPerSecond": 0}})),
            "spec.access.rateLimit.requestsPerSecond: 0 is less than 1".to_owned(),
        ),
        (
            http(json!({"basicAuth": {"secretName": "Users"}})),
            "spec.access.basicAuth.secretName: \"Users\" is not the name of a Secret: use lower-case letters, digits, '-' and '.', every part beginning and ending with a letter or digit".to_owned(),
        ),
        (
            tcp(json!({"basicAuth": {"secretName": "users"}})),
            format!("spec.access.basicAuth: {only_http}"),
        ),
        (tcp(bearer(json!({}))), format!("spec.access.bearer: {only_http}")),
        (tcp(oidc(json!({}))), format!("spec.access.oidc: {only_http}")),
        (
            http(bearer(json!({"issuerUrl": "http://login.example.org"}))),
            format!("spec.access.bearer.issuerUrl: {}", no_issuer("http://login.example.org")),
        ),
        (
            http(oidc(json!({"issuerUrl": "https://login.example.org/?a=b"}))),
            format!("spec.access.oidc.issuerUrl: {}", no_issuer("https://login.example.org/?a=b")),
        ),
        (
            http(oidc(json!({"issuerUrl": "https://user@login.example.org"}))),
            format!("spec.access.oidc.issuerUrl: {}", no_issuer("https://user@login.example.org")),
        ),
        (
            http(oidc(json!({"clientId": ""}))),
            "spec.access.oidc.clientId: \"\" is empty, longer than 256 characters or has control characters: write it as the issuer has it".to_owned(),
        ),
        (
            http(oidc(json!({"scopes": ["email groups"]}))),
            "spec.access.oidc.scopes[0]: \"email groups\" is no scope: write one word for each, such as \"groups\"".to_owned(),
        ),
        (
            http(oidc(json!({"allow": {"emails": ["ada"]}}))),
            "spec.access.oidc.allow.emails[0]: \"ada\" is no address: write one such as \"ada@example.org\"".to_owned(),
        ),
        (
            http(bearer(json!({"allow": {"groups": ["a,b"]}}))),
            "spec.access.bearer.allow.groups[0]: \"a,b\" is no group: write its name as the issuer has it, without a comma".to_owned(),
        ),
        (
            http(oidc(json!({"sessionDuration": "1m"}))),
            "spec.access.oidc.sessionDuration: \"1m\" is not between 5m and 720h".to_owned(),
        ),
        (routes(json!({"path": "/a", "pathType": "Exact"})), back.to_owned()),
        (routes(json!({"path": "/a", "methods": ["POST"]})), back.to_owned()),
    ];
    for (value, expected) in cases {
        assert_eq!(messages(&value), [expected], "{value}");
    }
    let domain = http(oidc(json!({"allow": {"domains": ["@example.org"]}})));
    let said = messages(&domain).remove(0);
    assert!(
        said.starts_with("spec.access.oidc.allow.domains[0]: \"@example.org\" is no domain: ")
            && said.ends_with("write what is behind the @, such as \"example.org\""),
        "{said}"
    );
    let many: Vec<String> = (0..257)
        .map(|n| format!("10.0.{}.{}", n / 256, n % 256))
        .collect();
    let said = messages(&http(json!({"allowedClients": many}))).join("\n");
    assert!(
        said.contains("spec.access.allowedClients: 257 networks; at most 256 are looked at"),
        "{said}"
    );
}
