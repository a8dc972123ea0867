//! Who may use tunnels of a live swarm: addresses, rates, passwords, and a login at an OpenID issuer of another make.
//!
//! The issuer is `oidc-provider` of npm; where it can't be installed, that part is skipped and says so.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "tunnels/declared.rs"]
#[allow(dead_code, reason = "the tests of tunnels share it")]
mod declared;
#[path = "people/issuer.rs"]
#[allow(dead_code, reason = "the tests of people share it")]
mod issuer;
#[path = "tunnels/noise.rs"]
#[allow(dead_code, reason = "the tests of tunnels share it")]
mod noise;
#[path = "tunnels/service.rs"]
#[allow(dead_code, reason = "the tests of tunnels share it")]
mod service;
#[path = "tunnels/site.rs"]
#[allow(dead_code, reason = "the tests of tunnels share it")]
mod site;
#[path = "tunnels/websocket.rs"]
#[allow(dead_code, reason = "the tests of tunnels share it")]
mod websocket;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use declared::{declare, not_ready, proven, target};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::Answer;
use hive_e2e::{Steps, Swarm, guests, web};
use http::header::{LOCATION, SET_COOKIE};
use issuer::Issuer;
use serde_json::{Value, json};
use service::{Habit, Service};
use site::Site;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// As another program hashed it.
const USERS: &str = "ann:$2y$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n";
const PASSWORD: &str = "open sesame";

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_let_in_whom_their_rules_name() {
    let desk = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(desk.path()).await;
    let mut builder = Swarm::builder().agents(1);
    if let Some(issuer) = &issuer {
        let certificate = issuer.certificate.to_str().unwrap();
        builder = builder.run_flag("--oidc-ca-file", certificate);
    }
    let mut swarm = builder.start().await;
    let port = swarm.take_port();
    let _site = Site::start("photos", port).await;
    let mut steps = Steps::new();
    steps
        .run("passwords of a Secret", passwords(&mut swarm, port))
        .await;
    steps
        .run(
            "a function behind a tunnel is guarded",
            function(&mut swarm),
        )
        .await;
    steps
        .run("addresses and rates", addresses(&mut swarm, port))
        .await;
    steps
        .run(
            "trusted proxies say who the client is",
            proxies(&swarm, port),
        )
        .await;
    steps
        .run("connections of TCP", connections(&mut swarm))
        .await;
    if let Some(issuer) = &issuer {
        steps
            .run("a login with a browser", login(&swarm, port, issuer))
            .await;
    }
    steps.finish();
}

fn ingresses(swarm: &Swarm) -> Vec<String> {
    let controllers = swarm.controllers.iter();
    controllers.map(|it| it.ingress_address()).collect()
}

fn http(host: &str, port: u16, access: Value) -> Value {
    json!({ "http": { "host": host }, "targets": [target("node-1", port)], "access": access })
}

async fn apply(swarm: &Swarm, object: Value) {
    let text = object.to_string();
    let applied = swarm.ctl.run_with_input(&["apply", "-f", "-"], &text);
    applied.await.ok();
}

async fn secret(swarm: &Swarm, name: &str, data: Value) {
    let metadata = json!({ "name": name });
    apply(
        swarm,
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data }),
    )
    .await;
}

/// Waits until a request is answered so: rules come to each controller in its own time.
async fn answers(
    ingress: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
    status: u16,
) -> Answer {
    let what = format!("{host}{path} at {ingress} is answered with {status}");
    until(&what, PATIENCE, async || {
        let answer = web::get_with(ingress, host, path, headers).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let found = format!("{} {}", answer.status, answer.text());
        holds(answer.status == status, found)?;
        Ok::<_, String>(answer)
    })
    .await
}

async fn passwords(swarm: &mut Swarm, port: u16) {
    let host = "photos.localhost";
    let access = json!({ "basicAuth": { "secretName": "users" } });
    declare(swarm, "photos", http(host, port, access)).await;
    let why = not_ready(swarm, "photos", "SecretNotFound").await;
    assert!(
        why.contains("spec.access.basicAuth.secretName: Secret users"),
        "{why}"
    );
    let ingress = &ingresses(swarm)[0];
    let refused = answers(ingress, host, "/", &[], 503).await;
    assert_eq!(refused.header("x-hive-reason"), "AccessNotReady");

    secret(swarm, "users", json!({ "auth": USERS })).await;
    proven(swarm, "photos").await;
    let of = |password: &str| format!("Basic {}", BASE64.encode(format!("ann:{password}")));
    let (good, bad) = (of(PASSWORD), of("sesame"));
    for ingress in ingresses(swarm) {
        let asked = answers(&ingress, host, "/", &[], 401).await;
        assert_eq!(asked.header("x-hive-reason"), "Unauthenticated");
        let challenge = "Basic realm=\"default/photos\", charset=\"UTF-8\"";
        assert_eq!(asked.header("www-authenticate"), challenge);
        // A probe gets past nobody.
        let probe = [("x-hive-probe", "1")];
        let probed = answers(&ingress, host, "/", &probe, 204).await;
        assert_eq!(probed.text(), "");
        let wrong = [("authorization", &*bad)];
        answers(&ingress, host, "/", &wrong, 401).await;
        let right = [("authorization", &*good), ("x-hive-user", "root")];
        let seen = answers(&ingress, host, "/headers", &right, 200)
            .await
            .text();
        assert!(seen.contains("x-hive-user: ann\n"), "{seen}");
        assert!(
            !seen.contains("root") && !seen.contains("authorization"),
            "{seen}"
        );
    }
    // Who is taken out of the Secret is out.
    let other = USERS.replace("ann:", "bob:");
    secret(swarm, "users", json!({ "auth": other })).await;
    for ingress in ingresses(swarm) {
        answers(&ingress, host, "/", &[("authorization", &*good)], 401).await;
    }
    swarm.ctl(&["delete", "tunnel", "photos"]).await.ok();
}

