//! An OpenID issuer that answers over TLS in this process, and whom anybody can sign in at.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Router;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::RootCertStore;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::{Url, form_urlencoded};

use super::named_roots;
use crate::access::jwt;
use crate::https;

/// The secret of its client `hive`.
pub const SECRET: &str = "s3cret/+";

/// Codes that are not redeemed yet: what was asked for, and the claims of the token.
type Codes = Arc<Mutex<HashMap<String, (HashMap<String, String>, Value)>>>;

pub struct TestIssuer {
    pub url: String,
    pub key: Arc<Ed25519KeyPair>,
    /// How often its keys were.
    pub asked: Arc<AtomicUsize>,
    pub ca: TempDir,
    pub stop: CancellationToken,
    codes: Codes,
}

pub fn pair() -> Ed25519KeyPair {
    let mut seed = [0; 32];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed).unwrap();
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

pub fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl TestIssuer {
    pub async fn start() -> Self {
        let key = Arc::new(pair());
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
        let configuration = json!({
            "issuer": url,
            "jwks_uri": format!("{url}/keys"),
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
        });
        let codes = Codes::default();
        let (counted, signing, redeemed) = (asked.clone(), key.clone(), codes.clone());
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
            )
            .route(
                "/realm/token",
                post(move |headers: HeaderMap, form: String| async move {
                    redeem(&redeemed, &signing, &headers, &form)
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
            codes,
        }
    }

    /// What vouches for it.
    pub fn roots(&self) -> RootCertStore {
        named_roots(Some(&self.ca.path().join("ca.pem"))).unwrap()
    }

    pub fn claims(&self) -> Value {
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

    pub fn token(&self, claims: &Value) -> String {
        jwt::sign(&self.key, "k1", claims)
    }

    /// Somebody signs in at the page to which a browser was sent; the URL to which it is sent back. `change` has the
    /// last word on what the token claims.
    pub fn sign_in(&self, page: &str, change: impl FnOnce(&mut Value)) -> Url {
        let page = Url::parse(page).unwrap();
        assert!(
            page.as_str()
                .starts_with(&format!("{}/authorize?", self.url)),
            "{page}"
        );
        let asked: HashMap<String, String> = page.query_pairs().into_owned().collect();
        for (name, expected) in [
            ("response_type", "code"),
            ("client_id", "hive"),
            ("code_challenge_method", "S256"),
        ] {
            assert_eq!(asked[name], expected, "{page}");
        }
        let mut claims = self.claims();
        claims["aud"] = json!("hive");
        claims["nonce"] = json!(asked["nonce"]);
        change(&mut claims);
        let mut back = Url::parse(&asked["redirect_uri"]).unwrap();
        let mut codes = self.codes.lock().unwrap();
        let code = format!("code-{}", asked["state"]);
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", &asked["state"])
            .append_pair("iss", &self.url);
        codes.insert(code, (asked, claims));
        back
    }
}

/// As issuers do: a code is good once, for who knows the client's secret and began the login.
fn redeem(
    codes: &Codes,
    key: &Ed25519KeyPair,
    headers: &HeaderMap,
    form: &str,
) -> (StatusCode, String) {
    let refuse = |error: &str| {
        (
            StatusCode::BAD_REQUEST,
            json!({ "error": error }).to_string(),
        )
    };
    let client = form_urlencoded::byte_serialize(SECRET.as_bytes()).collect::<String>();
    let client = format!("Basic {}", STANDARD.encode(format!("hive:{client}")));
    if headers
        .get(AUTHORIZATION)
        .is_none_or(|said| *said != client)
    {
        return refuse("invalid_client");
    }
    let form: HashMap<String, String> = form_urlencoded::parse(form.as_bytes())
        .into_owned()
        .collect();
    let granted = form
        .get("code")
        .and_then(|code| codes.lock().unwrap().remove(code));
    let Some((asked, claims)) = granted else {
        return refuse("invalid_grant");
    };
    let challenge = BASE64.encode(Sha256::digest(form["code_verifier"].as_bytes()));
    if challenge != asked["code_challenge"]
        || form["redirect_uri"] != asked["redirect_uri"]
        || form["grant_type"] != "authorization_code"
    {
        return refuse("invalid_grant");
    }
    let answer = json!({ "id_token": jwt::sign(key, "k1", &claims), "token_type": "Bearer" });
    (StatusCode::OK, answer.to_string())
}
