//! The rules of tunnels, read again where what they are read from changed alone: a list of passwords may have 10,000
//! lines, and everything that follows tunnels looks at every change of any Secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use hive_manifests::tunnel::access::Access;

use super::rules::{Problem, Rules};
use crate::state::{Key, State};

pub type Read = Arc<Result<Rules, Problem>>;

/// By tunnel.
#[derive(Default)]
pub struct KnownRules(BTreeMap<Key, (Source, Read)>);

/// What rules are read from. From the same they come out the same.
#[derive(PartialEq)]
struct Source {
    /// Of the tunnel.
    uid: String,
    access: Access,
    /// Uid and revision of each Secret, if it is there.
    secrets: Vec<Option<(String, u64)>>,
}

impl KnownRules {
    /// Those of a tunnel.
    pub fn of(&mut self, tunnel: &Key, uid: &str, access: &Access, state: &State) -> Read {
        let namespace = &*tunnel.namespace;
        let secrets = Rules::secrets(access, namespace).into_iter();
        let secrets = secrets.map(|secret| {
            let secret = state.get(&secret)?;
            Some((secret.uid().to_owned(), secret.revision()))
        });
        let source = Source {
            uid: uid.to_owned(),
            access: access.clone(),
            secrets: secrets.collect(),
        };
        if let Some((known, rules)) = self.0.get(tunnel)
            && *known == source
        {
            return rules.clone();
        }
        let rules = Arc::new(Rules::of(access, namespace, uid, state));
        self.0.insert(tunnel.clone(), (source, rules.clone()));
        rules
    }

    /// Forgets those of other tunnels.
    pub fn keep(&mut self, is_there: impl Fn(&Key) -> bool) {
        self.0.retain(|tunnel, _| is_there(tunnel));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use hive_manifests::Resource;
    use serde_json::{Value, json};

    use super::*;
    use crate::access::tokens::SYSTEM_NAMESPACE;
    use crate::fixture::declare;
    use crate::state::Command;

    fn write(state: &mut State, secret: &Key, field: &str, text: &str) {
        let data = json!({ "data": { field: BASE64.encode(text) } });
        declare(state, secret.clone(), data);
    }

    #[test]
    fn rules_are_read_again_when_what_they_are_read_from_changes() {
        let mut state = State::default();
        let secret = |namespace: &str, name: &str| Key::new(Resource::Secret, namespace, name);
        let (users, client) = (secret("default", "users"), secret("default", "client"));
        let sessions = secret(SYSTEM_NAMESPACE, "tunnel-sessions");
        let list = format!("ann:{}", bcrypt::hash("secret", 4).unwrap());
        let sealing = "0123456789abcdef0123456789abcdef";
        write(&mut state, &users, "auth", &list);
        write(&mut state, &client, "clientSecret", "secret");
        write(&mut state, &sessions, "key", sealing);
        let access = |said: Value| serde_json::from_value::<Access>(said).unwrap();
        let both = access(json!({
            "basicAuth": { "secretName": "users" },
            "oidc": { "issuerUrl": "https://login.example", "clientId": "c", "secretName": "client" },
        }));
        let mut known = KnownRules::default();
        let tunnel = Key::new(Resource::Tunnel, "default", "photos");
        let mut before = known.of(&tunnel, "uid", &both, &state);
        assert!(before.is_ok(), "{before:?}");
        let mut is_read = |state: &State, uid: &str, access: &Access| {
            let now = known.of(&tunnel, uid, access, state);
            assert_eq!(*now, Rules::of(access, "default", uid, state));
            let is_same = Arc::ptr_eq(&now, &before);
            before = now;
            !is_same
        };
        assert!(!is_read(&state, "uid", &both));
        let other = secret("default", "other");
        write(&mut state, &other, "auth", &list);
        assert!(!is_read(&state, "uid", &both));
        for (secret, field, text) in [
            (&users, "auth", &*list),
            (&client, "clientSecret", "another"),
            (&sessions, "key", "short"),
            (&sessions, "key", sealing),
        ] {
            write(&mut state, secret, field, text);
            assert!(is_read(&state, "uid", &both), "{secret}");
            assert!(!is_read(&state, "uid", &both), "{secret}");
        }
        assert!(is_read(&state, "another", &both));
        let (key, expect, uid) = (users.clone(), None, None);
        state.apply(Command::Delete { key, expect, uid }).unwrap();
        assert!(is_read(&state, "another", &both));
        assert!(is_read(&state, "another", &access(json!({}))));
        known.keep(|_| false);
        assert!(known.0.is_empty());
    }
}
