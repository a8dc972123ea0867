//! Signing in with a browser: it is sent to the issuer, comes back with a code, and keeps a session.
//!
//! No controller remembers anything: what a login began with, and who signed in, browsers keep, sealed. A code is bound
//! to the browser that began (state and PKCE), and the token to the login (nonce); the issuer takes a code once.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use hive_identity::random_bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, SET_COOKIE,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::cookies;
use super::denied::Denied;
use super::identity::Identity;
use super::issuers::Issuers;
use super::place::Place;
use super::rules::{ClientSecret, Login};
use crate::access::oidc::{FetchError, Redemption, Refused};
use crate::gateway::Body;
use crate::ingress::full;

/// Somebody looks for a password, and a second factor.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Bytes of the page to which somebody returns; whoever asked for a longer one comes to the tunnel's first.
const MAX_BACK: usize = 512;

/// Logins that one browser can have under way at one tunnel; one that takes the place of another ends it. Tabs that are
/// opened again begin one each, and all their cookies come with every request, whose head has 16 KiB in HTTP/2.
const MAX_ATTEMPTS: u8 = 16;

/// Browsers keep 4096 bytes of a cookie, with its name and what else is said of it.
const MAX_COOKIE: usize = 3800;

const SIGN_OUT: &str =
    "<!doctype html><title>Sign out</title><form method=post><button>Sign out</button></form>\n";

/// What is asked for where the spec does not say.
const SCOPES: [&str; 2] = ["email", "profile"];

/// What a browser began with.
#[derive(Serialize, Deserialize)]
struct Attempt {
    state: String,
    nonce: String,
    /// The secret half of what the code is bound to.
    verifier: String,
    /// Path and query of what it wanted.
    back: String,
    /// Seconds of the era.
    until: u64,
}

#[derive(Serialize, Deserialize)]
struct Session {
    who: Identity,
    /// Seconds of the era.
    until: u64,
}

impl Login {
    /// What a session is sealed for: whoever signed in elsewhere is nobody here.
    fn purpose(&self) -> String {
        let spec = &self.spec;
        format!("session {} {}", spec.issuer_url, spec.client_id)
    }

    fn session_name(&self, secure: bool) -> String {
        cookies::name(cookies::SESSION, &[&self.uid], secure)
    }

    fn attempt_name(&self, state: &str, secure: bool) -> String {
        let place = Sha256::digest(state)[0] % MAX_ATTEMPTS;
        cookies::name(cookies::ATTEMPT, &[&self.uid, &place.to_string()], secure)
    }

    /// Who signed in before, and may still come in.
    pub fn session(
        &self,
        headers: &HeaderMap,
        place: &Place<'_>,
        now: SystemTime,
    ) -> Option<Identity> {
        let cookie = cookies::find(headers, &self.session_name(place.secure))?;
        let session: Session = self.key.open(&self.purpose(), cookie)?;
        let is_one = session.until > era(now) && session.who.is_among(&self.spec.allow);
        is_one.then_some(session.who)
    }

