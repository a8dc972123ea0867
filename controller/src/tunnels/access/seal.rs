//! What browsers keep for a tunnel: encrypted and signed, so that they can neither read nor change it.
//!
//! One secret of the swarm is behind all keys, so that every controller opens what another one sealed. Each tunnel has
//! a key of its own: a session at one opens no other.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64};
use hive_identity::random_bytes;
use hive_manifests::Resource;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::objects::{self, EditError};
use crate::state::{Key, State};
use crate::store::Replica;

/// Of the Secret: 32 random bytes.
const KEY: &str = "key";

/// Bytes of the swarm's secret, and of every key.
const LENGTH: usize = 32;

/// Longer text is no cookie of a browser, which keeps 4096 bytes of each.
const MAX_SEALED: usize = 4096;

/// Seals what is of one tunnel.
#[derive(Clone, PartialEq, Eq)]
pub struct SealingKey([u8; LENGTH]);

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey")
    }
}

/// Where the swarm's secret is.
pub(super) fn secret_key() -> Key {
    Key::new(Resource::Secret, SYSTEM_NAMESPACE, "tunnel-sessions")
}

/// Whether there is one, good or not.
pub fn has_secret(state: &State) -> bool {
    state.get(&secret_key()).is_some()
}

/// Makes the secret of the swarm, unless somebody did. Who deletes it ends all sessions.
pub async fn make_secret(replica: &Replica) -> Result<(), EditError> {
    let key = secret_key();
    let secret = STANDARD.encode(random_bytes::<LENGTH>());
    let content = json!({ "type": "Opaque", "data": { KEY: secret } });
    let body = objects::fresh(&key, json!({}), content);
    objects::ensure(replica, key, body).await
}

impl SealingKey {
    /// `None` while the swarm has no secret, or one of another length.
    pub fn of(state: &State, tunnel_uid: &str) -> Option<Self> {
        let secret = state.get(&secret_key())?;
        let text = secret.body()["data"][KEY].as_str()?;
        let secret = STANDARD.decode(text).ok()?;
        let secret: [u8; LENGTH] = secret.try_into().ok()?;
        Some(Self::derived(&secret, tunnel_uid))
    }

    pub(super) fn derived(secret: &[u8; LENGTH], tunnel_uid: &str) -> Self {
        let random = Salt::new(HKDF_SHA256, b"hive tunnel sessions").extract(secret);
        let mut key = [0; LENGTH];
        random
            .expand(&[tunnel_uid.as_bytes()], HKDF_SHA256)
            .and_then(|expanded| expanded.fill(&mut key))
            .expect("HKDF gives 32 bytes");
        Self(key)
    }

    fn key(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).expect("the key has its length");
        LessSafeKey::new(key)
    }

    /// Text that only [`open`](Self::open) reads, for the same purpose.
    pub fn seal(&self, purpose: &str, content: &impl Serialize) -> String {
        let mut sealed = serde_json::to_vec(content).expect("what is sealed is plain data");
        let nonce = random_bytes::<NONCE_LEN>();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.key()
            .seal_in_place_append_tag(unique, Aad::from(purpose.as_bytes()), &mut sealed)
            .expect("what a cookie holds is short");
        BASE64.encode([&nonce[..], &sealed].concat())
    }

    /// `None` of what was not sealed so, or was changed.
    pub fn open<T: DeserializeOwned>(&self, purpose: &str, text: &str) -> Option<T> {
        if text.len() > MAX_SEALED {
            return None;
        }
        let mut bytes = BASE64.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_mut_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let content = self
            .key()
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), sealed);
        serde_json::from_slice(content.ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;

    fn key() -> SealingKey {
        SealingKey::derived(&[7; LENGTH], "uid-1")
    }

    #[test]
    fn only_the_same_key_and_purpose_open_it() {
        let sealed = key().seal("session", &"ada");
        assert!(!sealed.contains("ada"));
        let opened = |key: &SealingKey, purpose| key.open::<String>(purpose, &sealed);
        assert_eq!(opened(&key(), "session").as_deref(), Some("ada"));
        assert_eq!(opened(&key(), "attempt"), None);
        assert_eq!(
            opened(&SealingKey::derived(&[7; LENGTH], "uid-2"), "session"),
            None
        );
        assert_eq!(
            opened(&SealingKey::derived(&[8; LENGTH], "uid-1"), "session"),
            None
        );
        assert_ne!(sealed, key().seal("session", &"ada"));
        assert_eq!(format!("{:?}", key()), "SealingKey");
    }

    #[test]
    fn what_fits_no_cookie_is_not_opened() {
        for (length, expected) in [(3000, true), (4000, false)] {
            let content = "a".repeat(length);
            let sealed = key().seal("session", &content);
            let opened = key().open::<String>("session", &sealed);
            assert_eq!(opened, expected.then_some(content), "{length}");
        }
    }

    #[test]
    fn controllers_have_the_same_key_once_there_is_a_secret() {
        let mut state = State::default();
        assert_eq!(SealingKey::of(&state, "uid-1"), None);
        let encoded = STANDARD.encode([7_u8; LENGTH]);
        for (data, found) in [
            (json!({}), None),
            (json!({ KEY: "c2hvcnQ=" }), None),
            (json!({ KEY: encoded }), Some(key())),
        ] {
            let body = objects::fresh(&secret_key(), json!({}), json!({ "data": data }));
            fixture::put(&mut state, secret_key(), &body);
            assert_eq!(SealingKey::of(&state, "uid-1"), found);
        }
    }

    proptest! {
        #[test]
        fn no_changed_letter_opens(position in 0usize..1000, letter in "[A-Za-z0-9_-]") {
            let sealed = key().seal("session", &"ada");
            let position = position % sealed.len();
            let mut changed = sealed.clone();
            changed.replace_range(position..=position, &letter);
            let opened = key().open::<String>("session", &changed);
            prop_assert!(changed == sealed || opened.is_none());
        }

        #[test]
        fn any_text_is_refused_without_a_panic(text in "[A-Za-z0-9_=-]{0,80}") {
            prop_assert_eq!(key().open::<String>("session", &text), None);
        }
    }
}
