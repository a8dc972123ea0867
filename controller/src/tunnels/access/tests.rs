//! Requests at the door of a tunnel: who is let in, what the service then reads, and what the others are told.
#![allow(clippy::unwrap_used)]

mod browser;

use std::sync::Arc;

use hive_manifests::Resource;
use hive_manifests::tunnel::access::Access;
use http::header::{HOST, LOCATION};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::access::jwt;
use crate::access::oidc::test_issuer::{SECRET, TestIssuer, pair, seconds};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::fixture::declare;
use crate::ingress::full;
use crate::state::{Key, State};
use crate::tunnels::table::Tunnel;

const CLIENT: &str = "203.0.113.7";

/// Of it a hash tells no more than the first 72 bytes.
fn long_password() -> String {
    "x".repeat(800)
}

/// With the Secrets that rules of the tests name: the user `ann` has the password `secret`, and `eve` a long one.
fn state() -> State {
    let mut state = State::default();
    let hashes = ["secret", &*long_password()].map(|it| bcrypt::hash(it, 4).unwrap());
    let users = format!("ann:{}\neve:{}\n", hashes[0], hashes[1]);
    for (namespace, name, key, text) in [
        ("default", "users", "auth", &*users),
        ("default", "client", "clientSecret", SECRET),
        (
            SYSTEM_NAMESPACE,
            "tunnel-sessions",
            "key",
            "0123456789abcdef0123456789abcdef",
        ),
    ] {
        let secret = Key::new(Resource::Secret, namespace, name);
        let data = json!({ "data": { key: BASE64.encode(text) } });
        declare(&mut state, secret, data);
    }
    state
}

/// A tunnel of that uid and with those rules.
fn live(uid: &str, access: Value) -> Live {
    let access: Access = serde_json::from_value(access).unwrap();
    let key = Key::new(Resource::Tunnel, "default", "photos");
    let mut tunnel = Tunnel::with_targets(key, Vec::new());
    tunnel.access = Arc::new(Rules::of(&access, "default", uid, &state()));
    tunnel.spec.access = Some(access);
    Live::new(Arc::new(tunnel))
}

fn request(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::new(full(""));
    *request.method_mut() = Method::GET;
    *request.uri_mut() = path.parse().unwrap();
    let host = HeaderValue::from_static("photos.example");
    request.headers_mut().insert(HOST, host);
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(name, value);
    }
    request
}

/// `let in`, the status of what is answered instead, or the reason why not.
async fn outcome(doorman: &Doorman, live: &Live, request: &mut Request<Body>) -> String {
    let client = CLIENT.parse().unwrap();
    match doorman.admit(live, client, "/", request).await {
        Ok(None) => "let in".to_owned(),
        Ok(Some(answer)) => answer.status().as_str().to_owned(),
        Err(denied) => denied.reason().to_owned(),
    }
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64.encode(credentials))
}

fn text<'a>(request: &'a Request<Body>, name: &str) -> &'a str {
    let value = request.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn addresses_come_first() {
    let doorman = Doorman::default();
    let users = json!({ "secretName": "users" });
    for (allowed, expected) in [
        (json!([]), "Unauthenticated"),
        (json!(["203.0.113.0/24"]), "Unauthenticated"),
        (json!(["198.51.100.0/24", "::/0"]), "ClientNotAllowed"),
    ] {
        let live = live(
            "uid",
            json!({ "allowedClients": allowed, "basicAuth": users }),
        );
        let mut request = request("/", &[("x-forwarded-for", "198.51.100.1")]);
        assert_eq!(
            outcome(&doorman, &live, &mut request).await,
            expected,
            "{allowed}"
        );
        assert_eq!(live.metered().failures, [(expected, 1)].into());
    }
}

