//! One repository of one registry: whatever is asked of it goes through redirects and demands for
//! credentials here.
//!
//! A request flows in, requests flow out until one is answered for good. `Authorization` goes to the
//! registry's own origin and to nobody else; a token is asked for with the credentials, at the realm
//! that the registry names, which must be HTTPS wherever the registry is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::ask::{Answer, Ask, AskError, Wants, host};
use crate::challenge::{Challenge, ChallengeError, challenges};
use crate::credentials::{Login, Secret};
use crate::reference::Reference;

/// Blobs lie behind one or two.
pub(crate) const MAX_REDIRECTS: usize = 5;

/// A token is a few KB, with what is written around it. Bytes.
const MAX_TOKEN_ANSWER_BYTES: usize = 256 << 10;

/// Headers have no room for longer ones at most registries. Bytes.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// What token services of OAuth2 want to know.
const CLIENT_ID: &str = "hive";

/// What a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    base: Url,
    scope: String,
    login: Option<Login>,
    /// Sent with every request to the registry, once it was asked for.
    authorization: Option<HeaderValue>,
    turn: Option<Turn>,
}

/// What is under way.
#[derive(Clone, Debug)]
struct Turn {
    wanted: Ask,
    /// Where it goes now: another place than wanted after a redirect.
    url: Url,
    redirects: usize,
    /// Credentials were asked for already: a second time they are wrong.
    challenged: bool,
    /// A request for a token comes first.
    token: Option<Ask>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Session {
    pub fn new(reference: &Reference, login: Option<Login>, access: Access) -> Self {
        let actions = match access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        Self {
            base: reference.base(),
            scope: format!("repository:{}:{actions}", reference.repository()),
            login,
            authorization: None,
            turn: None,
        }
    }

    /// Of a path below the repository.
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path()));
        url
    }

    /// What a registry says of itself, resolved where it was said.
    pub fn at(&self, location: &str, asked: &Url) -> Result<Url, AskError> {
        let elsewhere = |why| AskError::Elsewhere {
            host: host(asked),
            why,
        };
        let url = asked
            .join(location)
            .map_err(|_| elsewhere("that is no address"))?;
        match self.may_go(&url) {
            true => Ok(url),
            false => Err(elsewhere("not to https")),
        }
    }

    /// HTTPS always; what is on this machine may stay on it without.
    fn may_go(&self, url: &Url) -> bool {
        let is_here = self.base.scheme() == "http" && is_loopback(url);
        let is_plain = url.username().is_empty() && url.password().is_none();
        is_plain
            && url.has_host()
            && (url.scheme() == "https" || (url.scheme() == "http" && is_here))
    }

    /// Begins a request; the one before has been answered.
    pub fn begin(&mut self, wanted: Ask) {
        self.turn = Some(Turn {
            url: wanted.url.clone(),
            wanted,
            redirects: 0,
            challenged: false,
            token: None,
        });
    }

    pub fn get(&mut self, path: &str, accept: &[&str], wants: Wants) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            let accept = HeaderValue::from_str(&accept.join(", ")).expect("media types are ASCII");
            headers.insert(ACCEPT, accept);
        }
        self.begin(Ask {
            method: Method::GET,
            url: self.url(path),
            headers,
            body: Bytes::new(),
            wants,
        });
    }

    /// What is to be sent now. Asked again, it says the same.
    pub fn next(&self) -> Option<Ask> {
        let turn = self.turn.as_ref()?;
        if let Some(token) = &turn.token {
            return Some(token.clone());
        }
        let mut ask = turn.wanted.clone();
        ask.url = turn.url.clone();
        if ask.url.origin() == self.base.origin() {
            ask.headers.extend(
                self.authorization
                    .clone()
                    .map(|value| (AUTHORIZATION, value)),
            );
        }
        Some(ask)
    }

    /// `Some` once what was begun is answered, whatever the status; with the address that answered.
    pub fn take(&mut self, answer: Answer) -> Result<Option<(Url, Answer)>, AskError> {
        let mut turn = self.turn.take().expect("an answer follows a question");
        if let Some(token) = turn.token.take() {
            self.authorization = Some(bearer(&token.url, &answer)?);
            self.turn = Some(turn);
            return Ok(None);
        }
        let is_registry = turn.url.origin() == self.base.origin();
        match answer.status {
            StatusCode::UNAUTHORIZED if is_registry && !turn.challenged => {
                turn.challenged = true;
                self.answer_challenge(&mut turn, &answer)?;
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(AskError::Unauthorized {
                    host: host(&turn.url),
                });
            }
            StatusCode::TOO_MANY_REQUESTS => return Err(too_many(&turn.url, &answer)),
            status if sends_on(&turn.wanted.method, status) => {
                turn.redirects += 1;
                if turn.redirects > MAX_REDIRECTS {
                    return Err(AskError::Redirects {
                        host: host(&self.base),
                    });
                }
                let location = answer.location().unwrap_or_default();
                turn.url = self.at(location, &turn.url)?;
            }
            _ => return Ok(Some((turn.url, answer))),
        }
        self.turn = Some(turn);
        Ok(None)
    }

    fn answer_challenge(&mut self, turn: &mut Turn, answer: &Answer) -> Result<(), AskError> {
        // What was sent before, if anything, is good no longer.
        self.authorization = None;
        let asked = challenges(&answer.headers)?;
        let denied = || AskError::Unauthorized {
            host: host(&turn.url),
        };
        match asked.first().ok_or(ChallengeError::Absent)? {
            Challenge::Bearer { realm, service } => {
                let realm = self.at(realm, &turn.url)?;
                turn.token = Some(self.ask_for_token(realm, service.as_deref()));
            }
            Challenge::Basic => match &self.login {
                Some(Login::Password { username, password }) => {
                    self.authorization = Some(basic(username, password));
                }
                Some(Login::Identity(_)) | None => return Err(denied()),
            },
        }
        Ok(())
    }

    /// Also without a login: what is public is given to nobody without a token.
    fn ask_for_token(&self, mut realm: Url, service: Option<&str>) -> Ask {
        let mut headers = HeaderMap::new();
        let mut body = Bytes::new();
        let mut method = Method::GET;
        let service = service.map(|service| ("service", service));
        match &self.login {
            // RFC 6749, 6.
            Some(Login::Identity(token)) => {
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .extend_pairs(service)
                    .append_pair("scope", &self.scope)
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", CLIENT_ID)
                    .append_pair("refresh_token", token.expose())
                    .finish();
                let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
                headers.insert(CONTENT_TYPE, kind);
                (method, body) = (Method::POST, form.into());
            }
            login => {
                if let Some(Login::Password { username, password }) = login {
                    headers.insert(AUTHORIZATION, basic(username, password));
                }
                let mut query = realm.query_pairs_mut();
                query
                    .extend_pairs(service)
                    .append_pair("scope", &self.scope);
            }
        }
        Ask {
            method,
            url: realm,
            headers,
            body,
            wants: Wants::Body(MAX_TOKEN_ANSWER_BYTES),
        }
    }
}

