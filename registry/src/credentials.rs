//! Who one is to which registry: a Docker `config.json`, which is what Secrets of type
//! `kubernetes.io/dockerconfigjson` hold too.
//!
//! Names and passwords flow in and are given out for one reference at a time. They are never shown.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::reference::Reference;

/// As large as a Secret may be. Bytes.
pub const MAX_CREDENTIALS_BYTES: usize = 1 << 20;

/// What `docker login` writes for Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What is not to be shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// How one signs in to a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    Password {
        username: String,
        password: Secret,
    },
    /// An OAuth2 refresh token, which the registry's realm changes for an access token.
    Identity(Secret),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Login(Login),
    /// A program of this name knows: `docker-credential-<name>`.
    Helper(String),
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("it is larger than {} KiB", MAX_CREDENTIALS_BYTES >> 10)]
    TooLarge,
    /// Nothing of it is shown: it is made of secrets.
    #[error("it is no Docker config: JSON with \"auths\" in it (line {line}, column {column})")]
    NotAConfig { line: usize, column: usize },
    #[error(
        "the entry for {0:?} holds neither \"auth\" (base64 of name:password) nor \"username\" and \"password\""
    )]
    Entry(String),
}

/// A Docker config, as far as it says who one is.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    entries: Vec<Entry>,
    helpers: BTreeMap<String, String>,
    store: Option<String>,
}

#[derive(Clone, Debug)]
struct Entry {
    scope: Scope,
    login: Option<Login>,
}

/// What an entry is for: a registry, or what begins with a path there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    registry: String,
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl Credentials {
    pub fn parse(bytes: &[u8]) -> Result<Self, CredentialsError> {
        if bytes.len() > MAX_CREDENTIALS_BYTES {
            return Err(CredentialsError::TooLarge);
        }
        let config: Config =
            serde_json::from_slice(bytes).map_err(|error| CredentialsError::NotAConfig {
                line: error.line(),
                column: error.column(),
            })?;
        let entries = config.auths.into_iter().map(|(key, auth)| {
            Ok(Entry {
                login: auth
                    .login()
                    .map_err(|()| CredentialsError::Entry(key.clone()))?,
                scope: Scope::of(&key),
            })
        });
        Ok(Self {
            entries: entries.collect::<Result<_, _>>()?,
            helpers: config.cred_helpers,
            store: config.creds_store,
        })
    }

    /// For one registry, as `kubectl create secret docker-registry` writes it.
    pub fn write(server: &str, username: &str, password: &str, email: Option<&str>) -> Value {
        let auth = BASE64.encode(format!("{username}:{password}"));
        let mut entry = json!({ "username": username, "password": password, "auth": auth });
        if let Some(email) = email {
            entry["email"] = json!(email);
        }
        json!({ "auths": { server: entry } })
    }

    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.login.is_none())
    }

    /// Who one is to the registry of an image; the entry whose path says most of it wins.
    pub fn find(&self, reference: &Reference) -> Lookup {
        let known = self
            .entries
            .iter()
            .filter(|entry| entry.login.is_some() && entry.scope.holds(reference))
            .max_by_key(|entry| entry.scope.path.len())
            .and_then(|entry| entry.login.clone());
        if let Some(login) = known {
            return Lookup::Login(login);
        }
        let helper = self
            .helpers
            .iter()
            .find(|(key, _)| Scope::of(key).holds(reference))
            .map(|(_, helper)| helper)
            // `docker login` leaves an empty entry for what its store knows.
            .or(self.store.as_ref().filter(|_| {
                self.entries
                    .iter()
                    .any(|entry| entry.scope.holds(reference))
            }));
        match helper {
            Some(helper) => Lookup::Helper(helper.clone()),
            None => Lookup::None,
        }
    }

    /// The key that Docker has for a registry, for telling people.
    pub fn key_of(reference: &Reference) -> &str {
        match reference.registry() {
            "docker.io" => DOCKER_HUB_KEY,
            registry => registry,
        }
    }
}

