//! What a tunnel's spec and its Secrets come to. Pure: the same on every controller that applied the same state.
//!
//! Where something is missing there are no rules, and nobody is let in.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::Resource;
use hive_manifests::tunnel::access::{Access, Bearer, OidcLogin};

use super::clients::Networks;
use super::rate::Rate;
use super::seal::{SealingKey, secret_key};
use super::users::{BadUsers, Users};
use crate::state::{Key, State};

/// In the Secret of names and passwords, as others who read such Secrets call it.
const USERS_KEY: &str = "auth";

/// In the Secret of a client of an issuer.
const CLIENT_KEY: &str = "clientSecret";

/// Who may use a tunnel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// `None`: from everywhere.
    pub clients: Option<Networks>,
    pub rate: Option<Rate>,
    pub basic: Option<Basic>,
    pub bearer: Option<Bearer>,
    pub login: Option<Login>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Basic {
    pub users: Users,
    pub forward: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Login {
    pub spec: OidcLogin,
    pub secret: Option<ClientSecret>,
    pub key: SealingKey,
    /// By which its cookies are told from those of other tunnels.
    pub uid: String,
}

#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(String);

impl ClientSecret {
    /// For the issuer alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret")
    }
}

/// Why there are no rules: the field, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error(
        "spec.access.{field}.secretName: Secret {name} is not in namespace {namespace}: create it, or correct the name"
    )]
    NoSecret {
        field: &'static str,
        namespace: String,
        name: String,
    },
    #[error(
        "spec.access.{field}.secretName: Secret {name} has no text as {key:?}: add it to the Secret's data"
    )]
    NoText {
        field: &'static str,
        name: String,
        key: &'static str,
    },
    #[error("spec.access.basicAuth.secretName: Secret {name}, key \"auth\": {why}")]
    Users { name: String, why: BadUsers },
    #[error("spec.access.allowedClients: {0:?} is no network: correct it, or leave it out")]
    Network(String),
    #[error(
        "spec.access.oidc: Secret hive-system/tunnel-sessions has no 32 bytes as \"key\": delete it, and the controller that leads makes it anew"
    )]
    NoSealingKey,
}

impl Problem {
    /// In one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSecret { .. } => "SecretNotFound",
            Self::NoText { .. } | Self::Users { .. } => "BadSecret",
            Self::Network(_) => "BadAccess",
            Self::NoSealingKey => "NoSessionKey",
        }
    }
}

impl Rules {
    /// Those of a tunnel in a namespace.
    pub fn of(access: &Access, namespace: &str, uid: &str, state: &State) -> Result<Self, Problem> {
        let text = |field, name: &str, key| text(state, field, namespace, name, key);
        let clients = match &*access.allowed_clients {
            [] => None,
            some => {
                let networks = Networks::read(some.iter().map(String::as_str));
                Some(networks.map_err(|wrong| Problem::Network(wrong.to_owned()))?)
            }
        };
        let rate = access.rate_limit.map(|limit| Rate {
            per_second: limit.requests_per_second,
            burst: limit.burst.unwrap_or(limit.requests_per_second),
        });
        let basic = match &access.basic_auth {
            None => None,
            Some(basic) => {
                let name = &basic.secret_name;
                let lines = text("basicAuth", name, USERS_KEY)?;
                let users = Users::read(&lines).map_err(|why| Problem::Users {
                    name: name.clone(),
                    why,
                })?;
                Some(Basic {
                    users,
                    forward: basic.forward,
                })
            }
        };
        let login = match &access.oidc {
            None => None,
            Some(spec) => {
                let secret = match &spec.secret_name {
                    None => None,
                    // Files end with a line end, which no secret has.
                    Some(name) => {
                        let text = text("oidc", name, CLIENT_KEY)?;
                        Some(ClientSecret(text.trim_end().to_owned()))
                    }
                };
                Some(Login {
                    spec: spec.clone(),
                    secret,
                    key: SealingKey::of(state, uid).ok_or(Problem::NoSealingKey)?,
                    uid: uid.to_owned(),
                })
            }
        };
        Ok(Self {
            clients,
            rate,
            basic,
            bearer: access.bearer.clone(),
            login,
        })
    }

    /// The Secrets that are read for them.
    pub fn secrets(access: &Access, namespace: &str) -> Vec<Key> {
        let basic = access.basic_auth.as_ref().map(|it| &it.secret_name);
        let login = access.oidc.as_ref();
        let client = login.and_then(|it| it.secret_name.as_ref());
        let named = basic.into_iter().chain(client);
        named
            .map(|name| Key::new(Resource::Secret, namespace, &**name))
            .chain(login.map(|_| secret_key()))
            .collect()
    }

    /// There is something that a client must say of itself.
    pub fn asks_who(&self) -> bool {
        self.basic.is_some() || self.bearer.is_some() || self.login.is_some()
    }
}

