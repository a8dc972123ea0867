//! Where tokens are kept between commands: one private file for each issuer and client.
//!
//! Refresh tokens are often good once only, and kubectl starts several of us at a time: whoever
//! refreshes holds a lock, and looks again before.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Client, OidcError, Tokens, id_token};
use crate::kubeconfig::create_private;

/// An ID token that ends sooner is not used any more: the request must still arrive.
const MARGIN: Duration = Duration::from_secs(10);

/// The file of one issuer and client.
pub struct Cache {
    path: PathBuf,
}

/// What the file holds. Not for printing.
#[derive(Clone, PartialEq, Eq)]
pub struct Kept {
    pub tokens: Tokens,
    /// What the client was asked for besides, so that it stands in no kubeconfig and no list of processes.
    pub client_secret: Option<String>,
}

/// Held while tokens are refreshed.
pub struct Lock {
    /// Unlocked when it is closed.
    _file: File,
}

impl Cache {
    /// `directory` is where this person's programs keep what can be had again.
    pub fn new(directory: &Path, client: &Client) -> Self {
        let mut scopes = client.scopes.clone();
        scopes.sort();
        let subject = json!([client.issuer.as_str(), client.id, scopes]).to_string();
        let name = Sha256::digest(subject)
            .iter()
            .take(16)
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        Self {
            path: directory.join("hive/oidc").join(format!("{name}.json")),
        }
    }

    fn failed(&self) -> impl Fn(io::Error) -> OidcError {
        let path = self.path.clone();
        move |source| OidcError::Cache {
            path: path.clone(),
            source,
        }
    }

    /// What is kept; `None` where there is nothing, or nothing that can be read.
    pub fn read(&self) -> Option<Kept> {
        let kept: Value = serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?;
        let text = |name: &str| kept[name].as_str().map(str::to_owned);
        let id_token = text("id_token")?;
        Some(Kept {
            tokens: Tokens {
                expiry: id_token::expiry(&id_token)?,
                refresh_token: text("refresh_token"),
                name: String::new(),
                id_token,
            },
            client_secret: text("client_secret"),
        })
    }

    /// Waits until no other process refreshes.
    pub fn lock(&self) -> Result<Lock, OidcError> {
        let failed = self.failed();
        self.make_directory()?;
        let path = self.path.with_extension("lock");
        let file = match create_private(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                File::options().write(true).open(&path).map_err(&failed)?
            }
            made => made.map_err(&failed)?,
        };
        file.lock().map_err(&failed)?;
        Ok(Lock { _file: file })
    }

    /// Keeps tokens; readable by their owner only, and whole at any time.
    pub fn write(&self, kept: &Kept) -> Result<(), OidcError> {
        let failed = self.failed();
        self.make_directory()?;
        let text = json!({
            "id_token": kept.tokens.id_token,
            "refresh_token": kept.tokens.refresh_token,
            "client_secret": kept.client_secret,
        });
        let temporary = self.path.with_extension(format!("{}", std::process::id()));
        // What a process of this id left behind.
        let _ = fs::remove_file(&temporary);
        create_private(&temporary)
            .and_then(|mut file| {
                file.write_all(text.to_string().as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &self.path))
            .map_err(failed)
    }

    /// Forgets them.
    pub fn remove(&self) -> Result<bool, OidcError> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed()(error)),
        }
    }

    fn make_directory(&self) -> Result<(), OidcError> {
        let directory = self.path.parent().expect("new() puts it into one");
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory).map_err(self.failed())?;
        // It may be older than we are. Who can write there can put tokens of theirs into our hands.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let found = fs::metadata(directory).map_err(self.failed())?;
            if found.permissions().mode() & 0o022 != 0 {
                return Err(OidcError::Unsafe(directory.to_owned()));
            }
        }
        Ok(())
    }
}

impl Tokens {
    /// Whether the ID token can be sent at this time.
    pub fn are_fresh(&self, now: SystemTime) -> bool {
        now + MARGIN < self.expiry
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

    use super::*;

    #[test]
    fn tokens_are_kept_privately_for_their_client_alone() {
        let directory = tempfile::tempdir().unwrap();
        let client = Client {
            issuer: "https://login.example.org".parse().unwrap(),
            id: "hive".into(),
            secret: None,
            scopes: vec!["email".into(), "groups".into()],
            ca_file: None,
        };
        let cache = Cache::new(directory.path(), &client);
        assert!(cache.read().is_none());
        let claims = BASE64.encode(r#"{"exp": 1700000000}"#);
        let tokens = Tokens {
            id_token: format!("e30.{claims}.x"),
            refresh_token: Some("again".into()),
            expiry: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            name: String::new(),
        };
        assert!(tokens.are_fresh(tokens.expiry - 2 * MARGIN));
        assert!(!tokens.are_fresh(tokens.expiry - MARGIN));
        let client_secret = Some("hush".to_owned());
        let kept = Kept {
            tokens,
            client_secret,
        };
        cache.write(&kept).unwrap();
        assert!(cache.read() == Some(kept));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&cache.path), 0o600);
            assert_eq!(mode(cache.path.parent().unwrap()), 0o700);
        }
        let mut same = client.clone();
        same.scopes.reverse();
        assert!(Cache::new(directory.path(), &same).read().is_some());
        let mut other = client;
        other.id = "another".into();
        assert!(Cache::new(directory.path(), &other).read().is_none());
        let _lock = cache.lock().unwrap();
        assert!(cache.remove().unwrap() && !cache.remove().unwrap());
    }
    #[cfg(unix)]
    #[test]
    fn no_tokens_are_kept_where_others_may_write() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let client = Client {
            issuer: "https://login.example.org".parse().unwrap(),
            id: "hive".into(),
            secret: None,
            scopes: Vec::new(),
            ca_file: None,
        };
        let cache = Cache::new(directory.path(), &client);
        let own = cache.path.parent().unwrap();
        fs::create_dir_all(own).unwrap();
        fs::set_permissions(own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(cache.lock(), Err(OidcError::Unsafe(path)) if path == own));
    }
}
