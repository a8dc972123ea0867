//! What is answered to a request. Every answer carries a nonce for the next one.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::jws::{Jwk, Signed};
use crate::shared::{Challenge, Claim, Made, Name, Order, Shared, problem, token};

pub struct Asked {
    pub method: Method,
    pub path: String,
    /// It says that its body is signed JSON.
    pub is_jose: bool,
    pub body: Bytes,
}

pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    fn problem(kind: &str, detail: &str, status: u16) -> Self {
        Self {
            headers: vec![("content-type", "application/problem+json".to_owned())],
            ..Self::json(status, &problem(kind, detail, status))
        }
    }

    fn with(mut self, header: &'static str, value: String) -> Self {
        self.headers.push((header, value));
        self
    }
}

/// The answer, and what is to be looked at after it.
pub fn answer(shared: &mut Shared, asked: &Asked) -> (Reply, Option<Claim>) {
    if shared.habits.borrow().is_down {
        let reply = Reply {
            status: 503,
            headers: vec![("content-type", "text/html".to_owned())],
            body: "<h1>503 Service Unavailable</h1>".to_owned(),
        };
        return (reply, None);
    }
    let mut claim = None;
    let reply = match (&asked.method, &*asked.path) {
        (&Method::GET, "/directory") => Reply::json(200, &directory(shared)),
        (&Method::HEAD | &Method::GET, "/new-nonce") => Reply::json(200, &json!({})),
        (&Method::POST, _) => posted(shared, asked, &mut claim).unwrap_or_else(|refused| refused),
        _ => Reply::problem("malformed", "there is nothing to be had", 404),
    };
    let nonce = shared.fresh_nonce();
    (reply.with("replay-nonce", nonce), claim)
}

fn directory(shared: &Shared) -> Value {
    let at = |path: &str| format!("{}/{path}", shared.base);
    json!({
        "newNonce": at("new-nonce"),
        "newAccount": at("new-account"),
        "newOrder": at("new-order"),
        "revokeCert": at("revoke-cert"),
        "keyChange": at("key-change"),
        "meta": { "termsOfService": at("terms") },
    })
}

/// `Err` is an answer as well: that of a request which is refused.
fn posted(shared: &mut Shared, asked: &Asked, claim: &mut Option<Claim>) -> Result<Reply, Reply> {
    let malformed = |why: &str| Reply::problem("malformed", why, 400);
    if !asked.is_jose {
        return Err(malformed("the content type must be application/jose+json"));
    }
    let signed = Signed::parse(&asked.body).ok_or_else(|| malformed("no signed JSON"))?;
    if !shared.takes_nonce(&signed.header.nonce) {
        return Err(Reply::problem("badNonce", "the nonce is not good", 400));
    }
    if signed.header.url != format!("{}{}", shared.base, asked.path) {
        return Err(Reply::problem(
            "unauthorized",
            "signed for another URL",
            403,
        ));
    }
    let is_new = asked.path == "/new-account";
    let key = match (is_new, &signed.header.jwk, &signed.header.kid) {
        (true, Some(key), None) => key.clone(),
        (false, None, Some(kid)) => account(shared, kid)?,
        _ => return Err(malformed("jwk for a new account, kid otherwise")),
    };
    if !signed.is_by(&key) {
        return Err(malformed("the signature is wrong"));
    }
    let body = &*signed.payload;
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    match parts[..] {
        ["new-account"] => new_account(shared, key, body),
        ["account", _] => Ok(update_account(shared, body)),
        ["new-order"] => new_order(shared, &key, body),
        ["order", id] => {
            let index = order_of(shared, &key, id)?;
            shared.log.send_modify(|log| log.looks += 1);
            if let Some(made) = &mut shared.orders[index].made {
                made.wait = made.wait.saturating_sub(1);
            }
            Ok(Reply::json(200, &order(shared, index)))
        }
        ["order", id, "finalize"] => finalize(shared, &key, id, body),
        ["authorization", id] => {
            let index = name_of(shared, &key, id)?;
            Ok(Reply::json(200, &authorization(shared, index)))
        }
        ["challenge", id, which] => {
            let index = name_of(shared, &key, id)?;
            let which = which.parse().map_err(|_| missing())?;
            challenged(shared, &key, index, which, claim)
        }
        ["certificate", id] => {
            let found = id.parse::<usize>().ok();
            let chain = found.and_then(|id| shared.certificates.get(id));
            Ok(Reply {
                status: 200,
                headers: vec![("content-type", "application/pem-certificate-chain".into())],
                body: chain.ok_or_else(missing)?.clone(),
            })
        }
        _ => Err(missing()),
    }
}