    /// Sends a browser to the issuer.
    pub async fn send_away(
        &self,
        issuers: &Issuers,
        place: &Place<'_>,
        wanted: &Uri,
        now: SystemTime,
    ) -> Result<Response<Body>, Denied> {
        let spec = &self.spec;
        let issuer = issuers.of(&spec.issuer_url, &spec.client_id)?;
        let endpoints = issuer.endpoints().await?;
        let wanted = wanted.path_and_query().map_or("/", |it| it.as_str());
        let back = match wanted.len() <= MAX_BACK {
            true => wanted.to_owned(),
            false => format!("{}/", place.base),
        };
        let attempt = Attempt {
            state: random_text(),
            nonce: random_text(),
            verifier: random_text(),
            back,
            until: era(now + PATIENCE),
        };
        let mut url = endpoints.authorization;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &spec.client_id)
            .append_pair("redirect_uri", &place.callback())
            .append_pair("scope", &self.scope())
            .append_pair("state", &attempt.state)
            .append_pair("nonce", &attempt.nonce)
            .append_pair("code_challenge", &challenge(&attempt.verifier))
            .append_pair("code_challenge_method", "S256");
        let name = self.attempt_name(&attempt.state, place.secure);
        let sealed = self.key.seal("attempt", &attempt);
        let cookie = cookies::set(&name, &sealed, PATIENCE, place.secure);
        Ok(redirect(StatusCode::FOUND, url.as_str(), [cookie]))
    }

    fn scope(&self) -> String {
        let said: Vec<&str> = match &*self.spec.scopes {
            [] => SCOPES.to_vec(),
            some => some.iter().map(String::as_str).collect(),
        };
        let others = said.into_iter().filter(|scope| *scope != "openid");
        std::iter::once("openid")
            .chain(others)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Takes a browser that comes back from the issuer, and sends it where it wanted to go.
    pub async fn take_back(
        &self,
        issuers: &Issuers,
        place: &Place<'_>,
        uri: &Uri,
        headers: &HeaderMap,
        now: SystemTime,
    ) -> Result<Response<Body>, Denied> {
        let failed = |why: &str| Denied::Login(why.to_owned());
        let spec = &self.spec;
        let query = uri.query().unwrap_or_default();
        let said = |name: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            let found = pairs.find(|(key, _)| key == name);
            found.map(|(_, value)| value.into_owned())
        };
        let state = said("state").unwrap_or_default();
        let name = self.attempt_name(&state, place.secure);
        let cookie = cookies::find(headers, &name);
        let attempt: Option<Attempt> = cookie.and_then(|it| self.key.open("attempt", it));
        let attempt = attempt
            .filter(|attempt| is_same(&attempt.state, &state))
            .ok_or_else(|| failed("this browser did not begin it, or ended it already"))?;
        if attempt.until <= era(now) {
            return Err(failed("it took too long"));
        }
        let issuer = issuers.of(&spec.issuer_url, &spec.client_id)?;
        if said("iss").is_some_and(|named| !issuer.is_issuer(&Value::String(named))) {
            return Err(failed("the answer is that of another issuer"));
        }
        if said("error").is_some() {
            return Err(failed("the issuer refused"));
        }
        let code = said("code").ok_or_else(|| failed("the issuer gave no code"))?;
        let redirect_uri = place.callback();
        let redeemed = issuer.redeem(Redemption {
            code: &code,
            redirect_uri: &redirect_uri,
            verifier: &attempt.verifier,
            secret: self.secret.as_ref().map(ClientSecret::reveal),
        });
        let token = match redeemed.await {
            Ok(token) => token,
            Err(
                error @ (FetchError::Refused { .. }
                | FetchError::Status { .. }
                | FetchError::Malformed { .. }),
            ) => {
                tracing::info!(
                    issuer = spec.issuer_url,
                    error = &error as &dyn std::error::Error,
                    "no token for a code"
                );
                return Err(failed("the issuer gave no token for the code"));
            }
            Err(error) => return Err(error.into()),
        };
        let claims = match issuer.claims(&token, now).await {
            Ok(claims) => claims,
            Err(Refused::Keys(error)) => return Err(error.into()),
            Err(error) => return Err(failed(&error.to_string())),
        };
        if !claims
            .get("nonce")
            .and_then(Value::as_str)
            .is_some_and(|it| is_same(it, &attempt.nonce))
        {
            return Err(failed("the token is not the answer to this login"));
        }
        if !is_party(&claims, &spec.client_id) {
            return Err(failed("the token was given to another client"));
        }
        let who = Identity::of(&claims, spec.groups_claim.as_deref(), &spec.allow);
        let who = who.ok_or_else(|| failed("the token names nobody"))?;
        if !who.is_among(&spec.allow) {
            return Err(Denied::User(who.user().to_owned()));
        }
        let lives = spec.session_duration.0;
        let until = era(now + lives);
        let sealed = self.key.seal(&self.purpose(), &Session { who, until });
        if sealed.len() > MAX_COOKIE {
            return Err(failed(
                "what the issuer says of you is too long for a cookie",
            ));
        }
        let session = cookies::set(
            &self.session_name(place.secure),
            &sealed,
            lives,
            place.secure,
        );
        let done = cookies::end(&name, place.secure);
        let back = place.back(&attempt.back);
        Ok(redirect(StatusCode::SEE_OTHER, &back, [session, done]))
    }

    /// The browser forgets its session. At the issuer somebody stays signed in.
    pub fn sign_out(&self, place: &Place<'_>) -> Response<Body> {
        let mut response = page("text/plain; charset=utf-8", "You are signed out.\n");
        let end = cookies::end(&self.session_name(place.secure), place.secure);
        response.headers_mut().append(SET_COOKIE, end);
        response
    }
}

/// For whom another site may have sent: a form of this place, which no other one can show.
pub fn ask_whether_to_sign_out() -> Response<Body> {
    let mut response = page("text/html; charset=utf-8", SIGN_OUT);
    let alone = "default-src 'none'; form-action 'self'; frame-ancestors 'none'";
    let alone = HeaderValue::from_static(alone);
    response
        .headers_mut()
        .insert(CONTENT_SECURITY_POLICY, alone);
    response
}

fn page(kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Of several parties that may use a token, it must say to which it was given (OpenID Connect Core, 3.1.3.7).
fn is_party(claims: &Map<String, Value>, client: &str) -> bool {
    let has_others = claims.get("aud").and_then(Value::as_array);
    let has_others = has_others.is_some_and(|list| list.iter().any(|one| one != client));
    match claims.get("azp") {
        None | Some(Value::Null) => !has_others,
        Some(party) => party == client,
    }
}

fn redirect<const N: usize>(
    status: StatusCode,
    to: &str,
    cookies: [HeaderValue; N],
) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // A URL of the issuer, or one whose path came as that of a request: both are plain text.
    if let Ok(to) = HeaderValue::from_str(to) {
        headers.insert(LOCATION, to);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for cookie in cookies {
        headers.append(SET_COOKIE, cookie);
    }
    response
}

fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

fn challenge(verifier: &str) -> String {
    BASE64.encode(Sha256::digest(verifier))
}

/// 256 bits that fit a URL.
fn random_text() -> String {
    BASE64.encode(random_bytes::<32>())
}

fn era(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_for_several_names_the_one_that_may_use_it() {
        for (claims, expected) in [
            (json!({ "aud": "hive" }), true),
            (json!({ "aud": ["hive"] }), true),
            (json!({ "aud": ["hive", "other"] }), false),
            (json!({ "aud": ["hive", "other"], "azp": "hive" }), true),
            (json!({ "aud": ["hive", "other"], "azp": "other" }), false),
            (json!({ "aud": "hive", "azp": "other" }), false),
        ] {
            let found = is_party(claims.as_object().unwrap(), "hive");
            assert_eq!(found, expected, "{claims}");
        }
    }
}