fn text(
    state: &State,
    field: &'static str,
    namespace: &str,
    name: &str,
    key: &'static str,
) -> Result<String, Problem> {
    let secret = state.get(&Key::new(Resource::Secret, namespace, name));
    let secret = secret.ok_or_else(|| Problem::NoSecret {
        field,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })?;
    let text = secret.body()["data"][key].as_str();
    let bytes = text.and_then(|text| BASE64.decode(text).ok());
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| Problem::NoText {
            field,
            name: name.to_owned(),
            key,
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;
    use crate::access::tokens::SYSTEM_NAMESPACE;
    use crate::fixture::declare;
    use crate::state::Command;

    const HASH: &str = "$2y$10$................................................uuuuu";

    fn secret(state: &mut State, namespace: &str, name: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> = data
            .iter()
            .map(|(key, text)| ((*key).to_owned(), json!(BASE64.encode(text))))
            .collect();
        let key = Key::new(Resource::Secret, namespace, name);
        declare(state, key, json!({ "data": data }));
    }

    fn rules(state: &State, access: Value) -> Result<Rules, Problem> {
        let access: Access = serde_json::from_value(access).unwrap();
        Rules::of(&access, "default", "uid", state)
    }

    #[test]
    fn what_is_missing_is_named_by_field_secret_and_what_helps() {
        let mut state = State::default();
        let basic = json!({ "basicAuth": { "secretName": "users" } });
        let login = |secret: Value| {
            json!({ "oidc": { "issuerUrl": "https://login.example", "clientId": "photos",
                              "secretName": secret } })
        };
        let mut says = |change: Option<(&str, &str, &str, &str)>, access: &Value| {
            if let Some((namespace, name, key, text)) = change {
                let known = Key::new(Resource::Secret, namespace, name);
                let (expect, uid) = (None, None);
                let _ = state.apply(Command::Delete {
                    key: known,
                    expect,
                    uid,
                });
                secret(&mut state, namespace, name, &[(key, text)]);
            }
            match rules(&state, access.clone()) {
                Ok(_) => "good".to_owned(),
                Err(problem) => format!("{}: {problem}", problem.reason()),
            }
        };
        let good = format!("ann:{HASH}\n");
        for (change, access, expected) in [
            (
                None,
                &basic,
                "SecretNotFound: spec.access.basicAuth.secretName: Secret users is not in namespace default: create it, or correct the name",
            ),
            // One of another namespace is somebody else's.
            (
                Some(("other", "users", "auth", &*good)),
                &basic,
                "SecretNotFound: spec.access.basicAuth.secretName: Secret users is not in namespace default: create it, or correct the name",
            ),
            (
                Some(("default", "users", "users", "x")),
                &basic,
                "BadSecret: spec.access.basicAuth.secretName: Secret users has no text as \"auth\": add it to the Secret's data",
            ),
            (
                Some(("default", "users", "auth", "ann:plain")),
                &basic,
                "BadSecret: spec.access.basicAuth.secretName: Secret users, key \"auth\": line 1 has a password that is not hashed by bcrypt: make it by `htpasswd -nB NAME`",
            ),
            (Some(("default", "users", "auth", &*good)), &basic, "good"),
            (
                None,
                &login(json!("client")),
                "SecretNotFound: spec.access.oidc.secretName: Secret client is not in namespace default: create it, or correct the name",
            ),
            (
                Some(("default", "client", "clientSecret", "s3cret\n")),
                &login(json!("client")),
                "NoSessionKey: spec.access.oidc: Secret hive-system/tunnel-sessions has no 32 bytes as \"key\": delete it, and the controller that leads makes it anew",
            ),
            (
                Some((
                    SYSTEM_NAMESPACE,
                    "tunnel-sessions",
                    "key",
                    "0123456789abcdef0123456789abcdef",
                )),
                &login(json!("client")),
                "good",
            ),
            (None, &login(Value::Null), "good"),
        ] {
            assert_eq!(says(change, access), expected, "{access}");
        }
        let rules = rules(&state, login(json!("client"))).unwrap();
        let shown = format!("{rules:?}");
        assert!(
            !shown.contains("s3cret") && !shown.contains("012345"),
            "{shown}"
        );
        assert_eq!(rules.login.unwrap().secret.unwrap().reveal(), "s3cret");
    }

    #[test]
    fn limits_are_those_of_the_spec() {
        let state = State::default();
        let open = rules(&state, json!({})).unwrap();
        assert_eq!(open, Rules::default());
        assert!(!open.asks_who());
        let limit =
            json!({ "rateLimit": { "requestsPerSecond": 10 }, "allowedClients": ["10.0.0.0/8"] });
        let limited = rules(&state, limit).unwrap();
        let rate = Rate {
            per_second: 10,
            burst: 10,
        };
        assert_eq!(limited.rate, Some(rate));
        let clients = limited.clients.unwrap();
        assert!(clients.contains("10.1.2.3".parse().unwrap()));
        assert!(!clients.contains("11.1.2.3".parse().unwrap()));
        let wrong = rules(&state, json!({ "allowedClients": ["10.0.0.0/33"] })).unwrap_err();
        assert_eq!(wrong, Problem::Network("10.0.0.0/33".into()));
    }
}