async fn function(swarm: &mut Swarm) {
    let spec = json!({ "resources": { "memory": "16Mi", "cpu": "50m" } });
    swarm.deploy("hello", &guests::hello(), spec).await;
    secret(swarm, "users", json!({ "auth": USERS })).await;
    let access = json!({ "basicAuth": { "secretName": "users" } });
    let host = "hi.localhost";
    let tunnel = json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Tunnel",
        "metadata": { "name": "hello" },
        "spec": { "function": "hello", "http": { "host": host }, "access": access },
    });
    apply(swarm, tunnel).await;
    proven(swarm, "hello").await;
    let good = format!("Basic {}", BASE64.encode(format!("ann:{PASSWORD}")));
    for ingress in ingresses(swarm) {
        answers(&ingress, host, "/", &[], 401).await;
        let answer = answers(&ingress, host, "/", &[("authorization", &*good)], 200).await;
        assert!(answer.text().contains("from hello"), "{}", answer.text());
    }
    swarm.ctl(&["delete", "tunnel", "hello"]).await.ok();
}

async fn addresses(swarm: &mut Swarm, port: u16) {
    let host = "limited.localhost";
    let elsewhere = json!({ "allowedClients": ["203.0.113.0/24"] });
    declare(swarm, "limited", http(host, port, elsewhere)).await;
    proven(swarm, "limited").await;
    // Nobody named a proxy whose word counts.
    let claimed = [("x-forwarded-for", "203.0.113.7")];
    for ingress in ingresses(swarm) {
        let refused = answers(&ingress, host, "/", &claimed, 403).await;
        assert_eq!(refused.header("x-hive-reason"), "ClientNotAllowed");
    }
    let limit = json!({ "requestsPerSecond": 1, "burst": 3 });
    declare(
        swarm,
        "limited",
        http(host, port, json!({ "rateLimit": limit })),
    )
    .await;
    let ingress = &ingresses(swarm)[0];
    answers(ingress, host, "/", &[], 200).await;
    let refused = until("requests are too many", PATIENCE, async || {
        let answer = web::get(ingress, host, "/").await;
        let answer = answer.map_err(|error| error.to_string())?;
        holds(answer.status == 429, answer.status)?;
        Ok::<_, String>(answer)
    })
    .await;
    assert_eq!(refused.header("x-hive-reason"), "RateLimited");
    assert_eq!(refused.header("retry-after"), "1");
    answers(ingress, host, "/", &[], 200).await;
    swarm.ctl(&["delete", "tunnel", "limited"]).await.ok();
}

/// As the operator of the swarm does; its domain stays.
async fn trust(swarm: &Swarm, networks: &str) {
    let settings = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "swarm", "namespace": "hive-system" },
        "data": { "trustedProxies": networks },
    });
    apply(swarm, settings).await;
}

async fn proxies(swarm: &Swarm, port: u16) {
    trust(swarm, "127.0.0.0/8").await;
    let host = "proxied.localhost";
    let elsewhere = json!({ "allowedClients": ["203.0.113.0/24"] });
    declare(swarm, "proxied", http(host, port, elsewhere)).await;
    for ingress in ingresses(swarm) {
        let good = [("x-forwarded-for", "198.51.100.1, 203.0.113.7")];
        answers(&ingress, host, "/", &good, 200).await;
        // What the client itself claimed stands before.
        let bad = [("x-forwarded-for", "203.0.113.7, 198.51.100.1")];
        answers(&ingress, host, "/", &bad, 403).await;
    }
    trust(swarm, "").await;
    swarm.ctl(&["delete", "tunnel", "proxied"]).await.ok();
}