/// What is uploaded goes elsewhere only where it is said to stay the same request.
fn sends_on(method: &Method, status: StatusCode) -> bool {
    match status.as_u16() {
        307 | 308 => true,
        301..=303 => matches!(*method, Method::GET | Method::HEAD),
        _ => false,
    }
}

fn too_many(url: &Url, answer: &Answer) -> AskError {
    AskError::TooManyRequests {
        host: host(url),
        after: answer.retry_after(),
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn basic(username: &str, password: &Secret) -> HeaderValue {
    let both = BASE64.encode(format!("{username}:{}", password.expose()));
    sensitive(&format!("Basic {both}")).expect("base64 is ASCII")
}

fn bearer(realm: &Url, answer: &Answer) -> Result<HeaderValue, AskError> {
    let host = host(realm);
    match answer.status.as_u16() {
        200 => {}
        400 | 401 | 403 => return Err(AskError::Unauthorized { host }),
        429 => return Err(too_many(realm, answer)),
        status => return Err(AskError::Status { host, status }),
    }
    let token = serde_json::from_slice(&answer.body)
        .ok()
        .and_then(|answer: TokenAnswer| answer.token.or(answer.access_token))
        .filter(|token| (1..=MAX_TOKEN_BYTES).contains(&token.len()));
    token
        .and_then(|token| sensitive(&format!("Bearer {token}")))
        .ok_or(AskError::NoToken { host })
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
