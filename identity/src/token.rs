//! Secrets that people carry: the token with which a machine joins, and the one that opens the API.
//! Made here, copied by hand, parsed here; controllers keep only hashes.
//! A secret leaves through `Display` alone: never through Debug, an error, or the serialised form.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

use crate::fingerprint::sha256_newtype;
use crate::{CaFingerprint, FingerprintError, random};

const JOIN_PREFIX: &str = "hive1";
const API_PREFIX: &str = "hivetok";

/// 40 bits: enough to look a token up by, among the few that a cluster has.
const ID_CHARS: usize = 8;

/// 260 bits: as many as SHA-256 can keep apart.
const SECRET_CHARS: usize = 52;

/// Five bits a character, all selected by one double-click, none mistaken for another in print.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// `<id>-<secret>`: the id is public and finds the entry, the whole text is what is proven.
#[derive(Clone)]
pub struct TokenSecret(String);

sha256_newtype! {
    /// A [`TokenSecret`] at rest: SHA-256 of its text.
    ///
    /// A slow, salted hash is for what people can remember. Against 260 random bits a guess is
    /// hopeless at any speed, and a fast hash keeps bad tokens from costing a controller its CPU.
    TokenHash
}

/// `hive1.<fingerprint of the CA>.<secret>`: all that a new machine must be given.
#[derive(Debug, Clone)]
pub struct JoinToken {
    pub ca: CaFingerprint,
    pub secret: TokenSecret,
}

/// `hivetok.<secret>`: the bearer token of a person or a CI job. The prefix lets secret scanners
/// find a leaked one.
#[derive(Debug, Clone)]
pub struct ApiToken {
    pub secret: TokenSecret,
}

/// What is wrong with a token's text. Never quotes it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TokenError {
    #[error("not a join token: one starts with \"{JOIN_PREFIX}.\"")]
    NotJoin,
    #[error("this is an API token; a machine joins with one that starts with \"{JOIN_PREFIX}.\"")]
    ApiInsteadOfJoin,
    #[error("a join token of version {0}, and this program reads version 1: update it")]
    Version(u32),
    #[error("not an API token: one starts with \"{API_PREFIX}.\"")]
    NotApi,
    #[error("this is a join token; the API wants one that starts with \"{API_PREFIX}.\"")]
    JoinInsteadOfApi,
    #[error("the token is cut short: nothing follows the CA's fingerprint")]
    NoSecret,
    #[error("the token's CA fingerprint is damaged: was all of it copied?")]
    Fingerprint(#[source] FingerprintError),
    #[error(
        "the token's secret is damaged: it has {ID_CHARS} characters, '-', and {SECRET_CHARS} more \
         (this has {before} and {after}): was all of it copied?"
    )]
    SecretLength { before: usize, after: usize },
    #[error("the token's secret is damaged: only a-z and 2-7 occur in one")]
    SecretCharacter,
}

impl TokenSecret {
    pub fn generate() -> Self {
        // 256 is a multiple of 32, so every character is equally likely.
        let characters = random::bytes::<{ ID_CHARS + SECRET_CHARS }>()
            .map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        let (id, secret) = characters.split_at(ID_CHARS);
        Self(id.iter().chain(&['-']).chain(secret).collect())
    }

    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let (id, secret) = text.split_once('-').unwrap_or((text, ""));
        let (before, after) = (id.chars().count(), secret.chars().count());
        if (before, after) != (ID_CHARS, SECRET_CHARS) {
            return Err(TokenError::SecretLength { before, after });
        }
        if !id
            .bytes()
            .chain(secret.bytes())
            .all(|b| ALPHABET.contains(&b))
        {
            return Err(TokenError::SecretCharacter);
        }
        Ok(Self(text.to_owned()))
    }

    /// The public part, by which the hash is looked up.
    pub fn id(&self) -> &str {
        &self.0[..ID_CHARS]
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash::of_bytes(self.0.as_bytes())
    }
}

impl TokenHash {
    /// Whether this is the hash of `secret`, in a time that doesn't depend on where they differ.
    pub fn verify(&self, secret: &TokenSecret) -> bool {
        self.as_bytes().ct_eq(secret.hash().as_bytes()).into()
    }
}

impl JoinToken {
    pub fn generate(ca: CaFingerprint) -> Self {
        Self {
            ca,
            secret: TokenSecret::generate(),
        }
    }
}

impl ApiToken {
    pub fn generate() -> Self {
        Self {
            secret: TokenSecret::generate(),
        }
    }
}

impl FromStr for TokenSecret {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::parse(text)
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Surrounding white space is ignored: tokens come from files and the clipboard.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (prefix, rest) = text.trim().split_once('.').ok_or(TokenError::NotJoin)?;
        match prefix {
            JOIN_PREFIX => {}
            API_PREFIX => return Err(TokenError::ApiInsteadOfJoin),
            other => {
                let version = other.strip_prefix("hive").and_then(|v| v.parse().ok());
                return Err(version.map_or(TokenError::NotJoin, TokenError::Version));
            }
        }
        let (ca, secret) = match rest.split_once('.') {
            Some((ca, secret)) => (ca, Some(secret)),
            None => (rest, None),
        };
        let ca = ca.parse().map_err(TokenError::Fingerprint)?;
        let secret = TokenSecret::parse(secret.ok_or(TokenError::NoSecret)?)?;
        Ok(Self { ca, secret })
    }
}

impl FromStr for ApiToken {
    type Err = TokenError;

    /// Surrounding white space is ignored: tokens come from files and the clipboard.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (prefix, secret) = text.trim().split_once('.').ok_or(TokenError::NotApi)?;
        match prefix {
            API_PREFIX => Ok(Self {
                secret: TokenSecret::parse(secret)?,
            }),
            JOIN_PREFIX => Err(TokenError::JoinInsteadOfApi),
            _ => Err(TokenError::NotApi),
        }
    }
}

impl fmt::Display for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{JOIN_PREFIX}.{}.{}", self.ca, self.secret)
    }
}

impl fmt::Display for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{API_PREFIX}.{}", self.secret)
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenSecret({}-[redacted])", self.id())
    }
}

#[cfg(test)]
mod tests;