async fn connections(swarm: &mut Swarm) {
    let echo = Service::start(swarm.take_port(), Habit::Echo).await;
    let port = swarm.take_port();
    let spec = |client: &str| {
        json!({
            "protocol": "TCP", "port": port, "targets": [target("node-1", echo.port())],
            "access": { "allowedClients": [client] },
        })
    };
    declare(swarm, "echo", spec("127.0.0.0/8")).await;
    proven(swarm, "echo").await;
    let said = |address: String| async move {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(|it| it.to_string())?;
        stream
            .write_all(b"hello")
            .await
            .map_err(|it| it.to_string())?;
        stream.shutdown().await.map_err(|it| it.to_string())?;
        let mut heard = String::new();
        let read = stream.read_to_string(&mut heard).await;
        read.map_err(|it| it.to_string())?;
        Ok::<_, String>(heard)
    };
    // Under one address one of the controllers has the port.
    let address = format!("127.0.0.1:{port}");
    until("it comes back", PATIENCE, async || {
        let heard = said(address.clone()).await?;
        holds(heard == "hello", heard)
    })
    .await;
    declare(swarm, "echo", spec("203.0.113.0/24")).await;
    until("connections are cut", PATIENCE, async || {
        let heard = said(address.clone()).await;
        holds(heard.as_deref() != Ok("hello"), format!("{heard:?}"))
    })
    .await;
    // The leader may not come in either, and knows that it is there.
    proven(swarm, "echo").await;
    swarm.ctl(&["delete", "tunnel", "echo"]).await.ok();
}

/// `name=value` of each cookie that is set, but of those that end.
fn cookies(answer: &Answer) -> String {
    let lines = answer.headers.get_all(SET_COOKIE).iter();
    let lines = lines.map(|line| line.to_str().unwrap());
    let pairs = lines.map(|line| line.split(';').next().unwrap());
    let kept: Vec<&str> = pairs.filter(|pair| !pair.ends_with('=')).collect();
    kept.join("; ")
}

fn location(answer: &Answer) -> &str {
    answer.header(LOCATION.as_str())
}

async fn login(swarm: &Swarm, port: u16, issuer: &Issuer) {
    secret(
        swarm,
        "client",
        json!({ "clientSecret": issuer::CLIENT_SECRET }),
    )
    .await;
    let access = json!({ "oidc": {
        "issuerUrl": issuer.url, "clientId": issuer::CLIENT, "secretName": "client",
        "scopes": ["email", "groups"], "allow": { "domains": ["example.org"] },
    } });
    // The issuer knows it by this name, at any port.
    declare(swarm, "login", http("localhost", port, access)).await;
    proven(swarm, "login").await;
    let ingresses = ingresses(swarm);
    let host = |ingress: &str| format!("localhost:{}", ingress.rsplit_once(':').unwrap().1);
    let page = ("accept", "text/html");

    let own = host(&ingresses[0]);
    let first = (&*ingresses[0], &*own);
    let script = [("accept", "application/json")];
    answers(first.0, first.1, "/headers", &script, 401).await;
    let back = format!("http://{}/.hive/callback?", first.1);
    let mut sessions = Vec::new();
    for (user, status) in [("ada@example.org", 303), ("eve@evil.example", 403)] {
        let away = answers(first.0, first.1, "/headers?a=b", &[page], 302).await;
        let attempt = cookies(&away);
        let brought = issuer.visit(location(&away), user, &back);
        let path = brought.strip_prefix(&format!("http://{}", first.1));
        let path = path.expect("the browser is back").to_owned();
        // Whoever is given the link did not begin.
        let other = answers(first.0, first.1, &path, &[page], 403).await;
        assert_eq!(other.header("x-hive-reason"), "LoginFailed");
        let headers = [page, ("cookie", &*attempt)];
        let ended = web::get_with(first.0, first.1, &path, &headers)
            .await
            .unwrap();
        assert_eq!(ended.status, status, "{user}: {}", ended.text());
        match status {
            303 => {
                let wanted = format!("http://{}/headers?a=b", first.1);
                assert_eq!(location(&ended), wanted);
                sessions.push(cookies(&ended));
            }
            _ => assert_eq!(ended.header("x-hive-reason"), "UserNotAllowed"),
        }
    }
    // Every controller knows who signed in at one of them.
    for ingress in &ingresses {
        let cookie = format!("own=1; {}", sessions[0]);
        let headers = [page, ("cookie", &*cookie), ("x-auth-request-user", "root")];
        let seen = answers(ingress, &host(ingress), "/headers", &headers, 200).await;
        let seen = seen.text();
        for line in [
            "x-hive-user: ada@example.org\n",
            "x-auth-request-email: ada@example.org\n",
            "x-auth-request-groups: makers\n",
            "cookie: own=1\n",
        ] {
            assert!(seen.contains(line), "{line}: {seen}");
        }
        assert!(!seen.contains("root"), "{seen}");
        let forged = sessions[0].replace('=', "=A");
        let headers = [page, ("cookie", &*forged)];
        answers(ingress, &host(ingress), "/headers", &headers, 302).await;
    }
    swarm.ctl(&["delete", "tunnel", "login"]).await.ok();
}
