//! Tokens, kept as Secrets in `hive-system`: who may join, and who may use the API.
//!
//! Only the hash of a token is stored. Looking one up reads the replica's state, so that a
//! revoked token stops working with the commit of its deletion.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_identity::{TokenHash, TokenSecret};
use hive_manifests::Resource;
use serde_json::{Map, Value, json};

use crate::objects;
use crate::state::{Key, Object, State};

pub const SYSTEM_NAMESPACE: &str = "hive-system";
pub const TOKEN_TYPE: &str = "hive.dev/token";

/// Users of a token that get their answer again for nothing. Whoever lost it asks within seconds.
const REMEMBERED_KEYS: usize = 64;

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Enrols a node.
    Join,
    /// Admits a controller: it receives the CA's key.
    ControllerJoin,
    /// Authenticates a person or CI to the API.
    Api,
}

/// What the holder of an API token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Reads and writes outside the system's namespace.
    Edit,
    /// Reads, but no secrets.
    View,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub key: Key,
    pub kind: TokenKind,
    pub role: Option<Role>,
    pub expiry: Option<SystemTime>,
    /// `None` = as often as one likes.
    pub uses_left: Option<u64>,
}

/// Why a token opens nothing. Which of these it was is told to its holder only where the secret
/// was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not known here: it was revoked, mistyped, or made for another swarm")]
    Unknown,
    #[error("the token has expired: make a new one with `hivectl token create`")]
    Expired,
    #[error("the token was used as often as it may be: make a new one with `hivectl token create`")]
    UsedUp,
    #[error("the token is for {found}, not for {wanted}")]
    WrongKind { found: TokenKind, wanted: TokenKind },
}

/// The stored token that `secret` opens, if it may still be used for `wanted`.
pub fn check(
    state: &State,
    secret: &TokenSecret,
    wanted: TokenKind,
    now: SystemTime,
) -> Result<Token, TokenError> {
    match find(state, secret, wanted, now)? {
        token if token.uses_left == Some(0) => Err(TokenError::UsedUp),
        token => Ok(token),
    }
}

/// The stored token that `secret` opens for the holder of a device key: whoever used it before uses
/// it again for nothing, as the answer to the first time may have been lost.
pub fn check_for_key(
    state: &State,
    secret: &TokenSecret,
    wanted: TokenKind,
    key: &str,
    now: SystemTime,
) -> Result<Token, TokenError> {
    let token = find(state, secret, wanted, now)?;
    let known = state
        .get(&token.key)
        .is_some_and(|object| used_by(object.body()).any(|used| used == key));
    match token.uses_left {
        Some(0) if !known => Err(TokenError::UsedUp),
        _ => Ok(token),
    }
}

fn find(
    state: &State,
    secret: &TokenSecret,
    wanted: TokenKind,
    now: SystemTime,
) -> Result<Token, TokenError> {
    let object = state
        .get(&token_key(secret.id()))
        .ok_or(TokenError::Unknown)?;
    let hash = field(object, "hash").and_then(|text| TokenHash::from_str(&text).ok());
    if !hash.is_some_and(|hash| hash.verify(secret)) {
        return Err(TokenError::Unknown);
    }
    let token = Token::read(object).ok_or(TokenError::Unknown)?;
    if token.kind != wanted {
        return Err(TokenError::WrongKind {
            found: token.kind,
            wanted,
        });
    }
    if token.expiry.is_some_and(|expiry| expiry <= now) {
        return Err(TokenError::Expired);
    }
    Ok(token)
}

/// The device keys that used a token.
fn used_by(body: &Value) -> impl Iterator<Item = String> {
    let text = body["data"]["usedBy"].as_str().and_then(decode);
    let keys: Vec<String> = text
        .unwrap_or_default()
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    keys.into_iter()
}

pub fn token_key(id: &str) -> Key {
    Key::new(Resource::Secret, SYSTEM_NAMESPACE, format!("token-{id}"))
}

/// The Secret that stands for a new token.
pub fn token_object(
    secret: &TokenSecret,
    kind: TokenKind,
    role: Option<Role>,
    expiry: Option<SystemTime>,
    uses: Option<u64>,
) -> (Key, Value) {
    let key = token_key(secret.id());
    let mut data = Map::new();
    let mut set = |name: &str, value: String| data.insert(name.into(), BASE64.encode(value).into());
    set("hash", secret.hash().to_string());
    set("kind", kind.name().to_owned());
    if let Some(role) = role {
        set("role", role.name().to_owned());
    }
    if let Some(expiry) = expiry {
        set("expiry", objects::timestamp(expiry));
    }
    if let Some(uses) = uses {
        set("usesLeft", uses.to_string());
    }
    let labels = json!({ "hive.dev/token": kind.name() });
    let body = objects::fresh(&key, labels, json!({ "type": TOKEN_TYPE, "data": data }));
    (key, body)
}

/// What came of using a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is not limited, or this key used it before.
    Free,
    Counted,
    /// It was used as often as it may be.
    Refused,
}

/// Counts one use of a token by a device key in the token's Secret.
pub fn count_use(body: &mut Value, key: &str) -> Use {
    let left = body["data"]["usesLeft"]
        .as_str()
        .and_then(decode)
        .and_then(|text| text.parse::<u64>().ok());
    let mut keys: Vec<String> = used_by(body).collect();
    match left {
        None => Use::Free,
        Some(_) if keys.iter().any(|used| used == key) => Use::Free,
        Some(0) => Use::Refused,
        Some(left) => {
            keys.push(key.to_owned());
            let first = keys.len().saturating_sub(REMEMBERED_KEYS);
            body["data"]["usesLeft"] = json!(BASE64.encode((left - 1).to_string()));
            body["data"]["usedBy"] = json!(BASE64.encode(keys[first..].join(" ")));
            Use::Counted
        }
    }
}