fn missing() -> Reply {
    Reply::problem("malformed", "there is no such thing", 404)
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Reply> {
    serde_json::from_slice(body)
        .map_err(|error| Reply::problem("malformed", &error.to_string(), 400))
}

/// Accounts are called by their keys, so that one that was forgotten stays so.
fn account(shared: &Shared, kid: &str) -> Result<Jwk, Reply> {
    let mut accounts = shared.accounts.iter();
    let found = accounts.find(|key| kid == account_url(shared, key));
    found
        .cloned()
        .ok_or_else(|| Reply::problem("accountDoesNotExist", "the account is not known here", 400))
}

fn account_url(shared: &Shared, key: &Jwk) -> String {
    format!("{}/account/{}", shared.base, key.thumbprint())
}

fn contacts(body: &[u8]) -> Vec<String> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let contacts = body["contact"].as_array().into_iter().flatten();
    contacts
        .filter_map(|it| Some(it.as_str()?.to_owned()))
        .collect()
}

fn new_account(shared: &mut Shared, key: Jwk, body: &[u8]) -> Result<Reply, Reply> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct NewAccount {
        #[serde(default)]
        terms_of_service_agreed: bool,
    }
    let url = account_url(shared, &key);
    let known = shared.accounts.contains(&key);
    if !known {
        if !read::<NewAccount>(body)?.terms_of_service_agreed {
            return Err(Reply::problem(
                "userActionRequired",
                "agree to the terms",
                403,
            ));
        }
        shared.accounts.push(key);
        shared.log.send_modify(|log| {
            log.accounts += 1;
            log.contacts = contacts(body);
        });
    }
    let status = if known { 200 } else { 201 };
    Ok(Reply::json(status, &json!({ "status": "valid" })).with("location", url))
}

fn update_account(shared: &mut Shared, body: &[u8]) -> Reply {
    shared.log.send_modify(|log| log.contacts = contacts(body));
    Reply::json(200, &json!({ "status": "valid" }))
}

fn new_order(shared: &mut Shared, key: &Jwk, body: &[u8]) -> Result<Reply, Reply> {
    #[derive(Deserialize)]
    struct NewOrder {
        identifiers: Vec<Identifier>,
    }
    #[derive(Deserialize)]
    struct Identifier {
        r#type: String,
        value: String,
    }
    let limited = shared.habits.borrow().limited;
    if let Some(seconds) = limited {
        shared.log.send_modify(|log| log.refused += 1);
        let reply = Reply::problem("rateLimited", "too many new orders recently", 429);
        return Err(reply.with("retry-after", seconds.to_string()));
    }
    let wanted = read::<NewOrder>(body)?.identifiers;
    if wanted.is_empty() || wanted.iter().any(|it| it.r#type != "dns") {
        let why = "only names of DNS are certified";
        return Err(Reply::problem("rejectedIdentifier", why, 400));
    }
    let names: BTreeSet<String> = wanted.into_iter().map(|it| it.value).collect();
    let account = key.thumbprint();
    let offers = shared.habits.borrow().offers.clone();
    let mut authorizations = Vec::new();
    for name in &names {
        authorizations.push(shared.names.len());
        let challenges = offers.iter().map(|kind| Challenge {
            kind: *kind,
            token: token(),
            status: "pending",
            error: None,
        });
        shared.names.push(Name {
            account: account.clone(),
            name: name.clone(),
            status: "pending",
            challenges: challenges.collect(),
        });
    }
    shared
        .log
        .send_modify(|log| log.orders.push(names.iter().cloned().collect()));
    let index = shared.orders.len();
    shared.orders.push(Order {
        account,
        names,
        authorizations,
        made: None,
        error: None,
    });
    let url = format!("{}/order/{index}", shared.base);
    Ok(Reply::json(201, &order(shared, index)).with("location", url))
}