#[tokio::test]
async fn who_comes_too_often_is_told_when_to_come_again() {
    const TRIES: usize = 1000;
    let doorman = Doorman::default();
    let limit = json!({ "requestsPerSecond": 1, "burst": 2 });
    let live = live("uid", json!({ "rateLimit": limit }));
    // A busy machine may take so long that there is a token again, but not each time.
    let (mut told, begun) = (Vec::new(), Instant::now());
    while told.last().is_none_or(|it| it == "let in") && told.len() < TRIES {
        told.push(outcome(&doorman, &live, &mut request("/", &[])).await);
    }
    assert!(told.len() > 2, "{told:?}");
    assert_eq!(told.last().unwrap(), "RateLimited");
    // Two at first, one for each second that has begun, and the one that was refused.
    let most = 2 + begun.elapsed().as_secs() + 1 + 1;
    assert!(told.len() as u64 <= most, "{told:?}");
    let mut asked = (0..TRIES).map(|_| live.admit(CLIENT.parse().unwrap()));
    let denied = asked.find_map(Result::err).unwrap();
    assert_eq!(denied.retry_after(), Some(1));
    assert!(live.admit("203.0.113.8".parse().unwrap()).is_ok());
}

/// They reach every path of their host, and may lead to another owner's service.
#[tokio::test]
async fn sessions_of_other_tunnels_go_no_further() {
    let cookie = "own=1; __Host-hive-session-00000000=x; hive-attempt-0-1=y";
    let limit = json!({ "requestsPerSecond": 9 });
    for access in [json!({}), json!({ "rateLimit": limit })] {
        let live = live("uid", access);
        let mut request = request("/", &[("cookie", cookie)]);
        let found = outcome(&Doorman::default(), &live, &mut request).await;
        assert_eq!(found, "let in");
        assert_eq!(text(&request, "cookie"), "own=1");
    }
}

#[tokio::test]
async fn a_missing_secret_lets_nobody_in() {
    let live = live("uid", json!({ "basicAuth": { "secretName": "gone" } }));
    let mut request = request("/", &[("authorization", &*basic("ann:secret"))]);
    let found = outcome(&Doorman::default(), &live, &mut request).await;
    assert_eq!(found, "AccessNotReady");
    assert!(live.admit(CLIENT.parse().unwrap()).is_err());
}

