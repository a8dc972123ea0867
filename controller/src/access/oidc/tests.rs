//! Tokens of an issuer that answers over TLS in this process.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering;

use futures::FutureExt;
use serde_json::json;

use super::test_issuer::{TestIssuer, pair, seconds};
use super::*;
use crate::access::jwt;

impl TestIssuer {
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

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_at_once_keeps_the_keys_from_nobody() {
    let issuer = TestIssuer::start().await;
    let oidc = Oidc::new(issuer.options()).unwrap();
    let (token, now) = (issuer.token(&issuer.claims()), SystemTime::now());
    assert!(oidc.verify(&token, now).now_or_never().is_none());
    oidc.verify(&token, now).await.unwrap();
    assert_eq!(issuer.asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn only_some_codes_are_redeemed_at_a_time() {
    let issuer = TestIssuer::start().await;
    let url = issuer.url.parse().unwrap();
    let verifier = Verifier::new(url, "hive".into(), issuer.roots()).unwrap();
    let invented = || Redemption {
        code: "invented",
        redirect_uri: "https://photos.example/.hive/callback",
        verifier: "v",
        secret: None,
    };
    let mut waiting: Vec<_> = (0..16)
        .map(|_| Box::pin(verifier.redeem(invented())))
        .collect();
    for one in &mut waiting {
        assert!(one.now_or_never().is_none());
    }
    let error = verifier.redeem(invented()).await.unwrap_err();
    assert!(matches!(error, FetchError::Busy), "{error}");
    drop(waiting);
    let error = verifier.redeem(invented()).await.unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
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
