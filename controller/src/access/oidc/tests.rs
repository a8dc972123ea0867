//! Tokens of an issuer that answers over TLS in this process.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::access::jwt;
use crate::https;

struct TestIssuer {
    url: String,
    key: Ed25519KeyPair,
    asked: Arc<AtomicUsize>,
    ca: TempDir,
    stop: CancellationToken,
}

fn pair() -> Ed25519KeyPair {
    let mut seed = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed).unwrap();
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

impl TestIssuer {
    async fn start() -> Self {
        let key = pair();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let ca = tempfile::tempdir().unwrap();
        std::fs::write(ca.path().join("ca.pem"), cert.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], private)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/realm",
            listener.local_addr().unwrap().port()
        );
        let asked = Arc::new(AtomicUsize::new(0));
        let jwks = json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "k1", "use": "sig",
              "x": BASE64.encode(key.public_key().as_ref()) },
            { "kty": "oct", "kid": "shared", "k": "AA" },
        ] });
        let configuration = json!({ "issuer": url, "jwks_uri": format!("{url}/keys") });
        let counted = asked.clone();
        let router = Router::new()
            .route(
                "/realm/.well-known/openid-configuration",
                get(move || async move { configuration.to_string() }),
            )
            .route(
                "/realm/keys",
                get(move || async move {
                    counted.fetch_add(1, Ordering::Relaxed);
                    jwks.to_string()
                }),
            );
        let stop = CancellationToken::new();
        tokio::spawn(https::serve(listener, Arc::new(tls), router, stop.clone()));
        Self {
            url,
            key,
            asked,
            ca,
            stop,
        }
    }

    fn options(&self) -> OidcOptions {
        OidcOptions {
            issuer: self.url.parse().unwrap(),
            client_id: "hive".into(),
            username_claim: "email".into(),
            username_prefix: None,
            groups_claim: Some("groups".into()),
            groups_prefix: "org:".into(),
            required_claims: vec![("tenant".into(), "home".into())],
            ca_file: Some(self.ca.path().join("ca.pem")),
        }
    }

    fn claims(&self) -> Value {
        let now = seconds(SystemTime::now());
        json!({
            "iss": self.url,
            "aud": ["other", "hive"],
            "sub": "1234",
            "email": "ada@example.org",
            "email_verified": true,
            "groups": ["makers", "readers"],
            "tenant": "home",
            "iat": now,
            "exp": now + 300,
        })
    }

    fn token(&self, claims: &Value) -> String {
        jwt::sign(&self.key, "k1", claims)
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signed_in_at_the_issuer_is_known_by_its_claims() {
    let issuer = TestIssuer::start().await;
    let oidc = Oidc::new(issuer.options()).unwrap();
    let claims = issuer.claims();
    let token = issuer.token(&claims);
    assert!(oidc.issued(&Unverified::parse(&token).unwrap()));
    for _ in 0..3 {
        let signed_in = oidc.verify(&token, SystemTime::now()).await.unwrap();
        assert_eq!(signed_in.user.name, "ada@example.org");
        assert_eq!(
            signed_in.user.groups,
            ["org:makers", "org:readers", "system:authenticated"]
        );
        assert_eq!(seconds(signed_in.expiry), claims["exp"].as_u64().unwrap());
    }
    // Once for all of them.
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);

    // An issuer that is down hinders nobody whose key is known.
    issuer.stop.cancel();
    assert!(oidc.verify(&token, SystemTime::now()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_keys_do_not_flood_the_issuer() {
    let issuer = TestIssuer::start().await;
    let oidc = Oidc::new(issuer.options()).unwrap();
    for n in 0..5 {
        let token = jwt::sign(&pair(), &format!("invented-{n}"), &issuer.claims());
        let error = oidc.verify(&token, SystemTime::now()).await.unwrap_err();
        assert!(matches!(error, Refused::UnknownKey), "{error}");
    }
    let forged = jwt::sign(&pair(), "k1", &issuer.claims());
    let error = oidc.verify(&forged, SystemTime::now()).await.unwrap_err();
    assert!(
        matches!(error, Refused::Token(JwtError::Signature)),
        "{error}"
    );
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_named() {
    let issuer = TestIssuer::start().await;
    let mut options = issuer.options();
    options.issuer = "https://localhost:1/realm".parse().unwrap();
    let oidc = Oidc::new(options).unwrap();
    let error = oidc
        .verify(&issuer.token(&issuer.claims()), SystemTime::now())
        .await;
    let Err(Refused::Keys(FetchError::Unreachable { url, .. })) = error else {
        panic!("{error:?}");
    };
    assert!(url.starts_with("https://localhost:1/realm/"), "{url}");
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused_by_name() {
    let issuer = TestIssuer::start().await;
    let options = issuer.options();
    let now = SystemTime::now();
    let read = |change: &dyn Fn(&mut Value)| {
        let mut claims = issuer.claims();
        change(&mut claims);
        match options.read(claims.as_object().unwrap(), now) {
            Ok(signed_in) => format!("{} {:?}", signed_in.user.name, signed_in.user.groups),
            Err(error) => error.to_string(),
        }
    };
    type Change = Box<dyn Fn(&mut Value)>;
    let set = |claim: &'static str, value: Value| -> Change {
        Box::new(move |claims| claims[claim] = value.clone())
    };
    let at = seconds(now);
    let table: [(Change, &str); 12] = [
        (set("aud", json!("hive")), "ada@example.org"),
        (set("aud", json!("other")), "not for client \"hive\""),
        (set("aud", Value::Null), "not for client"),
        (set("exp", json!(at)), "expired"),
        (set("exp", Value::Null), "\"exp\" is no time"),
        (set("nbf", json!(at + 60)), "not good yet"),
        (set("nbf", json!(at + 5)), "ada@example.org"),
        (set("email", json!("")), "\"email\" is missing"),
        (set("email", json!("system:admin")), "the swarm's own"),
        (set("email_verified", json!(false)), "not verified"),
        (set("tenant", json!("away")), "\"tenant\" is not what"),
        (set("groups", json!([1])), "\"groups\" is no list"),
    ];
    for (change, expected) in table {
        let found = read(&*change);
        assert!(
            found.contains(expected),
            "{found:?} does not say {expected:?}"
        );
    }

    let mut plain = options.clone();
    (plain.username_claim, plain.groups_prefix) = ("sub".into(), String::new());
    let mut claims = issuer.claims();
    claims["groups"] = json!(["system:masters", "hive:admin", "makers"]);
    let signed_in = plain.read(claims.as_object().unwrap(), now).unwrap();
    assert_eq!(signed_in.user.name, format!("{}#1234", issuer.url));
    assert_eq!(signed_in.user.groups, ["makers", "system:authenticated"]);
}
