//! Who may use a tunnel: what its spec asks of clients, before anything is opened for them.
//!
//! Addresses and how often somebody comes are looked at first, for every protocol; then, with HTTP, who it is. The
//! service learns that from headers which no client can set. Where the rules cannot be read nobody is let in.

pub mod clients;
mod cookies;
pub mod denied;
mod identity;
mod issuers;
pub mod known;
mod login;
mod passwords;
mod place;
mod rate;
pub mod rules;
pub mod seal;
mod users;

use std::net::IpAddr;
use std::time::{Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_manifests::tunnel::access::Bearer;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use rustls::RootCertStore;

use super::live::Live;
use crate::access::jwt::MAX_TOKEN_BYTES;
use crate::access::oidc::Refused;
use crate::gateway::Body;
use crate::state::Key;
pub use cookies::remove_own as remove_own_cookies;
use denied::Denied;
use identity::Identity;
pub use identity::forget as forget_identity;
use issuers::Issuers;
use passwords::{Passwords, Share};
use place::{Part, Place, is_navigation};
use rate::Limiter;
use rules::{Basic, Rules};

/// Bytes of a name and a password, encoded.
const MAX_CREDENTIALS: usize = 1024;

/// What one tunnel remembers of its clients.
#[derive(Default)]
pub struct Guard {
    limiter: Limiter,
    passwords: Share,
}

impl Guard {
    /// Whether a client may come at all, whoever it is.
    pub fn admit(&self, rules: &Rules, client: IpAddr, now: Instant) -> Result<(), Denied> {
        let is_allowed = |networks: &clients::Networks| networks.contains(client);
        if !rules.clients.as_ref().is_none_or(is_allowed) {
            return Err(Denied::Client);
        }
        match rules.rate {
            Some(rate) => self
                .limiter
                .take(client, rate, now)
                .map_err(Denied::TooOften),
            None => Ok(()),
        }
    }
}

/// Finds out who clients are. A clone is the same.
#[derive(Clone, Default)]
pub struct Doorman {
    passwords: Passwords,
    issuers: Issuers,
}

/// What an Authorization header says.
enum Credentials<'a> {
    Basic(&'a str),
    Bearer(&'a str),
}

impl Doorman {
    /// `roots` vouch for issuers.
    pub fn new(roots: RootCertStore) -> Self {
        Self {
            passwords: Passwords::default(),
            issuers: Issuers::new(roots),
        }
    }

    /// Lets a request in, and makes its headers say who sends it; or answers it in place of the service. `client` is its
    /// real address, and `route` the path of the route that it took.
    pub async fn admit(
        &self,
        live: &Live,
        client: IpAddr,
        route: &str,
        request: &mut Request<Body>,
    ) -> Result<Option<Response<Body>>, Denied> {
        live.admit(client)?;
        let tunnel = live.tunnel();
        let Ok(rules) = &*tunnel.access else {
            // Nobody came past the line above.
            return Err(Denied::NotReady);
        };
        if !rules.asks_who() {
            let headers = request.headers_mut();
            remove_own_cookies(headers);
            // Whoever brings its connections is a neighbour, and those for whom it does are strangers.
            if !tunnel.spec.provider.is_hive() {
                identity::forget(headers);
            }
            return Ok(None);
        }
        let judged = self.judge(rules, live.guard(), &tunnel.key, route, request);
        let judged = judged.await;
        if let Err(denied) = &judged {
            live.count_failure(denied.reason());
        }
        judged
    }

    async fn judge(
        &self,
        rules: &Rules,
        guard: &Guard,
        tunnel: &Key,
        route: &str,
        request: &mut Request<Body>,
    ) -> Result<Option<Response<Body>>, Denied> {
        let now = SystemTime::now();
        let place = Place::of(request, route);
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let headers = request.headers_mut();
        identity::forget(headers);
        if let Some(login) = &rules.login {
            match place.part(uri.path()) {
                Some(Part::Callback) => {
                    let back = login.take_back(&self.issuers, &place, &uri, headers, now);
                    return back.await.map(Some);
                }
                Some(Part::Logout) => {
                    return Ok(Some(match place.is_meant(&method, headers) {
                        true => login.sign_out(&place),
                        false => login::ask_whether_to_sign_out(),
                    }));
                }
                None => {}
            }
        }
        if let Some(identity) = self.by_header(rules, guard, tunnel, headers, now).await? {
            cookies::remove_own(headers);
            identity.tell(headers);
            return Ok(None);
        }
        let Some(login) = &rules.login else {
            let why = "say who you are, in the header Authorization";
            return Err(unauthenticated(rules, tunnel, why));
        };
        if let Some(identity) = login.session(headers, &place, now) {
            cookies::remove_own(headers);
            identity.tell(headers);
            return Ok(None);
        }
        if !is_navigation(request) {
            let why = "nobody is signed in: open the page in a browser";
            return Err(unauthenticated(rules, tunnel, why));
        }
        let away = login.send_away(&self.issuers, &place, &uri, now);
        away.await.map(Some)
    }

    /// Who the header Authorization says it is, as far as it is for the ingress; else it is the service's, as it came.
    async fn by_header(
        &self,
        rules: &Rules,
        guard: &Guard,
        tunnel: &Key,
        headers: &mut HeaderMap,
        now: SystemTime,
    ) -> Result<Option<Identity>, Denied> {
        if rules.basic.is_none() && rules.bearer.is_none() {
            return Ok(None);
        }
        let wrong = |why| unauthenticated(rules, tunnel, why);
        let mut said = headers.get_all(AUTHORIZATION).iter();
        let (one, others) = (said.next(), said.next());
        let Some(one) = one else { return Ok(None) };
        if others.is_some() {
            // The service might read another one than the ingress.
            return Err(wrong("the header Authorization is there twice"));
        }
        let text = one.to_str().ok();
        let (identity, forward) = match (text.and_then(credentials), &rules.basic, &rules.bearer) {
            (Some(Credentials::Basic(encoded)), Some(basic), _) => {
                let identity = self.by_password(basic, guard, &tunnel.namespace, encoded);
                let identity = identity.await?;
                let why = "name or password is wrong";
                (identity.ok_or_else(|| wrong(why))?, basic.forward)
            }
            (Some(Credentials::Bearer(token)), _, Some(bearer)) => {
                let identity = self.by_token(bearer, token, now).await?;
                let identity = identity.map_err(wrong)?;
                if !identity.is_among(&bearer.allow) {
                    return Err(Denied::User(identity.user().to_owned()));
                }
                (identity, bearer.forward)
            }
            _ => return Ok(None),
        };
        if !forward {
            headers.remove(AUTHORIZATION);
        }
        Ok(Some(identity))
    }

    async fn by_password(
        &self,
        basic: &Basic,
        guard: &Guard,
        namespace: &str,
        encoded: &str,
    ) -> Result<Option<Identity>, Denied> {
        if encoded.len() > MAX_CREDENTIALS {
            return Ok(None);
        }
        let decoded = BASE64.decode(encoded).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let Some((name, password)) = decoded.as_deref().and_then(|it| it.split_once(':')) else {
            return Ok(None);
        };
        let (users, share) = (&basic.users, &guard.passwords);
        let checked = self
            .passwords
            .check(users, name, password, namespace, share);
        let is_right = checked.await.map_err(|_| Denied::Busy)?;
        Ok(is_right.then(|| Identity::named(name)))
    }

    /// The inner error says what is wrong with the token.
    async fn by_token(
        &self,
        bearer: &Bearer,
        token: &str,
        now: SystemTime,
    ) -> Result<Result<Identity, &'static str>, Denied> {
        if token.len() > MAX_TOKEN_BYTES {
            return Ok(Err("the token is too long"));
        }
        let issuer = self.issuers.of(&bearer.issuer_url, &bearer.audience)?;
        let claims = match issuer.claims(token, now).await {
            Ok(claims) => claims,
            Err(Refused::Keys(error)) => return Err(error.into()),
            Err(error) => return Ok(Err(in_words(&error))),
        };
        let identity = Identity::of(&claims, bearer.groups_claim.as_deref(), &bearer.allow);
        Ok(identity.ok_or("the token names nobody"))
    }
}

/// What is no header of one of both forms is none of the ingress'.
fn credentials(text: &str) -> Option<Credentials<'_>> {
    let (scheme, rest) = text.split_once(' ')?;
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Credentials::Basic(rest));
    }
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then_some(Credentials::Bearer(rest))
}

fn in_words(error: &Refused) -> &'static str {
    match error {
        Refused::Expired => "the token has expired",
        Refused::Early => "the token is not good yet",
        Refused::Audience(_) => "the token is for another audience",
        Refused::Claim { .. } => "the token's claims are not as they must be",
        Refused::Token(_) | Refused::UnknownKey | Refused::Keys(_) => {
            "the token is not one of the issuer"
        }
    }
}

/// With every way in that there is (RFC 9110, 11.6.1). The one by the browser has no scheme of its own.
fn unauthenticated(rules: &Rules, tunnel: &Key, why: &'static str) -> Denied {
    let tunnel = format!("{}/{}", tunnel.namespace, tunnel.name);
    let mut challenges = Vec::new();
    if rules.basic.is_some() {
        challenges.push(format!("Basic realm=\"{tunnel}\", charset=\"UTF-8\""));
    }
    if rules.bearer.is_some() {
        challenges.push(format!("Bearer realm=\"{tunnel}\""));
    }
    if challenges.is_empty() {
        challenges.push(format!("Login realm=\"{tunnel}\""));
    }
    Denied::Unauthenticated { why, challenges }
}

#[cfg(test)]
mod tests;
