//! Signing in at an OpenID Connect issuer, for `hivectl login` and `hivectl get-token`.
//!
//! What the issuer says of itself is fetched, a person signs in with a browser or on another device,
//! and tokens come back: the ID token goes to the swarm, the refresh token stays in a private file.
//! It opens no browser by itself, and prints no token.

mod cache;
mod code;
mod device;
mod http;
mod id_token;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::Value;
use url::Url;

pub use cache::{Cache, Kept};
pub use code::Loopback;

use self::http::{Http, printable};
use self::id_token::Occasion;

/// Whom to sign in with, and as which client. Not for printing: it may hold a secret.
#[derive(Clone)]
pub struct Client {
    pub issuer: Url,
    pub id: String,
    pub secret: Option<String>,
    /// Beside `openid`.
    pub scopes: Vec<String>,
    /// Certificates in PEM that vouch for the issuer; the system's when `None`.
    pub ca_file: Option<PathBuf>,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("--oidc-issuer-url {0}: an https URL without query and fragment is needed")]
    Issuer(Url),
    #[error("cannot read {}", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("the certificates to verify the issuer with cannot be used")]
    Tls(#[source] kube::Error),
    #[error("{url} cannot be reached")]
    Unreachable {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url} answered {status}{detail}")]
    Status {
        url: String,
        status: u16,
        detail: String,
    },
    #[error("{url} did not answer as OpenID Connect has it: {why}")]
    Answer { url: String, why: String },
    #[error("the issuer refused: {error}{detail}")]
    Refused { error: String, detail: String },
    #[error("the issuer offers no {0}")]
    NotOffered(&'static str),
    #[error("cannot listen on 127.0.0.1:{port} for the browser's answer")]
    Listen {
        port: u16,
        #[source]
        source: std::io::Error,
    },
    #[error("nobody signed in within {0:?}")]
    TooLate(Duration),
    #[error("the issuer's ID token cannot be used: {0}")]
    IdToken(&'static str),
    #[error("cannot keep the tokens in {}", path.display())]
    Cache {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("others may write into {}: no tokens are kept there", .0.display())]
    Unsafe(PathBuf),
}

/// What an issuer says of itself.
#[derive(Clone, Debug)]
struct Discovery {
    authorization: Url,
    token: Url,
    device: Option<Url>,
    /// Whether it gives tokens with which to get new ones, and has a scope to ask for them.
    offline_scope: bool,
}

/// An issuer that answers.
pub struct Issuer {
    client: Client,
    http: Http,
    discovery: Discovery,
}

/// What an issuer gave. Not for printing.
#[derive(Clone, PartialEq, Eq)]
pub struct Tokens {
    pub id_token: String,
    pub refresh_token: Option<String>,
    /// Of the ID token.
    pub expiry: SystemTime,
    /// What people recognise themselves by: the claim `email`, `preferred_username` or `sub`.
    pub name: String,
}

impl Issuer {
    /// Fetches what the issuer says of itself.
    pub async fn discover(client: Client) -> Result<Self, OidcError> {
        let issuer = &client.issuer;
        if !is_safe(issuer) || issuer.query().is_some() || issuer.fragment().is_some() {
            return Err(OidcError::Issuer(issuer.clone()));
        }
        let http = Http::new(issuer, client.ca_file.as_deref())?;
        let base = issuer.as_str().trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let document = http.get(&url).await?;
        let discovery =
            Discovery::read(&document, issuer).map_err(|why| OidcError::Answer { url, why })?;
        Ok(Self {
            client,
            http,
            discovery,
        })
    }

    /// All scopes that are asked for.
    fn scope(&self) -> String {
        let mut scopes = vec!["openid"];
        if self.discovery.offline_scope {
            scopes.push("offline_access");
        }
        for scope in &self.client.scopes {
            if !scopes.contains(&scope.as_str()) {
                scopes.push(scope);
            }
        }
        scopes.join(" ")
    }

    /// Tokens for those that were given before; `None` where the issuer gave nothing to renew them with.
    pub async fn refresh(&self, kept: &Tokens) -> Result<Option<Tokens>, OidcError> {
        let Some(refresh_token) = &kept.refresh_token else {
            return Ok(None);
        };
        let subject = id_token::subject(&kept.id_token);
        let subject = subject.ok_or(OidcError::IdToken("the one that is kept names nobody"))?;
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
        ];
        let occasion = Occasion::Renewal { subject: &subject };
        let mut tokens = self.tokens(&form, occasion).await?;
        // Who gives no new one means that the old one goes on.
        tokens
            .refresh_token
            .get_or_insert_with(|| refresh_token.clone());
        Ok(Some(tokens))
    }

    /// Asks the token endpoint.
    async fn tokens(
        &self,
        form: &[(&str, &str)],
        occasion: Occasion<'_>,
    ) -> Result<Tokens, OidcError> {
        let answer = self.post(&self.discovery.token, form).await?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let id_token = text("id_token").ok_or(OidcError::IdToken("there is none"))?;
        let (expiry, name) = id_token::check(&id_token, &self.client, occasion, SystemTime::now())
            .map_err(OidcError::IdToken)?;
        Ok(Tokens {
            id_token,
            refresh_token: text("refresh_token"),
            expiry,
            name,
        })
    }

    /// Sends a form in the name of the client.
    async fn post(&self, url: &Url, form: &[(&str, &str)]) -> Result<Value, OidcError> {
        let mut all = form.to_vec();
        all.push(("client_id", &self.client.id));
        if let Some(secret) = &self.client.secret {
            all.push(("client_secret", secret));
        }
        self.http.post(url.as_str(), &all).await
    }
}

impl Discovery {
    fn read(document: &Value, issuer: &Url) -> Result<Self, String> {
        let own = document["issuer"].as_str().unwrap_or_default();
        if !is_issuer(issuer, own) {
            return Err(format!("it says that it is {:?}", printable(own)));
        }
        let endpoint = |name: &str| -> Result<Option<Url>, String> {
            let Some(text) = document[name].as_str() else {
                return Ok(None);
            };
            match Url::parse(text) {
                Ok(url) if is_safe(&url) => Ok(Some(url)),
                _ => Err(format!("{name} {:?} is no https URL", printable(text))),
            }
        };
        let needed = |name: &str| endpoint(name)?.ok_or_else(|| format!("{name} is missing"));
        let scopes = document["scopes_supported"].as_array();
        Ok(Self {
            authorization: needed("authorization_endpoint")?,
            token: needed("token_endpoint")?,
            device: endpoint("device_authorization_endpoint")?,
            offline_scope: scopes
                .into_iter()
                .flatten()
                .any(|scope| scope == "offline_access"),
        })
    }
}

fn is_safe(url: &Url) -> bool {
    url.scheme() == "https" && url.host_str().is_some()
}

/// Whether an issuer calls itself what it was asked as. One with a slash at its end is another one,
/// but for a URL that is nothing but a host: that gets a slash when it is parsed.
fn is_issuer(issuer: &Url, named: &str) -> bool {
    let own = issuer.as_str();
    named == own || issuer.path() == "/" && named == own.trim_end_matches('/')
}

/// Random text that fits a URL: 256 bits.
fn random_text() -> String {
    BASE64.encode(hive_identity::random_bytes::<32>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn an_issuer_is_believed_only_about_itself_and_over_tls() {
        let issuer = Url::parse("https://login.example.org/realm").unwrap();
        let good = json!({
            "issuer": "https://login.example.org/realm",
            "authorization_endpoint": "https://login.example.org/auth",
            "token_endpoint": "https://login.example.org/token",
            "scopes_supported": ["openid", "offline_access"],
        });
        let read = |change: &dyn Fn(&mut Value)| {
            let mut document = good.clone();
            change(&mut document);
            Discovery::read(&document, &issuer).map(|found| found.offline_scope)
        };
        assert_eq!(read(&|_| {}), Ok(true));
        assert_eq!(read(&|d| d["scopes_supported"] = json!([])), Ok(false));
        for (field, value, why) in [
            (
                "issuer",
                json!("https://evil.example.org"),
                "it says that it is",
            ),
            (
                "token_endpoint",
                json!("http://login.example.org/t"),
                "no https URL",
            ),
            ("authorization_endpoint", Value::Null, "is missing"),
        ] {
            let error = read(&|d| d[field] = value.clone()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn an_issuer_with_a_slash_is_another_one() {
        for (asked, named, same) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "https://a.example/", true),
            ("https://a.example/realm", "https://a.example/realm", true),
            ("https://a.example/realm/", "https://a.example/realm/", true),
            ("https://a.example/realm", "https://a.example/realm/", false),
            ("https://a.example/realm/", "https://a.example/realm", false),
            ("https://a.example", "https://a.example.evil", false),
        ] {
            let issuer = Url::parse(asked).unwrap();
            assert_eq!(is_issuer(&issuer, named), same, "{asked} {named}");
        }
    }
}