#[tokio::test]
async fn a_password_lets_in_and_goes_no_further() {
    let doorman = Doorman::default();
    let live_of = |forward: bool| {
        let basic = json!({ "secretName": "users", "forward": forward });
        live("uid", json!({ "basicAuth": basic }))
    };
    let closed = live_of(false);
    let good = basic("ann:secret");
    let [wrong, unknown, nameless, root] = ["ann:wrong", "bob:secret", "ann", "root:x"].map(basic);
    let odd = good.replacen("Basic", "bAsIc ", 1);
    let [whole, part] =
        [&*long_password(), &long_password()[..72]].map(|it| basic(&format!("eve:{it}")));
    let cases: [(&[&str], &str); 12] = [
        (&[], "Unauthenticated"),
        (&[&good], "let in"),
        (&[&wrong], "Unauthenticated"),
        (&[&unknown], "Unauthenticated"),
        (&[&nameless], "Unauthenticated"),
        (&["Basic ***"], "Unauthenticated"),
        (&["Bearer abc"], "Unauthenticated"),
        (&["Basic"], "Unauthenticated"),
        // The service might read the second.
        (&[&good, &root], "Unauthenticated"),
        (&[&odd], "let in"),
        (&[&part], "let in"),
        // More than anybody is asked to read.
        (&[&whole], "Unauthenticated"),
    ];
    for (said, expected) in cases {
        let headers: Vec<_> = said.iter().map(|it| ("authorization", *it)).collect();
        let mut request = request("/", &headers);
        let found = outcome(&doorman, &closed, &mut request).await;
        assert_eq!(found, expected, "{said:?}");
    }
    for (forward, passed) in [(false, ""), (true, &*good)] {
        let said = [
            ("authorization", &*good),
            ("x-hive-user", "root"),
            ("x_auth_request_user", "root"),
        ];
        let mut request = request("/", &said);
        assert_eq!(
            outcome(&doorman, &live_of(forward), &mut request).await,
            "let in"
        );
        assert_eq!(text(&request, "authorization"), passed);
        assert_eq!(text(&request, "x-hive-user"), "ann");
        assert_eq!(text(&request, "x-auth-request-user"), "ann");
        assert_eq!(text(&request, "x_auth_request_user"), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_issuer_lets_in_whom_the_rules_name() {
    let issuer = TestIssuer::start().await;
    let doorman = Doorman::new(issuer.roots());
    let rules = |allow: Value| {
        let bearer = json!({ "issuerUrl": issuer.url, "audience": "hive", "allow": allow });
        live("uid", json!({ "bearer": bearer }))
    };
    let token = |change: &dyn Fn(&mut Value)| {
        let mut claims = issuer.claims();
        change(&mut claims);
        issuer.token(&claims)
    };
    let now = seconds(SystemTime::now());
    let good = token(&|_| {});
    let forged = jwt::sign(&pair(), "k1", &issuer.claims());
    let everybody = json!({});
    for (token, allow, expected) in [
        (good.clone(), &everybody, "let in"),
        (good.clone(), &json!({ "groups": ["makers"] }), "let in"),
        (
            good.clone(),
            &json!({ "groups": ["others"] }),
            "UserNotAllowed",
        ),
        (
            token(&|it| it["aud"] = json!("other")),
            &everybody,
            "Unauthenticated",
        ),
        (
            token(&|it| it["exp"] = json!(now)),
            &everybody,
            "Unauthenticated",
        ),
        (
            token(&|it| it["iss"] = json!("https://evil.example")),
            &everybody,
            "Unauthenticated",
        ),
        (
            token(&|it| it["sub"] = json!("")),
            &everybody,
            "Unauthenticated",
        ),
        (forged, &everybody, "Unauthenticated"),
        ("x".repeat(20_000), &everybody, "Unauthenticated"),
        ("a.b.c".to_owned(), &everybody, "Unauthenticated"),
    ] {
        let said = format!("Bearer {token}");
        let mut request = request("/", &[("authorization", &*said), ("x-hive-user", "root")]);
        let found = outcome(&doorman, &rules(allow.clone()), &mut request).await;
        assert_eq!(found, expected, "{allow} {token}");
        if found == "let in" {
            assert_eq!(text(&request, "x-hive-user"), "ada@example.org");
            assert_eq!(text(&request, "x-auth-request-groups"), "makers,readers");
            assert_eq!(text(&request, "authorization"), "");
        }
    }
}

#[tokio::test]
async fn strangers_whom_others_bring_say_of_nobody_who_they_are() {
    for (provider, expected) in [("Hive", "ann"), ("Cloudflare", ""), ("Tor", "")] {
        let key = Key::new(Resource::Tunnel, "default", "photos");
        let mut tunnel = Tunnel::with_targets(key, Vec::new());
        tunnel.spec.provider = serde_json::from_value(json!(provider)).unwrap();
        let live = Live::new(Arc::new(tunnel));
        let said = [("x-auth-request-user", "ann"), ("x-own", "1")];
        let mut request = request("/", &said);
        let found = outcome(&Doorman::default(), &live, &mut request).await;
        assert_eq!(found, "let in", "{provider}");
        assert_eq!(
            text(&request, "x-auth-request-user"),
            expected,
            "{provider}"
        );
        assert_eq!(text(&request, "x-own"), "1");
    }
}

#[tokio::test]
async fn an_issuer_that_is_not_there_is_no_fault_of_the_client() {
    let bearer = json!({ "issuerUrl": "https://localhost:1", "audience": "hive" });
    let live = live("uid", json!({ "bearer": bearer }));
    let claims = json!({ "iss": "https://localhost:1" });
    let said = format!("Bearer {}", jwt::sign(&pair(), "k1", &claims));
    let mut request = request("/", &[("authorization", &*said)]);
    let issuer = TestIssuer::start().await;
    let found = outcome(&Doorman::new(issuer.roots()), &live, &mut request).await;
    assert_eq!(found, "IssuerUnreachable");
}
