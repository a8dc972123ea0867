//! Tokens of service accounts: short-lived, signed, and good only while what they speak for exists.
//!
//! The signature says that a controller of this swarm issued a token; whether it still counts is read
//! from the state at each use. A token ends with its expiry, its account, the object it is bound to, or
//! when the account says so: all of its tokens up to a time, or one by its id.

mod claims;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hive_identity::CertificateAuthority;
use ring::digest::{SHA256, digest};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::jwt::{self, Unverified, VerifyingKey};
use super::user::service_account_name;
use crate::objects;
use crate::state::Object;
pub use claims::{About, Claims, Named, Refused};

/// How long a token lives when nobody says: Kubernetes' default.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);
/// Shorter ones would be renewed all the time; Kubernetes' bound.
pub const MIN_LIFETIME: Duration = Duration::from_secs(600);
/// Nobody has to remember longer which tokens were revoked.
pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Signatures that were found good and need not be verified again: one takes some 100 µs. At a few
/// hundred bytes each, a megabyte.
const KNOWN_TOKENS: usize = 4096;

/// What the swarm's keys are derived for.
const PURPOSE: &str = "service account tokens";

/// What is to be issued; checked by who asks.
pub struct Grant {
    pub audiences: Vec<String>,
    pub lifetime: Duration,
    pub bound_to: Option<Named>,
}

/// Issues tokens, and knows those of this swarm. All controllers derive the same key from the CA's.
pub struct Issuer {
    pair: Ed25519KeyPair,
    key: VerifyingKey,
    kid: String,
    url: String,
    /// By the token's hash.
    known: Mutex<HashMap<[u8; 32], Arc<Claims>>>,
}

impl Issuer {
    pub fn new(authority: &CertificateAuthority) -> Self {
        let seed = authority.derive(PURPOSE);
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .expect("any 32 bytes are an Ed25519 private key");
        let public: [u8; 32] = pair
            .public_key()
            .as_ref()
            .try_into()
            .expect("an Ed25519 public key has 32 bytes");
        Self {
            kid: BASE64.encode(&digest(&SHA256, &public).as_ref()[..16]),
            key: VerifyingKey::Ed25519(public),
            pair,
            // Under `.internal`, as the controllers' own names: it says who issued, not where to ask.
            url: format!(
                "https://{}.hive.internal",
                authority.certificate().cluster()
            ),
            known: Mutex::default(),
        }
    }

    /// The claim `iss`, and the audience of the API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A token that speaks for `account`, and when it ends.
    pub fn issue(&self, account: &Object, grant: Grant, now: SystemTime) -> (String, SystemTime) {
        let (namespace, name) = (&account.key().namespace, &account.key().name);
        let now = unix(now);
        let exp = now + grant.lifetime.as_secs();
        let claims = Claims {
            aud: grant.audiences,
            exp,
            iat: now,
            nbf: now,
            iss: self.url.clone(),
            jti: objects::fresh_uid(),
            sub: service_account_name(namespace, name),
            about: About {
                namespace: namespace.clone(),
                serviceaccount: Named {
                    name: name.clone(),
                    uid: account.uid().to_owned(),
                },
                secret: grant.bound_to,
            },
        };
        let token = jwt::sign(&self.pair, &self.kid, &claims);
        (token, SystemTime::UNIX_EPOCH + Duration::from_secs(exp))
    }

    /// Whether a token says that it is of this issuer; who else made it is somebody else's to verify.
    pub fn issued(&self, token: &Unverified<'_>) -> bool {
        token.header.kid.as_deref() == Some(&self.kid)
    }

    /// The claims of a token that a controller of this swarm signed. Whether they still hold is
    /// [`Claims::check`]'s to say.
    pub fn verify(&self, token: &str) -> Result<Arc<Claims>, Refused> {
        let hash: [u8; 32] = digest(&SHA256, token.as_bytes())
            .as_ref()
            .try_into()
            .expect("SHA-256 has 32 bytes");
        let lock = || self.known.lock().expect("no holder of the lock panics");
        if let Some(claims) = lock().get(&hash) {
            return Ok(claims.clone());
        }
        let claims: Claims = Unverified::parse(token)
            .and_then(|token| token.verify(&self.key))
            .map_err(|_| Refused::Foreign)?;
        if claims.iss != self.url {
            return Err(Refused::Foreign);
        }
        let claims = Arc::new(claims);
        let mut known = lock();
        // All of them were signed here, so only many at once fill this: start anew.
        if known.len() >= KNOWN_TOKENS {
            known.clear();
        }
        known.insert(hash, claims.clone());
        Ok(claims)
    }

    /// What others verify tokens with: a JSON Web Key Set.
    pub fn key_set(&self) -> Value {
        json!({ "keys": [{
            "use": "sig",
            "kty": "OKP",
            "crv": "Ed25519",
            "alg": "EdDSA",
            "kid": self.kid,
            "x": BASE64.encode(self.pair.public_key()),
        }] })
    }
}

fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use hive_manifests::Resource;

    use super::claims::{NOT_BEFORE, REVOKED};
    use super::*;
    use crate::state::{Command, Key, State};

    fn put(state: &mut State, resource: Resource, name: &str, annotations: Value) {
        let key = Key::new(resource, "a", name);
        let mut body = objects::fresh(&key, json!({}), json!({}));
        if let Some(known) = state.get(&key) {
            body["metadata"]["uid"] = known.uid().into();
        }
        body["metadata"]["annotations"] = annotations;
        let body: crate::state::Body = body.into();
        let create = Command::Create {
            key: key.clone(),
            body: body.clone(),
        };
        if state.apply(create).is_err() {
            let expect = None;
            state.apply(Command::Replace { key, body, expect }).unwrap();
        }
    }

    fn delete(state: &mut State, resource: Resource, name: &str) {
        let key = Key::new(resource, "a", name);
        let (expect, uid) = (None, None);
        state.apply(Command::Delete { key, expect, uid }).unwrap();
    }

    struct Issued {
        state: State,
        issuer: Issuer,
        now: SystemTime,
        token: String,
    }

    impl Issued {
        fn new() -> Self {
            let mut state = State::default();
            put(&mut state, Resource::ServiceAccount, "robot", json!({}));
            put(&mut state, Resource::Secret, "held", json!({}));
            let issuer = Issuer::new(&CertificateAuthority::create("home").unwrap());
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            let secret = Key::new(Resource::Secret, "a", "held");
            let account = Key::new(Resource::ServiceAccount, "a", "robot");
            let grant = Grant {
                audiences: vec![issuer.url().to_owned(), "vault".into()],
                lifetime: Duration::from_secs(600),
                bound_to: Some(Named {
                    name: "held".into(),
                    uid: state.get(&secret).unwrap().uid().into(),
                }),
            };
            let (token, end) = issuer.issue(state.get(&account).unwrap(), grant, now);
            assert_eq!(end, now + Duration::from_secs(600));
            Self {
                state,
                issuer,
                now,
                token,
            }
        }

        fn check_at(&self, audience: &str, now: SystemTime) -> Result<(), Refused> {
            let claims = self.issuer.verify(&self.token)?;
            claims.check(&self.state, &[audience], now)
        }

        fn check(&self) -> Result<(), Refused> {
            self.check_at(self.issuer.url(), self.now)
        }
    }

    #[test]
    fn a_token_holds_for_its_time_and_audience() {
        let issued = Issued::new();
        let at = |seconds: i64| {
            let by = Duration::from_secs(seconds.unsigned_abs());
            match seconds < 0 {
                true => issued.now - by,
                false => issued.now + by,
            }
        };
        let url = issued.issuer.url();
        for (audience, seconds, expected) in [
            (url, 0, Ok(())),
            ("vault", 599, Ok(())),
            (url, 600, Err(Refused::Expired)),
            (url, -30, Ok(())),
            (url, -31, Err(Refused::Early)),
            ("other", 0, Err(Refused::Audience)),
        ] {
            assert_eq!(
                issued.check_at(audience, at(seconds)),
                expected,
                "{seconds}"
            );
        }
        let user = issued.issuer.verify(&issued.token).unwrap().user();
        assert_eq!(user.name, "system:serviceaccount:a:robot");
    }

    #[test]
    fn all_controllers_of_a_swarm_and_no_others_know_its_tokens() {
        let issued = Issued::new();
        let authority = CertificateAuthority::create("home").unwrap();
        let again =
            CertificateAuthority::load(&authority.certificate().to_pem(), &authority.key_pem())
                .unwrap();
        assert_eq!(
            Issuer::new(&authority).key_set(),
            Issuer::new(&again).key_set()
        );
        let other = Issuer::new(&authority);
        assert_eq!(other.verify(&issued.token).unwrap_err(), Refused::Foreign);
        assert!(!other.issued(&Unverified::parse(&issued.token).unwrap()));
    }

    #[test]
    fn a_token_ends_with_its_account_and_what_it_is_bound_to() {
        let mut issued = Issued::new();
        delete(&mut issued.state, Resource::Secret, "held");
        assert_eq!(issued.check(), Err(Refused::Bound));
        // Another of that name is not the one that was meant.
        put(&mut issued.state, Resource::Secret, "held", json!({}));
        assert_eq!(issued.check(), Err(Refused::Bound));

        let mut issued = Issued::new();
        delete(&mut issued.state, Resource::ServiceAccount, "robot");
        assert_eq!(issued.check(), Err(Refused::Account));
        put(
            &mut issued.state,
            Resource::ServiceAccount,
            "robot",
            json!({}),
        );
        assert_eq!(issued.check(), Err(Refused::Account));
    }

    #[test]
    fn tokens_are_revoked_one_by_one_or_up_to_a_time() {
        let mut issued = Issued::new();
        let id = issued.issuer.verify(&issued.token).unwrap().jti.clone();
        let time = |seconds: u64| {
            objects::timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        };
        for (annotations, expected) in [
            (json!({ REVOKED: "x, y" }), Ok(())),
            (
                json!({ REVOKED: format!("x, {id}") }),
                Err(Refused::Revoked),
            ),
            (json!({ NOT_BEFORE: time(1_699_999_999) }), Ok(())),
            (
                json!({ NOT_BEFORE: time(1_700_000_000) }),
                Err(Refused::Revoked),
            ),
            (json!({ NOT_BEFORE: "tomorrow" }), Err(Refused::Revoked)),
            (json!({}), Ok(())),
        ] {
            put(
                &mut issued.state,
                Resource::ServiceAccount,
                "robot",
                annotations.clone(),
            );
            assert_eq!(issued.check(), expected, "{annotations}");
        }
    }
}