fn order(shared: &Shared, index: usize) -> Value {
    let order = &shared.orders[index];
    let at = |path: String| format!("{}/{path}", shared.base);
    let status = shared.order_status(order);
    let identifiers: Vec<Value> = order
        .names
        .iter()
        .map(|name| json!({ "type": "dns", "value": name }))
        .collect();
    let authorizations: Vec<String> = order
        .authorizations
        .iter()
        .map(|index| at(format!("authorization/{index}")))
        .collect();
    let mut body = json!({
        "status": status,
        "identifiers": identifiers,
        "authorizations": authorizations,
        "finalize": at(format!("order/{index}/finalize")),
    });
    if let (Some(made), "valid") = (&order.made, status) {
        body["certificate"] = json!(at(format!("certificate/{}", made.certificate)));
    }
    if let Some(error) = &order.error {
        body["error"] = error.clone();
    }
    body
}

fn order_of(shared: &Shared, key: &Jwk, id: &str) -> Result<usize, Reply> {
    let index = id.parse::<usize>().map_err(|_| missing())?;
    let order = shared.orders.get(index).ok_or_else(missing)?;
    let is_own = order.account == key.thumbprint();
    is_own.then_some(index).ok_or_else(missing)
}

fn name_of(shared: &Shared, key: &Jwk, id: &str) -> Result<usize, Reply> {
    let index = id.parse::<usize>().map_err(|_| missing())?;
    let name = shared.names.get(index).ok_or_else(missing)?;
    let is_own = name.account == key.thumbprint();
    is_own.then_some(index).ok_or_else(missing)
}

fn authorization(shared: &Shared, index: usize) -> Value {
    let name = &shared.names[index];
    let challenges = 0..name.challenges.len();
    let challenges: Vec<Value> = challenges
        .map(|which| challenge(shared, index, which))
        .collect();
    json!({
        "status": name.status,
        "identifier": { "type": "dns", "value": name.name },
        "challenges": challenges,
    })
}

fn challenge(shared: &Shared, index: usize, which: usize) -> Value {
    let challenge = &shared.names[index].challenges[which];
    let mut body = json!({
        "type": challenge.kind.as_str(),
        "url": format!("{}/challenge/{index}/{which}", shared.base),
        "token": challenge.token,
        "status": challenge.status,
    });
    if let Some(error) = &challenge.error {
        body["error"] = error.clone();
    }
    body
}

fn challenged(
    shared: &mut Shared,
    key: &Jwk,
    index: usize,
    which: usize,
    claim: &mut Option<Claim>,
) -> Result<Reply, Reply> {
    let name = &mut shared.names[index];
    let challenge = name.challenges.get_mut(which).ok_or_else(missing)?;
    if challenge.status == "pending" && name.status == "pending" {
        challenge.status = "processing";
        let (kind, of) = (challenge.kind, name.name.clone());
        *claim = Some(Claim {
            at: (index, which),
            kind,
            name: of.clone(),
            token: challenge.token.clone(),
            authorization: format!("{}.{}", challenge.token, key.thumbprint()),
        });
        shared.log.send_modify(|log| log.claims.push((kind, of)));
    }
    Ok(Reply::json(200, &self::challenge(shared, index, which)))
}

fn finalize(shared: &mut Shared, key: &Jwk, id: &str, body: &[u8]) -> Result<Reply, Reply> {
    #[derive(Deserialize)]
    struct Finalize {
        csr: String,
    }
    let index = order_of(shared, key, id)?;
    let status = shared.order_status(&shared.orders[index]);
    if status != "ready" {
        let why = format!("the order is {status}");
        return Err(Reply::problem("orderNotReady", &why, 403));
    }
    let bad = |why: &str| Reply::problem("badCSR", why, 400);
    let request = BASE64.decode(read::<Finalize>(body)?.csr);
    let request = request.map_err(|_| bad("it is no base64"))?;
    let (lifetime, slow) = {
        let habits = shared.habits.borrow();
        (habits.lifetime, habits.slow)
    };
    let names = shared.orders[index].names.clone();
    let chain = shared.root.issue(&request, &names, lifetime);
    let chain = chain.map_err(|why| bad(&why))?;
    shared.orders[index].made = Some(Made {
        certificate: shared.certificates.len(),
        wait: slow,
    });
    shared.certificates.push(chain);
    shared
        .log
        .send_modify(|log| log.certificates.push(names.into_iter().collect()));
    Ok(Reply::json(200, &order(shared, index)))
}