impl Auth {
    /// `None` for an empty entry.
    fn login(self) -> Result<Option<Login>, ()> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(Secret(self.identitytoken))));
        }
        let (username, password) = match (self.auth.is_empty(), self.username.is_empty()) {
            (true, true) => return Ok(None),
            (true, false) => (self.username, self.password),
            (false, _) => {
                let decoded = BASE64.decode(self.auth.trim()).map_err(|_| ())?;
                let text = String::from_utf8(decoded).map_err(|_| ())?;
                // Old versions of Docker ended it with zeros.
                let text = text.trim_end_matches('\0');
                let (username, password) = text.split_once(':').ok_or(())?;
                (username.to_owned(), password.to_owned())
            }
        };
        Ok(Some(Login::Password {
            username,
            password: Secret(password),
        }))
    }
}

impl Scope {
    /// `https://ghcr.io/v1/`, `ghcr.io` and `ghcr.io/acme` are seen in the field.
    fn of(key: &str) -> Self {
        let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
        let bare = bare.trim_end_matches('/');
        let bare = bare
            .strip_suffix("/v1")
            .or(bare.strip_suffix("/v2"))
            .unwrap_or(bare);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        let registry = match host {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            host => host.to_ascii_lowercase(),
        };
        Self {
            registry,
            path: path.to_owned(),
        }
    }

    fn holds(&self, reference: &Reference) -> bool {
        let below = || match reference.repository().strip_prefix(&*self.path) {
            Some(rest) => self.path.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        self.registry == reference.registry() && below()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn find(config: &Value, reference: &str) -> String {
        let credentials = Credentials::parse(config.to_string().as_bytes()).unwrap();
        match credentials.find(&reference.parse().unwrap()) {
            Lookup::Login(Login::Password { username, password }) => {
                format!("{username}:{}", password.expose())
            }
            Lookup::Login(Login::Identity(token)) => format!("identity {}", token.expose()),
            Lookup::Helper(helper) => format!("helper {helper}"),
            Lookup::None => "nobody".to_owned(),
        }
    }

    #[test]
    fn the_entry_that_says_most_of_the_image_is_taken() {
        let config = json!({
            "auths": {
                "https://index.docker.io/v1/": { "auth": BASE64.encode("hub:a:b") },
                "ghcr.io": { "username": "all", "password": "x" },
                "https://ghcr.io/acme": { "username": "acme", "password": "y" },
                "REGISTRY.lan:5000/v2/": { "auth": BASE64.encode("lan:z\0\0") },
                "azure.example": { "auth": BASE64.encode("0000:"), "identitytoken": "refresh" },
                "quay.io": {},
            },
            "credHelpers": { "gcr.io": "gcloud" },
            "credsStore": "desktop",
        });
        for (reference, who) in [
            ("hello", "hub:a:b"),
            ("ghcr.io/other/x", "all:x"),
            ("ghcr.io/acme/x", "acme:y"),
            ("ghcr.io/acme", "acme:y"),
            ("ghcr.io/acme-not/x", "all:x"),
            ("registry.lan:5000/x", "lan:z"),
            ("registry.lan/x", "nobody"),
            ("azure.example/x", "identity refresh"),
            ("gcr.io/x", "helper gcloud"),
            ("quay.io/x", "helper desktop"),
            ("elsewhere.io/x", "nobody"),
        ] {
            assert_eq!(find(&config, reference), who, "{reference}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let written = Credentials::write("ghcr.io", "me", "se:cret", Some("me@example.com"));
        assert_eq!(find(&written, "ghcr.io/a"), "me:se:cret");
    }

    #[test]
    fn complaints_and_logs_hold_no_secrets() {
        for bad in [
            r#"{"auths":{"a":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"a":{"auth":"!hidden!"}}}"#,
            r#"{"auths":{"a":"hidden"}}"#,
            "hidden",
        ] {
            let error = Credentials::parse(bad.as_bytes()).unwrap_err();
            assert!(
                !format!("{error} {error:?}").contains("hidden"),
                "{error:?}"
            );
        }
        let written = Credentials::write("ghcr.io", "me", "hidden", None).to_string();
        let credentials = Credentials::parse(written.as_bytes()).unwrap();
        assert!(!format!("{credentials:?}").contains("hidden"));
    }
}