impl Token {
    pub fn read(object: &Object) -> Option<Self> {
        if object.body()["type"] != TOKEN_TYPE {
            return None;
        }
        Some(Self {
            key: object.key().clone(),
            kind: TokenKind::from_name(&field(object, "kind")?)?,
            role: match field(object, "role") {
                None => None,
                Some(name) => Some(Role::from_name(&name)?),
            },
            // A limit that can't be read closes the token rather than opening it for ever.
            expiry: match field(object, "expiry") {
                None => None,
                Some(text) => Some(text.parse::<jiff::Timestamp>().ok()?.into()),
            },
            uses_left: match field(object, "usesLeft") {
                None => None,
                Some(text) => Some(text.parse().ok()?),
            },
        })
    }
}

fn field(object: &Object, name: &str) -> Option<String> {
    decode(object.body()["data"][name].as_str()?)
}

fn decode(text: &str) -> Option<String> {
    String::from_utf8(BASE64.decode(text).ok()?).ok()
}

impl TokenKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::ControllerJoin => "controller-join",
            Self::Api => "api",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Join, Self::ControllerJoin, Self::Api]
            .into_iter()
            .find(|kind| kind.name() == name)
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Join => "joining nodes",
            Self::ControllerJoin => "joining controllers",
            Self::Api => "the API",
        })
    }
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Edit => "edit",
            Self::View => "view",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Admin, Self::Edit, Self::View]
            .into_iter()
            .find(|role| role.name() == name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::Command;
    use std::time::Duration;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    fn state_with(
        kind: TokenKind,
        expiry: Option<SystemTime>,
        uses: Option<u64>,
    ) -> (State, TokenSecret) {
        let secret = TokenSecret::generate();
        let (key, body) = token_object(&secret, kind, None, expiry, uses);
        let mut state = State::default();
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
        (state, secret)
    }

    #[test]
    fn a_token_opens_what_it_was_made_for_while_it_lasts() {
        let soon = Some(now() + Duration::from_secs(1));
        let past = Some(now() - Duration::from_secs(1));
        let cases = [
            (TokenKind::Join, None, None, Ok(())),
            (TokenKind::Join, soon, Some(1), Ok(())),
            (TokenKind::Join, past, None, Err(TokenError::Expired)),
            (TokenKind::Join, soon, Some(0), Err(TokenError::UsedUp)),
            (
                TokenKind::Api,
                None,
                None,
                Err(TokenError::WrongKind {
                    found: TokenKind::Api,
                    wanted: TokenKind::Join,
                }),
            ),
        ];
        for (kind, expiry, uses, expected) in cases {
            let (state, secret) = state_with(kind, expiry, uses);
            let found = check(&state, &secret, TokenKind::Join, now()).map(|_| ());
            assert_eq!(found, expected, "{kind:?} {expiry:?} {uses:?}");
        }
    }

    #[test]
    fn another_secret_under_a_known_id_is_unknown() {
        let (state, secret) = state_with(TokenKind::Join, None, None);
        let other = TokenSecret::generate();
        assert_eq!(
            check(&state, &other, TokenKind::Join, now()),
            Err(TokenError::Unknown)
        );
        let (other, own) = (other.to_string(), secret.to_string());
        let (_, rest) = other.split_once('-').unwrap();
        let forged = format!("{}-{rest}", secret.id());
        assert_ne!(forged, own);
        let forged = TokenSecret::parse(&forged).unwrap();
        assert_eq!(
            check(&state, &forged, TokenKind::Join, now()),
            Err(TokenError::Unknown)
        );
    }

    #[test]
    fn who_used_a_token_uses_it_again_for_nothing_while_it_lasts() {
        let (mut state, secret) = state_with(
            TokenKind::Join,
            Some(now() + Duration::from_secs(60)),
            Some(1),
        );
        let key = token_key(secret.id());
        let mut body = state.get(&key).unwrap().body().clone();
        assert_eq!(count_use(&mut body, "a"), Use::Counted);
        assert_eq!(count_use(&mut body, "a"), Use::Free);
        let replaced = Command::Replace {
            key,
            body: body.into(),
            expect: None,
        };
        state.apply(replaced).unwrap();
        let check = |key, now| {
            check_for_key(&state, &secret, TokenKind::Join, key, now).map(|token| token.uses_left)
        };
        assert_eq!(check("a", now()), Ok(Some(0)));
        assert_eq!(check("b", now()), Err(TokenError::UsedUp));
        let later = now() + Duration::from_secs(61);
        assert_eq!(check("a", later), Err(TokenError::Expired));
    }

    #[test]
    fn uses_are_counted_down_to_nothing() {
        let secret = TokenSecret::generate();
        let (_, mut body) = token_object(&secret, TokenKind::Join, None, None, Some(1));
        assert_eq!(count_use(&mut body, "a"), Use::Counted);
        assert_eq!(count_use(&mut body, "b"), Use::Refused);
        assert_eq!(body["data"]["usesLeft"], json!(BASE64.encode("0")));
        let (_, mut unlimited) = token_object(&secret, TokenKind::Join, None, None, None);
        assert_eq!(count_use(&mut unlimited, "a"), Use::Free);
    }
}
